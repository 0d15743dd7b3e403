"""Losses on a general text as metrics that a bootstrap can resample."""

from __future__ import annotations

import math

import pytest

from honing.evaluation.forgetting import GENERAL, general_figures, general_metrics
from honing.evaluation.record import GeneralText
from honing.evaluation.scores import SCORES

TEXT = GeneralText("wiki.txt|windows of 512|tokens:30", "ab", ((6.0, 10, 4), (14.0, 20, 6)))


def test_each_piece_is_a_line_of_statistics() -> None:
    metrics = general_metrics(TEXT)
    assert metrics.keys() == GENERAL.keys() == SCORES.keys() & GENERAL.keys()
    perplexity, bits = metrics["general_perplexity"], metrics["general_bits_per_character"]
    assert perplexity.statistics == ((6.0, 10.0), (14.0, 20.0))
    assert perplexity.estimate.score == math.exp(20.0 / 30.0)
    assert (perplexity.unit, perplexity.better) == ("general perplexity", "lower")
    assert bits.statistics == ((6.0, 4.0), (14.0, 6.0))
    assert bits.estimate.score == pytest.approx(20.0 / math.log(2.0) / 10.0, rel=1e-15)
    assert {metric.signature for metric in metrics.values()} == {TEXT.signature}


def test_figures_are_the_same_numbers() -> None:
    assert {name: figure.value for name, figure in general_figures(TEXT).items()} == {
        name: metric.estimate.score for name, metric in general_metrics(TEXT).items()
    }
    assert general_figures(None) == {}
    assert general_metrics(None) == {}
