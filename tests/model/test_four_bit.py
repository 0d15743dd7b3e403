"""A base in 4 bits: the weights that transformers makes of it, and one line where it cannot be."""

from __future__ import annotations

import copy
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from honing.config import Config, LoraConfig, ModelConfig, TrainConfig
from honing.errors import UserError
from honing.generation.open_model import fold_adapter
from honing.model.fast_forms import use_fast_forms
from honing.model.forward import plain_model, use_isolated_attention
from honing.model.four_bit import (
    check_four_bit,
    check_settings,
    expand,
    is_in_4bit,
    num_bytes,
    num_values,
    saved_bytes,
)
from honing.model.load import find_base, load_model
from honing.model.lora import attach_lora, count_parameters
from honing.model.plan import resident_bytes
from honing.training.train import train
from tests.runs import qa_rows, save_rows, small_config
from tests.tiny import ARCHITECTURES, fill_lora_b, save_tiny_base

IDS = torch.arange(3, 60)[None, :]


@pytest.fixture
def bitsandbytes() -> Any:
    """The library, where it is installed: it is in none of honing's usual extras."""
    return pytest.importorskip("bitsandbytes")


def loaded(base: Path, dtype: str = "float32", *, in_4bit: bool = True) -> Any:
    return load_model(find_base(ModelConfig(base=str(base), load_in_4bit=in_4bit)), dtype, "cpu")


def adapted(base: Path, dtype: str = "float32", **settings: Any) -> Any:
    model = attach_lora(loaded(base, dtype), LoraConfig(dropout=0.0, **settings), seed=0)
    fill_lora_b(model)
    return model


def in_4bit(model: Any) -> dict[str, Any]:
    """The weights that are packed, by name."""
    return {name: w for name, w in model.named_parameters() if hasattr(w, "quant_state")}


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS).logits
    return found


def error_of(*overrides: str) -> str:
    """Of a training whose base and rows are not even there."""
    with pytest.raises(UserError) as error:
        train(small_config(Path("no-base"), "no-rows", Path("no-run"), *overrides))
    return str(error.value)


# --- where it cannot be


def test_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert error_of("model.load_in_4bit=true") == (
        "model.load_in_4bit: true, but bitsandbytes is not installed; pip install 'honing[4bit]', "
        "or use model.load_in_4bit=false"
    )


def test_where_bitsandbytes_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    assert error_of("model.load_in_4bit=true") == (
        "model.load_in_4bit: true, but bitsandbytes does not work on this machine's cpu (module "
        "'bitsandbytes' has no attribute 'nn'); pip install -U 'honing[4bit]', or use "
        "model.load_in_4bit=false"
    )


def test_on_a_device_without_it() -> None:
    with pytest.raises(UserError) as error:
        check_four_bit("mps")
    assert str(error.value) == (
        "model.load_in_4bit: true, but bitsandbytes is not used on mps; use device=cpu, or use "
        "model.load_in_4bit=false"
    )


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_adapters_out_of_the_bases_weights(init: str) -> None:
    assert error_of("model.load_in_4bit=true", f"lora.init={init}") == (
        f"lora.init: {init} takes the adapter out of the base's weights, which "
        "model.load_in_4bit has rounded; use lora.init=default"
    )


def test_a_divided_base() -> None:
    with pytest.raises(UserError) as error:
        check_settings(Config(train=TrainConfig(shard_base=True)))
    assert str(error.value) == (
        "train.shard_base: does not go with model.load_in_4bit; use one of the two"
    )


# --- the weights


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.usefixtures("bitsandbytes")
def test_the_weights_are_those_of_transformers(
    architecture: str, stored: torch.dtype, tmp_path: Path
) -> None:
    base = save_tiny_base(tmp_path, architecture, dtype=stored)
    expected = AutoModelForCausalLM.from_pretrained(
        base,
        dtype="auto",
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        ),
    )
    found, wanted = in_4bit(loaded(base)), in_4bit(expected)
    assert list(found) == list(wanted)
    for name, weight in wanted.items():
        assert torch.equal(found[name].data, weight.data), name
        own, other = found[name].quant_state, weight.quant_state
        assert torch.equal(own.absmax, other.absmax), name
        assert torch.equal(own.state2.absmax, other.state2.absmax), name
        assert torch.equal(own.offset, other.offset), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.usefixtures("bitsandbytes")
def test_expanded_it_is_a_plain_model_of_the_same_logits(architecture: str, tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path, architecture)
    model, plain = loaded(base), loaded(base, in_4bit=False)
    before = logits(model)
    expand(model)
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    shapes = [{name: w.shape for name, w in m.state_dict().items()} for m in (model, plain)]
    assert shapes[0] == shapes[1]
    assert torch.allclose(logits(model), before, rtol=0, atol=1e-5)
    assert float((logits(plain) - before).abs().max()) > 0.1
    assert not is_in_4bit(model)


@pytest.mark.usefixtures("bitsandbytes")
def test_the_fingerprint_is_the_published_bases(tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path, dtype=torch.bfloat16)
    plain = loaded(base, in_4bit=False).honing_fingerprint
    assert loaded(base).honing_fingerprint == loaded(base, "bfloat16").honing_fingerprint == plain


@pytest.mark.usefixtures("bitsandbytes")
def test_the_base_is_the_same_in_every_number_type(tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path)
    found, other = in_4bit(loaded(base)), in_4bit(loaded(base, "bfloat16"))
    assert all(torch.equal(found[name].data, other[name].data) for name in found)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.usefixtures("bitsandbytes")
def test_numbers_are_counted_and_not_their_bytes(architecture: str, tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path, architecture)
    model, plain = loaded(base), loaded(base, in_4bit=False)
    assert count_parameters(model).total == count_parameters(plain).total
    weights = in_4bit(model)
    assert {num_values(w) for w in weights.values()} == {
        m.weight.numel()
        for name, m in plain.named_modules()
        if isinstance(m, nn.Linear | Conv1D) and name != "lm_head"
    }
    for weight in weights.values():
        scales = -(-num_values(weight) // 64)  # a byte for 64 numbers, 4 more for 256 of those
        assert num_bytes(weight) == num_values(weight) // 2 + scales + 4 * -(-scales // 256)
    saved = sum(4 * num_values(w) - num_bytes(w) for w in weights.values())
    assert resident_bytes(plain, "cpu") - resident_bytes(model, "cpu") == saved


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.usefixtures("bitsandbytes")
def test_what_would_be_saved(architecture: str, tmp_path: Path) -> None:
    """As it turns out, but for the scales; adapters are not counted."""
    base = save_tiny_base(tmp_path, architecture)
    model, plain = loaded(base), loaded(base, in_4bit=False)
    scales = sum(num_bytes(w) - w.nbytes for w in in_4bit(model).values())
    saved = resident_bytes(plain, "cpu") - resident_bytes(model, "cpu") + scales
    assert saved_bytes(plain) == saved > 0
    adapted_model = attach_lora(plain, LoraConfig(), seed=0)
    assert saved_bytes(plain_model(adapted_model)) == saved
    assert saved_bytes(model) == 0


# --- training and answering


def gradient(model: Any) -> Tensor:
    model.train()
    model.zero_grad()
    torch.autograd.backward(model(input_ids=IDS).logits.log_softmax(-1)[..., 7].sum())
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.usefixtures("bitsandbytes")
def test_the_gradient_is_that_of_the_expanded_base(architecture: str, tmp_path: Path) -> None:
    """Also behind an answer: bitsandbytes' own layers have none any more on some CPUs."""
    model = adapted(save_tiny_base(tmp_path, architecture))
    logits(model.eval())
    found = gradient(model)
    expand(model)
    expected = gradient(model)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.usefixtures("bitsandbytes")
def test_the_way_through_the_model_is_its_own(tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        use_isolated_attention(loaded(save_tiny_base(tmp_path), dtype))


@pytest.mark.usefixtures("bitsandbytes")
def test_no_fast_form_reads_packed_weights(tmp_path: Path) -> None:
    """Of the products the head's alone is taken."""
    model = adapted(save_tiny_base(tmp_path))
    expected = gradient(copy.deepcopy(model))
    assert use_fast_forms(model) == Counter({"products": 1, "norms": 5})
    found = gradient(model)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.usefixtures("bitsandbytes")
def test_no_adapter_is_folded_into_4_bits(tmp_path: Path) -> None:
    model = adapted(save_tiny_base(tmp_path))
    before = logits(model.eval())
    fold_adapter(model)
    assert torch.equal(logits(model), before)
    assert not any(getattr(module, "merged", False) for module in model.modules())


@pytest.mark.usefixtures("bitsandbytes")
def test_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path / "base")
    rows = save_rows(tmp_path / "rows.jsonl", qa_rows())
    four = ("model.load_in_4bit=true", "train.max_steps=4", "train.epochs=4")
    whole = small_config(base, rows, tmp_path / "whole", *four)
    train(whole, say=lambda _: None)
    cut = small_config(base, rows, tmp_path / "cut", *four)
    train(cut, stop_after=2, say=lambda _: None)
    other = small_config(base, rows, tmp_path / "cut", *four, "model.load_in_4bit=false")
    with pytest.raises(UserError, match=r"model.load_in_4bit \(True there, False here\)"):
        train(other, resume=True, say=lambda _: None)
    train(cut, resume=True, say=lambda _: None)
    name = "checkpoints/final/adapter_model.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
