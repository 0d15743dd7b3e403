"""Hidden states and labels → (sum_nats, num_tokens). The shift by one happens here alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from honing.data.encode import IGNORE
from honing.model.forward import Head, LinearHead
from honing.model.products import product

CHUNK_TOKENS = 256
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
        if isinstance(head, LinearHead):
            loss, gradient = _linear_loss(states, targets, head, states.requires_grad)
        else:
            loss, gradient = _any_loss(states, targets, head, states.requires_grad)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0], None, None


def _linear_loss(
    states: Tensor, targets: Tensor, head: LinearHead, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Loss and its gradient for the states, with the logits as the only tensor of their size.

    With e = exp(logits - max) and s = Σe, the loss is log s + max - logit of the target, and its
    gradient factor · (e·W / s - W[target]): no probability is ever written down.
    """
    logits = _wide(head(states))
    picked = logits.gather(1, targets[:, None])
    highest = logits.amax(dim=1, keepdim=True)
    exponentials = logits.sub_(highest).exp_()
    sums = exponentials.sum(dim=1, keepdim=True)
    loss = (sums.log() + highest - picked).sum()
    if not with_gradient:
        return loss, None
    gradient = product(exponentials.to(states.dtype), head.weight.t()) / sums
    gradient -= head.weight[targets]
    return loss, gradient.mul_(head.factor).to(states.dtype)


def _any_loss(
    states: Tensor, targets: Tensor, head: Head, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    if not with_gradient:
        return cross_entropy(_wide(head(states)), targets, reduction="sum"), None
    with torch.enable_grad():
        leaf = states.detach().requires_grad_()
        loss = cross_entropy(_wide(head(leaf)), targets, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _chunk_loss(states: Tensor, targets: Tensor, head: Head) -> Tensor:
    loss: Tensor = _ChunkLoss.apply(states, targets, head)  # type: ignore[no-untyped-call]
    return loss
