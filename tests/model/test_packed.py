"""Weights laid out beforehand give the products of the plain ones, and leave nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from honing.config import GenerateConfig
from honing.generation.decode import Ends, decode_batch
from honing.model import packed
from honing.model.packed import pack, packed_product, packed_products
from tests.tiny import tiny_model

needs_onednn = pytest.mark.skipif(
    not packed._has_packed(torch.float32), reason="torch without oneDNN"
)


@pytest.mark.parametrize("num_lines", [1, 5, 32, 300])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_packed_product_is_the_product(
    num_lines: int, with_bias: bool, dtype: torch.dtype
) -> None:
    if not packed._has_packed(dtype):
        pytest.skip(f"torch without oneDNN for {dtype}")
    torch.manual_seed(0)
    x, weight = torch.randn(2, num_lines, 96).to(dtype), torch.randn(160, 96).to(dtype)
    bias = torch.randn(160).to(dtype) if with_bias else None
    found = packed_product(x, pack(weight), bias)
    exact = linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert found.shape == (2, num_lines, 160)
    assert found.dtype == dtype
    bound = 1e-6 if dtype == torch.float32 else 2.0**-9
    assert float((found - exact).norm() / exact.norm()) < bound


def small_net() -> Any:
    torch.manual_seed(0)
    layers = nn.Linear(96, 128), Conv1D(96, 128), nn.Linear(96, 8)
    return nn.Sequential(*layers).requires_grad_(False)


@needs_onednn
def test_inside_layers_use_their_copies_and_afterwards_they_do_not() -> None:
    net, x = small_net(), torch.randn(7, 96)
    net[0].forward = own = lambda x: linear(x, net[0].weight, net[0].bias)  # an earlier form of it
    expected = net(x)
    with packed_products(net) as number, torch.no_grad():
        assert number == 2  # the last one is narrow
        assert net[0].forward is not own
        assert torch.allclose(net(x), expected, 1e-5, 1e-5)
        for layer in net[:2]:
            layer.weight.zero_()  # shows that the copies are read
        assert torch.allclose(net(x), expected, 1e-5, 1e-5)
    assert net[0].forward is own
    assert all("forward" not in layer.__dict__ for layer in net[1:])
    assert not torch.allclose(net(x), expected)


@needs_onednn
def test_a_failure_inside_leaves_the_layers_as_they_were() -> None:
    net = small_net()
    with pytest.raises(KeyError), packed_products(net):
        raise KeyError
    assert all("forward" not in layer.__dict__ for layer in net)


@needs_onednn
def test_what_needs_a_gradient_or_another_type_is_computed_plainly() -> None:
    net, x = small_net(), torch.randn(7, 96)
    with packed_products(net):
        leaf = x.clone().requires_grad_()
        net(leaf).sum().backward()
        assert leaf.grad is not None
    with packed_products(net.double()) as number:
        assert number == 0
    with packed_products(net.half()) as number:
        assert number == 0


def test_copies_that_would_not_fit_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net()
    needed = net[0].weight.nbytes + net[1].weight.nbytes
    monkeypatch.setattr(packed, "_free_bytes", lambda: int(needed / packed.MEMORY_SHARE) - 1)
    with packed_products(net) as number:
        assert number == 0
        assert all("forward" not in layer.__dict__ for layer in net)


@needs_onednn
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_answers_are_the_same(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "NARROWEST", 8)
    model = tiny_model(architecture)
    questions = [[3, 5, 7], [4, 6], [9, 8, 7, 6, 5]]
    settings = GenerateConfig(max_new_tokens=12)
    plain = decode_batch(model, questions, settings, Ends((1,)), [0, 1, 2])
    with packed_products(model) as number:
        assert number > 0
        found = decode_batch(model, questions, settings, Ends((1,)), [0, 1, 2])
    assert [answer.ids for answer in found] == [answer.ids for answer in plain]
