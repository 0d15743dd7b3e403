"""Weights laid out for oneDNN beforehand, while a model answers.

A step of an answer multiplies a few lines with every weight of the model. The time goes into
bringing the weights from memory, and a copy in blocks is read faster than rows: of 4 to 32 lines,
products took 0.5 to 0.75 of the time of torch.nn.Linear's (one thread, AMD Zen 3; as much in
bfloat16 on a processor with units for it). The copies take as much memory as the weights, so a
training, which has other uses for it, goes without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from honing.model.load import Model

USUAL_LINES = 32
"""Lines for which the copies are laid out; others are computed as well."""
NARROWEST = 64
"""Products that are thinner, an adapter's own, gain nothing."""
MEMORY_SHARE = 0.25
"""Of the memory that is free, what the copies may take."""


@contextmanager
def packed_products(model: Model) -> Iterator[int]:
    """Inside, products on a CPU that need no gradient use the copies; yields how many layers have
    one: none where they would not fit. The weights must not change meanwhile."""
    layers = [module for module in model.modules() if _is_large_product(module)]
    num_bytes = sum(layer.weight.nbytes for layer in layers)
    if not layers or num_bytes > MEMORY_SHARE * _free_bytes():
        yield 0
        return
    before = [layer.__dict__.get("forward") for layer in layers]
    for layer in layers:
        layer.forward = partial(_packed_forward, layer, layer.forward, pack(_rows_of(layer)))
    try:
        yield len(layers)
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own


def pack(weight: Tensor) -> Tensor:
    """A copy of weight (M, K) for packed_product; no other function of torch reads it."""
    copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), USUAL_LINES)
    return copy


def packed_product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """x·weightᵀ + bias. x: (…, K), of the weight's type; packed: of weight (M, K); (…, M)."""
    lines = x.reshape(-1, x.shape[-1])
    made: Tensor = torch.ops.mkldnn._linear_pointwise(lines, packed, bias, "none", [], "")
    return made.view(*x.shape[:-1], -1)


def _packed_forward(layer: Any, own: Any, packed: Tensor, x: Tensor) -> Tensor:
    if x.dtype != layer.weight.dtype or torch.is_grad_enabled():
        plain: Tensor = own(x)
        return plain
    return packed_product(x, packed, layer.bias)


def _is_large_product(module: nn.Module) -> bool:
    if type(module) not in (nn.Linear, Conv1D):
        return False
    weight: Any = module.weight
    is_large = weight.device.type == "cpu" and min(weight.shape) >= NARROWEST
    return is_large and _has_packed(weight.dtype)


def _rows_of(layer: Any) -> Tensor:
    """Its weight as (out, in), whichever way it is stored."""
    weight: Tensor = layer.weight.detach()
    return weight.t() if isinstance(layer, Conv1D) else weight


def _free_bytes() -> int:
    return int(psutil.virtual_memory().available)


@cache
def _has_packed(dtype: torch.dtype) -> bool:
    """Whether the functions of oneDNN, which torch does not promise to keep, do what is wanted."""
    near = {torch.float32: 1e-4, torch.bfloat16: 2.0**-7}.get(dtype)
    if near is None:
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x = torch.linspace(-1.0, 1.0, 3 * 96).view(3, 96).to(dtype)
    weight = torch.linspace(-1.0, 1.0, 64 * 96).view(64, 96).to(dtype)
    bias = torch.ones(64, dtype=dtype)
    try:
        found = packed_product(x, pack(weight), bias)
    except (AttributeError, RuntimeError, TypeError):
        return False
    exact = x.double() @ weight.double().t() + bias
    return bool((found - exact).norm() <= near * exact.norm())
