"""Matrix products with frozen weights, a LoRA adapter's two thin ones joined to them.

The plain form is PEFT's: y = x·Wᵀ + b + scale · dropout(x)·Aᵀ·Bᵀ, an operation at a time. Here
forward and backward of one layer are one function each, which keeps x, a byte an element for the
dropout and the product with A, adds inside the large product, and scales the thin ones.

On a CPU the large products go through oneDNN, in float32 10 to 15 % faster than the BLAS that
torch.nn.Linear takes (AMD Zen 3); other types and devices take torch's own.

On a base in bfloat16 all products are in bfloat16, as under autocast, with sums in float32 inside;
A and B themselves stay float32, and learn in it. PEFT converts x to float32 there instead.
"""

from __future__ import annotations

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


def frozen_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x·weightᵀ + bias, neither of which learns. x: (…, K) → (…, M)."""
    made: Tensor = _FrozenProduct.apply(_lines(x), weight, bias)  # type: ignore[no-untyped-call]
    return made.view(*x.shape[:-1], -1)


def adapted_product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    scale: float,
    rate: float,
) -> Tensor:
    """x·weightᵀ + bias + scale · dropout(x)·Aᵀ·Bᵀ (Hu et al. 2021), of which A and B learn.

    x: (…, K); weight: (M, K); A: (r, K); B: (M, r). rate: of the dropout, 0 for none. A and B may
    be wider than the rest, which are of one type; what they get as gradients is then as wide.
    """
    made: Tensor = _AdaptedProduct.apply(  # type: ignore[no-untyped-call]
        _lines(x), weight, bias, A, B, scale, rate
    )
    return made.view(*x.shape[:-1], -1)  # a view that is made inside, no caller may change


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, lines: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return product(lines, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return product(upstream[0], weight.t()), None, None


class _AdaptedProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        lines: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        A: Tensor,
        B: Tensor,
        scale: float,
        rate: float,
    ) -> Tensor:
        mask = None
        if rate > 0.0:
            mask = keep_mask(lines.numel(), rate, lines.device).view_as(lines)
        ctx.scale = scale / (1.0 - rate)
        ctx.wide = B.dtype
        A, B = A.to(lines.dtype), (B * ctx.scale).to(lines.dtype)
        thin = _masked(lines, mask) @ A.t()  # oneDNN's sums of a few columns round more
        ctx.save_for_backward(lines, weight, A, B, thin, mask)
        return product(lines, weight, bias, add=product(thin, B))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        lines, weight, A, scaled_B, thin, mask = ctx.saved_tensors
        (gradient,) = upstream
        to_thin = product(gradient, scaled_B.t())
        grad_A = product(to_thin.t(), _masked(lines, mask).t())
        grad_B = product(
            thin.t(), gradient.t()
        ).t()  # as gradientᵀ·thin it would take thrice as long
        grad_x = None
        if ctx.needs_input_grad[0]:
            low = product(to_thin, A.t())
            if mask is not None:
                low = masked(low, mask)
            grad_x = product(gradient, weight.t(), add=low)
        grad_A, grad_B = grad_A.to(ctx.wide), grad_B.to(ctx.wide).mul(ctx.scale)
        return grad_x, None, None, grad_A, grad_B, None, None


def _lines(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _masked(lines: Tensor, mask: Tensor | None) -> Tensor:
    return lines if mask is None else masked(lines, mask)
