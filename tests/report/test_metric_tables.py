"""Tables of numbers: order, signs, verdicts in words, floors, spreads, figures."""

from __future__ import annotations

import math
from dataclasses import replace

from honing.evaluation.record import Estimate, Verdict
from honing.report.comparison import Difference, MetricLine
from honing.report.metric_tables import (
    Cell,
    Side,
    figure_table,
    floor_table,
    metric_table,
    spread_tables,
)
from honing.report.texts import Wording
from tests.report.made_up import made_up_comparison
from tests.report.pages import full_comparison

EN, KO = Wording("en"), Wording("ko")


def difference(verdict: Verdict, *, after: float = 14.5) -> Difference:
    return Difference(
        before=Estimate(8.2, (7.0, 9.0)),
        after=Estimate(after, (after - 1, after + 1)),
        difference=after - 8.2,
        interval=None if verdict == "no test" else (after - 9.2, after - 7.2),
        p_value=0.0001,
        p_holm=None if verdict == "no test" else 0.0004,
        smallest_detectable=1.44,
        verdict=verdict,
    )


def line(name: str, verdict: Verdict, clean: Difference | None = None) -> MetricLine:
    return MetricLine(name, "", "higher", "0–100", difference(verdict), clean, {"a floor": 9.0})


def test_metrics_stand_in_their_families_in_a_fixed_order() -> None:
    names = ("looping", "new_metric", "chrf", "perplexity", "hangul", "bleu")
    side = Side("", "run-1", [line(name, "better") for name in names])
    table = metric_table([side], caption="", before="base", after="tuned", t=EN)
    assert [(f.title, [b.label for b in f.blocks]) for f in table.families] == [
        ("Likeness to the reference", ["chrF", "BLEU"]),
        ("Prediction of the reference", ["perplexity"]),
        ("Behaviour", ["looping answers", "new metric"]),
        ("Korean", ["Hangul"]),
    ]
    assert not table.has_names


def test_a_row_says_all_in_words() -> None:
    clean = difference("not distinguishable", after=9.0)
    side = Side("run-1", "run-1", [line("chrf", "better", clean)])
    for t, expected in (
        (EN, ("+6.3", "+5.3 to +7.3", "▲ better", "p < 0.001 corrected", "clean rows: 8.2 → 9.0")),
        (KO, ("+6.3", "+5.3 ~ +7.3", "▲ 나아짐", "보정한 p < 0.001", "쌍둥이 없는 행: 8.2 → 9.0")),
    ):
        (family,) = metric_table([side], caption="", before="", after="", t=t).families
        row = family.blocks[0].rows[0]
        assert (row.before, row.after, row.verdict_style) == ("8.2", "14.5", "better")
        assert (row.difference, row.interval, row.verdict, row.detail) == expected[:4]
        assert row.clean.startswith(expected[4])
        assert f'aria-label="chrF: {"difference" if t is EN else "차이"} +6.3' in row.picture


def test_an_open_verdict_says_what_would_have_shown_and_none_says_nothing() -> None:
    lines = [line("chrf", "not distinguishable"), line("bleu", "no test")]
    (family,) = metric_table([Side("", "", lines)], caption="", before="", after="", t=EN).families
    still_open, untested = (block.rows[0] for block in family.blocks)
    assert (still_open.verdict, still_open.detail) == (
        "≈ not distinguishable",
        "1.4 would have shown",
    )
    assert (untested.verdict, untested.detail, untested.interval) == ("no test", "", "")


def test_where_no_row_is_clean_that_is_said() -> None:
    nothing = replace(difference("no test"), after=Estimate(math.nan, None))
    side = Side("", "", [line("chrf", "better", nothing)])
    (family,) = metric_table([side], caption="", before="", after="", t=EN).families
    assert family.blocks[0].rows[0].clean == "no row is clean"


def test_runs_share_the_scale_of_a_metric() -> None:
    wide = replace(line("chrf", "better"), all_rows=difference("better", after=50.0))
    sides = [Side("a", "run-1", [line("chrf", "better")]), Side("b", "run-2", [wide])]
    table = metric_table(sides, caption="", before="", after="", t=EN)
    first, second = table.families[0].blocks[0].rows
    assert table.has_names
    assert (first.name, second.name) == ("a", "b")
    alone = metric_table(sides[:1], caption="", before="", after="", t=EN)
    assert alone.families[0].blocks[0].rows[0].picture != first.picture


def test_floors_stand_above_the_models_that_have_to_beat_them() -> None:
    made = made_up_comparison(num_runs=2)
    lines = tuple(
        replace(
            line("chrf", "better"), floors={"copy the input": 20.0, "nearest training row": 9.0}
        )
        for _ in range(1)
    )
    made = replace(made, tables=tuple(replace(t, lines=lines) for t in made.tables))
    table = floor_table(made, ["run-1", "run-2"], EN)
    assert table is not None
    assert table.labels == ("chrF",)
    assert [(row.name, row.style, row.cells) for row in table.rows] == [
        ("copy the input", "", (Cell("20.0", ""),)),
        ("nearest training row", "", (Cell("9.0", ""),)),
        ("base", "base", (Cell("8.2", "beats 0 of 2"),)),
        ("run-1", "run-1", (Cell("14.5", "beats 1 of 2"),)),
        ("run-2", "run-2", (Cell("14.5", "beats 1 of 2"),)),
    ]
    bare = tuple(replace(t, lines=(replace(lines[0], floors={}),)) for t in made.tables)
    assert floor_table(replace(made, tables=bare), ["run-1", "run-2"], EN) is None


def test_spreads_have_the_decimals_of_their_metric() -> None:
    (table,) = spread_tables(made_up_comparison(num_runs=2), EN)
    assert table.names == "run-1, run-2"
    assert ("perplexity", "1.00", "1.50", "2.00") in table.rows
    assert ("chrF", "1.0", "1.5", "2.0") in table.rows


def test_figures_of_data_base_and_runs_stand_side_by_side_without_speech_levels() -> None:
    table = figure_table(full_comparison(2), ["run-1", "run-2"], EN)
    assert table is not None
    assert table.columns == (
        ("references", "reference"),
        ("base", "base"),
        ("run-1", "run-1"),
        ("run-2", "run-2"),
    )
    assert table.rows == (
        ("distinct words, % of all", ("44.40", "", "", "")),
        ("distinct pairs of words, % of all", ("", "61.50", "70.25", "70.25")),
    )
