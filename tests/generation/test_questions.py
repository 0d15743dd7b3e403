"""Prompts that a user gives → Examples without an answer; each refusal in its exact words."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from honing.data.example import Example, Exchange
from honing.errors import UserError
from honing.generation.questions import (
    Question,
    question_from_text,
    read_question_file,
    read_question_lines,
    read_question_text,
)


def one(row: object) -> Example:
    (question,) = read_question_lines(json.dumps(row, ensure_ascii=False), "q.jsonl")
    assert question.row == row
    return question.example


def error_of_lines(text: str) -> str:
    with pytest.raises(UserError) as error:
        read_question_lines(text, "q.jsonl")
    return str(error.value)


def error_of_row(row: object) -> str:
    return error_of_lines("\n" + json.dumps(row) + "\n")


def error_of_file(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_question_file(path)
    return str(error.value)


def save(folder: Path, content: bytes) -> Path:
    path = folder / "q.jsonl"
    path.write_bytes(content)
    return path


def chat(*turns: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


# --- one prompt


def test_a_prompt_is_an_example_without_an_answer() -> None:
    example = Example("prompt", (Exchange("물은?", ""),), row=1)
    assert question_from_text("물은?") == Question(example, {"instruction": "물은?"})


def test_a_prompt_may_have_material() -> None:
    question = question_from_text("요약해", "긴 글", "--prompt")
    assert question.example == Example("--prompt", (Exchange("요약해", "", "긴 글"),), row=1)
    assert question.row == {"instruction": "요약해", "input": "긴 글"}


def test_a_prompt_is_tidied_as_training_rows_are() -> None:
    decomposed = unicodedata.normalize("NFD", "한국의\r\n수도\r는?")
    question = question_from_text(decomposed, decomposed)
    assert question.example.exchanges == (Exchange("한국의\n수도\n는?", "", "한국의\n수도\n는?"),)
    assert question.row["instruction"] == decomposed  # what the user gave is given back


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_an_empty_prompt_is_refused(text: str) -> None:
    with pytest.raises(UserError) as error:
        question_from_text(text, name="--prompt")
    assert str(error.value) == "--prompt: is empty; give a text"


@pytest.mark.parametrize(("text", "material"), [("a\ud800", ""), ("a", "\udcff")])
def test_half_a_character_is_refused(text: str, material: str) -> None:
    with pytest.raises(UserError) as error:
        question_from_text(text, material, "--prompt")
    assert str(error.value) == (
        "--prompt: holds half a character (lone surrogate); write it as UTF-8"
    )


# --- rows


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "가"}, Exchange("가", "")),
        ({"instruction": "가", "input": "나"}, Exchange("가", "", "나")),
        ({"instruction": "가", "input": ""}, Exchange("가", "")),
        ({"instruction": "가", "input": None}, Exchange("가", "")),
        ({"instruction": "가", "output": "다", "id": 7}, Exchange("가", "")),
        ({"prompt": "가"}, Exchange("가", "")),
        ({"prompt": "가", "completion": "나"}, Exchange("가", "")),
        ({"question": "가", "answer": "나"}, Exchange("가", "")),
        ({"instruction": "가", "prompt": "나", "question": "다"}, Exchange("가", "")),
    ],
)
def test_each_form_of_a_row(row: dict[str, object], expected: Exchange) -> None:
    assert one(row) == Example("q.jsonl:1", (expected,), row=1)


def test_messages_end_with_the_user() -> None:
    row = chat(("system", "친절히"), ("user", "가"), ("assistant", "나"), ("user", "다"))
    exchanges = (Exchange("가", "나"), Exchange("다", ""))
    assert one(row) == Example("q.jsonl:1", exchanges, system="친절히", row=1)
    assert one(chat(("user", "가"))) == Example("q.jsonl:1", (Exchange("가", ""),), row=1)


def test_messages_are_tidied() -> None:
    nfd = unicodedata.normalize("NFD", "가\r\n나")
    row = chat(("system", nfd), ("user", nfd), ("assistant", nfd), ("user", nfd))
    exchanges = (Exchange("가\n나", "가\n나"), Exchange("가\n나", ""))
    assert one(row) == Example("q.jsonl:1", exchanges, system="가\n나", row=1)


def test_rows_are_named_by_their_lines() -> None:
    text = '\n{"prompt": "a"}\r\n\r\n  \n{"prompt": "b"}'
    questions = read_question_lines(text, "q.jsonl")
    assert [q.example.id for q in questions] == ["q.jsonl:2", "q.jsonl:5"]
    assert [q.example.row for q in questions] == [2, 5]
    assert [q.example.exchanges[0].instruction for q in questions] == ["a", "b"]


def test_a_line_separator_inside_a_text_ends_no_line() -> None:
    (question,) = read_question_lines('{"prompt": "a\u2028b\x85c"}', "q.jsonl")
    assert question.example.exchanges[0].instruction == "a\u2028b\x85c"


def test_one_json_list_is_read_too() -> None:
    rows = [{"prompt": "a"}, {"instruction": "b", "input": "c"}]
    questions = read_question_lines(json.dumps(rows, indent=2), "q.json")
    assert [q.example.id for q in questions] == ["q.json:1", "q.json:2"]
    assert [q.row for q in questions] == rows
    with pytest.raises(UserError) as error:
        read_question_lines('[\n{"prompt": "a"},\n{"Q": "b"}\n]', "q.json")
    assert str(error.value) == (
        "q.json, row 2: has Q; expected instruction (and input) or messages"
    )


# --- what is refused


NOT_JSON = 'is not JSON; write {"instruction": "…"}, one object a line'
NO_OBJECT = 'is no JSON object; write {"instruction": "…"}'
NO_LIST = "messages is no list of role and content"
NO_TURNS = "messages must alternate user and assistant, and end with user"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("한국의 수도는?", NOT_JSON),
        ('{"instruction": "a"', NOT_JSON),
        ('{"instruction": "a"} {"instruction": "b"}', NOT_JSON),
        ('[{"instruction": "a"},', NOT_JSON),
        ("[" * 100_000, NOT_JSON),
        ('"a"', NO_OBJECT),
        ("3", NO_OBJECT),
        ("null", NO_OBJECT),
    ],
)
def test_a_line_that_is_no_object_is_refused(line: str, message: str) -> None:
    text = f'{{"prompt": "fine"}}\n\n{line}\n'
    assert error_of_lines(text) == f"q.jsonl, line 3: {message}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"Q": "a", "A": "b"}, "has Q, A; expected instruction (and input) or messages"),
        ({}, "has nothing; expected instruction (and input) or messages"),
        ({"instruction": ""}, "instruction is no text, or is empty"),
        ({"instruction": " \n"}, "instruction is no text, or is empty"),
        ({"instruction": None, "prompt": "a"}, "instruction is no text, or is empty"),
        ({"prompt": 3}, "prompt is no text, or is empty"),
        ({"question": ["a"]}, "question is no text, or is empty"),
        ({"instruction": "a", "input": 3}, "input is no text"),
        ({"messages": "a"}, NO_LIST),
        ({"messages": ["a"]}, NO_LIST),
        ({"messages": [{"role": "user"}]}, NO_LIST),
        ({"messages": [{"role": "user", "content": None}]}, NO_LIST),
        ({"messages": []}, NO_TURNS),
        (chat(("system", "a")), NO_TURNS),
        (chat(("user", "a"), ("assistant", "b")), NO_TURNS),
        (chat(("assistant", "a"), ("user", "b")), NO_TURNS),
        (chat(("user", "a"), ("user", "b"), ("user", "c")), NO_TURNS),
        (chat(("user", "a"), ("system", "b"), ("user", "c")), NO_TURNS),
        ({"messages": [{"content": "a"}]}, NO_TURNS),
        (chat(("user", " ")), "messages has an empty turn; give it a text"),
        (
            chat(("user", "a"), ("assistant", ""), ("user", "c")),
            "messages has an empty turn; give it a text",
        ),
        (
            {"instruction": "a", "other": "\ud800"},
            "holds half a character (lone surrogate); write it as UTF-8",
        ),
    ],
)
def test_a_row_that_asks_nothing_is_refused(row: object, message: str) -> None:
    assert error_of_row(row) == f"q.jsonl, line 2: {message}"


@pytest.mark.parametrize("text", ["", "\n \r\n\n", "[]"])
def test_a_text_without_a_prompt_is_refused(text: str) -> None:
    assert error_of_lines(text) == "q.jsonl: holds no prompt; write one JSON object a line"


# --- files


def test_a_file_with_a_mark_and_windows_lines_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, '\ufeff{"prompt": "가"}\r\n{"prompt": "나\\r\\n다"}\r\n'.encode())
    questions = read_question_file(path)
    assert [q.example.exchanges[0].instruction for q in questions] == ["가", "나\n다"]
    assert [q.example.id for q in questions] == ["q.jsonl:1", "q.jsonl:2"]


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "없는 파일.jsonl"
    assert error_of_file(path) == f"{path}: no such file"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert error_of_file(tmp_path) == f"{tmp_path}: cannot be read (Is a directory)"


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, b'{"prompt": "' + "가".encode("cp949") + b'"}\n')
    assert error_of_file(path) == f"{path}: is not UTF-8 (byte 12); save it as UTF-8"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, b"")
    assert error_of_file(path) == "q.jsonl: holds no prompt; write one JSON object a line"


# --- standard input: a prompt, or rows


@pytest.mark.parametrize(
    "text", ["한국의 수도는?\n\n", "[질문] 물은?", "[1, 2] 를 더해", "[1, 2]", "[]", '"{"']
)
def test_a_text_is_one_prompt(text: str) -> None:
    (question,) = read_question_text(text, "standard input")
    assert question.example.id == "standard input"
    assert question.example.exchanges == (Exchange(text.rstrip("\n"), ""),)


@pytest.mark.parametrize(
    "text", ['{"prompt": "a"}\n{"prompt": "b"}', '[{"prompt": "a"}, {"prompt": "b"}]']
)
def test_rows_are_rows(text: str) -> None:
    questions = read_question_text("\n" + text, "standard input")
    assert [q.row for q in questions] == [{"prompt": "a"}, {"prompt": "b"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "standard input: is empty; give a text"),
        ("\n\n", "standard input: is empty; give a text"),
        ("{oh", f"standard input, line 1: {NOT_JSON}"),
    ],
)
def test_nothing_and_broken_rows_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_question_text(text, "standard input")
    assert str(error.value) == message
