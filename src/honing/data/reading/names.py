"""Names from the user's own files, made fit for a message of one line, or for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable
from difflib import get_close_matches


def shown(name: object, limit: int = 40) -> str:
    """Foreign text made fit for a one-line message."""
    text = " ".join(str(name).encode("utf-8", "backslashreplace").decode().split())
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(names: Collection[str], limit: int = 12, width: int = 80) -> str:
    """`Q, A, label`, cut after `limit` names or `width` characters, whichever comes first."""
    parts = [shown(name) for name in list(names)[:limit] if name.strip()]
    num_left = max(0, len(names) - limit)
    while len(", ".join(parts)) > width:
        parts.pop()
        num_left += 1
    more = [f"and {num_left} more"] if num_left else []
    return ", ".join(parts + more) or "none"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean "Q"?`, or nothing where no name is near."""
    near = get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f'; did you mean "{shown(near[0])}"?' if near else ""


def as_argument(word: str) -> str:
    """A word of a command as a shell takes it. Hangul needs no quotes, whatever shlex thinks."""
    return word if re.fullmatch(r"[\w%+,./:=@-]+", word) else shlex.quote(word)
