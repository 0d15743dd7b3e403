"""Isolated attention for packed rows: examples lie end to end, and none sees another.

The plain form is transformers' own: from position ids that start again it builds a (T, T) mask.
The fast form computes each example's attention apart, with no mask at all. It is registered with
transformers under a name and gets the examples' lengths through the model's keyword arguments,
which gradient checkpointing hands over again when it recomputes a block. Without lengths, in
generation and for padded batches, it is the library's own attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "honing_isolated"

_without_mask: ContextVar[bool] = ContextVar("_without_mask", default=False)


def isolated_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segment_lengths: tuple[int, ...] | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each segment of a packed row.

    query: (1, H, T, D); key, value: (1, H_kv, T, D); sum(segment_lengths) == T.
    Returns (1, T, H, D), as transformers' attention functions do.
    """
    if segment_lengths is None and softcap is None:
        options |= {"scaling": scaling, "sliding_window": sliding_window}
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return plain
    if query.device.type != "cpu":
        # Shared keys keep torch there from its faster functions, wherever there is a mask.
        key, value = _repeated(query, key, value)
    if segment_lengths is None:
        # The library's function for softcap wants masks of another form.
        mask = _causal(query, key) if attention_mask is None else attention_mask
        return _softcapped(query, key, value, mask, scaling, softcap).transpose(1, 2), None
    parts = [torch.split_with_sizes(x, segment_lengths, dim=2) for x in (query, key, value)]
    attended = [
        _attend(q, k, v, scaling, sliding_window, softcap).transpose(1, 2)
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(attended, dim=1), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """Causal attention over one example. query: (1, H, T, D); key, value: (1, H_kv, T, D)."""
    T = query.shape[2]
    grouped = key.shape[1] < query.shape[1]
    windowed = sliding_window is not None and sliding_window < T
    if softcap is None and not windowed:
        grouped_or_narrow = grouped or query.dtype == torch.bfloat16
        if grouped_or_narrow and query.requires_grad and _suit_flash(query, key, value):
            made: Tensor = _FlashAttention.apply(query, key, value, scaling)  # type: ignore[no-untyped-call]
            return made
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped
        )
    mask = _causal(query, key)
    if windowed:
        # A query sees sliding_window keys, its own among them, as in transformers' masks.
        mask &= torch.ones_like(mask).triu(1 - sliding_window)  # type: ignore[operator]
    if softcap is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=grouped
        )
    return _softcapped(query, key, value, mask, scaling, softcap)


def _suit_flash(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """torch's own function would look for this itself; the ones below do not."""
    of_one_size = query.shape[-1] == key.shape[-1] == value.shape[-1]
    side_by_side = all(x.stride(-1) == 1 for x in (query, key, value))
    return of_one_size and side_by_side and _has_flash(query.device)


def _repeated(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values for each head of the query, where heads share them."""
    groups = query.shape[1] // key.shape[1]
    if groups == 1:
        return key, value
    return key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)


class _FlashAttention(torch.autograd.Function):
    """Causal attention on a CPU by torch's own functions, otherwise on the way back alone.

    Keys and values that heads share are repeated there and not before, so that each is kept once;
    torch would deal these few, not the heads, to the threads. bfloat16 becomes float32 there:
    torch's own way back takes 1.2 to 2.5 times as long for examples of 25 to 200 tokens, and
    rounds more.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        out, sums = _flash()(query, key, value, 0.0, True, scale=scaling)
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.scaling = scaling
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        *numbers, sums = ctx.saved_tensors
        gradient, query, key, value, out = (_widened(x) for x in (upstream[0], *numbers))
        groups = query.shape[1] // key.shape[1]
        repeated = _repeated(query, key, value)
        gradients = _flash_backward()(
            gradient, query, *repeated, out, sums, 0.0, True, scale=ctx.scaling
        )
        to_query, *to_shared = gradients
        if groups > 1:
            to_shared = [x.unflatten(1, (-1, groups)).sum(2) for x in to_shared]
        return *(x.to(upstream[0].dtype) for x in (to_query, *to_shared)), None


def _widened(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


def _flash() -> Any:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _flash_backward() -> Any:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@cache
def _has_flash(device: torch.device) -> bool:
    """Whether the functions above, which torch does not promise to keep, do what is wanted."""
    if device.type != "cpu":
        return False
    x = torch.tensor([[[[1.0, 2.0], [3.0, 1.0], [0.0, 1.0]]]])
    query = torch.cat([x, x.flip(3)], dim=1)  # two heads that share keys and values
    key = x.clone().requires_grad_()
    # The first call may lie inside a checkpointed block, which must not count what is kept here.
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept):
        repeated = key.repeat_interleave(2, dim=1)
        plain = scaled_dot_product_attention(query, repeated, repeated, is_causal=True)
        (expected,) = torch.autograd.grad(plain.sum(), key)
    repeated = repeated.detach()
    try:
        out, sums = _flash()(query, x, x, 0.0, True, scale=None)
        numbers = (torch.ones_like(query), query, repeated, repeated, out, sums)
        _, to_key, to_value = _flash_backward()(*numbers, 0.0, True, scale=None)
    except (AttributeError, RuntimeError, TypeError):
        return False
    found = (to_key + to_value).sum(1, keepdim=True)
    return torch.allclose(out, plain) and torch.allclose(found, expected, atol=1e-6)


def _causal(query: Tensor, key: Tensor) -> Tensor:
    """(T, S) bool: the last query sees every key, each one before it a key less."""
    T, S = query.shape[2], key.shape[2]
    return torch.ones(T, S, dtype=torch.bool, device=query.device).tril(S - T)


def _softcapped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    """Gemma 2: scores are squashed before the softmax, which the fused functions cannot do.

    mask: bool, True where a key is seen.
    """
    key, value = _repeated(query, key, value)
    scores = query @ key.transpose(-2, -1) * (scaling or query.shape[-1] ** -0.5)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    # Not -inf: a query in padding may see no key at all, and would be NaN.
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    wide = torch.promote_types(scores.dtype, torch.float32)
    return torch.softmax(scores, dim=-1, dtype=wide).to(value.dtype) @ value


def _mask(*arguments: Any, **options: Any) -> Tensor | None:
    mask: Tensor | None = None if _without_mask.get() else sdpa_mask(*arguments, **options)
    return mask


AttentionInterface.register(NAME, isolated_attention)
AttentionMaskInterface.register(NAME, _mask)


@contextmanager
def no_mask() -> Iterator[None]:
    """Inside, no mask is built: for a forward pass over a packed row with its lengths."""
    token = _without_mask.set(True)
    try:
        yield
    finally:
        _without_mask.reset(token)
