"""Configurations side by side, and runs of one recipe with other seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from honing.report.comparison import SeedSpread
from honing.report.runs import RunEvaluations
from honing.report.seeds import config_differences, seed_notes, seed_spreads
from tests.report.made_up import made_up_runs

CONFIG: dict[str, Any] = {"output_dir": "a", "seed": 1, "lora": {"rank": 8, "target": ["q", "v"]}}


def runs_with(*configs: dict[str, Any]) -> list[RunEvaluations]:
    return [
        replace(run, info=replace(run.info, config=config))
        for run, config in zip(made_up_runs(len(configs), 20), configs, strict=True)
    ]


def test_differences_are_flat_and_leave_out_where_a_run_lies() -> None:
    other = {**CONFIG, "output_dir": "b", "lora": {"rank": 16, "target": ["q", "v"]}, "new": None}
    assert config_differences(runs_with(CONFIG, other)) == {
        "lora.rank": {"run-1": 8, "run-2": 16},
        "new": {"run-2": None},
    }
    assert config_differences(runs_with(CONFIG)) == {}
    assert config_differences(runs_with(CONFIG, CONFIG, CONFIG)) == {}
    listed = {**CONFIG, "lora": {"rank": 8, "target": ["q"]}}
    assert config_differences(runs_with(CONFIG, listed)) == {
        "lora.target": {"run-1": ["q", "v"], "run-2": ["q"]}
    }
    assert config_differences(runs_with({}, {"a": {}})) == {"a": {"run-2": {}}}
    assert config_differences(runs_with({"a": 1}, {"a": True})) == {
        "a": {"run-1": 1, "run-2": True}
    }


def test_runs_that_differ_in_the_seed_alone_have_a_spread() -> None:
    second = {**CONFIG, "seed": 2, "output_dir": "b"}
    third = {**CONFIG, "seed": 3, "lora": {"rank": 16}}
    runs = runs_with(CONFIG, third, second)
    scores = [run.tuned.metrics["ended"].estimate.score for run in (runs[0], runs[2])]
    (spread,) = seed_spreads(runs)
    assert isinstance(spread, SeedSpread)
    assert spread.runs == ("run-1", "run-3")
    assert spread.metrics["ended"] == (min(scores), sum(scores) / 2, max(scores))
    assert set(spread.metrics) == set(runs[0].tuned.metrics)


def test_the_same_run_twice_or_an_unknown_seed_is_no_spread() -> None:
    assert seed_spreads(runs_with(CONFIG, CONFIG)) == ()
    assert seed_spreads(runs_with({}, {})) == ()
    assert seed_spreads(runs_with(CONFIG)) == ()


def test_metrics_that_a_run_lacks_have_no_spread() -> None:
    first, second = runs_with(CONFIG, {**CONFIG, "seed": 2})
    metrics = {k: v for k, v in second.tuned.metrics.items() if k != "chrf"}
    other = replace(second, tuned=replace(second.tuned, metrics=metrics))
    (spread,) = seed_spreads([first, other])
    assert "chrf" not in spread.metrics
    assert "ended" in spread.metrics


def test_seeds_that_chose_other_rows_say_so() -> None:
    first, second = runs_with(CONFIG, {**CONFIG, "seed": 2})
    assert seed_notes([first, second]) == []
    fewer = replace(second, tuned=replace(second.tuned, predictions=second.tuned.predictions[1:]))
    assert seed_notes([first, fewer]) == [
        "run-1, run-2: their seeds chose different rows to answer, so the spread over seeds is "
        "one over rows too"
    ]
