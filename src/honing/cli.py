"""Flags → configuration → one stage. Light: a stage is imported only when its command runs."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from honing.errors import HoningError, UserError
from honing.version import VERSION

if TYPE_CHECKING:
    from honing.config import Config

OVERRIDES = "key=value lays a setting over the configuration, such as train.epochs=1"

Command = Callable[[argparse.Namespace, list[str]], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 done, 1 a check failed or the training diverged, 2 the
    user's error, 130 or 143 stopped by a signal."""
    _prepare_streams()
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except HoningError as error:
        return _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except BrokenPipeError:
        _forget_stdout()  # the reader of our output has gone; nothing is left to say
        return 1
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        name = error.filename or "output_dir"
        return _fail(f"{name}: {error.strerror}; {_REMEDIES[error.errno]}", 2)
    except (MemoryError, RuntimeError) as error:
        # torch's own type is not imported here; it is a RuntimeError.
        if type(error).__name__ not in ("MemoryError", "OutOfMemoryError"):
            raise
        return _fail(
            "memory: it is full; lower train.micro_batch_size, data.max_length or "
            "generate.batch_size, or use a smaller model.base",
            2,
        )


_REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EROFS: "choose another folder",
    errno.EACCES: "allow it, or choose another folder",
    errno.EPERM: "allow it, or choose another folder",
}


def _run(arguments: Sequence[str] | None) -> int:
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    overrides = _overrides(rest)
    if not options.command:
        parser.print_help()
        return 0
    return int(options.run(options, overrides))


def _forget_stdout() -> None:
    """Send what is still buffered nowhere: at its exit, Python would fail to write it."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file below it
        file = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), file)


def _fail(message: str, status: int) -> int:
    print(f"honing: {' '.join(message.split())}", file=sys.stderr)
    return status


def _prepare_streams() -> None:
    """Files and pipes get UTF-8 whatever the locale; a terminal never stops at a character."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="replace")
    if hasattr(sys.stdin, "reconfigure") and not sys.stdin.isatty():
        # Strict: a prompt in another encoding is an error, and not a question in other words.
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")


def _overrides(rest: Sequence[str]) -> list[str]:
    for argument in rest:
        if argument.startswith("-"):
            raise UserError(f"command line: unknown option {argument}; see honing --help")
        if "=" not in argument:
            raise UserError(f"command line: unexpected {argument}; {OVERRIDES}")
    return list(rest)


class _Parser(argparse.ArgumentParser):
    """Its errors are one line, as all others are; argparse alone prints the usage first."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"command line: {message}; see {self.prog} --help")


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="honing",
        description="Tune a small language model with LoRA on your own instruction data, "
        "and see honestly whether it got better.",
        epilog="First steps: honing demo, then honing init YOUR_FILE. " + OVERRIDES + ".",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"honing {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    init = _add(commands, "init", run_init, "look at your data and write a commented configuration")
    init.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="your rows: JSON, JSONL, CSV or Parquet; one file, several, or a folder",
    )
    init.add_argument("--output", metavar="CONFIG", help="where to write it (default: FILE.yaml)")
    init.add_argument("--overwrite", action="store_true", help="replace a file that is there")

    prepare = _add(commands, "prepare", run_prepare, "read, check, split and report the data")
    prepare.add_argument("config", metavar="CONFIG", help="configuration file (YAML)")

    train = _add(commands, "train", run_train, "train the adapter")
    train.add_argument("config", metavar="CONFIG", help="configuration file (YAML)")
    train.add_argument("--resume", action="store_true", help="go on with the run that is there")
    train.add_argument("--overwrite", action="store_true", help="replace the run that is there")

    generate = _add(commands, "generate", run_generate, "answer prompts with a base or tuned model")
    _add_model(generate)
    asked = generate.add_mutually_exclusive_group()
    asked.add_argument("--prompt", help="one prompt; without it and --file: standard input")
    asked.add_argument("--file", help="prompts, one JSON object a line: instruction (and input)")
    generate.add_argument("--input", default="", help="material that belongs to --prompt")
    generate.add_argument("--output", help="write the answers there, one JSON object a line")

    _add_model(_add(commands, "chat", run_chat, "talk with a base or tuned model"))

    demo = _add(commands, "demo", run_demo, "all of it in minutes: sample data, embedded model")
    demo.add_argument("--output", default="outputs/demo", help="folder (default: outputs/demo)")
    return parser


def _add(commands: Any, name: str, run: Command, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=help.capitalize() + ".", epilog=OVERRIDES, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    if name != "chat":
        parser.add_argument("--json", action="store_true", help="print the record as JSON")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a run's folder, a checkpoint, or a base model"
    )
    parser.add_argument("--base", action="store_true", help="the same base without the adapter")
    parser.add_argument("--checkpoint", help="of a run: best (default), last, final, step-NNNNNN")


def _load(path: str | None, overrides: Sequence[str]) -> Config:
    from honing.config_file import load_config

    return load_config(None if path is None else Path(path), overrides)


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

    data = prepare(config)
    if options.json:
        _print_json(data.report.to_record())
    else:
        print(format_report(data.report))
        print(f"Written: {config.output_dir}/data_report.json and splits/")
        print(f"Next: honing train {' '.join(map(as_argument, [options.config, *overrides]))}")
    return 0


def run_train(options: argparse.Namespace, overrides: list[str]) -> int:
    config = _load(options.config, overrides)
    from honing.training.summary import format_terminal
    from honing.training.train import train

    say = _say_to_stderr if options.json else print
    trained = train(config, resume=options.resume, overwrite=options.overwrite, say=say)
    if trained.stopped_by is not None:
        return 128 + trained.stopped_by
    if trained.report is not None:
        if options.json:
            _print_json(trained.report.to_record())
        else:
            print(format_terminal(trained.report))
    elif options.json:  # --resume of a run that is finished
        print(trained.run.report_json.read_text(encoding="utf-8"), end="")
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

    config = answering_config(options.model, overrides)
    chat(options.model, config, base_only=options.base, checkpoint=options.checkpoint)
    return 0


def run_demo(options: argparse.Namespace, overrides: list[str]) -> int:
    from honing.demo import demo

    say = _say_to_stderr if options.json else print
    record = demo(options.output, overrides, say=say)
    if options.json:
        _print_json(record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
