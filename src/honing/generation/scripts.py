"""The script lock: answers in the writing systems that are allowed, and in no other.

A token of a byte-level vocabulary can be a piece of a character, so what may come next depends on
the bytes of the unfinished character so far, the state of an answer. For each state that is met,
one mask over the vocabulary says what is forbidden in it.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import torch
from torch import Tensor

from honing.config import GenerateConfig
from honing.data.scripts import script_of
from honing.data.text_model import TextModel
from honing.errors import UserError

Scripts = frozenset[str]

_LEAST = {2: 0x80, 3: 0x800, 4: 0x10000}
"""Bytes in UTF-8 → the first character that has so many: no shorter one may be written longer."""
_PLANES = (range(0x40000), range(0xE0000, 0xE0200))
"""Where Unicode has characters, private ones apart."""
_PICTOGRAPHS = range(0x1F000, 0x1FB00)
_HEXAGRAMS = range(0x4DC0, 0x4E00)
"""Of the I Ching: of no script, but they lie between Han characters. A model that is kept from a
common one in the middle of it could only turn it into one of these."""


def script_lock(
    text: TextModel, settings: GenerateConfig, end_ids: Sequence[int]
) -> ScriptLock | None:
    """The lock that generate.scripts asks for, made once for a tokenizer; None where it is off.

    Raises UserError where the tokenizer does not tell which bytes its tokens write.
    """
    if settings.scripts is None:
        return None
    lock = _lock(text.token_bytes, frozenset(settings.scripts), tuple(end_ids))
    if lock is None:
        raise UserError(
            f"generate.scripts: the tokenizer of {text.name} does not tell which bytes its tokens "
            "write, so no script can be kept out; take it out"
        )
    return lock


@lru_cache(maxsize=2)
def _lock(
    token_bytes: Callable[[], Sequence[bytes] | None], scripts: Scripts, end_ids: tuple[int, ...]
) -> ScriptLock | None:
    tokens = token_bytes()
    return None if tokens is None else ScriptLock(tokens, scripts, end_ids)


class ScriptLock:
    """Which token may follow which unfinished character.

    A token may follow if it brings whole characters of the scripts and at most the beginning of
    another, which further tokens can complete. What ends an answer may always follow.
    """

    def __init__(self, tokens: Sequence[bytes], scripts: Scripts, end_ids: Sequence[int]) -> None:
        """tokens: the bytes that each id writes. scripts: names that script_of gives."""
        self._tokens = tokens
        self._scripts = scripts
        self._ends = frozenset(end_ids)
        self._inside = [token for token, data in enumerate(tokens) if _is_inside(data)]
        self._goes_on: dict[bytes, bool] = {}
        self._forbidden: dict[tuple[bytes, int, torch.device], Tensor] = {}
        if not any(self._writes(b"", token) for token in range(len(tokens))):
            raise UserError(
                "generate.scripts: no token of this model writes in these scripts; allow more"
            )

    def mask(self, logits: Tensor, unfinished: Sequence[bytes]) -> Tensor:
        """Logits (B, V) with -inf for what may not follow. unfinished: one a row."""
        V, device = logits.shape[-1], logits.device
        rows = [self._mask_of(state, V, device) for state in unfinished]
        return logits.masked_fill(torch.stack(rows), -torch.inf)

    def follow(self, unfinished: bytes, token: int) -> bytes | None:
        """The unfinished character after a token, b"" for none; None where it may not follow.

        An id that the tokenizer does not know writes nothing.
        """
        data = unfinished + (self._tokens[token] if token < len(self._tokens) else b"")
        try:
            text, num_bytes = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError:
            return None
        if not all(may_stand(character, self._scripts) for character in text):
            return None
        rest = data[num_bytes:]
        return rest if not rest or self._can_go_on(rest) else None

    def _can_go_on(self, unfinished: bytes) -> bool:
        """Whether this vocabulary can complete it to a character of the scripts."""
        if unfinished not in self._goes_on:
            self._goes_on[unfinished] = can_complete(unfinished, self._scripts) and any(
                self._writes(unfinished, token) for token in self._inside
            )
        return self._goes_on[unfinished]

    def _writes(self, unfinished: bytes, token: int) -> bool:
        """Whether a token may follow for what it writes."""
        writes = bool(self._tokens[token]) and token not in self._ends
        return writes and self.follow(unfinished, token) is not None

    def _mask_of(self, unfinished: bytes, V: int, device: torch.device) -> Tensor:
        """(V,), true for what may not follow; made when it is first needed."""
        key = (unfinished, V, device)
        if key not in self._forbidden:
            # In a character only what begins inside one can follow: a few hundred tokens.
            tried = self._inside if unfinished else range(len(self._tokens))
            allowed = {token for token in tried if self.follow(unfinished, token) is not None}
            allowed |= {*self._ends, *range(len(self._tokens), V)}
            forbidden = torch.ones(V, dtype=torch.bool)
            forbidden[[token for token in allowed if token < V]] = False
            self._forbidden[key] = forbidden.to(device)
        return self._forbidden[key]


def _is_inside(data: bytes) -> bool:
    """Whether bytes can follow an unfinished character: they go on with it, or are none."""
    return not data or data[0] >> 6 == 0b10


@lru_cache(maxsize=1 << 16)
def may_stand(character: str, scripts: Scripts) -> bool:
    """Whether a character is of the scripts or, as digits, punctuation and emoji, of none.

    What Unicode has not assigned, or leaves to private use, is no text in any script; emoji alone
    may be newer than this Python's tables.
    """
    code = ord(character)
    if code in _HEXAGRAMS:
        return "han" in scripts
    script = script_of(character)
    if script is not None:
        return script in scripts
    return code in _PICTOGRAPHS or unicodedata.category(character) not in ("Cn", "Co", "Cs")


@cache
def can_complete(unfinished: bytes, scripts: Scripts) -> bool:
    """Whether some character that may stand begins with these 1 to 3 bytes of UTF-8."""
    num_bytes = 2 if unfinished[0] < 0xE0 else 3 if unfinished[0] < 0xF0 else 4
    first = unfinished[0] & (0xFF >> (num_bytes + 1))
    for byte in unfinished[1:]:
        first = first << 6 | byte & 0x3F
    num_open_bits = 6 * (num_bytes - len(unfinished))
    begins = max(first << num_open_bits, _LEAST[num_bytes])
    ends = (first + 1) << num_open_bits
    return any(
        may_stand(chr(code), scripts)
        for planes in _PLANES
        for code in range(max(begins, planes.start), min(ends, planes.stop))
    )
