"""Model and encoded rows → each row's loss in nats, summed in float64.

Token-weighted, so the figure is the same for any batch size: means of means are not (see
transformers#39241). Bits per character stand beside perplexity, since tokens of two tokenizers are
no common unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from honing.data.encode import IGNORE, Tokens
from honing.data.pack import padded_batch
from honing.model.forward import Head, head_of, hidden_states, plain_model
from honing.model.load import Model

CHUNK_TOKENS = 256
"""Supervised positions whose logits exist at once: at most V × 256 float64 numbers."""


@dataclass(frozen=True)
class RowLoss:
    """Loss of one row's supervised tokens: the response's and its end's."""

    sum_nats: float
    num_tokens: int


@torch.no_grad()
def row_losses(
    model: Model,
    rows: Sequence[Tokens],
    *,
    batch_size: int,
    on_row: Callable[[], object] = lambda: None,
) -> list[RowLoss]:
    """The loss of each row, in the order of the rows; rows of like length share a batch.

    Padding stands on the right, where causal attention cannot see it.
    """
    head = head_of(model)
    order = sorted(range(len(rows)), key=lambda place: (-len(rows[place].ids), place))
    losses: dict[int, RowLoss] = {}
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        batch = [rows[place] for place in places]
        losses |= dict(zip(places, _batch_losses(model, batch, head), strict=True))
        for _ in places:
            on_row()
    return [losses[place] for place in range(len(rows))]


def _batch_losses(model: Model, rows: Sequence[Tokens], head: Head) -> list[RowLoss]:
    device = plain_model(model).device
    batch = padded_batch(rows)
    labels = torch.from_numpy(batch.labels).to(device)[:, 1:]
    states = hidden_states(
        model,
        torch.from_numpy(batch.input_ids).to(device),
        torch.from_numpy(batch.position_ids).to(device),
        torch.from_numpy(batch.attention_mask).to(device),
        None,
    )[:, :-1]
    supervised = labels != IGNORE
    nats = _token_nats(states[supervised], labels[supervised], head)
    row_of_token = supervised.nonzero()[:, 0]
    sums = torch.zeros(len(rows), dtype=torch.float64)
    sums.index_add_(0, row_of_token.cpu(), nats)
    counts = supervised.sum(dim=1).tolist()
    return [RowLoss(total, count) for total, count in zip(sums.tolist(), counts, strict=True)]


def _token_nats(states: Tensor, targets: Tensor, head: Head) -> Tensor:
    """(N,) -log p of each target in float64. states: (N, H); targets: (N,)."""
    nats = []
    for start in range(0, len(targets), CHUNK_TOKENS):
        logits = _wide(head(states[start : start + CHUNK_TOKENS]))
        wanted = targets[start : start + CHUNK_TOKENS].to(logits.device)[:, None]
        nats.append(logits.logsumexp(dim=-1) - logits.gather(-1, wanted)[:, 0])
    return torch.cat(nats).cpu() if nats else torch.zeros(0, dtype=torch.float64)


def _wide(logits: Tensor) -> Tensor:
    """float64; an Apple GPU knows no such type, so its logits go to the CPU."""
    return logits.cpu().double() if logits.device.type == "mps" else logits.double()
