"""Scores by name: the same functions as the metrics that are measured have."""

from __future__ import annotations

import math

import numpy as np
import pytest

from honing.evaluation.behaviour import behaviour_metrics
from honing.evaluation.metric import Metric
from honing.evaluation.overlap import overlap_metrics
from honing.evaluation.record import Prediction
from honing.evaluation.scores import SCORES, bits_per_character, perplexity


def measured(references: list[str], answers: list[str]) -> list[Metric]:
    rows = [
        Prediction(str(place), "질문", reference, answer, 1.0, 2, "end", 5)
        for place, (reference, answer) in enumerate(zip(references, answers, strict=True))
    ]
    return [*overlap_metrics(references, answers), *behaviour_metrics(rows)]


def test_every_metric_that_is_measured_is_known_by_its_name() -> None:
    long = ["오늘은 날씨가 아주 맑고 바람도 불지 않아요."] * 3
    short = ["네", "아니요", "네"]
    metrics = [*measured(long, long), *measured(short, ["네", "네", ""])]
    names = {metric.name for metric in metrics}
    assert names >= {"bleu", "bleu (effective order)", "chrf++", "rougeL", "particle_errors"}
    for metric in metrics:
        known = float(SCORES[metric.name](metric.statistics.sum(axis=0)))
        assert known == pytest.approx(metric.value, rel=0, abs=0, nan_ok=True), metric.name
    losses = {"perplexity", "bits_per_character"}
    assert set(SCORES) - names == losses | {f"general_{name}" for name in losses}


def test_perplexity_and_bits_per_character() -> None:
    assert float(perplexity(np.array([6.0, 3.0]))) == math.exp(2.0)
    assert float(bits_per_character(np.array([6.0 * math.log(2.0), 3.0]))) == 2.0
    assert perplexity(np.array([[0.0, 4.0], [1e6, 1.0]])).tolist() == [1.0, math.inf]
    assert math.isnan(float(perplexity(np.array([0.0, 0.0]))))
