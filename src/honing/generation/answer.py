"""Examples → answers: encode the questions, batch them by length, decode, and count."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from honing.config import GenerateConfig
from honing.data.encode import Tokens, TooLong, encode_questions
from honing.data.example import Example
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.generation.decode import AnswerIds, Ends, decode_each
from honing.generation.open_model import OpenModel
from honing.generation.scripts import script_lock
from honing.generation.stream import whole_characters
from honing.model.forward import plain_model
from honing.model.load import Model

_NO_LIMIT = 1 << 30

REPETITION_TOKENS = 8
"""Length of the runs of tokens by which repetition is counted; under three Hangul syllables."""


@dataclass(frozen=True)
class Answer:
    """One answer. stopped: end (the model ended it), stop text, or length."""

    question_id: str
    number: int
    text: str
    num_tokens: int
    stopped: str
    repetition: float


@dataclass(frozen=True)
class Statistics:
    """Counts over a call. Shares are percentages; seconds_to_first is a mean over answers."""

    num_prompts: int
    num_answers: int
    num_tokens: int
    num_cut_prompts: int
    seconds: float
    tokens_per_s: float
    seconds_to_first: float
    share_ended: float
    repetition: float

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


def encode_for_answering(
    opened: OpenModel, examples: Sequence[Example], settings: GenerateConfig
) -> list[Tokens]:
    """Ids of the questions. Where one would leave no room for an answer, a chat loses its oldest
    turns, and what is too long even so is cut on the left: num_cut says by how many tokens."""
    context = opened.text.context_length or _NO_LIMIT
    longest = max(context - settings.max_new_tokens, context // 2)
    questions = []
    encoded = _encode(opened.text, examples, longest)
    for example, question in zip(examples, encoded, strict=True):
        if _is_cut(question) and len(example.exchanges) > 1:
            question = _without_oldest_turns(opened.text, example, longest)
        if not isinstance(question, Tokens):
            raise UserError(
                f"{question.example_id}: the prompt needs {question.num_needed} tokens, and the "
                f"model's context of {context} leaves {longest}; lower generate.max_new_tokens"
            )
        questions.append(question)
    return questions


def _encode(text: TextModel, examples: Sequence[Example], longest: int) -> list[Tokens | TooLong]:
    prompts = [text.to_prompt(example, "response") for example in examples]
    return encode_questions(prompts, text.encoder, longest)


def _is_cut(question: Tokens | TooLong) -> bool:
    return isinstance(question, TooLong) or question.num_cut > 0


def _without_oldest_turns(text: TextModel, example: Example, longest: int) -> Tokens | TooLong:
    (whole,) = _encode(text, [example], _NO_LIMIT)
    question: Tokens | TooLong = whole
    while len(example.exchanges) > 1:
        example = example.without_oldest_exchange()
        (question,) = _encode(text, [example], longest)
        if not _is_cut(question):
            break
    if isinstance(whole, Tokens) and isinstance(question, Tokens):
        return replace(question, num_cut=len(whole.ids) - len(question.ids))
    return question


def answer_questions(
    opened: OpenModel,
    questions: Sequence[Tokens],
    settings: GenerateConfig,
    on_answer: Callable[[], object] = lambda: None,
) -> tuple[list[Answer], Statistics]:
    """Answers in the order of the questions, num_answers to each.

    Questions of like length share a batch. The result does not depend on batch_size.
    """
    if settings.num_answers > 1 and settings.temperature == 0.0:
        raise UserError(
            "generate.num_answers: the most likely answer is always the same; "
            "set generate.temperature above 0 to get several"
        )
    started = time.perf_counter()
    done: dict[tuple[int, int], AnswerIds] = {}
    for job, ids in answer_each(opened, questions, settings):
        done[job] = ids
        on_answer()
    answers = [
        to_answer(opened, questions[index].example_id, number, done[index, number], settings)
        for index, number in sorted(done)
    ]
    seconds = time.perf_counter() - started
    first = [ids.seconds_to_first for ids in done.values()]
    return answers, _statistics(questions, answers, first, seconds)


def answer_each(
    opened: OpenModel, questions: Sequence[Tokens], settings: GenerateConfig
) -> Iterator[tuple[tuple[int, int], AnswerIds]]:
    """((place of the question, number of the answer), ids), each as soon as it is finished.

    Questions of like length are read together; one that is finished leaves its place to the next.
    """
    jobs = [
        (index, number) for index in range(len(questions)) for number in range(settings.num_answers)
    ]
    jobs.sort(key=lambda job: (len(questions[job[0]].ids), job))
    ends = stops(opened, settings)
    decoded = decode_each(
        opened.model,
        [questions[index].ids for index, _ in jobs],
        settings,
        ends,
        [answer_seed(settings.seed, index, number) for index, number in jobs],
        context_length=opened.text.context_length,
        lock=script_lock(opened.text, settings, ends.ids),
    )
    for place, ids in decoded:
        yield jobs[place], ids


def stops(opened: OpenModel, settings: GenerateConfig) -> Ends:
    """End ids of template, tokenizer and model, and a test for the stop texts."""
    ids = tuple(dict.fromkeys((*opened.text.end_ids(), *_own_end_ids(opened.model))))
    if not settings.stop:
        return Ends(ids)
    if "" in settings.stop:
        raise UserError("generate.stop: an empty text would end every answer; take it out")
    longest = max(len(text.encode()) for text in settings.stop)

    def is_stop_text(ids: Sequence[int]) -> bool:
        # A token is at least one byte, so the text cannot have begun further back.
        tail = opened.text.decode(ids[-(longest + 8) :])
        return any(text in tail for text in settings.stop)

    return Ends(ids, is_stop_text)


def _own_end_ids(model: Model) -> list[int]:
    """What the base itself ends with, where its tokenizer names another token: Qwen's base models
    end a text in <|endoftext|>, and their tokenizer names <|im_end|>."""
    ids = plain_model(model).generation_config.eos_token_id
    return [] if ids is None else list(ids) if isinstance(ids, list) else [ids]


def to_answer(
    opened: OpenModel, question_id: str, number: int, ids: AnswerIds, settings: GenerateConfig
) -> Answer:
    text = whole_characters(opened.text.decode(ids.ids))
    text = text.removeprefix(opened.text.template.answer_prefix)
    for stop in settings.stop:
        text = text.split(stop, 1)[0]
    return Answer(question_id, number, text, len(ids.ids), ids.stopped, repetition(ids.ids))


def answer_seed(seed: int, index: int, number: int) -> int:
    """A seed of its own for each answer, far from its neighbours'."""
    digest = hashlib.sha256(f"{seed}:{index}:{number}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def repetition(ids: Sequence[int]) -> float:
    """Share in % of an answer's 8-token runs that stood in it before; near 100 for a loop."""
    runs = [tuple(ids[i : i + REPETITION_TOKENS]) for i in range(len(ids) - REPETITION_TOKENS + 1)]
    return 100.0 * (1.0 - len(set(runs)) / len(runs)) if runs else 0.0


def _statistics(
    questions: Sequence[Tokens],
    answers: Sequence[Answer],
    seconds_to_first: Sequence[float],
    seconds: float,
) -> Statistics:
    number = max(1, len(answers))
    num_tokens = sum(answer.num_tokens for answer in answers)
    return Statistics(
        num_prompts=len(questions),
        num_answers=len(answers),
        num_tokens=num_tokens,
        num_cut_prompts=sum(question.num_cut > 0 for question in questions),
        seconds=seconds,
        tokens_per_s=num_tokens / seconds if seconds else 0.0,
        seconds_to_first=sum(seconds_to_first) / number,
        share_ended=100.0 * sum(answer.stopped == "end" for answer in answers) / number,
        repetition=sum(answer.repetition for answer in answers) / number,
    )
