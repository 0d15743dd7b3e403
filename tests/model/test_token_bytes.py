"""The bytes of each token are those that the tokenizer itself decodes to."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from honing.config import ModelConfig
from honing.model.load import find_base, load_tokenizer
from honing.model.token_bytes import token_bytes
from tests.tiny import tiny_tokenizer


def gpt2(shared: Path) -> Any:
    return AutoTokenizer.from_pretrained(shared / "models" / "gpt2-tokenizer")


def check_every_token(tokenizer: Any) -> None:
    """Each id alone, and ids in a random order, where pieces of characters meet."""
    known = token_bytes(tokenizer)
    assert known is not None
    assert len(known) == len(tokenizer)
    wrong = [
        token
        for token, data in enumerate(known)
        if tokenizer.decode([token], clean_up_tokenization_spaces=False)
        != data.decode(errors="replace")
    ]
    assert wrong == []
    drawn = random.Random(0)
    for _ in range(200):
        ids = drawn.choices(range(len(known)), k=20)
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert b"".join(known[token] for token in ids).decode(errors="replace") == text


def test_the_vocabulary_of_gpt2(shared: Path) -> None:
    tokenizer = gpt2(shared)
    check_every_token(tokenizer)
    known = token_bytes(tokenizer)
    assert known is not None
    assert b"".join(known[i] for i in tokenizer("한")["input_ids"]) == "한".encode()
    assert sum(data == bytes([data[0]]) for data in known) == 256


def test_tokens_that_were_added_are_text_as_they_stand(shared: Path) -> None:
    tokenizer = gpt2(shared)
    tokenizer.add_tokens(["안녕", AddedToken("  x", normalized=False), "<|turn|>"])
    check_every_token(tokenizer)
    known = token_bytes(tokenizer)
    assert known is not None
    assert [data.decode() for data in known[-3:]] == ["안녕", "  x", "<|turn|>"]


def test_the_packaged_vocabulary(packaged_model: str) -> None:
    check_every_token(load_tokenizer(find_base(ModelConfig(base=packaged_model))))


def test_the_tiny_vocabulary() -> None:
    check_every_token(tiny_tokenizer())


def sentencepiece_like(*, blank_before: bool) -> Any:
    """Words with ▁ and <0xNN>; as Llama's, the blank before the first word is taken off."""
    names = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁한국어", "漢字"]
    vocabulary = {name: number for number, name in enumerate(names)}
    inner = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    scheme = "always" if blank_before else "never"
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] * blank_before)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("blank_before", [True, False])
def test_sentencepiece_with_bytes(blank_before: bool) -> None:
    known = token_bytes(sentencepiece_like(blank_before=blank_before))
    assert known is not None
    assert known[2:258] == tuple(bytes([byte]) for byte in range(256))
    assert known[258:] == (b" ", " 한국어".encode(), "漢字".encode())


def test_an_id_without_a_token_writes_nothing() -> None:
    vocabulary = {name: number for number, name in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    inner = Tokenizer(models.BPE({**vocabulary, "ab": 300}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    known = token_bytes(PreTrainedTokenizerFast(tokenizer_object=inner))
    assert known is not None
    assert (len(known), known[299:], known[256:300]) == (301, (b"", b"ab"), (b"",) * 44)


def test_another_way_of_writing_tokens_is_not_known() -> None:
    """WordPiece: blanks are between tokens, and in none of them."""
    words = ["[UNK]", "plain", "text", "##text", "가나다", "한국어"]
    inner = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.decoder = decoders.WordPiece()
    assert token_bytes(PreTrainedTokenizerFast(tokenizer_object=inner)) is None
