"""Settings that are `auto` → values, each with its reason.

They depend on configuration and machine alone, never on a timing or on the memory that happens to
be free, so that a run that is resumed finds the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from honing.config import Config, TrainConfig
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

SHORTEST_ROW = 256
"""Tokens of a packed row that takes less time than computing activations again (1.3 times that of
512 and 1.7 times, SmolLM2 in bfloat16)."""


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
    """Resolve device, dtype, packing and its rows, micro-batch and gradient checkpointing.

    packing_works: this model can keep a row's examples apart (checked on real rows).
    packed_row_tokens: of a packed row where memory is no matter.
    """
    train, reasons = config.train, []
    packing = train.packing
    if packing == "auto":
        packing = packing_works
        reasons.append(
            "packing: on, examples lie end to end"
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
    room = _room(train, model, device, memory_bytes)
    row_tokens, checkpointing = train.packed_row_tokens, train.gradient_checkpointing
    if row_tokens == "auto":
        row_tokens = packed_row_tokens
        if packing and checkpointing is not True:
            row_tokens = _row_that_fits(packed_row_tokens, config.data.max_length, room)
        if row_tokens < packed_row_tokens:
            reasons.append(f"packed_row_tokens: {row_tokens}, {packed_row_tokens} would not fit")
    if checkpointing == "auto":
        num_tokens = int(row_tokens) if packing else config.data.max_length * int(micro)
        checkpointing, reason = _checkpointing(num_tokens, room)
        reasons.append(reason)
    update = {
        "packing": packing,
        "packed_row_tokens": row_tokens,
        "micro_batch_size": micro,
        "gradient_checkpointing": checkpointing,
    }
    return Plan(_resolved(config, device, dtype, update), tuple(reasons))


def _resolved(config: Config, device: str, dtype: str, train: dict[str, Any]) -> Config:
    update = {
        "device": device,
        "model": config.model.model_copy(update={"dtype": dtype}),
        "train": config.train.model_copy(update=train),
    }
    return config.model_copy(update=update)


@dataclass(frozen=True)
class _Room:
    """For activations. memory_bytes: of the device, or the limit. free_bytes: what activations may
    take of it. bytes_per_token: what they take."""

    memory_bytes: int
    free_bytes: float
    bytes_per_token: float

    def needed_bytes(self, num_tokens: int) -> float:
        return self.bytes_per_token * num_tokens

    def holds(self, num_tokens: int) -> bool:
        return self.needed_bytes(num_tokens) <= self.free_bytes


def _room(train: TrainConfig, model: Model, device: str, memory_bytes: int) -> _Room:
    per_token = float(activation_bytes(model, 1, fast_forms=train.fast_forms))
    if train.memory_limit is None:
        return _Room(memory_bytes, ACTIVATION_SHARE * memory_bytes, per_token)
    limit = round(train.memory_limit * 1e9)
    between = LEFT_BETWEEN if device == "cpu" else 1.0
    return _Room(limit, limit - resident_bytes(model, device), per_token * between)


def _checkpointing(num_tokens: int, room: _Room) -> tuple[bool, str]:
    """Whether the activations of so many tokens are computed again, and why."""
    is_on = not room.holds(num_tokens)
    return is_on, (
        f"gradient_checkpointing: {'on' if is_on else 'off'}, activations take about "
        f"{room.needed_bytes(num_tokens) / 1e9:.1f} of {room.memory_bytes / 1e9:.3g} GB"
    )


def _row_that_fits(standard: int, max_length: int, room: _Room) -> int:
    """The standard row, or the longest half, quarter … of it for whose activations there is room;
    the standard where there is none for any: they are computed again then."""
    shortest = max(SHORTEST_ROW, max_length)
    rows = [standard // 2**n for n in range(8) if standard // 2**n >= shortest]
    return next((row for row in rows if room.holds(row)), standard)


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
