"""The stage behind `honing prepare`: what it writes, and what it leaves alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from honing.cli import main
from honing.data.reading.source import SPLITS
from honing.data.report import format_report
from honing.errors import UserError
from honing.preparation import prepare
from tests.runs import names_below, qa_rows, save_rows, small_config, small_overrides

WRITTEN = {"data_report.json", "splits/train.jsonl", "splits/val.jsonl", "splits/test.jsonl"}
FRACTIONS = ("data.val_fraction=0.25", "data.test_fraction=0.25")


@pytest.fixture
def rows(tmp_path: Path) -> str:
    return save_rows(tmp_path / "rows.jsonl", qa_rows())


def test_report_and_splits_are_written_and_nothing_else(
    tiny_base: Path, rows: str, tmp_path: Path
) -> None:
    data = prepare(small_config(tiny_base, rows, tmp_path / "out", *FRACTIONS))
    assert names_below(tmp_path / "out") == WRITTEN
    record = json.loads((tmp_path / "out/data_report.json").read_text(encoding="utf-8"))
    assert record == json.loads(json.dumps(data.report.to_record()))
    assert record["tokenizer"] == str(tiny_base)
    by_row = {number: row for number, row in enumerate(qa_rows(), start=1)}
    for name in SPLITS:
        text = (tmp_path / f"out/splits/{name}.jsonl").read_text(encoding="utf-8")
        assert text.endswith("\n")
        assert [json.loads(line) for line in text.splitlines()] == [
            {"id": f"rows.jsonl:{example.row}", "input": "", **by_row[example.row]}
            for example in data.splits[name].examples
        ]


def test_the_weights_are_not_needed(tiny_base: Path, rows: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base, ignore=shutil.ignore_patterns("*.safetensors"))
    assert prepare(small_config(base, rows, tmp_path / "out")).report.num_kept == 12


def test_a_second_call_replaces_what_the_first_wrote(
    tiny_base: Path, rows: str, tmp_path: Path
) -> None:
    prepare(small_config(tiny_base, rows, tmp_path / "out"))
    (tmp_path / "out/notes.txt").write_text("mine")
    prepare(small_config(tiny_base, rows, tmp_path / "out", "data.test_fraction=0"))
    expected = WRITTEN - {"splits/test.jsonl"} | {"notes.txt"}
    assert names_below(tmp_path / "out") == expected


def test_the_written_splits_are_a_source(tiny_base: Path, rows: str, tmp_path: Path) -> None:
    first = prepare(small_config(tiny_base, rows, tmp_path / "out", *FRACTIONS))
    again = prepare(small_config(tiny_base, str(tmp_path / "out/splits"), tmp_path / "again"))
    assert again.report.fingerprint == first.report.fingerprint
    for name in SPLITS:
        assert [e.exchanges for e in again.splits[name].examples] == [
            e.exchanges for e in first.splits[name].examples
        ]


@pytest.mark.parametrize("left", ["config.yaml", "metrics.jsonl", "checkpoints/last"])
def test_the_report_of_a_training_stays(
    left: str, tiny_base: Path, rows: str, tmp_path: Path
) -> None:
    (tmp_path / "out" / left).parent.mkdir(parents=True)
    (tmp_path / "out" / left).write_text("")
    with pytest.raises(UserError) as caught:
        prepare(small_config(tiny_base, rows, tmp_path / "out"))
    assert str(caught.value) == (
        f"output_dir: {tmp_path / 'out'} holds a training already, and its data report must stay; "
        "choose another output_dir"
    )
    assert names_below(tmp_path / "out") == {left}


def test_the_command_prints_the_report_and_how_to_go_on(
    tiny_base: Path, rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("output_dir: elsewhere\n")
    out = tmp_path / "out"
    assert main(["prepare", str(config), *small_overrides(tiny_base, rows, out)]) == 0
    data = prepare(small_config(tiny_base, rows, out))
    assert capsys.readouterr().out.startswith(
        f"{format_report(data.report)}\n"
        f"Written: {out}/data_report.json and splits/\n"
        f"Next: honing train {config}"
    )
    assert main(["prepare", str(config), "--json", *small_overrides(tiny_base, rows, out)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(data.report.to_record()))
