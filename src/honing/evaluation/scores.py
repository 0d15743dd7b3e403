"""Name of a metric → its score: what sums of stored statistics mean. No reference tool needed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from honing.evaluation.metric import Floats, Score, ratio, share
from honing.evaluation.overlap import OVERLAP_SCORES


def perplexity(sums: Floats) -> Floats:
    """k = 2, (nats, tokens) → exp(nats / tokens); infinite where that overflows."""
    with np.errstate(over="ignore"):
        return np.exp(ratio(sums))


def bits_per_character(sums: Floats) -> Floats:
    """k = 2, (nats, characters) → nats / ln 2 / characters."""
    return ratio(sums) / math.log(2)


SCORES: Mapping[str, Score] = {
    **OVERLAP_SCORES,
    "perplexity": perplexity,
    "bits_per_character": bits_per_character,
    "general_perplexity": perplexity,
    "general_bits_per_character": bits_per_character,
    "length_ratio": ratio,
    **dict.fromkeys(
        (
            "exact_match",
            "ended",
            "repetition",
            "looping",
            "empty",
            "echo",
            "other_scripts",
            "hangul",
            "one_speech_level",
            "speech_level_match",
            "particle_errors",
        ),
        share,
    ),
}
"""Every metric whose statistics lie in an evaluation. Checked against those that are measured."""
