"""Which parts of a model are computed in a faster form, with the same result.

A part takes a form only where its own output on a few random numbers shows that the form is meant:
names differ between families, and one name may mean different things. What is not recognised
stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers.pytorch_utils import Conv1D

from honing.model.dropout import CheapDropout
from honing.model.elementwise import rms_norm, swiglu
from honing.model.load import Model
from honing.model.products import adapted_product, frozen_product

FEW_LINES = 32
"""A product of fewer lines, as in generation, is left to torch."""

ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7}
"""By how much of a number two orders of computing it may differ."""

Forward = Callable[..., Tensor]


def use_fast_forms(model: Model, forms: Iterable[str] | None = None) -> Counter[str]:
    """Give parts of a model with adapters their faster forms; how many parts took each.

    To be called once, when adapters are attached and all else is frozen. forms: names out of
    FORMS, all of them if None.
    """
    taken: Counter[str] = Counter()
    for form in FORMS if forms is None else forms:
        for module in list(model.modules()):
            forward = FORMS[form](module)
            if forward is not None:
                module.forward = forward
                taken[form] += 1
    return taken


def describe_forms(taken: Counter[str]) -> str:
    """One line for the user: how much of the model is computed in a faster form."""
    if not taken:
        return "Fast forms: none fits this kind of model; all of it is computed as it stands"
    parts = ", ".join(f"{number} {form}" for form, number in taken.items())
    return f"Fast forms: {parts} (train.fast_forms=false computes all as it stands)"


# Products


def _product(module: nn.Module) -> Forward | None:
    if isinstance(module, LoraLayer):
        return partial(_adapted_forward, module) if _is_plain_lora(module) else None
    if _is_plain(module) and not module.weight.requires_grad:
        return partial(_frozen_forward, module)
    return None


def _is_plain(module: Any) -> bool:
    """A layer whose weight is a matrix of numbers, not packed ones as in 4 bits."""
    is_linear = isinstance(module, nn.Linear | Conv1D)
    return is_linear and module.weight.is_floating_point()


def _is_plain_lora(module: Any) -> bool:
    """One adapter of A and B on a frozen layer, nothing more: not DoRA, no bias, no embedding."""
    names = list(module.lora_A)
    return (
        _is_plain(module.base_layer)
        and len(names) == 1
        and not module.lora_variant
        and module.lora_A[names[0]].bias is None
        and module.lora_B[names[0]].bias is None
        and isinstance(module.lora_dropout[names[0]], nn.Dropout | nn.Identity | CheapDropout)
    )


def _adapted_forward(module: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
    (name,) = module.lora_A
    A, B = module.lora_A[name].weight, module.lora_B[name].weight
    weight, bias = _weight_and_bias(module.base_layer)
    plain = module.disable_adapters or module.merged or module.active_adapters != [name]
    if plain or rest or options or _few(x) or not _fit(x.dtype, weight.dtype, A.dtype):
        found: Tensor = type(module).forward(module, x, *rest, **options)
        return found
    dropout = module.lora_dropout[name]
    rate = float(getattr(dropout, "rate", getattr(dropout, "p", 0.0))) if module.training else 0.0
    return adapted_product(x, weight, bias, A, B, module.scaling[name], rate)


def _fit(x: torch.dtype, weight: torch.dtype, adapter: torch.dtype) -> bool:
    """Whether a product computes in the type of x and weight: not in float16, which overflows."""
    return x == weight and (adapter == x or (x == torch.bfloat16 and adapter == torch.float32))


def _frozen_forward(module: Any, x: Tensor) -> Tensor:
    weight, bias = _weight_and_bias(module)
    if _few(x) or x.dtype != weight.dtype:
        found: Tensor = type(module).forward(module, x)
        return found
    return frozen_product(x, weight, bias)


def _weight_and_bias(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Weight as (out, in), whichever way the layer stores it."""
    return (layer.weight.t() if isinstance(layer, Conv1D) else layer.weight), layer.bias


def _few(x: Tensor) -> bool:
    return x.numel() < FEW_LINES * x.shape[-1]


# Norms


def _norm(module: nn.Module) -> Forward | None:
    """RMSNorm, by whatever name: Llama's factor is its weight, Gemma's is 1 + weight."""
    own = dict(module.named_parameters(recurse=False))
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if set(own) != {"weight"} or own["weight"].dim() != 1 or not isinstance(epsilon, float):
        return None
    weight = own["weight"]
    if weight.requires_grad or weight.dtype not in ROUNDING:  # the libraries' own is never wider
        return None
    for offset in (0.0, 1.0):
        forward = partial(_norm_forward, module, offset, epsilon)
        if _agree(module, forward, weight):
            return forward
    return None


def _norm_forward(module: Any, offset: float, epsilon: float, x: Tensor) -> Tensor:
    factor = module.weight + offset if offset else module.weight
    if x.dtype != factor.dtype:
        found: Tensor = type(module).forward(module, x)
        return found
    return rms_norm(x, factor, epsilon)


def _agree(module: nn.Module, forward: Forward, like: Tensor) -> bool:
    x = torch.linspace(-2.0, 3.0, 3 * like.shape[0], dtype=like.dtype, device=like.device)
    x = x.view(3, -1)
    try:
        with torch.no_grad():
            own = type(module).forward(module, x)
            near = ROUNDING[like.dtype]
            return isinstance(own, Tensor) and torch.allclose(forward(x), own, near, near / 10)
    except (TypeError, AttributeError, RuntimeError):
        return False


# Activations


def _activation(module: nn.Module) -> Forward | None:
    if type(module).__name__ in ("NewGELUActivation", "FastGELUActivation", "GELUTanh"):
        x = torch.linspace(-6.0, 6.0, 97)
        forward = partial(gelu, approximate="tanh")
        return forward if torch.allclose(module(x), forward(x), 1e-5, 1e-6) else None
    parts = dict(module.named_children())
    if set(parts) == {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        is_silu = type(parts["act_fn"]).__name__ in ("SiLU", "SiLUActivation")
        return partial(_swiglu_forward, module) if is_silu else None
    return None


def _swiglu_forward(module: Any, x: Tensor) -> Tensor:
    made: Tensor = module.down_proj(swiglu(module.gate_proj(x), module.up_proj(x)))
    return made


FORMS: dict[str, Callable[[nn.Module], Forward | None]] = {
    "products": _product,
    "norms": _norm,
    "activations": _activation,
}
"""By name, what gives a module its faster forward, or None where the form does not fit it."""
