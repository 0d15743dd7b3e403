"""Flags → one command, and every error in one line. Light: no stage is imported here."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from honing import commands
from honing.errors import HoningError, UserError
from honing.terminal import guarded, one_line
from honing.version import VERSION

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
        if "determine home directory" in str(error):  # of Path.expanduser
            return _fail("a path begins with ~ and the name of no user here; write it out", 2)
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
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "choose another folder",
    errno.ELOOP: "choose another folder",
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
    print(f"honing: {one_line(message)}", file=sys.stderr)
    return status


def _prepare_streams() -> None:
    """Files and pipes get UTF-8 whatever the locale; a terminal never stops at a character, and
    obeys none that stands in somebody's text."""
    # Where it is installed, PEFT imports it, and it tells of kernels that it did not fetch.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="replace")
        if stream.isatty():
            setattr(sys, name, guarded(stream))
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
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")

    init = _add(
        subparsers,
        "init",
        commands.run_init,
        "look at your data and write a commented configuration",
    )
    init.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="your rows: JSON, JSONL, CSV or Parquet; one file, several, or a folder",
    )
    init.add_argument("--output", metavar="CONFIG", help="where to write it (default: FILE.yaml)")
    init.add_argument("--overwrite", action="store_true", help="replace a file that is there")

    prepare = _add(
        subparsers, "prepare", commands.run_prepare, "read, check, split and report the data"
    )
    prepare.add_argument("config", metavar="CONFIG", help="configuration file (YAML)")

    plan = _add(subparsers, "plan", commands.run_plan, "what a training will cost: memory and time")
    plan.add_argument("config", metavar="CONFIG", help="configuration file (YAML)")

    train = _add(subparsers, "train", commands.run_train, "train the adapter")
    train.add_argument("config", metavar="CONFIG", help="configuration file (YAML)")
    train.add_argument("--resume", action="store_true", help="go on with the run that is there")
    train.add_argument("--overwrite", action="store_true", help="replace the run that is there")
    train.add_argument(
        "--selftest-resume",
        action="store_true",
        help="prove in minutes that a resumed training is the same here; keeps nothing",
    )

    check = _add(subparsers, "check", commands.run_check, "can a finished run be trusted?")
    check.add_argument("name", metavar="RUN", help="a run's folder")
    check.add_argument("--checkpoint", help="best (default), last, final, step-NNNNNN")

    _add_asking(subparsers)
    _add_judging(subparsers)

    demo = _add(
        subparsers, "demo", commands.run_demo, "all of it in minutes: sample data, embedded model"
    )
    demo.add_argument("--output", default="outputs/demo", help="folder (default: outputs/demo)")
    return parser


def _add_asking(subparsers: Any) -> None:
    """The commands that answer."""
    generate = _add(
        subparsers, "generate", commands.run_generate, "answer prompts with a base or tuned model"
    )
    _add_model(generate)
    asked = generate.add_mutually_exclusive_group()
    asked.add_argument("--prompt", help="one prompt; without it and --file: standard input")
    asked.add_argument("--file", help="prompts, one JSON object a line: instruction (and input)")
    generate.add_argument("--input", default="", help="material that belongs to --prompt")
    generate.add_argument("--output", help="write the answers there, one JSON object a line")

    _add_model(_add(subparsers, "chat", commands.run_chat, "talk with a base or tuned model"))


def _add_judging(subparsers: Any) -> None:
    """The commands for a run that is trained."""
    evaluate = _add(
        subparsers, "evaluate", commands.run_evaluate, "base against tuned on held-out rows"
    )
    evaluate.add_argument("name", metavar="RUN", nargs="?", help="a run's folder")
    evaluate.add_argument("--checkpoint", help="best (default), last, final, step-NNNNNN")
    evaluate.add_argument(
        "--predictions",
        metavar="FILE",
        help="score anyone's answers: JSONL with reference and prediction in each row",
    )
    evaluate.add_argument("--output", help="with --predictions: write the evaluation there (JSON)")

    compare = _add(
        subparsers, "compare", commands.run_compare, "runs against their bases and each other"
    )
    compare.add_argument("runs", metavar="RUN", nargs="+", help="folders of evaluated runs")
    compare.add_argument(
        "--output",
        metavar="DIR",
        help="folder of the report (default: of one run its own, of several comparison/)",
    )
    compare.add_argument("--language", choices=("en", "ko"), default="en", help="of page and card")
    compare.add_argument("--push", metavar="REPO", help="put adapter and card on the Hub")

    merge = _add(subparsers, "merge", commands.run_merge, "adapter into base, read back, verified")
    merge.add_argument("name", metavar="RUN", help="a run's folder, or a checkpoint")
    merge.add_argument("--output", metavar="DIR", help="where to (default: merged/ in the run)")
    merge.add_argument("--checkpoint", help="best (default), last, final, step-NNNNNN")
    merge.add_argument(
        "--dtype", help="float32, bfloat16 or float16 (default: as the base is stored)"
    )
    merge.add_argument("--gguf", metavar="TYPE", help="a file for llama.cpp too: f16, q8_0, …")
    merge.add_argument("--overwrite", action="store_true", help="replace a merged model there")
    merge.add_argument("--push", metavar="REPO", help="put the merged model on the Hub")


def _add(subparsers: Any, name: str, run: Command, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
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


if __name__ == "__main__":
    sys.exit(main())
