"""Batches change nothing: each example has the tokens that it has alone, in the rows' order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from honing.data.encode import Tokens, encode_prompts
from honing.data.encode_batches import encode_each
from honing.data.example import Example, Exchange
from honing.data.reading.read import DroppedRow
from tests.runs import tiny_text
from tests.tiny import tiny_encoder, tiny_tokenizer


def examples() -> list[Example]:
    """Short rows, chats that lose turns, answers that are too long."""
    rows = []
    for number in range(17):
        turns = [
            Exchange(f"q{number} {turn} 가나다", f"a{turn} <|end|>") for turn in range(number % 5)
        ]
        answer = "길다 " * (30 if number % 6 == 5 else 1)
        rows.append(Example(f"r:{number}", (*turns, Exchange("더", answer)), row=number))
    return rows


@pytest.mark.parametrize(("rows", "chars"), [(1_000, 1 << 20), (1, 1 << 20), (3, 1 << 20), (9, 40)])
def test_batches_of_any_size(rows: int, chars: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("honing.data.encode_batches.BATCH_ROWS", rows)
    monkeypatch.setattr("honing.data.encode_batches.BATCH_CHARS", chars)
    text = tiny_text()
    found = [*encode_each(examples(), text, "response", 60)]
    alone = [one for e in examples() for one in encode_each([e], text, "response", 60)]
    assert found == alone
    assert [type(one) for one in found].count(DroppedRow) == 2
    assert sum(one.num_cut > 0 for one in found if isinstance(one, Tokens)) > 3
    wholes = encode_prompts([text.to_prompt(e, "response") for e in examples()], text.encoder, 9999)
    for one, whole in zip(found, wholes, strict=True):
        if isinstance(one, Tokens):
            assert isinstance(whole, Tokens)
            assert one.num_cut == len(whole.ids) - len(one.ids)
            assert one == replace(whole, num_cut=0) or one.num_cut


def test_an_error_on_the_way_is_not_lost() -> None:
    def broken(texts: object, literal: bool) -> list[list[int]]:
        raise RuntimeError("no ids")

    text = tiny_text()
    text = replace(text, encoder=replace(text.encoder, encode=broken))
    with pytest.raises(RuntimeError, match="no ids"):
        [*encode_each(examples(), text, "response", 60)]


def test_the_encoder_gives_the_ids_of_the_tokenizer_itself() -> None:
    tokenizer = tiny_tokenizer()
    texts = ["안녕하세요", "a <|end|> b", "", " The quick\n brown fox", "<|im_start|>", "🙂é"]
    for literal in (True, False):
        own = tokenizer(texts, add_special_tokens=False, split_special_tokens=literal)["input_ids"]
        assert tiny_encoder().encode(texts, literal) == own
    assert tiny_encoder().encode([], True) == []


def test_the_encoder_neither_cuts_nor_pads() -> None:
    tokenizer = tiny_tokenizer()
    texts = ["안녕하세요", "a"]
    expected = tiny_encoder().encode(texts, True)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    assert tiny_encoder().encode(texts, True) == expected
