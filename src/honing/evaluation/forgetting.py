"""Losses on a text outside the task → what was forgotten, as figures and as metrics. No torch.

A piece of the text is what is resampled. Neighbouring pieces share a subject, so an interval says
what so much of this text can tell, and nothing of other texts.
"""

from __future__ import annotations

import numpy as np

from honing.evaluation.record import Estimate, Figure, GeneralText, MetricRecord
from honing.evaluation.scores import SCORES

GENERAL = {"general_perplexity": 1, "general_bits_per_character": 2}
"""Name of a metric → where in a piece the number stands by which its nats are divided."""


def general_metrics(general: GeneralText | None) -> dict[str, MetricRecord]:
    """Perplexity and bits per character of a text, with a line of statistics a piece."""
    if general is None:
        return {}
    metrics = {}
    for name, place in GENERAL.items():
        statistics = tuple((piece[0], float(piece[place])) for piece in general.pieces)
        score = float(SCORES[name](np.array(statistics).sum(axis=0)))
        metrics[name] = MetricRecord(
            name=name,
            signature=general.signature,
            better="lower",
            unit=name.replace("_", " "),
            estimate=Estimate(score, None),
            clean=None,
            statistics=statistics,
        )
    return metrics


def general_figures(general: GeneralText | None) -> dict[str, Figure]:
    """The same as plain figures."""
    return {
        name: Figure(metric.estimate.score, metric.signature)
        for name, metric in general_metrics(general).items()
    }
