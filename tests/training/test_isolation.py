"""Packing is switched on where it was seen to work, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

import honing.model.attention
from honing.config import LoraConfig
from honing.data.encode import IGNORE, Tokens
from honing.errors import UserError
from honing.model.lora import attach_lora
from honing.training.isolation import packing_works
from honing.training.trainer import Trainer
from tests.tiny import (
    ARCHITECTURES,
    PAIRS,
    adapted_model,
    encoded,
    switch_off_dropout,
    tiny_model,
    train_settings,
)

ROWS = encoded(PAIRS)
COMMON = {"vocab_size": 320, "initializer_range": 0.2}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **COMMON}
GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 256}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, **COMMON}

# What mixes tokens in another way than through an attention that can be replaced.
UNPACKABLE: dict[str, dict[str, Any]] = {
    "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, **COMMON},  # ALiBi
    "Falcon": {**SHAPE, "alibi": False},  # an attention of its own
    "Lfm2": {**SHAPE, **GROUPED, "layer_types": ["conv", "full_attention"]},  # convolutions
    "RecurrentGemma": {  # recurrent states and convolutions
        **SHAPE,
        "intermediate_size": 64,
        "lru_width": 32,
        "attention_window_size": 8,
        "block_types": ["recurrent", "attention"],
        "pad_token_id": 0,
    },
    "OpenAIGPT": GPT,  # takes no lengths, and leaks little
}
# Architectures whose attention stays their own: transformers masks a packed row by its positions.
PACKABLE: dict[str, dict[str, Any]] = {
    "GPTNeo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
        "max_position_embeddings": 256,
        **COMMON,
    },
    "OPT": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "word_embed_proj_dim": 32,
        "vocab_size": 320,
        "max_position_embeddings": 256,
        "init_std": 0.2,
    },
}


def random_model(family: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(bos_token_id=0, eos_token_id=0, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    switch_off_dropout(model)
    return model.requires_grad_(False)


def own_loss(model: Any, rows: list[Tokens]) -> float:
    """transformers' own, each row alone."""
    total = 0.0
    with torch.no_grad():
        for row in rows:
            logits = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, :-1]
            labels = torch.tensor(row.labels[1:])
            total += float(
                cross_entropy(logits.double(), labels, ignore_index=IGNORE, reduction="sum")
            )
    return total


@pytest.fixture(autouse=True)
def quiet_transformers() -> Any:
    """As load_model does: it warns of each attention that cannot be replaced."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_packing_works_on_the_usual_architectures(architecture: str, dtype: torch.dtype) -> None:
    model = adapted_model(architecture, dtype)
    before = model.get_base_model().config._attn_implementation
    states = torch.get_rng_state()
    assert packing_works(model, ROWS, "cpu")
    assert model.get_base_model().config._attn_implementation == before
    assert torch.equal(torch.get_rng_state(), states)


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[:2], encoded([("긴 " * 50, "답")] * 3)])
def test_one_row_or_long_ones_are_enough_to_tell(rows: list[Tokens]) -> None:
    assert packing_works(tiny_model("llama"), rows, "cpu")
    assert not packing_works(random_model("Bloom", UNPACKABLE["Bloom"]), rows, "cpu")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_that_is_not_isolated_is_seen(
    architecture: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignore_lengths(monkeypatch)
    assert not packing_works(tiny_model(architecture, dtype), ROWS, "cpu")


def ignore_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """One segment where there are several."""
    isolated = honing.model.attention.isolated_attention

    def broken(*arguments: Any, segment_lengths: Any = None, **options: Any) -> Any:
        whole = None if segment_lengths is None else (sum(segment_lengths),)
        return isolated(*arguments, segment_lengths=whole, **options)

    functions = transformers.AttentionInterface._global_mapping
    monkeypatch.setitem(functions, honing.model.attention.NAME, broken)


def test_a_head_that_is_not_known_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SHAPE, **GROUPED, "logits_scaling": 8.0}
    assert packing_works(random_model("Granite", settings), ROWS, "cpu")
    monkeypatch.setattr("honing.model.forward._logit_factor", lambda config: 1.0)
    assert not packing_works(random_model("Granite", settings), ROWS, "cpu")


@pytest.mark.parametrize("family", UNPACKABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_other_architectures_are_not_packed(family: str, dtype: torch.dtype) -> None:
    assert not packing_works(random_model(family, UNPACKABLE[family]).to(dtype), ROWS, "cpu")


@pytest.mark.parametrize("family", [*UNPACKABLE, *PACKABLE])
def test_without_packing_the_loss_is_transformers_own(family: str) -> None:
    """And the adapters learn: one step changes it."""
    model = random_model(family, (UNPACKABLE | PACKABLE)[family])
    expected = own_loss(model, ROWS)
    settings = train_settings(micro_batch_size=4, max_steps=1)
    trainer = Trainer(attach_lora(model, LoraConfig(dropout=0.0), 0), ROWS, ROWS, settings, seed=0)
    assert trainer.evaluate()[0] == pytest.approx(expected, rel=2e-6)
    trainer.train()
    assert trainer.evaluate()[0] < expected


@pytest.mark.parametrize("family", PACKABLE)
def test_architectures_with_an_attention_of_their_own_can_be_packed(family: str) -> None:
    model = random_model(family, PACKABLE[family])
    assert packing_works(model, ROWS, "cpu")
    expected = own_loss(model, ROWS)
    settings = train_settings(micro_batch_size=4, packing=True)
    trainer = Trainer(attach_lora(model, LoraConfig(dropout=0.0), 0), ROWS, ROWS, settings, seed=0)
    assert trainer.evaluate()[0] == pytest.approx(expected, rel=2e-6)


def test_a_model_that_fails_under_its_adapters_is_refused_in_one_line() -> None:
    """Llama 4's router is a linear layer that gives two things, which PEFT cannot adapt."""
    settings = {
        **SHAPE,
        **GROUPED,
        "head_dim": 8,
        "num_local_experts": 2,
        "attention_chunk_size": 8,
    }
    model = attach_lora(random_model("Llama4Text", settings), LoraConfig(), 0)
    assert not packing_works(model, ROWS, "cpu")
    with pytest.raises(UserError, match="honing cannot train models of type llama4_text"):
        Trainer(model, ROWS, ROWS, train_settings(), seed=0)


def test_a_trainer_that_is_told_to_pack_them_refuses() -> None:
    model = attach_lora(random_model("Bloom", UNPACKABLE["Bloom"]), LoraConfig(), 0)
    with pytest.raises(UserError, match=r"train.packing: examples in one row would see each other"):
        Trainer(model, ROWS, ROWS, train_settings(packing=True), seed=0)
