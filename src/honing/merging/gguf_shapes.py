"""What llama.cpp is told of an architecture, and how its tensors differ from transformers'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from honing.errors import UserError

ARCHITECTURES = ("llama", "gpt2", "qwen2", "qwen3")
"""Architectures that are written; each is tested against llama.cpp itself."""

_ROTARY = ("llama", "qwen2", "qwen3")


def check_architecture(config: Any) -> None:
    """Raise UserError where this model would not be the same one in llama.cpp."""
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise UserError(
            f"--gguf: models of type {kind} cannot be written; supported are "
            f"{', '.join(ARCHITECTURES)} (llama.cpp's own convert_hf_to_gguf.py takes the merged "
            "folder)"
        )
    for name, allowed in _FIXED[kind].items():
        value = getattr(config, name, None)
        if value not in allowed:
            raise UserError(
                f"--gguf: this {kind} model has {name}={value}, which llama.cpp's {kind} does not "
                "compute; leave --gguf out"
            )
    if kind in _ROTARY and _rope(config).get("rope_type", "default") not in ("default", "llama3"):
        raise UserError(
            f"--gguf: rotary positions of type {_rope(config)['rope_type']} are not supported; "
            "leave --gguf out"
        )


_FIXED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "llama": {"hidden_act": ("silu",)},
    "qwen2": {"hidden_act": ("silu",), "use_sliding_window": (False, None)},
    "qwen3": {"hidden_act": ("silu",), "use_sliding_window": (False, None)},
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False, None),
    },
}
"""Settings that llama.cpp has no key for: it computes as if they were these."""


def _rope(config: Any) -> dict[str, Any]:
    return dict(config.rope_parameters or {})


def add_shape(writer: Any, config: Any) -> None:
    """Sizes and constants of the model, by GGUFWriter's own names for the keys."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    head_size = _head_size(config)
    writer.add_rope_dimension_count(head_size)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)


def _head_size(config: Any) -> int:
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


@dataclass(frozen=True)
class GgufTensor:
    """name: in the GGUF file. source: in the merged folder; None for one that is made here.
    values: float32, laid out as llama.cpp has them."""

    name: str
    source: str | None
    values: Tensor


def tensors_for_gguf(tensors: Iterator[tuple[str, Tensor]], config: Any) -> Iterator[GgufTensor]:
    """The tensors of a merged folder as a GGUF file has them.

    Raises UserError for one that this architecture has no place for.
    """
    import gguf

    architecture = next(
        key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type
    )
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, tensor in tensors:
        if name.endswith((".attn.bias", ".attn.masked_bias")):  # GPT-2's mask, no weight
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise UserError(f"--gguf: {name} has no place in a GGUF file of this architecture")
        values = _as_llama_cpp(name, tensor.float(), config).contiguous()
        yield GgufTensor(found, name, values)
    if config.model_type in _ROTARY and _rope(config).get("rope_type") == "llama3":
        yield GgufTensor("rope_freqs.weight", None, _rope_factors(config))


def _as_llama_cpp(name: str, tensor: Tensor, config: Any) -> Tensor:
    if config.model_type == "gpt2" and name.endswith(_CONV1D):
        return tensor.T
    if config.model_type == "llama" and ".self_attn.q_proj." in name:
        return _interleaved(tensor, config.num_attention_heads)
    if config.model_type == "llama" and ".self_attn.k_proj." in name:
        return _interleaved(tensor, config.num_key_value_heads)
    return tensor


def from_llama_cpp(name: str, values: Tensor, config: Any) -> Tensor:
    """The way back: values of a GGUF file as transformers has those of `name`."""
    if config.model_type == "gpt2" and name.endswith(_CONV1D):
        return values.T
    if config.model_type == "llama" and ".self_attn.q_proj." in name:
        return _in_halves(values, config.num_attention_heads)
    if config.model_type == "llama" and ".self_attn.k_proj." in name:
        return _in_halves(values, config.num_key_value_heads)
    return values


_CONV1D = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")


def _interleaved(tensor: Tensor, num_heads: int) -> Tensor:
    """Rows of a head from halves (x₀…x₁…, as transformers rotates) to pairs (x₀x₁x₀x₁…, as
    llama.cpp does for Llama; for Qwen it rotates halves)."""
    halves = tensor.reshape(num_heads, 2, -1, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _in_halves(tensor: Tensor, num_heads: int) -> Tensor:
    pairs = tensor.reshape(num_heads, -1, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)


def _rope_factors(config: Any) -> Tensor:
    """Llama 3's stretched wavelengths as llama.cpp takes them: plain over stretched frequency."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    size = _head_size(config)
    plain = _rope(config)["rope_theta"] ** -(torch.arange(0, size, 2).double() / size)
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    factors: Tensor = plain / stretched.double()
    return factors.float()
