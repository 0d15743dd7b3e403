"""New ids → text to show now. Whole characters only: a Hangul syllable is up to three tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

_REPLACEMENT = "�"  # what a decoder writes for bytes that are no character (yet)


class SyllableStream:
    """Turns ids that come one by one into pieces of text that end at whole characters.

    What is shown, joined, is the text of all ids decoded together, without the template's prefix,
    without a half character at its end, and without a stop text or what may become one. The whole
    answer is decoded again for each token: decoding a token alone would break syllables, and words
    that begin with a space.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = (), prefix: str = "") -> None:
        self._decode = decode
        self._stop = stop
        self._prefix = prefix
        self._ids: list[int] = []
        self._shown = ""

    def add(self, token: int) -> str:
        """The text that can be shown now that this id is known; often empty."""
        self._ids.append(token)
        text = whole_characters(self._decode(self._ids))
        if len(text) < len(self._prefix) and self._prefix.startswith(text):
            return ""  # it may become the prefix
        text = before_stop(text.removeprefix(self._prefix), self._stop)
        if not text.startswith(self._shown):
            return ""  # the decoder changed its mind about what is shown; wait until it agrees
        new = text[len(self._shown) :]
        self._shown = text
        return new


def whole_characters(text: str) -> str:
    """Text without the half character that generation may have stopped in."""
    return text.rstrip(_REPLACEMENT)


def before_stop(text: str, stop: Sequence[str]) -> str:
    """Text up to a stop text, or up to an ending that may become one."""
    for mark in stop:
        text = text.split(mark, 1)[0]
    lengths = (n for mark in stop for n in range(1, len(mark)) if text.endswith(mark[:n]))
    return text[: len(text) - max(lengths, default=0)]
