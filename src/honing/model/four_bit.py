"""A base whose linear layers are held in 4 bits a weight: NF4 with double quantisation (QLoRA,
Dettmers et al. 2023), through bitsandbytes.

Weights are rounded on the CPU, whatever the device, from the type that they are stored in: the
same base on every machine and in every number type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from honing.config import Config
from honing.errors import UserError

DEVICES = ("cuda", "cpu")
"""Of those that honing knows; bitsandbytes has no gradients of its own for Apple's."""

FROM_THE_BASE = ("pissa", "olora")
"""Values of lora.init that need the base's weights as they were published."""

_OFF = "or use model.load_in_4bit=false"


def check_four_bit(device: str) -> None:
    """Raise UserError where a base in 4 bits cannot be computed with here."""
    if device not in DEVICES:
        raise UserError(
            f"model.load_in_4bit: true, but bitsandbytes is not used on {device}; use device=cpu, "
            f"{_OFF}"
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise UserError(
            "model.load_in_4bit: true, but bitsandbytes is not installed; "
            f"pip install 'honing[4bit]', {_OFF}"
        ) from None
    # Whatever its native part raises on a machine that it was not built for.
    except Exception as error:
        raise UserError(_does_not_work(device, error)) from None
    try:
        layer = _in_4bit(nn.Linear(64, 64), torch.float32, device)
        x = torch.ones(2, 64, device=device, requires_grad=True)
        torch.autograd.grad(layer(x).sum(), x)
    except Exception as error:
        raise UserError(_does_not_work(device, error)) from None


def _does_not_work(device: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:160]
    return (
        f"model.load_in_4bit: true, but bitsandbytes does not work on this machine's {device} "
        f"({reason}); pip install -U 'honing[4bit]', {_OFF}"
    )


def check_settings(config: Config) -> None:
    """Raise UserError for settings that a base in 4 bits cannot have."""
    if config.lora.init in FROM_THE_BASE:
        raise UserError(
            f"lora.init: {config.lora.init} takes the adapter out of the base's weights, which "
            "model.load_in_4bit has rounded; use lora.init=default"
        )
    if config.train.shard_base:
        raise UserError("train.shard_base: does not go with model.load_in_4bit; use one of the two")


def to_four_bit(model: Any, dtype: str, device: str) -> None:
    """Round every Linear and Conv1D but the output layer, in place, and bring it to the device.

    dtype: what the layers compute in. The same weights as transformers' BitsAndBytesConfig makes.
    """
    names = [name for name, _ in _plain_layers(model)]
    for name in names:  # each is let go of before the next
        layer = _in_4bit(model.get_submodule(name), getattr(torch, dtype), device)
        model.set_submodule(name, layer)
    model.is_loaded_in_4bit = True  # PEFT asks for it by this name


def _plain_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The layers that can be held in 4 bits: all linear ones but the output layer."""
    head = model.get_output_embeddings()
    for name, layer in model.named_modules():
        if type(layer) in (nn.Linear, Conv1D) and layer is not head:
            yield name, layer


def saved_bytes(model: Any) -> int:
    """About how much less memory a model would take in 4 bits. Its adapters, if any, stay."""
    weights = [layer.weight for _, layer in _plain_layers(model)]
    return sum(w.nbytes - w.numel() // 2 for w in weights if not w.requires_grad)


def _in_4bit(layer: Any, dtype: torch.dtype, device: str) -> Any:
    import bitsandbytes

    weight = _rows_of(layer)
    made: Any = bitsandbytes.nn.Linear4bit(
        weight.shape[1],
        weight.shape[0],
        bias=layer.bias is not None,
        compute_dtype=dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    made.weight = bitsandbytes.nn.Params4bit(
        weight.contiguous(), requires_grad=False, compress_statistics=True, quant_type="nf4"
    ).to("cpu")
    made.weight.quant_state.dtype = dtype
    made.weight = made.weight.to(device)
    made.bias = layer.bias
    made.source_cls = type(layer)
    # Else a forward pass in eval mode lays the weights out for products in bfloat16 that have no
    # gradient, and a training that follows has none either (bitsandbytes 0.50).
    made.support_avx512bf16_for_cpu = False
    return made


def is_in_4bit(model: Any) -> bool:
    return any(_state_of(weight) is not None for weight in model.parameters())


def expand(model: Any, *, as_stored: bool = True) -> None:
    """Give each layer in 4 bits its plain form back, in place, with the weights it computes with.

    The model is then a plain one, of other weights than the published base's. as_stored: what was
    a Conv1D is one again; below adapters that are there already, it stays a Linear.
    """
    if not is_in_4bit(model):
        return
    from bitsandbytes.nn import Linear4bit

    for name, layer in list(model.named_modules()):
        if isinstance(layer, Linear4bit):
            is_conv = as_stored and layer.source_cls is Conv1D
            model.set_submodule(name, _expanded(layer, is_conv))
    model.is_loaded_in_4bit = False


def _expanded(layer: Any, is_conv: bool) -> Any:
    from bitsandbytes.functional import dequantize_4bit

    weight: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    num_outputs, num_inputs = weight.shape
    made: Any
    with torch.device("meta"):
        if is_conv:
            made, weight = Conv1D(num_outputs, num_inputs), weight.t().contiguous()
        else:
            made = nn.Linear(num_inputs, num_outputs, bias=layer.bias is not None)
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.bias = layer.bias
    return made


def _rows_of(layer: Any) -> Tensor:
    """Its weight as (out, in), whichever way it is stored."""
    weight: Tensor = layer.weight.detach()
    return weight.t() if isinstance(layer, Conv1D) else weight


def num_values(weight: Tensor) -> int:
    """How many numbers a weight stands for: in 4 bits two a byte."""
    state = _state_of(weight)
    return weight.numel() if state is None else math.prod(state.shape)


def num_bytes(weight: Tensor) -> int:
    """Memory of a weight, with the scales that go with one in 4 bits."""
    state = _state_of(weight)
    if state is None:
        return weight.nbytes
    return weight.nbytes + int(state.absmax.nbytes) + int(state.state2.absmax.nbytes)


def _state_of(weight: Any) -> Any:
    return getattr(weight, "quant_state", None)
