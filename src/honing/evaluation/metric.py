"""Metric: what was counted in each example, and how sums of counts become a score.

Every metric is a function of sums over examples (as sacrebleu's sufficient statistics are), so a
bootstrap only sums again what was counted once. Nothing here needs torch, sacrebleu or a tokenizer:
a stored evaluation is read, and compared, with numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Better = Literal["higher", "lower", "neither"]
Score = Callable[[Floats], Floats]
"""(..., k) sums of an example's k statistics → (...) scores. Not a number where undefined."""


@dataclass(frozen=True)
class Metric:
    """One metric over n examples.

    statistics: (n, k), one line an example. signature: everything that the figure depends on, the
    tokenizer among it. unit: "0–100" for scores and shares in %, else what is counted.
    """

    name: str
    signature: str
    better: Better
    unit: str
    statistics: Floats
    score: Score

    @property
    def value(self) -> float:
        """The score over all examples."""
        return float(self.score(self.statistics.sum(axis=0)))


def share(sums: Floats) -> Floats:
    """k = 2, (hits, cases) → hits / cases in %."""
    return 100.0 * ratio(sums)


def ratio(sums: Floats) -> Floats:
    """k = 2, (part, whole) → part / whole; not a number where there is no whole."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan))
