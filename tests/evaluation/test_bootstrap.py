"""Bootstrap: SciPy's intervals where both do the same, hand-worked cases where they differ."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from honing.evaluation import bootstrap
from honing.evaluation.bootstrap import difference, estimate, holm, resample, sum_groups, verdict
from honing.evaluation.metric import Floats, ratio, share
from honing.evaluation.scores import perplexity


def alone(number: int) -> NDArray[np.int64]:
    """Each row a group."""
    return np.arange(number)


def answers(hits: int, number: int) -> Floats:
    return np.column_stack([np.arange(number) < hits, np.ones(number)]).astype(np.float64)


def losses(number: int, seed: int = 0) -> Floats:
    generator = np.random.default_rng(seed)
    tokens = np.ceil(generator.lognormal(2.7, 0.5, number))
    return np.column_stack([tokens * generator.lognormal(0.8, 0.4, number), tokens])


# --- against SciPy


def test_the_interval_is_scipys_bca_at_the_level_of_the_wider_quantile() -> None:
    """On the same resamples: what SciPy does at 1 - 2 Φ(-t √(G / (G-1))) is done here at 95 %."""
    statistics, num_groups = losses(60), 60
    sums = statistics[:, None, None, :]
    drawn = bootstrap._resampled_values(sums, perplexity, 1000, 7)
    shape = bootstrap._shape(drawn, perplexity, sums)
    wider = math.sqrt(60 / 59) * stats.t.ppf(0.975, shape.degrees[0])
    assert wider > stats.t.ppf(0.975, num_groups - 1) > 1.96

    def score_of(places: NDArray[np.int64], axis: int = -1) -> Floats:
        return perplexity(statistics[places].sum(axis=axis - 1))

    known = SimpleNamespace(bootstrap_distribution=drawn[:, 0])
    expected = stats.bootstrap(
        (np.arange(num_groups),),
        score_of,
        n_resamples=0,
        bootstrap_result=known,
        vectorized=True,
        confidence_level=1 - 2 * stats.norm.cdf(-wider),
        method="BCa",
    ).confidence_interval
    found = estimate(statistics, alone(60), perplexity, num_resamples=1000, seed=7).interval
    assert found == pytest.approx((expected.low, expected.high), abs=1e-8)


def test_degrees_of_freedom_follow_the_tails() -> None:
    def degrees(values: Floats) -> float:
        sums = np.column_stack([values, np.ones(len(values))])[:, None, None, :]
        drawn = bootstrap._resampled_values(sums, ratio, 100, 0)
        return float(bootstrap._shape(drawn, ratio, sums).degrees[0])

    two_values = np.repeat([0.0, 1.0], [7, 33])  # their variance follows from their mean
    assert degrees(two_values) == 39.0
    normal = stats.norm.ppf((np.arange(400) + 0.5) / 400)  # kurtosis just below 3
    assert degrees(normal) == 399.0
    laplace = stats.laplace.ppf((np.arange(400) + 0.5) / 400)  # kurtosis just below 6
    assert degrees(laplace) == pytest.approx(2 * 400 / (stats.kurtosis(laplace, fisher=False) - 1))


# --- one score


def test_the_score_is_that_of_all_rows_and_lies_inside() -> None:
    statistics = losses(50)
    found = estimate(statistics, alone(50), perplexity)
    assert found.score == float(perplexity(statistics.sum(axis=0)))
    assert found.interval is not None
    assert found.interval[0] < found.score < found.interval[1]


def test_the_same_seed_gives_the_same_interval_in_any_order() -> None:
    statistics = losses(50)
    first = estimate(statistics, alone(50), perplexity, seed=1)
    bootstrap._draw.cache_clear()
    assert estimate(statistics, alone(50), perplexity, seed=1) == first
    assert estimate(statistics, alone(50), perplexity, seed=2) != first
    many = difference(statistics, losses(50, 1), alone(50), perplexity, seed=1)
    assert difference(statistics, losses(50, 1), alone(50), perplexity, seed=1) == many


def test_resamples_drawn_in_chunks_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "CHUNK_CELLS", 50 * 30)
    sums = losses(50)[:, None, None, :]
    assert bootstrap._resampled_values(sums, perplexity, 100, 0).shape == (100, 1)
    counts = [bootstrap._draw(30, 50, 0, chunk) for chunk in range(2)]
    assert [count.sum(axis=1).tolist() for count in counts] == [[50] * 30] * 2
    assert (counts[0] != counts[1]).any()


def test_groups_are_resampled_whole() -> None:
    """Each row five times in a group of its own is the same as each row once."""
    statistics = losses(40)
    expected = estimate(statistics, alone(40), ratio)
    found = estimate(np.repeat(statistics, 5, axis=0), np.repeat(alone(40), 5), ratio)
    assert found.interval == pytest.approx(expected.interval, abs=1e-8)
    assert sum_groups(np.arange(6.0).reshape(3, 2), np.array([7, 2, 7])).tolist() == [
        [2, 3],
        [4, 6],
    ]


def test_equal_groups_leave_no_doubt() -> None:
    found = estimate(np.full((20, 2), 3.0), alone(20), ratio)
    assert (found.score, found.interval) == (1.0, (1.0, 1.0))


def test_all_hits_are_not_certain() -> None:
    """With an imagined miss among 102 groups; Clopper and Pearson would say 96.4 %."""
    low, high = estimate(answers(100, 100), alone(100), share).interval or (0, 0)
    assert high == 100.0
    assert 94.5 < low < 96.4
    low, high = estimate(answers(0, 100), alone(100), share).interval or (0, 0)
    assert low == 0.0
    assert 3.6 < high < 5.5


def test_a_share_that_is_no_hit_or_miss_has_no_imagined_groups() -> None:
    """97 % and 99 % of each answer's letters: nothing near 0 % is to be feared."""
    letters = np.column_stack([np.tile([97.0, 99.0], 50), np.full(100, 100.0)])
    low, high = estimate(letters, alone(100), share).interval or (0, 0)
    assert 97.7 < low < 98.0 < high < 98.3


@pytest.mark.parametrize(
    ("statistics", "score"),
    [
        (np.zeros((0, 2)), math.nan),
        (np.ones((4, 2)), 1.0),
        (np.zeros((100, 2)), math.nan),
        (np.vstack([np.ones((4, 2)), np.zeros((96, 2))]), 1.0),  # four answers with a case
        (np.full((100, 2), math.nan), math.nan),
    ],
)
def test_too_few_groups_have_no_interval(statistics: Floats, score: float) -> None:
    found = estimate(statistics, alone(len(statistics)), ratio)
    assert found.score == pytest.approx(score, nan_ok=True)
    assert found.interval is None


def test_five_groups_have_one() -> None:
    assert estimate(losses(5), alone(5), ratio).interval is not None


def test_an_infinite_score_has_none() -> None:
    assert estimate(np.full((9, 2), [9e9, 1.0]), alone(9), perplexity).interval is None


def test_few_resamples_without_a_case_are_left_out() -> None:
    """Before, only some answers hold a case; after, each one does."""
    after = np.column_stack([np.arange(40.0), np.full(40, 40.0)])
    five, two = after.copy(), after.copy()
    five[5:], two[2:] = 0.0, 0.0
    assert difference(five, after, alone(40), ratio).interval is not None  # e^-5 are without
    assert difference(two, after, alone(40), ratio).interval is None  # e^-2
    assert difference(two, after, alone(40), ratio).p_value is None


# --- differences


def test_a_difference_keeps_rows_together() -> None:
    """Every row better by about 1, though rows differ by 100."""
    hard = np.linspace(0.0, 100.0, 50)
    ones = np.ones(50)
    before = np.column_stack([hard, ones])
    after = np.column_stack([hard + 1.0 + 0.1 * np.cos(np.arange(50)), ones])
    found = difference(before, after, alone(50), ratio)
    assert found.difference == pytest.approx(1.0, abs=0.01)
    assert found.interval is not None
    assert 0.95 < found.interval[0] < found.interval[1] < 1.05
    assert found.p_value == pytest.approx(1 / 2001)


def test_smallest_detectable_is_2_8_standard_errors() -> None:
    """1.96 for 5 %, 0.84 for 80 % power; of a mean, σ / √n."""
    before = np.column_stack([np.zeros(400), np.ones(400)])
    after = np.column_stack([np.tile([1.0, -1.0], 200), np.ones(400)])
    found = difference(before, after, alone(400), ratio, num_resamples=20_000)
    assert found.smallest_detectable == pytest.approx((1.95996 + 0.84162) / 20.0, rel=0.02)


def test_the_p_value_is_below_5_percent_where_the_interval_excludes_zero() -> None:
    """Of 2,000 made-up differences, some of them nearly not to be told from zero."""
    generator = np.random.default_rng(5)
    before = generator.lognormal(0.0, 0.6, (40, 2000, 1, 1))
    after = before * generator.lognormal(0.06, 0.4, before.shape)
    both = np.concatenate([before, after], axis=2)
    found = resample(
        np.concatenate([both, np.ones_like(both)], axis=3),
        ratio,
        hits_or_misses=False,
        num_resamples=1000,
        seed=0,
    )
    excludes = (found.low > 0.0) | (found.high < 0.0)
    assert 200 < excludes.sum() < 1800
    assert (excludes == (found.p_value < 0.05)).all()
    near = np.abs(found.p_value - 0.05) < 0.002
    assert near.any(), "so that an end of its interval is nearly zero"
    ends = np.minimum(np.abs(found.low), np.abs(found.high))[near]
    assert (ends < 0.1 * (found.high - found.low)[near]).all()


def test_few_changed_groups_cannot_all_agree_by_more_than_chance() -> None:
    """2^(1-m): five signs agree in 1 of 16 cases, six in 1 of 32."""
    before = np.column_stack([np.zeros(100), np.ones(100)])
    for changed, p_value in ((3, 0.25), (5, 0.0625), (6, 0.03125)):
        after = before.copy()
        after[:changed, 0] = 1.0 + 0.1 * np.arange(changed)
        found = difference(before, after, alone(100), ratio)
        assert found.p_value == p_value
        assert found.interval is not None
        assert (found.interval[0] > 0.0) == (p_value < 0.05)
        assert found.interval[0] >= 0.0


@pytest.mark.parametrize(
    ("better", "worse"),
    [(3, 0), (6, 0), (6, 1), (8, 1), (9, 2), (12, 2), (20, 5), (20, 8), (15, 10), (20, 20)],
)
def test_p_values_of_shares_lie_between_mcnemars_exact_and_mid_p(better: int, worse: int) -> None:
    """The exact test errs on the safe side, mid-p hardly at all (Fagerland et al. 2013)."""
    before, after = answers(100, 200), answers(100, 200)
    after[:worse, 0] = 0.0
    after[100 : 100 + better, 0] = 1.0
    found = difference(before, after, alone(200), share, num_resamples=20_000)
    exact = stats.binomtest(worse, better + worse).pvalue
    assert found.p_value is not None
    assert exact - stats.binom.pmf(worse, better + worse, 0.5) <= found.p_value <= exact


def test_equal_answers_differ_in_nothing() -> None:
    found = difference(losses(50), losses(50), alone(50), perplexity)
    assert (found.difference, found.interval, found.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert found.smallest_detectable is None
    shares = difference(answers(100, 100), answers(100, 100), alone(100), share)
    assert (shares.difference, shares.p_value) == (0.0, 1.0)
    assert shares.smallest_detectable == pytest.approx(2.8 * math.sqrt(2) * 100 / 102, rel=0.05)


def test_the_same_change_everywhere_is_certain_only_with_many_groups() -> None:
    for number, p_value in ((20, 1 / 2001), (7, 2**-6), (5, 2**-4)):
        before = np.column_stack([np.arange(number), np.ones(number)]).astype(np.float64)
        found = difference(before, before + np.array([3.0, 0.0]), alone(number), ratio)
        assert found.p_value == pytest.approx(p_value)
        assert found.interval == ((3.0, 3.0) if p_value < 0.05 else (0.0, 3.0))


# --- many tests, and what they say


def test_holm_by_hand() -> None:
    """4 x 0.01, 3 x 0.02 and 2 x 0.03 both at most 0.06, 1 x 0.04 raised to it."""
    assert holm([0.04, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None]) == [None]
    assert holm([0.2]) == [0.2]


def test_holm_as_others_have_it() -> None:
    """R's p.adjust(c(0.0001, 0.0058, 0.0132, 0.0289, 0.0498, 0.0911, 0.2012), "holm")."""
    p_values = [0.0001, 0.0058, 0.0132, 0.0289, 0.0498, 0.0911, 0.2012]
    expected = [0.0007, 0.0348, 0.066, 0.1156, 0.1494, 0.1822, 0.2012]
    assert holm(p_values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "interval", "p_holm", "better", "expected"),
    [
        (2.0, (1.0, 3.0), 0.01, "higher", "better"),
        (2.0, (1.0, 3.0), 0.01, "lower", "worse"),
        (-2.0, (-3.0, -1.0), 0.01, "lower", "better"),
        (-2.0, (-3.0, -1.0), 0.01, "higher", "worse"),
        (-2.0, (-3.0, -1.0), 0.01, "neither", "different"),
        (2.0, (0.0, 3.0), 0.01, "higher", "not distinguishable"),
        (2.0, (1.0, 3.0), 0.05, "higher", "not distinguishable"),
        (2.0, (1.0, 3.0), 0.0499, "higher", "better"),
        (2.0, None, None, "higher", "no test"),
    ],
)
def test_verdicts(
    change: float,
    interval: tuple[float, float] | None,
    p_holm: float | None,
    better: str,
    expected: str,
) -> None:
    assert verdict(change, interval, p_holm, better) == expected
