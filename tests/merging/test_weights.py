"""The sum itself: float64, rounded once, and embeddings that were one weight."""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Regex, pre_tokenizers
from transformers import AutoModelForCausalLM

from honing.config import Config
from honing.errors import UserError
from honing.generation.open_model import open_model
from honing.merging.difference import difference, logits_of, round_weights
from honing.merging.gguf_vocabulary import pre_tokenizer_name
from honing.merging.merge import merge
from honing.merging.weights import are_tied, merge_weights
from honing.model.lora import ADAPTER_WEIGHTS, adapter_to_save
from tests.merging.test_merge import quiet, trained, trained_on
from tests.tiny import (
    PAIRS,
    adapted_model,
    encoded,
    save_tiny_base,
    tiny_model,
    tiny_tokenizer,
)

ROWS = [list(tokens.ids) for tokens in encoded(PAIRS)]


def test_the_sum_is_rounded_once() -> None:
    adapted = adapted_model("llama", rank=4)
    layer = adapted.base_model.model.model.layers[1].mlp.up_proj
    a, b = layer.lora_A["default"].weight.double(), layer.lora_B["default"].weight.double()
    wanted = layer.base_layer.weight.double() + layer.scaling["default"] * (b @ a)
    merged = merge_weights(adapted, torch.bfloat16)
    found = merged.model.layers[1].mlp.up_proj.weight
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, wanted.to(torch.bfloat16))
    assert merged.model.rotary_emb.inv_freq.dtype == torch.float32


def adapted_by_peft(architecture: str, layer: str) -> Any:
    """With values that matter in both halves of the adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the tied embeddings, which are the point
        adapted = peft.get_peft_model(
            tiny_model(architecture),
            peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=[layer]),
        )
    generator = torch.Generator().manual_seed(5)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0.0, 0.3, generator=generator)
    return adapted


@pytest.mark.parametrize(
    ("architecture", "layer"),
    [("gpt2", "lm_head"), ("gemma", "lm_head"), ("gpt2", "wte"), ("gemma", "embed_tokens")],
)
def test_an_adapted_layer_is_untied_from_the_one_that_shares_its_weight(
    architecture: str, layer: str, tmp_path: Path
) -> None:
    """An adapter that PEFT wrote, which belongs to no run and says nothing of a template."""
    base = save_tiny_base(tmp_path / "base", architecture)
    adapted = adapted_by_peft(architecture, layer)
    settings, weights = adapter_to_save(adapted)
    settings.base_model_name_or_path = str(base)
    settings.save_pretrained(str(tmp_path / "adapter"))
    save_file(weights, tmp_path / "adapter" / ADAPTER_WEIGHTS)
    done = merge(str(tmp_path / "adapter"), str(tmp_path / "merged"), say=quiet)
    assert done.record["tied_embeddings"] is False
    assert done.record["compared_on"]["split"] == "built-in questions"
    model = AutoModelForCausalLM.from_pretrained(done.folder).eval()
    assert not are_tied(model)
    untouched = AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    assert sum(torch.equal(each.weight, untouched) for each in layers) == 1
    found = difference(logits_of(adapted.eval(), ROWS), logits_of(model, ROWS))
    assert found.max_abs_logit < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a user is shown nothing of what the merge has settled
        folded = open_model(str(tmp_path / "adapter"), Config(device="cpu")).model
    assert difference(logits_of(adapted, ROWS), logits_of(folded, ROWS)).max_abs_logit < 1e-5


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    run = trained(tmp_path, "gpt2")
    done = merge(str(run.root), say=quiet)
    assert done.record["tied_embeddings"] is True
    assert are_tied(AutoModelForCausalLM.from_pretrained(done.folder))


def test_a_base_in_bfloat16_is_merged_to_bfloat16(tmp_path: Path) -> None:
    run = trained(tmp_path, "llama")
    # The same weights to the fingerprint, which looks at them in bfloat16.
    tiny_model("llama", torch.bfloat16).save_pretrained(tmp_path / "base")
    done = merge(str(run.root), say=quiet)
    assert done.record["dtype"] == done.record["base_dtype"] == "bfloat16"
    assert AutoModelForCausalLM.from_pretrained(done.folder, dtype="auto").dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["llama", "gemma"])
def test_dora_on_a_base_in_16_bits_merges_within_rounding(
    architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """DoRA's norms are of the base's weights: computed in 16 bits they would be others. Gemma's
    embeddings have a factor that loading rounds."""
    base = save_tiny_base(tmp_path / "base", architecture, dtype=dtype)
    run = trained_on(base, "lora.use_dora=true")
    name = str(dtype).removeprefix("torch.")
    wide = merge(str(run.root), str(tmp_path / "wide"), dtype="float32", say=quiet).record
    assert (wide["dtype"], wide["base_dtype"]) == ("float32", name)
    assert wide["difference"]["max_abs_logit"] < 2e-5 < wide["effect_of_adapter"]["max_abs_logit"]
    own = merge(str(run.root), say=quiet).record
    assert own["dtype"] == name
    rounding = own["effect_of_rounding"]["max_abs_logit"]
    assert own["difference"]["max_abs_logit"] < 2 * rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma"])
def test_the_probe_of_rounding_foretells_what_a_merge_rounds(
    architecture: str, dtype: torch.dtype
) -> None:
    model = adapted_model(architecture, rank=4)
    tuned = list(logits_of(model, ROWS))
    round_weights(model, dtype)
    probe = difference(tuned, logits_of(model, ROWS))
    merged = merge_weights(adapted_model(architecture, rank=4), dtype).float()
    found = difference(tuned, logits_of(merged, ROWS))
    assert probe.mean_kl_nats / 2 < found.mean_kl_nats < 2 * probe.mean_kl_nats


def test_the_probe_rounds_weights_that_are_stored_in_this_type_already() -> None:
    model = adapted_model("llama", torch.bfloat16).float()
    tuned = list(logits_of(model, ROWS))
    round_weights(model, torch.bfloat16)
    assert difference(tuned, logits_of(model, ROWS)).max_abs_logit > 1e-3


def test_the_way_words_are_cut_is_recognised_or_refused() -> None:
    tokenizer = deepcopy(tiny_tokenizer())
    assert pre_tokenizer_name(tokenizer) == "gpt-2"
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, whole])
    assert pre_tokenizer_name(tokenizer) == "smollm"
    qwen = Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = pre_tokenizers.Split(qwen, "isolated")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    assert pre_tokenizer_name(tokenizer) == "qwen2"
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UserError, match="this tokenizer is not written"):
        pre_tokenizer_name(tokenizer)
