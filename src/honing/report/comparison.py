"""Comparison: runs against their bases and against each other, as records without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from honing.evaluation.record import Estimate, Verdict


@dataclass(frozen=True)
class Difference:
    """Of one metric between two models on the same rows: `after` minus `before`.

    p_value: two-sided, of the same bootstrap as the interval. p_holm: corrected over all metrics
    and runs of this comparison (Holm 1979); the verdict goes by it and by the interval.
    smallest_detectable: the difference that so many rows would have shown with 80 % power.
    """

    before: Estimate
    after: Estimate
    difference: float
    interval: tuple[float, float] | None
    p_value: float | None
    p_holm: float | None
    smallest_detectable: float | None
    verdict: Verdict


@dataclass(frozen=True)
class MetricLine:
    """One metric in one table. clean: on the rows without a twin in training."""

    name: str
    signature: str
    better: str
    unit: str
    all_rows: Difference
    clean: Difference | None
    floors: Mapping[str, float]


@dataclass(frozen=True)
class RunInfo:
    """One run: what it was made of. Numbers of rows are those of the evaluation.

    curves: name ("train loss", "validation loss", "learning rate") → (step, value) points.
    data_report, training, config: as the run wrote them; {} where it did not.
    """

    name: str
    folder: str
    checkpoint: str
    base: str
    split: str
    num_rows: int
    num_groups: int
    num_leaked: int
    settings: Mapping[str, Any]
    curves: Mapping[str, tuple[tuple[float, float], ...]]
    figures_base: Mapping[str, float]
    figures_tuned: Mapping[str, float]
    figure_signatures: Mapping[str, str]
    data_report: Mapping[str, Any]
    training: Mapping[str, Any]
    config: Mapping[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class RunTable:
    """A run against its base."""

    run: RunInfo
    lines: tuple[MetricLine, ...]


@dataclass(frozen=True)
class PairTable:
    """Two runs against each other, on the rows that both were evaluated on."""

    before: str
    after: str
    num_rows: int
    num_groups: int
    lines: tuple[MetricLine, ...]


@dataclass(frozen=True)
class SeedSpread:
    """Runs that differ in nothing but the seed: for each metric the lowest, mean and highest."""

    runs: tuple[str, ...]
    metrics: Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Answer:
    """One model's answer. score: chrF of this answer alone against the reference, 0 to 100."""

    text: str
    score: float
    stopped: str
    repetition: float


@dataclass(frozen=True)
class Sample:
    """One held-out row with all answers. answers: "base" of the first run, then a run's name each.

    gain: the score of the last run's answer minus its base's. tags: of best, worst, random,
    stopped, not-stopped, looping, leaked, empty: what the page filters by.
    """

    id: str
    prompt: str
    reference: str
    answers: Mapping[str, Answer]
    gain: float
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Everything that the terminal, report.json, report.md, report.html and the card show.

    config_differences: key → value of each run, where they differ. notes: what a reader has to
    know: one seed, few rows, which rows chose the checkpoint. num_tests: how many p-values were
    corrected together. made_with: versions and settings of this comparison itself.
    """

    tables: tuple[RunTable, ...]
    pairs: tuple[PairTable, ...]
    seed_spreads: tuple[SeedSpread, ...]
    samples: tuple[Sample, ...]
    config_differences: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]
    num_tests: int
    made_with: Mapping[str, Any]

    def to_record(self) -> dict[str, Any]:
        return asdict(self)
