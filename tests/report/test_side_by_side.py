"""Samples beside each other: marks, folds, filters, and how an answer came about."""

from __future__ import annotations

import re
from collections.abc import Mapping

from honing.report.comparison import Answer, Comparison, Sample
from honing.report.side_by_side import FOLD, filters, said, sample_cards, show_text
from honing.report.texts import Wording
from tests.report.made_up import made_up_comparison

EN, KO = Wording("en"), Wording("ko")


def comparison(answers: Mapping[str, str], reference: str = "물은 100도에서 끓어요.") -> Comparison:
    given = {name: Answer(text, 10.0, "end", 0.0) for name, text in answers.items()}
    sample = Sample("rows:1", "언제 끓나요?", reference, given, -2.25, ("worst", "stopped"))
    return Comparison((), (), (), (sample,), {}, (), 0, {})


def replies(answers: Mapping[str, str]) -> dict[str, str]:
    (card,) = sample_cards(comparison(answers), {"run-1": "run-1"}, EN)
    return {reply.name: str(reply.text) for reply in card.replies}


def test_new_words_are_marked_against_the_base_and_other_words_against_the_reference() -> None:
    shown = replies({"base": "물은 끓어요.", "run-1": "물은 99도에서 끓어요."})
    assert shown["run-1"] == (
        '<div class="said" dir="auto">물은 <mark class="b r">99도에서</mark> 끓어요.</div>'
    )
    assert shown["reference"] == '<div class="said" dir="auto">물은 100도에서 끓어요.</div>'


def test_with_one_run_the_words_that_it_dropped_are_marked_in_the_base() -> None:
    answers = {"base": "물은 안 끓어요.", "run-1": "물은 끓어요."}
    assert '<mark class="b r">안</mark>' in replies(answers)["base"]
    both = {**answers, "run-2": "물은 안 끓어요."}
    assert 'class="b' not in replies(both)["base"]


def test_an_answer_without_a_common_word_is_not_marked_but_says_so() -> None:
    (card,) = sample_cards(comparison({"base": "1.", "run-1": "모릅니다."}), {}, KO)
    run = card.replies[2]
    assert 'class="b' not in run.text
    assert 'class="b' not in card.replies[1].text
    assert run.how == "chrF 10.0 · 스스로 끝맺음 · 원본과 겹치는 말 없음"
    (other,) = sample_cards(comparison({"base": "", "run-1": "모릅니다."}), {}, KO)
    assert other.replies[2].how == "chrF 10.0 · 스스로 끝맺음"
    assert other.replies[1].text == '<div class="said nothing" dir="auto">(빈 답)</div>'


def test_a_run_without_a_base_is_marked_against_the_reference_alone() -> None:
    assert replies({"run-1": "물은 끓어요."})["run-1"] == (
        '<div class="said" dir="auto">물은 끓어요.</div>'
    )


def test_a_card_says_how_much_was_gained_and_why_it_is_there() -> None:
    (card,) = sample_cards(comparison({"base": "a", "run-1": "b"}), {"run-1": "run-1"}, EN)
    assert (card.gain, card.gain_style) == ("−2.2 chrF", "worse")
    assert card.labels == ("worst losses", "stopped")
    assert [reply.style for reply in card.replies] == ["reference", "base", "run-1"]


def test_marks_go_on_behind_the_fold_and_no_text_is_lost() -> None:
    text = "<가&\u202e> " * 300
    spans = {"b": [(3, 9), (FOLD - 4, FOLD + 5)], "r": [(5, 7), (FOLD, FOLD + 1)]}
    shown = str(said(text, spans, EN))
    assert shown.count('<mark class="b">') == 4
    assert shown.count('<mark class="b r">') == 2
    marked = re.findall(r"<mark[^>]*>(.*?)</mark>", shown, re.DOTALL)
    plain = [re.sub("<[^>]*>", "", piece).replace("\\u202e", "\u202e") for piece in marked]
    unescaped = "".join(plain).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert unescaped == text[3:9] + text[FOLD - 4 : FOLD + 5]


def test_many_short_lines_are_folded_too() -> None:
    lines = [f"{number}\n" for number in range(40)]
    shown = str(said("".join(lines), {}, EN))
    head, _, rest = shown.partition('<span class="more"')
    assert head.endswith("<summary>0\n1\n2\n3\n4\n5\n6\n7")
    assert "</summary>\n8\n9\n" in rest
    assert "<details" not in said("".join(lines[:9]), {}, EN)
    long = said("가" * 700 + "\n" * 40, {}, EN)
    assert f"<summary>{'가' * FOLD}<span" in long


def test_hidden_characters_stand_in_a_box() -> None:
    assert show_text("<b>\u202e") == '&lt;b&gt;<span class="escape">\\u202e</span>'


def test_the_best_the_worst_and_the_draw_come_first() -> None:
    made = made_up_comparison(num_runs=1, num_rows=60)
    cards = sample_cards(made, {}, EN)
    assert len(cards) == 60
    gains = {sample.id: sample.gain for sample in made.samples}
    best, worst = cards[:8], cards[8:16]
    assert all("best" in card.tags for card in best)
    assert all("worst" in card.tags for card in worst)
    assert [gains[card.id] for card in best] == sorted(
        (gains[card.id] for card in best), reverse=True
    )
    assert [gains[card.id] for card in worst] == sorted(gains[card.id] for card in worst)
    rest = ["random" in card.tags for card in cards[16:]]
    assert rest == sorted(rest, reverse=True)
    assert any(rest)


def test_filters_count_rows() -> None:
    made = made_up_comparison(num_runs=1, num_rows=60, leaked=True)
    counts = {key: number for key, _, number in filters(made, EN)}
    assert list(counts) == [
        "selection",
        "best",
        "worst",
        "random",
        "stopped",
        "not-stopped",
        "looping",
        "leaked",
        "empty",
        "all",
    ]
    assert counts["all"] == counts["stopped"] + counts["not-stopped"] == 60
    assert counts["leaked"] == 6
    chosen = {"best", "worst", "random"}
    assert counts["selection"] == sum(bool(chosen & set(s.tags)) for s in made.samples)
