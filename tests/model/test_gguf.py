"""A .gguf file becomes a folder once; what the converter loses is put right."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from honing.config import ModelConfig
from honing.errors import UserError
from honing.model.gguf import (
    _convert,
    _mend_tokenizer,
    cache_folder,
    converted_folder,
    sha256_of,
)
from honing.model.load import Base, find_base, load_model, load_tokenizer

# The embedded model


@pytest.fixture(scope="module")
def embedded(packaged_model: str) -> Base:
    return find_base(ModelConfig(base=packaged_model))


@pytest.mark.model
def test_digits_of_the_embedded_model_stand_alone(embedded: Base) -> None:
    tokenizer = load_tokenizer(embedded)
    assert tokenizer.tokenize("2024") == ["2", "0", "2", "4"]
    assert tokenizer.tokenize("in 1990s") == ["in", "Ġ", "1", "9", "9", "0", "s"]
    ids = tokenizer("서울은 2024년에 😀")["input_ids"]
    assert tokenizer.decode(ids) == "서울은 2024년에 😀"


@pytest.mark.model
def test_tokenizer_of_the_embedded_model(embedded: Base) -> None:
    tokenizer = load_tokenizer(embedded)
    assert type(tokenizer) is PreTrainedTokenizerFast
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert len(tokenizer) == 49152
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    settings = json.loads((Path(embedded.location) / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"is_local", "local_files_only"} & set(settings)


@pytest.mark.model
def test_the_embedded_model_is_whole_and_plain(embedded: Base) -> None:
    model = load_model(embedded, "float32", "cpu")
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not hasattr(model.config, "quantization_config")
    tokenizer = load_tokenizer(embedded)
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    with torch.no_grad():
        best = int(model(ids).logits[0, -1].argmax())
    assert tokenizer.decode([best]) == " Paris"


@pytest.mark.model
def test_the_embedded_models_folder_is_in_the_cache_under_its_hash(embedded: Base) -> None:
    folder = Path(embedded.location)
    assert folder.parent == cache_folder() / "gguf"
    record = json.loads((folder / "conversion.json").read_text())
    assert record["source"] == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert folder.name == f"SmolLM2-135M-Instruct.Q4_1-{record['source_sha256'][:16]}-v1"
    written = {path.name for path in folder.iterdir()} - {"conversion.json"}
    assert set(record["files"]) == written
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= written


# The cache


class Converter:
    """Stands in for the conversion, which takes half a minute."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, gguf_file: Path, folder: Path) -> None:
        self.num_calls += 1
        (folder / "model.safetensors").write_bytes(b"weights of " + gguf_file.read_bytes())
        (folder / "config.json").write_text("{}")


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Converter:
    made = Converter()
    monkeypatch.setattr("honing.model.gguf._convert", made)
    monkeypatch.setenv("HONING_CACHE", str(tmp_path / "cache"))
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF one")
    return path


def test_a_file_is_converted_once(
    converter: Converter, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = converted_folder(file)
    assert folder == file.parent / "cache" / "gguf" / f"tiny-{sha256_of(file)[:16]}-v1"
    assert (folder / "model.safetensors").read_bytes() == b"weights of GGUF one"
    said = "Converting tiny.gguf (once, about half a minute) …\n"
    assert capsys.readouterr().err == said
    assert converted_folder(file) == folder
    assert converter.num_calls == 1
    assert capsys.readouterr().err == ""
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_another_file_of_the_same_name_is_another_model(converter: Converter, file: Path) -> None:
    first = converted_folder(file)
    file.write_bytes(b"GGUF two")
    second = converted_folder(file)
    assert first != second
    assert (second / "model.safetensors").read_bytes() == b"weights of GGUF two"
    assert converter.num_calls == 2


def test_another_version_of_the_converter_converts_anew(
    converter: Converter, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = converted_folder(file)
    monkeypatch.setattr("honing.model.gguf.CONVERTER_VERSION", 2)
    assert converted_folder(file).name == first.name.replace("-v1", "-v2")
    assert converter.num_calls == 2


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: spoil(folder / "model.safetensors"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").write_text(""),
        lambda folder: (folder / "conversion.json").unlink(),
        lambda folder: (folder / "conversion.json").write_text("{"),
        lambda folder: (folder / "conversion.json").write_text("[]"),
        lambda folder: (folder / "conversion.json").write_text('{"source_sha256": "0"}'),
    ],
    ids=["bit", "weights", "config", "record", "json", "list", "hash"],
)
def test_a_damaged_folder_is_made_anew(converter: Converter, file: Path, damage: Any) -> None:
    folder = converted_folder(file)
    damage(folder)
    assert converted_folder(file) == folder
    assert converter.num_calls == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights of GGUF one"
    assert converted_folder(file) == folder
    assert converter.num_calls == 2


def test_a_folder_that_another_process_made_meanwhile_is_used(
    converter: Converter, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[os.stat_result] = []

    def slow(gguf_file: Path, folder: Path) -> None:
        if not others:
            others.append(os.stat(folder))  # not again in the call below
            others.append(os.stat(converted_folder(file)))
        converter(gguf_file, folder)

    monkeypatch.setattr("honing.model.gguf._convert", slow)
    folder = converted_folder(file)
    assert converter.num_calls == 2
    assert os.stat(folder).st_ino == others[1].st_ino


def test_a_cache_that_cannot_be_written(
    converter: Converter, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = file.parent / "blocked"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("HONING_CACHE", str(blocked))
    with pytest.raises(UserError) as caught:
        converted_folder(file)
    assert str(caught.value) == (
        f"{blocked / 'gguf'}: the converted model cannot be written (Not a directory); "
        "set HONING_CACHE to a folder with 1 GB of space"
    )


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), SafetensorError("No space left on device")],
    ids=["system", "safetensors"],
)
def test_a_full_disk_leaves_nothing(
    error: Exception, converter: Converter, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(gguf_file: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr("honing.model.gguf._convert", fill)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        converted_folder(file)
    assert list((file.parent / "cache" / "gguf").iterdir()) == []


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HONING_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/honing")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_folder() == Path("/var/cache/honing")
    monkeypatch.setenv("HONING_CACHE", "~/kept")
    assert cache_folder() == Path("/home/someone/kept")
    monkeypatch.delenv("HONING_CACHE")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/c/Local")
    assert cache_folder() == Path("/c/Local/honing")


# The conversion


@pytest.mark.parametrize(
    "content", [b"", b"no model at all", b"GGUF\x03\0\0\0" + b"\0" * 99, b"GGUF\x03" + b"\xff" * 99]
)
def test_a_file_that_is_no_model(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError) as caught:
        _convert(file, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(f"{file}: cannot be read as a GGUF model (")
    assert message.endswith(
        "); is the file complete, and its architecture one that transformers knows?"
    )
    assert "\n" not in message


def write_tiny_gguf(path: Path, pre_tokenizer: str) -> None:
    """A llama of two layers in GGUF's own format, half its weights quantised."""
    import gguf

    H, V = 32, 262
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters, "12", "34", "an"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(H)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(V)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (V - 3))
    writer.add_token_merges(["1 2", "3 4", "a n"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}")
    random = np.random.default_rng(0)
    shapes = {"attn_q": (H, H), "attn_k": (16, H), "attn_v": (16, H), "attn_output": (H, H)}
    shapes |= {"ffn_gate": (64, H), "ffn_up": (64, H), "ffn_down": (H, 64)}
    for name, shape in shapes.items():
        values = random.standard_normal(shape, np.float32)
        packed = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"blk.0.{name}.weight", packed, raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(H, np.float32))
    writer.add_tensor("token_embd.weight", random.standard_normal((V, H), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("pre_tokenizer", "pieces"),
    [("smollm", ["1", "2", "an", "3", "4"]), ("gpt-2", ["12", "an", "34"])],
)
def test_a_whole_conversion(
    pre_tokenizer: str, pieces: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("HONING_CACHE", str(tmp_path / "cache"))
    write_tiny_gguf(tmp_path / "tiny.gguf", pre_tokenizer)
    base = find_base(ModelConfig(base=str(tmp_path / "tiny.gguf")))
    model = load_model(base, "float32", "cpu")
    assert not hasattr(model.config, "quantization_config")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    values = np.random.default_rng(0).standard_normal((32, 32), np.float32)
    # Rows lie in another order, as GGUF turns pairs of rotary positions; Q8_0 is near enough.
    found = model.model.layers[0].self_attn.q_proj.weight.numpy()
    assert np.sort(found.ravel()) == pytest.approx(np.sort(values.ravel()), abs=0.05)
    tokenizer = load_tokenizer(base)
    assert tokenizer.tokenize("12an34") == pieces
    assert type(tokenizer) is PreTrainedTokenizerFast
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.chat_template is not None


def test_a_missing_reader_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError) as caught:
        _convert(tmp_path / "x.gguf", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'x.gguf'}: reading GGUF files needs one more package; "
        "pip install 'honing[gguf]'"
    )


@pytest.mark.parametrize(
    ("pre_tokenizer", "pieces"), [("smollm", ["1", "2", "a"]), ("llama-bpe", ["12", "a"])]
)
def test_what_the_converter_loses(pre_tokenizer: str, pieces: list[str], tmp_path: Path) -> None:
    letters = {"1": 0, "2": 1, "a": 2, "12": 3, "<end>": 4}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[("1", "2")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>").save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings |= {"is_local": True, "local_files_only": True, "tokenizer_class": "Strange"}
    path.write_text(json.dumps(settings))
    _mend_tokenizer(tmp_path, pre_tokenizer)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("12a") == pieces
    assert type(tokenizer) is PreTrainedTokenizerFast
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert not {"is_local", "local_files_only"} & set(json.loads(path.read_text()))
