"""Products with frozen weights equal the plain operations, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from honing.model.dropout import keep_mask
from honing.model.products import Adapter, Layer, layer_product, matrices_of, product

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


def layer_of(dtype: torch.dtype, turned: bool, of_adapter: torch.dtype | None) -> Layer:
    """One that makes 56 numbers of 24, with a bias; of_adapter: its type, None for no adapter."""
    weight = random(24, 56, dtype=dtype).t() if turned else random(56, 24, dtype=dtype)
    bias = random(56, dtype=dtype)
    if of_adapter is None:
        return Layer(weight, bias)
    A, B = random(4, 24, dtype=of_adapter), random(56, 4, dtype=of_adapter)
    return Layer(weight, bias, Adapter(A.requires_grad_(), B.requires_grad_(), 1.5))


def in_float64(layer: Layer) -> Layer:
    def wide(matrix: Tensor) -> Tensor:
        return matrix.detach().double().requires_grad_()

    own = layer.adapter
    assert layer.bias is not None
    adapter = own and Adapter(wide(own.A), wide(own.B), own.scale)
    return Layer(layer.weight.double(), layer.bias.double(), adapter)


def plain_product(x: Tensor, layer: Layer, mask: Tensor) -> Tensor:
    made = linear(x, layer.weight, layer.bias)
    own = layer.adapter
    return made if own is None else made + linear(linear(x * mask, own.A), own.B) * own.scale


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.25])
@pytest.mark.parametrize("turned", [False, True], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize("with_adapter", [False, True])
def test_layer_product(dtype: torch.dtype, rate: float, turned: bool, with_adapter: bool) -> None:
    """A and B stay wide on a base in bfloat16, whose inputs, thin products and results are rounded
    to 2⁻⁹ each."""
    torch.manual_seed(2)
    x = random(3, 20, 24, dtype=dtype).requires_grad_()
    of_adapter = torch.float32 if dtype == torch.bfloat16 else dtype
    layer = layer_of(dtype, turned, of_adapter if with_adapter else None)
    exact, wide_x = in_float64(layer), x.detach().double().requires_grad_()
    torch.manual_seed(3)
    mask = torch.ones(3, 20, 24).double()
    if rate and with_adapter:
        mask = keep_mask(x.numel(), rate, x.device).view_as(x).double() / (1 - rate)
    expected = plain_product(wide_x, exact, mask)
    torch.manual_seed(3)
    found = layer_product(x, layer, rate)
    upstream = random(3, 20, 56, dtype=dtype)
    gradients = torch.autograd.grad(found, [x, *matrices_of([layer])], upstream)
    of_exact = torch.autograd.grad(expected, [wide_x, *matrices_of([exact])], upstream.double())
    assert found.shape == expected.shape
    assert [one.dtype for one in gradients] == [dtype, *[of_adapter] * (len(of_exact) - 1)]
    most = 4 * 2.0**-9 if dtype == torch.bfloat16 else TOLERANCE[dtype]
    for one, other in zip((found, *gradients), (expected, *of_exact), strict=True):
        assert distance(one, other) < most


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    torch.manual_seed(4)
    x, weight = random(40, 8), random(6, 8)
    A, B = random(2, 8).requires_grad_(), random(6, 2).requires_grad_()
    found = layer_product(x, Layer(weight, None, Adapter(A, B, 1.0)), 0.0)
    torch.autograd.backward(found.sum())
    assert distance(B.grad, torch.ones(6, 40).double() @ (x @ A.detach().t())) < 1e-14  # type: ignore[arg-type]


def test_what_a_frozen_layer_reads_is_not_kept() -> None:
    x = random(40, 24).requires_grad_()
    found = layer_product(x * 2.0, Layer(random(8, 24), None), 0.0)
    assert found.grad_fn is not None
    (made_by, _) = found.grad_fn.next_functions[0]
    assert made_by is not None
    assert made_by.saved_tensors == (None, None, None)  # type: ignore[attr-defined]
