"""Evaluations → Comparison: each run against its base, the runs against each other. No torch.

Every p-value of a comparison is corrected together with all others, those of the clean rows too:
who looks at sixty differences finds three below 5 % where there are none.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import scipy
from numpy.typing import NDArray

from honing.evaluation.bootstrap import ALPHA, RawDifference, difference, estimate, holm, verdict
from honing.evaluation.forgetting import GENERAL, general_metrics
from honing.evaluation.metric import Floats
from honing.evaluation.record import Estimate, Evaluation, MetricRecord
from honing.evaluation.scores import SCORES
from honing.report.comparison import (
    Comparison,
    Difference,
    MetricLine,
    PairTable,
    RunInfo,
    RunTable,
)
from honing.report.runs import RunEvaluations, join_rows, same_rows
from honing.report.runs import load_run as load_run
from honing.report.samples import make_samples
from honing.report.seeds import config_differences, seed_notes, seed_spreads
from honing.version import VERSION

RESAMPLES_PER_TEST = 40
"""A p-value is at least 1 / (resamples + 1). With so many for each test, the smallest one stays
below 0.025 when it is multiplied by the number of tests."""
MOST_RESAMPLES = 20_000

ONE_SEED = "One seed judges this adapter, not the recipe: another seed gives another adapter"

Places = NDArray[np.int64]


@dataclass(frozen=True)
class _Question:
    """One metric of two models on the same rows, which are those at these places."""

    before: MetricRecord
    after: MetricRecord
    rows_before: Places
    rows_after: Places
    groups: NDArray[np.int64]
    known: tuple[Estimate, Estimate] | None

    def ask(self, num_resamples: int, seed: int) -> RawDifference:
        return difference(
            _statistics(self.before, self.rows_before),
            _statistics(self.after, self.rows_after),
            self.groups,
            SCORES[self.after.name],
            num_resamples=num_resamples,
            seed=seed,
        )

    def estimates(self, num_resamples: int, seed: int) -> tuple[Estimate, Estimate]:
        """Of the models alone. known: those of the evaluation, whose rows these are."""

        def of(metric: MetricRecord, rows: Places) -> Estimate:
            return estimate(
                _statistics(metric, rows),
                self.groups,
                SCORES[metric.name],
                num_resamples=num_resamples,
                seed=seed,
            )

        return of(self.before, self.rows_before), of(self.after, self.rows_after)


@dataclass(frozen=True)
class _Side:
    """Two models on the rows that they share. clean: which of these no twin in training has.
    is_whole: the rows are all that both were evaluated on."""

    who: str
    before: Evaluation
    after: Evaluation
    rows_before: Places
    rows_after: Places
    groups: NDArray[np.int64]
    clean: NDArray[np.bool_]
    floors: Mapping[str, Mapping[str, float]]
    is_whole: bool

    def all_names(self) -> list[str]:
        metrics = [*self.before.metrics, *self.after.metrics]
        general = [*general_metrics(self.before.general), *general_metrics(self.after.general)]
        return list(dict.fromkeys([*metrics, *general]))

    def names(self) -> list[str]:
        return [name for name in self.all_names() if self.why_not(name) is None]

    def asked(self) -> list[tuple[str, bool]]:
        """(metric, whether on the clean rows alone) of each test; a general text has no rows."""
        clean = [(name, True) for name in self.names() if name not in GENERAL]
        return [*((name, False) for name in self.names()), *(clean if self.has_clean else [])]

    def metric(self, name: str) -> tuple[MetricRecord | None, MetricRecord | None]:
        of = [{**one.metrics, **general_metrics(one.general)} for one in (self.before, self.after)]
        return of[0].get(name), of[1].get(name)

    def why_not(self, name: str) -> str | None:
        """Why a metric cannot be compared, or None."""
        before, after = self.metric(name)
        if before is None or after is None:
            return "only one of them has it"
        if name not in SCORES:
            return "this version of honing does not know it"
        if name in GENERAL:
            return self._why_not_general()
        if before.signature != after.signature:
            return f"it was counted in two ways ({before.signature} and {after.signature})"
        if name == "perplexity":
            tokens = [
                _statistics(metric, rows)[:, 1]
                for metric, rows in ((before, self.rows_before), (after, self.rows_after))
            ]
            if (tokens[0] != tokens[1]).any():
                return "their tokens are not the same; bits per character are"
        return None

    def _why_not_general(self) -> str | None:
        texts = [one.general for one in (self.before, self.after) if one.general is not None]
        if len({text.sha256 for text in texts}) > 1:
            return "their texts are not the same"
        if len({tuple(piece[1:] for piece in text.pieces) for text in texts}) > 1:
            return "their tokens are not the same"
        return None

    def question(self, name: str, *, clean: bool) -> _Question:
        before, after = self.metric(name)
        assert before is not None
        assert after is not None
        if name in GENERAL:
            pieces = np.arange(len(after.statistics))
            return _Question(before, after, pieces, pieces, pieces, None)
        chosen = self.clean if clean else np.ones(len(self.groups), bool)
        known = (before.clean, after.clean) if clean else (before.estimate, after.estimate)
        return _Question(
            before,
            after,
            self.rows_before[chosen],
            self.rows_after[chosen],
            self.groups[chosen],
            (known[0], known[1]) if self.is_whole and known[0] and known[1] else None,
        )

    @property
    def has_clean(self) -> bool:
        return not self.clean.all()


def compare_evaluations(
    runs: Sequence[RunEvaluations], *, num_resamples: int = 2000, seed: int = 42
) -> Comparison:
    """Tables, pairs and samples of evaluated runs. num_resamples: raised where many tests are made.

    Raises UserError where a base and a tuned model were not evaluated on the same rows.
    """
    runs = _with_own_names(runs)
    spreads = seed_spreads(runs)
    sides = [_against_base(run) for run in runs]
    pairs, notes = _pairs(runs)
    every = [*sides, *(side for _, _, side in pairs)]
    num_tests = sum(len(side.asked()) for side in every)
    drawn = max(num_resamples, min(MOST_RESAMPLES, RESAMPLES_PER_TEST * num_tests))
    lines = _lines(every, drawn, seed)
    known = [d.p_holm for of_side in lines for line in of_side for d in _differences(line)]
    tested = sum(p is not None for p in known)
    return Comparison(
        tables=tuple(RunTable(run.info, found) for run, found in zip(runs, lines, strict=False)),
        pairs=tuple(
            PairTable(before, after, len(side.groups), len(set(side.groups.tolist())), found)
            for (before, after, side), found in zip(pairs, lines[len(runs) :], strict=True)
        ),
        seed_spreads=spreads,
        samples=make_samples(runs, seed),
        config_differences=config_differences(runs),
        notes=(
            *([] if len(runs) == sum(len(one.runs) for one in spreads) else [ONE_SEED]),
            *_notes(runs, every, tested, drawn),
            *seed_notes(runs),
            *notes,
        ),
        num_tests=tested,
        made_with={
            "honing": VERSION,
            "num_resamples": drawn,
            "seed": seed,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "python": platform.python_version(),
        },
    )


def _with_own_names(runs: Sequence[RunEvaluations]) -> list[RunEvaluations]:
    """Folders of one name are told apart by their paths; "base" is what the base is called."""
    names = [run.info.name for run in runs]
    paths = [run.info.folder for run in runs]
    told_apart = [
        path if names.count(name) > 1 or name == "base" else name
        for name, path in zip(names, paths, strict=True)
    ]
    return [
        replace(run, info=replace(run.info, name="./base" if name == "base" else name))
        for run, name in zip(runs, told_apart, strict=True)
    ]


# --- which rows


def _against_base(run: RunEvaluations) -> _Side:
    same_rows(run)
    rows = np.arange(len(run.tuned.predictions))
    groups, clean = _groups(run.tuned, rows)
    who = f"{run.info.name} and its base"
    return _Side(who, run.base, run.tuned, rows, rows, groups, clean, run.tuned.floors, True)


def _groups(evaluation: Evaluation, rows: Places) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Of these rows the groups, and which have no twin in training."""
    found = [evaluation.predictions[place] for place in rows]
    return (
        np.array([row.group for row in found], np.int64),
        np.array([not row.leaked for row in found], bool),
    )


def _pairs(
    runs: Sequence[RunEvaluations],
) -> tuple[list[tuple[str, str, _Side]], list[str]]:
    """Every two runs that share rows, and what has to be said about the others."""
    pairs, notes = [], []
    for first, second in combinations(runs, 2):
        names = f"{first.info.name} and {second.info.name}"
        rows = join_rows(first.tuned, second.tuned)
        if rows is None:
            notes.append(
                f"{names}: rows of the same id have other references, so they are not compared"
            )
            continue
        before, after = rows
        if not len(before):
            notes.append(f"{names}: no row was answered by both, so they are not compared")
            continue
        groups, clean = _groups(first.tuned, before)
        _, also_clean = _groups(second.tuned, after)
        side = _Side(
            names, first.tuned, second.tuned, before, after, groups, clean & also_clean, {}, False
        )
        pairs.append((first.info.name, second.info.name, side))
        all_rows = max(len(first.tuned.predictions), len(second.tuned.predictions))
        if len(before) < all_rows:
            notes.append(f"{names}: compared on the {len(before)} rows that both answered")
    return pairs, notes


# --- tables


def _lines(sides: Sequence[_Side], num_resamples: int, seed: int) -> list[tuple[MetricLine, ...]]:
    """The lines of each side, with all p-values corrected together."""
    asked = [(side, name, clean) for side in sides for name, clean in side.asked()]
    questions = [side.question(name, clean=clean) for side, name, clean in asked]
    raw = [question.ask(num_resamples, seed) for question in questions]
    corrected = holm([found.p_value for found in raw])
    answers = {
        (id(side), name, clean): _difference(question, found, p_holm, num_resamples, seed)
        for (side, name, clean), question, found, p_holm in zip(
            asked, questions, raw, corrected, strict=True
        )
    }
    metrics = {
        (id(side), name): question.after
        for (side, name, _), question in zip(asked, questions, strict=True)
    }
    return [
        tuple(
            MetricLine(
                name=name,
                signature=metrics[id(side), name].signature,
                better=metrics[id(side), name].better,
                unit=metrics[id(side), name].unit,
                all_rows=answers[id(side), name, False],
                clean=answers.get((id(side), name, True)),
                floors={
                    floor: scores[name] for floor, scores in side.floors.items() if name in scores
                },
            )
            for name in side.names()
        )
        for side in sides
    ]


def _difference(
    question: _Question, raw: RawDifference, p_holm: float | None, num_resamples: int, seed: int
) -> Difference:
    before, after = question.known or question.estimates(num_resamples, seed)
    return Difference(
        before=before,
        after=after,
        difference=raw.difference,
        interval=raw.interval,
        p_value=raw.p_value,
        p_holm=p_holm,
        smallest_detectable=raw.smallest_detectable,
        verdict=verdict(raw.difference, raw.interval, p_holm, question.after.better),
    )


def _statistics(metric: MetricRecord, rows: Places) -> Floats:
    return np.array(metric.statistics, np.float64)[rows]


def _differences(line: MetricLine) -> list[Difference]:
    return [line.all_rows] if line.clean is None else [line.all_rows, line.clean]


# --- what a reader has to know


def _notes(
    runs: Sequence[RunEvaluations], sides: Sequence[_Side], num_tests: int, num_resamples: int
) -> list[str]:
    notes = []
    for run in runs:
        info = run.info
        if info.num_leaked:
            notes.append(
                f"{info.name}: {info.num_leaked} of {info.num_rows} rows have a twin in training; "
                "the clean figures leave them out"
            )
    for side in sides:
        notes += [
            f"{side.who}: {name} is not compared, for {reason}"
            for name in side.all_names()
            if (reason := side.why_not(name)) is not None
        ]
    if num_tests / (num_resamples + 1) >= ALPHA:
        notes.append(
            f"{num_tests} tests corrected together are too many for {num_resamples} resamples: "
            "no verdict can be reached; compare fewer runs"
        )
    return list(dict.fromkeys(notes))


__all__ = ["RunEvaluations", "RunInfo", "compare_evaluations", "load_run"]
