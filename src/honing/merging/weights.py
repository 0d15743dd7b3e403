"""Adapter into the base's weights: in float64, layer by layer, each weight rounded once."""

from __future__ import annotations

import hashlib

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from honing.errors import CheckFailed
from honing.model.load import Model
from honing.model.lora import adapter_weights, untie_adapted

DTYPES = ("float32", "bfloat16", "float16")


def check_adapter(model: Model) -> None:
    """Raise CheckFailed where the adapter holds a value that is no finite number."""
    for name, tensor in adapter_weights(model).items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckFailed(
                f"merge: adapter_finite: {name} holds a value that is not a finite number; the "
                "adapter is damaged or its training diverged: use another checkpoint"
            )


def merge_weights(model: Model, dtype: torch.dtype) -> Model:
    """A PEFT model with its adapter → the plain model that holds the sum, in dtype.

    Through PEFT's own merge, so that rsLoRA's scale and DoRA's norms are its own. One layer at a
    time is in float64; its weight is then rounded once, to the type in which it is stored.
    The model that is given is used up.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}
    untie_adapted(model)
    for name, layer in layers.items():
        layer.double()
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:  # what PEFT raises for a sum with a NaN in it
            raise CheckFailed(f"merge: {name}: {' '.join(str(error).split())}") from None
        layer.get_base_layer().to(dtype)
    merged = model.unload()
    # Weights alone: buffers, such as the frequencies of rotary positions, stay as they are.
    for weight in merged.parameters():
        weight.data = weight.data.to(dtype)
    return merged


def are_tied(model: Model) -> bool:
    """Whether input embedding and output layer are one weight."""
    output = model.get_output_embeddings()
    return output is not None and output.weight is model.get_input_embeddings().weight


def tensor_hashes(model: Model) -> dict[str, str]:
    """SHA-256 of each tensor in the model's state: type, shape, and every bit of it."""
    return {name: _hash_of(tensor) for name, tensor in model.state_dict().items()}


def _hash_of(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype}{tuple(plain.shape)}".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
