"""Samples: chosen by the gain of the last run, with all answers, none left out for its looks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from honing.evaluation.overlap import sentence_chrf
from honing.evaluation.record import Evaluation
from honing.report import samples
from honing.report.runs import RunEvaluations
from honing.report.samples import choose, make_samples, sentence_scores
from tests.report.made_up import made_up_runs


def test_best_worst_and_a_draw_that_does_not_look() -> None:
    gains = np.array([0.0, 3.0, -1.0, 5.0, -4.0, 0.0, math.nan, 3.0])
    found = choose(gains, 0)
    assert found["best"] == {1, 3, 7}
    assert found["worst"] == {2, 4}
    assert found["random"] == set(range(8))
    many = choose(np.arange(-50.0, 51.0), 0)
    assert many["best"] == set(range(93, 101))
    assert many["worst"] == set(range(8))
    assert len(many["random"]) == 8
    assert (
        many["random"] == choose(np.zeros(101), 0)["random"] != choose(np.zeros(101), 1)["random"]
    )
    assert choose(np.zeros(0), 0) == {"best": set(), "worst": set(), "random": set()}


def test_scores_of_single_answers_are_sacrebleus() -> None:
    (run,) = made_up_runs(1, 40)
    expected = [sentence_chrf(row.reference, row.prediction) for row in run.tuned.predictions]
    assert sentence_scores(run.tuned).tolist() == pytest.approx(expected)
    assert max(expected) == 100.0
    assert min(expected) == 0.0


def test_without_chrf_there_are_no_gains() -> None:
    (run,) = made_up_runs(1, 5)

    def without(evaluation: Evaluation) -> Evaluation:
        return replace(evaluation, metrics={})

    made = make_samples([RunEvaluations(run.info, without(run.base), without(run.tuned))], 0)
    assert len(made) == 5
    assert all(math.isnan(sample.gain) for sample in made)
    assert [sample.tags for sample in made][2] == ("random", "stopped", "empty")
    assert "looping" in made[1].tags


def test_every_row_is_a_sample_with_the_answers_of_all_runs() -> None:
    first, last = made_up_runs(2, 60, leaked=True)
    made = make_samples([first, last], 0)
    assert [sample.id for sample in made] == [row.id for row in last.tuned.predictions]
    base, scores = sentence_scores(last.base), sentence_scores(last.tuned)
    for place, sample in enumerate(made):
        row = last.tuned.predictions[place]
        assert (sample.prompt, sample.reference) == (row.prompt, row.reference)
        assert list(sample.answers) == ["base", "run-1", "run-2"]
        assert sample.answers["run-2"].text == row.prediction
        assert sample.answers["run-2"].score == scores[place]
        assert sample.answers["run-2"].repetition == row.repetition
        assert sample.answers["base"].text == last.base.predictions[place].prediction
        assert sample.answers["run-1"].text == first.tuned.predictions[place].prediction
        assert sample.gain == scores[place] - base[place]
        assert ("leaked" in sample.tags) == row.leaked == (place % 10 == 0)
        assert ("stopped" in sample.tags) == (row.stopped == "end")
        assert ("not-stopped" in sample.tags) == (row.stopped == "length")
        assert ("empty" in sample.tags) == (row.prediction == "")
        assert ("looping" in sample.tags) == (row.repetition >= 50)
    for tag in ("best", "random"):
        assert sum(tag in sample.tags for sample in made) == 8
    best = min(sample.gain for sample in made if "best" in sample.tags)
    assert all(sample.gain <= best for sample in made if "best" not in sample.tags)


def test_of_many_rows_only_the_chosen_ones_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = made_up_runs(1, 60)
    every = make_samples(runs, 0)
    monkeypatch.setattr(samples, "MOST_SAMPLES", 59)
    chosen = {"best", "worst", "random"}
    assert make_samples(runs, 0) == tuple(one for one in every if chosen & set(one.tags))
    monkeypatch.setattr(samples, "MOST_SAMPLES", 60)
    assert make_samples(runs, 0) == every


def test_a_run_without_the_row_has_no_answer_to_it() -> None:
    first, last = made_up_runs(2, 20)
    metrics = {k: replace(v, statistics=v.statistics[5:]) for k, v in first.tuned.metrics.items()}
    fewer = replace(first.tuned, metrics=metrics, predictions=first.tuned.predictions[5:])
    other = replace(fewer.predictions[0], reference="다른 참조")
    fewer = replace(fewer, predictions=(other, *fewer.predictions[1:]))
    made = make_samples([replace(first, tuned=fewer), last], 0)
    assert [list(sample.answers) for sample in made[4:7]] == [
        ["base", "run-2"],
        ["base", "run-2"],
        ["base", "run-1", "run-2"],
    ]
