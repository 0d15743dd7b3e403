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
from transformers.pytorch_utils import Conv1D

from honing.model.dropout import CheapDropout
from honing.model.gated import SILU, TANH_GELU, Activation, Gated, gated_product
from honing.model.load import Model
from honing.model.norm import rms_norm
from honing.model.products import Adapter, Layer, layer_product

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
    return partial(_product_forward, module) if _is_product(module) else None


def _is_product(module: Any) -> bool:
    """A frozen layer, with one adapter of A and B on it or none: not DoRA, no embedding."""
    if not isinstance(module, LoraLayer):
        return _is_plain(module)
    names = list(module.lora_A)
    return (
        _is_plain(module.base_layer)
        and len(names) == 1
        and not module.lora_variant
        and module.lora_A[names[0]].bias is None
        and module.lora_B[names[0]].bias is None
        and isinstance(module.lora_dropout[names[0]], nn.Dropout | nn.Identity | CheapDropout)
    )


def _is_plain(module: Any) -> bool:
    """A frozen layer whose weight is a matrix of numbers, not packed ones as in 4 bits."""
    if not isinstance(module, nn.Linear | Conv1D) or not module.weight.is_floating_point():
        return False
    return not any(own.requires_grad for own in module.parameters(recurse=False))


def _product_forward(module: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
    layer = None if rest or options else _layer_of(module, x)
    if layer is None:
        found: Tensor = type(module).forward(module, x, *rest, **options)
        return found
    return layer_product(x, layer, _rate(module))


def _layer_of(module: Any, x: Tensor) -> Layer | None:
    """The product as it stands now; None where it must be computed in the library's way."""
    base = getattr(module, "base_layer", module)
    if x.numel() < FEW_LINES * x.shape[-1] or x.dtype != base.weight.dtype:
        return None
    # Weight as (out, in), whichever way the layer stores it.
    weight = base.weight.t() if isinstance(base, Conv1D) else base.weight
    if base is module:
        return Layer(weight, base.bias)
    names = list(module.lora_A)
    if module.disable_adapters or module.merged or len(names) > 1:
        return None
    (name,) = names
    if module.active_adapters != [name]:
        return None
    A, B = module.lora_A[name].weight, module.lora_B[name].weight
    # Not in float16, which overflows.
    if A.dtype != x.dtype and not (x.dtype == torch.bfloat16 and A.dtype == torch.float32):
        return None
    return Layer(weight, base.bias, Adapter(A, B, module.scaling[name]))


def _rate(*modules: Any) -> float:
    """Of the dropout: adapters have the same. 0 where there is none, and outside of training."""
    for module in modules:
        for dropout in getattr(module, "lora_dropout", {}).values():
            rate = getattr(dropout, "rate", getattr(dropout, "p", 0.0))
            return float(rate) if module.training else 0.0
    return 0.0


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


def _near(own: object, found: Tensor) -> bool:
    if not isinstance(own, Tensor):
        return False
    apart = (found - own).double().norm()
    return bool(apart <= ROUNDING.get(own.dtype, 1e-10) * own.double().norm())


def _agree(module: nn.Module, forward: Forward, like: Tensor) -> bool:
    """Whether both make the same of a few numbers. like: (H,), as long as what the module reads."""
    size = FEW_LINES * like.shape[0]
    x = torch.linspace(-2.0, 3.0, size, dtype=like.dtype, device=like.device).view(FEW_LINES, -1)
    large = x * 1000.0  # shows a limit that a family sets to its numbers
    was_training = module.training
    module.eval()  # without dropout, which would differ, and draw
    try:
        with torch.no_grad():
            return all(_near(type(module).forward(module, y), forward(y)) for y in (x, large))
    except (TypeError, AttributeError, RuntimeError):
        return False
    finally:
        module.train(was_training)


# Activations


def _activation(module: nn.Module) -> Forward | None:
    if type(module).__name__ not in ("NewGELUActivation", "FastGELUActivation", "GELUTanh"):
        return None
    forward = TANH_GELU.forward
    return forward if _computes(module, forward) else None


def _computes(function: Forward, expected: Forward) -> bool:
    x = torch.linspace(-6.0, 6.0, 97)
    return torch.allclose(function(x), expected(x), 1e-5, 1e-6)


def _gated(module: nn.Module) -> Forward | None:
    """The gated part of Llama's, Qwen's and Gemma's blocks."""
    parts = dict(module.named_children())
    if set(parts) != {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        return None
    if not all(_is_product(parts[name]) for name in ("gate_proj", "up_proj", "down_proj")):
        return None
    for activation in (SILU, TANH_GELU):
        forward = partial(_gated_forward, module, activation)
        weight = next(parts["gate_proj"].parameters())
        if _computes(parts["act_fn"], activation.forward) and _agree(module, forward, weight[0]):
            return forward
    return None


def _gated_forward(module: Any, activation: Activation, x: Tensor) -> Tensor:
    modules = module.gate_proj, module.up_proj, module.down_proj
    gate, up, down = (_layer_of(own, x) for own in modules)
    if gate is None or up is None or down is None:
        found: Tensor = type(module).forward(module, x)
        return found
    return gated_product(x, Gated(gate, up, down, activation, _rate(*modules)))


FORMS: dict[str, Callable[[nn.Module], Forward | None]] = {
    "products": _product,
    "norms": _norm,
    "activations": _activation,
    "gated parts": _gated,
}
"""By name, what gives a module its faster forward, or None where the form does not fit it."""
