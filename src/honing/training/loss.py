"""Hidden states and labels → (sum_nats, num_tokens). The shift by one happens here alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from honing.data.encode import IGNORE
from honing.model.forward import Head

CHUNK_TOKENS = 512
"""Supervised positions whose logits exist at once."""


def response_loss(hidden: Tensor, labels: Tensor, head: Head) -> tuple[Tensor, int]:
    """Sum of the losses of supervised tokens in nats, and their number.

    hidden: (B, T, H) float, below the head. labels: (B, T) int, unshifted, IGNORE where a token
    is not supervised; the first label of every example is IGNORE, so packed rows need no care.
    Logits are computed at supervised positions alone, CHUNK_TOKENS at a time, in the type of the
    head and summed in float32 (float64 for a float64 model). The head must hold nothing trainable.
    """
    shifted = labels[:, 1:]
    supervised = shifted != IGNORE
    states, targets = hidden[:, :-1][supervised], shifted[supervised]
    sums = [
        _chunk_loss(
            states[start : start + CHUNK_TOKENS], targets[start : start + CHUNK_TOKENS], head
        )
        for start in range(0, len(targets), CHUNK_TOKENS)
    ]
    if not sums:
        return hidden.sum() * 0.0, 0
    return torch.stack(sums).sum(), len(targets)


class _ChunkLoss(torch.autograd.Function):
    """Cross entropy of one chunk. The gradient for the hidden states is made on the way forward,
    while the logits exist, so that no logits wait for the backward pass."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, targets: Tensor, head: Head) -> Tensor:
        if not states.requires_grad:
            return _summed_loss(states, targets, head)
        with torch.enable_grad():
            leaf = states.detach().requires_grad_()
            loss = _summed_loss(leaf, targets, head)
            (gradient,) = torch.autograd.grad(loss, leaf)
        ctx.save_for_backward(gradient)
        return loss.detach()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0], None, None


def _chunk_loss(states: Tensor, targets: Tensor, head: Head) -> Tensor:
    loss: Tensor = _ChunkLoss.apply(states, targets, head)  # type: ignore[no-untyped-call]
    return loss


def _summed_loss(states: Tensor, targets: Tensor, head: Head) -> Tensor:
    logits = head(states)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return cross_entropy(wide, targets, reduction="sum")
