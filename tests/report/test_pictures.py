"""Pictures as SVG: where shapes lie, what is said in words, and that no text can break out."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from honing.report.pictures import (
    WIDTH,
    Bar,
    Line,
    Mark,
    Sizes,
    Track,
    difference_picture,
    histograms,
    line_chart,
    stacked_bars,
    tracks,
)

NAME = "<b>\"실행\" & 'x'</b>\u202e"


def shapes(svg: str, tag: str, style: str = "") -> list[ElementTree.Element]:
    found = ElementTree.fromstring(svg).iter(tag)
    return [one for one in found if not style or style in one.get("class", "").split()]


def texts(svg: str) -> list[str]:
    return [one.text or "" for one in shapes(svg, "text")]


def number(shape: ElementTree.Element, attribute: str) -> float:
    return float(shape.attrib[attribute])


def all_pictures(name: str = "run") -> dict[str, str]:
    lines = [Line(name, "run-1", [(0.0, 2.0), (10.0, 1.0)], dots=True)]
    sizes = [Sizes(name, "run-1", [1.0, 2.0], name)]
    return {
        "line_chart": line_chart(lines, title=name, x_label=name, y_label=name),
        "histograms": histograms(sizes, title=name, x_label=name, low=0, high=10, num_bins=5),
        "stacked_bars": stacked_bars([Bar(name, "run-1", [(name, 100.0, "part-1")])], title=name),
        "tracks": tracks(
            [Track(name, name, [Mark("run-1", 5.0, (4.0, 6.0))])],
            title=name,
            low=0.0,
            high=10.0,
            x_label=name,
        ),
        "difference": difference_picture(1.0, (0.5, 1.5), extent=2.0, style="better", title=name),
    }


@pytest.mark.parametrize("kind", all_pictures())
def test_each_picture_is_an_image_with_a_name_and_no_style_of_its_own(kind: str) -> None:
    svg = all_pictures(NAME)[kind]
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == NAME.replace("\u202e", "\\u202e")
    assert root.get("viewBox")
    assert "\u202e" not in svg
    for shape in root.iter():
        assert shape.tag in {"svg", "text", "line", "rect", "circle", "path", "polyline", "title"}
        names = set(shape.attrib)
        assert not {"style", "fill", "stroke"} & names
        assert not any(name.startswith("on") for name in names)


def test_a_curve_runs_from_its_first_point_to_its_last_between_round_ticks() -> None:
    lines = [Line("학습", "run-1", [(0.0, 2.3), (30.0, 1.4), (60.0, 1.2)])]
    svg = line_chart(lines, title="손실", x_label="스텝", y_label="nat")
    points = [
        tuple(map(float, point.split(",")))
        for point in shapes(svg, "polyline")[0].attrib["points"].split()
    ]
    # From 1.0 to 2.5 the y axis has 188 units, and grows upwards.
    assert [y for _, y in points] == pytest.approx(
        [214 - 188 * (value - 1.0) / 1.5 for value in (2.3, 1.4, 1.2)], abs=0.06
    )
    assert points[0][0] == 46
    assert points[1][0] == pytest.approx((46 + points[2][0]) / 2, abs=0.06)
    assert texts(svg) == ["nat", "스텝", "1.0", "1.5", "2.0", "2.5", "0", "20", "40", "60", "학습"]


def test_a_curve_of_a_run_that_was_stopped_after_step_0_is_a_point() -> None:
    svg = line_chart([Line("", "run-1", [(0.0, 6.4)])], title="", x_label="", y_label="")
    assert [circle.attrib["cx"] for circle in shapes(svg, "circle")] == ["46"]


def test_a_value_that_is_not_finite_leaves_a_gap() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 2.0), (4.0, math.inf), (5.0, 1.0)]
    svg = line_chart([Line("", "run-1", points)], title="", x_label="", y_label="")
    assert len(shapes(svg, "polyline")) == 1
    assert len(shapes(svg, "circle")) == 2  # between two gaps and after the last there is one point
    assert "nan" not in svg
    assert "inf" not in svg
    nothing = [Line("", "run-1", [(0.0, math.nan)]), Line("", "run-2", [])]
    assert line_chart(nothing, title="", x_label="", y_label="") == ""


def test_names_at_the_ends_of_lines_do_not_cover_each_other() -> None:
    lines = [Line(f"run {n}", f"run-{n}", [(0.0, 2.0), (9.0, 1.0)], dots=True) for n in range(1, 6)]
    svg = line_chart(lines, title="", x_label="", y_label="")
    heights = sorted(number(text, "y") for text in shapes(svg, "text", "label"))
    assert all(b - a >= 14.9 for a, b in pairwise(heights))
    assert heights[-1] <= 218
    assert len(shapes(svg, "circle")) == 10


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    points = [(float(n), float(n)) for n in range(10_001)]
    svg = line_chart([Line("", "run-1", points)], title="", x_label="", y_label="")
    drawn = shapes(svg, "polyline")[0].attrib["points"].split()
    assert 300 <= len(drawn) <= 401
    assert drawn[0].startswith("46,")
    assert float(drawn[-1].split(",")[1]) == 26.0


def test_bars_of_a_histogram_are_shares_of_their_own_series() -> None:
    rows = [
        Sizes("참조", "reference", [0.0, 1.0, 2.5, 9.9], "중앙값 2"),
        Sizes("run", "run-1", [1.0, 50.0, math.nan, 60.0, -5.0], ""),
    ]
    svg = histograms(rows, title="길이", x_label="글자", low=0.0, high=10.0, num_bins=5)
    heights = [round(number(box, "height"), 1) for box in shapes(svg, "rect", "reference")]
    assert heights == [29.0, 14.5, 14.5]  # 2, 1 and 1 of 4; the highest share fills the row
    others = [round(number(box, "height"), 1) for box in shapes(svg, "rect", "run-1")]
    assert others == [29.0, 29.0]  # two below 2 or under the scale, two beyond it
    assert "10+" in texts(svg)
    assert number(shapes(svg, "rect", "run-1")[1], "x") == pytest.approx(
        2 + 396 / 5 * 4 + 0.5, abs=0.1
    )


def test_empty_series_draw_no_bars() -> None:
    svg = histograms(
        [Sizes("leer", "base", [], "–")], title="", x_label="", low=0, high=1, num_bins=4
    )
    assert shapes(svg, "rect") == []


def test_stacked_parts_fill_the_bar_and_wide_ones_carry_their_share() -> None:
    parts = [("합쇼체", 4.0, "part-1"), ("해요체", 96.0, "part-2"), ("없음", 0.0, "part-5")]
    svg = stacked_bars([Bar("원본", "base", parts)], title="말투")
    boxes = shapes(svg, "rect")
    assert [number(box, "width") for box in boxes] == pytest.approx([15.0, 383.0])
    assert number(boxes[1], "x") == 16.0
    assert [box[0].text for box in boxes] == ["합쇼체 4.0 %", "해요체 96.0 %"]
    assert texts(svg) == ["원본", "96"]


def test_marks_lie_on_the_common_scale_and_stay_inside_it() -> None:
    rows = [
        Track("바닥", "36.1", [Mark("reference", 25.0, is_floor=True)]),
        Track("둘", "", [Mark("base", 50.0, (40.0, 60.0)), Mark("run-1", 150.0, (90.0, 170.0))]),
        Track("없음", "–", [Mark("base", math.nan)]),
    ]
    svg = tracks(rows, title="", low=0.0, high=100.0, x_label="%")
    across = (WIDTH - 12) / 100
    floor = shapes(svg, "line", "floor")[0]
    assert number(floor, "x1") == number(floor, "x2") == 6 + 25 * across
    points = shapes(svg, "circle")
    assert [number(point, "cx") for point in points] == [6 + 50 * across, WIDTH - 6]
    assert number(points[1], "cy") - number(points[0], "cy") == 9
    whisker = shapes(svg, "line", "run-1")[0]
    assert (number(whisker, "x1"), number(whisker, "x2")) == (6 + 90 * across, WIDTH - 6)


def test_a_difference_stands_against_zero_with_better_to_the_right() -> None:
    more = difference_picture(2.0, (1.0, 3.0), extent=4.0, style="better", title="")
    less = difference_picture(-2.0, (-3.0, -1.0), extent=4.0, style="better", title="", flip=True)
    assert more == less
    assert number(shapes(more, "line", "zero")[0], "x1") == 84
    assert number(shapes(more, "circle")[0], "cx") == 84 + 2 * 19
    whisker = shapes(more, "line", "whisker")[0]
    assert (number(whisker, "x1"), number(whisker, "x2")) == (84 + 19, 84 + 3 * 19)


def test_floors_and_what_cannot_be_seen_are_drawn_beside_the_difference() -> None:
    svg = difference_picture(
        1.0, None, extent=4.0, style="open", title="", floors=(-2.0, 40.0, math.nan), smallest=1.0
    )
    band = shapes(svg, "rect", "unseen")[0]
    assert (number(band, "x"), number(band, "width")) == (84 - 19, 38)
    ticks = [tick.attrib["d"] for tick in shapes(svg, "path", "tick-mark")]
    assert ticks == ["M46 19l3.5 6h-7z", "M166 22l-8 4v-8z"]  # the second is an arrow at the edge
    assert shapes(svg, "line", "whisker") == []


def test_a_difference_that_is_no_number_draws_only_the_zero() -> None:
    svg = difference_picture(math.nan, (math.nan, math.nan), extent=1.0, style="open", title="")
    assert [shape.get("class") for shape in ElementTree.fromstring(svg)] == ["zero"]
