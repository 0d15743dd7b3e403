"""Settings that are `auto` → values, each with its reason.

They depend on configuration and machine alone, never on a timing or on the memory that happens to
be free, so that a run that is resumed finds the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from honing.config import Config
from honing.errors import UserError
from honing.model.four_bit import is_in_4bit, num_bytes
from honing.model.load import Model

ACTIVATION_SHARE = 0.5
"""Share of the device's memory that activations may take before they are recomputed instead."""

PROGRAM_BYTES = 450_000_000
"""Python, torch and transformers, before any weight."""

LEFT_BETWEEN = 1.8
"""Memory that activations occupy on a CPU for each byte of them: what lies between is not given
back (glibc, measured on SmolLM2)."""

GATED_ACTIVATIONS = ("silu", "swish", "gelu_pytorch_tanh", "gelu_new")
"""Of the blocks whose gated part takes a fast form."""

PADDED_TOKENS = 1024
"""Tokens of a padded micro-batch, counted at max_length."""


@dataclass(frozen=True)
class Plan:
    """The configuration with every `auto` of the training resolved, and why."""

    config: Config
    reasons: tuple[str, ...]


def plan_training(
    config: Config,
    model: Model,
    *,
    device: str,
    dtype: str,
    packing_works: bool,
    packed_row_tokens: int,
    memory_bytes: int,
) -> Plan:
    """Resolve device, dtype, packing, micro-batch and gradient checkpointing.

    packing_works: this model can keep a row's examples apart (checked on real rows).
    packed_row_tokens: the longest row that packing makes.
    """
    train, reasons = config.train, []
    packing = train.packing
    if packing == "auto":
        packing = packing_works
        reasons.append(
            "packing: on, no padding is computed"
            if packing
            else "packing: off, this architecture cannot keep the examples of a row apart"
        )
    elif packing and not packing_works:
        raise UserError(
            "train.packing: true, but on this base a packed row does not have the loss of its "
            "examples alone; set train.packing=auto"
        )
    micro = train.micro_batch_size
    if micro == "auto":
        most = train.global_batch_size
        micro = most if packing else max(1, min(most, PADDED_TOKENS // config.data.max_length))
        reasons.append(f"micro_batch_size: {micro}")
    checkpointing = train.gradient_checkpointing
    if checkpointing == "auto":
        num_tokens = packed_row_tokens if packing else config.data.max_length * int(micro)
        needed = activation_bytes(model, num_tokens, fast_forms=train.fast_forms)
        checkpointing, reason = _checkpointing(
            train.memory_limit, needed, memory_bytes, model, device
        )
        reasons.append(reason)
    resolved = train.model_copy(
        update={
            "packing": packing,
            "micro_batch_size": micro,
            "gradient_checkpointing": checkpointing,
        }
    )
    return Plan(
        config.model_copy(
            update={
                "device": device,
                "model": config.model.model_copy(update={"dtype": dtype}),
                "train": resolved,
            }
        ),
        tuple(reasons),
    )


def _checkpointing(
    limit: float | None, needed: int, memory_bytes: int, model: Model, device: str
) -> tuple[bool, str]:
    """Whether activations are computed again, and why. limit: in GB; needed: in bytes."""
    is_on = needed > ACTIVATION_SHARE * memory_bytes
    if limit is not None:
        memory_bytes = round(limit * 1e9)
        needed = round(needed * (LEFT_BETWEEN if device == "cpu" else 1.0))
        is_on = needed > memory_bytes - resident_bytes(model, device)
    return is_on, (
        f"gradient_checkpointing: {'on' if is_on else 'off'}, activations take about "
        f"{needed / 1e9:.1f} of {memory_bytes / 1e9:.3g} GB"
    )


def resident_bytes(model: Model, device: str) -> int:
    """Memory that a training takes before its first forward pass."""
    weights = sum(num_bytes(p) for p in model.parameters())
    return weights + (PROGRAM_BYTES if device == "cpu" else 0)


def activation_bytes(model: Model, num_tokens: int, *, fast_forms: bool = True) -> int:
    """Memory of what a forward pass keeps for the way back, roughly.

    A block keeps about 12 vectors of the hidden size and 4 of the inner size for each token, with
    fast_forms on a CPU about 10 and 2.5 where it is gated, with DoRA 30 and 8 (measured on GPT-2,
    SmolLM2 and, for DoRA, a small Llama, with adapters on all layers). With fast_forms they are as
    wide as the base; PEFT's own adapters work in float32 whatever the base.
    """
    config = model.config.get_text_config()
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    has_dora = any("lora_magnitude_vector" in name for name, _ in model.named_parameters())
    is_fast = fast_forms and model.device.type == "cpu"
    is_fast = is_fast and not (has_dora or is_in_4bit(model))  # whose products take no fast form
    is_gated = any(name.endswith(".gate_proj") for name, _ in model.named_modules())
    is_gated = is_gated and getattr(config, "hidden_act", None) in GATED_ACTIVATIONS
    of_hidden, of_inner = (10, 2.5) if is_fast and is_gated else (30, 8) if has_dora else (12, 4)
    vectors = of_hidden * hidden + of_inner * (inner or 4 * hidden)
    width = 2 if is_fast and model.dtype == torch.bfloat16 else 4
    return int(config.num_hidden_layers * vectors * num_tokens * width)
