"""Evaluation ⇄ JSON: every prediction, its counts and every setting. Read without torch.

{"format": 1, "kind", "model", "data", "settings", "metrics": {NAME: {"score", "interval": [low,
high] or null, "clean": {"score", "interval"} or null, "better", "unit", "signature"}}, "figures":
{NAME: {"value", "signature"}}, "floors": {FLOOR: {NAME: value}}, "warnings", "general":
{"signature", "sha256", "pieces": [[nats, tokens, characters], …]} or null, "predictions": [{"id",
"prompt", "reference", "prediction", …, "statistics": {NAME: [number, …]}}]}

JSON knows no infinity and no not-a-number: both are null, and read back as not a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from honing.errors import UserError
from honing.evaluation.record import (
    Estimate,
    Evaluation,
    Figure,
    GeneralText,
    MetricRecord,
    Prediction,
)
from honing.evaluation.scores import SCORES
from honing.run import write_text

FORMAT = 1


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Whole or not at all, a prediction a line. Raises UserError where it cannot be written."""
    record = evaluation_record(evaluation)
    predictions = record.pop("predictions")
    head = json.dumps(record, ensure_ascii=False, indent=1, allow_nan=False).removesuffix("\n}")
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in predictions)
    write_text(path, head + ',\n "predictions": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n")


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """What the file holds, as plain dictionaries and lists."""
    record = {
        "format": FORMAT,
        "kind": evaluation.kind,
        "model": evaluation.model,
        "data": evaluation.data,
        "settings": evaluation.settings,
        "metrics": {name: _metric_record(metric) for name, metric in evaluation.metrics.items()},
        "figures": {name: vars(figure) for name, figure in evaluation.figures.items()},
        "floors": evaluation.floors,
        "warnings": evaluation.warnings,
        "general": None if evaluation.general is None else vars(evaluation.general),
        "predictions": [
            {
                **vars(prediction),
                "statistics": {
                    name: [_shortest(number) for number in metric.statistics[place]]
                    for name, metric in evaluation.metrics.items()
                },
            }
            for place, prediction in enumerate(evaluation.predictions)
        ],
    }
    plain: dict[str, Any] = without_nan(record)
    return plain


def _metric_record(metric: MetricRecord) -> dict[str, Any]:
    return {
        **vars(metric.estimate),
        "clean": None if metric.clean is None else vars(metric.clean),
        "better": metric.better,
        "unit": metric.unit,
        "signature": metric.signature,
    }


def _shortest(number: float) -> float:
    """Counts without their ".0"."""
    return int(number) if float(number).is_integer() else float(number)


def without_nan(value: Any) -> Any:
    """A record as JSON can hold it: null for what is no finite number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return value


# --- reading


def read_evaluation(path: Path) -> Evaluation:
    """Raises UserError where the file is missing, damaged, or of another version."""
    again = "evaluate again"
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; run 'honing evaluate RUN'") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {again}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: is damaged, no JSON; {again}") from None
    if not isinstance(record, dict) or "format" not in record:
        raise UserError(f"{path}: is no evaluation that honing wrote; {again}")
    if record["format"] != FORMAT:
        raise UserError(
            f"{path}: is an evaluation of format {json.dumps(record['format'])[:40]}, and this "
            f"honing reads format {FORMAT}; {again}"
        )
    try:
        return _evaluation(record)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: is damaged ({what}); {again}") from None


def _evaluation(record: Mapping[str, Any]) -> Evaluation:
    predictions = tuple(_prediction(row) for row in record["predictions"])
    if not predictions:
        raise ValueError("holds no predictions")
    rows = [row["statistics"] for row in record["predictions"]]
    return Evaluation(
        kind=_text(record["kind"]),
        model=dict(record["model"]),
        data=dict(record["data"]),
        settings=dict(record["settings"]),
        metrics={
            name: _metric(name, metric, [row[name] for row in rows])
            for name, metric in record["metrics"].items()
        },
        figures={
            name: Figure(_number(figure["value"]), _text(figure["signature"]))
            for name, figure in record["figures"].items()
        },
        floors={
            floor: {name: _number(value) for name, value in scores.items()}
            for floor, scores in record["floors"].items()
        },
        warnings=tuple(_text(warning) for warning in record["warnings"]),
        predictions=predictions,
        general=_general(record.get("general")),
    )


def _general(record: Mapping[str, Any] | None) -> GeneralText | None:
    """None in a file of a version that kept no pieces, too."""
    if record is None:
        return None
    return GeneralText(
        signature=_text(record["signature"]),
        sha256=_text(record["sha256"]),
        pieces=tuple(
            (_number(nats), int(tokens), int(characters))
            for nats, tokens, characters in record["pieces"]
        ),
    )


def _prediction(row: Mapping[str, Any]) -> Prediction:
    return Prediction(
        id=_text(row["id"]),
        prompt=_text(row["prompt"]),
        reference=_text(row["reference"]),
        prediction=_text(row["prediction"]),
        sum_nats=None if row["sum_nats"] is None else _number(row["sum_nats"]),
        num_tokens=int(row["num_tokens"]),
        stopped=_text(row["stopped"]),
        num_new_tokens=int(row["num_new_tokens"]),
        repetition=_number(row["repetition"]),
        group=int(row["group"]),
        leaked=bool(row["leaked"]),
    )


def _metric(name: str, record: Mapping[str, Any], rows: Sequence[Sequence[Any]]) -> MetricRecord:
    statistics = tuple(tuple(_number(value) for value in row) for row in rows)
    if len({len(row) for row in statistics}) > 1:
        raise ValueError(f"statistics of {name} differ in their number")
    if record["better"] not in ("higher", "lower", "neither"):
        raise ValueError(f"better of {name} is none of higher, lower and neither")
    _check_number(name, statistics)
    return MetricRecord(
        name=name,
        signature=_text(record["signature"]),
        better=_text(record["better"]),
        unit=_text(record["unit"]),
        estimate=_estimate(record),
        clean=None if record["clean"] is None else _estimate(record["clean"]),
        statistics=statistics,
    )


def _check_number(name: str, statistics: Sequence[Sequence[float]]) -> None:
    """A score that this version knows takes so many statistics and no other number of them."""
    if name not in SCORES or not statistics:
        return
    try:
        SCORES[name](np.array(statistics, np.float64).sum(axis=0))
    except (IndexError, ValueError):
        raise ValueError(
            f"statistics of {name} are {len(statistics[0])} numbers, as no score of it takes"
        ) from None


def _estimate(record: Mapping[str, Any]) -> Estimate:
    interval = record["interval"]
    if interval is None:
        return Estimate(_number(record["score"]), None)
    low, high = interval
    return Estimate(_number(record["score"]), (_number(low), _number(high)))


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:40]!r} is no number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    return value
