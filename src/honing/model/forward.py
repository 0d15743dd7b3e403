"""Batch → hidden states and, where they are wanted, logits. The one way through the model.

Logits are computed only at supervised positions, a chunk at a time: for a vocabulary of 50,000
and a prompt three times the answer, most of a plain loss is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from honing.errors import UserError
from honing.model.attention import NAME as ISOLATED_ATTENTION
from honing.model.attention import no_mask
from honing.model.load import Model
from honing.model.products import product

Head = Callable[[Tensor], Tensor]
"""(N, H) hidden states → (N, V) logits."""


@dataclass(frozen=True)
class LinearHead:
    """Logits = factor · (states·weightᵀ + bias). weight: (V, H); bias: (V,)."""

    weight: Tensor
    bias: Tensor | None
    factor: float

    def __call__(self, states: Tensor) -> Tensor:
        logits = product(states, self.weight, self.bias)
        return logits if self.factor == 1.0 else logits * self.factor


def hidden_states(
    model: Model,
    input_ids: Tensor,
    position_ids: Tensor,
    attention_mask: Tensor | None,
    segment_lengths: tuple[int, ...] | None,
) -> Tensor:
    """Hidden states below the head.

    input_ids, position_ids, attention_mask: (B, T); attention_mask is None for a packed row,
    which has B = 1 and segment_lengths. Returns (B, T, H).
    """
    causal_model = plain_model(model)
    decoder = getattr(causal_model, causal_model.base_model_prefix)
    inputs: dict[str, Any] = {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "use_cache": False,
    }
    if segment_lengths is None:
        return _last(decoder(attention_mask=attention_mask, **inputs))
    with no_mask():
        return _last(decoder(segment_lengths=segment_lengths, **inputs))


def _last(output: Any) -> Tensor:
    states: Tensor = output.last_hidden_state
    return states


def head_of(model: Model) -> Head:
    """The output layer, with what some models put behind it: a factor, a squashing (Gemma 2)."""
    causal_model = plain_model(model)
    layer = causal_model.get_output_embeddings()
    config = causal_model.config.get_text_config()
    factor = _logit_factor(config)
    softcap = getattr(config, "final_logit_softcapping", None)
    if type(layer) is nn.Linear and softcap is None:
        return LinearHead(layer.weight, layer.bias, factor)

    def head(states: Tensor) -> Tensor:
        logits: Tensor = layer(states)
        if factor != 1.0:
            logits = logits * factor
        return logits if softcap is None else torch.tanh(logits / softcap) * softcap

    return head


def _logit_factor(config: Any) -> float:
    """One name means opposite things in two families, so the family decides."""
    if config.model_type.startswith("cohere"):
        return float(config.logit_scale)
    if config.model_type.startswith("granite"):
        return 1.0 / float(config.logits_scaling)
    if config.model_type.startswith("hyperclovax"):
        return float(config.logits_scaling)
    return 1.0


def use_isolated_attention(model: Model) -> None:
    """Give the model isolated attention, and compare this way through it with the model's own.

    Raises UserError where they differ on a few tokens: a model that does more to its scores or
    logits than is known here would train, and learn from a wrong loss.
    """
    causal_model = plain_model(model)
    before = causal_model.config._attn_implementation
    ids, positions = _few_tokens(causal_model)
    model.eval()
    with torch.no_grad():
        try:
            own = causal_model(input_ids=ids, position_ids=positions, use_cache=False).logits
            causal_model.set_attn_implementation(ISOLATED_ATTENTION)
            states = hidden_states(model, ids, positions, torch.ones_like(ids), None)
            differs = _differ(head_of(model)(states), own)
        except (TypeError, AttributeError):  # a model that takes none of this
            differs = True
    if differs:
        causal_model.set_attn_implementation(before)
        raise UserError(
            f"model.base: honing cannot train models of type {causal_model.config.model_type}: "
            "the loss that it computes would not be the model's own"
        )


def _few_tokens(causal_model: Model) -> tuple[Tensor, Tensor]:
    """Ids and positions: (1, 8) each."""
    positions = torch.arange(8, device=causal_model.device)[None, :]
    return (positions + 1) % causal_model.config.get_text_config().vocab_size, positions


def _differ(a: Tensor, b: Tensor) -> bool:
    """By far more than rounding in a 16-bit type explains."""
    return not bool((a.float() - b.float()).norm() <= 0.05 * b.float().norm())


def plain_model(model: Model) -> Model:
    """The transformers model itself, without PEFT's wrapper around it; adapters stay inside."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
