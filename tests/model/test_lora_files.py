"""Adapter files: to PEFT and back, and what can be wrong with them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from honing.errors import UserError
from honing.model.lora import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    load_adapter,
    trainable_parameters,
)
from tests.model.test_lora import logits, saved
from tests.tiny import ARCHITECTURES, adapted_model, fill_lora_b, tiny_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_peft_alone_loads_ours_and_we_load_pefts(
    architecture: str, use_dora: bool, tmp_path: Path
) -> None:
    model = adapted_model(architecture, rank=4, use_dora=use_dora)
    expected = logits(model)
    assert not torch.allclose(expected, logits(tiny_model(architecture)))

    ours = saved(model, tmp_path / "ours")
    by_peft = peft.PeftModel.from_pretrained(tiny_model(architecture), str(ours))
    assert torch.equal(logits(by_peft), expected)

    model.save_pretrained(str(tmp_path / "pefts"))
    loaded = load_adapter(tiny_model(architecture), tmp_path / "pefts")
    assert torch.equal(logits(loaded), expected)
    assert len(trainable_parameters(loaded)) == len(trainable_parameters(model))


def test_an_adapter_that_peft_users_make_by_hand_loads(tmp_path: Path) -> None:
    settings = peft.LoraConfig(
        r=2, lora_alpha=8, target_modules=r".*\.(q|v)_proj", rank_pattern={"v_proj": 3}, bias="none"
    )
    model = peft.get_peft_model(tiny_model("qwen"), settings)
    fill_lora_b(model)
    model.save_pretrained(str(tmp_path))
    assert torch.equal(logits(load_adapter(tiny_model("qwen"), tmp_path)), logits(model))


def test_loading_says_nothing_where_the_base_lies_elsewhere(tmp_path: Path) -> None:
    folder = saved(adapted_model("llama"), tmp_path)
    settings = json.loads((folder / ADAPTER_CONFIG).read_text())
    settings["base_model_name_or_path"] = "/somewhere/else"
    (folder / ADAPTER_CONFIG).write_text(json.dumps(settings))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapter(tiny_model("llama"), folder)


def changed(folder: Path, change: Any) -> Path:
    weights = load_file(folder / ADAPTER_WEIGHTS)
    change(weights)
    save_file(weights, folder / ADAPTER_WEIGHTS)
    return folder


FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"


def drop(weights: dict[str, Tensor]) -> None:
    del weights[FIRST]


def add(weights: dict[str, Tensor]) -> None:
    weights["a.stranger"] = torch.zeros(1)


def reshape(weights: dict[str, Tensor]) -> None:
    weights[FIRST] = torch.zeros(8, 7)


@pytest.mark.parametrize(
    ("change", "first"), [(drop, FIRST), (add, "a.stranger"), (reshape, FIRST)]
)
def test_tensors_that_are_not_exactly_those_of_the_adapter(
    change: Any, first: str, tmp_path: Path
) -> None:
    folder = changed(saved(adapted_model("llama"), tmp_path), change)
    with pytest.raises(UserError) as caught:
        load_adapter(tiny_model("llama"), folder)
    assert str(caught.value) == (
        f"{folder}: this adapter does not fit the base model: 1 of 28 tensors differ, the first "
        f"is {first}; is it for another base?"
    )


def test_an_adapter_for_another_architecture(tmp_path: Path) -> None:
    folder = saved(adapted_model("gpt2"), tmp_path)
    with pytest.raises(UserError) as caught:
        load_adapter(tiny_model("llama"), folder)
    message = str(caught.value)
    assert message.startswith(f"{folder}: this adapter does not fit the base model (Target modules")
    assert "\n" not in message


def test_an_adapter_for_a_deeper_model_of_the_same_architecture(tmp_path: Path) -> None:
    folder = saved(adapted_model("llama"), tmp_path)
    base = tiny_model("llama")
    base.model.layers = base.model.layers[:1]
    with pytest.raises(UserError) as caught:
        load_adapter(base, folder)
    assert str(caught.value) == (
        f"{folder}: this adapter does not fit the base model: 14 of 14 tensors differ, the first "
        "is base_model.model.model.layers.1.mlp.down_proj.lora_A.weight; is it for another base?"
    )


def test_an_adapter_of_another_kind(tmp_path: Path) -> None:
    settings = peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[]
    )
    peft.get_peft_model(tiny_model("llama"), settings).save_pretrained(str(tmp_path))
    with pytest.raises(UserError) as caught:
        load_adapter(tiny_model("llama"), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds an adapter of type IA3; honing reads LoRA adapters"
    )


@pytest.mark.parametrize("broken", [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\x00" * 40, b'"text"'], ids=repr)
def test_an_adapter_that_cannot_be_read(broken: str, content: bytes | None, tmp_path: Path) -> None:
    folder = saved(adapted_model("llama"), tmp_path)
    if content is None:
        (folder / broken).unlink()
    else:
        (folder / broken).write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_adapter(tiny_model("llama"), folder)
    assert str(caught.value).startswith(f"{folder}: holds no adapter that can be read (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"r": "eight"}, {"r": -1}, {"target_modules": 3}])
def test_an_adapter_with_impossible_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(adapted_model("llama"), tmp_path)
    record = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**record, **settings}))
    with pytest.raises(UserError) as caught:
        load_adapter(tiny_model("llama"), folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)
