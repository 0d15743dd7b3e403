"""Question ids → answer ids: one batch, token by token, with the library's cache and attention.

Rows are padded on the left, with position ids that count from each row's first token; a row that
is finished leaves the batch. Greedy answers are those of each question alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from honing.config import GenerateConfig
from honing.errors import UserError
from honing.generation.sampling import choose, forbid, penalise_repetition
from honing.model.forward import plain_model
from honing.model.load import Model

Stopped = Literal["end", "stop text", "length"]


@dataclass(frozen=True)
class AnswerIds:
    """Ids of an answer, without the end token, and why it stopped.

    seconds_to_first: from the start of the batch to its first tokens.
    """

    ids: tuple[int, ...]
    stopped: Stopped
    seconds_to_first: float


@dataclass(frozen=True)
class Ends:
    """What ends an answer: ids, and a test of the ids so far for stop texts."""

    ids: tuple[int, ...]
    is_stop_text: Callable[[Sequence[int]], bool] | None = None


@dataclass
class _Row:
    """A question, and its answer on the way."""

    question: Sequence[int]
    generator: torch.Generator
    answer: list[int] = field(default_factory=list)
    stopped: Stopped = "length"


@torch.no_grad()
def decode_batch(
    model: Model,
    questions: Sequence[Sequence[int]],
    settings: GenerateConfig,
    ends: Ends,
    seeds: Sequence[int],
    *,
    context_length: int | None = None,
    on_token: Callable[[int, int], None] = lambda row, token: None,
) -> list[AnswerIds]:
    """Answer each question. seeds: one a row. on_token(row, id) is called for each new token.

    An answer ends at an end id, at a stop text, at max_new_tokens, or where the context is full.
    """
    started = time.perf_counter()
    seconds_to_first = 0.0  # the same for all rows, which get their first token together
    causal_model = plain_model(model)
    causal_model.eval()
    device = causal_model.device
    rows = [
        _Row(q, torch.Generator().manual_seed(s)) for q, s in zip(questions, seeds, strict=True)
    ]
    active = list(range(len(rows)))
    input_ids, mask = _pad_left(questions, device)
    cache = DynamicCache(config=causal_model.config)
    while active:
        output = causal_model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=_positions(mask)[:, -input_ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = output.logits[:, -1].float()
        _check_numbers(logits, causal_model.dtype)
        computed = [rows[place] for place in active]
        logits = _allowed(logits, computed, settings, ends)
        chosen = choose(logits, settings, [row.generator for row in computed])
        tokens = chosen.tolist()
        seconds_to_first = seconds_to_first or time.perf_counter() - started
        for place, token in zip(active, tokens, strict=True):
            if token not in ends.ids:
                rows[place].answer.append(token)
                on_token(place, token)
        kept = [
            number
            for number, (row, token) in enumerate(zip(computed, tokens, strict=True))
            if _goes_on(row, token, settings, ends, context_length)
        ]
        active = [active[number] for number in kept]
        if active:
            input_ids, mask = chosen[kept, None], mask[kept]
            mask = torch.cat([mask, mask.new_ones(len(kept), 1)], dim=1)
        if active and len(kept) < len(computed):
            cache.batch_select_indices(torch.tensor(kept, device=device))
    return [AnswerIds(tuple(row.answer), row.stopped, seconds_to_first) for row in rows]


def _allowed(logits: Tensor, rows: Sequence[_Row], settings: GenerateConfig, ends: Ends) -> Tensor:
    """Logits after the penalty, without an end where it would be too early."""
    if settings.repetition_penalty != 1.0:
        seen = [torch.tensor([*row.question, *row.answer], device=logits.device) for row in rows]
        logits = penalise_repetition(logits, seen, settings.repetition_penalty)
    if len(rows[0].answer) < settings.min_new_tokens:  # all have the same number
        logits = forbid(logits, ends.ids)
    return logits


def _goes_on(
    row: _Row, token: int, settings: GenerateConfig, ends: Ends, context_length: int | None
) -> bool:
    """Whether an answer goes on after its newest token; if not, why is noted."""
    if token in ends.ids:
        row.stopped = "end"
    elif ends.is_stop_text is not None and ends.is_stop_text(row.answer):
        row.stopped = "stop text"
    else:
        room = settings.max_new_tokens
        if context_length is not None:
            room = min(room, context_length - len(row.question))
        return len(row.answer) < room
    return False


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


def _pad_left(questions: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """input_ids and attention mask, both (B, T)."""
    T = max(len(ids) for ids in questions)
    input_ids = torch.zeros(len(questions), T, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(questions):
        input_ids[row, T - len(ids) :] = torch.tensor(ids)
        mask[row, T - len(ids) :] = 1
    return input_ids.to(device), mask.to(device)


def _positions(mask: Tensor) -> Tensor:
    """Position ids that count from each row's first token; padding gets 0."""
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)
