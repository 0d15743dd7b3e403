"""What differs between the configurations of runs, and runs that differ in the seed alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from honing.report.comparison import SeedSpread
from honing.report.runs import RunEvaluations, row_keys

_OF_PLACE = ("output_dir",)


def config_differences(runs: Sequence[RunEvaluations]) -> dict[str, dict[str, Any]]:
    """Flat key → value of each run, where they differ. Where a run writes is no difference."""
    flat = {run.info.name: dict(_flatten(run.info.config)) for run in runs}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    found = {
        key: {name: values[key] for name, values in flat.items() if key in values}
        for key in keys
        if key not in _OF_PLACE
    }
    return {
        key: values
        for key, values in found.items()
        if len(values) < len(flat) or len({_fixed(value) for value in values.values()}) > 1
    }


def _flatten(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _fixed(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def seed_spreads(runs: Sequence[RunEvaluations]) -> tuple[SeedSpread, ...]:
    """For each recipe that was run with two seeds or more, the scores of its tuned models."""
    return tuple(
        SeedSpread(tuple(run.info.name for run in same), _spread(same)) for same in _recipes(runs)
    )


def seed_notes(runs: Sequence[RunEvaluations]) -> list[str]:
    """A seed splits the rows too, unless the data came split."""
    return [
        f"{', '.join(run.info.name for run in same)}: their seeds chose different rows to answer, "
        "so the spread over seeds is one over rows too"
        for same in _recipes(runs)
        if len({frozenset(row_keys(run.tuned.predictions)) for run in same}) > 1
    ]


def _recipes(runs: Sequence[RunEvaluations]) -> list[list[RunEvaluations]]:
    """Runs whose configurations are equal without the seed, where the seeds are not."""
    recipes: dict[str, list[RunEvaluations]] = {}
    for run in runs:
        if "seed" in run.info.config:
            config = {k: v for k, v in run.info.config.items() if k not in ("seed", *_OF_PLACE)}
            recipes.setdefault(_fixed(config), []).append(run)
    return [same for same in recipes.values() if len({run.info.config["seed"] for run in same}) > 1]


def _spread(runs: Sequence[RunEvaluations]) -> dict[str, tuple[float, float, float]]:
    spread = {}
    for name in runs[0].tuned.metrics:
        scores = [
            run.tuned.metrics[name].estimate.score for run in runs if name in run.tuned.metrics
        ]
        if len(scores) == len(runs) and all(map(math.isfinite, scores)):
            spread[name] = (min(scores), math.fsum(scores) / len(scores), max(scores))
    return spread
