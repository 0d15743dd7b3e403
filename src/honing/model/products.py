"""Matrix products with frozen weights, a LoRA adapter's two thin ones joined to them.

The plain form is PEFT's: y = x·Wᵀ + b + scale · dropout(x)·Aᵀ·Bᵀ, an operation at a time. Here
forward and backward of a layer, or of several that read the same x, are one function each, which
keeps x, a byte an element for the dropout and the products with A, adds inside the large products,
and scales the thin ones.

On a CPU the large products go through oneDNN, in float32 10 to 15 % faster than the BLAS that
torch.nn.Linear takes (AMD Zen 3); other types and devices take torch's own.

On a base in bfloat16 all products are in bfloat16, as under autocast, with sums in float32 inside;
A and B themselves stay float32, and learn in it. PEFT converts x to float32 there instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from honing.model.dropout import keep_mask, masked


def product(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, add: Tensor | None = None
) -> Tensor:
    """x·weightᵀ + bias + add. x: (N, K); weight: (M, K) of any strides; bias: (M,); add: (N, M)."""
    learns = torch.is_grad_enabled() and x.requires_grad  # oneDNN's functions have no derivative
    if x.device.type == "cpu" and not learns and _has_onednn(x.dtype):
        onednn = torch.ops.mkldnn._linear_pointwise
        found: Tensor
        if add is None:
            found = onednn(x, weight, bias, "none", [], "")
        else:
            found = onednn.binary(x, add, weight, bias, "add")
        return found
    found = x @ weight.t() if add is None else torch.addmm(add, x, weight.t())
    return found if bias is None else found.add_(bias)


@cache
def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether the functions of oneDNN, which torch does not promise to keep, do what is wanted."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x, weight, bias = (torch.ones(*shape, dtype=dtype) for shape in ((2, 3), (4, 3), (4,)))
    try:
        onednn = torch.ops.mkldnn._linear_pointwise
        alone = onednn(x, weight, bias, "none", [], "")
        added = onednn.binary(x, alone, weight, None, "add")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((alone == 4.0).all() and (added == 7.0).all())


@dataclass(frozen=True)
class Adapter:
    """scale · dropout(x)·Aᵀ·Bᵀ (Hu et al. 2021), which learns. A: (r, K); B: (M, r)."""

    A: Tensor
    B: Tensor
    scale: float


@dataclass(frozen=True)
class Layer:
    """x·weightᵀ + bias, which are frozen, and what the adapter adds. weight: (M, K); bias: (M,).

    A and B may be wider than the rest, which are of one type; their gradients are then as wide.
    """

    weight: Tensor
    bias: Tensor | None
    adapter: Adapter | None = None


Kept = tuple[Tensor | None, Tensor | None, Tensor | None]
"""For the way back: what was multiplied (N, K), its products with all A (N, Σr), and the dropout's
mask; None where there is none, or nothing that needs it."""


def layer_product(x: Tensor, layer: Layer, rate: float) -> Tensor:
    """What the layer makes of x. x: (…, K) → (…, M). rate: of the dropout, 0 for none."""
    lines = x.reshape(-1, x.shape[-1])
    made: Tensor = _LayerProduct.apply(lines, layer, rate, *matrices_of((layer,)))  # type: ignore[no-untyped-call]
    return made.view(*x.shape[:-1], -1)  # a view that is made inside, no caller may change


def matrices_of(layers: Sequence[Layer]) -> list[Tensor]:
    """A and B of each adapter: what multiply_back gives gradients for, in its order."""
    return [matrix for layer in layers if (own := layer.adapter) for matrix in (own.A, own.B)]


class _LayerProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, lines: Tensor, layer: Layer, rate: float, *_: Tensor) -> Tensor:
        (made,), kept = multiply(lines, (layer,), rate)
        ctx.layer, ctx.rate = layer, rate
        ctx.save_for_backward(*kept)
        return made

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        kept, needs_input = ctx.saved_tensors, ctx.needs_input_grad[0]
        back, learnt = multiply_back(upstream, (ctx.layer,), ctx.rate, kept, needs_input)
        return back, None, None, *learnt


def multiply(
    lines: Tensor, layers: Sequence[Layer], rate: float
) -> tuple[tuple[Tensor, ...], Kept]:
    """What each layer makes of the same lines (N, K), and what multiply_back wants to be kept.

    rate: of the dropout, 0 for none; the layers share its draw. Their products with A are one, and
    what they give back is summed inside the products.
    """
    adapters = [layer.adapter for layer in layers if layer.adapter]
    if not adapters:
        made = [product(lines, layer.weight, layer.bias) for layer in layers]
        return tuple(made), (None, None, None)
    mask = None
    if rate > 0.0:
        mask = keep_mask(lines.numel(), rate, lines.device).view_as(lines)
    # By torch: oneDNN's sums of a few columns round more.
    thin = _masked(lines, mask) @ _joined_A(adapters, lines.dtype).t()
    own = iter(torch.split_with_sizes(thin, _ranks(adapters), dim=1))
    made = []
    for layer in layers:
        add = None
        if layer.adapter:
            add = product(next(own), _scaled_B(layer.adapter, rate, lines.dtype))
        made.append(product(lines, layer.weight, layer.bias, add))
    return tuple(made), (lines, thin, mask)


def multiply_back(
    upstream: Sequence[Tensor],
    layers: Sequence[Layer],
    rate: float,
    kept: Kept,
    needs_input: bool = True,
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients for what was multiplied, None where not needed, and for matrices_of(layers)."""
    lines, thin, mask = kept
    back: Tensor | None = None
    learnt: list[Tensor] = []
    if lines is not None and thin is not None:
        adapted = [
            (layer.adapter, gradient)
            for layer, gradient in zip(layers, upstream, strict=True)
            if layer.adapter
        ]
        to_thin, learnt = _learn(adapted, rate, lines, thin, mask)
        if needs_input:
            A = _joined_A([adapter for adapter, _ in adapted], lines.dtype)
            back = product(to_thin, A.t())
            back = back if mask is None else masked(back, mask)
    if needs_input:
        for gradient, layer in zip(upstream, layers, strict=True):
            back = product(gradient, layer.weight.t(), add=back)
    return back, learnt


def _learn(
    adapted: Sequence[tuple[Adapter, Tensor]],
    rate: float,
    lines: Tensor,
    thin: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """Gradients for thin (N, Σr), and for A and B of each adapter, beside which stands the
    gradient of what its layer made (N, M)."""
    adapters = [adapter for adapter, _ in adapted]
    ranks = _ranks(adapters)
    to_thin, for_B = [], []
    thins = torch.split_with_sizes(thin, ranks, dim=1)
    for (adapter, gradient), own in zip(adapted, thins, strict=True):
        to_thin.append(product(gradient, _scaled_B(adapter, rate, lines.dtype).t()))
        turned = product(own.t(), gradient.t())  # gradientᵀ·own would take thrice as long
        for_B.append(turned.t().to(adapter.B.dtype).mul_(_scale(adapter, rate)))
    joined = to_thin[0] if len(to_thin) == 1 else torch.cat(to_thin, dim=1)
    # By torch: oneDNN's sums over all lines round half as much again.
    for_all = (joined.t() @ _masked(lines, mask)).to(adapters[0].A.dtype)
    for_A = torch.split_with_sizes(for_all, ranks)
    return joined, [matrix for pair in zip(for_A, for_B, strict=True) for matrix in pair]


def _joined_A(adapters: Sequence[Adapter], dtype: torch.dtype) -> Tensor:
    """(Σr, K)."""
    matrices = [adapter.A.to(dtype) for adapter in adapters]
    return matrices[0] if len(matrices) == 1 else torch.cat(matrices)


def _scaled_B(adapter: Adapter, rate: float, dtype: torch.dtype) -> Tensor:
    return (adapter.B * _scale(adapter, rate)).to(dtype)


def _scale(adapter: Adapter, rate: float) -> float:
    """With that of what dropout leaves."""
    return adapter.scale / (1.0 - rate)


def _ranks(adapters: Sequence[Adapter]) -> list[int]:
    return [len(adapter.A) for adapter in adapters]


def _masked(lines: Tensor, mask: Tensor | None) -> Tensor:
    return lines if mask is None else masked(lines, mask)
