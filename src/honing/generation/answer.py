"""Examples → answers: encode the questions, batch them by length, decode, and count."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from honing.config import GenerateConfig
from honing.data.encode import Tokens, encode_questions
from honing.data.example import Example
from honing.errors import UserError
from honing.generation.decode import AnswerIds, Ends, decode_batch
from honing.generation.open_model import OpenModel
from honing.generation.stream import whole_characters

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
    """Ids of the questions, cut on the left where they would leave no room for an answer."""
    context = opened.text.context_length or 1 << 30
    longest = max(context - settings.max_new_tokens, context // 2)
    prompts = [opened.text.to_prompt(example, "response") for example in examples]
    questions = []
    for question in encode_questions(prompts, opened.text.encoder, longest):
        if not isinstance(question, Tokens):
            raise UserError(
                f"{question.example_id}: the prompt needs {question.num_needed} tokens, and the "
                f"model's context of {context} leaves {longest}; lower generate.max_new_tokens"
            )
        questions.append(question)
    return questions


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
    jobs = [
        (index, number) for index in range(len(questions)) for number in range(settings.num_answers)
    ]
    jobs.sort(key=lambda job: (len(questions[job[0]].ids), job))
    done: dict[tuple[int, int], AnswerIds] = {}
    ends = stops(opened, settings)
    for start in range(0, len(jobs), settings.batch_size):
        batch = jobs[start : start + settings.batch_size]
        decoded = decode_batch(
            opened.model,
            [questions[index].ids for index, _ in batch],
            settings,
            ends,
            [answer_seed(settings.seed, index, number) for index, number in batch],
            context_length=opened.text.context_length,
        )
        done |= dict(zip(batch, decoded, strict=True))
        for _ in batch:
            on_answer()
    answers = [
        to_answer(opened, questions[index].example_id, number, done[index, number], settings)
        for index, number in sorted(jobs)
    ]
    seconds = time.perf_counter() - started
    first = [ids.seconds_to_first for ids in done.values()]
    return answers, _statistics(questions, answers, first, seconds)


def stops(opened: OpenModel, settings: GenerateConfig) -> Ends:
    """End ids of the model, and a test for the stop texts."""
    if not settings.stop:
        return Ends(opened.text.end_ids())
    longest = max(len(text.encode()) for text in settings.stop)

    def is_stop_text(ids: Sequence[int]) -> bool:
        # A token is at least one byte, so the text cannot have begun further back.
        tail = opened.text.decode(ids[-(longest + 8) :])
        return any(text in tail for text in settings.stop)

    return Ends(opened.text.end_ids(), is_stop_text)


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
