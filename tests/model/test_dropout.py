"""Dropout for adapters: the right share, the right scale, the same mask on the way back."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from honing.model.dropout import CheapDropout, keep_mask, masked, use_cheap_dropout
from tests.tiny import adapted_model

CPU = torch.device("cpu")
RATES = [0.05, 0.1, 0.25, 0.5, 0.9]


@pytest.mark.parametrize("rate", RATES)
def test_share_that_is_kept(rate: float) -> None:
    torch.manual_seed(0)
    num = 10**6
    kept = int(keep_mask(num, rate, CPU).sum())
    sigma = math.sqrt(num * rate * (1 - rate))
    assert abs(kept - num * (1 - rate)) < 5 * sigma


def test_each_of_the_four_elements_of_a_word_is_kept_as_often() -> None:
    torch.manual_seed(0)
    num, rate = 4 * 10**5, 0.1
    places = keep_mask(num, rate, CPU).view(-1, 4)
    sigma = math.sqrt(num / 4 * rate * (1 - rate))
    for place in range(4):
        assert abs(int(places[:, place].sum()) - num / 4 * (1 - rate)) < 5 * sigma
    # And independently of its neighbour: both dropped in a hundredth of all words.
    both = int((~places[:, 0] & ~places[:, 1]).sum())
    assert abs(both - num / 4 * rate**2) < 5 * math.sqrt(num / 4 * rate**2)


def test_ends_of_the_range() -> None:
    assert bool(keep_mask(1000, 0.0, CPU).all())
    # The highest rate is 65,535 of 65,536: five sigma above 15.3 kept of a million.
    assert int(keep_mask(10**6, 1 - 1e-9, CPU).sum()) < 15.3 + 5 * math.sqrt(15.3)


@pytest.mark.parametrize("num", [0, 1, 2, 3, 4, 5, 1001])
def test_any_number_of_elements(num: int) -> None:
    mask = keep_mask(num, 0.5, CPU)
    assert mask.shape == (num,)
    assert mask.dtype == torch.bool


@pytest.mark.parametrize("rate", RATES)
def test_kept_elements_are_scaled_exactly_and_the_others_are_zero(rate: float) -> None:
    torch.manual_seed(1)
    x = torch.randn(3, 50, 7, dtype=torch.float64)
    dropped = CheapDropout(rate)(x)
    kept = dropped != 0
    assert torch.equal(dropped[kept], x[kept] * (1.0 / (1.0 - rate)))
    assert 0 < int(kept.sum()) < kept.numel()


@pytest.mark.parametrize("rate", RATES)
def test_the_mean_stays(rate: float) -> None:
    torch.manual_seed(2)
    num = 10**6
    mean = float(CheapDropout(rate)(torch.ones(num)).double().mean())
    assert abs(mean - 1.0) < 5 * math.sqrt(rate / (1 - rate) / num)


def test_a_mask_keeps_every_bit_of_a_number_or_none() -> None:
    torch.manual_seed(5)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        x = torch.randn(30, 40).to(dtype)[:, ::3]
        mask = torch.rand(30, 14) > 0.3
        assert torch.equal(masked(x, mask), torch.where(mask, x, torch.zeros((), dtype=dtype)))


def test_gradient_is_mask_times_scale() -> None:
    torch.manual_seed(3)
    x = torch.randn(40, 25, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(40, 25, dtype=torch.float64)
    dropped = CheapDropout(0.25)(x)
    dropped.backward(upstream)
    mask = (dropped != 0).double()
    assert torch.equal(x.grad, upstream * mask * (1.0 / 0.75))  # type: ignore[arg-type]


def test_number_type_stays_and_the_input_is_not_changed() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.ones(64, dtype=dtype)
        dropped = CheapDropout(0.5)(x)
        assert dropped.dtype == dtype
        assert set(dropped.tolist()) == {0.0, 2.0}
        assert torch.equal(x, torch.ones(64, dtype=dtype))


def test_nothing_is_dropped_outside_of_training_or_at_rate_0() -> None:
    x = torch.randn(10)
    state = torch.get_rng_state()
    assert CheapDropout(0.5).eval()(x) is x
    assert CheapDropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_repeats_the_mask_and_the_next_draw_is_another() -> None:
    dropout, x = CheapDropout(0.5), torch.ones(1000)
    torch.manual_seed(4)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(4)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


def test_it_replaces_the_dropout_of_every_adapter_and_nothing_else() -> None:
    model = adapted_model("gpt2", dropout=0.3)
    others = [
        name
        for name, m in model.named_modules()
        if isinstance(m, nn.Dropout) and "lora" not in name
    ]
    use_cheap_dropout(model)
    adapters = [m for name, m in model.named_modules() if name.endswith("lora_dropout.default")]
    assert [(type(m), m.rate) for m in adapters] == [(CheapDropout, 0.3)] * 8
    assert [name for name, m in model.named_modules() if isinstance(m, nn.Dropout)] == others
    assert repr(adapters[0]) == "CheapDropout(rate=0.3)"


def test_adapters_without_dropout_stay_as_they_are() -> None:
    model = adapted_model("llama", dropout=0.0)
    use_cheap_dropout(model)
    assert not any(isinstance(module, CheapDropout) for module in model.modules())
