"""Question ids → answer ids: a batch, one by one, and transformers' own way are one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from honing.data.template import choose_template, render
from honing.errors import UserError
from honing.generation.decode import AnswerIds, Ends, decode_batch
from honing.model.forward import use_isolated_attention
from tests.generation.asking import EOS, QUESTIONS, ids_of, settings
from tests.tiny import ARCHITECTURES, adapted_model, example, tiny_model

architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
NOTHING_ENDS = Ends(())


@functools.cache
def questions() -> list[list[int]]:
    """Ids of prompts of different lengths."""
    template = choose_template("instruction", None)
    return [ids_of(render(example(q, ""), template, "response").text) for q in QUESTIONS]


def answer(model: Any, rows: Sequence[Sequence[int]], ends: Ends, **wanted: Any) -> list[AnswerIds]:
    limit = wanted.pop("context_length", None)
    seeds = range(len(rows))
    return decode_batch(model, rows, settings(**wanted), ends, seeds, context_length=limit)


def ids(answers: Sequence[AnswerIds]) -> list[list[int]]:
    return [list(answer.ids) for answer in answers]


def reference(model: Any, row: Sequence[int], ends: Sequence[int], **options: Any) -> list[int]:
    """transformers' own greedy answer to one question alone, without its end token."""
    given = torch.tensor([row])
    with torch.no_grad():
        (made,) = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            eos_token_id=list(ends) or None,
            pad_token_id=EOS,
            **{"max_new_tokens": 12, **options},
        )
    new: list[int] = made[len(row) :].tolist()
    return new[:-1] if new[-1] in ends else new


@functools.cache
def model_of(architecture: str) -> Any:
    """In float64: two tokens are never equally likely."""
    model = tiny_model(architecture, torch.float64)
    model.generation_config.eos_token_id = None
    return model


@functools.cache
def unending(architecture: str) -> list[list[int]]:
    """Twelve tokens to each question, which nothing ends, by transformers alone."""
    return [reference(model_of(architecture), row, ()) for row in questions()]


def some_token(architecture: str) -> int:
    """A token that most answers have, none at the same place as all others."""
    rows = unending(architecture)
    found = max(sorted({i for row in rows for i in row}), key=lambda i: sum(i in r for r in rows))
    assert len({row.index(found) if found in row else -1 for row in rows}) > 1
    return found


def test_the_questions_have_different_lengths() -> None:
    lengths = [len(row) for row in questions()]
    assert len(set(lengths)) > 5
    assert max(lengths) - min(lengths) > 20


# --- greedy


@architectures
def test_a_batch_is_one_by_one_is_transformers(architecture: str) -> None:
    model = model_of(architecture)
    together = answer(model, questions(), NOTHING_ENDS)
    assert ids(together) == unending(architecture)
    assert {found.stopped for found in together} == {"length"}
    for row, whole in zip(questions(), together, strict=True):
        (alone,) = answer(model, [row], NOTHING_ENDS)
        assert alone.ids == whole.ids


@architectures
def test_an_end_id_ends_an_answer_and_is_no_part_of_it(architecture: str) -> None:
    model, end = model_of(architecture), some_token(architecture)
    found = answer(model, questions(), Ends((end, 319)))
    assert ids(found) == [reference(model, row, (end, 319)) for row in questions()]
    for row, whole in zip(found, unending(architecture), strict=True):
        ended = end in whole or 319 in whole
        assert row.stopped == ("end" if ended else "length")
        assert end not in row.ids
    assert len({len(row.ids) for row in found}) > 1


@architectures
def test_no_answer_ends_before_min_new_tokens(architecture: str) -> None:
    model, end = model_of(architecture), some_token(architecture)
    found = answer(model, questions(), Ends((end,)), min_new_tokens=7)
    assert ids(found) == [reference(model, row, (end,), min_new_tokens=7) for row in questions()]
    assert min(len(row.ids) for row in found) >= 7


@architectures
def test_the_penalty_is_transformers_on_each_question_alone(architecture: str) -> None:
    model = model_of(architecture)
    found = answer(model, questions(), NOTHING_ENDS, repetition_penalty=1.4)
    expected = [reference(model, row, (), repetition_penalty=1.4) for row in questions()]
    assert ids(found) == expected
    assert expected != unending(architecture)


@architectures
def test_in_float32_a_batch_has_the_answers_of_float64(architecture: str) -> None:
    """Where no two tokens are so near that the rounding of a sum decides."""
    clear = [row for row in questions() if smallest_lead(architecture, row) > 1e-3]
    assert len(clear) >= len(questions()) // 2
    model = tiny_model(architecture, torch.float32)
    expected = [reference(model_of(architecture), row, ()) for row in clear]
    assert ids(answer(model, clear, NOTHING_ENDS)) == expected


def smallest_lead(architecture: str, row: Sequence[int]) -> float:
    """By how much the best token leads the next one, where it leads least."""
    model = model_of(architecture)
    whole = torch.tensor([[*row, *reference(model, row, ())]])
    with torch.no_grad():
        best = model(whole).logits[0, len(row) - 1 : -1].topk(2, dim=-1).values
    return float((best[:, 0] - best[:, 1]).min())


@pytest.mark.parametrize("architecture", ["gpt2", "gemma"])
def test_a_tuned_model_answers_with_its_adapters(architecture: str) -> None:
    model = adapted_model(architecture, torch.float64)
    model.get_base_model().generation_config.eos_token_id = None
    found = ids(answer(model, questions(), NOTHING_ENDS))
    assert found == [reference(model.get_base_model(), row, ()) for row in questions()]
    assert found != unending(architecture)


@architectures
def test_a_model_in_training_answers_as_it_will_afterwards(architecture: str) -> None:
    model = tiny_model(architecture, torch.float64)
    use_isolated_attention(model)
    model.train()
    assert ids(answer(model, questions(), NOTHING_ENDS)) == unending(architecture)
    assert not model.training


# --- where an answer ends


def test_max_new_tokens_is_the_longest_answer() -> None:
    for longest in (1, 2, 5):
        found = answer(model_of("llama"), questions(), NOTHING_ENDS, max_new_tokens=longest)
        assert ids(found) == [row[:longest] for row in unending("llama")]


def test_an_answer_ends_where_the_context_is_full() -> None:
    rows = questions()
    longest = max(len(row) for row in rows)
    found = answer(model_of("llama"), rows, NOTHING_ENDS, context_length=longest + 4)
    room = [longest + 4 - len(row) for row in rows]
    assert ids(found) == [whole[:left] for whole, left in zip(unending("llama"), room, strict=True)]
    assert min(len(row.ids) for row in found) == 4
    assert {row.stopped for row in found} == {"length"}


def test_an_answer_ends_with_the_token_that_completes_a_stop_text() -> None:
    end = some_token("llama")
    ends = Ends((), is_stop_text=lambda ids: ids[-1] == end)
    found = answer(model_of("llama"), questions(), ends)
    for row, whole in zip(found, unending("llama"), strict=True):
        if end in whole:
            assert list(row.ids) == whole[: whole.index(end) + 1]
            assert row.stopped == "stop text"
        else:
            assert list(row.ids) == whole
            assert row.stopped == "length"
    assert "stop text" in {row.stopped for row in found}


def test_the_first_token_may_be_the_end() -> None:
    end = unending("gpt2")[0][0]
    (found,) = answer(model_of("gpt2"), questions()[:1], Ends((end,)))
    assert (found.ids, found.stopped) == ((), "end")
    assert found.seconds_to_first > 0.0


Shape = tuple[int, int, int]
"""Of one call of the model: rows, columns that it reads, columns with those before."""


def shapes_of(model: Any) -> list[Shape]:
    """The calls of the model from now on."""
    seen: list[Shape] = []

    def count(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        seen.append((*inputs["input_ids"].shape, inputs["attention_mask"].shape[1]))

    model.register_forward_pre_hook(count, with_kwargs=True)
    return seen


def test_finished_answers_are_not_computed_any_further() -> None:
    model, end = tiny_model("llama", torch.float64), some_token("llama")
    seen = shapes_of(model)
    found = answer(model, questions(), Ends((end,)))
    lengths = [len(row.ids) + (row.stopped == "end") for row in found]
    longest = max(len(row) for row in questions())
    active = [sum(length >= step for length in lengths) for step in range(1, max(lengths) + 1)]
    assert seen[0] == (len(found), longest, longest)
    assert [rows for rows, _, _ in seen] == active
    assert [width for _, width, _ in seen[1:]] == [1] * (len(seen) - 1)
    assert active[-1] < active[0]


# --- more questions than are answered at once


@architectures
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_questions_that_take_a_free_place_are_answered_as_alone(
    architecture: str, batch_size: int
) -> None:
    model = model_of(architecture)
    ends = Ends((some_token(architecture), 319))
    alone = [answer(model, [row], ends)[0].ids for row in questions()]
    assert len({len(found) for found in alone}) > 1, "some end before others"
    found = answer(model, questions(), ends, batch_size=batch_size)
    assert [row.ids for row in found] == alone


def planned(prompts: Sequence[int], lengths: Sequence[int], fills: bool) -> list[Shape]:
    """The calls for answers of these lengths, at most four at once, each place filled when free.

    Columns that are padding in all rows go when rows are put together.
    """
    shapes: list[Shape] = []
    waiting = list(zip(prompts, lengths, strict=True))
    rows: list[tuple[int, int]] = []  # tokens so far and tokens still to come
    columns = 0
    while waiting or rows:
        num_free = 4 - len(rows) if fills or not rows else 0
        begun, waiting = waiting[:num_free], waiting[num_free:]
        if begun:
            longest = max(prompt for prompt, _ in begun)
            shapes.append((len(begun), longest, longest))
            alone = not rows
            new = [(prompt + 1, length - 1) for prompt, length in begun if length > 1]
            rows += new
            if alone or new:
                columns = longest + 1 if alone else max(tokens for tokens, _ in rows)
        else:
            shapes.append((len(rows), 1, columns))
            rows = [(tokens + 1, left - 1) for tokens, left in rows if left > 1]
            columns += 1
    return shapes


@pytest.mark.parametrize(("architecture", "fills"), [("llama", True), ("gemma", False)])
def test_a_free_place_is_filled_at_once(architecture: str, fills: bool) -> None:
    """But for caches that do not keep all positions: Gemma's have sliding windows."""
    model, ends = tiny_model(architecture, torch.float64), Ends((some_token(architecture),))
    found = answer(model, questions(), ends)
    lengths = [len(row.ids) + (row.stopped == "end") for row in found]
    assert min(lengths) < max(lengths)
    seen = shapes_of(model)
    answer(model, questions(), ends, batch_size=4)
    assert seen == planned([len(row) for row in questions()], lengths, fills)


def test_drawn_answers_do_not_depend_on_free_places() -> None:
    model, ends = model_of("llama"), Ends(tuple(range(0, 320, 20)))
    wanted = {"temperature": 9.0, "repetition_penalty": 1.2, "min_new_tokens": 3}
    whole = answer(model, questions(), ends, **wanted)
    assert len({len(row.ids) for row in whole}) > 2
    assert ids(answer(model, questions(), ends, batch_size=3, **wanted)) == ids(whole)


# --- what else is told and refused


def test_each_new_token_is_told_as_it_comes() -> None:
    end = some_token("llama")
    told: list[tuple[int, int]] = []
    found = decode_batch(
        model_of("llama"),
        questions(),
        settings(),
        Ends((end,)),
        range(len(questions())),
        on_token=lambda row, token: told.append((row, token)),
    )
    steps = range(max(len(row.ids) for row in found))
    assert told == [
        (place, row.ids[step])
        for step in steps
        for place, row in enumerate(found)
        if step < len(row.ids)
    ]


def test_the_time_to_the_first_token_is_the_batchs() -> None:
    found = answer(model_of("llama"), questions(), NOTHING_ENDS)
    times = [row.seconds_to_first for row in found]
    assert 0.0 < times[0] <= times[-1]
    assert sorted(times) == times


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (
            torch.float16,
            "model.dtype: what this model computes in float16 is not a number; use "
            "model.dtype=float32",
        ),
        (
            torch.float32,
            "model: what it computes is not a number; its weights are damaged, or its training "
            "diverged: use another checkpoint",
        ),
    ],
    ids=str,
)
def test_what_is_not_a_number_is_no_answer(dtype: torch.dtype, message: str) -> None:
    model = tiny_model("llama", dtype)
    model.model.norm.weight.data.fill_(torch.nan)
    with pytest.raises(UserError) as error:
        answer(model, questions()[:2], NOTHING_ENDS)
    assert str(error.value) == message
