"""config.json of a base: no code, and no more than its weights explain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from honing.errors import UserError
from honing.model import base_check
from honing.model.base_check import (
    Refused,
    check_config,
    check_files,
    check_size,
    check_tokenizer,
    config_of,
)
from honing.model.load import Base, load_model
from tests.tiny import save_tiny_base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny_base(tmp_path / "base")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"attn_implementation": "a/b"}, "its attn_implementation names code to be fetched"),
        ({"text_config": {"_attn_implementation": "a/b"}}, "its _attn_implementation names code"),
        ({"attn_implementation": {"text": "a/b"}}, "its attn_implementation names code"),
        ({"num_hidden_layers": 1001}, "its num_hidden_layers is 1,001"),
        ({"n_layer": 10**6}, "its n_layer is 1,000,000"),
        ({"vision": {"encoder": {"num_layers": 10**6}}}, "its num_layers is 1,000,000"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "its weights are stored in fewer bits (gptq); name the model that it was made from",
        ),
        ({"quantization_config": [1]}, "its weights are stored in fewer bits (quantization_c"),
        ({"num_labels": 10**8}, "its num_labels is 100,000,000"),
        ({"id2label": dict.fromkeys(map(str, range(100_001)))}, "its id2label has 100,001 entries"),
    ],
)
def test_what_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as caught:
        check_config(config, trusts_code=False)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"num_hidden_layers": 126, "attn_implementation": "sdpa", "num_labels": 1000},
        {"id2label": None, "num_hidden_layers": "x", "layers": [1] * 5000},
    ],
)
def test_what_is_not(config: dict[str, Any]) -> None:
    check_config(config, trusts_code=False)


def test_code_that_is_trusted_may_name_kernels() -> None:
    check_config({"attn_implementation": "a/b"}, trusts_code=True)


def test_a_model_is_no_larger_than_its_files_explain(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_size(base, AutoConfig.from_pretrained(base))
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 10**10}))
    with pytest.raises(UserError) as caught:
        load_model(Base("here", str(base), True), "float32", "cpu")
    size = (base / "model.safetensors").stat().st_size
    assert str(caught.value) == (
        "model.base: here: its config.json means 640,000,018,592 weights, and its files hold "
        f"{size:,} bytes"
    )


def test_files(base: Path) -> None:
    check_files(base)
    (base / "pytorch_model.bin").write_bytes(b"")
    check_files(base)  # beside safetensors nobody reads it
    (base / "model.safetensors").unlink()
    with pytest.raises(Refused, match=r"its weights are in pytorch_model\.bin"):
        check_files(base)
    (base / "config.json").write_text(" " * (base_check.MOST_CONFIG_BYTES + 1))
    with pytest.raises(Refused, match=r"its config\.json is larger than any configuration"):
        check_files(base)


def test_the_configuration_as_it_stands(base: Path, tmp_path: Path) -> None:
    arguments = {"pretrained_model_name_or_path": str(base), "local_files_only": True}
    assert config_of(arguments)["hidden_size"] == 32
    (base / "config.json").write_text("{")
    assert config_of(arguments) == {}


def tokenizer_file(folder: Path, prefix: str | None, merges: list[Any]) -> Path:
    model = {"type": "BPE", "continuing_subword_prefix": prefix, "merges": merges}
    (folder / "tokenizer.json").write_text(json.dumps({"model": model}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("merges", [["a ##b", "##b ##c"], [["a", "##b"]], []])
def test_merges_that_have_the_prefix(merges: list[Any], tmp_path: Path) -> None:
    check_tokenizer(tokenizer_file(tmp_path, "##", merges))


@pytest.mark.parametrize("prefix", [None, ""])
def test_merges_without_a_prefix(prefix: str | None, tmp_path: Path) -> None:
    check_tokenizer(tokenizer_file(tmp_path, prefix, ["a b"]))


def test_a_merge_that_would_be_cut_in_the_wrong_place(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        check_tokenizer(tokenizer_file(tmp_path, "##", ["a ##b", "a 가"]))
    assert str(caught.value) == (
        "its tokenizer.json merges 'a' and '가', which does not begin with its "
        "continuing_subword_prefix '##'"
    )


@pytest.mark.parametrize(
    ("prefix", "merges", "problem"),
    [
        ("##", [["a", "##b"], "c ##d"], None),
        (None, [["a", "b"]], None),
        ("", [["a", "b"]], None),
        ("##", ["a ##b", "c d"], "merges 'c' and 'd', which does not begin with"),
        ("##", [["a", "b"]], "merges 'a' and 'b', which does not begin with"),
    ],
)
def test_merges_that_would_end_the_process(
    prefix: str | None, merges: list[Any], problem: str | None, tmp_path: Path
) -> None:
    model = {"type": "BPE", "continuing_subword_prefix": prefix, "merges": merges}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    if problem is None:
        check_tokenizer(tmp_path)
        return
    with pytest.raises(Refused, match=problem):
        check_tokenizer(tmp_path)
