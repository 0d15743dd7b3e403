"""The gated part of a block, down(act(gate(x)) · up(x)) (Shazeer 2020), as one function.

It keeps x, gate(x) and up(x); what lies between, of the inner size each, is computed again on the
way back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from honing.model.products import Layer, matrices_of, multiply, multiply_back


@dataclass(frozen=True)
class Activation:
    """back: gradient of the result, and what was given → gradient of what was given."""

    forward: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]


def _silu_back(gradient: Tensor, x: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.silu_backward(gradient, x)
    return found


def _tanh_gelu(x: Tensor) -> Tensor:
    return gelu(x, approximate="tanh")


def _tanh_gelu_back(gradient: Tensor, x: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.gelu_backward(gradient, x, approximate="tanh")
    return found


SILU = Activation(silu, _silu_back)
TANH_GELU = Activation(_tanh_gelu, _tanh_gelu_back)


@dataclass(frozen=True)
class Gated:
    gate: Layer
    up: Layer
    down: Layer
    activation: Activation
    rate: float
    """Of the adapters' dropout, 0 for none."""


def gated_product(x: Tensor, part: Gated) -> Tensor:
    """down(act(gate(x)) · up(x)). x: (…, H) → (…, H)."""
    lines = x.reshape(-1, x.shape[-1])
    learning = matrices_of((part.gate, part.up, part.down))
    made: Tensor = _GatedProduct.apply(lines, part, *learning)  # type: ignore[no-untyped-call]
    return made.view_as(x)


class _GatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, lines: Tensor, part: Gated, *_: Tensor) -> Tensor:
        (gate, up), kept = multiply(lines, (part.gate, part.up), part.rate)
        inner = part.activation.forward(gate).mul_(up)
        (made,), (_inner, *kept_below) = multiply(inner, (part.down,), part.rate)
        ctx.part = part
        ctx.save_for_backward(gate, up, *kept, *kept_below)
        return made

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        part: Gated = ctx.part
        gate, up, lines, thin, mask, *kept_below = ctx.saved_tensors
        act = part.activation.forward(gate)
        inner = act * up if part.down.adapter else None
        to_inner, learnt_below = multiply_back(
            upstream, (part.down,), part.rate, (inner, *kept_below)
        )
        assert to_inner is not None
        del inner
        to_gate = part.activation.back(up.mul(to_inner), gate)
        to_up = act.mul_(to_inner)
        back, learnt = multiply_back(
            (to_gate, to_up),
            (part.gate, part.up),
            part.rate,
            (lines, thin, mask),
            ctx.needs_input_grad[0],
        )
        return back, None, *learnt, *learnt_below
