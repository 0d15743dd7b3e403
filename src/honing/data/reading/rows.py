"""Raw rows -> Examples: what the columns of each shape say, or why a row is dropped."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping

from honing.data.example import Example, Exchange
from honing.data.reading.names import shown
from honing.data.reading.shapes import HEADER, REQUIRED, Layout, plain_text, split_sections

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
TOOL_ROLES = ("tool", "function", "ipython", "observation", "function_call", "tool_call")
END_MARKS = re.compile(r"(?:\s|<\|endoftext\|>|</s>|\[EOS\])*\Z")
RENDERED = ("### Response:", "### 답변:", "<|im_start|>", "<start_of_turn>", "[/INST]")
"""Marks of a prompt that has been through a template already."""


class Unusable(Exception):
    """A row that nothing can be learnt from; the message is the reason that is counted."""


def read_row(
    value: object, layout: Layout, example_id: str, number: int
) -> tuple[Example | str, set[str]]:
    """One raw row -> its Example, or the reason why there is none; and what was noticed.

    Noticed are the repairs `CRLF` and `NFD`, and the keys of REMARKS.
    """
    marks: set[str] = set()
    try:
        if isinstance(value, Unusable):
            raise value
        if not isinstance(value, dict):
            raise Unusable(f"row is not an object ({type(value).__name__})")
        system = _text(value, layout, "system", marks) or ""
        if layout.shape == "messages":
            exchanges, own_system = _chat(value, layout, marks)
            system = own_system or system
        elif layout.shape == "koalpaca-text":
            exchanges = (_marked_exchange(value, layout, marks),)
        else:
            exchanges = (_exchange(value, layout, marks),)
        group = _group(value, layout)
    except Unusable as reason:
        return str(reason), marks
    return Example(example_id, exchanges, system, group, number), marks


REMARKS = {
    "open turn": "chats ended with a question that nobody answers: it was left out",
    "split back": "prompts were rendered KoAlpaca ones: split back into instruction and input",
    "preamble": "texts began with words before the first header: left out",
    "rendered": 'prompts hold a response mark ("### Response:", "<|im_start|>" …) already, so the '
    'template would be applied twice: set data.template to {prompt: "{instruction}"}',
}
"""What is said about a file when rows of it were noticed."""


def remarks(marks: Mapping[str, int], num_rows: int, where: str) -> tuple[str, ...]:
    """The notes on one file, from how often each thing was noticed."""
    said = []
    for mark, text in REMARKS.items():
        # Now and then a question quotes such a mark; only most of them make a habit.
        least = num_rows // 2 if mark == "rendered" else 0
        if marks.get(mark, 0) > least:
            said.append(f"{where}: {marks[mark]:,} of {num_rows:,} {text}")
    return tuple(said)


def _tidy(text: str, name: str, marks: set[str]) -> str:
    """The text as it is learnt from; repairs are noted in `marks`."""
    if "\0" in text:
        raise Unusable(f"U+0000 in {name}")
    if "\r" in text:
        marks.add("CRLF")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unusable(f"half a character (lone surrogate) in {name}") from None
        if not unicodedata.is_normalized("NFC", text):
            marks.add("NFD")
    return plain_text(text)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(
    row: Mapping[str, object], layout: Layout, field: str, marks: set[str], name: str = ""
) -> str | None:
    """The text of a field, or None where the row has none."""
    column = layout.columns.get(field)
    value = row.get(column) if column is not None else None
    if _is_missing(value):
        return None
    if not isinstance(value, str):
        raise Unusable(f"{name or field} is not text ({type(value).__name__})")
    return _tidy(value, name or field, marks)


def _group(row: Mapping[str, object], layout: Layout) -> str | None:
    column = layout.columns.get("group")
    value = row.get(column) if column is not None else None
    if _is_missing(value) or value == "":
        return None
    if not isinstance(value, str | int | float):
        raise Unusable(f"group is not a name ({type(value).__name__})")
    return _tidy(str(value), "group", set())


def _exchange(row: Mapping[str, object], layout: Layout, marks: set[str]) -> Exchange:
    """Question and answer from columns of their own, under whatever names."""
    ask, reply = REQUIRED[layout.shape]
    instruction = _text(row, layout, ask, marks, "instruction")
    extra = _text(row, layout, "input", marks) or ""
    output = _text(row, layout, reply, marks, "output")
    if instruction is None:
        raise Unusable("no instruction")
    if layout.shape == "prompt-completion" and "### Instruction(명령어)" in instruction:
        parts = split_sections(instruction)
        if parts is not None and not parts.answer.strip():
            marks.add("split back")
            instruction, extra = parts.question, parts.input
    if any(mark in instruction for mark in RENDERED):
        marks.add("rendered")
    return _checked(instruction, extra, output)


def _checked(instruction: str, extra: str, output: str | None) -> Exchange:
    if not instruction.strip() and not extra.strip():
        raise Unusable("empty instruction")
    if output is None:
        raise Unusable("no output")
    if not output.strip():
        raise Unusable("empty output")
    return Exchange(instruction, output, extra)


def _marked_exchange(row: Mapping[str, object], layout: Layout, marks: set[str]) -> Exchange:
    text = _text(row, layout, "text", marks)
    if text is None:
        raise Unusable("no text")
    parts = split_sections(text)
    if parts is None:
        raise Unusable("text without question and answer headers")
    if any(header.lastgroup == "question" for header in HEADER.finditer(parts.answer)):
        raise Unusable("several questions in one text")
    if parts.before.strip():
        marks.add("preamble")
    return _checked(parts.question, parts.input, END_MARKS.sub("", parts.answer).lstrip())


def _chat(
    row: Mapping[str, object], layout: Layout, marks: set[str]
) -> tuple[tuple[Exchange, ...], str]:
    """The exchanges of a chat, and its system text."""
    if "messages" in layout.columns:
        turns = _turns(row.get(layout.columns["messages"]), "messages", marks)
    else:
        turns = [
            turn
            for field in ("prompt", "completion")
            for turn in _turns(row.get(layout.columns[field]), field, marks)
        ]
    system = ""
    if turns and turns[0][0] == "system":
        system = turns[0][1]
        turns = turns[1:]
    if turns and turns[-1][0] == "user":
        marks.add("open turn")
        turns = turns[:-1]
    if not turns:
        raise Unusable("no assistant turn")
    if [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise Unusable("turns do not alternate between user and assistant")
    for role, content in turns:
        if not content.strip():
            raise Unusable(f"empty {role} turn")
    pairs = zip(turns[::2], turns[1::2], strict=True)
    return tuple(Exchange(ask[1], reply[1]) for ask, reply in pairs), system


def _turns(value: object, field: str, marks: set[str]) -> list[tuple[str, str]]:
    """(role, content) of each message, whether written as role/content or as from/value."""
    if _is_missing(value):
        raise Unusable(f"no {field}")
    if not isinstance(value, list):
        raise Unusable(f"{field} is not a list ({type(value).__name__})")
    turns = []
    for item in value:
        if not isinstance(item, dict):
            raise Unusable(f"turn is not an object ({type(item).__name__})")
        name = item["role"] if item.get("role") is not None else item.get("from")
        content = item["content"] if item.get("content") is not None else item.get("value")
        role = ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            is_tool = isinstance(name, str) and name.lower() in TOOL_ROLES
            raise Unusable("tool turn" if is_tool else f"unknown role ({shown(name, 20)})")
        if content is None:
            raise Unusable(f"{role} turn without content")
        if not isinstance(content, str):
            raise Unusable(f"content is not text ({type(content).__name__})")
        turns.append((role, _tidy(content, "content", marks)))
    return turns
