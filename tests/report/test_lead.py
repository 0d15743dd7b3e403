"""The answer in sentences, in both languages."""

from __future__ import annotations

from dataclasses import replace

from honing.evaluation.record import Estimate, Verdict
from honing.report.comparison import Comparison, Difference, MetricLine, PairTable
from honing.report.lead import (
    against_floor,
    chief_lines,
    lead_of_many,
    lead_of_run,
    say_facts,
    say_line,
)
from honing.report.texts import Wording
from tests.report.made_up import made_up_comparison

EN, KO = Wording("en"), Wording("ko")


def line(
    name: str,
    before: float,
    after: float,
    half: float,
    verdict: Verdict,
    floors: dict[str, float] | None = None,
) -> MetricLine:
    interval = (after - before - half, after - before + half)
    difference = Difference(
        before=Estimate(before, (before - 1, before + 1)),
        after=Estimate(after, (after - 1, after + 1)),
        difference=after - before,
        interval=None if verdict == "no test" else interval,
        p_value=0.01,
        p_holm=0.02,
        smallest_detectable=2.5,
        verdict=verdict,
    )
    lower = name in ("perplexity", "looping")
    unit = name if name == "perplexity" else "0–100"
    return MetricLine(
        name, name, "lower" if lower else "higher", unit, difference, None, floors or {}
    )


def plain(metric: MetricLine, t: Wording) -> str:
    return say_line(metric, t).striptags().replace("\u00a0", " ")


def test_a_metric_that_rose() -> None:
    chrf = line("chrf", 8.2, 14.5, 2.1, "better")
    assert plain(chrf, EN) == (
        "chrF rose by 6.3 points, from 8.2 to 14.5 (95 % interval 4.2 to 8.4): better."
    )
    assert plain(chrf, KO) == (
        "chrF가 8.2에서 14.5로 6.3점 올라(95 % 신뢰구간 4.2 ~ 8.4) 나아졌습니다."
    )


def test_a_metric_that_fell_by_an_amount_with_its_interval() -> None:
    perplexity = line("perplexity", 10.01, 5.5, 0.5, "better")
    assert plain(perplexity, EN) == (
        "Perplexity fell by 4.51, from 10.01 to 5.50 (95 % interval 4.01 to 5.01): better."
    )
    assert plain(perplexity, KO) == (
        "혼란도(perplexity)가 10.01에서 5.50으로 4.51 내려(95 % 신뢰구간 4.01 ~ 5.01) 나아졌습니다."
    )


def test_worse_and_different() -> None:
    worse = line("rougeL", 20.0, 16.0, 1.0, "worse")
    assert plain(worse, EN).endswith("(95 % interval 3.0 to 5.0): worse.")
    assert plain(worse, KO) == (
        "ROUGE-L이 20.0에서 16.0으로 4.0점 내려(95 % 신뢰구간 3.0 ~ 5.0) 나빠졌습니다."
    )
    assert plain(line("ended", 10.0, 90.0, 5.0, "different"), EN) == (
        "Ended by itself rose by 80.0 percentage points, from 10.0 to 90.0 "
        "(95 % interval 75.0 to 85.0): different."
    )


def test_what_cannot_be_told_apart_says_what_would_have_shown() -> None:
    still_open = line("chrf", 8.2, 8.5, 1.5, "not distinguishable")
    assert plain(still_open, EN) == (
        "chrF is not distinguishable: 8.2 before, 8.5 after (95 % interval of the difference "
        "−1.2 to 1.8). So few rows would have shown a difference of 2.5 points or more."
    )
    assert plain(still_open, KO) == (
        "chrF는 구별되지 않습니다. 8.2에서 8.5가 되었지만, 차이의 95 % 신뢰구간이 −1.2 ~ "
        "1.8입니다. 이만한 행 수에서는 차이가 2.5점 이상이어야 드러납니다."
    )


def test_what_was_not_tested_is_no_verdict() -> None:
    untested = line("chrf", 8.2, 14.3, 1.0, "no test")
    assert plain(untested, EN) == (
        "chrF: 8.2 before, 14.3 after; nothing could be resampled, so there is no verdict."
    )
    assert plain(untested, KO) == (
        "chrF는 8.2에서 14.3이 되었습니다. 다시 뽑아 볼 것이 없어서 판정하지 않았습니다."
    )


def test_a_floor_is_beaten_only_by_the_whole_interval() -> None:
    assert against_floor(Estimate(5.0, (4.0, 6.0)), 3.9) == "above"
    assert against_floor(Estimate(5.0, (4.0, 6.0)), 4.0) == "open"
    assert against_floor(Estimate(5.0, (4.0, 6.0)), 6.1) == "below"
    assert against_floor(Estimate(5.0, None), 4.9) == "above"


def test_a_lead_names_the_rest_by_verdict_and_the_best_floor() -> None:
    lines = [
        line("bleu", 1.0, 4.0, 1.0, "better"),
        line(
            "chrf", 8.2, 14.5, 2.1, "better", {"copy the input": 58.9, "nearest training row": 6.0}
        ),
        line("exact_match", 0.0, 0.4, 1.0, "not distinguishable"),
        line("looping", 1.0, 9.0, 1.0, "worse"),
        line("length_ratio", 3.0, 1.0, 1.0, "different"),
    ]
    lead = lead_of_run("run-1", "run-1", lines, EN)
    assert [sentence.style for sentence in lead.main] == ["better"]
    assert (
        lead.main[0]
        .text.striptags()
        .endswith(
            "better. That is still less than a floor without any model, copy the input (58.9)."
        )
    )
    assert lead.more == (
        "Also better: BLEU. Worse: looping answers. Different: length ratio. "
        "Nothing else is distinguishable from the base.",
    )
    korean = lead_of_run("run-1", "run-1", lines, KO)
    assert korean.more == (
        "그 밖에 나아진 것: BLEU. 나빠진 것: 맴도는 답. 달라진 것: 길이 비율. "
        "나머지는 원본과 구별되지 않습니다.",
    )
    assert (
        korean.main[0]
        .text.striptags()
        .endswith("그래도 모델 없이 얻는 점수(입력을 그대로 옮기기, 58.9)보다 낮습니다.")
    )


def test_the_chief_metrics_come_first_and_any_metric_will_do() -> None:
    lines = [line(name, 1.0, 2.0, 0.5, "better") for name in ("bleu", "perplexity", "chrf")]
    assert [one.name for one in chief_lines(lines)] == ["chrf", "perplexity"]
    assert [one.name for one in chief_lines(lines[:1])] == ["bleu"]
    assert lead_of_run("", "", [], EN).main == ()


def comparison(verdicts: list[Verdict], pairs: list[PairTable]) -> Comparison:
    made = made_up_comparison(num_runs=len(verdicts), num_rows=30)
    tables = tuple(
        replace(table, lines=(line("chrf", 8.0, 9.0, 0.5, verdict),))
        for table, verdict in zip(made.tables, verdicts, strict=True)
    )
    return replace(made, tables=tables, pairs=tuple(pairs))


def pair(before: str, after: str, verdict: Verdict) -> PairTable:
    return PairTable(before, after, 30, 24, (line("chrf", 8.0, 10.0, 1.0, verdict),))


def test_many_runs_are_summed_up_by_the_first_chief_metric() -> None:
    made = comparison(
        ["better", "not distinguishable", "better", "worse"],
        [pair("run-1", "run-2", "better"), pair("run-1", "run-3", "not distinguishable")],
    )
    assert [s.text.striptags().replace("\u00a0", " ") for s in lead_of_many(made, EN).main] == [
        "By chrF, better than the base: run-1, run-3.",
        "By chrF, worse than the base: run-4.",
        "By chrF, not distinguishable from the base: run-2.",
        "run-2 is better than run-1 (95 % interval 1.0 to 3.0).",
        "No other two runs are distinguishable.",
    ]
    assert [s.text.striptags().replace("\u00a0", " ") for s in lead_of_many(made, KO).main] == [
        "chrF로 보아 원본보다 나아진 실행: run-1, run-3.",
        "chrF로 보아 원본보다 나빠진 실행: run-4.",
        "chrF로 보아 원본과 구별되지 않는 실행: run-2.",
        "run-1보다 run-2가 낫습니다(95 % 신뢰구간 1.0 ~ 3.0).",
        "나머지 실행끼리는 서로 구별되지 않습니다.",
    ]


def test_where_no_pair_differs_that_is_said_once() -> None:
    open_pairs = [pair("run-1", "run-2", "not distinguishable")] * 3
    said = lead_of_many(comparison(["better", "better"], open_pairs), EN).main
    assert [s.text.striptags() for s in said] == [
        "By chrF, better than the base: run-1, run-2.",
        "No two runs are distinguishable from each other.",
    ]


def test_facts_name_rows_groups_and_leaks_once() -> None:
    runs = [table.run for table in made_up_comparison(2, 120, leaked=True).tables]
    assert say_facts(runs, EN) == (
        "120 held-out rows (test) in 96 groups of near-duplicates; "
        "12 of them have a twin in training"
    )
    other = replace(runs[1], split="my.jsonl", num_rows=1200, num_groups=1100, num_leaked=0)
    assert say_facts([runs[0], other], KO) == (
        "학습에 쓰지 않은 120행(테스트), 서로 비슷한 행끼리 묶으면 96묶음, 학습 행에 쌍둥이가 있는 "
        "12행 포함 / 학습에 쓰지 않은 1,200행(my.jsonl), 서로 비슷한 행끼리 묶으면 1,100묶음"
    )
