"""Untrusted text in Markdown: escaped in a line, or in a code block that it cannot close."""

from __future__ import annotations

import re
from typing import Any

from honing.report.words import show_hidden

_SPECIAL = re.compile(
    r"[\\`*\[\]|~$@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|^[-+](?=[\s-])|^[#=]|^\d+(?=[.)]\s)", re.ASCII
)


class Markdown(str):
    """Text that is Markdown already, and is not escaped again."""


def escape(value: Any) -> Any:
    """One line of text as it is: no link, no tag, no table cell, no heading. Markdown stays."""
    if not isinstance(value, str) or isinstance(value, Markdown):
        return value
    line = " ".join(show_hidden(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markdown(_SPECIAL.sub(_escape_mark, line))


def _escape_mark(mark: re.Match[str]) -> str:
    """A backslash before the mark; after a number that would begin a list."""
    return f"{mark[0]}\\" if mark[0].isdigit() else f"\\{mark[0]}"


def inline(text: str) -> Markdown:
    """Code within a line, with more backticks around it than it holds in a row."""
    line = " ".join(show_hidden(text).split())
    fence = "`" * (_longest_run(line) + 1)
    return Markdown(f"{fence} {line} {fence}" if "`" in line else f"`{line}`")


def cell(text: str) -> Markdown:
    """Code in a table, where a bar ends the cell even within code."""
    return Markdown(inline(text).replace("|", r"\|"))


def block(text: str, language: str = "text") -> Markdown:
    """A code block with a longer fence than any row of backticks in it."""
    shown = show_hidden(text)
    fence = "`" * max(3, _longest_run(shown) + 1)
    return Markdown(f"{fence}{language}\n{shown}\n{fence}")


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
