"""Prompts that a user gives → Examples without an answer."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from honing.data.example import Example, Exchange
from honing.data.reading.names import listed
from honing.data.reading.shapes import plain_text
from honing.errors import UserError


@dataclass(frozen=True)
class Question:
    """One prompt, and the row that it came from, to be written back with the answer."""

    example: Example
    row: dict[str, Any]


def question_from_text(text: str, input: str = "", name: str = "prompt") -> Question:
    """A prompt as typed on the command line."""
    if not text.strip():
        raise UserError(f"{name}: is empty; give a text")
    _check_characters(text + input, name)
    example = Example(name, (Exchange(plain_text(text), "", plain_text(input)),), row=1)
    row = {"instruction": text} | ({"input": input} if input else {})
    return Question(example, row)


def read_question_file(path: Path) -> list[Question]:
    """Questions of a JSONL file: instruction (and input), prompt, question or messages."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    return read_question_lines(text, path.name)


def read_question_text(text: str, where: str) -> list[Question]:
    """Rows of JSON where the text is such, else the text itself as one prompt."""
    rows = _json_list(text) or [None]
    if text.lstrip().startswith("{") or isinstance(rows[0], dict):
        return read_question_lines(text, where)
    return [question_from_text(text.strip("\r\n"), name=where)]


def read_question_lines(text: str, where: str) -> list[Question]:
    """Questions of a text with one JSON object a line, or with one JSON list around them all."""
    whole = _json_list(text)
    if whole is not None:
        questions = [
            _read_row(row, f"{where}, row {number}", f"{where}:{number}", number)
            for number, row in enumerate(whole, start=1)
        ]
    else:
        questions = [
            _read_line(line, f"{where}, line {number}", f"{where}:{number}", number)
            for number, line in enumerate(text.split("\n"), start=1)
            if line.strip()
        ]
    if not questions:
        raise UserError(f"{where}: holds no prompt; write one JSON object a line")
    return questions


def _json_list(text: str) -> list[Any] | None:
    """A file that is one JSON list; what is broken is reported by its lines."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _read_line(line: str, where: str, question_id: str, number: int) -> Question:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(
            f'{where}: is not JSON; write {{"instruction": "…"}}, one object a line'
        ) from None
    return _read_row(row, where, question_id, number)


def _read_row(row: object, where: str, question_id: str, number: int) -> Question:
    if not isinstance(row, dict):
        raise UserError(f'{where}: is no JSON object; write {{"instruction": "…"}}')
    _check_characters(json.dumps(row, ensure_ascii=False), where)
    if "messages" in row:
        return Question(_chat(row["messages"], where, question_id, number), row)
    key = next((k for k in ("instruction", "prompt", "question") if k in row), None)
    if key is None:
        found = listed(row) if row else "nothing"
        raise UserError(f"{where}: has {found}; expected instruction (and input) or messages")
    asked, material = row[key], row.get("input") or ""
    if not isinstance(asked, str) or not asked.strip():
        raise UserError(f"{where}: {key} is no text, or is empty")
    if not isinstance(material, str):
        raise UserError(f"{where}: input is no text")
    exchange = Exchange(plain_text(asked), "", plain_text(material))
    return Question(Example(question_id, (exchange,), row=number), row)


def _chat(messages: object, where: str, question_id: str, number: int) -> Example:
    """A chat that ends with the user's turn."""
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages
    ):
        raise UserError(f"{where}: messages is no list of role and content")
    roles = [str(message.get("role")) for message in messages]
    words = [plain_text(message["content"]) for message in messages]
    system = ""
    if roles[:1] == ["system"]:
        system, roles, words = words[0], roles[1:], words[1:]
    if (
        not roles
        or roles != (["user", "assistant"] * len(roles))[: len(roles)]
        or len(roles) % 2 == 0
    ):
        raise UserError(f"{where}: messages must alternate user and assistant, and end with user")
    if not all(word.strip() for word in words):
        raise UserError(f"{where}: messages has an empty turn; give it a text")
    exchanges = [
        Exchange(words[place], words[place + 1] if place + 1 < len(words) else "")
        for place in range(0, len(words), 2)
    ]
    return Example(question_id, tuple(exchanges), system=system, row=number)


def _check_characters(text: str, where: str) -> None:
    if re.search("[\ud800-\udfff]", text):
        raise UserError(f"{where}: holds half a character (lone surrogate); write it as UTF-8")
