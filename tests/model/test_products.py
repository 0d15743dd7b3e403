"""Products with frozen weights equal the plain operations, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from honing.model.dropout import keep_mask
from honing.model.products import Adapter, Layer, layer_products, matrices_of, product

TOLERANCE = {torch.bfloat16: 2 * 2.0**-9, torch.float32: 1e-6, torch.float64: 1e-14}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def distance(a: Tensor, b: Tensor) -> float:
    return float(((a.double() - b.double()).norm() / b.double().norm()).detach())


@dtypes
@pytest.mark.parametrize("turned", [False, True], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_add", [False, True])
def test_product(dtype: torch.dtype, turned: bool, with_bias: bool, with_add: bool) -> None:
    torch.manual_seed(0)
    x = random(40, 24, dtype=dtype)
    weight = random(24, 56, dtype=dtype).t() if turned else random(56, 24, dtype=dtype)
    bias = random(56, dtype=dtype) if with_bias else None
    add = random(40, 56, dtype=dtype) if with_add else None
    before = None if add is None else add.clone()
    expected = linear(x, weight, bias) + (0.0 if add is None else add)
    assert distance(product(x, weight, bias, add), expected) < TOLERANCE[dtype]
    if add is not None and before is not None:
        assert torch.equal(add, before)


def test_a_product_that_learns_keeps_its_gradient() -> None:
    x = torch.ones(40, 8, requires_grad=True)
    torch.autograd.backward(product(x, torch.full((3, 8), 2.0)).sum())
    assert torch.equal(x.grad, torch.full((40, 8), 6.0))  # type: ignore[arg-type]


def layers_of(dtype: torch.dtype, turned: bool, of_adapters: torch.dtype) -> list[Layer]:
    """Three that read 24 numbers: adapters of two ranks, and none."""
    layers = []
    for width, rank in ((56, 4), (40, 0), (8, 2)):
        weight = random(24, width, dtype=dtype).t() if turned else random(width, 24, dtype=dtype)
        adapter = None
        if rank:
            A, B = random(rank, 24, dtype=of_adapters), random(width, rank, dtype=of_adapters)
            adapter = Adapter(A.requires_grad_(), B.requires_grad_(), 0.5 * rank)
        layers.append(Layer(weight, random(width, dtype=dtype) if rank else None, adapter))
    return layers


def in_float64(layers: list[Layer]) -> list[Layer]:
    def wide(matrix: Tensor) -> Tensor:
        return matrix.detach().double().requires_grad_()

    return [
        Layer(
            layer.weight.double(),
            None if layer.bias is None else layer.bias.double(),
            own and Adapter(wide(own.A), wide(own.B), own.scale),
        )
        for layer in layers
        for own in (layer.adapter,)
    ]


def plain_products(x: Tensor, layers: list[Layer], mask: Tensor) -> list[Tensor]:
    made = []
    for layer in layers:
        one = linear(x, layer.weight, layer.bias)
        if own := layer.adapter:
            one = one + linear(linear(x * mask, own.A), own.B) * own.scale
        made.append(one)
    return made


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.25])
@pytest.mark.parametrize("turned", [False, True], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize("chosen", [[0], [1], [0, 1, 2], [1, 2], [2, 0]], ids=str)
def test_layer_products(dtype: torch.dtype, rate: float, turned: bool, chosen: list[int]) -> None:
    """One layer or several that read the same; A and B stay wide on a base in bfloat16, whose
    inputs, thin products and results are rounded to 2⁻⁹ each."""
    torch.manual_seed(2)
    x = random(3, 20, 24, dtype=dtype).requires_grad_()
    of_adapters = torch.float32 if dtype == torch.bfloat16 else dtype
    every = layers_of(dtype, turned, of_adapters)
    layers = [every[number] for number in chosen]
    exact, wide_x = in_float64(layers), x.detach().double().requires_grad_()
    torch.manual_seed(3)
    mask = torch.ones(3, 20, 24).double()
    if rate and chosen != [1]:
        mask = keep_mask(x.numel(), rate, x.device).view_as(x).double() / (1 - rate)
    expected = plain_products(wide_x, exact, mask)
    torch.manual_seed(3)
    found = layer_products(x, layers, rate)
    upstream = [random(*one.shape, dtype=dtype) for one in found]
    gradients = torch.autograd.grad(found, [x, *matrices_of(layers)], upstream)
    wide = [one.double() for one in upstream]
    of_exact = torch.autograd.grad(expected, [wide_x, *matrices_of(exact)], wide)
    assert [one.shape for one in found] == [one.shape for one in expected]
    assert [one.dtype for one in gradients] == [dtype, *[of_adapters] * (len(of_exact) - 1)]
    most = 4 * 2.0**-9 if dtype == torch.bfloat16 else TOLERANCE[dtype]
    for one, other in zip((*found, *gradients), (*expected, *of_exact), strict=True):
        assert distance(one, other) < most


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    torch.manual_seed(4)
    x, weight = random(40, 8), random(6, 8)
    A, B = random(2, 8).requires_grad_(), random(6, 2).requires_grad_()
    (found,) = layer_products(x, [Layer(weight, None, Adapter(A, B, 1.0))], 0.0)
    torch.autograd.backward(found.sum())
    assert distance(B.grad, torch.ones(6, 40).double() @ (x @ A.detach().t())) < 1e-14  # type: ignore[arg-type]


def test_what_a_frozen_layer_reads_is_not_kept() -> None:
    x = random(40, 24).requires_grad_()
    (found,) = layer_products(x * 2.0, [Layer(random(8, 24), None)], 0.0)
    assert found.grad_fn is not None
    (made_by, _) = found.grad_fn.next_functions[0]
    assert made_by is not None
    assert made_by.saved_tensors == (None, None, None)  # type: ignore[attr-defined]
