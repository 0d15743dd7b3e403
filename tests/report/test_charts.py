"""Pictures of a comparison: what is drawn, of whom, and in whose colour."""

from __future__ import annotations

import re
from dataclasses import replace

from honing.report.charts import Chart, Series, behaviour_charts, hero_chart, training_charts
from honing.report.comparison import Answer, Comparison
from honing.report.page import run_style
from honing.report.texts import Wording
from tests.report.pages import full_comparison

EN, KO = Wording("en"), Wording("ko")


def series_of(comparison: Comparison) -> list[Series]:
    return [
        Series(table.run, run_style(place), table.lines)
        for place, table in enumerate(comparison.tables)
    ]


def texts(chart: Chart) -> list[str]:
    return re.findall(r"<text[^>]*>(.*?)</text>", chart.svg)


def test_the_first_picture_has_floors_bases_and_runs_of_the_chief_metric() -> None:
    made = full_comparison(2)
    chart = hero_chart(series_of(made), KO)
    assert chart is not None
    assert chart.title == "chrF, 95\u00a0% 신뢰구간"
    names = [text for text in texts(chart) if not re.fullmatch(r"[\d.]+|chrF", text)]
    assert names[:2] == ["입력을 그대로 옮기기", "가장 비슷한 학습 행의 답 말하기"]
    assert names[-2:] == ["run-1", "run-2"]
    assert set(names[2:-2]) == {"원본"}
    assert hero_chart([], EN) is None


def test_curves_are_named_by_kind_for_one_run_and_by_run_for_several() -> None:
    loss, rate = training_charts(series_of(full_comparison(1)), EN)
    assert texts(loss)[-2:] == ["validation", "training"]  # by their heights
    assert loss.caption == "Lowest validation loss: 1.5778."
    assert texts(rate)[-1] not in ("run-1", "learning rate")
    several, same = training_charts(series_of(full_comparison(3)), EN)
    assert texts(several)[-3:] == ["run-1", "run-2", "run-3"]
    assert "run-1 1.5778, run-2 1.5778" in several.caption
    assert same.svg.count("<polyline") == 1  # three equal curves would hide each other


def test_a_run_without_curves_has_no_pictures_of_training() -> None:
    made = full_comparison(1)
    table = made.tables[0]
    bare = replace(made, tables=(replace(table, run=replace(table.run, curves={})),))
    assert training_charts(series_of(bare), EN) == []
    no_validation = {"train loss": ((1.0, 2.0), (2.0, 1.0))}
    run = replace(table.run, curves=no_validation)
    (loss,) = training_charts(series_of(replace(made, tables=(replace(table, run=run),))), EN)
    assert loss.caption == "No validation loss was measured."


def test_shares_levels_endings_lengths_and_scores_are_drawn() -> None:
    made = full_comparison(2)
    charts = behaviour_charts(made, series_of(made), EN)
    assert [chart.title for chart in charts] == [
        "Shares of the answers,\u00a0%",
        "Speech levels,\u00a0%",
        "How answers end,\u00a0%",
        "Length of the answers",
        "Score of each answer",
    ]
    shares, levels, endings, lengths, _ = charts
    assert shares.key == (("base", "base"), ("run-1", "run-1"), ("run-2", "run-2"))
    assert "40.0 · 42.0 · 42.0" in texts(shares)
    assert [name for _, name in levels.key] == [f"part-{n}" for n in range(1, 6)]
    names = [text for text in texts(levels) if not text.isdecimal()]
    assert names == ["training rows", "references", "base", "run-1", "run-2"]
    assert [label for label, _ in endings.key] == [
        "ended by itself",
        "cut off at the longest length",
    ]
    assert endings.caption == "Over the 60 rows of this page."
    assert "references" in texts(lengths)


def test_one_endless_answer_does_not_press_the_others_flat() -> None:
    made = full_comparison(1)
    first = made.samples[0]
    endless = replace(first, answers={**first.answers, "run-1": Answer("a" * 100_000, 0, "?", 0)})
    changed = replace(made, samples=(endless, *made.samples[1:]))
    lengths = behaviour_charts(changed, series_of(changed), EN)[3]
    ticks = [text for text in texts(lengths) if re.fullmatch(r"\d+\+?", text)]
    assert ticks[-1].endswith("+")
    assert 60 <= int(ticks[-1][:-1]) <= 160
    endings = behaviour_charts(changed, series_of(changed), EN)[2]
    assert "end not known" in [label for label, _ in endings.key]


def test_without_samples_only_the_stored_metrics_are_drawn() -> None:
    made = replace(full_comparison(1), samples=())
    titles = [chart.title for chart in behaviour_charts(made, series_of(made), EN)]
    assert titles == ["Shares of the answers,\u00a0%", "Speech levels,\u00a0%"]


def test_runs_beyond_the_palette_share_a_style() -> None:
    assert [run_style(place) for place in (0, 4, 5, 9)] == ["run-1", "run-5", "run-0", "run-0"]
