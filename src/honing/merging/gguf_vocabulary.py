"""A tokenizer as a GGUF file holds it: byte-level BPE, as of GPT-2, SmolLM2, Llama 3 and Qwen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from honing.errors import UserError

# How a text is cut into words before its merges: llama.cpp knows each way by a name. The
# expressions of Llama 3 and Qwen2 as their tokenizer.json has them.
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_2 = _LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")


def pre_tokenizer_name(tokenizer: Any) -> str:
    """llama.cpp's name for how this tokenizer cuts words.

    Raises UserError where it is no byte-level BPE, or cuts in a way without a name here: under a
    wrong name llama.cpp would read other tokens than were trained.
    """
    content = _content(tokenizer)
    model = content["model"]
    normalizer = content["normalizer"]
    is_bpe = model["type"] == "BPE" and not model.get("byte_fallback")
    name = _name_of(content["pre_tokenizer"]) if is_bpe else None
    normal = normalizer is None or normalizer == {"type": "NFC"}
    if name is None or not normal or bool(model.get("ignore_merges")) != (name == "llama-bpe"):
        raise UserError(
            "--gguf: this tokenizer is not written; supported is byte-level BPE as of GPT-2, "
            "SmolLM2, Llama 3 and Qwen2 (llama.cpp's own convert_hf_to_gguf.py takes the merged "
            "folder)"
        )
    return name


def _content(tokenizer: Any) -> dict[str, Any]:
    """tokenizer.json."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError("--gguf: this model has no fast tokenizer to write; leave --gguf out")
    content: dict[str, Any] = json.loads(backend.to_str())
    return content


def _name_of(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    if pre_tokenizer is None:
        return None
    steps: Sequence[Mapping[str, Any]] = (
        pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    )
    *before, last = steps
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    if last["use_regex"]:
        if not before:
            return "gpt-2"
        digits = [step.get("type") for step in before] == ["Digits"]
        return "smollm" if digits and before[0]["individual_digits"] else None
    if len(before) != 1 or before[0]["type"] != "Split" or before[0]["invert"]:
        return None
    pattern = before[0]["pattern"].get("Regex")
    return {_LLAMA_3: "llama-bpe", _QWEN_2: "qwen2"}.get(pattern)


def add_vocabulary(
    writer: Any, tokenizer: Any, *, size: int, end_ids: Sequence[int], puts_bos: bool
) -> None:
    """Tokens, kinds, merges and special ids. size: rows of the embedding, which may be more than
    there are tokens."""
    import gguf

    by_id = {place: token for token, place in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens, kinds = [], []
    for place in range(size):
        token = by_id.get(place)
        if token is None:
            kind = gguf.TokenType.UNUSED
        elif place in added:
            special = added[place].special
            kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
        else:
            kind = gguf.TokenType.NORMAL
        tokens.append(f"[PAD{place}]" if token is None else token)
        kinds.append(kind)
    merges = _content(tokenizer)["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(puts_bos)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    others = [end for end in end_ids if end != tokenizer.eos_token_id]
    if others:
        writer.add_eot_token_id(others[0])
    for add, place in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
    ):
        if place is not None:
            add(place)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
