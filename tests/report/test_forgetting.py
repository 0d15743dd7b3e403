"""What was forgotten of a general text: a line with an interval in every form of a comparison."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from honing.evaluation.bootstrap import difference, holm
from honing.evaluation.record import Evaluation, GeneralText
from honing.evaluation.scores import SCORES
from honing.report.card import model_card
from honing.report.compare import compare_evaluations
from honing.report.comparison import Comparison
from honing.report.html import render_page
from honing.report.runs import RunEvaluations
from honing.report.table import format_markdown, format_terminal
from tests.report.made_up import made_up_runs

NAMES = ("general_perplexity", "general_bits_per_character")


def general(
    nats_per_token: float, seed: int, num_pieces: int = 40, text: str = "ab"
) -> GeneralText:
    """Pieces of one text: their tokens and characters are the same for every model."""
    sizes = np.random.default_rng(7).integers(200, 512, num_pieces)
    noise = np.random.default_rng(seed).normal(0.0, 0.05, num_pieces)
    return GeneralText(
        f"wiki.txt|windows of 512|tokens:{sizes.sum()}",
        text,
        tuple(
            (float(size * (nats_per_token + extra)), int(size), int(2 * size))
            for size, extra in zip(sizes, noise, strict=True)
        ),
    )


def with_general(
    run: RunEvaluations, base: GeneralText | None, tuned: GeneralText | None
) -> RunEvaluations:
    def of(evaluation: Evaluation, text: GeneralText | None) -> Evaluation:
        return replace(evaluation, general=text)

    return RunEvaluations(run.info, of(run.base, base), of(run.tuned, tuned))


def compared(*runs: RunEvaluations) -> Comparison:
    return compare_evaluations(runs, num_resamples=1000, seed=3)


def test_the_difference_has_the_interval_of_its_pieces() -> None:
    (run,) = made_up_runs(1, leaked=True)
    before, after = general(3.0, 1), general(3.2, 2)
    comparison = compared(with_general(run, before, after))
    lines = {line.name: line for line in comparison.tables[0].lines}
    line = lines["general_perplexity"]
    (pieces_before, pieces_after) = (
        np.array([piece[:2] for piece in text.pieces], np.float64) for text in (before, after)
    )
    expected = difference(
        pieces_before,
        pieces_after,
        np.arange(40),
        SCORES["general_perplexity"],
        num_resamples=comparison.made_with["num_resamples"],
        seed=3,
    )
    assert line.all_rows.interval == expected.interval
    assert line.all_rows.difference == expected.difference
    assert line.all_rows.verdict == "worse"
    assert line.all_rows.before.interval is not None
    assert (line.clean, line.floors) == (None, {})
    assert lines["general_bits_per_character"].all_rows.verdict == "worse"


def test_its_tests_are_corrected_with_all_others() -> None:
    (run,) = made_up_runs(1)
    without, comparison = compared(run), compared(with_general(run, general(3, 1), general(3, 2)))
    assert comparison.num_tests == without.num_tests + 2
    given = [line.all_rows for line in comparison.tables[0].lines]
    assert [one.p_holm for one in given] == holm([one.p_value for one in given])


def test_a_few_pieces_give_the_numbers_and_no_test() -> None:
    (run,) = made_up_runs(1)
    comparison = compared(with_general(run, general(3, 1, 3), general(4, 2, 3)))
    line = next(line for line in comparison.tables[0].lines if line.name == NAMES[0])
    assert (line.all_rows.interval, line.all_rows.verdict) == (None, "no test")
    assert line.all_rows.difference > 0


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (general(3.0, 2, text="cd"), "their texts are not the same"),
        (general(3.0, 2, num_pieces=39), "their tokens are not the same"),
        (None, "only one of them has it"),
    ],
)
def test_what_is_not_of_the_same_pieces_is_not_compared(
    other: GeneralText | None, reason: str
) -> None:
    (run,) = made_up_runs(1)
    comparison = compared(with_general(run, general(3.0, 1), other))
    assert not {line.name for line in comparison.tables[0].lines} & set(NAMES)
    for name in NAMES:
        assert f"run-1 and its base: {name} is not compared, for {reason}" in comparison.notes


def test_runs_are_compared_on_it_too() -> None:
    first, second = (
        with_general(run, general(3.0, 1), general(3.0 + 0.3 * place, 2 + place))
        for place, run in enumerate(made_up_runs(2))
    )
    lines = {line.name: line.all_rows for line in compared(first, second).pairs[0].lines}
    assert lines["general_perplexity"].verdict == "worse"


def test_it_is_shown_in_every_form_and_not_twice() -> None:
    (run,) = made_up_runs(1)
    text = general(3.0, 1)
    run = with_general(run, text, general(3.2, 2))
    run = replace(run, info=replace(run.info, figures_tuned={"general_perplexity": 24.5}))
    comparison = compared(run)
    line = next(line for line in comparison.tables[0].lines if line.name == NAMES[0])
    low = f"{line.all_rows.interval[0]:+.2f}" if line.all_rows.interval else ""
    for said in (format_terminal(comparison), format_markdown(comparison)):
        assert "general perplexity" in said
        assert low in said
        assert text.signature.split("|")[0] in said
    for language, label in (("en", "perplexity of general text"), ("ko", "일반 글의 혼란도")):
        page = render_page(comparison, "ko" if language == "ko" else "en")
        assert page.count(f'<th scope="row">{label}') == 1
        assert low in page
    record = comparison.to_record()["tables"][0]["lines"]
    assert [one["name"] for one in record][-2:] == list(NAMES)


def test_the_cards_results_are_of_the_data_set_alone() -> None:
    (run,) = made_up_runs(1)
    comparison = compared(with_general(run, general(3.0, 1), general(3.2, 2)))
    card = model_card(comparison, "run-1", base_license=None, data_license=None, language="en")
    head, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert "type: perplexity" in head
    assert "general_perplexity" not in head
    assert "perplexity of general text" in body
