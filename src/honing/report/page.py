"""A comparison in one language → everything that the page's templates show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from honing.report.charts import Chart, Series, behaviour_charts, hero_chart, training_charts
from honing.report.comparison import Comparison, RunInfo
from honing.report.data_view import DataView, data_views
from honing.report.lead import Lead, lead_of_many, lead_of_run, say_facts
from honing.report.metric_tables import (
    FigureTable,
    FloorTable,
    MetricTable,
    Side,
    SpreadTable,
    figure_table,
    floor_table,
    metric_table,
    spread_tables,
)
from honing.report.names import Language
from honing.report.remarks import say_remark
from honing.report.side_by_side import SampleCard, filters, sample_cards
from honing.report.texts import Wording, number

_MOST_STYLES = 5


@dataclass(frozen=True)
class Note:
    """Something that a reader has to know; of one run, or of the whole comparison."""

    run: str
    style: str
    text: str


@dataclass(frozen=True)
class RunView:
    """One run with all its settings."""

    name: str
    style: str
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    config: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Page:
    """What the templates read, in the order of the page."""

    title: str
    is_single: bool
    facts: str
    contents: tuple[tuple[str, str], ...]
    runs: tuple[RunView, ...]
    leads: tuple[Lead, ...]
    hero: Chart | None
    notes: tuple[Note, ...]
    metrics: MetricTable
    floors: FloorTable | None
    pairs: tuple[MetricTable, ...]
    spreads: tuple[SpreadTable, ...]
    training_charts: tuple[Chart, ...]
    behaviour_charts: tuple[Chart, ...]
    figures: FigureTable | None
    filters: tuple[tuple[str, str, int], ...]
    samples: tuple[SampleCard, ...]
    data_reports: tuple[DataView, ...]
    config_differences: tuple[tuple[str, tuple[str, ...]], ...]
    method: tuple[str, ...]
    signatures: tuple[tuple[str, str], ...]
    made_with: tuple[tuple[str, str], ...]


def make_page(comparison: Comparison, language: Language) -> Page:
    t = Wording(language)
    series = [
        Series(table.run, run_style(place), table.lines)
        for place, table in enumerate(comparison.tables)
    ]
    styles = [one.style for one in series]
    runs = [one.run for one in series]
    is_single = len(runs) == 1
    title = ", ".join(run.name for run in runs)
    curves = tuple(training_charts(series, t))
    behaviour = tuple(behaviour_charts(comparison, series, t))
    figures = figure_table(comparison, styles, t)
    shown = {
        "pairs": bool(comparison.pairs),
        "seeds": bool(comparison.seed_spreads),
        "training": bool(curves),
        "behaviour": bool(behaviour or figures),
        "samples": bool(comparison.samples),
    }
    return Page(
        title=t("title", names=title) if is_single else t("title_many", names=title),
        is_single=is_single,
        facts=say_facts(runs, t),
        contents=_contents(shown, t),
        runs=tuple(_run_view(one.run, one.style, t) for one in series),
        leads=_leads(comparison, series, t),
        hero=hero_chart(series, t),
        notes=_notes(comparison, series, t),
        metrics=metric_table(
            [Side(one.run.name, one.style, one.lines) for one in series],
            caption=t("metrics_caption"),
            before=t("base"),
            after=t("tuned"),
            t=t,
        ),
        floors=floor_table(comparison, styles, t),
        pairs=tuple(_pairs(comparison, t)),
        spreads=tuple(spread_tables(comparison, t)),
        training_charts=curves,
        behaviour_charts=behaviour,
        figures=figures,
        filters=tuple(filters(comparison, t)),
        samples=tuple(sample_cards(comparison, {one.run.name: one.style for one in series}, t)),
        data_reports=tuple(data_views(runs, t)),
        config_differences=_config_differences(comparison, runs),
        method=_method(comparison, t),
        signatures=_signatures(comparison),
        made_with=tuple(flatten(comparison.made_with)),
    )


def run_style(place: int) -> str:
    """CSS class of the run at a place; those beyond the palette share the ink."""
    return f"run-{place + 1}" if place < _MOST_STYLES else "run-0"


def _contents(shown: Mapping[str, bool], t: Wording) -> tuple[tuple[str, str], ...]:
    """Anchors and titles of the sections that are there; those not in `shown` always are."""
    sections = [
        ("metrics", t("metrics")),
        ("pairs", t("pairs")),
        ("seeds", t("seeds")),
        ("training", t("training")),
        ("behaviour", t("behaviour")),
        ("samples", t("samples")),
        ("data", t("data")),
        ("method", t("method")),
    ]
    return tuple((anchor, title) for anchor, title in sections if shown.get(anchor, True))


def _leads(comparison: Comparison, series: Sequence[Series], t: Wording) -> tuple[Lead, ...]:
    if len(series) == 1:
        return (lead_of_run("", series[0].style, series[0].lines, t),)
    own = [lead_of_run(one.run.name, one.style, one.lines, t) for one in series]
    return (lead_of_many(comparison, t), *own)


def _notes(comparison: Comparison, series: Sequence[Series], t: Wording) -> tuple[Note, ...]:
    """What all runs are warned of stands once, without a name."""
    notes = [Note("", "", say_remark(note, t.language)) for note in comparison.notes]
    warnings = [(one, text) for one in series for text in dict.fromkeys(one.run.warnings)]
    for one, text in warnings:
        of_all = all(text in other.run.warnings for other in series)
        said = say_remark(text, t.language)
        note = Note("", "", said) if of_all else Note(one.run.name, one.style, said)
        if note not in notes:
            notes.append(note)
    return tuple(notes)


def _pairs(comparison: Comparison, t: Wording) -> list[MetricTable]:
    return [
        metric_table(
            [Side("", "run-0", pair.lines)],
            caption=t(
                "pair_caption", rows=number(pair.num_rows, 0), groups=number(pair.num_groups, 0)
            ),
            before=pair.before,
            after=pair.after,
            t=t,
        )
        for pair in comparison.pairs
    ]


def _config_differences(
    comparison: Comparison, runs: Sequence[RunInfo]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(
        (key, tuple(show_value(values[run.name]) if run.name in values else "–" for run in runs))
        for key, values in comparison.config_differences.items()
    )


def _method(comparison: Comparison, t: Wording) -> tuple[str, ...]:
    made = comparison.made_with
    sentences = [
        t(
            "method_bootstrap",
            resamples=show_value(made.get("num_resamples", "?")),
            seed=show_value(made.get("seed", "?")),
        )
    ]
    if comparison.num_tests:
        sentences.append(t("method_tests", tests=number(comparison.num_tests, 0)))
    return tuple(sentences)


def _signatures(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """Of metrics and figures, each once; where runs differ, all that there are."""
    found: dict[str, list[str]] = {}
    for table in comparison.tables:
        own = {line.name: line.signature for line in table.lines}
        for name, signature in {**own, **table.run.figure_signatures}.items():
            if signature not in found.setdefault(name, []):
                found[name].append(signature)
    return tuple((name, "\n".join(signatures)) for name, signatures in found.items())


def _run_view(run: RunInfo, style: str, t: Wording) -> RunView:
    training = run.training
    facts = [
        (t("folder"), run.folder),
        (t("checkpoint"), run.checkpoint),
        (t("base_model"), run.base),
    ]
    steps, tokens = training.get("num_steps"), training.get("num_tokens")
    seconds = training.get("training_seconds")
    if isinstance(steps, int) and isinstance(tokens, int) and isinstance(seconds, float):
        done = {"steps": number(steps, 0), "tokens": number(tokens, 0)}
        facts.append((t("trained"), t("trained_value", **done, minutes=number(seconds / 60.0))))
    trained, total = training.get("trainable_parameters"), training.get("total_parameters")
    if isinstance(trained, int) and isinstance(total, int):
        share = t("of", part=number(trained, 0), whole=number(total, 0))
        facts.append((t("parameters"), share))
    return RunView(
        name=run.name,
        style=style,
        facts=tuple(facts),
        settings=tuple(flatten(run.settings)),
        config=tuple(flatten(run.config)),
    )


def flatten(values: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested settings → (lora.rank, 8) and so on, in their order."""
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += flatten(value, f"{above}{key}.")
        else:
            lines.append((f"{above}{key}", show_value(value)))
    return lines


def show_value(value: Any) -> str:
    """A setting as YAML would have it, on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
