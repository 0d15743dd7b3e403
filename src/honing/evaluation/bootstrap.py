"""Intervals and p-values of scores that are functions of sums: what is resampled is the group.

Rows of one near-duplicate group resemble each other and count once, so statistics are summed over
groups, and groups are drawn with replacement; both models of a difference keep the same draw. The
intervals are BCa (Efron 1987, JASA 82), as scipy.stats.bootstrap computes them, with three changes
for what BCa gets wrong on a few hundred rows. tests/evaluation/test_coverage.py measures them.

- A t quantile times √(G/(G-1)) instead of the normal one (Hesterberg 2015, Am. Stat. 69): a
  resample of G groups varies less than a fresh draw does. Its degrees of freedom, 2 G / (κ - 1 -
  γ²) with γ and κ the skewness and kurtosis of the groups' influence, are those of a variance
  whose mean is known (Satterthwaite 1946; the correlation of both is what BCa corrects already).
- A share of answers that either hit or miss is resampled with one imagined group of each outcome
  more; a difference of shares with one that got better and one that got worse (Bonett and Price
  2012, J. Educ. Behav. Stat. 37). Otherwise 100 hits of 100 would be certain, and so would be 3
  answers of 100 that got better while none got worse.
- No p-value is smaller than 2^(1-m), where the groups that changed at all are m: so often all m
  signs agree by chance. An interval that p-value forbids to exclude zero reaches to it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from honing.evaluation.metric import Floats, Score, share
from honing.evaluation.record import Estimate, Verdict

ALPHA = 0.05
POWER = 0.80
FEWEST_GROUPS = 5
"""With fewer, no resample reaches far enough for a 95 % interval."""
FEWEST_DEGREES = 4.0
DECIMALS = 9
MOST_UNDEFINED = 0.05
"""Share of resamples without a score (a ratio without a case) above which there is no interval."""
CHUNK_CELLS = 1 << 22
"""Resamples times groups that are drawn at once: 8 MB kept, 32 MB in use."""

Counts = NDArray[np.uint16]


@dataclass(frozen=True)
class RawDifference:
    """`after` minus `before`. p_value: two-sided, below 0.05 where the interval excludes zero;
    never below 1 / (resamples + 1). smallest_detectable: what would have shown with 80 % power."""

    difference: float
    interval: tuple[float, float] | None
    p_value: float | None
    smallest_detectable: float | None


@dataclass(frozen=True)
class Resampled:
    """The bootstrap of M series, (M,) each; not a number where it is undefined."""

    low: Floats
    high: Floats
    p_value: Floats
    standard_error: Floats


def estimate(
    statistics: Floats,
    groups: NDArray[np.int64],
    score: Score,
    *,
    num_resamples: int = 2000,
    seed: int = 42,
) -> Estimate:
    """A score of (n, k) statistics with its 95 % interval; None below FEWEST_GROUPS groups.

    groups: (n,) the number of each row's group.
    """
    found = _resample_rows(statistics[:, None, :], groups, score, num_resamples, seed)
    return Estimate(_score(score, statistics), _interval(found))


def difference(
    before: Floats,
    after: Floats,
    groups: NDArray[np.int64],
    score: Score,
    *,
    num_resamples: int = 2000,
    seed: int = 42,
) -> RawDifference:
    """The score of `after` minus that of `before`, (n, k) statistics of the same rows each."""
    both = np.stack([before, after], axis=1)
    found = _resample_rows(both, groups, score, num_resamples, seed)
    error = _float(found.standard_error)
    reach = ndtri(1.0 - ALPHA / 2.0) + ndtri(POWER)
    return RawDifference(
        difference=_score(score, after) - _score(score, before),
        interval=_interval(found),
        p_value=_known(_float(found.p_value)),
        smallest_detectable=float(reach * error) if error > 0.0 else None,
    )


def _score(score: Score, statistics: Floats) -> float:
    return float(score(statistics.sum(axis=0))) if len(statistics) else math.nan


def _resample_rows(
    statistics: Floats, groups: NDArray[np.int64], score: Score, num_resamples: int, seed: int
) -> Resampled:
    """statistics: (n, models, k). Groups without a case (an answer without a particle to check)
    are no part of the draw."""
    sums = sum_groups(statistics, groups)[:, None]
    sums = sums[sums.any(axis=(1, 2, 3))]
    hits_or_misses = score is share and bool(
        np.all((statistics[..., 0] == 0.0) | (statistics[..., 0] == statistics[..., 1]))
    )
    return resample(
        sums, score, hits_or_misses=hits_or_misses, num_resamples=num_resamples, seed=seed
    )


def sum_groups(statistics: Floats, groups: NDArray[np.int64]) -> Floats:
    """(n, ...) → (G, ...), in the order of the groups' numbers."""
    _, place = np.unique(groups, return_inverse=True)
    sums = np.zeros((int(place.max(initial=-1)) + 1, *statistics.shape[1:]))
    np.add.at(sums, place, statistics)
    return sums


def _interval(found: Resampled) -> tuple[float, float] | None:
    low, high = _float(found.low), _float(found.high)
    return None if math.isnan(low) or math.isnan(high) else (low, high)


def _float(values: Floats) -> float:
    return float(values[0])


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


# --- the bootstrap itself


def resample(
    sums: Floats, score: Score, *, hits_or_misses: bool, num_resamples: int, seed: int
) -> Resampled:
    """sums: (G, M, models, k) of M series, with one model (its score) or two (their difference).

    The series share their resamples. hits_or_misses: of a share, see above.
    """
    num_changed = (sums[:, :, -1] != sums[:, :, 0]).any(axis=-1).sum(axis=0)
    if len(sums) < FEWEST_GROUPS:
        unknown = np.full(sums.shape[1], np.nan)
        return Resampled(unknown, unknown, unknown, unknown)
    if hits_or_misses:
        sums = np.concatenate([sums, _imagined_groups(sums)])
    drawn = _resampled_values(sums, score, num_resamples, seed)
    shape = _shape(drawn, score, sums)
    low, high = (_quantile(drawn, shape.place(side)) for side in (-1.0, 1.0))
    p_value = np.maximum(shape.p_value(drawn), 1.0 / (num_resamples + 1))
    if sums.shape[2] == 2:
        least = 2.0 ** (1.0 - num_changed)
        p_value = np.minimum(1.0, np.maximum(p_value, least))
        low = np.where(least < ALPHA, low, np.minimum(low, 0.0))
        high = np.where(least < ALPHA, high, np.maximum(high, 0.0))
    undefined = np.isnan(drawn).mean(axis=0) > MOST_UNDEFINED
    results = (low, high, p_value, _deviation(drawn))
    return Resampled(*(np.where(undefined, np.nan, result) for result in results))


def _value(score: Score, sums: Floats) -> Floats:
    """(..., models, k) → (...) the score of one model, or of the second minus the first.

    Rounded, so that what is equal is equal in whatever order it was summed.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        scores = score(sums)
        value = scores[..., -1] - scores[..., 0] if sums.shape[-2] == 2 else scores[..., 0]
    return np.where(np.isfinite(value), value, np.nan).round(DECIMALS)


def _imagined_groups(sums: Floats) -> Floats:
    """(2, M, models, 2) a group that hits and one that misses, as large as the mean group; of two
    models, one that only the second hits and one that only the first hits."""
    whole = np.broadcast_to(sums[..., 1].mean(axis=0), (2, *sums.shape[1:3]))
    hit = np.arange(sums.shape[2]) == sums.shape[2] - 1
    return np.stack([whole * np.stack([hit, ~hit])[:, None, :], whole], axis=-1)


def _resampled_values(sums: Floats, score: Score, num_resamples: int, seed: int) -> Floats:
    """(R, M), sorted; the undefined ones last."""
    num_groups = len(sums)
    flat = sums.reshape(num_groups, -1)
    at_once = max(1, CHUNK_CELLS // num_groups)
    values = []
    for chunk, start in enumerate(range(0, num_resamples, at_once)):
        counts = _draw(min(at_once, num_resamples - start), num_groups, seed, chunk)
        totals = (counts.astype(np.float64) @ flat).reshape(-1, *sums.shape[1:])
        values.append(_value(score, totals))
    return np.sort(np.concatenate(values), axis=0)


@functools.lru_cache(maxsize=8)
def _draw(num_resamples: int, num_groups: int, seed: int, chunk: int) -> Counts:
    """(R, G) how often each resample holds each group. Kept, for the next metric's sake."""
    generator = np.random.default_rng([seed, chunk])
    drawn = generator.integers(0, num_groups, (num_resamples, num_groups))
    drawn += np.arange(num_resamples)[:, None] * num_groups
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num_groups)
    return counts.reshape(num_resamples, num_groups).astype(np.uint16)


@dataclass(frozen=True)
class _Shape:
    """How the resamples lie around the point, (M,) each: bias and acceleration of BCa, and the t
    distribution with the factor by which its quantiles are wider."""

    bias: Floats
    acceleration: Floats
    degrees: Floats
    factor: float

    def place(self, side: float) -> Floats:
        """Share of the resamples below one end of the interval; side: -1 the lower, 1 the upper."""
        reach = self.bias + side * self.factor * stdtrit(self.degrees, 1.0 - ALPHA / 2.0)
        return cast(Floats, ndtr(self.bias + reach / (1.0 - self.acceleration * reach)))

    def p_value(self, drawn: Floats) -> Floats:
        """2 P where P is the tail whose interval would end at zero: `place` solved for its t.

        Where many resamples are exactly zero, the end that is nearer to the point counts.
        """
        tails = [
            self._tail(_share_below(drawn, strictly=False)),
            1.0 - self._tail(_share_below(drawn, strictly=True)),
        ]
        return np.minimum(1.0, 2.0 * np.minimum(*tails))

    def _tail(self, place: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = ndtri(place) - self.bias
            stretch = 1.0 + self.acceleration * reach
            within = np.where(np.isinf(reach) | (stretch <= 0.0), reach * np.inf, reach / stretch)
        return cast(Floats, stdtr(self.degrees, (within - self.bias) / self.factor))


def _shape(drawn: Floats, score: Score, sums: Floats) -> _Shape:
    num_groups = len(sums)
    total = sums.sum(axis=0)
    point = _value(score, total)
    below = np.mean((drawn < point) + 0.5 * (drawn == point), axis=0)
    least = 0.5 / len(drawn)
    without = _value(score, total - sums)
    influence = without.mean(axis=0) - without
    square, cube, fourth = (np.mean(influence**power, axis=0) for power in (2, 3, 4))
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = np.nan_to_num(cube / square**1.5)
        freedom = 2.0 * num_groups / (fourth / square**2 - 1.0 - skewness**2)
    freedom = np.where(freedom > 0.0, freedom, np.inf)
    return _Shape(
        bias=cast(Floats, ndtri(np.clip(below, least, 1.0 - least))),
        acceleration=skewness / (6.0 * math.sqrt(num_groups)),
        degrees=np.clip(freedom, FEWEST_DEGREES, num_groups - 1.0),
        factor=math.sqrt(num_groups / (num_groups - 1.0)),
    )


def _quantile(drawn: Floats, place: Floats) -> Floats:
    """As np.quantile, with another place for each series, among those that are defined."""
    last = np.maximum((~np.isnan(drawn)).sum(axis=0) - 1, 0)
    position = place * last
    lower = np.floor(position).astype(np.int64)
    series = np.arange(drawn.shape[1])
    start, end = drawn[lower, series], drawn[np.minimum(lower + 1, last), series]
    return cast(Floats, start + (end - start) * (position - lower))


def _deviation(drawn: Floats) -> Floats:
    known = ~np.isnan(drawn)
    number = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, drawn, 0.0).sum(axis=0) / number
    squares = np.where(known, (drawn - mean) ** 2, 0.0).sum(axis=0)
    return np.asarray(np.sqrt(squares / number))


def _share_below(drawn: Floats, *, strictly: bool) -> Floats:
    """_quantile solved for its place: where zero lies among the resamples.

    Of many that are zero, the first place of these (strictly), or the last.
    """
    places = []
    for series in drawn.T:
        known = series[~np.isnan(series)]
        last = max(len(known) - 1, 1)
        first = int(np.searchsorted(known, 0.0, "left"))
        behind = int(np.searchsorted(known, 0.0, "right"))
        if first < behind:
            places.append((first if strictly else behind - 1) / last)
        elif first in (0, len(known)):
            places.append(0.0 if first == 0 else 1.0)
        else:
            low, high = known[first - 1], known[first]
            places.append((first - 1 + low / (low - high)) / last)
    return np.array(places)


# --- many tests at once, and what they say


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected so that one false claim in all of them has a chance of at most 5 %.

    Holm 1979, Scand. J. Stat. 6. None where there was no test.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[place] = largest
    return corrected


def verdict(
    difference: float, interval: tuple[float, float] | None, p_holm: float | None, better: str
) -> Verdict:
    """better, worse or different where interval and corrected p-value both exclude chance."""
    if interval is None or p_holm is None:
        return "no test"
    if interval[0] <= 0.0 <= interval[1] or p_holm >= ALPHA:
        return "not distinguishable"
    if better == "neither":
        return "different"
    return "better" if (difference > 0.0) == (better == "higher") else "worse"
