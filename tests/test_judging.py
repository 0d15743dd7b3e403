"""evaluate and compare on the command line, from a finished run to the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from honing.cli import main
from honing.run import RunFolder
from tests.tiny_run import TinyRun

Captured = pytest.CaptureFixture[str]
QUICK = ("evaluate.num_resamples=1000", "evaluate.max_new_tokens=6")


@pytest.fixture(scope="module")
def evaluated(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("judged") / "run")
    shutil.copytree(tiny_run.folder, run.root, symlinks=True)
    assert main(["evaluate", str(run.root), *QUICK]) == 0
    return run


@pytest.fixture
def run(evaluated: RunFolder, tmp_path: Path) -> RunFolder:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(evaluated.root, copy.root, symlinks=True)
    return copy


def test_evaluate_prints_the_table_and_the_next_command(run: RunFolder, capsys: Captured) -> None:
    assert main(["evaluate", str(run.root), *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "perplexity" in printed
    assert "bits" in printed
    assert "fewer than 100" in printed
    assert f"Written {run.evaluation_base}" in printed
    assert printed.endswith(f"Next: honing compare {run.root}\n")


def test_evaluate_as_json(run: RunFolder, capsys: Captured) -> None:
    assert main(["evaluate", str(run.root), "--json", *QUICK]) == 0
    record = json.loads(capsys.readouterr().out)
    (table,) = record["tables"]
    assert {"perplexity", "chrf", "ended"} <= {line["name"] for line in table["lines"]}


def test_compare_writes_page_record_markdown_and_card(run: RunFolder, capsys: Captured) -> None:
    assert main(["compare", str(run.root), *QUICK]) == 0
    printed = capsys.readouterr().out
    assert f"Open {run.comparison_page} in a browser" in printed
    assert run.comparison_page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(run.comparison_json.read_text(encoding="utf-8"))["tables"]
    assert "perplexity" in run.comparison_markdown.read_text(encoding="utf-8")
    card = run.checkpoints / "best" / "README.md"
    assert card.read_text(encoding="utf-8").startswith("---\n")


def test_several_runs_have_a_folder_of_their_own(
    run: RunFolder, evaluated: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:  # fmt: skip
    other = tmp_path / "other"
    shutil.copytree(evaluated.root, other, symlinks=True)
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "run", "other", "--language", "ko", *QUICK]) == 0
    assert Path("comparison/report.html").is_file()
    assert not run.comparison_page.exists()
    assert 'lang="ko"' in Path("comparison/report.html").read_text(encoding="utf-8")
    assert main(["compare", "run", "other", "--output", "mine", "--json", *QUICK]) == 0
    capsys.readouterr()
    assert sorted(path.name for path in Path("mine").iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]


def test_a_prediction_file_is_scored_and_kept(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "answers.jsonl"
    rows = [{"reference": "서울입니다.", "prediction": "서울입니다."},
            {"reference": "한강입니다.", "prediction": "낙동강입니다."}]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "evaluation.json"
    assert main(["evaluate", "--predictions", str(file), "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "exact match" in printed
    assert "50.0" in printed
    assert json.loads(out.read_text(encoding="utf-8"))["kind"] == "predictions"
    assert main(["evaluate", "--predictions", str(file), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["metrics"]["exact_match"]["score"] == 50.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate"], "name a RUN, or a file with --predictions FILE"),
        (["evaluate", "a", "--predictions", "b"], "name a RUN, or a file"),
        (["evaluate", "--predictions", "b", "--checkpoint", "last"], "goes with a RUN"),
        (["evaluate", "RUN", "--output", "x"], "--output: goes with --predictions"),
        (["evaluate", "RUN", "data.split=random"], "data.split: is the run's own"),
        (["compare", "RUN", "RUN"], "is named twice; name each run once"),
        (["compare", "a=b"], "no RUN among a=b"),
        (["compare", "BASE"], "is not evaluated yet"),
        (["compare", "RUN", "other", "--push", "me/x"], "puts one run on the Hub"),
    ],
)
def test_errors_are_one_line(
    run: RunFolder, tiny_run: TinyRun, capsys: Captured, arguments: list[str], message: str
) -> None:
    places = {"RUN": str(run.root), "BASE": str(tiny_run.folder)}
    assert main([places.get(word, word) for word in arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("honing: ")
    assert message in error
