"""Predictions that anyone made, scored from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from honing.config import EvaluateConfig
from honing.errors import UserError
from honing.evaluation.foreign import evaluate_file
from honing.evaluation.record import Evaluation

ROWS = [
    {"reference": "대한민국의 수도는 서울입니다.", "prediction": "대한민국의 수도는 서울이다."},
    {"reference": "물을 충분히 마시고 운동하세요.", "prediction": "운동을 하고 물을 마시세요."},
    {"reference": "비행기는 양력으로 납니다.", "prediction": "저는 점심을 먹었어요."},
]


def evaluated(folder: Path, rows: list[Any]) -> Evaluation:
    file = folder / "answers.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return evaluate_file(file, EvaluateConfig(num_resamples=1000), seed=42)


def test_scores_are_those_of_sacrebleu(tmp_path: Path) -> None:
    found = evaluated(tmp_path, ROWS)
    predictions = [row["prediction"] for row in ROWS]
    references = [[row["reference"] for row in ROWS]]
    chrf = sacrebleu.corpus_chrf(predictions, references)
    bleu = sacrebleu.corpus_bleu(predictions, references, tokenize="ko-mecab")
    assert found.kind == "predictions"
    assert found.metrics["chrf"].estimate.score == pytest.approx(chrf.score, abs=1e-9)
    assert found.metrics["bleu"].estimate.score == pytest.approx(bleu.score, abs=1e-9)
    assert "tok:ko-mecab" in found.metrics["bleu"].signature
    assert "perplexity" not in found.metrics, "no model computed a loss"
    assert "ended" not in found.metrics, "nobody says how they stopped"
    assert found.data["num_rows"] == 3
    assert found.data["num_groups"] == 3
    assert any("fewer than 100" in warning for warning in found.warnings)


def test_near_equal_prompts_are_one_group_and_give_floors(tmp_path: Path) -> None:
    prompts = ["수도가 어디인가요?", "수도가  어디인가요", "비행기는 왜 나나요?"]
    rows = [{**row, "prompt": prompt} for row, prompt in zip(ROWS, prompts, strict=True)]
    found = evaluated(tmp_path, rows)
    assert [row.group for row in found.predictions] == [0, 0, 1]
    assert found.data["num_groups"] == 2
    assert set(found.floors) == {"copy the input", "a random other reference"}


def test_what_generate_writes_can_be_scored(tmp_path: Path) -> None:
    rows = [
        {"instruction": "수도는?", "reference": "서울", "answer": "서울", "stopped": "end"},
        {"instruction": "강은?", "reference": "한강", "answer": "한강 한강", "stopped": "length"},
    ]
    found = evaluated(tmp_path, rows)
    assert found.metrics["ended"].estimate.score == 50.0
    assert found.metrics["exact_match"].estimate.score == 50.0
    assert [row.prompt for row in found.predictions] == ["수도는?", "강은?"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"answers.jsonl, line 2: is not JSON; write \{"),
        ("[1]", "line 2: is no JSON object"),
        ({"reference": "a"}, "line 2: has reference; write"),
        ({"prediction": "a", "id": 3}, "line 2: has prediction, id; write"),
        ({"reference": "a", "prediction": 3}, "line 2, prediction: is 3; expected a text"),
        ({"reference": " ", "prediction": "a"}, "line 2, reference: is empty"),
        ('{"reference": "\\ud800", "prediction": "a"}', "holds half of a surrogate pair"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluated(tmp_path, [ROWS[0], row])


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        evaluate_file(tmp_path / "no.jsonl", EvaluateConfig(), 42)
    with pytest.raises(UserError, match="is empty"):
        evaluated(tmp_path, [""])
    (tmp_path / "b.jsonl").write_bytes(b"\xb0\xa1")
    with pytest.raises(UserError, match="is not UTF-8"):
        evaluate_file(tmp_path / "b.jsonl", EvaluateConfig(), 42)
