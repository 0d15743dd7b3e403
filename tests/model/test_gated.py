"""The gated part equals the plain operations, and its gradients finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, silu

from honing.model.gated import SILU, TANH_GELU, Activation, Gated, gated_product
from honing.model.products import Adapter, Layer, matrices_of


def layer(width: int, height: int, *, with_adapter: bool, rank: int = 2) -> Layer:
    A, B = (torch.randn(rank, height).double(), torch.randn(width, rank).double())
    adapter = Adapter(A.requires_grad_(), B.requires_grad_(), 0.7) if with_adapter else None
    return Layer(torch.randn(width, height).double(), torch.randn(width).double(), adapter)


def part(activation: Activation, of: str = "gate up down", rate: float = 0.0) -> Gated:
    gate = layer(8, 6, with_adapter="gate" in of, rank=3)
    up = layer(8, 6, with_adapter="up" in of)
    return Gated(gate, up, layer(6, 8, with_adapter="down" in of), activation, rate)


def plain(x: Tensor, layer: Layer) -> Tensor:
    made = linear(x, layer.weight, layer.bias)
    own = layer.adapter
    return made if own is None else made + linear(linear(x, own.A), own.B) * own.scale


@pytest.mark.parametrize("activation", [SILU, TANH_GELU], ids=["silu", "gelu"])
@pytest.mark.parametrize("of", ["gate up down", "gate down", "up", "down", ""])
def test_gated_product(activation: Activation, of: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6).double().requires_grad_()
    own = part(activation, of)
    act = silu(plain(x, own.gate))
    if activation is TANH_GELU:
        act = gelu(plain(x, own.gate), approximate="tanh")
    expected = plain(act * plain(x, own.up), own.down)
    found = gated_product(x, own)
    torch.testing.assert_close(found, expected)
    inputs = [x, *matrices_of((own.gate, own.up, own.down))]
    upstream = torch.randn_like(x)
    gradients = torch.autograd.grad(found, inputs, upstream)
    for one, other in zip(gradients, torch.autograd.grad(expected, inputs, upstream), strict=True):
        torch.testing.assert_close(one, other)


def test_its_gradient_under_dropout() -> None:
    torch.manual_seed(1)
    x = torch.randn(5, 6).double().requires_grad_()
    own = part(SILU, rate=0.4)

    def made(x: Tensor, *_: Tensor) -> Tensor:
        torch.manual_seed(2)
        return gated_product(x, own)

    assert torch.autograd.gradcheck(made, (x, *matrices_of((own.gate, own.up, own.down))))
