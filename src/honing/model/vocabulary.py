"""Is this still the vocabulary that was trained with? Tokenizer and embeddings, told by what they
do, since files change without meaning to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from honing.data.encode import Tokens
from honing.errors import UserError
from honing.model.load import Model

_PROBES = (
    " ".join(map(chr, range(0x20, 0x7F))),
    " ".join(map(chr, range(0xAC00, 0xD7A4))),  # every Hangul syllable
    " ".join(map(chr, range(0x3131, 0x318F))),  # letters alone: ㅋㅋ, ㅠㅠ
    "대한민국의 수도는 서울입니다. 오늘 날씨가 참 좋네요!\n물은 100°C에서 끓습니다.",
    "### Instruction:\nTranslate it.\n\n### Input:\nThe quick brown fox\n\n### Response:\n",
    "def f(x):\n\treturn {'a': [x ** 2, 0.125]}  # 12,345,678 \r\n\n\n",
    "naïve café Straße 東京 你好 こんにちは Привет 🙂 👨‍👩‍👧 “…” — ₩1,000",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",  # 한글, decomposed
    "<|endoftext|> <s> </s> <unk> <pad> [PAD] <|end|> <bos> <eos> <|eot_id|> <|end_of_text|>",
    "<|im_start|>user\n<|im_end|>\n<start_of_turn>model\n<end_of_turn>[INST] [/INST]<think>",
)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 over the ids of fixed texts, the number of tokens, and which of them ends and which
    begins a text."""
    encoded = tokenizer(
        list(_PROBES), add_special_tokens=False, return_attention_mask=False, verbose=False
    )
    ids = [list(map(int, text)) for text in encoded["input_ids"]]
    record = [ids, len(tokenizer), tokenizer.eos_token_id, tokenizer.bos_token_id]
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def check_tokenizer(about: Mapping[str, Any], fingerprint: str, where: str) -> None:
    """Raise UserError where a checkpoint (its honing.json) was trained with another tokenizer.

    Checkpoints from before 0.1.0 do not say with which, and are taken as they are.
    """
    recorded = about.get("tokenizer")
    trained_with = recorded.get("fingerprint") if isinstance(recorded, dict) else None
    if trained_with and trained_with != fingerprint:
        raise UserError(
            f"{where}: its tokenizer has changed since the training (fingerprint "
            f"{fingerprint[:12]}, trained with {str(trained_with)[:12]}), so the same text has "
            "other tokens; restore it"
        )


def num_embeddings(model: Model) -> int:
    """Tokens that the model has an embedding of."""
    return int(model.get_input_embeddings().weight.shape[0])


def check_embeddings(model: Model, rows: Iterable[Tokens], base: str) -> None:
    """Raise UserError where a row holds an id that the model has no embedding of: its vocabulary
    was enlarged, and the enlarged model not saved."""
    known = num_embeddings(model)
    for row in rows:
        if (largest := max(row.ids)) >= known:
            raise UserError(
                f"model.base: {base}: its tokenizer gives the id {largest} ({row.example_id}), and "
                f"its weights have {known} embeddings; they do not belong together"
            )


def check_saved_tokenizer(folder: Path, model: Model) -> None:
    """Raise UserError where an adapter comes with a tokenizer of more tokens than the base has
    embeddings: they were resized for the training, and not saved with the adapter."""
    if not (folder / "tokenizer_config.json").is_file():
        return
    try:
        num_tokens = len(AutoTokenizer.from_pretrained(str(folder), local_files_only=True))
    # Of many kinds; the base's own tokenizer is the one in use.
    except Exception:
        return
    if num_tokens > (known := num_embeddings(model)):
        raise UserError(
            f"{folder}: was trained with {num_tokens} tokens, and its base has {known} embeddings; "
            "the new ones were not saved with the adapter, so its answers would not be its own"
        )
