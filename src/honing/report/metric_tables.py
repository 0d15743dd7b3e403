"""A comparison's numbers → the tables of the page, each cell as the text that is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from honing.evaluation.record import Estimate
from honing.report.comparison import Comparison, Difference, MetricLine
from honing.report.lead import against_floor
from honing.report.names import (
    FAMILIES,
    FIGURES,
    FLOORS,
    LEVELS,
    METRICS,
    VERDICTS,
    MetricName,
    Text,
    metric_name,
    name_of,
)
from honing.report.pictures import difference_picture
from honing.report.texts import Wording, number, p_value

_VERDICT_STYLES = {"better": "better", "worse": "worse", "different": "different"}
_VERDICT_MARKS = {"better": "▲ ", "worse": "▼ ", "different": "◆ ", "not distinguishable": "≈ "}


@dataclass(frozen=True)
class Side:
    """The lines of one comparison, named where several share a table."""

    name: str
    style: str
    lines: Sequence[MetricLine]


@dataclass(frozen=True)
class MetricRow:
    """One difference, as it is shown."""

    name: str
    style: str
    before: str
    after: str
    difference: str
    interval: str
    picture: Markup
    verdict: str
    verdict_style: str
    detail: str
    clean: str


@dataclass(frozen=True)
class Block:
    """One metric with a row for each run."""

    label: str
    direction: str
    meaning: str
    rows: tuple[MetricRow, ...]


@dataclass(frozen=True)
class Family:
    """Metrics of a kind."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class MetricTable:
    """All metrics of one comparison, or of each run against its base."""

    caption: str
    before: str
    after: str
    has_names: bool
    families: tuple[Family, ...]


@dataclass(frozen=True)
class Cell:
    """A score, and what it means beside the floors."""

    score: str
    note: str


_NO_CELL = Cell("", "")


@dataclass(frozen=True)
class ScoreRow:
    """A floor, a base or a run in the table of floors."""

    name: str
    style: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class FloorTable:
    """Floors and models, a column for each metric that has floors."""

    labels: tuple[str, ...]
    rows: tuple[ScoreRow, ...]


@dataclass(frozen=True)
class FigureTable:
    """Figures without an interval. columns: name and style; rows: label and cells."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def metric_table(
    sides: Sequence[Side], *, caption: str, before: str, after: str, t: Wording
) -> MetricTable:
    """Families of metrics in the order of METRICS; metrics that it does not know come last."""
    keys = list(dict.fromkeys(line.name for side in sides for line in side.lines))
    keys.sort(key=lambda key: list(METRICS).index(key) if key in METRICS else len(METRICS))
    blocks: dict[str, list[Block]] = {}
    for key in keys:
        found = [(side, line) for side in sides for line in side.lines if line.name == key]
        family = metric_name(key, found[0][1].unit).family
        blocks.setdefault(family, []).append(_block(found, t))
    families = tuple(
        Family(title.of(t.language), tuple(blocks[family]))
        for family, title in FAMILIES.items()
        if family in blocks
    )
    return MetricTable(caption, before, after, len(sides) > 1, families)


def _block(found: Sequence[tuple[Side, MetricLine]], t: Wording) -> Block:
    line = found[0][1]
    name = metric_name(line.name, line.unit)
    extent = _extent([line.all_rows for _, line in found])
    direction = {"higher": t("up_is_better"), "lower": t("down_is_better")}.get(line.better, "")
    return Block(
        label=name.label.of(t.language),
        direction=direction,
        meaning=name.meaning.of(t.language),
        rows=tuple(_row(side, line, name, extent, t) for side, line in found),
    )


def _extent(differences: Sequence[Difference]) -> float:
    """Half the width of the pictures of one metric: all intervals fit, floors need not."""
    seen = [
        abs(value)
        for given in differences
        for value in (given.difference, *(given.interval or ()), given.smallest_detectable or 0.0)
        if math.isfinite(value)
    ]
    return 1.12 * max(seen, default=0.0) or 1.0


def _row(side: Side, line: MetricLine, name: MetricName, extent: float, t: Wording) -> MetricRow:
    given = line.all_rows
    difference = number(given.difference, name.decimals, signed=True)
    interval = _interval(given, name, t)
    verdict = name_of(VERDICTS, given.verdict, t.language)
    style = _VERDICT_STYLES.get(given.verdict, "open")
    title = t(
        "picture_of",
        metric=name.label.of(t.language),
        difference=difference,
        interval=interval or "–",
        verdict=verdict,
    )
    return MetricRow(
        name=side.name,
        style=side.style,
        before=number(given.before.score, name.decimals),
        after=number(given.after.score, name.decimals),
        difference=difference,
        interval=interval,
        picture=difference_picture(
            given.difference,
            given.interval,
            extent=extent,
            style=style,
            title=title,
            floors=[score - given.before.score for score in line.floors.values()],
            smallest=given.smallest_detectable,
            flip=line.better == "lower",
        ),
        verdict=_VERDICT_MARKS.get(given.verdict, "") + verdict,
        verdict_style=style,
        detail=_detail(given, name, t),
        clean=_clean(line.clean, name, t),
    )


def _interval(given: Difference, name: MetricName, t: Wording) -> str:
    if given.interval is None:
        return ""
    low, high = (number(end, name.decimals, signed=True) for end in given.interval)
    return t("range", low=low, high=high)


def _detail(given: Difference, name: MetricName, t: Wording) -> str:
    if given.verdict == "not distinguishable" and given.smallest_detectable is not None:
        smallest = number(given.smallest_detectable, name.decimals)
        return t("detail_smallest", smallest=smallest)
    return "" if given.p_holm is None else t("detail_p", p=p_value(given.p_holm))


def _clean(given: Difference | None, name: MetricName, t: Wording) -> str:
    if given is None:
        return ""
    if math.isnan(given.after.score):
        return t("no_clean_rows")
    return t(
        "clean_rows",
        before=number(given.before.score, name.decimals),
        after=number(given.after.score, name.decimals),
        verdict=name_of(VERDICTS, given.verdict, t.language),
    )


def floor_table(comparison: Comparison, styles: Sequence[str], t: Wording) -> FloorTable | None:
    """Floors, then bases, then runs, over the metrics that have floors; None where there are none.

    Floors of runs on other rows differ, so they stand once for each set of scores.
    """
    named = {line.name: line for table in comparison.tables for line in table.lines if line.floors}
    keys = [key for key in METRICS if key in named] + [key for key in named if key not in METRICS]
    if not keys:
        return None
    floors: list[ScoreRow] = []
    bases: list[ScoreRow] = []
    runs: list[ScoreRow] = []
    for table, style in zip(comparison.tables, styles, strict=True):
        own = {line.name: line for line in table.lines}
        lines = [own.get(key) for key in keys]
        for floor in dict.fromkeys(floor for line in lines if line for floor in line.floors):
            scores = [None if line is None else line.floors.get(floor) for line in lines]
            cells = tuple(Cell(_score(score), "") for score in scores)
            floors.append(ScoreRow(name_of(FLOORS, floor, t.language), "", cells))
        before = tuple(
            _floor_cell(line, line.all_rows.before, t) if line else _NO_CELL for line in lines
        )
        after = tuple(
            _floor_cell(line, line.all_rows.after, t) if line else _NO_CELL for line in lines
        )
        bases.append(ScoreRow(t("base"), "base", before))
        runs.append(ScoreRow(table.run.name, style, after))
    labels = tuple(metric_name(key, "0–100").label.of(t.language) for key in keys)
    return FloorTable(labels, tuple(dict.fromkeys([*floors, *bases, *runs])))


def _floor_cell(line: MetricLine, estimate: Estimate, t: Wording) -> Cell:
    """A model's score, and how many floors its whole interval lies above."""
    beaten = sum(against_floor(estimate, floor) == "above" for floor in line.floors.values())
    return Cell(number(estimate.score), t("beats", number=beaten, all=len(line.floors)))


def _score(value: float | None, decimals: int = 1) -> str:
    return "" if value is None else number(value, decimals)


@dataclass(frozen=True)
class SpreadTable:
    """Runs that differ in the seed: label, lowest, mean and highest of each metric."""

    names: str
    rows: tuple[tuple[str, str, str, str], ...]


def spread_tables(comparison: Comparison, t: Wording) -> list[SpreadTable]:
    tables = []
    for spread in comparison.seed_spreads:
        names = {key: metric_name(key, "0–100") for key in spread.metrics}
        rows = [
            (
                names[key].label.of(t.language),
                number(low, names[key].decimals),
                number(mean, names[key].decimals),
                number(high, names[key].decimals),
            )
            for key, (low, mean, high) in spread.metrics.items()
        ]
        tables.append(SpreadTable(", ".join(spread.runs), tuple(rows)))
    return tables


_PREFIXES = ("references_", "training_")


def figure_table(comparison: Comparison, styles: Sequence[str], t: Wording) -> FigureTable | None:
    """Figures of data, base and runs, but for those with an interval, which stand among the
    metrics, and speech levels, which are drawn."""
    first = comparison.tables[0].run if comparison.tables else None
    if first is None:
        return None
    data = {**first.figures_base, **first.figures_tuned}
    columns: list[tuple[str, str, Mapping[str, float]]] = [
        (t("training_rows"), "training", _without_prefix(data, "training_")),
        (t("references"), "reference", _without_prefix(data, "references_")),
        (t("base"), "base", _own(first.figures_base)),
        *(
            (table.run.name, style, _own(table.run.figures_tuned))
            for table, style in zip(comparison.tables, styles, strict=True)
        ),
    ]
    columns = [column for column in columns if column[2]]
    metrics = {line.name for table in comparison.tables for line in table.lines}
    keys = dict.fromkeys(key for *_, values in columns for key in values if key not in metrics)
    rows = tuple(
        (_figure_label(key, t), tuple(_score(values.get(key), 2) for _, _, values in columns))
        for key in keys
    )
    shown = tuple((name, style) for name, style, _ in columns)
    return FigureTable(shown, rows) if rows else None


def _own(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of a model's answers, without those of the data."""
    return {
        key: value
        for key, value in figures.items()
        if not key.startswith(_PREFIXES) and not _is_level(key)
    }


def _without_prefix(figures: Mapping[str, float], prefix: str) -> dict[str, float]:
    own = {key.removeprefix(prefix): v for key, v in figures.items() if key.startswith(prefix)}
    return {key: value for key, value in own.items() if not _is_level(key)}


def _is_level(key: str) -> bool:
    return key.startswith("speech_level_") and key.removeprefix("speech_level_") in LEVELS


def _figure_label(key: str, t: Wording) -> str:
    if key in METRICS:
        return METRICS[key].label.of(t.language)
    return FIGURES.get(key, Text(*(key.replace("_", " "),) * 2)).of(t.language)
