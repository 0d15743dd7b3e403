"""Adapters: which layers, how many parameters, in and out of PEFT's format, whether they learn."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from honing.config import LoraConfig
from honing.errors import CheckFailed, UserError
from honing.model.lora import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    ParameterCount,
    adapter_to_save,
    adapter_weights,
    attach_lora,
    check_adapters_learn,
    count_parameters,
    layers_to_adapt,
    load_adapter,
    restore_adapter,
    trainable_parameters,
)
from tests.tiny import ARCHITECTURES, adapted_model, tiny_model

IDS = torch.arange(30).view(2, 15)

LAYERS = {
    "gpt2": ["c_attn", "c_fc", "c_proj"],
    "llama": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
    "qwen": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
    "gemma": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
    "gpt_neox": ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"],
}


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=IDS).logits
    return found


def adapted_names(model: Any) -> set[str]:
    return {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}


def saved(model: Any, folder: Path) -> Path:
    """An adapter folder as checkpoints have it, without what honing adds."""
    settings, weights = adapter_to_save(model)
    settings.save_pretrained(str(folder))
    tensors = {name: t.detach().contiguous() for name, t in weights.items()}
    save_file(tensors, folder / ADAPTER_WEIGHTS)
    return folder


# Which layers, and how many


def test_gpt2_small_has_the_first_drafts_parameters() -> None:
    with torch.device("meta"):
        base = GPT2LMHeadModel(GPT2Config())
    assert (base.config.n_layer, base.config.n_embd, base.config.vocab_size) == (12, 768, 50257)
    model = attach_lora(base, LoraConfig(rank=8, target_modules=["c_attn", "c_proj"]), 0)
    count = count_parameters(model)
    assert count == ParameterCount(trainable=811_008, total=125_250_816)
    assert str(count) == "811,008 of 125,250,816 parameters (0.65 %)"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_auto_takes_every_layer_of_the_blocks_and_no_head(architecture: str) -> None:
    base = tiny_model(architecture)
    assert layers_to_adapt(base) == LAYERS[architecture]
    model = attach_lora(base, LoraConfig(), 0)
    names = adapted_names(model)
    assert {name.rsplit(".", 1)[-1] for name in names} == set(LAYERS[architecture])
    per_block = {"gpt2": 4, "gpt_neox": 4}.get(architecture, 7)
    assert len(names) == 2 * per_block
    assert not any("head" in name or "embed" in name or "wte" in name for name in names)
    trainable = {name for name, _ in trainable_parameters(model)}
    assert trainable == {f"{n}.lora_{side}.default.weight" for n in names for side in "AB"}


class Named(nn.Module):
    """A model whose head has the name of a layer in its blocks."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        blocks = [nn.ModuleDict({"dense": nn.Linear(4, 4)}) for _ in range(num_blocks)]
        self.layers = nn.ModuleList(blocks)
        self.experts = nn.ModuleList([nn.LayerNorm(4)])
        self.dense = nn.Linear(4, 9)


def test_auto_uses_full_names_where_short_ones_mean_more_than_the_blocks() -> None:
    assert layers_to_adapt(Named(2)) == ["layers.0.dense", "layers.1.dense"]


def test_auto_without_blocks_asks_for_names() -> None:
    with pytest.raises(UserError) as caught:
        layers_to_adapt(nn.Linear(2, 2))
    assert str(caught.value) == (
        "lora.target_modules: auto finds no blocks in this model; name the layers to adapt"
    )


@pytest.mark.parametrize(
    ("named", "shown"),
    [(["c_attn", "q_proj", "v_proj"], "q_proj, v_proj"), ([], "(nothing)"), (["attn_"], "attn_")],
)
def test_a_layer_that_is_not_there(named: list[str], shown: str) -> None:
    with pytest.raises(UserError) as caught:
        attach_lora(tiny_model("gpt2"), LoraConfig(target_modules=named), 0)
    assert str(caught.value) == (
        f"lora.target_modules: no layer is named {shown}; this model has c_attn, c_fc, c_proj"
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("beside", [[], ["q_proj"]])
def test_the_output_layer_is_refused(architecture: str, beside: list[str]) -> None:
    """Its adapter would get no gradient, or the loss would leave it out."""
    base = tiny_model(architecture)
    head = next(n for n, module in base.named_modules() if module is base.get_output_embeddings())
    others = [LAYERS[architecture][0]] if beside else []
    with pytest.raises(UserError) as caught:
        attach_lora(base, LoraConfig(target_modules=[head, *others]), 0)
    assert str(caught.value) == (
        f"lora.target_modules: {head} names the model's output layer ({head}), to which honing "
        "fits no adapter; take it out of the list, or use lora.target_modules=auto"
    )


def test_an_output_layer_of_another_name_is_refused() -> None:
    base = tiny_model("llama")
    base.embed_out = base.lm_head  # as GPT-NeoX and others call theirs
    del base.lm_head
    base.get_output_embeddings = lambda: base.embed_out
    with pytest.raises(UserError, match=r"^lora.target_modules: embed_out names the model's outpu"):
        attach_lora(base, LoraConfig(target_modules=["embed_out"]), 0)


EMBEDDINGS = {
    "gpt2": "wte",
    "llama": "embed_tokens",
    "gemma": "embed_tokens",
    "gpt_neox": "embed_in",
}


@pytest.mark.parametrize(("architecture", "name"), EMBEDDINGS.items())
@pytest.mark.parametrize("init", ["default", "pissa"])
def test_an_embedding_is_adapted(architecture: str, name: str, init: Any, tmp_path: Path) -> None:
    """Tied or not, without a warning, and what is saved fits the untouched base."""
    config = LoraConfig(init=init, dropout=0.0, target_modules=[name, LAYERS[architecture][0]])
    model = attach_lora(tiny_model(architecture).eval(), config, 3)
    before = {key: tensor.clone() for key, tensor in adapter_weights(model).items()}
    one_step(model)
    embedded = [key for key in before if "lora_embedding_A" in key]
    assert len(embedded) == 1
    assert not torch.equal(adapter_weights(model)[embedded[0]], before[embedded[0]])
    folder = saved(model, tmp_path)
    loaded = load_adapter(tiny_model(architecture), folder)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-4, atol=1e-4)
    again = attach_lora(tiny_model(architecture), config, 3)
    restore_adapter(again, load_file(folder / ADAPTER_WEIGHTS), str(folder))
    assert torch.equal(logits(again), logits(model))


def test_a_layer_that_cannot_be_adapted() -> None:
    with pytest.raises(UserError, match=r"^lora: PEFT cannot adapt this model so \(Target module"):
        attach_lora(tiny_model("gpt2"), LoraConfig(target_modules=["ln_1", "attn"]), 0)


def test_conv1d_layers_are_stored_the_other_way_round() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT warns where it has to put this right
        gpt2 = attach_lora(tiny_model("gpt2"), LoraConfig(target_modules=["c_attn"]), 0)
        llama = attach_lora(tiny_model("llama"), LoraConfig(), 0)
    assert gpt2.peft_config["default"].fan_in_fan_out is True
    assert llama.peft_config["default"].fan_in_fan_out is False
    shapes = {name: tuple(t.shape) for name, t in adapter_weights(gpt2).items()}
    assert shapes["base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"] == (8, 32)
    assert shapes["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"] == (96, 8)


# What attaching does


def test_settings_reach_peft() -> None:
    config = LoraConfig(rank=4, alpha=12, dropout=0.25, use_rslora=True, use_dora=True)
    model = attach_lora(tiny_model("llama"), config, 0)
    settings = model.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.lora_dropout) == (4, 12, 0.25)
    assert (settings.use_rslora, settings.use_dora, settings.bias) == (True, True, "none")
    assert settings.task_type == "CAUSAL_LM"
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    assert layer.scaling["default"] == 12 / 2  # alpha over the root of the rank
    plain = attach_lora(tiny_model("llama"), LoraConfig(rank=4, alpha=12), 0)
    assert plain.base_model.model.model.layers[0].mlp.up_proj.scaling["default"] == 12 / 4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fresh_adapters_change_nothing_and_depend_on_the_seed_alone(architecture: str) -> None:
    before = logits(tiny_model(architecture))
    first = attach_lora(tiny_model(architecture), LoraConfig(), 3)
    assert torch.equal(logits(first), before)
    torch.rand(5)
    second = attach_lora(tiny_model(architecture), LoraConfig(), 3)
    other = attach_lora(tiny_model(architecture), LoraConfig(), 4)
    for name, tensor in adapter_weights(first).items():
        assert torch.equal(tensor, adapter_weights(second)[name])
        assert torch.equal(tensor, adapter_weights(other)[name]) == ("lora_B" in name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_adapters_are_float32_on_a_16_bit_base(dtype: torch.dtype, tmp_path: Path) -> None:
    model = adapted_model("llama", dtype)
    loaded = load_adapter(tiny_model("llama", dtype), saved(model, tmp_path))
    for each in (model, loaded):
        assert {p.dtype for _, p in trainable_parameters(each)} == {torch.float32}
        assert {p.dtype for p in each.parameters() if not p.requires_grad} == {dtype}


# The ways to start

INITS = ["default", "gaussian", "pissa", "olora", "orthogonal"]


def one_step(model: Any) -> None:
    optimizer = torch.optim.SGD([p for _, p in trainable_parameters(model)], lr=0.1)
    model(input_ids=IDS, labels=IDS).loss.backward()
    check_adapters_learn(model)
    optimizer.step()


@pytest.mark.parametrize(
    ("architecture", "init"),
    [("llama", init) for init in INITS] + [("gpt2", init) for init in INITS if init != "olora"],
)
def test_each_start_equals_the_base_and_trains(architecture: str, init: Any) -> None:
    before = logits(tiny_model(architecture))
    model = attach_lora(tiny_model(architecture), LoraConfig(init=init, dropout=0.0), 3)
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
    start = {name: tensor.clone() for name, tensor in adapter_weights(model).items()}
    one_step(model)
    moved = [name for name, t in adapter_weights(model).items() if not torch.equal(t, start[name])]
    still = {name for name in start if "lora_A" in name} if init in ("default", "gaussian") else {}
    assert set(moved) == set(start) - set(still)


def test_olora_on_conv1d_is_refused_as_peft_computes_it_wrongly() -> None:
    with pytest.raises(UserError) as caught:
        attach_lora(tiny_model("gpt2"), LoraConfig(init="olora"), 0)
    assert str(caught.value) == (
        "lora.init: olora, but PEFT computes it wrongly for the Conv1D layers of this model; "
        "use lora.init=pissa, or default"
    )


def test_a_start_that_peft_cannot_make() -> None:
    with pytest.raises(UserError) as caught:
        attach_lora(tiny_model("llama"), LoraConfig(init="orthogonal", rank=3), 0)
    assert str(caught.value) == (
        "lora: PEFT cannot adapt this model so (Orthogonal initialization requires the LoRA rank "
        "to be even, got 3 instead.)"
    )


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("extra", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_what_is_saved_fits_the_untouched_base(
    init: Any, extra: dict[str, Any], tmp_path: Path
) -> None:
    """PiSSA and OLoRA change the base's weights; the saved adapter must not need that."""
    config = LoraConfig(init=init, rank=4, dropout=0.0, **extra)
    model = attach_lora(tiny_model("llama"), config, 3)
    one_step(model)
    folder = saved(model, tmp_path)
    base = tiny_model("llama")
    untouched = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    ours = load_adapter(base, folder)
    torch.testing.assert_close(logits(ours), logits(model), rtol=1e-4, atol=1e-4)
    by_peft = peft.PeftModel.from_pretrained(tiny_model("llama"), str(folder))
    torch.testing.assert_close(logits(by_peft), logits(ours), rtol=0, atol=0)
    # The base below is the published one: what --base answers with.
    for name, tensor in ours.get_base_model().state_dict().items():
        if "lora_" not in name:
            assert torch.equal(tensor, untouched[name.replace(".base_layer", "")]), name
    with ours.disable_adapter():
        assert torch.equal(logits(ours), logits(tiny_model("llama")))
    # And training goes on from it where it stopped.
    again = attach_lora(tiny_model("llama"), config, 3)
    restore_adapter(again, load_file(folder / ADAPTER_WEIGHTS), str(folder))
    for name, tensor in adapter_weights(model).items():
        assert torch.equal(tensor, adapter_weights(again)[name]), name
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize(("init", "rank"), [("default", 4), ("pissa", 8), ("olora", 8)])
def test_rank_that_is_saved(init: Any, rank: int, tmp_path: Path) -> None:
    config = LoraConfig(init=init, rank=4, alpha=6)
    model = attach_lora(tiny_model("llama"), config, 3)
    folder = saved(model, tmp_path)
    settings = json.loads((folder / ADAPTER_CONFIG).read_text())
    assert (settings["r"], settings["lora_alpha"]) == (rank, 6 * rank / 4)
    assert settings["init_lora_weights"] is True
    assert settings["inference_mode"] is True
    assert model.peft_config["default"].r == 4
    assert model.peft_config["default"].inference_mode is False
    shapes = {tuple(t.shape) for n, t in load_file(folder / ADAPTER_WEIGHTS).items() if "_A" in n}
    assert shapes == {(rank, 32), (rank, 64)}


# Do they learn?


def test_adapters_with_a_gradient_pass_the_check() -> None:
    model = attach_lora(tiny_model("gpt2"), LoraConfig(dropout=0.0), 0)
    model(input_ids=IDS, labels=IDS).loss.backward()
    check_adapters_learn(model)


@pytest.mark.parametrize("gradient", ["none", "zero"])
def test_an_adapter_without_a_gradient_is_named(gradient: str) -> None:
    model = attach_lora(tiny_model("gpt2"), LoraConfig(dropout=0.0), 0)
    model(input_ids=IDS, labels=IDS).loss.backward()
    name = "base_model.model.transformer.h.1.mlp.c_fc.lora_B.default.weight"
    parameter = dict(model.named_parameters())[name]
    parameter.grad = None if gradient == "none" else torch.zeros_like(parameter)
    with pytest.raises(CheckFailed) as caught:
        check_adapters_learn(model)
    assert str(caught.value) == (
        "after the first step 1 of 8 adapters have no gradient and would never learn, the first "
        f"is {name}; please report this with your configuration"
    )


def test_a_model_that_is_cut_off_from_its_loss_fails_the_check() -> None:
    model = attach_lora(tiny_model("llama"), LoraConfig(), 0)
    with pytest.raises(CheckFailed, match=r"14 of 14 adapters have no gradient"):
        check_adapters_learn(model)
