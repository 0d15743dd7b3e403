"""What a base's config.json may ask for: no code, and no more memory than its weights explain.

A configuration is read by a library that builds whatever it says: a million layers, labels without
end, attention from a package on the Hub that is fetched and run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

MOST_CONFIG_BYTES = 5_000_000
MOST_LAYERS = 1000
MOST_LABELS = 100_000
MOST_WEIGHTS_PER_BYTE = 4
"""Two weights a byte are stored with four bits each; as much again for what is tied or made."""


FREE_WEIGHTS = 100_000_000
"""So many are built for any file; what is wrong with it, its reader says better."""


class Refused(Exception):
    """What the configuration asks for is not done; the message says what."""


def check_config(config: Mapping[str, Any], *, trusts_code: bool) -> None:
    """Look at a config.json before anything is built from it. Raises Refused."""
    if stored := config.get("quantization_config"):
        method = stored.get("quant_method", "") if isinstance(stored, Mapping) else ""
        raise Refused(
            f"its weights are stored in fewer bits ({method or 'quantization_config'}); name the "
            "model that it was made from, with model.load_in_4bit=true where memory is short"
        )
    for key, value in _settings(config):
        word = key.lower()
        if word.endswith("implementation") and "/" in str(value) and not trusts_code:
            raise Refused(f"its {key} names code to be fetched and run; take it out of config.json")
        is_count = isinstance(value, int) and not isinstance(value, bool)
        if is_count and word.endswith(("layers", "n_layer")) and value > MOST_LAYERS:
            raise Refused(f"its {key} is {value:,}")
        if is_count and word == "num_labels" and value > MOST_LABELS:
            raise Refused(f"its {key} is {value:,}")
        if word in ("id2label", "label2id") and len(value or ()) > MOST_LABELS:
            raise Refused(f"its {key} has {len(value):,} entries")


def _settings(config: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield str(key), value
        if isinstance(value, Mapping) and depth < 3:
            yield from _settings(value, depth + 1)


def check_files(folder: Path) -> None:
    """Look at a local base's files before they are read. Raises Refused, and OSError."""
    if (folder / "config.json").stat().st_size > MOST_CONFIG_BYTES:
        raise Refused("its config.json is larger than any configuration")
    names = sorted(path.name for path in folder.iterdir())
    if not any(name.endswith(".safetensors") for name in names):
        pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
        if pickles:
            raise Refused(
                f"its weights are in {pickles[0]}, a format that can run code when it is read; "
                "save them as safetensors"
            )


def check_tokenizer(folder: Path) -> None:
    """Look for merges that the tokenizers library would cut in the wrong place, which ends the
    whole process. Raises Refused, and OSError or ValueError where it cannot be read."""
    content = (folder / "tokenizer.json").read_bytes()
    if not _PREFIX.search(content):  # spares parsing some megabytes
        return
    model = json.loads(content)["model"]
    prefix = model["continuing_subword_prefix"]
    for merge in model.get("merges") or ():
        first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
        if not second.startswith(prefix):
            raise Refused(
                f"its tokenizer.json merges {first!r} and {second!r}, which does not begin with "
                f"its continuing_subword_prefix {prefix!r}"
            )


_PREFIX = re.compile(rb'"continuing_subword_prefix"\s*:\s*"[^"]')


def check_size(folder: Path, config: Any) -> None:
    """Build the model without memory, and count: it is no larger than its files explain.

    Raises Refused, and whatever its architecture raises.
    """
    num_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    num_weights = sum(weight.numel() for weight in empty.parameters())
    if num_weights > max(MOST_WEIGHTS_PER_BYTE * num_bytes, FREE_WEIGHTS):
        raise Refused(
            f"its config.json means {num_weights:,} weights, and its files hold {num_bytes:,} bytes"
        )


def config_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A base's config.json as it stands, from a folder or the Hub; empty where it cannot be read,
    of which loading says more. arguments: as from_pretrained takes them."""
    name, is_local = arguments["pretrained_model_name_or_path"], arguments["local_files_only"]
    try:
        found, _ = PretrainedConfig.get_config_dict(name, local_files_only=is_local)
    except Exception:
        return {}
    return dict(found)
