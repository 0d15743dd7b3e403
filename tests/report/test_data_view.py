"""A run's data report on the page: its figures, its leaks, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace

from honing.report.data_view import data_views
from honing.report.texts import Wording
from tests.report.pages import DATA_REPORT, full_comparison

EN, KO = Wording("en"), Wording("ko")
RUNS = [table.run for table in full_comparison(2).tables]


def test_runs_that_learnt_from_the_same_data_share_a_view() -> None:
    (view,) = data_views(RUNS, EN)
    assert view.names == "run-1, run-2"
    other = replace(RUNS[1], data_report={**DATA_REPORT, "source": "other.jsonl"})
    assert [view.names for view in data_views([RUNS[0], other], EN)] == ["run-1", "run-2"]


def test_figures_are_those_of_the_report() -> None:
    (view,) = data_views(RUNS[:1], EN)
    assert view.facts == (
        ("source", "folder/rows.jsonl"),
        ("template", "instruction"),
        ("longest row", "128 tokens"),
        ("rows kept", "1,000 of 1,010"),
        ("left out", "10 × answer does not fit into 128 tokens"),
        ("tokens a Hangul syllable", "2.79"),
        ("fingerprint", "9ef9b430b0845ad4"),
    )
    assert view.splits == (("training", ("800", "46 %", "100 %", "15", "69", "110", "128")),)
    assert len(view.split_columns) == 8
    assert view.remarks == (
        "2 of 100 test rows have a twin in train",
        "learning from 800 of 900 training rows",
    )
    assert view.shown_rows == (("rows.jsonl:7", "### Response:\n<b>⟦조금만 더 버텨요.⟧</b>"),)


def test_leaks_are_told_by_split_with_an_example() -> None:
    (view,) = data_views(RUNS[:1], KO)
    none, some = view.leaks
    assert none.sentence == "검증: 100행 가운데 학습 행에 쌍둥이가 있는 행은 없습니다."
    assert some.sentence == (
        "테스트: 100행 가운데 2행은 학습 행에 쌍둥이가 있습니다. 그런 행은 배운 것이 아니라 외운 "
        "것을 잽니다(거의 같은 질문 2)."
    )
    (twin,) = some.twins
    assert (twin.held_out_id, twin.train_id) == ("rows.jsonl:66", "rows.jsonl:133")
    assert twin.kind == "거의 같은 질문"
    assert "해외여행 가고싶다" in twin.train_text


def test_an_empty_report_has_an_empty_view() -> None:
    (view,) = data_views([replace(RUNS[0], data_report={})], EN)
    assert (view.facts, view.splits, view.leaks, view.remarks) == ((), (), (), ())


def test_lists_that_are_none_are_left_out() -> None:
    """A report from anyone; the page ended in a traceback."""
    leaks = {"val": {"num_rows": 3, "num_leaked": 1, "examples": 7}}
    report = {"notes": 7, "warnings": "ab", "shown_rows": 7, "leaks": leaks}
    (view,) = data_views([replace(RUNS[0], data_report=report)], EN)
    assert (view.remarks, view.shown_rows, view.leaks[0].twins) == ((), (), ())
