"""One function a command: options and overrides → one stage, and what it prints. Light: a stage is
imported only when its command runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from honing.errors import CheckFailed, UserError

if TYPE_CHECKING:
    from honing.config import Config


def _load(path: str | None, overrides: Sequence[str]) -> Config:
    from honing.config_file import load_config

    return load_config(None if path is None else Path(path), overrides)


def _check_files(name: str) -> None:
    """Before a run's folder, which may come from anyone, is read or written: its own, or that of
    the checkpoint that is named."""
    from honing.run import RunFolder

    folder = Path(os.path.expanduser(name))
    if os.path.isdir(folder):
        RunFolder(folder).check_files()
        if folder.resolve().parent.name == "checkpoints":
            RunFolder(folder.resolve().parent.parent).check_files()


def _check_push(repo: str | None) -> None:
    """Before the work whose result is to be pushed."""
    from honing.report.push import check_push

    if repo is not None and (doubt := check_push(repo)):
        _say_to_stderr(f"WARNING: {doubt}")


def _print_json(record: Any) -> None:
    print(json.dumps(record, ensure_ascii=False, indent=1))


def _say_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_init(options: argparse.Namespace, overrides: list[str]) -> int:
    from honing.init import init

    # FILE takes all that is no option; what has a "=" and is no file is a setting.
    settings = [name for name in options.files if "=" in name and not os.path.exists(name)]
    files = [name for name in options.files if name not in settings]
    if not files:
        raise UserError(f"command line: no FILE among {' '.join(settings)}; name your data's file")
    output = Path(options.output) if options.output else None
    say = _say_to_stderr if options.json else print
    written = init(files, [*settings, *overrides], output, overwrite=options.overwrite, say=say)
    if options.json:
        _print_json(written.to_record())
    return 0


def run_prepare(options: argparse.Namespace, overrides: list[str]) -> int:
    config = _load(options.config, overrides)
    from honing.data.reading.names import as_argument
    from honing.data.report import format_report
    from honing.preparation import prepare
    from honing.training.processes import by_itself

    by_itself("prepare")
    _check_files(config.output_dir)
    data = prepare(config)
    if options.json:
        _print_json(data.report.to_record())
    else:
        print(format_report(data.report))
        print(f"Written: {config.output_dir}/data_report.json and splits/")
        print(f"Next: honing train {' '.join(map(as_argument, [options.config, *overrides]))}")
    return 0


def run_plan(options: argparse.Namespace, overrides: list[str]) -> int:
    config = _load(options.config, overrides)
    from honing.data.reading.names import as_argument
    from honing.training.cost import format_cost, plan
    from honing.training.processes import by_itself

    by_itself("plan")
    cost = plan(config, _say_to_stderr if options.json else print)
    if options.json:
        _print_json(cost.to_record())
    else:
        print(f"Cost, measured on {cost.num_timed_steps} of its steps:\n{format_cost(cost)}")
        if cost.fits:
            print(f"Next: honing train {' '.join(map(as_argument, [options.config, *overrides]))}")
    return 0 if cost.fits else 1


def run_train(options: argparse.Namespace, overrides: list[str]) -> int:
    config = _load(options.config, overrides)
    if options.selftest_resume:
        return _selftest(options, config)
    from honing.training.summary import format_terminal
    from honing.training.train import train

    say = _say_to_stderr if options.json else print
    trained = train(config, resume=options.resume, overwrite=options.overwrite, say=say)
    if trained.stopped_by is not None:
        return 128 + trained.stopped_by
    if not trained.is_first:
        return 0
    if trained.report is not None:
        if options.json:
            _print_json(trained.report.to_record())
        else:
            print(format_terminal(trained.report))
    elif options.json:  # --resume of a run that is finished
        print(trained.run.report_json.read_text(encoding="utf-8"), end="")
    return 0


def _selftest(options: argparse.Namespace, config: Config) -> int:
    if options.resume or options.overwrite:
        raise UserError(
            "--selftest-resume: keeps nothing, so it goes with neither --resume nor --overwrite"
        )
    from honing.training.processes import by_itself
    from honing.training.selftest import selftest_resume

    by_itself("--selftest-resume")
    tested = selftest_resume(config, _say_to_stderr if options.json else print)
    if options.json:
        _print_json(tested.to_record())
    if tested.problem is not None:
        raise CheckFailed(f"--selftest-resume: {tested.problem}")
    return 0


def run_check(options: argparse.Namespace, overrides: list[str]) -> int:
    from honing.training.check import check_run
    from honing.training.processes import by_itself

    by_itself("check")
    _check_files(options.name)
    say = _say_to_stderr if options.json else print
    checks = check_run(options.name, overrides, checkpoint=options.checkpoint, say=say)
    if options.json:
        _print_json(checks.to_record())
    if checks.failed:
        raise CheckFailed(f"{options.name}: failed: {', '.join(checks.failed)}")
    return 0


def run_generate(options: argparse.Namespace, overrides: list[str]) -> int:
    from honing.generation.open_model import answering_config, check_model
    from honing.generation.questions import (
        question_from_text,
        read_question_file,
        read_question_text,
    )

    if options.input and options.prompt is None:
        raise UserError("--input: is the material of a --prompt; give one")
    if options.output and Path(options.output).is_dir():
        raise UserError(f"--output: {options.output} is a folder; name a file")
    _check_files(options.model)
    config = answering_config(options.model, overrides)
    if options.prompt is not None:
        prompt, material = _as_utf8(options.prompt), _as_utf8(options.input)
        questions = [question_from_text(prompt, material, "--prompt")]
    elif options.file is not None:
        questions = read_question_file(Path(options.file))
    else:
        check_model(options.model, config, options.checkpoint)  # before anyone types a prompt
        questions = read_question_text(_read_stdin(), "standard input")
    from honing.generation.generate import generate, print_answers, write_answers

    generated = generate(
        options.model,
        questions,
        config,
        base_only=options.base,
        checkpoint=options.checkpoint,
        show_progress=True,
    )
    if options.output:
        write_answers(Path(options.output), generated)
    if options.json:
        _print_json(generated.to_record())
    else:
        print_answers(generated, answers=not options.output)
    return 0


def _read_stdin() -> str:
    if sys.stdin.isatty():
        _say_to_stderr("Type a prompt; Ctrl-D on a line of its own ends it.")
    try:
        return sys.stdin.read().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(
            f"standard input: is not UTF-8 (byte {error.start}); write it as UTF-8"
        ) from None


def _as_utf8(argument: str) -> str:
    """An argument as it was typed, where a locale without Korean letters kept its bytes alone."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        with contextlib.suppress(UnicodeError):
            return os.fsencode(argument).decode()
    return argument


def run_chat(options: argparse.Namespace, overrides: list[str]) -> int:
    from honing.generation.chat import chat
    from honing.generation.open_model import answering_config

    _check_files(options.model)
    config = answering_config(options.model, overrides)
    chat(options.model, config, base_only=options.base, checkpoint=options.checkpoint)
    return 0


def run_evaluate(options: argparse.Namespace, overrides: list[str]) -> int:
    if (options.name is None) == (options.predictions is None):
        raise UserError("command line: name a RUN, or a file with --predictions FILE")
    if options.predictions is not None:
        return _evaluate_predictions(options, overrides)
    if options.output:
        raise UserError("--output: goes with --predictions; a run keeps its evaluation itself")
    from honing.evaluation.evaluate import evaluate

    _check_files(options.name)
    say = _say_to_stderr if options.json else print
    done = evaluate(
        options.name, overrides, checkpoint=options.checkpoint, say=say, show_progress=True
    )
    if not done.is_first:
        return 0
    from honing.evaluation.files import without_nan
    from honing.report.table import format_terminal
    from honing.report.write import compare_runs

    root = str(done.run.root)
    config = _load(None, overrides)
    comparison = compare_runs([root], num_resamples=config.evaluate.num_resamples, seed=config.seed)
    if options.json:
        _print_json(without_nan(comparison.to_record()))
        return 0
    from honing.data.reading.names import as_argument

    print(format_terminal(comparison))
    print(f"Written {done.run.evaluation_base}")
    print(f"Written {done.run.evaluation_tuned}")
    print(f"Next: honing compare {as_argument(root)}")
    return 0


def _evaluate_predictions(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.checkpoint:
        raise UserError("--checkpoint: goes with a RUN, not with --predictions")
    config = _load(None, overrides)
    from honing.evaluation.files import evaluation_record, write_evaluation
    from honing.evaluation.foreign import evaluate_file
    from honing.report.table import format_evaluation

    evaluation = evaluate_file(Path(options.predictions), config.evaluate, config.seed)
    if options.output:
        write_evaluation(Path(options.output), evaluation)
    if options.json:
        _print_json(evaluation_record(evaluation))
    else:
        print(format_evaluation(evaluation))
    return 0


def run_compare(options: argparse.Namespace, overrides: list[str]) -> int:
    # RUN takes all that is no option; what has a "=" and is no folder is a setting.
    settings = [name for name in options.runs if "=" in name and not os.path.exists(name)]
    runs = [name for name in options.runs if name not in settings]
    if not runs:
        raise UserError(f"command line: no RUN among {' '.join(settings)}; name a run's folder")
    config = _load(None, [*settings, *overrides])
    if options.push and len(runs) > 1:
        raise UserError("--push: puts one run on the Hub; name one RUN")
    _check_push(options.push)
    from honing.evaluation.files import without_nan
    from honing.report.table import format_terminal
    from honing.report.write import compare_runs, push_run, write_comparison

    comparison = compare_runs(runs, num_resamples=config.evaluate.num_resamples, seed=config.seed)
    written = write_comparison(comparison, options.output, options.language)
    if options.json:
        _print_json(without_nan(comparison.to_record()))
    else:
        print(format_terminal(comparison))
        for file in written.files:
            print(f"Written {file}")
        print(f"Open {written.page} in a browser")
    if options.push:
        _say_to_stderr(f"Pushed: {push_run(comparison, options.push)}")
    return 0


def run_merge(options: argparse.Namespace, overrides: list[str]) -> int:
    from honing.merging.merge import format_terminal, merge
    from honing.report.push import push_folder
    from honing.report.write import merged_card
    from honing.training.processes import by_itself

    by_itself("merge")
    _check_files(options.name)
    _check_push(options.push)
    say = _say_to_stderr if options.json else print
    merged = merge(
        options.name,
        options.output,
        dtype=options.dtype,
        checkpoint=options.checkpoint,
        gguf=options.gguf,
        overwrite=options.overwrite,
        overrides=overrides,
        card=merged_card(options.name, options.checkpoint),
        say=say,
    )
    if options.json:
        _print_json(merged.to_record())
    else:
        print(format_terminal(merged))
    if options.push:
        _say_to_stderr(f"Pushed: {push_folder(merged.folder, options.push)}")
    return 0


def run_demo(options: argparse.Namespace, overrides: list[str]) -> int:
    from honing.demo import demo
    from honing.training.processes import by_itself

    by_itself("demo")
    say = _say_to_stderr if options.json else print
    record = demo(options.output, overrides, say=say)
    if options.json:
        _print_json(record)
    return 0
