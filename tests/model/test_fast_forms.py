"""Each faster form gives the plain gradient; what it does not fit stays as it is."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from honing.model.dropout import CheapDropout, use_cheap_dropout
from honing.model.fast_forms import FORMS, describe_forms, use_fast_forms
from tests.tiny import ARCHITECTURES, adapted_model, fill_lora_b

TAKEN: dict[str, dict[str, int]] = {
    # The adapted layers, the frozen ones in them, and the head.
    "gpt2": {"products": 17, "activations": 2},
    "llama": {"products": 29, "norms": 5, "gated parts": 2},
    "qwen": {"products": 29, "norms": 9, "gated parts": 2},
    "gemma": {
        "products": 29,
        "norms": 13,
        "activations": 2,
        "gated parts": 2,
    },
    "gpt_neox": {"products": 17},
}

# In a float64 model the library's norms compute in float32; ours would differ from them.
NOT_NORMS = {
    name: {form: number for form, number in taken.items() if form != "norms"}
    for name, taken in TAKEN.items()
}


def gradient(model: Any) -> Tensor:
    """Of all adapters, for a sum over random logits, with dropout from a fixed seed."""
    torch.manual_seed(3)
    ids = torch.randint(0, 320, (2, 30))
    model.train()
    model.zero_grad()
    torch.manual_seed(4)
    logits = model(input_ids=ids).logits
    torch.autograd.backward((logits.log_softmax(-1)[..., 7]).sum())
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def model_of(architecture: str, dtype: torch.dtype = torch.float64, **settings: Any) -> Any:
    model = adapted_model(architecture, dtype, **settings)
    use_cheap_dropout(model)
    return model


class OneDraw(nn.Module):
    """Dropout that several adapters share: what reads the same gets the same."""

    def __init__(self, own: CheapDropout) -> None:
        super().__init__()
        self.own = own
        self.x: Tensor | None = None
        self.made = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        if x is not self.x:
            self.x, self.made = x, self.own(x)
        return self.made


def share_dropout(model: Any) -> None:
    """Between gate and up, as in the gated form."""
    for module in list(model.modules()):
        parts = dict(module.named_children())
        if {"gate_proj", "up_proj"} <= set(parts):
            shared = OneDraw(parts["gate_proj"].lora_dropout["default"])
            for name in ("gate_proj", "up_proj"):
                parts[name].lora_dropout["default"] = shared


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("form", [*FORMS, None])
def test_the_gradient_is_the_plain_one(
    architecture: str, dtype: torch.dtype, form: str | None
) -> None:
    plain, model = (model_of(architecture, dtype, dropout=0.2) for _ in range(2))
    if form in ("gated parts", None):
        share_dropout(plain)
    expected = gradient(plain)
    taken = use_fast_forms(model, None if form is None else [form])
    numbers = TAKEN[architecture] if dtype == torch.float32 else NOT_NORMS[architecture]
    assert taken == Counter(numbers if form is None else {form: numbers.get(form, 0)})
    distance = float((gradient(model) - expected).norm() / expected.norm())
    assert distance < (1e-10 if dtype == torch.float64 else 1e-5)
    assert expected.norm() > 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_on_a_base_in_bfloat16_the_gradient_is_about_as_exact(architecture: str) -> None:
    """Beside the same weights in float64, from which PEFT's own way is off by rounding too."""
    plain, fast, exact = (model_of(architecture, torch.bfloat16) for _ in range(3))
    assert use_fast_forms(fast) == Counter(TAKEN[architecture])
    expected = gradient(exact.double())
    off = [float((gradient(m).double() - expected).norm() / expected.norm()) for m in (plain, fast)]
    assert {p.dtype for p in fast.parameters() if p.requires_grad} == {torch.float32}
    assert 0.0 < off[1] < 1.5 * off[0], off


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_an_adapter_that_is_switched_off_or_folded_in(architecture: str) -> None:
    ids = torch.arange(40)[None, :]
    plain, fast = model_of(architecture), model_of(architecture)
    use_fast_forms(fast)
    with torch.no_grad():
        for model in (plain, fast):
            model.eval()
        torch.testing.assert_close(fast(input_ids=ids).logits, plain(input_ids=ids).logits)
        with plain.disable_adapter(), fast.disable_adapter():
            base = plain(input_ids=ids).logits
            torch.testing.assert_close(fast(input_ids=ids).logits, base)
        tuned = plain(input_ids=ids).logits
        fast.merge_adapter()
        torch.testing.assert_close(fast(input_ids=ids).logits, tuned)
        assert not torch.allclose(tuned, base)


def test_dora_takes_no_form_of_ours() -> None:
    plain, fast = model_of("llama", use_dora=True), model_of("llama", use_dora=True)
    assert use_fast_forms(fast, ["products"])["products"] == 15, "frozen layers alone"
    difference = gradient(fast) - gradient(plain)
    assert float(difference.norm()) < 1e-10 * float(gradient(plain).norm())


def test_a_copy_has_its_own_weights() -> None:
    model = model_of("llama")
    use_fast_forms(model)
    twin = copy.deepcopy(model)
    before = gradient(model)
    fill_lora_b(twin, seed=9)
    assert torch.equal(gradient(model), before)
    assert not torch.equal(gradient(twin), before)


def test_a_gated_part_of_another_kind_stays() -> None:
    model = model_of("llama")
    for module in model.modules():
        if hasattr(module, "act_fn"):
            module.act_fn = nn.ReLU()
    assert use_fast_forms(model)["gated parts"] == 0


class LimitedGate(nn.Module):
    """Named as Llama's gated part, and with a limit to its numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate_proj, self.up_proj = (nn.Linear(8, 12, bias=False) for _ in range(2))
        self.down_proj, self.act_fn = nn.Linear(12, 8, bias=False), nn.SiLU()
        self.limit = 50.0
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x).clamp(max=self.limit)
        made: Tensor = self.down_proj(self.act_fn(gate) * self.up_proj(x))
        return made


def test_a_gated_part_with_a_limit_stays() -> None:
    limited = LimitedGate()
    assert use_fast_forms(limited)["gated parts"] == 0
    limited = LimitedGate()
    limited.limit = float("inf")
    assert use_fast_forms(limited)["gated parts"] == 1


def test_a_layer_whose_bias_learns_stays() -> None:
    layer = nn.Linear(4, 4).requires_grad_(False)
    assert use_fast_forms(layer)["products"] == 1
    layer = nn.Linear(4, 4).requires_grad_(False)
    assert layer.bias is not None
    layer.bias.requires_grad_(True)
    assert use_fast_forms(layer)["products"] == 0


class OtherNorm(nn.Module):
    """Named as an RMSNorm, and none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8), requires_grad=False)
        self.variance_epsilon = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) * self.weight


def test_what_is_not_recognised_stays() -> None:
    norm = OtherNorm()
    assert use_fast_forms(norm) == Counter()
    learning = nn.Linear(4, 4)
    assert use_fast_forms(learning) == Counter()
    assert "forward" not in vars(norm) | vars(learning)


def test_the_user_is_told_what_is_faster_and_what_is_not() -> None:
    taken = Counter({"products": 15, "norms": 5})
    assert describe_forms(taken).startswith("Fast forms: 15 products, 5 norms (")
    assert describe_forms(Counter()).startswith("Fast forms: none fits this kind of model")
