"""Evaluation files: what is written is read back, and what is damaged says so."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from honing.errors import UserError
from honing.evaluation.files import evaluation_record, read_evaluation, write_evaluation
from honing.evaluation.record import (
    Estimate,
    Evaluation,
    Figure,
    GeneralText,
    MetricRecord,
    Prediction,
)
from tests.report.made_up import made_up_evaluation, made_up_predictions

SMALL = Evaluation(
    kind="tuned",
    model={"base": "tiny", "checkpoint": "step-000004"},
    data={"split": "test", "num_rows": 2, "notes": []},
    settings={"generate": {"stop": ["\n"], "scripts": None}, "seed": 7},
    metrics={
        "ended": MetricRecord(
            name="ended",
            signature="by the end token",
            better="higher",
            unit="0–100",
            estimate=Estimate(50.0, None),
            clean=Estimate(100.0, (2.5, 100.0)),
            statistics=((1.0, 1.0), (0.0, 1.0)),
        ),
        "rougeL": MetricRecord(
            name="rougeL",
            signature="rouge-score|tok:char",
            better="higher",
            unit="0–100",
            estimate=Estimate(12.5, (1.0, 33.3)),
            clean=None,
            statistics=((12.5, 1.0), (1 / 3, 0.1 + 0.2)),
        ),
    },
    figures={"distinct_1": Figure(61.5, "different of all 1-grams")},
    floors={"copy the input": {"rougeL": 3.25}},
    warnings=("조심하세요",),
    general=GeneralText("wiki.txt|windows of 512", "ab", ((1.5, 511, 900), (1 / 3, 1, 2))),
    predictions=(
        Prediction("a:1", "몇 시예요?", "세 시예요.", "세 시\n\t\u202e예요", 2.5, 4, "end", 4),
        Prediction("a:2", "왜요?", "그냥요.", "", None, 0, "length", 9, 91.7, 1, True),
    ),
)

LAYOUT = {
    "format": 1,
    "kind": "tuned",
    "model": {"base": "tiny", "checkpoint": "step-000004"},
    "data": {"split": "test", "num_rows": 2, "notes": []},
    "settings": {"generate": {"stop": ["\n"], "scripts": None}, "seed": 7},
    "metrics": {
        "ended": {
            "score": 50.0,
            "interval": None,
            "clean": {"score": 100.0, "interval": [2.5, 100.0]},
            "better": "higher",
            "unit": "0–100",
            "signature": "by the end token",
        },
        "rougeL": {
            "score": 12.5,
            "interval": [1.0, 33.3],
            "clean": None,
            "better": "higher",
            "unit": "0–100",
            "signature": "rouge-score|tok:char",
        },
    },
    "figures": {"distinct_1": {"value": 61.5, "signature": "different of all 1-grams"}},
    "floors": {"copy the input": {"rougeL": 3.25}},
    "warnings": ["조심하세요"],
    "general": {
        "signature": "wiki.txt|windows of 512",
        "sha256": "ab",
        "pieces": [[1.5, 511, 900], [1 / 3, 1, 2]],
    },
    "predictions": [
        {
            "id": "a:1",
            "prompt": "몇 시예요?",
            "reference": "세 시예요.",
            "prediction": "세 시\n\t\u202e예요",
            "sum_nats": 2.5,
            "num_tokens": 4,
            "stopped": "end",
            "num_new_tokens": 4,
            "repetition": 0.0,
            "group": 0,
            "leaked": False,
            "statistics": {"ended": [1, 1], "rougeL": [12.5, 1]},
        },
        {
            "id": "a:2",
            "prompt": "왜요?",
            "reference": "그냥요.",
            "prediction": "",
            "sum_nats": None,
            "num_tokens": 0,
            "stopped": "length",
            "num_new_tokens": 9,
            "repetition": 91.7,
            "group": 1,
            "leaked": True,
            "statistics": {"ended": [0, 1], "rougeL": [1 / 3, 0.1 + 0.2]},
        },
    ],
}


def test_the_layout_is_a_promise(tmp_path: Path) -> None:
    path = tmp_path / "evaluation" / "tuned.json"
    write_evaluation(path, SMALL)
    assert json.loads(path.read_text(encoding="utf-8")) == LAYOUT
    assert evaluation_record(SMALL) == LAYOUT
    assert list(LAYOUT) == list(evaluation_record(SMALL))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    write_evaluation(path, SMALL)
    assert read_evaluation(path) == SMALL
    made = made_up_evaluation("base", made_up_predictions(30, 0, 0.5, leaked=True))
    write_evaluation(path, made)
    assert read_evaluation(path) == made
    bare = replace(SMALL, metrics={}, figures={}, floors={}, warnings=())
    write_evaluation(path, bare)
    assert read_evaluation(path) == bare


@pytest.mark.parametrize("alter", [lambda r: r.pop("general"), lambda r: r.update(general=None)])
def test_a_file_without_the_pieces_of_a_general_text(
    tmp_path: Path, alter: Callable[[dict[str, Any]], object]
) -> None:
    """As those are that were written before pieces were kept."""
    change(tmp_path / "tuned.json", alter)
    assert read_evaluation(tmp_path / "tuned.json") == replace(SMALL, general=None)


def test_a_prediction_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    write_evaluation(path, SMALL)
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line.rstrip(",")) for line in lines if line.startswith('  {"id"')]
    assert rows == LAYOUT["predictions"]


def test_what_is_no_finite_number_is_null_and_read_as_none(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    metric = replace(
        SMALL.metrics["ended"],
        estimate=Estimate(math.nan, None),
        clean=Estimate(math.inf, (-math.inf, math.nan)),
        statistics=((math.nan, 1.0), (0.0, 1.0)),
    )
    write_evaluation(path, replace(SMALL, metrics={"ended": metric}))
    record = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert record["metrics"]["ended"]["score"] is None
    assert record["metrics"]["ended"]["clean"] == {"score": None, "interval": [None, None]}
    assert record["predictions"][0]["statistics"]["ended"] == [None, 1]
    found = read_evaluation(path).metrics["ended"]
    assert math.isnan(found.estimate.score)
    assert math.isnan(found.statistics[0][0])
    assert found.statistics[1] == (0.0, 1.0)


def change(path: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(json.dumps(LAYOUT))
    alter(record)
    path.write_text(json.dumps(record), encoding="utf-8")


def error_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_evaluation(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    assert error_of(path) == f"{path}: is missing; run 'honing evaluate RUN'"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "base.json"
    path.write_bytes(content)
    assert error_of(path) == f"{path}: is damaged, no JSON; evaluate again"


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    assert error_of(tmp_path) == f"{tmp_path}: cannot be read (Is a directory); evaluate again"


@pytest.mark.parametrize("content", ["[]", "3", '{"kind": "base"}'])
def test_a_file_of_something_else(tmp_path: Path, content: str) -> None:
    path = tmp_path / "base.json"
    path.write_text(content, encoding="utf-8")
    assert error_of(path) == f"{path}: is no evaluation that honing wrote; evaluate again"


def test_another_version(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    change(path, lambda record: record.update(format=2))
    assert error_of(path) == (
        f"{path}: is an evaluation of format 2, and this honing reads format 1; evaluate again"
    )


@pytest.mark.parametrize(
    ("alter", "what"),
    [
        (lambda r: r.pop("floors"), "lacks 'floors'"),
        (lambda r: r["predictions"][1].pop("leaked"), "lacks 'leaked'"),
        (lambda r: r["predictions"][1]["statistics"].pop("ended"), "lacks 'ended'"),
        (lambda r: r["predictions"][0].update(prediction=3), "'3' is no text"),
        (lambda r: r["metrics"]["ended"].update(score="x" * 99), f"'{'x' * 40}' is no number"),
        (lambda r: r["metrics"]["ended"].update(score=True), "'True' is no number"),
        (
            lambda r: r["predictions"][0]["statistics"].update(ended=[1]),
            "statistics of ended differ in their number",
        ),
        (lambda r: r["metrics"]["ended"].update(better="more"), "better of ended is none of"),
        (lambda r: r.update(predictions=[]), "holds no predictions"),
        (
            lambda r: [row["statistics"].update(ended=[1]) for row in r["predictions"]],
            "statistics of ended are 1 numbers, as no score of it takes",
        ),
        (lambda r: r["general"]["pieces"].append([1.0]), "not enough values to unpack"),
        (lambda r: r["metrics"]["ended"].update(interval=[1]), "not enough values to unpack"),
        (lambda r: r.update(metrics=3), "'int' object has no attribute 'items'"),
        (lambda r: r.update(predictions=None), "'NoneType' object is not iterable"),
    ],
)
def test_a_damaged_file_says_where(
    tmp_path: Path, alter: Callable[[dict[str, Any]], object], what: str
) -> None:
    path = tmp_path / "base.json"
    change(path, alter)
    error = error_of(path)
    assert error.startswith(f"{path}: is damaged ({what}")
    assert error.endswith("); evaluate again")
