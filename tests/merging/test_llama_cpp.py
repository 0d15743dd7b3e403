"""GGUF files run in llama.cpp itself, where a package of it is installed; skipped without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from honing.data.encode import Tokens
from honing.errors import CheckFailed
from honing.generation.decode import AnswerIds, Ends
from honing.merging.difference import difference, logits_of
from honing.merging.gguf_export import write_gguf
from honing.merging.gguf_verify import verify_gguf
from honing.merging.llama_cpp_check import package_installed
from honing.merging.reference import Reference
from tests.tiny import tiny_tokenizer

pytest.importorskip("gguf")

_SHAPE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": 320}
MODELS: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE)),
    "llama, tied, with biases": lambda: LlamaForCausalLM(
        LlamaConfig(**_SHAPE, tie_word_embeddings=True, attention_bias=True)
    ),
    "llama 3": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE, rope_parameters=_STRETCHED)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_SHAPE, head_dim=32)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(**_GPT2, initializer_range=0.2, bos_token_id=0, eos_token_id=0)
    ),
}


@pytest.fixture(scope="module")
def llama_cpp() -> str:
    package = package_installed()
    if package is None:
        pytest.skip("needs llama.cpp (PyPI xllamacpp or llama-cpp-python), which is not installed")
    return package


def saved(folder: Path, name: str, seed: int = 0) -> Any:
    """A random model whose biases are not zero, in a folder with its tokenizer."""
    torch.manual_seed(seed)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model


def reference_of(model: Any) -> Reference:
    """One row of 100 ids, the last 60 of them as if they were an answer."""
    row = tuple((7 * place) % 300 + 5 for place in range(100))
    logits = tuple(logits_of(model, [row]))
    far = difference(logits, [torch.zeros_like(logits[0])])
    return Reference(
        split="made up",
        examples=(),
        rows=(row,),
        logits=logits,
        largest_logit=float(logits[0].abs().max()),
        effect=far,
        rounding=far,
        questions=(Tokens("rows:1", row[:40], (-100,) * 40),),
        answers=(AnswerIds(row[40:], "length", 0.0),),
        ends=Ends((0,)),
    )


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_computes_the_same_model(name: str, tmp_path: Path, llama_cpp: str) -> None:
    model = saved(tmp_path, name)
    path = tmp_path / "model-f32.gguf"
    write_gguf(tmp_path, path, "f32", (0,))
    checked = verify_gguf(tmp_path, path, "f32", reference_of(model)).llama_cpp
    assert checked is not None
    assert checked.package == llama_cpp
    assert checked.num_positions + checked.num_untold == 61
    assert checked.num_agreeing == checked.num_positions
    # Its GELU, which GPT-2 alone has here, is a table of 16-bit values.
    assert checked.mean_nats < (1e-3 if name == "gpt2" else 1e-5)


def test_other_weights_are_noticed_by_llama_cpp(
    tmp_path: Path, llama_cpp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of Llama's queries left as transformers has them: what a forgotten step would do."""
    assert llama_cpp
    model = saved(tmp_path, "llama")
    path = tmp_path / "model-f32.gguf"
    monkeypatch.setattr("honing.merging.gguf_shapes._interleaved", lambda tensor, _: tensor)
    write_gguf(tmp_path, path, "f32", (0,))
    monkeypatch.setattr("honing.merging.gguf_shapes._in_halves", lambda tensor, _: tensor)
    with pytest.raises(CheckFailed, match="llama_cpp_close"):
        verify_gguf(tmp_path, path, "f32", reference_of(model))
