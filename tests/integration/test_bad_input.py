"""Bad input through the command line: exit status 2, one line that names file or key and says what
to do, and nothing left behind."""

from __future__ import annotations

import errno
import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import honing.training.checkpoint
from honing.cli import main
from tests.runs import contents_below, names_below, qa_rows, save_rows, small_overrides
from tests.tiny import save_tiny_base
from tests.tiny_run import TinyRun

LINES = [json.dumps(row, ensure_ascii=False) for row in qa_rows()]
TEXT = "\n".join(LINES) + "\n"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


class Tool:
    """The command line with a tiny base; what it printed."""

    def __init__(self, folder: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.base, self.capsys = folder, base, capsys
        self.out = folder / "out"
        self.config = folder / "mine.yaml"
        self.config.write_text("", encoding="utf-8")

    def save(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def run(self, command: str, source: str, *more: str) -> tuple[int, str, list[str]]:
        """Exit status, standard output, and the lines of standard error."""
        settings = small_overrides(self.base, source, self.out)
        status = main([command, str(self.config), *settings, *more])
        printed = self.capsys.readouterr()
        return status, printed.out, printed.err.splitlines()

    def error(self, command: str, source: str, *more: str) -> str:
        """The one line of a refusal; nothing was written."""
        status, out, lines = self.run(command, source, *more)
        assert (status, out) == (2, "")
        assert not self.out.exists()
        (line,) = lines
        assert line.startswith("honing: ")
        return line.removeprefix("honing: ")


@pytest.fixture
def tool(tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(tmp_path, tiny_base, capsys)


# --- files that are refused


REFUSED: dict[str, tuple[str, str | bytes, tuple[str, ...]]] = {
    "broken JSON": (
        "a.jsonl",
        "\n".join([*LINES[:3], '{"instruction": "x", "output": }', *LINES[3:]]),
        ("a.jsonl, line 4: broken JSON", "mend that line or take it out"),
    ),
    "JSON cut short": (
        "a.json",
        '[{"instruction": "x", "output": "y"},\n {"instruction": "z"',
        ("a.json, line 2: broken JSON", "it ends too early"),
    ),
    "plain text": (
        "a.jsonl",
        "once upon a time\nthere was a file\n",
        ('a.jsonl, line 1: plain text ("once upon a time"), not rows', "give JSON"),
    ),
    "Git LFS pointer": ("a.jsonl", LFS, ("a.jsonl is a Git LFS pointer", "run `git lfs pull`")),
    "empty file": ("a.jsonl", "", ("a.jsonl is empty; give a file with rows",)),
    "blank file": ("a.csv", "\n \n", ("a.csv is empty",)),
    "no rows": ("a.json", "[]", ("a.json holds no rows",)),
    "missing columns": (
        "a.csv",
        "title,body\nx,y\n",
        ("a.csv: question and answer not found", "(found: title, body)", "{instruction: "),
    ),
    "no usable row": (
        "a.jsonl",
        '{"instruction": "a", "output": ""}\n{"instruction": "b", "output": 3}\n',
        ("a.jsonl: no usable row; empty output in 1 of 2 (first: a.jsonl:1)",),
    ),
    "invalid UTF-8": (
        "a.jsonl",
        "\n".join(LINES[:2]).encode() + b'\n{"instruction": "\xff\xfe", "output": "x"}\n',
        ("a.jsonl, line 3: not utf-8 (byte 0xff at offset", "save it as UTF-8"),
    ),
    "JSON in cp949": (
        "a.jsonl",
        TEXT.encode("cp949"),
        ("a.jsonl, line 1: not utf-8", "it seems to be cp949"),
    ),
    "NUL bytes": (
        "a.csv",
        b"instruction,output\nhi,Hello\nmo\0re,yes\n",
        ("a.csv, line 3: a NUL byte",),
    ),
    "UTF-16": ("a.csv", "instruction,output\n".encode("utf-16"), ("a.csv is UTF-16",)),
    "packed": ("a.jsonl", b"\x1f\x8b\x08rest", ("a.jsonl is packed (gzip); unpack it",)),
    "broken Parquet": ("a.parquet", b"PAR1 and no more", ("a.parquet: broken Parquet file",)),
    "a list of texts": ("a.json", '["a", "b"]', ("a.json: its rows are no objects",)),
}


@pytest.mark.parametrize("command", ["prepare", "train"])
@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_refused(what: str, command: str, tool: Tool) -> None:
    name, content, expected = REFUSED[what]
    message = tool.error(command, tool.save(name, content))
    assert message.startswith(expected[0])
    assert all(part in message for part in expected)


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_a_file_that_is_not_there(command: str, tool: Tool) -> None:
    tool.save("rows.jsonl", TEXT)
    message = tool.error(command, str(tool.folder / "rows.json"))
    assert message.startswith(f"data.source: no such file: {tool.folder / 'rows.json'}")
    assert message.endswith('did you mean "rows.jsonl"?')


def test_a_hub_data_set_without_a_network(tool: Tool) -> None:
    message = tool.error("prepare", "nobody/nothing")
    assert message.startswith("data.source: nobody/nothing: no such file here, and the Hub cannot")
    assert "give a file (JSON, JSONL, CSV, Parquet), or `sample`" in message


# --- files that are read all the same, and that is said


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


READ: dict[str, tuple[str, str | bytes, str]] = {
    "a list named .jsonl": (
        "a.jsonl",
        "[" + ",\n".join(LINES) + "]",
        "  note: a.jsonl holds one JSON list, read as such",
    ),
    "a byte order mark": ("a.jsonl", "\ufeff" + TEXT, "  repaired: BOM 1"),
    "CRLF": ("a.jsonl", TEXT.replace("\n", "\r\n"), "  repaired: CRLF 1"),
    "decomposed Hangul": ("a.jsonl", decomposed(TEXT), "  repaired: NFD 12"),
    "a CSV in cp949": (
        "a.csv",
        "".join(f"{r['instruction']},{r['output']}\n" for r in qa_rows()).encode("cp949"),
        "  note: a.csv is cp949, not UTF-8: read as cp949",
    ),
    "empty and other fields": (
        "a.jsonl",
        TEXT + '{"instruction": "", "output": "x"}\n{"instruction": "y", "output": 3}\n',
        "  read 14 rows, kept 12, dropped 2\n    1 × empty instruction: a.jsonl:13\n"
        "    1 × output is not text (int): a.jsonl:14",
    ),
    "a row longer than the context": (
        "a.jsonl",
        TEXT + json.dumps({"instruction": "long", "output": "abc " * 200}) + "\n",
        "  read 13 rows, kept 12, dropped 1\n"
        "    1 × answer does not fit into 64 tokens: a.jsonl:13",
    ),
}


@pytest.mark.parametrize("what", READ)
def test_a_file_that_is_read_all_the_same(what: str, tool: Tool) -> None:
    name, content, said = READ[what]
    if name.endswith(".csv"):
        assert isinstance(content, bytes)
        content = b"instruction,output\n" + content
    status, out, lines = tool.run("prepare", tool.save(name, content))
    assert (status, lines) == (0, [])
    assert f"{said}\n" in out
    record = json.loads((tool.out / "data_report.json").read_text("utf-8"))
    assert record["num_kept"] == 12
    clean = tool.save("clean.jsonl", TEXT)
    assert main(["prepare", str(tool.config), *small_overrides(tool.base, clean, tool.out)]) == 0
    again = json.loads((tool.out / "data_report.json").read_text("utf-8"))
    if record["num_read"] == 12:  # the same rows, so the same ids and labels
        assert again["fingerprint"] == record["fingerprint"]


# --- configurations


WRONG: dict[str, tuple[str, str]] = {
    "an unknown key": (
        "train:\n  epoch: 3\n",
        "mine.yaml, line 2: train.epoch is no setting (found train.epoch: 3); "
        "did you mean train.epochs?",
    ),
    "a key at the wrong place": (
        "learning_rate: 1.0e-3\n",
        "mine.yaml, line 1: learning_rate is no setting (found learning_rate: 0.001); "
        "did you mean train.learning_rate?",
    ),
    "an impossible value": (
        "seed: 1\n\ntrain:\n  epochs: 0\n",
        "mine.yaml, line 4: train.epochs should be at least 1; found 0",
    ),
    "a value of another kind": (
        "lora:\n  rank: eight\n",
        'mine.yaml, line 2: lora.rank should be a whole number; found "eight"',
    ),
    "no YAML": ("train: [1, 2\n", "mine.yaml, line 2: is not valid YAML ("),
    "a word too many": (
        "data:\n  on_leak: ignore\n",
        "mine.yaml, line 2: data.on_leak should be 'warn', 'drop' or 'error'; found \"ignore\"",
    ),
}


@pytest.mark.parametrize("command", ["prepare", "train"])
@pytest.mark.parametrize("what", WRONG)
def test_a_configuration_that_is_refused(what: str, command: str, tool: Tool) -> None:
    content, expected = WRONG[what]
    tool.config.write_text(content, encoding="utf-8")
    status = main([command, str(tool.config), f"output_dir={tool.out}"])
    printed = tool.capsys.readouterr()
    assert (status, printed.out, tool.out.exists()) == (2, "", False)
    (line,) = printed.err.splitlines()
    assert line.startswith(f"honing: {tool.folder}/{expected}")


def test_a_configuration_that_is_not_there(tool: Tool) -> None:
    tool.config.unlink()
    message = tool.error("train", tool.save("a.jsonl", TEXT))
    assert message == (
        f"{tool.config}: no such configuration file; write one with 'honing init FILE'"
    )


SETTINGS: dict[str, tuple[str, str]] = {
    "max_length above the context": (
        "data.max_length=300",
        "data.max_length: 300, but {base} knows only 256 positions; set data.max_length=256 or "
        "less",
    ),
    "a split that would be empty": (
        "data.val_fraction=0.01",
        "data.val_fraction: 0.01 of 12 rows is less than one row",
    ),
    "a column that is not there": (
        "data.columns={output: answer}",
        'data.columns.output: a.jsonl has no column "answer" (found: instruction, output)',
    ),
    "an encoding that is none": (
        "data.encoding=utf-99",
        'data.encoding: no text encoding "utf-99"',
    ),
    "no chat template": ("data.template=chat", "data.template: chat, but this base model has no"),
    "a base that is not there": (
        "model.base=./none",
        "model.base: ./none: no such folder, and not a Hub id either",
    ),
    "a base on a Hub that is away": (
        "model.base=nobody/nothing",
        "model.base: nobody/nothing: no such folder here, and the Hub cannot be reached; name a "
        "local folder or .gguf file, or use the embedded base package:",
    ),
    "a package that is not there": (
        "model.base=package:no_such_package/model.gguf",
        "model.base: package:no_such_package/model.gguf: the package no_such_package is not "
        "installed",
    ),
}


@pytest.mark.parametrize("command", ["prepare", "train"])
@pytest.mark.parametrize("what", SETTINGS)
def test_a_setting_that_does_not_fit(what: str, command: str, tool: Tool) -> None:
    setting, expected = SETTINGS[what]
    message = tool.error(command, tool.save("a.jsonl", TEXT), setting)
    assert message.startswith(expected.format(base=tool.base))


BASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "its model cannot be"),
    "damaged weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 99),
        "its model cannot be loaded (",
    ),
    "no tokenizer": (
        lambda folder: shutil.move(folder / "tokenizer.json", folder.parent / "away"),
        "its tokenizer cannot be loaded (",
    ),
    "no configuration": (
        lambda folder: (folder / "config.json").unlink(),
        "holds no config.json, so it is no model folder",
    ),
}


@pytest.mark.parametrize("what", BASES)
def test_a_base_that_is_damaged(what: str, tool: Tool) -> None:
    damage, expected = BASES[what]
    tool.base = Path(shutil.copytree(tool.base, tool.folder / "base"))
    damage(tool.base)
    status, _, lines = tool.run("train", tool.save("a.jsonl", TEXT))
    assert (status, tool.out.exists()) == (2, False)
    assert lines[-1].startswith(f"honing: model.base: {tool.base}: {expected}")
    assert len(lines) == 1


# --- folders and disks


def test_an_output_folder_that_holds_a_run(tool: Tool, tiny_run: TinyRun) -> None:
    before = contents_below(tiny_run.folder)
    source = tool.save("a.jsonl", TEXT)
    for command, way in (("prepare", "choose another"), ("train", "--overwrite")):
        status, out, lines = tool.run(command, source, f"output_dir={tiny_run.folder}")
        assert (status, out, len(lines)) == (2, "", 1)
        assert lines[0].startswith(f"honing: output_dir: {tiny_run.folder} holds a")
        assert way in lines[0]
    assert contents_below(tiny_run.folder) == before


def test_an_output_folder_that_is_a_file(tool: Tool) -> None:
    tool.out.write_text("mine")
    status, _, lines = tool.run("prepare", tool.save("a.jsonl", TEXT))
    assert status == 2
    assert lines[-1].startswith(f"honing: {tool.out}")
    assert tool.out.read_text() == "mine"


def test_an_adapter_made_for_another_base(tool: Tool) -> None:
    tool.base = save_tiny_base(tool.folder / "base")
    short = ("train.max_steps=1", "train.eval_every=never")
    assert tool.run("train", tool.save("a.jsonl", TEXT), *short)[0] == 0
    save_tiny_base(tool.base, seed=1)
    tool.capsys.readouterr()
    status = main(["generate", str(tool.out), "--prompt", "hi", "device=cpu"])
    printed = tool.capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert printed.err.splitlines()[-1].startswith(
        f"honing: {tool.out}/checkpoints/final: was trained on another base: {tool.base} has "
        "changed since"
    )


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_before_anything_is_written(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("honing.run.os.fsync", full_disk)
    for command in ("prepare", "train"):
        status, _, lines = tool.run(command, tool.save("a.jsonl", TEXT))
        assert status == 2
        assert lines[-1] == (
            f"honing: {tool.out}/data_report.json: cannot be written (No space left on device); "
            "free some space or choose another folder"
        )
        assert names_below(tool.out) == set()


def test_a_disk_that_fills_up_later(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint before stands, nothing lies half-written beside it, and the run goes on."""
    source = save_rows(tool.folder / "a.jsonl", qa_rows())
    own = honing.training.checkpoint.write_checkpoint

    def filling_up(folder: Path, *arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            if folder.name == "step-000006":
                patch.setattr("honing.files.os.fsync", full_disk)
            return own(folder, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("honing.training.trainer.write_checkpoint", filling_up)
        status, _, lines = tool.run("train", source)
    assert status == 2
    assert lines[-1] == (
        f"honing: {tool.out}/checkpoints/step-000006: cannot be written (No space left on "
        "device); free some space or choose another folder"
    )
    assert sorted(path.name for path in (tool.out / "checkpoints").iterdir()) == [
        "best",
        "last",
        "step-000003",
    ]
    status, out, _ = tool.run("train", source, "--resume")
    assert status == 0
    assert "Going on from step-000003, step 3 of 6\n" in out
