"""The command line's frame: flags, exit statuses, and one line for every error."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from honing import commands
from honing.cli import OVERRIDES, main, make_parser
from honing.config import Config
from honing.errors import CheckFailed, HoningError, TrainingDiverged, UserError
from honing.run import RunFolder
from honing.training.train import Trained
from honing.version import VERSION

COMMANDS = (
    *("init", "prepare", "plan", "train", "check", "generate", "chat"),
    *("evaluate", "compare", "merge", "demo"),
)
Captured = pytest.CaptureFixture[str]


def error_line(capsys: Captured) -> str:
    """The only line on standard error; nothing is on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    (line,) = err.splitlines()
    assert line.startswith("honing: ")
    return str(line.removeprefix("honing: "))


def raise_in_prepare(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def prepare(_: Config) -> None:
        raise error

    monkeypatch.setattr("honing.preparation.prepare", prepare)
    return main(["prepare", os.devnull])


# --- help


def test_without_a_command_the_help_is_shown(capsys: Captured) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert out == make_parser().format_help()
    assert err == ""
    for command in COMMANDS:
        assert f"\n    {command} " in out
    assert "First steps: honing demo, then honing init YOUR_FILE." in " ".join(out.split())


def test_the_version_is_printed(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr() == (f"honing {VERSION}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(capsys: Captured, command: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith(f"usage: honing {command} ")
    assert OVERRIDES in out


def test_every_command_is_known_here() -> None:
    (commands,) = (
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    assert tuple(commands.choices) == COMMANDS


# --- what is no command, option or setting


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "c.yaml", "--bogus"], "command line: unknown option --bogus; see honing --help"),
        (
            ["train", "--bogus=1", "c.yaml"],
            "command line: unknown option --bogus=1; see honing --h",
        ),
        (["--bogus"], "command line: unknown option --bogus; see honing --help"),
        (["train", "c.yaml", "--res"], "command line: unknown option --res; see honing --help"),
        (["chat", "m", "--json"], "command line: unknown option --json; see honing --help"),
        (["train", "c.yaml", "more"], f"command line: unexpected more; {OVERRIDES}"),
        (["generate", "m", "물은?"], f"command line: unexpected 물은?; {OVERRIDES}"),
        (["trian", "c.yaml"], "command line: argument COMMAND: invalid choice: 'trian'"),
        (["train"], "command line: the following arguments are required: CONFIG; see honing tra"),
        (["init"], "command line: the following arguments are required: FILE; see honing init "),
        (["generate"], "command line: the following arguments are required: MODEL; see honing g"),
        (["generate", "m", "--prompt"], "command line: argument --prompt: expected one argument"),
        (
            ["generate", "m", "--prompt", "a", "--file", "b"],
            "command line: argument --file: not allowed with argument --prompt; see honing gener",
        ),
        (["init", "a=b"], "command line: no FILE among a=b; name your data's file"),
        (["train", os.devnull, "train.epoch=1"], "command line, train.epoch=1: train.epoch is no "),
        (["train", "no such.yaml"], "no such.yaml: no such configuration file; write one with "),
        (
            ["generate", "m", "--input", "b", "--file", "q"],
            "--input: is the material of a --prompt",
        ),
        (["generate", "m", "--prompt", " "], "--prompt: is empty; give a text"),
        (["generate", "m", "--prompt", "a", "--output", "/"], "--output: / is a folder; name a f"),
        (["generate", "m", "--file", "no such"], "no such: no such file"),
        (["generate", "./m", "--prompt", "a"], "model.base: ./m: no such folder, and not a Hub id"),
        (["chat", "./m"], "model.base: ./m: no such folder, and not a Hub id either"),
        (["chat", "m", "train.epochs=2"], "command line, train.epochs: does nothing to answers"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_said_in_one_line(
    capsys: Captured, arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    assert error_line(capsys).startswith(message)


@pytest.mark.parametrize(
    "arguments",
    [
        ["c.yaml", "train.epochs=7", "--resume", "seed=3"],
        ["c.yaml", "--resume", "train.epochs=7", "seed=3"],
        ["--resume", "c.yaml", "train.epochs=7", "seed=3"],
        ["c.yaml", "train.epochs=7", "seed=3", "--resume"],
        ["c.yaml", "--resume", "train.epochs=1", "seed=3", "train.epochs=7"],
    ],
)
def test_settings_may_stand_before_and_after_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    calls: list[tuple[Config, dict[str, Any]]] = []

    def train(config: Config, **options: Any) -> Trained:
        calls.append((config, options))
        return Trained(RunFolder(tmp_path), None)

    monkeypatch.setattr("honing.training.train.train", train)
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("train:\n  epochs: 2\n  learning_rate: 0.5\n")
    assert main(["train", *arguments]) == 0
    ((config, options),) = calls
    assert (config.train.epochs, config.seed, config.train.learning_rate) == (7, 3, 0.5)
    assert (options["resume"], options["overwrite"]) == (True, False)


# --- exit statuses


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("data.source: is not there; name another"), 2),
        (TrainingDiverged("the loss of step 3 is not a finite number"), 1),
        (CheckFailed("adapters do not learn"), 1),
        (HoningError("something else"), 1),
    ],
)
def test_each_kind_of_error_has_its_status(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: HoningError, status: int
) -> None:
    assert raise_in_prepare(monkeypatch, error) == status
    assert error_line(capsys) == str(error)


def test_a_message_of_several_lines_is_one_line(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert raise_in_prepare(monkeypatch, UserError("one\n  two\r\nthree \t four\n")) == 2
    assert error_line(capsys) == "one two three four"


def test_ctrl_c_is_130(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert raise_in_prepare(monkeypatch, KeyboardInterrupt()) == 130
    assert error_line(capsys) == "stopped"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space or choose another folder"),
        (errno.EDQUOT, "free some space or choose another folder"),
        (errno.EROFS, "choose another folder"),
        (errno.EACCES, "allow it, or choose another folder"),
        (errno.EPERM, "allow it, or choose another folder"),
    ],
)
def test_a_full_disk_and_a_missing_right_are_the_users(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    reason = os.strerror(number)
    assert raise_in_prepare(monkeypatch, OSError(number, reason, "outputs/x")) == 2
    assert error_line(capsys) == f"outputs/x: {reason}; {remedy}"
    assert raise_in_prepare(monkeypatch, OSError(number, reason)) == 2
    assert error_line(capsys) == f"output_dir: {reason}; {remedy}"


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_full_memory_is_the_users(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert raise_in_prepare(monkeypatch, error) == 2
    assert error_line(capsys) == (
        "memory: it is full; lower train.micro_batch_size, data.max_length or "
        "generate.batch_size, or use a smaller model.base"
    )


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "I/O error"), RuntimeError("a bug"), ValueError("a bug")]
)
def test_a_bug_of_ours_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with pytest.raises(type(error)) as raised:
        raise_in_prepare(monkeypatch, error)
    assert raised.value is error


@pytest.mark.parametrize(("signal", "status"), [(2, 130), (15, 143)])
def test_a_training_that_was_stopped_says_so_by_its_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, signal: int, status: int
) -> None:
    stopped = Trained(RunFolder(tmp_path), None, stopped_by=signal)
    monkeypatch.setattr("honing.training.train.train", lambda *_, **__: stopped)
    assert main(["train", os.devnull]) == status
    assert main(["train", os.devnull, "--json"]) == status


# --- standard input and output


def test_a_reader_that_goes_away_ends_the_command_in_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert main([]) == 1
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_a_stream_without_a_file_below_it_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert raise_in_prepare(monkeypatch, BrokenPipeError()) == 1
    assert capsys.readouterr() == ("", "")
    print("still there", file=sys.stderr)
    assert capsys.readouterr().err == "still there\n"


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def run_with(
    monkeypatch: pytest.MonkeyPatch, kind: type[io.TextIOWrapper], encoding: str
) -> tuple[list[tuple[str, str]], bytes]:
    """A wrong command on three streams: how each is opened, and what standard error got."""
    below = [io.BytesIO() for _ in range(3)]
    made = [kind(raw, encoding=encoding) for raw in below]
    with monkeypatch.context() as patch:
        for name, stream in zip(("stdin", "stdout", "stderr"), made, strict=True):
            patch.setattr(sys, name, stream)
        assert main(["없는 뷁🙂"]) == 2
        made[2].flush()
    return [(stream.encoding, str(stream.errors)) for stream in made], below[2].getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "euc-kr", "cp949", "utf-8"])
def test_pipes_are_utf_8_whatever_the_locale(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    found, err = run_with(monkeypatch, io.TextIOWrapper, encoding)
    assert found == [("utf-8", "strict"), ("utf-8", "replace"), ("utf-8", "replace")]
    assert "없는 뷁🙂" in err.decode("utf-8")


def test_a_terminal_keeps_its_encoding_and_never_stops_at_a_character(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, err = run_with(monkeypatch, Terminal, "euc-kr")
    assert found == [("euc-kr", "strict"), ("euc-kr", "replace"), ("euc-kr", "replace")]
    assert "'없는 뷁?'" in err.decode("euc-kr")


def test_json_is_written_with_its_own_letters(capsys: Captured) -> None:
    commands._print_json({"답": ["뷁"]})
    out = capsys.readouterr().out
    assert "뷁" in out
    assert json.loads(out) == {"답": ["뷁"]}


LONG = "a" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["prepare", "CONFIG", "output_dir=NAME"],
        ["train", "CONFIG", "output_dir=NAME"],
        ["compare", "NAME"],
        ["check", "NAME"],
        ["evaluate", "NAME"],
        ["evaluate", "--predictions", "NAME"],
        ["merge", "NAME"],
        ["init", "NAME"],
        ["demo", "--output", "NAME"],
    ],
)
@pytest.mark.parametrize("name", ["~no_such_user/a", LONG])
def test_a_name_that_no_folder_can_have(
    name: str,
    arguments: list[str],
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("device: cpu\n", encoding="utf-8")
    words = [a.replace("NAME", name).replace("CONFIG", "config.yaml") for a in arguments]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("honing: ")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
