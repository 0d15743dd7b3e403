"""Question ids → answer ids: one batch, token by token, with the library's cache and attention.

Rows are padded on the left, with position ids that count from each row's first token; a row that
is finished leaves the batch. Greedy answers are those of each question alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from honing.config import GenerateConfig
from honing.generation.sampling import choose, forbid, penalise_repetition
from honing.model.forward import plain_model
from honing.model.load import Model

Stopped = Literal["end", "stop text", "length"]


@dataclass(frozen=True)
class AnswerIds:
    """Ids of an answer, without the end token, and why it stopped.

    seconds_to_first: from the start of the batch to this answer's first token.
    """

    ids: tuple[int, ...]
    stopped: Stopped
    seconds_to_first: float


@dataclass(frozen=True)
class Ends:
    """What ends an answer: ids, and a test of the ids so far for stop texts."""

    ids: tuple[int, ...]
    is_stop_text: Callable[[Sequence[int]], bool] | None = None


@torch.no_grad()
def decode_batch(
    model: Model,
    questions: Sequence[Sequence[int]],
    settings: GenerateConfig,
    ends: Ends,
    seeds: Sequence[int],
    *,
    context_length: int | None = None,
    on_token: Callable[[int, int], None] | None = None,
) -> list[AnswerIds]:
    """Answer each question. seeds: one a row. on_token(row, id) is called for each new token.

    An answer ends at an end id, at a stop text, at max_new_tokens, or where the context is full.
    """
    started = time.perf_counter()
    causal_model = plain_model(model)
    causal_model.eval()
    device = causal_model.device
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    answers: list[list[int]] = [[] for _ in questions]
    stopped: list[Stopped] = ["length" for _ in questions]
    first_at = [0.0 for _ in questions]
    active = list(range(len(questions)))
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
        seen = [torch.tensor([*questions[row], *answers[row]], device=device) for row in active]
        logits = penalise_repetition(logits, seen, settings.repetition_penalty)
        if len(answers[active[0]]) < settings.min_new_tokens:
            logits = forbid(logits, ends.ids)
        chosen = choose(logits, settings, [generators[row] for row in active])
        kept: list[int] = []
        for place, (row, token) in enumerate(zip(active, chosen.tolist(), strict=True)):
            if not answers[row]:
                first_at[row] = time.perf_counter() - started
            if token in ends.ids:
                stopped[row] = "end"
                continue
            answers[row].append(token)
            if on_token is not None:
                on_token(row, token)
            if ends.is_stop_text is not None and ends.is_stop_text(answers[row]):
                stopped[row] = "stop text"
                continue
            full = len(questions[row]) + len(answers[row]) >= (context_length or 1 << 62)
            if len(answers[row]) < settings.max_new_tokens and not full:
                kept.append(place)
        if not kept:
            break
        active = [active[place] for place in kept]
        input_ids, mask = chosen[kept, None], mask[kept]
        if len(kept) < len(chosen):
            cache.batch_select_indices(torch.tensor(kept, device=device))
        mask = torch.cat([mask, mask.new_ones(len(kept), 1)], dim=1)
    return [
        AnswerIds(tuple(ids), why, seconds)
        for ids, why, seconds in zip(answers, stopped, first_at, strict=True)
    ]


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
