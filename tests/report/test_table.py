"""Tables: what stands in each cell, and that no text of a model or of the data breaks out."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from honing.evaluation.record import Estimate, Verdict
from honing.report.compare import ONE_SEED, compare_evaluations
from honing.report.comparison import Comparison, Difference, MetricLine, SeedSpread
from honing.report.table import (
    WIDTH,
    format_evaluation,
    format_markdown,
    format_terminal,
)
from tests.report.made_up import HOSTILE, made_up_comparison, made_up_runs


def line(
    name: str,
    before: float,
    after: float,
    interval: tuple[float, float] | None,
    verdict: Verdict,
    **changes: object,
) -> MetricLine:
    given = Difference(
        before=Estimate(before, (before - 1, before + 1)),
        after=Estimate(after, (after - 1, after + 1)),
        difference=after - before,
        interval=interval,
        p_value=None if interval is None else 0.0004,
        p_holm=None if interval is None else 0.0123,
        smallest_detectable=None if interval is None else 2.345,
        verdict=verdict,
    )
    made = MetricLine(name, f"{name}|made up", "higher", "0–100", given, None, {})
    return replace(made, **changes)  # type: ignore[arg-type]


LINES = (
    line("perplexity", 1234.5, 3.456, (-1300.0, -1100.0), "better"),
    line(
        "bleu",
        10.0,
        12.04,
        (0.5, 3.96),
        "better",
        signature="nrefs:1|tok:ko-mecab-0.996/ko-0.9.2-KO|smooth:exp",
        floors={"copy the input": 9.0, "nearest training row": 14.5},
    ),
    line(
        "rougeL", 5.0, 8.0, (1.0, 5.0), "better", floors={"a random other reference": 8.4, "x": 2.0}
    ),
    line("ended", 40.0, 39.0, (-3.0, 1.0), "not distinguishable"),
    line("length_ratio", 2.0, 1.0, (-1.5, -0.5), "different"),
    line("kindness_of_tone", math.nan, math.nan, None, "no test"),
)


def one_run(lines: tuple[MetricLine, ...] = LINES) -> Comparison:
    made = made_up_comparison(num_runs=1, num_rows=120)
    return replace(made, tables=(replace(made.tables[0], lines=lines),))


EXPECTED = """\
run-1 against its base
step-000100 on up-base
test split: 120 rows in 96 groups of near-duplicates

metric             base  tuned  difference [95 % interval]  p (Holm)  verdict              best floor
─────────────────────────────────────────────────────────────────────────────────────────────────────────
perplexity        1,234   3.46  -1,231 [-1,300, -1,100]        0.012  better
BLEU (ko-mecab)    10.0   12.0  +2.0 [+0.5, +4.0]              0.012  better               < 14.5 nearest
ROUGE-L             5.0    8.0  +3.0 [+1.0, +5.0]              0.012  better               ~ 8.4 random
ended              40.0   39.0  -1.0 [-3.0, +1.0]              0.012  not distinguishable
length ratio       2.00   1.00  -1.00 [-1.50, -0.50]           0.012  different
kindness of tone      –      –  –                                  –  no test
Best floor: what can be had without a model (copy the input; random other reference; nearest training row).
  The interval of the model's own score lies above (>), below (<) or around it (~).
Not distinguishable; with so many rows a difference would have shown from about: ended by itself 2.3

perplexity: perplexity|made up
BLEU: nrefs:1|tok:ko-mecab-0.996/ko-0.9.2-KO|smooth:exp
ROUGE-L: rougeL|made up
kindness of tone: kindness_of_tone|made up

note: One seed judges this adapter, not the recipe: another seed gives another adapter
note: characters instead of morphemes: honing[ko] is not installed
Intervals and p-values: paired bootstrap over groups of rows, BCa, 2000 resamples, seed 42; 6 tests corrected
  together (Holm)"""  # noqa: E501


def test_the_terminal_shows_all_of_one_run() -> None:
    assert format_terminal(one_run()) == EXPECTED


def test_a_floor_that_is_beaten_lies_below() -> None:
    beaten = line("rougeL", 5.0, 8.0, (1.0, 5.0), "better", floors={"copy the input": 2.0})
    assert "> 2.0 copy" in format_terminal(one_run((beaten,)))
    unknown = line("rougeL", 5.0, 8.0, (1.0, 5.0), "better", floors={"copy the input": math.nan})
    assert "copy" not in format_terminal(one_run((unknown,))).splitlines()[6]


def test_clean_rows_have_a_table_of_their_own() -> None:
    made = made_up_comparison(num_runs=1, leaked=True)
    text = format_terminal(made)
    whole, clean = text.split("On the rows without a twin in training:\n")
    assert "120 rows in 96 groups of near-duplicates; 12 rows have a twin in training" in whole
    row = made.tables[0].lines[2]
    assert row.clean is not None
    assert f"{row.clean.difference:+.1f}" in clean.splitlines()[4]
    assert clean.splitlines()[0].split()[:3] == ["metric", "base", "tuned"]


def test_usual_tables_fit_the_terminal() -> None:
    runs = made_up_runs(3, leaked=True)
    for comparison in (compare_evaluations(runs, num_resamples=1000), made_up_comparison(3)):
        text = format_terminal(comparison)
        assert max(map(len, text.splitlines())) <= WIDTH
        assert "run-3 against run-1\n120 rows in 96 groups of near-duplicates\n" in text
        assert re.search(r"^metric +run-1 +run-3  difference", text, re.MULTILINE)


def test_names_of_runs_take_their_width() -> None:
    runs = made_up_runs(2, 20)
    named = [
        replace(run, info=replace(run.info, name=name))
        for run, name in zip(runs, ("한국어 학습", "a" * 30), strict=True)
    ]
    text = format_terminal(compare_evaluations(named, num_resamples=1000))
    head, _, row = text.split("groups of near-duplicates\n\n")[3].splitlines()[:3]
    assert head.startswith("metric              한국어 학습  aaaaaaaaaaa…  difference")
    # Each of five syllables takes two columns: the number ends where the name does.
    number = re.match(r"perplexity +\d+\.\d\d", row)
    assert number is not None
    assert number.end() == len("metric              한국어 학습") + 5


def test_spreads_over_seeds_are_shown() -> None:
    made = made_up_comparison(num_runs=2)
    made = replace(made, seed_spreads=(SeedSpread(("a", "b"), {"perplexity": (1.0, 1.5, 2.25)}),))
    assert (
        "Only the seed differs: a, b\n\n"
        "metric      lowest  mean  highest\n"
        "─────────────────────────────────\n"
        "perplexity    1.00  1.50     2.25\n"
    ) in format_terminal(made)
    assert (
        "## The seed alone\n\nOnly the seed differs: a, b\n\n"
        "| metric | lowest | mean | highest |\n| --- | ---: | ---: | ---: |\n"
        "| perplexity | 1.00 | 1.50 | 2.25 |\n"
    ) in format_markdown(made)


def test_notes_say_of_which_run_they_are() -> None:
    made = made_up_comparison(num_runs=2)
    first, second = made.tables
    changed = replace(second, run=replace(second.run, warnings=("only here\x1b[2J",)))
    text = format_terminal(replace(made, tables=(first, changed)))
    assert "note: run-1: characters instead of morphemes: honing[ko] is not installed" in text
    assert "note: run-2: only here\\x1b[2J" in text
    assert text.count(ONE_SEED) == 1


def test_an_evaluation_alone() -> None:
    (run,) = made_up_runs(1)
    evaluation = replace(run.tuned, data={**run.tuned.data, "notes": ["rows.jsonl has no prompts"]})
    lines = format_evaluation(evaluation).splitlines()
    assert lines[0] == "test: 120 rows in 96 groups of near-duplicates"
    assert lines[2].split() == ["metric", "score", "95", "%", "interval", "best", "floor"]
    (chrf,) = [line for line in lines if line.startswith("chrF (mecab)")]
    estimate = evaluation.metrics["chrf"].estimate
    assert estimate.interval is not None
    low, high = estimate.interval
    assert chrf.split() == [
        "chrF",
        "(mecab)",
        f"{estimate.score:.1f}",
        f"[{low:.1f},",
        f"{high:.1f}]",
        ">",
        "12.9",
        "nearest",
    ]
    assert lines[-2:] == [
        "note: rows.jsonl has no prompts",
        "note: characters instead of morphemes: honing[ko] is not installed",
    ]
    assert "perplexity: perplexity|made up|tok:mecab-0.1|version:0" in lines
    assert max(map(len, lines)) <= WIDTH
    bare = format_evaluation(replace(evaluation, floors={}))
    assert "floor: what can be had" not in bare


# --- Markdown


def test_markdown_has_the_same_numbers_and_how_they_were_made() -> None:
    text = format_markdown(one_run())
    assert text.startswith("# run-1: did it get better?\n\n## run-1 against its base\n")
    assert (
        "| BLEU (ko-mecab) | 10.0 | 12.0 | +2.0 [+0.5, +4.0] | 0.012 | **better** | 2.3 | "
        "&lt; 14.5 nearest |\n"
    ) in text
    assert "| ended | 40.0 | 39.0 | −1.0 [−3.0, +1.0] | 0.012 | not distinguishable | 2.3 |" in text
    assert "| kindness of tone | – | – | – | – | no test | – |  |\n" in text
    assert "| `bleu` | `nrefs:1\\|tok:ko-mecab-0.996/ko-0.9.2-KO\\|smooth:exp` |\n" in text
    assert "| `distinct_2` | `different bigrams / bigrams` |\n" in text
    assert (
        f"- {ONE_SEED}\n- characters instead of morphemes: honing\\[ko\\] is not installed" in text
    )
    assert text.endswith("\n\nMade with: honing 0, num_resamples 2000, seed 42.\n")
    assert "What differs" not in text


def test_markdown_tables_are_whole() -> None:
    text = format_markdown(made_up_comparison(num_runs=2, leaked=True))
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        bars = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(bars) == 1, table
    assert (
        "## run-2 against run-1\n\n120 rows in 96 groups of near-duplicates\n\n| metric |" in text
    )
    assert text.count("On the rows without a twin in training:") == 3
    assert (
        "## What differs between the runs\n\n| setting | run-1 | run-2 |\n| --- | ---: | ---: |\n"
        "| `seed` | `0` | `1` |\n"
    ) in text


def test_samples_are_best_worst_and_random_ones() -> None:
    made = made_up_comparison(num_runs=1)
    text = format_markdown(made)
    parts = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert [part.split("\n")[0] for part in parts] == ["Best gains", "Worst losses", "Random draw"]
    gains = {sample.id: sample.gain for sample in made.samples}
    shown = [re.findall(r"^`(made-up:\d+)`, chrF", part, re.MULTILINE) for part in parts]
    assert [len(ids) for ids in shown] == [3, 3, 3]
    for ids, tag, sign in ((shown[0], "best", -1), (shown[1], "worst", 1)):
        tagged = sorted(sign * gains[s.id] for s in made.samples if tag in s.tags)
        assert [sign * gains[one] for one in ids] == tagged[:3]
    assert shown[2] == [s.id for s in made.samples if "random" in s.tags][:3]


def test_what_a_model_says_stays_in_its_block() -> None:
    made = made_up_comparison(num_runs=1)
    sample = next(s for s in made.samples if "random" in s.tags)
    assert sample.answers["run-1"].text == HOSTILE
    bad = replace(
        sample,
        id="a`|b",
        prompt="``````\n# no heading\u202e",
        answers={"base": sample.answers["base"], "<b>": sample.answers["run-1"]},
    )
    text = format_markdown(replace(made, samples=(bad,)))
    assert f"```text\n{HOSTILE}\n```" in text
    assert "```````text\n``````\n# no heading\\u202e\n```````" in text
    assert "\n&lt;b&gt;:\n" in text
    assert "`` a`\\|b ``" in text
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "<script>" not in outside
    assert "no heading" not in outside


def test_long_texts_are_cut_and_say_so() -> None:
    made = made_up_comparison(num_runs=1)
    sample = next(s for s in made.samples if "random" in s.tags)
    text = format_markdown(replace(made, samples=(replace(sample, prompt="가" * 1401),)))
    assert f"```text\n{'가' * 400}\n… 1,401 characters in all\n```" in text
    none = format_markdown(replace(made, samples=()))
    assert "## Samples" not in none


def test_hostile_names_break_nothing() -> None:
    made = made_up_comparison(num_runs=1)
    run = replace(
        made.tables[0].run, name="<b>|x\n# y", base="a/|b`", warnings=("[x](javascript:1)",)
    )
    text = format_markdown(replace(made, tables=(replace(made.tables[0], run=run),)))
    assert text.startswith("# &lt;b&gt;\\|x # y: did it get better?\n")
    assert "- \\[x\\](javascript:1)\n" in text
    assert "on \\|b\\`\n" in text
    terminal = format_terminal(replace(made, tables=(replace(made.tables[0], run=run),)))
    assert terminal.startswith("<b>|x # y against its base\n")
