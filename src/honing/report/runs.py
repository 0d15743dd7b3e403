"""The folder of an evaluated run → RunEvaluations, and which rows two evaluations share."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from honing.config_file import load_config
from honing.errors import UserError
from honing.evaluation.files import read_evaluation
from honing.evaluation.record import Evaluation, Prediction
from honing.files import read_json
from honing.report.comparison import RunInfo
from honing.run import RunFolder

_CURVES = {
    "train loss": ("train", "train_loss"),
    "validation loss": ("validation", "val_loss"),
    "learning rate": ("train", "learning_rate"),
}
"""Name of a curve → kind of line in metrics.jsonl, and its key there."""
_LARGEST = 1e15
"""Of what a curve shows; differences of larger numbers are no numbers any more."""
_MOST_BYTES = 1 << 30
"""Of a report, which names every row that leaked."""


@dataclass(frozen=True)
class RunEvaluations:
    """One run and both evaluations of it."""

    info: RunInfo
    base: Evaluation
    tuned: Evaluation


def load_run(folder: Path) -> RunEvaluations:
    """Read what a run and its evaluation left.

    Raises UserError where it is not evaluated, or a file of it is damaged.
    """
    run = RunFolder(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder of a run; name one that 'honing train' wrote")
    if not (run.evaluation_base.is_file() and run.evaluation_tuned.is_file()):
        raise UserError(
            f"{folder}: is not evaluated yet; run 'honing evaluate {shlex.quote(str(folder))}'"
        )
    run.check_files()
    base, tuned = read_evaluation(run.evaluation_base), read_evaluation(run.evaluation_tuned)
    rows = tuned.predictions
    info = RunInfo(
        name=folder.resolve().name,
        folder=str(folder),
        checkpoint=_checkpoint(tuned, run),
        base=str(tuned.model.get("base", "")),
        split=str(tuned.data.get("split", "")),
        num_rows=len(rows),
        num_groups=len({row.group for row in rows}),
        num_leaked=sum(row.leaked for row in rows),
        settings=tuned.settings,
        curves=_read_curves(run.metrics),
        figures_base={name: figure.value for name, figure in base.figures.items()},
        figures_tuned={name: figure.value for name, figure in tuned.figures.items()},
        figure_signatures={
            name: figure.signature for name, figure in {**base.figures, **tuned.figures}.items()
        },
        data_report=_read_record(run.data_report),
        training=_read_record(run.report_json),
        config=load_config(run.config).model_dump(mode="json") if run.config.is_file() else {},
        warnings=_warnings(base, tuned),
    )
    return RunEvaluations(info, base, tuned)


def _checkpoint(tuned: Evaluation, run: RunFolder) -> str:
    """The name of the checkpoint's folder, beside whose adapter a card is written."""
    name = tuned.model.get("checkpoint", "")
    if not isinstance(name, str) or name == ".." or name != Path(name).name:
        raise UserError(
            f"{run.evaluation_tuned}: is damaged (its checkpoint is no name of a folder); "
            "evaluate again"
        )
    return name


def _warnings(base: Evaluation, tuned: Evaluation) -> tuple[str, ...]:
    """Each once: those of the metrics, and those of the rows."""
    notes = tuned.data.get("notes")
    of_rows = [str(note) for note in notes] if isinstance(notes, list) else []
    return tuple(dict.fromkeys([*of_rows, *base.warnings, *tuned.warnings]))


def _read_record(path: Path) -> dict[str, Any]:
    """A report of the run; {} where there is none that can be read: nothing depends on it."""
    try:
        record = read_json(path, _MOST_BYTES)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _read_curves(path: Path) -> dict[str, tuple[tuple[float, float], ...]]:
    """Points of metrics.jsonl; what is half-written or no number that can be drawn is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in _CURVES}
    for line in text.splitlines():
        try:
            record = json.loads(line)
            for name, (kind, key) in _CURVES.items():
                if record["kind"] == kind:
                    points[name].append((float(record["step"]), float(record[key])))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
    drawn = {
        name: tuple(point for point in found if all(abs(n) < _LARGEST for n in point))
        for name, found in points.items()
    }
    return {name: found for name, found in drawn.items() if found}


# --- which rows


def same_rows(run: RunEvaluations) -> None:
    """Raise UserError unless base and tuned answered the same rows in the same order and way.

    They do not where an evaluation with other settings was stopped between the two.
    """
    both = (run.base, run.tuned)
    rows = [
        [(row.id, row.reference, row.group, row.leaked) for row in evaluation.predictions]
        for evaluation in both
    ]
    again = f"run 'honing evaluate {shlex.quote(run.info.folder)}' again"
    if rows[0] != rows[1]:
        raise UserError(
            f"{run.info.folder}: base and tuned were not evaluated on the same rows; {again}"
        )
    ways = [{**one.settings, "base": one.model.get("base_fingerprint")} for one in both]
    differing = [
        key
        for key in dict.fromkeys([*ways[0], *ways[1]])
        if key != "key" and ways[0].get(key) != ways[1].get(key)
    ]
    if differing:
        raise UserError(
            f"{run.info.folder}: base and tuned were not evaluated in the same way "
            f"({', '.join(differing)}); {again}"
        )


def join_rows(
    before: Evaluation, after: Evaluation
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Places of the shared rows in both, in the order of `before`. None where a shared id has
    another reference: then the rows only happen to be numbered alike."""
    place_after = {key: place for place, key in enumerate(row_keys(after.predictions))}
    shared = [
        (place, place_after[key])
        for place, key in enumerate(row_keys(before.predictions))
        if key in place_after
    ]
    for first, second in shared:
        if before.predictions[first].reference != after.predictions[second].reference:
            return None
    places = np.array(shared, np.int64).reshape(-1, 2)
    return places[:, 0], places[:, 1]


def row_keys(predictions: Sequence[Prediction]) -> list[tuple[str, int]]:
    """The id of each row, and how many rows before had the same: ids of foreign files repeat."""
    seen: Counter[str] = Counter()
    keys = []
    for row in predictions:
        keys.append((row.id, seen[row.id]))
        seen[row.id] += 1
    return keys
