"""Question ids → answer ids: many rows at once, token by token, the library's cache and attention.

Rows are padded on the left, with position ids that count from each row's first token. A row that is
finished leaves its place to the next question. Greedy answers are those of each question alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from honing.config import GenerateConfig
from honing.errors import UserError
from honing.generation.sampling import choose, forbid, penalise_repetition
from honing.generation.scripts import ScriptLock
from honing.model.forward import plain_model
from honing.model.load import Model

Stopped = Literal["end", "stop text", "length"]


@dataclass(frozen=True)
class AnswerIds:
    """Ids of an answer, without the end token, and why it stopped.

    seconds_to_first: from the reading of the question to its first token.
    """

    ids: tuple[int, ...]
    stopped: Stopped
    seconds_to_first: float


@dataclass(frozen=True)
class Ends:
    """What ends an answer: ids, and a test of the ids so far for stop texts."""

    ids: tuple[int, ...]
    is_stop_text: Callable[[Sequence[int]], bool] | None = None


@dataclass(frozen=True)
class _Wanted:
    """How to answer, and what to tell of it."""

    settings: GenerateConfig
    ends: Ends
    context_length: int | None
    lock: ScriptLock | None
    on_token: Callable[[int, int], None]


@dataclass
class _Row:
    """A question, and its answer on the way."""

    place: int
    question: Sequence[int]
    generator: torch.Generator
    answer: list[int] = field(default_factory=list)
    stopped: Stopped = "length"
    seconds_to_first: float = 0.0
    unfinished: bytes = b""  # the character that the answer stands in; kept for a lock alone


@dataclass
class _Batch:
    """Rows that are computed together.

    input_ids: (B, N), what the model reads next. mask: (B, T + N), for T positions in the cache.
    """

    rows: list[_Row]
    input_ids: Tensor
    mask: Tensor
    cache: DynamicCache


def decode_batch(
    model: Model,
    questions: Sequence[Sequence[int]],
    settings: GenerateConfig,
    ends: Ends,
    seeds: Sequence[int],
    **options: Any,
) -> list[AnswerIds]:
    """The answers of decode_each in the order of the questions."""
    answers = dict(decode_each(model, questions, settings, ends, seeds, **options))
    return [answers[place] for place in range(len(questions))]


def decode_each(
    model: Model,
    questions: Sequence[Sequence[int]],
    settings: GenerateConfig,
    ends: Ends,
    seeds: Sequence[int],
    *,
    context_length: int | None = None,
    lock: ScriptLock | None = None,
    on_token: Callable[[int, int], None] = lambda place, token: None,
) -> Iterator[tuple[int, AnswerIds]]:
    """(place of the question, answer), each as soon as it is finished.

    Questions are read in their order, at most batch_size at once. seeds: one a question.
    on_token(place, id) is called for each new token. An answer ends at an end id, at a stop text,
    at max_new_tokens, or where the context is full.
    """
    wanted = _Wanted(settings, ends, context_length, lock, on_token)
    causal_model = plain_model(model)
    causal_model.eval()
    waiting = [
        _Row(place, question, torch.Generator().manual_seed(seed))
        for place, (question, seed) in enumerate(zip(questions, seeds, strict=True))
    ]
    batch: _Batch | None = None
    while waiting or batch is not None:
        num_free = settings.batch_size - (0 if batch is None else len(batch.rows))
        if batch is None or (waiting and _takes_more(batch, num_free, settings.batch_size)):
            begun, waiting = waiting[:num_free], waiting[num_free:]
            started = time.perf_counter()
            new = _begin(causal_model, begun)
            finished = _step(causal_model, new, wanted)
            for row in begun:
                row.seconds_to_first = time.perf_counter() - started
            batch = _join(batch, new)
        else:
            finished = _step(causal_model, batch, wanted)
        batch = batch if batch.rows else None
        for row in finished:
            yield row.place, AnswerIds(tuple(row.answer), row.stopped, row.seconds_to_first)


def _takes_more(batch: _Batch, num_free: int, batch_size: int) -> bool:
    """Whether to read more questions now: several at once, for each reading costs a step's time.

    Caches of sliding windows or linear attention are no plain keys and values of all positions;
    they are not put together, and their batches are computed to the end.
    """
    plain = all(type(layer) is DynamicLayer for layer in batch.cache.layers)
    return plain and num_free >= max(1, batch_size // 4)


def _begin(model: Model, rows: list[_Row]) -> _Batch:
    questions = [row.question for row in rows]
    T = max(len(ids) for ids in questions)
    input_ids = torch.zeros(len(questions), T, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for number, ids in enumerate(questions):
        input_ids[number, T - len(ids) :] = torch.tensor(ids)
        mask[number, T - len(ids) :] = 1
    cache = DynamicCache(config=model.config)
    return _Batch(list(rows), input_ids.to(model.device), mask.to(model.device), cache)


def _step(model: Model, batch: _Batch, wanted: _Wanted) -> list[_Row]:
    """One more token for each row. Rows that are finished leave the batch and are returned."""
    logits = _allowed(_next_logits(model, batch), batch.rows, wanted)
    chosen = choose(logits, wanted.settings, [row.generator for row in batch.rows])
    kept, finished = [], []
    for number, (row, token) in enumerate(zip(batch.rows, chosen.tolist(), strict=True)):
        if token not in wanted.ends.ids:
            row.answer.append(token)
            wanted.on_token(row.place, token)
        if _goes_on(row, token, wanted):
            kept.append(number)
        else:
            finished.append(row)
    batch.input_ids = chosen[:, None]
    batch.mask = pad(batch.mask, (0, 1), value=1)
    if finished:
        _keep(batch, kept)
    return finished


@torch.no_grad()
def _next_logits(model: Model, batch: _Batch) -> Tensor:
    """(B, V) in float32."""
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.mask,
        position_ids=_positions(batch.mask)[:, -batch.input_ids.shape[1] :],
        past_key_values=batch.cache,
        use_cache=True,
        # As an index: of a slice of states, PyTorch would multiply each row by itself.
        logits_to_keep=torch.tensor([-1], device=batch.mask.device),
    )
    logits: Tensor = output.logits[:, -1].float()
    _check_numbers(logits, model.dtype)
    return logits


def _allowed(logits: Tensor, rows: Sequence[_Row], wanted: _Wanted) -> Tensor:
    """Logits after the penalty, without other scripts, nor an end where it would be too early."""
    settings = wanted.settings
    if settings.repetition_penalty != 1.0:
        seen = [[*row.question, *row.answer] for row in rows]
        logits = penalise_repetition(logits, seen, settings.repetition_penalty)
    if wanted.lock is not None:
        logits = wanted.lock.mask(logits, [row.unfinished for row in rows])
    early = [n for n, row in enumerate(rows) if len(row.answer) < settings.min_new_tokens]
    return forbid(logits, early, wanted.ends.ids) if early else logits


def _goes_on(row: _Row, token: int, wanted: _Wanted) -> bool:
    """Whether an answer goes on after its newest token; if not, why is noted."""
    if token in wanted.ends.ids:
        row.stopped = "end"
        return False
    if wanted.ends.is_stop_text is not None and wanted.ends.is_stop_text(row.answer):
        row.stopped = "stop text"
        return False
    if wanted.lock is not None:
        row.unfinished = wanted.lock.follow(row.unfinished, token) or b""
    room = wanted.settings.max_new_tokens
    if wanted.context_length is not None:
        room = min(room, wanted.context_length - len(row.question))
    return len(row.answer) < room


def _keep(batch: _Batch, numbers: list[int]) -> None:
    batch.rows = [batch.rows[number] for number in numbers]
    batch.input_ids, batch.mask = batch.input_ids[numbers], batch.mask[numbers]
    if numbers:
        batch.cache.batch_select_indices(torch.tensor(numbers, device=batch.mask.device))


def _join(batch: _Batch | None, new: _Batch) -> _Batch:
    """One batch of the rows of two, of which all have been read and have one token to go on from.

    Columns that are padding in every row are left out.
    """
    if batch is None or not new.rows:
        return batch or new
    T = max(int(part.mask.sum(dim=1).max()) for part in (batch, new))
    for layer, other in zip(batch.cache.layers, new.cache.layers, strict=True):
        layer.keys = _joined(layer.keys, other.keys, T - 1)
        layer.values = _joined(layer.values, other.values, T - 1)
    return _Batch(
        [*batch.rows, *new.rows],
        torch.cat([batch.input_ids, new.input_ids]),
        _joined(batch.mask[..., None], new.mask[..., None], T).squeeze(-1),
        batch.cache,
    )


def _joined(a: Tensor, b: Tensor, T: int) -> Tensor:
    """Rows of a, then of b: (B, ..., T, D), padded or cut on the left of dimension T."""
    return torch.cat([pad(part, (0, 0, T - part.shape[-2], 0)) for part in (a, b)])


def _check_numbers(logits: Tensor, dtype: torch.dtype) -> None:
    """Half precision overflows in some models, and the most likely of no numbers is nonsense."""
    if not bool(logits.isnan().any()):
        return
    if dtype == torch.float32:
        raise UserError(
            "model: what it computes is not a number; its weights are damaged, or its training "
            "diverged: use another checkpoint"
        )
    name = str(dtype).removeprefix("torch.")
    raise UserError(
        f"model.dtype: what this model computes in {name} is not a number; use model.dtype=float32"
    )


def _positions(mask: Tensor) -> Tensor:
    """Position ids that count from each row's first token; padding gets 0."""
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)
