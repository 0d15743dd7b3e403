"""Predictions that anyone made: a JSONL file with `reference` and `prediction` in each row."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from honing.config import EvaluateConfig
from honing.data.example import Example, Exchange
from honing.data.groups import group_rows
from honing.data.reading.names import listed
from honing.errors import UserError
from honing.evaluation.record import Evaluation, Prediction
from honing.evaluation.score import look_around, score_predictions
from honing.version import VERSION

_PREDICTION = ("prediction", "answer")
"""Keys of the answer; the second is what `honing generate` writes."""
_PROMPT = ("prompt", "instruction", "question")
_STOPPED = ("end", "stop text", "length")


def evaluate_file(path: Path, settings: EvaluateConfig, seed: int) -> Evaluation:
    """Score a file of predictions. Rows with near-equal prompts are resampled together.

    Raises UserError with file and line for a row that cannot be scored.
    """
    rows = _read(path)
    prompts = [prompt for prompt, _ in rows]
    has_prompts = all(prompts)
    groups = _groups([prediction.prompt for _, prediction in rows]) if has_prompts else None
    predictions = [
        Prediction(**{**vars(prediction), "group": place if groups is None else groups[place]})
        for place, (_, prediction) in enumerate(rows)
    ]
    num_groups = len({prediction.group for prediction in predictions})
    around = look_around(
        [prediction.reference for prediction in predictions],
        inputs=prompts if has_prompts else [],
        prompts=[],
        train_prompts=[],
        train_responses=[],
        num_groups=num_groups,
        seed=seed,
    )
    return score_predictions(
        "predictions",
        predictions,
        around,
        model={"file": path.name},
        data={
            "split": path.name,
            "num_rows": len(predictions),
            "num_available": len(predictions),
            "num_groups": num_groups,
            "num_leaked": 0,
            "notes": [] if has_prompts else ["no prompts in the file: each row counts as a group"],
        },
        settings={"honing": VERSION, "seed": seed},
        num_resamples=settings.num_resamples,
        seed=seed,
    )


def _read(path: Path) -> list[tuple[str, Prediction]]:
    """What to copy from each row's prompt ("" where it has none), and the row itself."""
    try:
        text = path.expanduser().read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"--predictions: {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"--predictions: {path}: is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    rows = [
        _row(line, f"{path.name}, line {number}", f"{path.name}:{number}")
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if not rows:
        raise UserError(f"--predictions: {path}: is empty; write one JSON object a line")
    return rows


def _row(line: str, where: str, row_id: str) -> tuple[str, Prediction]:
    expected = 'write {"reference": "…", "prediction": "…"}, one object a line'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{where}: is not JSON; {expected}") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: is no JSON object; {expected}")
    key = next((key for key in _PREDICTION if key in row), None)
    if key is None or "reference" not in row:
        found = listed(row) if row else "nothing"
        raise UserError(f"{where}: has {found}; {expected}")
    reference = _text(row, "reference", where)
    if not reference.strip():
        raise UserError(f"{where}, reference: is empty, so nothing can be compared with it")
    question = next((_text(row, name, where) for name in _PROMPT if name in row), "")
    material = _text(row, "input", where) if row.get("input") else ""
    stopped = row.get("stopped")
    return material or question, Prediction(
        id=str(row.get("id", row_id)),
        prompt="\n".join(part for part in (question, material) if part),
        reference=reference,
        prediction=_text(row, key, where),
        sum_nats=None,
        num_tokens=0,
        stopped=stopped if stopped in _STOPPED else "unknown",
    )


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise UserError(f"{where}, {key}: is {json.dumps(value)[:40]}; expected a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}, {key}: holds half of a surrogate pair; mend the text") from None
    return unicodedata.normalize("NFC", value)


def _groups(prompts: list[str]) -> list[int]:
    examples = [
        Example(str(place), (Exchange(prompt, ""),)) for place, prompt in enumerate(prompts)
    ]
    heads = group_rows(examples).heads.tolist()
    number = {head: place for place, head in enumerate(dict.fromkeys(heads))}
    return [number[head] for head in heads]
