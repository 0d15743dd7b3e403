"""Comparisons: each run against its base, pairs on shared rows, one correction over all tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from honing.errors import UserError
from honing.evaluation.bootstrap import difference, holm
from honing.evaluation.record import Estimate, Evaluation, Prediction
from honing.evaluation.scores import SCORES
from honing.report import compare
from honing.report.compare import ONE_SEED, compare_evaluations
from honing.report.comparison import Comparison, Difference
from honing.report.runs import RunEvaluations
from tests.report.made_up import made_up_runs

METRICS = ["perplexity", "bits_per_character", "chrf", "rougeL", "ended", "looping", "length_ratio"]


def compared(runs: list[RunEvaluations]) -> Comparison:
    return compare_evaluations(runs, num_resamples=1000, seed=3)


def all_differences(comparison: Comparison) -> list[Difference]:
    return [
        given
        for lines in [one.lines for one in comparison.tables]
        + [one.lines for one in comparison.pairs]
        for line in lines
        for given in (line.all_rows, line.clean)
        if given is not None
    ]


def with_tuned(run: RunEvaluations, change: Callable[[Evaluation], Evaluation]) -> RunEvaluations:
    return replace(run, tuned=change(run.tuned))


def with_rows(
    evaluation: Evaluation, rows: slice, change: Callable[[Prediction], Prediction] = lambda r: r
) -> Evaluation:
    metrics = {
        name: replace(metric, statistics=metric.statistics[rows])
        for name, metric in evaluation.metrics.items()
    }
    kept = tuple(change(row) for row in evaluation.predictions[rows])
    return replace(evaluation, metrics=metrics, predictions=kept)


def with_metric(evaluation: Evaluation, name: str, **changes: Any) -> Evaluation:
    changed = replace(evaluation.metrics[name], **changes)
    return replace(evaluation, metrics={**evaluation.metrics, name: changed})


# --- a run against its base


def test_a_line_holds_the_evaluations_scores_and_the_bootstrap_of_the_difference() -> None:
    (run,) = made_up_runs(1)
    comparison = compared([run])
    (table,) = comparison.tables
    assert [line.name for line in table.lines] == METRICS
    line = table.lines[2]
    before, after = run.base.metrics["chrf"], run.tuned.metrics["chrf"]
    expected = difference(
        np.array(before.statistics),
        np.array(after.statistics),
        np.array([row.group for row in run.tuned.predictions]),
        SCORES["chrf"],
        num_resamples=1000,
        seed=3,
    )
    given = line.all_rows
    assert (given.before, given.after) == (before.estimate, after.estimate)
    assert given.difference == after.estimate.score - before.estimate.score == expected.difference
    assert (given.interval, given.p_value) == (expected.interval, expected.p_value)
    assert given.smallest_detectable == expected.smallest_detectable
    assert given.verdict == "better"
    assert line.clean is None
    assert line.floors == {"copy the input": 3.2, "nearest training row": 12.9}
    assert (line.signature, line.better, line.unit) == (after.signature, "higher", "0–100")
    assert table.lines[0].floors == {}
    assert comparison.pairs == ()
    assert comparison.seed_spreads == ()
    assert comparison.config_differences == {}


def test_verdicts_follow_what_is_better() -> None:
    runs = made_up_runs(1)
    forward = {line.name: line.all_rows.verdict for line in compared(runs).tables[0].lines}
    assert forward == {
        "perplexity": "better",
        "bits_per_character": "better",
        "chrf": "better",
        "rougeL": "better",
        "ended": "better",
        "looping": "better",
        "length_ratio": "different",
    }
    turned = [RunEvaluations(run.info, base=run.tuned, tuned=run.base) for run in runs]
    backward = {line.name: line.all_rows.verdict for line in compared(turned).tables[0].lines}
    assert set(backward.values()) == {"worse", "different"}
    same = [RunEvaluations(run.info, base=run.base, tuned=run.base) for run in runs]
    nothing = {line.all_rows.verdict for line in compared(same).tables[0].lines}
    assert nothing == {"not distinguishable"}


def test_all_p_values_are_corrected_together() -> None:
    comparison = compared(made_up_runs(3, leaked=True))
    given = all_differences(comparison)
    assert comparison.num_tests == len(given) == (3 + 3) * len(METRICS) * 2
    assert [one.p_holm for one in given] == pytest.approx(holm([one.p_value for one in given]))
    smallest = min(one.p_value for one in given if one.p_value is not None)
    assert min(p for one in given if (p := one.p_holm) is not None) == smallest * len(given)


def test_resamples_are_as_many_as_the_tests_need() -> None:
    assert compared(made_up_runs(1)).made_with["num_resamples"] == 1000
    many = compared(made_up_runs(3, leaked=True))
    assert many.made_with["num_resamples"] == 84 * 40
    assert "better" in {one.verdict for one in all_differences(many)}


def test_too_many_tests_are_said_to_be_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "MOST_RESAMPLES", 1000)
    comparison = compared(made_up_runs(3, leaked=True))
    assert comparison.made_with["num_resamples"] == 1000
    assert (
        "84 tests corrected together are too many for 1000 resamples: no verdict can be reached; "
        "compare fewer runs"
    ) in comparison.notes
    assert {one.verdict for one in all_differences(comparison)} == {"not distinguishable"}


def test_clean_rows_are_compared_alone_and_keep_their_groups() -> None:
    (run,) = made_up_runs(1, leaked=True)
    line = compared([run]).tables[0].lines[2]
    assert line.clean is not None
    before, after = run.base.metrics["chrf"], run.tuned.metrics["chrf"]
    assert (line.clean.before, line.clean.after) == (before.clean, after.clean)
    clean = np.array([not row.leaked for row in run.tuned.predictions])
    expected = difference(
        np.array(before.statistics)[clean],
        np.array(after.statistics)[clean],
        np.array([row.group for row in run.tuned.predictions])[clean],
        SCORES["chrf"],
        num_resamples=1000,
        seed=3,
    )
    assert line.clean.interval == expected.interval != line.all_rows.interval
    assert (
        "run-1: 12 of 120 rows have a twin in training; the clean figures leave them out"
        in compared([run]).notes
    )


def test_where_all_rows_leaked_nothing_clean_is_tested() -> None:
    (run,) = made_up_runs(1)
    every = [
        replace(
            with_rows(one, slice(None), lambda row: replace(row, leaked=True)),
            metrics={
                name: replace(metric, clean=Estimate(float("nan"), None))
                for name, metric in one.metrics.items()
            },
        )
        for one in (run.base, run.tuned)
    ]
    comparison = compared([RunEvaluations(run.info, *every)])
    for line in comparison.tables[0].lines:
        assert line.clean is not None
        assert (line.clean.verdict, line.clean.p_holm) == ("no test", None)
        assert np.isnan(line.clean.difference)
    assert comparison.num_tests == len(METRICS)


def test_base_and_tuned_on_other_rows_are_refused() -> None:
    (run,) = made_up_runs(1)
    fewer = with_tuned(run, lambda tuned: with_rows(tuned, slice(1, None)))
    other = with_tuned(
        run,
        lambda tuned: with_rows(
            tuned, slice(None), lambda row: replace(row, reference=row.reference + "!")
        ),
    )
    for wrong in (fewer, other):
        with pytest.raises(UserError) as caught:
            compared([wrong])
        assert str(caught.value) == (
            "outputs/run-1: base and tuned were not evaluated on the same rows; "
            "run 'honing evaluate outputs/run-1' again"
        )


def test_a_metric_that_only_one_model_has_is_named_and_left_out() -> None:
    (run,) = made_up_runs(1)
    new = replace(run.tuned.metrics["ended"], name="kindness")
    tuned = replace(run.tuned, metrics={**run.tuned.metrics, "kindness": new})
    base = replace(run.base, metrics={**run.base.metrics, "kindness": new})
    del tuned.metrics["looping"]  # type: ignore[attr-defined]
    signed = with_metric(tuned, "rougeL", signature="another tokenizer")
    comparison = compared([RunEvaluations(run.info, base, signed)])
    assert [line.name for line in comparison.tables[0].lines] == [
        name for name in METRICS if name not in ("rougeL", "looping")
    ]
    assert comparison.notes == (
        ONE_SEED,
        "run-1 and its base: rougeL is not compared, for it was counted in two ways "
        "(rougeL|made up|tok:mecab-0.1|version:0 and another tokenizer)",
        "run-1 and its base: looping is not compared, for only one of them has it",
        "run-1 and its base: kindness is not compared, for this version of honing does not know it",
    )


# --- pairs


def test_every_two_runs_are_compared_in_their_order() -> None:
    comparison = compared(made_up_runs(3))
    assert [(pair.before, pair.after) for pair in comparison.pairs] == [
        ("run-1", "run-2"),
        ("run-1", "run-3"),
        ("run-2", "run-3"),
    ]
    pair = comparison.pairs[1]
    assert (pair.num_rows, pair.num_groups) == (120, 96)
    line = pair.lines[2]
    tables = comparison.tables
    assert line.all_rows.before.score == tables[0].lines[2].all_rows.after.score
    assert line.all_rows.after.score == tables[2].lines[2].all_rows.after.score
    assert line.floors == {}
    assert line.all_rows.verdict == "better"


def test_pairs_are_on_the_shared_rows_whatever_their_order() -> None:
    first, second = made_up_runs(2, leaked=True)
    part = RunEvaluations(
        second.info,
        with_rows(second.base, slice(119, 19, -1)),
        with_rows(second.tuned, slice(119, 19, -1)),
    )
    whole, shared = compared([first, second]).pairs[0], compared([first, part]).pairs[0]
    assert (shared.num_rows, shared.num_groups) == (100, 80)
    rows = np.array(first.tuned.metrics["ended"].statistics)[20:]
    line = next(line for line in shared.lines if line.name == "ended")
    assert line.all_rows.before.score == 100.0 * rows[:, 0].mean()
    assert line.all_rows.difference != whole.lines[4].all_rows.difference
    assert (
        "run-1 and run-2: compared on the 100 rows that both answered"
        in compared([first, part]).notes
    )


def test_rows_that_leaked_into_either_training_are_not_clean() -> None:
    first, second = made_up_runs(2, leaked=True)
    other = RunEvaluations(
        second.info,
        with_rows(second.base, slice(None), lambda row: replace(row, leaked=row.id < "made-up:2")),
        with_rows(second.tuned, slice(None), lambda row: replace(row, leaked=row.id < "made-up:2")),
    )
    leaked = {row.id for run in (first, other) for row in run.tuned.predictions if row.leaked}
    kept = [row.id not in leaked for row in first.tuned.predictions]
    line = compared([first, other]).pairs[0].lines[4]
    assert 0 < sum(kept) < 100
    assert line.clean is not None
    rows = np.array(first.tuned.metrics["ended"].statistics)[kept]
    assert line.clean.before.score == 100.0 * rows[:, 0].mean()


def test_runs_without_a_common_row_are_not_compared() -> None:
    first, second = made_up_runs(2)
    halves = [
        RunEvaluations(run.info, with_rows(run.base, rows), with_rows(run.tuned, rows))
        for run, rows in ((first, slice(0, 60)), (second, slice(60, 120)))
    ]
    comparison = compared(halves)
    assert comparison.pairs == ()
    assert comparison.notes[-1] == (
        "run-1 and run-2: no row was answered by both, so they are not compared"
    )


def test_rows_of_one_id_with_other_references_are_other_rows() -> None:
    first, second = made_up_runs(2)

    def change(row: Prediction) -> Prediction:
        return replace(row, reference="다른 답")

    other = RunEvaluations(
        second.info,
        with_rows(second.base, slice(None), change),
        with_rows(second.tuned, slice(None), change),
    )
    comparison = compared([first, other])
    assert comparison.pairs == ()
    assert comparison.notes[-1] == (
        "run-1 and run-2: rows of the same id have other references, so they are not compared"
    )


def test_perplexity_is_not_compared_over_other_tokens() -> None:
    first, second = made_up_runs(2)

    def halved(evaluation: Evaluation) -> Evaluation:
        statistics = tuple((n, t / 2) for n, t in evaluation.metrics["perplexity"].statistics)
        return with_metric(evaluation, "perplexity", statistics=statistics)

    other = RunEvaluations(second.info, halved(second.base), halved(second.tuned))
    comparison = compared([first, other])
    assert [len(table.lines) for table in comparison.tables] == [7, 7]
    assert [line.name for line in comparison.pairs[0].lines] == METRICS[1:]
    assert (
        "run-1 and run-2: perplexity is not compared, for their tokens are not the same; bits per "
        "character are"
    ) in comparison.notes


# --- names and notes


def test_folders_of_one_name_are_told_apart() -> None:
    first, second, third = made_up_runs(3)
    named = [
        replace(run, info=replace(run.info, name=name, folder=folder))
        for run, name, folder in (
            (first, "songys", "a/songys"),
            (second, "songys", "b/songys"),
            (third, "base", "base"),
        )
    ]
    comparison = compared(named)
    assert [table.run.name for table in comparison.tables] == ["a/songys", "b/songys", "./base"]
    assert list(comparison.samples[0].answers) == ["base", "a/songys", "b/songys", "./base"]


def test_one_seed_is_said_to_be_one_seed() -> None:
    runs = made_up_runs(2)
    assert compared(runs[:1]).notes == (ONE_SEED,)
    assert ONE_SEED not in compared(runs).notes  # these differ in nothing but the seed
    other = replace(runs[1], info=replace(runs[1].info, config={"seed": 1, "lora": {"rank": 4}}))
    assert ONE_SEED in compared([runs[0], other]).notes


def test_the_record_is_the_same_for_the_same_seed() -> None:
    first, again = compared(made_up_runs(2)), compared(made_up_runs(2))
    assert first == again
    assert first.to_record() == again.to_record()
    assert compare_evaluations(made_up_runs(2), num_resamples=1000, seed=4) != first
    assert {"honing", "num_resamples", "seed", "numpy", "scipy"} <= set(first.made_with)


def test_a_single_row_has_no_test() -> None:
    comparison = compared(made_up_runs(1, num_rows=1))
    assert {one.verdict for one in all_differences(comparison)} == {"no test"}
    assert comparison.num_tests == 0
