"""Round ticks, their labels, and how wide a text will be."""

from __future__ import annotations

import math

import pytest

from honing.report.axes import Scale, nice_ticks, outer_ticks, shorten, text_width, tick_label


@pytest.mark.parametrize(
    ("low", "high", "wanted", "ticks"),
    [
        (0.0, 100.0, 5, [0, 20, 40, 60, 80, 100]),
        (0.0, 60.0, 5, [0, 20, 40, 60]),
        (1.27, 2.3, 4, [1.5, 2.0]),
        (-3.0, 4.0, 4, [-2, 0, 2, 4]),
        (0.0, 2e-4, 4, [0, 5e-5, 1e-4, 1.5e-4, 2e-4]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, wanted: int, ticks: list[float]) -> None:
    assert nice_ticks(low, high, wanted) == pytest.approx(ticks)


@pytest.mark.parametrize("low", [5.0, math.nan, math.inf])
def test_where_there_is_no_range_there_is_one_tick(low: float) -> None:
    ticks = nice_ticks(low, low, 5)
    assert len(ticks) == 1


def test_outer_ticks_hold_all_values() -> None:
    assert outer_ticks(1.27, 2.3, 4) == [1.0, 1.5, 2.0, 2.5]
    assert outer_ticks(0.0, 9.9e-4, 4) == pytest.approx([0, 5e-4, 1e-3])
    assert outer_ticks(3.0, 3.0, 4) == [3.0, 6.0]
    assert outer_ticks(0.0, 0.0, 4) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0, 20, 40], ["0", "20", "40"]),
        ([1.0, 1.5, 2.0], ["1.0", "1.5", "2.0"]),
        ([-2, 0, 2], ["−2", "0", "2"]),
        ([0, 1000, 2000], ["0", "1,000", "2,000"]),
        ([0, 5e-5, 1e-4], ["0", "5e-5", "1e-4"]),
        ([0, 1.5e-4, 3e-4], ["0", "1.5e-4", "3e-4"]),
        ([7.25], ["7"]),
    ],
)
def test_labels_have_the_decimals_that_their_steps_need(
    ticks: list[float], labels: list[str]
) -> None:
    assert [tick_label(tick, ticks) for tick in ticks] == labels


def test_a_scale_maps_and_clamps() -> None:
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert [scale(0), scale(5), scale(10), scale(-1)] == [100, 150, 200, 90]
    assert [scale.clamp(value) for value in (-1.0, 3.0, 11.0)] == [0, 3, 10]


def test_korean_is_as_wide_as_high() -> None:
    assert text_width("한글") == 24.0
    assert text_width("ab") == pytest.approx(13.44)
    assert shorten("짧다", 24.0) == "짧다"
    assert shorten("아주 긴 이름입니다", 60.0) == "아주 긴…"
    assert text_width(shorten("아주 긴 이름입니다", 60.0)) <= 60.0
