"""Tune a small language model with LoRA on your own rows, and see whether it got better.

The commands as functions, each imported when it is first used:

    from honing import Trainer, load_config, prepare, train, generate
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from honing.version import VERSION as __version__

if TYPE_CHECKING:
    from honing.config import Config as Config
    from honing.config_file import load_config as load_config
    from honing.generation.chat import chat as chat
    from honing.generation.generate import generate as generate
    from honing.preparation import prepare as prepare
    from honing.training.train import train as train
    from honing.training.trainer import Trainer as Trainer

_HOMES = {
    "Config": "honing.config",
    "load_config": "honing.config_file",
    "prepare": "honing.preparation",
    "train": "honing.training.train",
    "Trainer": "honing.training.trainer",
    "generate": "honing.generation.generate",
    "chat": "honing.generation.chat",
}

__all__ = [
    "Config",
    "Trainer",
    "__version__",
    "chat",
    "generate",
    "load_config",
    "prepare",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'honing' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
