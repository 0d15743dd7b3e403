"""A comparison → its pictures: curves, distributions, endings, speech levels, shares."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from honing.report.axes import nice_ticks
from honing.report.comparison import Comparison, MetricLine, RunInfo
from honing.report.lead import chief_lines
from honing.report.names import FLOORS, LEVELS, METRICS, STOPPED, Text, metric_name, name_of
from honing.report.pictures import (
    Bar,
    Line,
    Mark,
    Sizes,
    Track,
    histograms,
    line_chart,
    stacked_bars,
    tracks,
)
from honing.report.texts import Wording, number

_SHARES = (
    "ended",
    "looping",
    "repetition",
    "echo",
    "empty",
    "other_scripts",
    "hangul",
    "one_speech_level",
    "speech_level_match",
    "particle_errors",
)
_LENGTH_BINS = 32
_SCORE_BINS = 25


@dataclass(frozen=True)
class Chart:
    """A picture with what is said of it. key: what a colour means, where no text beside it does."""

    title: str
    svg: Markup
    caption: str
    key: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Series:
    """One run of the comparison with the style that all pictures give it."""

    run: RunInfo
    style: str
    lines: Sequence[MetricLine]


def hero_chart(series: Sequence[Series], t: Wording) -> Chart | None:
    """The chief metric of floors, bases and runs on one scale."""
    rows: list[Track] = []
    chief = [(one, line) for one in series for line in chief_lines(one.lines)[:1]]
    if not chief:
        return None
    first = chief[0][1]
    name = metric_name(first.name, first.unit)
    chief = [(one, line) for one, line in chief if line.name == first.name]
    for floor, score in sorted(first.floors.items(), key=lambda item: item[1]):
        mark = Mark("reference", score, is_floor=True)
        label = name_of(FLOORS, floor, t.language)
        rows.append(Track(label, number(score, name.decimals), [mark]))
    for _, line in chief:
        before = line.all_rows.before
        mark = Mark("base", before.score, before.interval)
        row = Track(t("base"), number(before.score, name.decimals), [mark])
        if row not in rows:
            rows.append(row)
    for one, line in chief:
        after = line.all_rows.after
        mark = Mark(one.style, after.score, after.interval)
        rows.append(Track(one.run.name, number(after.score, name.decimals), [mark]))
    label = name.label.of(t.language)
    title = t("hero", metric=label)
    high = _round_up(max(_ends(rows), default=1.0))
    caption = t("hero_caption") if first.floors else ""
    return Chart(title, tracks(rows, title=title, low=0.0, high=high, x_label=label), caption)


def _ends(rows: Sequence[Track]) -> list[float]:
    values = [
        value
        for row in rows
        for mark in row.marks
        for value in (mark.value, *(mark.interval or ()))
    ]
    return [value for value in values if math.isfinite(value)]


def _round_up(value: float) -> float:
    """The next round number, so that the last tick stands at the edge."""
    if value <= 0:
        return 1.0
    ticks = nice_ticks(0.0, value, 5)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else value
    return math.ceil(value / step - 1e-9) * step


def training_charts(series: Sequence[Series], t: Wording) -> list[Chart]:
    """Losses and learning rates of all runs; none where no run has a curve."""
    charts = []
    lines: list[Line] = []
    for one in series:
        own = one.run.name if len(series) > 1 else ""
        train, validation = _curve(one, "train loss"), _curve(one, "validation loss")
        if train:
            label = "" if own and validation else own or t("curve_train")
            lines.append(Line(label, f"{one.style} thin", train))
        if validation:
            lines.append(Line(own or t("curve_validation"), one.style, validation, dots=True))
    title = t("loss")
    if svg := line_chart(lines, title=title, x_label=t("step_axis"), y_label=t("loss_axis")):
        charts.append(Chart(title, svg, _loss_caption(series, t)))
    rates = [
        Line(one.run.name if len(series) > 1 else "", one.style, curve)
        for one in series
        if (curve := _curve(one, "learning rate"))
    ]
    if len({tuple(line.points) for line in rates}) == 1:  # one curve would hide all the others
        rates = [Line("", "run-1" if len(series) == 1 else "run-0", rates[0].points)]
    title = t("rate")
    if svg := line_chart(rates, title=title, x_label=t("step_axis"), y_label=title):
        charts.append(Chart(title, svg, t("rate_caption")))
    return charts


def _curve(one: Series, name: str) -> Sequence[tuple[float, float]]:
    return one.run.curves.get(name, ())


def _loss_caption(series: Sequence[Series], t: Wording) -> str:
    lowest = []
    for one in series:
        values = [v for _, v in _curve(one, "validation loss") if math.isfinite(v)]
        if values:
            text = number(min(values), 4)
            lowest.append(f"{one.run.name} {text}" if len(series) > 1 else text)
    return t("loss_caption", lowest=", ".join(lowest)) if lowest else t("no_validation")


def behaviour_charts(comparison: Comparison, series: Sequence[Series], t: Wording) -> list[Chart]:
    """Pictures of how answers look: of those of this page's rows, and of the stored metrics."""
    charts = [_shares_chart(series, t), _levels_chart(series, t)]
    if comparison.samples:
        rows = t("over_rows", rows=number(len(comparison.samples), 0))
        charts += [
            _endings_chart(comparison, series, rows, t),
            _lengths_chart(comparison, series, rows, t),
            _scores_chart(comparison, series, rows, t),
        ]
    return [chart for chart in charts if chart is not None]


def _models(series: Sequence[Series], t: Wording) -> list[tuple[str, str, str]]:
    """(key in a sample's answers, name to show, style) of the base and of each run."""
    return [("base", t("base"), "base"), *((s.run.name, s.run.name, s.style) for s in series)]


def _shares_chart(series: Sequence[Series], t: Wording) -> Chart | None:
    rows = []
    for key in _SHARES:
        found = [(one, line) for one in series for line in one.lines if line.name == key]
        if not found:
            continue
        before = found[0][1].all_rows.before
        marks = [Mark("base", before.score, before.interval)]
        marks += [
            Mark(one.style, line.all_rows.after.score, line.all_rows.after.interval)
            for one, line in found
        ]
        note = " → ".join(number(mark.value) for mark in marks[:2])
        if len(marks) > 2:
            note = " · ".join(number(mark.value) for mark in marks)
        rows.append(Track(METRICS[key].label.of(t.language), note, marks))
    if not rows:
        return None
    title = t("shares")
    keys = tuple((name, style) for _, name, style in _models(series, t))
    svg = tracks(rows, title=title, low=0.0, high=100.0, x_label="%")
    return Chart(title, svg, t("shares_caption"), keys)


def _levels_chart(series: Sequence[Series], t: Wording) -> Chart | None:
    if not series:
        return None
    data = series[0].run.figures_base
    tuned = series[0].run.figures_tuned
    rows = [
        (t("training_rows"), "training", _levels(data, "training_") or _levels(tuned, "training_")),
        (t("references"), "reference", _levels(data, "references_")),
        (t("base"), "base", _levels(data, "")),
        *((one.run.name, one.style, _levels(one.run.figures_tuned, "")) for one in series),
    ]
    bars = [
        Bar(name, style, _parts(LEVELS, levels, t)) for name, style, levels in rows if any(levels)
    ]
    if not bars:
        return None
    title = t("levels")
    keys = tuple((text.of(t.language), f"part-{n}") for n, text in enumerate(LEVELS.values(), 1))
    return Chart(title, stacked_bars(bars, title=title), t("levels_caption"), keys)


def _levels(figures: Mapping[str, float], prefix: str) -> list[float]:
    return [figures.get(f"{prefix}speech_level_{level}", 0.0) for level in LEVELS]


def _parts(
    names: Mapping[str, Text], shares: Sequence[float], t: Wording
) -> list[tuple[str, float, str]]:
    return [
        (name.of(t.language), share, f"part-{place}")
        for place, (name, share) in enumerate(zip(names.values(), shares, strict=True), start=1)
    ]


def _endings_chart(
    comparison: Comparison, series: Sequence[Series], caption: str, t: Wording
) -> Chart:
    bars = []
    seen: set[str] = set()
    for key, name, style in _models(series, t):
        answers = [sample.answers[key] for sample in comparison.samples if key in sample.answers]
        counts = Counter(
            answer.stopped if answer.stopped in STOPPED else "unknown" for answer in answers
        )
        seen |= set(counts)
        if answers:
            shares = [100.0 * counts[kind] / len(answers) for kind in STOPPED]
            bars.append(Bar(name, style, _parts(STOPPED, shares, t)))
    keys = tuple(
        (text.of(t.language), f"part-{place}")
        for place, (kind, text) in enumerate(STOPPED.items(), start=1)
        if kind in seen
    )
    title = t("endings")
    return Chart(title, stacked_bars(bars, title=title), caption, keys)


def _lengths_chart(
    comparison: Comparison, series: Sequence[Series], caption: str, t: Wording
) -> Chart:
    rows = [_sizes(t("references"), "reference", [len(s.reference) for s in comparison.samples], t)]
    for key, name, style in _models(series, t):
        lengths = [len(s.answers[key].text) for s in comparison.samples if key in s.answers]
        rows.append(_sizes(name, style, lengths, t))
    everything = sorted(value for row in rows for value in row.values)
    references = sorted(rows[0].values)
    # Answers without an end must not press all others into the first bin.
    usual = 4.0 * references[len(references) * 95 // 100]
    high = _round_up(min(everything[-1], max(usual, 20.0)))
    title = t("lengths")
    svg = histograms(
        rows,
        title=title,
        x_label=t("lengths_axis"),
        low=0.0,
        high=high,
        num_bins=min(_LENGTH_BINS, max(1, int(high))),
    )
    return Chart(title, svg, caption)


def _scores_chart(
    comparison: Comparison, series: Sequence[Series], caption: str, t: Wording
) -> Chart:
    rows = []
    for key, name, style in _models(series, t):
        scores = [s.answers[key].score for s in comparison.samples if key in s.answers]
        rows.append(_sizes(name, style, scores, t))
    title = t("scores")
    svg = histograms(
        rows, title=title, x_label=t("scores_axis"), low=0.0, high=100.0, num_bins=_SCORE_BINS
    )
    return Chart(title, svg, caption)


def _sizes(name: str, style: str, values: Sequence[float], t: Wording) -> Sizes:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Sizes(name, style, (), "–")
    middle = median(finite)
    text = number(middle, 0 if middle == int(middle) else 1)
    return Sizes(name, style, finite, t("median", median=text))
