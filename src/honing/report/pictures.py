"""Numbers → SVG: curves, distributions, shares, intervals. Pure functions, colours from CSS.

Every shape takes its colour from `currentColor`, which the class of its series sets, so a picture
follows the page's theme. Series are told apart by a text beside each, never by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from honing.report.axes import Scale, nice_ticks, outer_ticks, shorten, text_width, tick_label
from honing.report.words import show_hidden

WIDTH = 400.0
"""Of a chart in its own units: small enough that 12-unit text is readable on a phone."""
_MOST_POINTS = 400
_MOST_LABEL = 130.0

Interval = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve. style: the CSS class of its series. dots: mark each point."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


@dataclass(frozen=True)
class Sizes:
    """The values of one series, and what is written beside its distribution."""

    name: str
    style: str
    values: Sequence[float]
    note: str


@dataclass(frozen=True)
class Bar:
    """Shares in % of one whole: (name of the part, share, CSS class of the part)."""

    name: str
    style: str
    parts: Sequence[tuple[str, float, str]]


@dataclass(frozen=True)
class Mark:
    """A value with its interval. is_floor: drawn as a tick instead of a point."""

    style: str
    value: float
    interval: Interval | None = None
    is_floor: bool = False


@dataclass(frozen=True)
class Track:
    """One row of marks on a common scale; note stands at its right end."""

    name: str
    note: str
    marks: Sequence[Mark]


def line_chart(lines: Sequence[Line], *, title: str, x_label: str, y_label: str) -> Markup:
    """Curves over a common x axis, each named at its right end. Gaps where a value is not finite.

    Empty where no line has a finite point.
    """
    finite = [p for line in lines for p in line.points if _is_finite(*p)]
    if not finite:
        return Markup("")
    left, right, top, bottom = 46.0, _label_room(line.name for line in lines), 26.0, 214.0
    xs, ys = [0.0, *(x for x, _ in finite)], [y for _, y in finite]
    low = min(xs)
    high = max(xs) if max(xs) > low else low + 1.0  # a run that was stopped after step 0
    x_ticks, y_ticks = nice_ticks(low, high, 5), outer_ticks(min(ys), max(ys), 4)
    across = Scale(low, high, left, WIDTH - right)
    down = Scale(y_ticks[0], y_ticks[-1], bottom, top)
    parts = [_text(0, 12, y_label, "axis"), _text(WIDTH - right, 246, x_label, "axis", "end")]
    for tick in y_ticks:
        parts.append(_rule(left, down(tick), WIDTH - right, down(tick), "grid"))
        parts.append(_text(left - 6, down(tick) + 4, tick_label(tick, y_ticks), "tick", "end"))
    for tick in x_ticks:
        parts.append(_text(across(tick), bottom + 16, tick_label(tick, x_ticks), "tick", "middle"))
    ends: list[tuple[float, Line]] = []
    for line in lines:
        points = [(across(x), down(y)) if _is_finite(x, y) else None for x, y in _thin(line.points)]
        parts += _curve(points, line)
        seen = [point for point in points if point is not None]
        if seen and line.name:
            ends.append((seen[-1][1], line))
    for y, line in _spread(ends, 15.0, top, bottom):
        name = shorten(line.name, _MOST_LABEL - 10)
        parts.append(_text(WIDTH - right + 8, y + 4, name, f"label {line.style}"))
    return _svg(parts, WIDTH, 252, title)


def _curve(points: Sequence[tuple[float, float] | None], line: Line) -> list[Markup]:
    pieces: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            pieces.append([])
        else:
            pieces[-1].append(point)
    drawn = [
        Markup('<polyline class="curve {}" points="{}"/>').format(
            line.style, " ".join(f"{_n(x)},{_n(y)}" for x, y in piece)
        )
        for piece in pieces
        if len(piece) > 1
    ]
    shown = [point for piece in pieces if line.dots or len(piece) == 1 for point in piece]
    return drawn + [_point(x, y, line.style, 3.0) for x, y in shown]


def histograms(
    rows: Sequence[Sizes], *, title: str, x_label: str, low: float, high: float, num_bins: int
) -> Markup:
    """Distributions above each other on one scale from low to high; the height is a share.

    Values beyond high are counted in the last bin, whose tick then says so.
    """
    height, step = 52.0 * len(rows) + 40, 52.0
    scale = Scale(low, high, 2.0, WIDTH - 2)
    shares = [_bin(row.values, low, high, num_bins) for row in rows]
    highest = max((share for row in shares for share in row), default=0.0) or 1.0
    width = (WIDTH - 4) / num_bins
    beyond = any(value > high for row in rows for value in row.values)
    parts: list[Markup] = []
    for place, (row, bins) in enumerate(zip(rows, shares, strict=True)):
        floor = step * place + 46
        name = shorten(row.name, WIDTH - text_width(row.note) - 16)
        parts.append(_text(0, step * place + 12, name, f"label {row.style}"))
        parts.append(_text(WIDTH, step * place + 12, row.note, "tick", "end"))
        for number, share in enumerate(bins):
            if share > 0:
                tall = max(1.0, 29.0 * share / highest)
                x = 2 + width * number
                parts.append(_box(x + 0.5, floor - tall, width - 1, tall, f"bar {row.style}"))
        parts.append(_rule(0, floor, WIDTH, floor, "grid"))
    ticks = nice_ticks(low, high, 5)
    for tick in ticks:
        text = tick_label(tick, ticks) + ("+" if beyond and tick == ticks[-1] else "")
        anchor = "start" if tick == ticks[0] else "end" if tick == ticks[-1] else "middle"
        parts.append(_text(scale(tick), height - 22, text, "tick", anchor))
    parts.append(_text(WIDTH, height - 6, x_label, "axis", "end"))
    return _svg(parts, WIDTH, height, title)


def _bin(values: Sequence[float], low: float, high: float, num_bins: int) -> list[float]:
    """Share of the finite values in each of the bins."""
    counts = [0] * num_bins
    finite = [value for value in values if math.isfinite(value)]
    for value in finite:
        place = int((value - low) / (high - low) * num_bins)
        counts[min(num_bins - 1, max(0, place))] += 1
    return [count / len(finite) if finite else 0.0 for count in counts]


def stacked_bars(bars: Sequence[Bar], *, title: str) -> Markup:
    """Bars of 100 % each; a part that is wide enough carries its share."""
    step = 44.0
    parts: list[Markup] = []
    for place, bar in enumerate(bars):
        y = step * place
        parts.append(_text(0, y + 12, shorten(bar.name, WIDTH), f"label {bar.style}"))
        x = 0.0
        for name, share, style in bar.parts:
            width = WIDTH * max(0.0, share) / 100.0 if math.isfinite(share) else 0.0
            if width <= 0:
                continue
            box = _box(x, y + 18, max(0.5, width - 1), 18, f"part {style}", f"{name} {share:.1f} %")
            parts.append(box)
            if width > 30:
                parts.append(
                    _text(x + width / 2, y + 31, f"{share:.0f}", f"inside {style}", "middle")
                )
            x += width
    return _svg(parts, WIDTH, step * len(bars), title)


def tracks(rows: Sequence[Track], *, title: str, low: float, high: float, x_label: str) -> Markup:
    """Points with intervals (and floors as ticks), a row each, on one scale from low to high."""
    spread = max((len(row.marks) for row in rows), default=1)
    step = 36.0 + 9.0 * (spread - 1)
    height = step * len(rows) + 34
    scale = Scale(low, high, 6.0, WIDTH - 6)
    parts: list[Markup] = []
    ticks = nice_ticks(low, high, 5)
    for tick in ticks:
        x = scale(tick)
        parts.append(_rule(x, 0, x, height - 32, "grid"))
        anchor = "start" if tick == ticks[0] else "end" if tick == ticks[-1] else "middle"
        parts.append(_text(x, height - 18, tick_label(tick, ticks), "tick", anchor))
    parts.append(_text(WIDTH, height - 4, x_label, "axis", "end"))
    for place, row in enumerate(rows):
        y = step * place + 13
        style = row.marks[0].style if len(row.marks) == 1 else ""
        name = shorten(row.name, WIDTH - text_width(row.note) - 24)
        parts.append(_text(6, y, name, f"label halo {style}"))
        parts.append(_text(WIDTH - 6, y, row.note, "tick halo", "end"))
        for number, mark in enumerate(row.marks):
            parts += _mark(mark, scale, y + 12 + 9 * number)
    return _svg(parts, WIDTH, height, title)


def _mark(mark: Mark, scale: Scale, y: float) -> list[Markup]:
    if not math.isfinite(mark.value):
        return []
    x = scale(scale.clamp(mark.value))
    if mark.is_floor:
        return [_rule(x, y - 7, x, y + 7, f"floor {mark.style}")]
    return [*_whisker(mark.interval, scale, y, mark.style), _point(x, y, mark.style, 4.0)]


def _whisker(interval: Interval | None, scale: Scale, y: float, style: str) -> list[Markup]:
    if interval is None or not _is_finite(*interval):
        return []
    low, high = (scale(scale.clamp(end)) for end in interval)
    ends = [_rule(x, y - 4, x, y + 4, f"whisker {style}") for x in (low, high)]
    return [_rule(low, y, high, y, f"whisker {style}"), *ends]


def difference_picture(
    difference: float,
    interval: Interval | None,
    *,
    extent: float,
    style: str,
    title: str,
    floors: Sequence[float] = (),
    smallest: float | None = None,
    flip: bool = False,
) -> Markup:
    """One difference against zero, from -extent to extent.

    The shaded band is what so few rows could not have shown. floors: differences that would reach
    a floor, as ticks below. flip: less is better, and better is drawn to the right. What lies
    outside is drawn at the edge as an arrow.
    """
    width, middle = 168.0, 11.0
    sign = -1.0 if flip else 1.0
    scale = Scale(-extent, extent, 8.0, width - 8)
    parts = []
    if smallest is not None and math.isfinite(smallest):
        edge = min(abs(smallest), extent)
        parts.append(_box(scale(-edge), 2, scale(edge) - scale(-edge), 18, "unseen"))
    parts.append(_rule(scale(0), 0, scale(0), 22, "zero"))
    for floor in floors:
        if math.isfinite(floor):
            x = scale(sign * floor)
            parts.append(
                Markup('<path class="tick-mark" d="M{} 19l3.5 6h-7z"/>').format(_n(x))
                if abs(floor) <= extent
                else _arrow(8 if sign * floor < 0 else width - 8, 22, sign * floor < 0, "tick-mark")
            )
    if math.isfinite(difference):
        if interval is not None and _is_finite(*interval):
            ends = sorted(sign * end for end in interval)
            parts += _whisker((ends[0], ends[1]), scale, middle, style)
        value = sign * difference
        if abs(value) <= extent:
            parts.append(_point(scale(value), middle, style, 4.0))
        else:
            parts.append(_arrow(8 if value < 0 else width - 8, middle, value < 0, f"dot {style}"))
    return _svg(parts, width, 26, title)


def _arrow(x: float, y: float, leftwards: bool, style: str) -> Markup:
    way = -1 if leftwards else 1
    return Markup('<path class="{}" d="M{} {}l{} 4v-8z"/>').format(
        style, _n(x + 6 * way), _n(y), -8 * way
    )


def _spread(
    ends: Sequence[tuple[float, Line]], gap: float, top: float, bottom: float
) -> list[tuple[float, Line]]:
    """Labels moved apart so that none covers another, as near to their lines as that leaves."""
    ordered = sorted(ends, key=lambda end: end[0])
    placed: list[float] = []
    for y, _ in ordered:
        placed.append(max(y, placed[-1] + gap if placed else top))
    limit = bottom
    for place in reversed(range(len(placed))):
        placed[place] = min(placed[place], limit)
        limit = placed[place] - gap
    return [(y, line) for y, (_, line) in zip(placed, ordered, strict=True)]


def _label_room(names: Iterable[str]) -> float:
    return min(_MOST_LABEL, 14 + max(map(text_width, names), default=0.0))


def _thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    stride = -(-len(points) // _MOST_POINTS) or 1
    return [*points[:-1:stride], *points[-1:]]


def _is_finite(*values: float) -> bool:
    return all(map(math.isfinite, values))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> Markup:
    if not text:
        return Markup("")
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        style, _n(x), _n(y), anchor, show_hidden(text)
    )


def _rule(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
        style, _n(x1), _n(y1), _n(x2), _n(y2)
    )


def _box(x: float, y: float, width: float, height: float, style: str, title: str = "") -> Markup:
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}">{}</rect>').format(
        style,
        _n(x),
        _n(y),
        _n(width),
        _n(height),
        Markup("<title>{}</title>").format(show_hidden(title)) if title else "",
    )


def _point(x: float, y: float, style: str, radius: float) -> Markup:
    return Markup('<circle class="dot {}" cx="{}" cy="{}" r="{}"/>').format(
        style, _n(x), _n(y), _n(radius)
    )


def _svg(parts: Sequence[Markup], width: float, height: float, title: str) -> Markup:
    name = escape(show_hidden(title))
    return Markup(
        '<svg role="img" aria-label="{}" viewBox="0 0 {} {}" width="{}" height="{}">{}</svg>'
    ).format(name, _n(width), _n(height), _n(width), _n(height), Markup("").join(parts))
