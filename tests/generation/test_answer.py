"""Examples → answers: encoded, batched, decoded, counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from honing.data.encode import Tokens
from honing.data.example import Example, Exchange
from honing.errors import UserError
from honing.generation.answer import (
    Answer,
    answer_questions,
    answer_seed,
    encode_for_answering,
    repetition,
    stops,
    to_answer,
)
from honing.generation.decode import AnswerIds, Stopped
from tests.generation.asking import (
    EOS,
    QUESTIONS,
    ask,
    decode,
    encoded_questions,
    ids_of,
    script,
    settings,
    tiny_opened,
)
from tests.tiny import tiny_tokenizer


def answers_to(architecture: str = "llama", **wanted: Any) -> list[Answer]:
    opened = tiny_opened(architecture)
    chosen = settings(**wanted)
    return answer_questions(opened, encoded_questions(opened, QUESTIONS, chosen), chosen)[0]


# --- one answer


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([], 0.0),
        ([1] * 7, 0.0),
        ([1] * 8, 0.0),
        ([1] * 9, 50.0),
        ([1] * 16, 100 * 8 / 9),
        (list(range(100)), 0.0),
        ([*range(8), *range(8)], 100 * 1 / 9),
        ([*range(4)] * 5, 100 * 9 / 13),
        ([*range(10), *range(7)], 0.0),
    ],
)
def test_repetition_is_the_share_of_runs_that_were_there_before(
    ids: Sequence[int], expected: float
) -> None:
    assert repetition(ids) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("template", "made", "expected"),
    [
        ("instruction", "서울입니다.", "서울입니다."),
        ("instruction", " 서울", " 서울"),
        ("koalpaca-v1.1", " 서울", "서울"),
        ("koalpaca-v1.1", "  서울", " 서울"),
        ("koalpaca-v1.1", "서울", "서울"),
    ],
)
def test_the_blank_that_the_template_puts_before_an_answer_is_taken_off(
    template: str, made: str, expected: str
) -> None:
    opened = tiny_opened(template=template)
    answer = to_answer(opened, "q", 0, AnswerIds(tuple(ids_of(made)), "end", 0.1), settings())
    assert answer == Answer("q", 0, expected, len(ids_of(made)), "end", 0.0)


def test_half_a_character_at_the_end_is_left_out() -> None:
    ids = tuple(ids_of("서울 뷁")[:-1])
    made = to_answer(tiny_opened(), "q", 2, AnswerIds(ids, "length", 0.1), settings())
    assert made == Answer("q", 2, "서울 ", len(ids), "length", 0.0)


def test_the_first_stop_text_cuts_the_answer() -> None:
    wanted = settings(stop=["끝", "##"])
    made = AnswerIds(tuple(ids_of("가 ## 나 끝 다")), "stop text", 0.1)
    assert to_answer(tiny_opened(), "q", 0, made, wanted).text == "가 "


def test_each_answer_has_a_seed_of_its_own() -> None:
    seeds = {answer_seed(s, i, n) for s in range(5) for i in range(20) for n in range(5)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**56 for seed in seeds)
    # Another way to make them would give every user other answers.
    assert [answer_seed(42, 0, n) for n in (0, 1)] == [56027360093191891, 58837186869563364]


# --- what ends an answer


def test_the_end_ids_are_the_templates_the_tokenizers_and_the_models() -> None:
    opened = tiny_opened(template="chat")
    turn_end = tiny_tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert stops(opened, settings()).ids == (turn_end, EOS)
    opened.model.generation_config.eos_token_id = [5, EOS, 7]
    assert stops(opened, settings()).ids == (turn_end, EOS, 5, 7)
    opened.model.generation_config.eos_token_id = 9
    assert stops(opened, settings()).ids == (turn_end, EOS, 9)
    opened.model.generation_config.eos_token_id = None
    assert stops(tiny_opened(), settings()).ids == (EOS,)


def test_a_stop_text_may_lie_across_tokens_and_begin_far_back() -> None:
    is_stop = stops(tiny_opened(), settings(stop=["대한민국의 수도", "\n\n"])).is_stop_text
    assert is_stop is not None
    ids = ids_of("그런데 대한민국의 수도는")
    first = [is_stop(ids[:place]) for place in range(1, len(ids) + 1)].index(True)
    assert "대한민국의 수도" in decode(ids[: first + 1])
    assert "대한민국의 수도" not in decode(ids[:first])
    assert not is_stop(ids_of("대한민국의 수 도"))
    assert is_stop(ids_of("가\n\n"))


def test_without_stop_texts_nothing_is_decoded() -> None:
    assert stops(tiny_opened(), settings()).is_stop_text is None


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(UserError) as error:
        stops(tiny_opened(), settings(stop=["끝", ""]))
    assert str(error.value) == ("generate.stop: an empty text would end every answer; take it out")


def test_a_stop_text_ends_and_cuts_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, wanted = tiny_opened(), settings(stop=["###"], max_new_tokens=40)
    script(monkeypatch, ids_of("서울. ### 다음"))
    questions = encoded_questions(opened, ["?"], wanted)
    ((answer,), statistics) = answer_questions(opened, questions, wanted)
    assert (answer.text, answer.stopped) == ("서울. ", "stop text")
    assert statistics.share_ended == 0.0


# --- many answers


def test_answers_come_in_the_order_of_the_questions() -> None:
    answers = answers_to(temperature=1.0, num_answers=3, batch_size=5)
    assert [(a.question_id, a.number) for a in answers] == [
        (f"q:{row}", number) for row in range(1, len(QUESTIONS) + 1) for number in range(3)
    ]


@pytest.mark.parametrize("architecture", ["gpt2", "gemma"])
def test_drawn_answers_do_not_depend_on_the_batch(architecture: str) -> None:
    drawn = {"temperature": 1.0, "num_answers": 2, "min_new_tokens": 3}
    one, three, eight = (answers_to(architecture, batch_size=b, **drawn) for b in (1, 3, 8))
    assert one == three == eight
    assert one == answers_to(architecture, batch_size=1, **drawn)
    texts = [answer.text for answer in one]
    assert texts[::2] != texts[1::2]
    assert all(texts[place] != texts[place + 1] for place in range(0, len(texts), 2))
    assert texts != [a.text for a in answers_to(architecture, batch_size=8, seed=1, **drawn)]


def test_greedy_answers_do_not_depend_on_the_batch() -> None:
    assert answers_to(batch_size=1) == answers_to(batch_size=3) == answers_to(batch_size=8)


def test_an_answers_draw_depends_on_its_place_and_not_on_the_others() -> None:
    opened, wanted = tiny_opened(), settings(temperature=1.0)
    few = answer_questions(opened, encoded_questions(opened, QUESTIONS[:3], wanted), wanted)[0]
    assert few == answers_to(temperature=1.0)[:3]


def test_several_answers_need_a_temperature() -> None:
    with pytest.raises(UserError) as error:
        answers_to(num_answers=2)
    assert str(error.value) == (
        "generate.num_answers: the most likely answer is always the same; "
        "set generate.temperature above 0 to get several"
    )


def test_nothing_asked_is_nothing_answered() -> None:
    answers, statistics = answer_questions(tiny_opened(), [], settings())
    assert answers == []
    assert (statistics.num_prompts, statistics.num_tokens, statistics.share_ended) == (0, 0, 0.0)


def test_the_statistics_are_sums_and_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three questions, two answers each, in batches of four: written beforehand."""
    loop, plain = (7,) * 16, tuple(range(10, 20))
    made: list[tuple[tuple[int, ...], Stopped, float]] = [
        (loop, "length", 0.5),
        (plain, "end", 0.5),
        (plain[:4], "end", 0.25),
        ((), "end", 0.25),
        (plain, "stop text", 1.0),
        (loop[:9], "length", 0.5),
    ]
    asked: list[int] = []

    def decode_each(_: Any, rows: Sequence[Any], *__: Any, **___: Any) -> Any:
        asked.append(len(rows))
        # Finished in another order than asked.
        return [(place, AnswerIds(*made[place])) for place in (3, 0, 5, 1, 2, 4)]

    clock = iter([10.0, 14.0])
    monkeypatch.setattr("honing.generation.answer.decode_each", decode_each)
    monkeypatch.setattr(
        "honing.generation.answer.time", SimpleNamespace(perf_counter=lambda: next(clock))
    )
    questions = [
        Tokens("a", (5,) * 9, (-100,) * 9),
        Tokens("b", (5,) * 3, (-100,) * 3, num_cut=4),
        Tokens("c", (5,) * 6, (-100,) * 6, num_cut=1),
    ]
    counted: list[None] = []
    wanted = settings(temperature=1.0, num_answers=2, batch_size=4)
    answers, statistics = answer_questions(
        tiny_opened(), questions, wanted, lambda: counted.append(None)
    )
    assert asked == [6]
    # The shortest question was asked first: b, c, a.
    assert [(a.question_id, a.num_tokens) for a in answers] == [
        *(("a", 10), ("a", 9)),
        *(("b", 16), ("b", 10)),
        *(("c", 4), ("c", 0)),
    ]
    assert len(counted) == 6
    assert statistics.to_record() == {
        "num_prompts": 3,
        "num_answers": 6,
        "num_tokens": 49,
        "num_cut_prompts": 2,
        "seconds": 4.0,
        "tokens_per_s": 12.25,
        "seconds_to_first": 0.5,
        "share_ended": 50.0,
        "repetition": pytest.approx((100 * 8 / 9 + 50.0) / 6),
    }


# --- prompts that are too long


def test_a_prompt_leaves_room_for_the_answer() -> None:
    opened = tiny_opened(context_length=100)
    long = "가나다라마바사" * 20
    whole = encoded_questions(tiny_opened(context_length=None), [long], settings())[0]
    assert len(whole.ids) > 300
    (cut,) = encoded_questions(opened, [long], settings(max_new_tokens=30))
    assert len(cut.ids) == 70
    assert cut.num_cut == len(whole.ids) - 70
    head, tail = ids_of("### Instruction:\n"), ids_of("\n\n### Response:\n")
    assert list(cut.ids[: len(head)]) == head
    assert cut.ids[len(head) :] == whole.ids[-(70 - len(head)) :]
    assert list(cut.ids[-len(tail) :]) == tail


def test_a_long_answer_leaves_half_of_the_context_to_the_prompt() -> None:
    opened = tiny_opened(context_length=100)
    (cut,) = encoded_questions(opened, ["가나다라마바사" * 20], settings(max_new_tokens=300))
    assert len(cut.ids) == 50
    ((answer,), statistics) = answer_questions(opened, [cut], settings(max_new_tokens=300))
    assert answer.num_tokens <= 50
    assert statistics.num_cut_prompts == 1


def test_the_input_is_cut_before_the_instruction() -> None:
    opened = tiny_opened(context_length=120)
    example = Example("q", (Exchange("요약해", "", "가나다라마바사" * 20),))
    (cut,) = encode_for_answering(opened, [example], settings(max_new_tokens=20))
    assert decode(cut.ids).startswith("### Instruction:\n요약해\n\n### Input:\n")
    assert len(cut.ids) == 100


def test_a_prompt_of_which_nothing_can_be_cut_is_refused() -> None:
    opened = tiny_opened(context_length=40)
    example = replace(ask("물은?")[0], system="당신은 아주 친절한 사람입니다. " * 5)
    with pytest.raises(UserError) as error:
        encode_for_answering(opened, [example], settings(max_new_tokens=10))
    fixed = len(
        encode_for_answering(tiny_opened(context_length=None), [example], settings())[0].ids
    )
    fixed -= len(ids_of("물은?"))
    assert str(error.value) == (
        f"q:1: the prompt needs {fixed} tokens, and the model's context of 40 leaves 30; lower "
        "generate.max_new_tokens"
    )


def conversation(num_turns: int, template: str = "instruction") -> Example:
    past = tuple(Exchange(f"질문 {n}", f"대답 {n} " + "가" * 10) for n in range(num_turns))
    return Example("chat", (*past, Exchange("지금은?", "")))


@pytest.mark.parametrize("template", ["instruction", "chat", "koalpaca-v1.1"])
def test_a_chat_loses_its_oldest_turns_first(template: str) -> None:
    opened = tiny_opened(template=template, context_length=200)
    whole = tiny_opened(template=template, context_length=None)
    example = conversation(8)
    wanted = settings(max_new_tokens=20)
    (cut,) = encode_for_answering(opened, [example], wanted)
    forms = [encode_for_answering(whole, [example], wanted)[0]]
    while len(example.exchanges) > 1:
        example = example.without_oldest_exchange()
        forms.append(encode_for_answering(whole, [example], wanted)[0])
    kept = next(form for form in forms if len(form.ids) <= 180)
    assert cut.ids == kept.ids
    assert cut.num_cut == len(forms[0].ids) - len(kept.ids) > 0
    assert "질문 7" in decode(cut.ids)
    assert "질문 0" not in decode(cut.ids)


def test_a_chat_whose_last_question_alone_is_too_long_is_cut_on_the_left() -> None:
    opened = tiny_opened(context_length=100)
    example = conversation(2)
    last = Exchange("가나다라마바사" * 20, "")
    example = replace(example, exchanges=(*example.exchanges[:-1], last))
    (cut,) = encode_for_answering(opened, [example], settings(max_new_tokens=30))
    assert len(cut.ids) == 70
    assert decode(cut.ids).startswith("### Instruction:\n")
    assert "질문" not in decode(cut.ids)
    (whole,) = encode_for_answering(
        tiny_opened(context_length=None), [example], settings(max_new_tokens=30)
    )
    assert cut.num_cut == len(whole.ids) - 70


def test_a_chat_that_fits_is_not_touched() -> None:
    (found,) = encode_for_answering(tiny_opened(), [conversation(2)], settings())
    assert found.num_cut == 0
    assert decode(found.ids).count("### Instruction:") == 3
