"""Tokenizer → the bytes that each of its ids writes: a token may be a piece of a character."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_PROBE = "가나다 한국어, 漢字 я ё café 🙂 plain text.\n0 1"
"""Its pieces tell the ways of writing tokens apart: blanks, and characters of 1 to 4 bytes."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def token_bytes(tokenizer: Any) -> tuple[bytes, ...] | None:
    """For each id the UTF-8 bytes that it adds to a text; b"" for an id without a token.

    Two ways of writing tokens are known, and the one by which the tokenizer itself decodes is
    taken. None where it does so by neither.
    """
    ids = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    decoded = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    for to_bytes in (_byte_level, _sentencepiece):
        table = _table(tokenizer.get_vocab(), to_bytes)
        written = b"".join(table[token] for token in ids).decode(errors="replace")
        # SentencePiece's own blank before the first word is taken off again when decoding.
        if written.removeprefix(" ") == decoded.removeprefix(" "):
            return table
    return None


def _table(vocabulary: dict[str, int], to_bytes: Callable[[str], bytes]) -> tuple[bytes, ...]:
    table = [b""] * (max(vocabulary.values()) + 1)
    for token, number in vocabulary.items():
        table[number] = to_bytes(token)
    return tuple(table)


def _alphabet() -> dict[str, int]:
    """Character → byte, of byte-level BPE (Radford et al. 2019, GPT-2's encoder.py): printable
    bytes stand for themselves, the 68 others for the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }


_BYTES = _alphabet()


def _byte_level(token: str) -> bytes:
    """Byte-level BPE: a character a byte. A token with any other character is text as it stands."""
    if all(character in _BYTES for character in token):
        return bytes(_BYTES[character] for character in token)
    return token.encode()


def _sentencepiece(token: str) -> bytes:
    """SentencePiece: text with ▁ for a blank, or a byte alone, as <0xEA>."""
    if byte := _BYTE_TOKEN.fullmatch(token):
        return bytes.fromhex(byte[1])
    return token.replace("▁", " ").encode()
