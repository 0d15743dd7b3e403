"""RMSNorm as one function that passes over its numbers few times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rms_norm(x: Tensor, factor: Tensor, epsilon: float) -> Tensor:
    """x / √(mean(x²) + epsilon) · factor (Zhang and Sennrich 2019); the factor does not learn.

    x: (…, H); factor: (H,), of the same type, which is not float16. Computed in float32 at least.
    """
    normed: Tensor = _RmsNorm.apply(x, factor, epsilon)  # type: ignore[no-untyped-call]
    return normed


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor, epsilon: float) -> Tensor:
        wide = _wide(x)
        squares = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        inverse = squares.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, factor, inverse)
        normed: Tensor = wide * inverse
        return normed.mul_(_wide(factor)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        x, factor, inverse = ctx.saved_tensors
        wide = _wide(x)
        scaled = _wide(upstream[0]) * _wide(factor)
        along = torch.linalg.vecdot(scaled, wide).unsqueeze(-1)
        along.mul_(inverse.pow(3)).div_(-x.shape[-1])
        return scaled.mul_(inverse).addcmul_(wide, along).to(x.dtype), None, None


def _wide(x: Tensor) -> Tensor:
    """Itself, but bfloat16 as float32: torch's own passes over bfloat16 with float32 beside it
    take six times as long on a CPU."""
    return x.float() if x.dtype == torch.bfloat16 else x
