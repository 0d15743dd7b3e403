"""A GGUF file, read back: its tensors, and what a model with its values computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from honing.errors import CheckFailed
from honing.merging.difference import Difference, difference, logits_of
from honing.merging.gguf_export import tensors_in
from honing.merging.gguf_shapes import from_llama_cpp, tensors_for_gguf
from honing.merging.llama_cpp_check import LlamaCppCheck, check_in_llama_cpp, package_installed
from honing.merging.reference import Reference

_MOST_ERROR: Mapping[str, float] = {
    "F32": 0.0,
    "F16": 2.0**-11,
    "BF16": 2.0**-8,
    "Q8_0": 0.02,
    "Q5_1": 0.08,
    "Q5_0": 0.08,
    "Q4_1": 0.16,
    "Q4_0": 0.16,
}
"""Largest error of a tensor that its type explains: |error| over |weights|, root of squares."""

MOST_LOST = 0.5
"""Largest share of the adapter's own effect (KL from the tuned model) that rounding may undo."""


@dataclass(frozen=True)
class GgufFile:
    """A file that was written and passed. worst_error: see _MOST_ERROR, over all tensors.

    difference: of a model with the file's values from base and adapter. llama_cpp: None where no
    package of it is installed.
    """

    name: str
    type: str
    num_bytes: int
    num_tensors: int
    worst_error: float
    difference: Difference
    llama_cpp: LlamaCppCheck | None

    def to_record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "num_bytes": self.num_bytes,
            "num_tensors": self.num_tensors,
            "worst_tensor_error": self.worst_error,
            "difference": self.difference.to_record(),
            "llama_cpp": None if self.llama_cpp is None else self.llama_cpp.to_record(),
        }


def verify_gguf(folder: Path, path: Path, type: str, reference: Reference) -> GgufFile:
    """Compare a GGUF file with the merged folder that it was made from, and with the reference.

    Raises CheckFailed where a tensor is further from the folder's than its type explains, where
    rounding undoes what was learnt, or where llama.cpp, if it is here, computes another model.
    """
    values, worst = _values_in(folder, path)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    num_tensors = len(values)
    model.load_state_dict(values, strict=False)  # what the file made of its own is in no model
    del values
    model.tie_weights()
    logits = list(logits_of(model.eval(), reference.rows))
    del model
    found = difference(reference.logits, logits)
    effect = reference.effect.mean_kl_nats
    if not found.mean_kl_nats <= MOST_LOST * effect:
        raise CheckFailed(
            f"merge: gguf_differs_from_base: rounding to {type} undoes what was learnt: KL "
            f"{found.mean_kl_nats:.2e} nats from the tuned model, where the base is at "
            f"{effect:.2e}; use --gguf q8_0 or f16"
        )
    package = package_installed()
    checked = None
    if package is not None:
        checked = check_in_llama_cpp(path, logits, reference, package)
    return GgufFile(path.name, type, path.stat().st_size, num_tensors, worst, found, checked)


def _values_in(folder: Path, path: Path) -> tuple[dict[str, Tensor], float]:
    """The file's values under the names and in the layout of transformers; the worst error."""
    import gguf

    config = AutoConfig.from_pretrained(folder)
    there = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    values: dict[str, Tensor] = {}
    worst = 0.0
    for tensor in tensors_for_gguf(tensors_in(folder), config):
        stored = there.pop(tensor.name, None)
        if stored is None:
            raise _failed(f"{tensor.name} is missing")
        kind = stored.tensor_type
        read = torch.tensor(gguf.quants.dequantize(stored.data, kind)).reshape(tensor.values.shape)
        error = _relative_error(read.double(), tensor.values.double())
        if not error <= _MOST_ERROR[kind.name]:
            raise _failed(
                f"{tensor.name} in {kind.name} is off by {error:.1e} of its size (at most "
                f"{_MOST_ERROR[kind.name]:.1e})"
            )
        worst = max(worst, error)
        if tensor.source is not None:
            values[tensor.source] = from_llama_cpp(tensor.source, read, config)
    if there:
        raise _failed(f"{next(iter(there))} is surplus")
    return values, worst


def _failed(reason: str) -> CheckFailed:
    return CheckFailed(f"merge: gguf_as_merged: {reason}; no model was kept")


def _relative_error(a: Tensor, b: Tensor) -> float:
    """|a - b| over |b|, root of summed squares; the distance itself where b is all zero."""
    size, distance = float(b.norm()), float((a - b).norm())
    return distance / size if size else distance
