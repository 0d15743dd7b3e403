"""The one way through a model gives what the model's own forward gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from honing.config import LoraConfig
from honing.errors import UserError
from honing.model.attention import NAME
from honing.model.forward import (
    head_of,
    hidden_states,
    plain_model,
    use_isolated_attention,
)
from honing.model.lora import attach_lora
from tests.tiny import ARCHITECTURES, adapted_model, tiny_model

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
SQUASHED = {"head_dim": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 2.0}


def random_model(family: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SHAPE, **settings})
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def through(model: Any, ids: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    with torch.no_grad():
        return head_of(model)(hidden_states(model, ids, positions, torch.ones_like(ids), None))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_head_over_hidden_states_is_the_models_own_logits(architecture: str) -> None:
    model = adapted_model(architecture)
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad():
        own = model(input_ids=ids).logits
    use_isolated_attention(model)
    assert plain_model(model).config._attn_implementation == NAME
    torch.testing.assert_close(through(model, ids), own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("Gemma2", SQUASHED),
        ("Gemma3", {"final_logit_softcapping": 2.0, "head_dim": 8}),
        ("Granite", {"logits_scaling": 8.0}),
        ("HyperCLOVAX", {"logits_scaling": 0.125}),
        ("Cohere", {"logit_scale": 0.0625}),
    ],
)
def test_what_some_models_do_to_their_logits(family: str, settings: dict[str, Any]) -> None:
    if family == "Gemma3":
        torch.manual_seed(0)
        config = transformers.Gemma3TextConfig(**{**SHAPE, **settings})
        model = transformers.Gemma3ForCausalLM(config).eval()
    else:
        model = random_model(family, **settings)
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad():
        own = model(input_ids=ids).logits
        unchanged = model.get_output_embeddings()(model.model(input_ids=ids).last_hidden_state)
    use_isolated_attention(model)
    torch.testing.assert_close(through(model, ids), own, rtol=1e-5, atol=1e-5)
    assert float((unchanged - own).norm() / own.norm()) > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_changes_nothing_at_the_tokens(architecture: str) -> None:
    model = adapted_model(architecture)
    use_isolated_attention(model)
    ids = torch.arange(24).view(2, 12)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    positions = torch.arange(12).expand(2, 12)
    with torch.no_grad():
        padded = hidden_states(model, ids, positions, mask, None)[1, :5]
        alone = hidden_states(model, ids[1:, :5], positions[1:, :5], mask[1:, :5], None)[0]
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-5)


def test_plain_model_is_the_one_inside_pefts_wrapper() -> None:
    base = tiny_model("llama")
    assert plain_model(base) is base
    assert plain_model(attach_lora(base, LoraConfig(), 0)) is base


def test_a_model_whose_scores_are_not_known_here_is_refused() -> None:
    """GPT-OSS adds a sink to each softmax, which torch's fused attention leaves out silently."""
    model = random_model("GptOss", head_dim=8, num_local_experts=4)
    for decoder_layer in model.model.layers:
        nn.init.normal_(decoder_layer.self_attn.sinks, std=3.0)
    for _ in range(2):  # and again: the model is left as it was
        with pytest.raises(UserError) as caught:
            use_isolated_attention(model)
        assert str(caught.value) == (
            "model.base: honing cannot train models of type gpt_oss: the loss that it computes "
            "would not be the model's own"
        )
    assert model.config._attn_implementation == "eager"


def test_a_model_that_changes_its_logits_in_another_way_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("honing.model.forward._logit_factor", lambda config: 1.0)
    with pytest.raises(UserError, match="models of type granite"):
        use_isolated_attention(random_model("Granite", logits_scaling=8.0))
