"""Loading a base, and what can be wrong with it. Names: test_load_names.py."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from honing.config import EMBEDDED_BASE, ModelConfig
from honing.data.template import TEMPLATES, Template
from honing.errors import UserError
from honing.model.load import (
    Base,
    chat_renderer,
    context_length,
    find_base,
    fingerprint_of,
    load_model,
    load_tokenizer,
    text_encoder,
    text_model,
)
from tests.tiny import (
    ARCHITECTURES,
    CHAT_TEMPLATE,
    save_tiny_base,
    tiny_model,
    tiny_tokenizer,
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is tried fails the test, whatever the libraries make of the error."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def refuse(*arguments: Any) -> None:
        pytest.fail(f"a connection was tried: {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def base_at(folder: Path) -> Base:
    return find_base(ModelConfig(base=str(folder)))


def error_of(action: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


# Loading


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_loads_without_a_network(
    architecture: str, tmp_path: Path, no_network: None
) -> None:
    base = base_at(save_tiny_base(tmp_path / "base", architecture))
    model = load_model(base, "float32", "cpu")
    ids = torch.arange(12)[None, :]
    assert torch.equal(model(ids).logits, tiny_model(architecture)(ids).logits)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert load_tokenizer(base).eos_token == "<|end|>"
    assert context_length(base) == 256


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_number_type_of_the_weights_and_of_nothing_else(architecture: str, tmp_path: Path) -> None:
    """Rotary frequencies rounded to bfloat16 would put positions a radian off."""
    base = base_at(save_tiny_base(tmp_path / "base", architecture))
    model = load_model(base, "bfloat16", "cpu")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    buffers = dict(load_model(base, "float32", "cpu").named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    ids = torch.arange(12)[None, :]
    own = tiny_model(architecture)
    for parameter in own.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    assert torch.equal(model(ids).logits, own(ids).logits)


def test_the_bases_own_dropout_is_off(tmp_path: Path) -> None:
    folder = save_tiny_base(tmp_path / "gpt2", "gpt2")
    rates = [m.p for m in tiny_model("gpt2").modules() if isinstance(m, nn.Dropout)]
    assert set(rates) == {0.1}
    model = load_model(base_at(folder), "float32", "cpu").train()
    loaded = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert loaded == [0.0] * len(rates)
    ids = torch.arange(12)[None, :]
    assert torch.equal(model(ids).logits, model.eval()(ids).logits)


def test_dropout_that_is_kept_as_a_plain_number_is_off_too(tmp_path: Path) -> None:
    """Llama's attention keeps its rate in an attribute, not in a module."""
    folder = save_tiny_base(tmp_path / "llama")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "attention_dropout": 0.5}))
    model = load_model(base_at(folder), "float32", "cpu").train()
    assert model.model.layers[0].self_attn.attention_dropout == 0.0
    ids = torch.arange(12)[None, :]
    assert torch.equal(model(ids).logits, model.eval()(ids).logits)


def test_a_model_that_torchs_fused_attention_does_not_fit(tmp_path: Path) -> None:
    config = Gemma2Config(
        vocab_size=320,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    model = load_model(base_at(tmp_path), "float32", "cpu")
    assert model.config._attn_implementation == "eager"


# What can be wrong with a base


def test_a_hub_id_that_cannot_be_reached() -> None:
    base = find_base(ModelConfig(base="nobody/no-such-model"))
    for action in (load_tokenizer, context_length, lambda b: load_model(b, "float32", "cpu")):
        assert error_of(lambda action=action: action(base)) == (  # type: ignore[misc]
            "model.base: nobody/no-such-model: no such folder here, and the Hub cannot be reached; "
            f"name a local folder or .gguf file, or use the embedded base {EMBEDDED_BASE}"
        )


def test_a_hub_id_that_the_hub_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**arguments: Any) -> None:
        assert not arguments["local_files_only"]
        raise OSError("nobody/no-such-model is not a\nvalid model identifier")

    monkeypatch.setattr("honing.model.load.hub_is_reachable", lambda: True)
    monkeypatch.setattr("honing.model.load.AutoTokenizer.from_pretrained", fail)
    base = find_base(ModelConfig(base="nobody/no-such-model"))
    assert error_of(lambda: load_tokenizer(base)) == (
        "model.base: nobody/no-such-model: no such folder here, and the Hub gives no tokenizer of "
        "that name (nobody/no-such-model is not a valid model identifier); check the spelling"
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError("You are trying to access a gated repo."), "the Hub does not give this model"),
        (OSError("401 Client Error: Unauthorized"), "the Hub does not give this model"),
        (ValueError("set `trust_remote_code=True`"), "comes with Python code of its own"),
        (MemoryError(), "does not fit in memory"),
        (RuntimeError("CUDA out of memory. Tried"), "does not fit in memory"),
    ],
)
def test_what_the_libraries_say_of_a_hub_model(
    error: Exception, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**arguments: Any) -> None:
        raise error

    monkeypatch.setattr("honing.model.load.AutoTokenizer.from_pretrained", fail)
    message = error_of(lambda: load_tokenizer(find_base(ModelConfig(base="some/model"))))
    assert message.startswith(f"model.base: some/model: {text}")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder for a test to damage."""
    return save_tiny_base(tmp_path / "base")


def load_error(folder: Path) -> str:
    message = error_of(lambda: load_model(base_at(folder), "float32", "cpu"))
    prefix = f"model.base: {folder}: "
    assert message.startswith(prefix)
    return message.removeprefix(prefix)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model_type": "no-such-type"}'])
def test_a_broken_configuration(broken: Path, content: str) -> None:
    (broken / "config.json").write_text(content)
    assert load_error(broken).startswith("its model cannot be loaded (")


def test_no_weights(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    assert load_error(broken).startswith("its model cannot be loaded (Error no file named model.")


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_weights_that_are_none(broken: Path, content: bytes) -> None:
    (broken / "model.safetensors").write_bytes(content)
    assert load_error(broken).startswith("its model cannot be loaded (")


def test_weights_that_are_not_complete_are_not_filled_with_random_ones(broken: Path) -> None:
    weights = load_file(broken / "model.safetensors")
    for name in ("model.layers.1.mlp.up_proj.weight", "model.norm.weight"):
        del weights[name]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert load_error(broken) == (
        "its weights are not complete: 2 are missing, the first is "
        "model.layers.1.mlp.up_proj.weight"
    )


def test_weights_of_another_shape(broken: Path) -> None:
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(5)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert load_error(broken).startswith("its model cannot be loaded (")


@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_broken_tokenizer(broken: Path, content: str | None) -> None:
    (broken / "tokenizer.json").unlink()
    if content is not None:
        (broken / "tokenizer.json").write_text(content)
    message = error_of(lambda: load_tokenizer(base_at(broken)))
    assert message.startswith(f"model.base: {broken}: its tokenizer cannot be loaded (")


def test_a_tokenizer_without_an_end(broken: Path) -> None:
    plain = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer().backend_tokenizer)
    plain.save_pretrained(broken)
    assert error_of(lambda: load_tokenizer(base_at(broken))) == (
        f"model.base: {broken}: its tokenizer names no end-of-text token (eos_token), "
        "so no answer could learn to end"
    )


def test_a_base_that_does_not_say_how_long_its_texts_may_be(broken: Path) -> None:
    (broken / "config.json").write_text('{"model_type": "bloom"}')
    assert context_length(base_at(broken)) is None


# Fingerprints


def test_fingerprint_is_the_same_in_each_number_type(llama: Path, tmp_path: Path) -> None:
    base = base_at(llama)
    found = {load_model(base, dtype, "cpu").honing_fingerprint for dtype in ("float32", "bfloat16")}
    assert found == {fingerprint_of(tiny_model("llama"))}
    # And of the same weights stored in 16 bits.
    tiny_model("llama", torch.bfloat16).save_pretrained(tmp_path)
    assert load_model(base_at(tmp_path), "float32", "cpu").honing_fingerprint in found


def test_fingerprint_tells_models_apart() -> None:
    found = {fingerprint_of(tiny_model(architecture)) for architecture in ARCHITECTURES}
    found |= {fingerprint_of(tiny_model("llama", seed=seed)) for seed in (1, 2)}
    assert len(found) == len(ARCHITECTURES) + 2
    assert all(len(value) == 64 for value in found)


def test_fingerprint_changes_with_any_weight() -> None:
    model = tiny_model("llama")
    before = fingerprint_of(model)
    for parameter in model.parameters():
        kept = parameter.data.clone()
        parameter.data = parameter.data * 1.01
        assert fingerprint_of(model) != before
        parameter.data = kept
    assert fingerprint_of(model) == before


# Tokenizers as functions


def test_special_tokens_in_literal_text_are_plain_characters() -> None:
    tokenizer = tiny_tokenizer()
    encode = text_encoder(tokenizer).encode
    end, start = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"])
    (marked,) = encode(["<|im_start|>a<|im_end|>"], False)
    assert marked[0] == start
    assert marked[-1] == end
    assert len(marked) == 3
    (literal,) = encode(["<|im_start|>a<|im_end|>"], True)
    assert not {start, end} & set(literal)
    assert tokenizer.decode(literal) == "<|im_start|>a<|im_end|>"


def test_encoder_adds_nothing_and_takes_any_text() -> None:
    encoder = text_encoder(tiny_tokenizer())
    assert encoder.eos_id == 0
    assert encoder.bos_id is None
    assert encoder.encode([], False) == []
    texts = ["", "안녕하세요. 😀", "a" * 5000]
    ids = encoder.encode(texts, True)
    assert [tiny_tokenizer().decode(i) for i in ids] == texts
    assert ids[0] == []


def test_bos_goes_before_an_example_where_the_tokenizer_puts_it_there() -> None:
    from tokenizers.processors import TemplateProcessing

    backend = type(tiny_tokenizer().backend_tokenizer).from_str(
        tiny_tokenizer().backend_tokenizer.to_str()
    )
    names_it = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", bos_token="<|im_start|>"
    )
    assert text_encoder(names_it).bos_id is None
    backend.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    puts_it = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", bos_token="<|im_start|>"
    )
    encoder = text_encoder(puts_it)
    assert encoder.bos_id == 1
    assert encoder.encode(["a"], False)[0][0] != 1


def test_a_chat_template_as_a_function() -> None:
    renderer = chat_renderer(tiny_tokenizer(), CHAT_TEMPLATE)
    messages = [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}]
    assert renderer.render(messages) == (
        "<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n네<|im_end|>\n"
    )
    assert set(renderer.special_tokens) == {"<|end|>", "<|im_start|>", "<|im_end|>"}


def test_all_that_the_data_path_needs_of_a_base(llama: Path) -> None:
    base = base_at(llama)
    tokenizer = load_tokenizer(base)
    found = text_model(base, tokenizer, TEMPLATES["instruction"])
    assert (found.name, found.context_length) == (str(llama), 256)
    assert found.chat is None
    assert found.template.name == "instruction"
    (ids,) = found.encoder.encode(["안녕 , 하세요 ."], True)
    assert found.decode(ids) == "안녕 , 하세요 ."
    chat = text_model(base, tokenizer, Template("chat", chat_template=CHAT_TEMPLATE)).chat
    assert chat is not None
    assert chat.render([{"role": "user", "content": "a"}]) == "<|im_start|>user\na<|im_end|>\n"
