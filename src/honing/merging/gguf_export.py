"""A merged folder → one GGUF file that llama.cpp runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig

from honing.errors import UserError
from honing.merging.gguf_shapes import add_shape, check_architecture, tensors_for_gguf
from honing.merging.gguf_vocabulary import add_vocabulary, pre_tokenizer_name
from honing.model.load import Base, load_tokenizer, text_encoder

BITS: Mapping[str, float] = {
    "f32": 32,
    "f16": 16,
    "bf16": 16,
    "q8_0": 8.5,
    "q5_1": 6,
    "q5_0": 5.5,
    "q4_1": 5,
    "q4_0": 4.5,
}
"""Types of a GGUF file and their bits per weight; those that `gguf` itself can write."""


def check_gguf(config: Any, tokenizer: Any, type: str) -> None:
    """Raise UserError where this model cannot be written, before anything is computed."""
    if type not in BITS:
        raise UserError(f"--gguf: {type} is not one of {', '.join(BITS)}")
    if importlib.util.find_spec("gguf") is None:
        raise UserError("--gguf: needs one more package; pip install 'honing[gguf]'")
    check_architecture(config)
    pre_tokenizer_name(tokenizer)


def write_gguf(folder: Path, path: Path, type: str, end_ids: Sequence[int]) -> None:
    """Write a merged folder as a GGUF file. end_ids: of an answer, the EOS among them."""
    config = AutoConfig.from_pretrained(folder)
    tokenizer = load_tokenizer(Base(str(folder), str(folder), True))
    check_gguf(config, tokenizer, type)
    import gguf

    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_type("model")
    writer.add_name(path.stem)
    writer.add_file_type(_file_type(type))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_shape(writer, config)
    puts_bos = text_encoder(tokenizer).bos_id is not None
    add_vocabulary(writer, tokenizer, size=config.vocab_size, end_ids=end_ids, puts_bos=puts_bos)
    for tensor in tensors_for_gguf(tensors_in(folder), config):
        kind = _type_of(tensor.name, tensor.values, type)
        values = gguf.quants.quantize(tensor.values.numpy(), kind)
        writer.add_tensor(tensor.name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors_in(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a model folder's weights."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # an open file, no dictionary
                yield name, file.get_tensor(name)


def _file_type(type: str) -> Any:
    import gguf

    name = "ALL_F32" if type == "f32" else f"MOSTLY_{type.upper()}"
    return gguf.LlamaFileType[name]


def _type_of(name: str, tensor: Tensor, type: str) -> Any:
    """The type of one tensor. Vectors, and GPT-2's positions, are float32 as llama.cpp wants them;
    below eight bits, embedding and output keep eight, as they matter most."""
    import gguf

    kinds = gguf.GGMLQuantizationType
    if tensor.ndim < 2 or name == "position_embd.weight":
        return kinds.F32
    if type.startswith(("q4", "q5")) and name in ("token_embd.weight", "output.weight"):
        type = "q8_0"
    kind = kinds[type.upper()]
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if tensor.shape[-1] % block == 0 else kinds.F16
