"""Products with frozen weights equal the plain operations, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from honing.model.dropout import keep_mask
from honing.model.products import adapted_product, frozen_product, product

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


@dtypes
def test_frozen_product(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x = random(3, 20, 24, dtype=dtype).requires_grad_()
    weight, bias = random(56, 24, dtype=dtype), random(56, dtype=dtype)
    upstream = random(3, 20, 56, dtype=dtype)
    expected = linear(x, weight, bias)
    found = frozen_product(x, weight, bias)
    (expected_gradient,) = torch.autograd.grad(expected, x, upstream)
    (gradient,) = torch.autograd.grad(found, x, upstream)
    assert found.shape == (3, 20, 56)
    assert distance(found, expected) < TOLERANCE[dtype]
    assert distance(gradient, expected_gradient) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.25])
@pytest.mark.parametrize("turned", [False, True], ids=["Linear", "Conv1D"])
def test_adapted_product(dtype: torch.dtype, rate: float, turned: bool) -> None:
    torch.manual_seed(2)
    x = random(3, 20, 24, dtype=dtype).requires_grad_()
    weight = random(24, 56, dtype=dtype).t() if turned else random(56, 24, dtype=dtype)
    bias, upstream = random(56, dtype=dtype), random(3, 20, 56, dtype=dtype)
    A = random(4, 24, dtype=dtype).requires_grad_()
    B = random(56, 4, dtype=dtype).requires_grad_()
    torch.manual_seed(3)
    mask = torch.ones_like(x)
    if rate:
        mask = keep_mask(x.numel(), rate, x.device).view_as(x).to(dtype) / (1 - rate)
    expected = linear(x, weight, bias) + linear(linear(x * mask, A), B) * 1.5
    torch.manual_seed(3)
    found = adapted_product(x, weight, bias, A, B, 1.5, rate)
    assert found.shape == (3, 20, 56)
    assert distance(found, expected) < TOLERANCE[dtype]
    gradients = torch.autograd.grad(found, (x, A, B), upstream)
    for one, other in zip(
        gradients, torch.autograd.grad(expected, (x, A, B), upstream), strict=True
    ):
        assert distance(one, other) < TOLERANCE[dtype]


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    torch.manual_seed(4)
    x, weight = random(40, 8), random(6, 8)
    A, B = random(2, 8).requires_grad_(), random(6, 2).requires_grad_()
    found = adapted_product(x, weight, None, A, B, 1.0, 0.0)
    torch.autograd.backward(found.sum())
    assert distance(B.grad, torch.ones(6, 40).double() @ (x @ A.detach().t())) < 1e-14  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0.0, 0.25])
@pytest.mark.parametrize("turned", [False, True], ids=["Linear", "Conv1D"])
def test_on_a_base_in_bfloat16_a_and_b_stay_wide(rate: float, turned: bool) -> None:
    """Within what rounding of inputs, of a thin product and of the result explains: 2⁻⁹ each."""
    torch.manual_seed(5)
    x, weight, bias, upstream = (
        random(*shape, dtype=torch.bfloat16)
        for shape in ((3, 20, 24), (24, 56) if turned else (56, 24), (56,), (3, 20, 56))
    )
    weight = weight.t() if turned else weight
    A, B = random(4, 24, dtype=torch.float32), random(56, 4, dtype=torch.float32)
    inputs = [x.requires_grad_(), A.requires_grad_(), B.requires_grad_()]
    torch.manual_seed(6)
    found = adapted_product(x, weight, bias, A, B, 1.5, rate)
    gradients = torch.autograd.grad(found, inputs, upstream)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    torch.manual_seed(6)
    expected = adapted_product(
        exact[0], weight.double(), bias.double(), exact[1], exact[2], 1.5, rate
    )
    expected_gradients = torch.autograd.grad(expected, exact, upstream.double())
    assert [t.dtype for t in (found, *gradients)] == [torch.bfloat16] * 2 + [torch.float32] * 2
    for one, other in zip((found, *gradients), (expected, *expected_gradients), strict=True):
        assert distance(one, other) < 4 * 2.0**-9
