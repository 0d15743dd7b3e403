"""adapter_config.json and the names of an adapter's tensors, from anyone → PEFT's settings.

PEFT believes that file: it imports a module that megatron_core names, matches layers by regular
expressions that may take for ever, copies layers as layer_replication says, and makes matrices of
whatever rank it is told. Here the tensors themselves say which layers are adapted and in what
rank, numbers are looked at, and what honing does not need is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft

from honing.files import read_json

_LAYER = re.compile(r"base_model\.model\.(.+)\.lora_(embedding_)?([AB])(\.weight)?")
_IGNORED = frozenset(
    {
        *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path"),
        *("revision", "inference_mode", "target_modules", "exclude_modules", "rank_pattern"),
        *("layers_to_transform", "layers_pattern", "lora_dropout", "runtime_config"),
        "megatron_core",
    }
)
"""What the tensors say better, and what means nothing to an adapter that is only read."""
_STARTS = re.compile(r"(pissa(_niter_[0-9]{1,2})?|olora)")
"""Initialisations that belong to the adapter, as they take something out of the base."""
_ANY_START = ("gaussian", "orthogonal", "eva", "corda", "lora_ga")
"""Initialisations that loading the tensors undoes."""


class Unfit(Exception):
    """The settings are none that honing loads; the message says why."""


def adapter_settings(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """PEFT's settings for an adapter with tensors of these names and shapes.

    Raises Unfit; OSError and ValueError where the file cannot be read.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise ValueError(f"{path.name} is no record")
    kind = record.get("peft_type")
    if kind != "LORA":
        raise Unfit(f"holds an adapter of type {str(kind)[:40]}; honing reads LoRA adapters")
    if not isinstance(record.get("target_modules"), str):
        _names(record.get("target_modules"), "target_modules")
    ranks = _ranks(shapes)
    rank, _ = Counter(ranks.values()).most_common(1)[0]
    _check_rank(record, set(ranks.values()))
    settings: dict[str, Any] = {
        "r": rank,
        "rank_pattern": {re.escape(name): own for name, own in ranks.items() if own != rank},
        "target_modules": list(ranks),
        "lora_alpha": _number(record.get("lora_alpha", 8), "lora_alpha"),
        "alpha_pattern": _alphas(record.get("alpha_pattern") or {}),
        "init_lora_weights": _start(record.get("init_lora_weights", True)),
        "modules_to_save": _names(record.get("modules_to_save"), "modules_to_save"),
        "bias": _one_of(record.get("bias", "none"), "bias", ("none", "all", "lora_only")),
        "task_type": "CAUSAL_LM",
    }
    for key in ("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias"):
        settings[key] = _one_of(record.get(key, False), key, (False, True))
    usual = vars(peft.LoraConfig())
    for key, value in record.items():
        if key in settings or key in _IGNORED or not value or value == usual.get(key):
            continue
        raise Unfit(f"{path.name} sets {key}, which honing does not load")
    return peft.LoraConfig(**settings)


def _ranks(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Layer → its rank: lora_A is (rank, in), lora_B (out, rank)."""
    ranks: dict[str, int] = {}
    for name, shape in shapes.items():
        found = _LAYER.fullmatch(name)
        if found is not None and len(shape) == 2:
            layer, rank = found[1], shape[0] if found[3] == "A" else shape[1]
            ranks[layer] = min(ranks.get(layer, rank), rank)
    if not ranks or min(ranks.values()) < 1:
        raise Unfit("its tensors are none of a LoRA adapter")
    return ranks


def _check_rank(record: Mapping[str, Any], found: set[int]) -> None:
    rank = record.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool):
        raise Unfit(f"r is {json.dumps(rank)[:40]}; expected a whole number")
    if not record.get("rank_pattern") and found != {rank}:
        raise Unfit(f"r is {rank}, and its tensors have another rank")


def _alphas(pattern: Any) -> dict[str, float]:
    """Keys are regular expressions to PEFT; plain names alone are taken."""
    if not isinstance(pattern, dict) or not all(re.fullmatch(r"\^?[\w.]+", k) for k in pattern):
        raise Unfit("alpha_pattern holds more than names of layers, which honing does not load")
    return {
        "^" * name.startswith("^") + re.escape(name.lstrip("^")): _number(value, "alpha_pattern")
        for name, value in pattern.items()
    }


def _start(value: Any) -> bool | str:
    if isinstance(value, str) and _STARTS.fullmatch(value):
        return value
    if value is None or isinstance(value, bool) or value in _ANY_START:
        return True
    raise Unfit(f"init_lora_weights is {json.dumps(value)[:40]}, which honing does not load")


def _number(value: Any, key: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -1e9 < value < 1e9 or not math.isfinite(value):
        raise Unfit(f"{key} is {json.dumps(value)[:40]}; expected a number")
    return float(value) if isinstance(value, float) else value


def _one_of(value: Any, key: str, allowed: tuple[Any, ...]) -> Any:
    if not any(value is known or value == known for known in allowed if type(value) is type(known)):
        raise Unfit(f"{key} is {json.dumps(value)[:40]}; expected one of {allowed}")
    return value


def _names(value: Any, key: str) -> list[str] | None:
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise Unfit(f"{key} is {json.dumps(value)[:40]}; expected names of layers")
    return value
