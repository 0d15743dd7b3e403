"""Two texts → the words that changed; and characters that nobody sees, made visible."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["same", "added", "removed"]
Part = tuple[Kind, str]

MOST_COMPARISONS = 200_000
"""Words of one text times words of the other: some ten milliseconds at most. Of longer ones, loops
among them, all between the common beginning and the common end counts as changed."""

_UNIT = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")
"""A word (a Korean eojeol without its punctuation) or a single mark, with the space before it."""


def mark_changes(before: str, after: str) -> list[Part]:
    """Word by word, what `after` kept, added and removed.

    Nothing is lost: same and removed parts joined are `before`, same and added ones `after`.
    Neighbours differ in kind; of a replaced piece, the removed part comes first.
    """
    old, new = _UNIT.findall(before), _UNIT.findall(after)
    start = _num_equal(old, new)
    old_rest, new_rest = old[start:], new[start:]
    end = _num_equal(old_rest[::-1], new_rest[::-1])
    middle = _diff(old_rest[: len(old_rest) - end], new_rest[: len(new_rest) - end])
    tail = "".join(old_rest[len(old_rest) - end :])
    return _join([("same", "".join(old[:start])), *middle, ("same", tail)])


def _num_equal(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the common beginning."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


def _diff(old: Sequence[str], new: Sequence[str]) -> Iterator[Part]:
    """Words are compared without the space before them; where only that changed, only that is."""
    if len(old) * len(new) > MOST_COMPARISONS:
        yield "removed", "".join(old)
        yield "added", "".join(new)
        return
    words = [unit.lstrip() for unit in old], [unit.lstrip() for unit in new]
    for tag, i, j, k, m in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        if tag != "equal":
            yield "removed", "".join(old[i:j])
            yield "added", "".join(new[k:m])
            continue
        for one, other, word in zip(old[i:j], new[k:m], words[0][i:j], strict=True):
            if one != other:
                yield "removed", one.removesuffix(word)
                yield "added", other.removesuffix(word)
            yield "same", word if one != other else one


def _join(parts: Iterable[Part]) -> list[Part]:
    """Without empty parts, and neighbours of one kind made one."""
    joined: list[Part] = []
    text_of: dict[Kind, str] = {"same": "", "removed": "", "added": ""}

    def close(*kinds: Kind) -> None:
        for kind in kinds:
            if text_of[kind]:
                joined.append((kind, text_of[kind]))
            text_of[kind] = ""

    for kind, text in parts:
        if text and kind == "same" and (text_of["removed"] or text_of["added"]):
            text_of["same"] += _take_common_space(text_of)
            close("same", "removed", "added")
        text_of[kind] += text
    text_of["same"] += _take_common_space(text_of)
    close("same", "removed", "added")
    return joined


def _take_common_space(text_of: dict[Kind, str]) -> str:
    """A space that begins both what was removed and what was added has stayed."""
    removed, added = text_of["removed"], text_of["added"]
    space = removed[: len(removed) - len(removed.lstrip())]
    if not space or not added.startswith(space):
        return ""
    text_of["removed"], text_of["added"] = removed.removeprefix(space), added.removeprefix(space)
    return space


_INVISIBLE_LETTERS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]")
"""Characters without a shape that Unicode counts as letters, marks or symbols."""


def split_hidden(text: str) -> Iterator[tuple[bool, str]]:
    """Pieces of a text: (False, what can be seen) and (True, an escape such as \\u202e).

    Control characters, marks of direction, zero-width characters, lone surrogates and code points
    without a character are hidden; line breaks, tabs and the joiner inside an emoji are not.
    """
    start = 0
    for place, character in enumerate(text):
        if _is_hidden(character) and not _joins_emoji(text, place):
            if place > start:
                yield False, text[start:place]
            yield True, _escape(character)
            start = place + 1
    if start < len(text):
        yield False, text[start:]


def show_hidden(text: str) -> str:
    """The same as one text."""
    return "\n".join(
        line if line.isprintable() and not _INVISIBLE_LETTERS.search(line) else _show(line)
        for line in text.split("\n")
    )


def _show(line: str) -> str:
    return "".join(piece for _, piece in split_hidden(line))


def _is_hidden(character: str) -> bool:
    if _INVISIBLE_LETTERS.match(character):
        return True
    if character.isprintable() or character in "\n\t":
        return False
    return unicodedata.category(character) != "Zs"


def _joins_emoji(text: str, place: int) -> bool:
    around = text[max(0, place - 1) : place] + text[place + 1 : place + 2]
    return (
        text[place] == "\u200d"
        and len(around) == 2
        and all(unicodedata.category(neighbour) in ("So", "Sk", "Mn") for neighbour in around)
    )


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
