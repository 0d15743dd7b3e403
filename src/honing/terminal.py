"""Foreign text made fit for a terminal: none of it moves the cursor, changes colours, or hides.

Files and pipes get every text as it is; only what a person reads on a terminal is made visible.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

MOST_CHARS = 2000
"""Of a message in one line."""

# Control characters but for tab and line feed; line and paragraph separators; what turns the
# direction of writing, so that a text reads as another.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


_SECRET = re.compile(r"(?<=://)[^/\s@]+(?=@)|\b(?:hf|api_org)_[A-Za-z0-9]{30,}")
"""A password in an address, as of a mirror of the Hub, and the Hub's own tokens."""


def visible(text: str) -> str:
    r"""The text with `\x1b` and the like written out."""
    return _STEERING.sub(lambda match: _name(ord(match[0])), text)


def _name(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def one_line(text: str) -> str:
    """The text on one line, without secrets; steering and half characters are written out."""
    words = " ".join(_without_middle(_SECRET.sub("…", text), 2 * MOST_CHARS).split())
    return _without_middle(visible(words.encode("utf-8", "backslashreplace").decode()), MOST_CHARS)


def _without_middle(text: str, most_chars: int) -> str:
    """Its end says what to do."""
    half = most_chars // 2
    return text if len(text) <= most_chars else f"{text[:half]}…{text[-half + 1 :]}"


class _Terminal(io.TextIOWrapper):
    """A terminal that shows visible text alone, and the carriage returns of progress bars."""

    def write(self, text: str) -> int:
        super().write("\r".join(map(visible, text.split("\r"))))
        return len(text)

    def close(self) -> None:
        self.flush()  # the terminal itself is the process's, and stays open


def guarded(stream: TextIO) -> TextIO:
    """A stream to a terminal, whoever writes to it."""
    if isinstance(stream, _Terminal) or not isinstance(stream, io.TextIOWrapper):
        return stream
    return _Terminal(stream.buffer, stream.encoding, errors="replace", line_buffering=True)


@contextmanager
def silenced() -> Iterator[None]:
    """Nowhere goes what libraries in Rust write past Python: keys of a stranger's file with all
    their control characters, and the trace of a panic, which is an error here all the same."""
    saved: dict[int, int] = {}
    with open(os.devnull, "wb") as nowhere:
        for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
            with suppress(OSError, ValueError):  # one that is closed
                stream.flush()
                saved[number] = os.dup(number)
                os.dup2(nowhere.fileno(), number)
        try:
            yield
        finally:
            for number, own in saved.items():
                os.dup2(own, number)
                os.close(own)
