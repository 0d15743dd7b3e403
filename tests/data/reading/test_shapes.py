"""Recognising columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import pytest

from honing.data.reading.shapes import (
    Layout,
    check_mapping,
    find_layout,
    recognise,
    suggested_template,
    widen,
)
from honing.errors import UserError

Row = Mapping[str, Any]


def layout_of(row: Row, columns: dict[str, str] | None = None, group: str | None = None) -> Layout:
    return find_layout(list(row), [row], columns or {}, group, "a.jsonl")


def test_shapes_by_their_columns() -> None:
    assert recognise(["instruction", "input", "output"], []) == "alpaca"
    assert recognise(["Instruction", " OUTPUT "], []) == "alpaca"
    assert recognise(["prompt", "completion"], []) == "prompt-completion"
    assert recognise(["prompt", "response"], []) == "prompt-completion"
    assert recognise(["messages"], []) == "messages"
    assert recognise(["id", "conversations"], []) == "messages"
    assert recognise(["prompt", "prompt_id", "messages"], []) == "messages"
    assert recognise(["question", "answer", "url"], []) == "question-answer"
    assert recognise(["Q", "A", "label"], []) == "question-answer"
    assert recognise(["질문", "답변"], []) == "question-answer"
    assert recognise([unicodedata.normalize("NFD", "질문"), "답변"], []) == "question-answer"
    assert recognise(["instruction", "output", "text", "prompt"], []) == "alpaca"


def test_templates_suggested_for_each_shape() -> None:
    assert suggested_template("alpaca") == "instruction"
    assert suggested_template("prompt-completion") == "instruction"
    assert suggested_template("question-answer") == "instruction"
    assert suggested_template("koalpaca-text") == "koalpaca-v1.1"
    assert suggested_template("messages") == "chat"


def test_columns_that_nobody_knows_get_a_likely_mapping() -> None:
    row = {"no": 1, "user query": "물은?", "bot_reply": "H2O", "score": 3}
    with pytest.raises(UserError) as error:
        layout_of(row)
    assert str(error.value) == (
        "a.jsonl: question and answer not found among its columns (found: no, user query, "
        "bot_reply, score); expected instruction and output, prompt and completion, question and "
        "answer, messages, or text: name yours under data with "
        'columns: {instruction: "user query", output: bot_reply}'
    )
    with pytest.raises(UserError, match=r"columns: \{instruction: instruction, output: response\}"):
        layout_of({"instruction": "a", "context": "b", "response": "c"})
    with pytest.raises(UserError, match=r"columns: \{instruction: …, output: …\}"):
        layout_of({"one": "a"})


def test_many_long_columns_make_no_long_message() -> None:
    for blank in ("_", " "):
        with pytest.raises(UserError) as error:
            layout_of({f"n{blank}{'x' * 60}{n}": "a" for n in range(50)})
        assert len(str(error.value)) < 370


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"instuction": "Q"},
            'data.columns: "instuction" is none of its keys (instruction, input, output, prompt, '
            'completion, messages, text, system, group); did you mean "instruction"?',
        ),
        ({"output": 3}, "data.columns.output: 3 is not the name of a column; give one"),
    ],
)
def test_keys_of_data_columns(columns: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        check_mapping(columns)
    assert str(error.value) == message


def test_columns_that_the_file_lacks() -> None:
    row = {"Question text": "물은?", "A": "H2O", "label": "0"}
    with pytest.raises(UserError) as error:
        layout_of(row, {"instruction": "Question txt", "output": "A"})
    assert str(error.value) == (
        'data.columns.instruction: a.jsonl has no column "Question txt" '
        '(found: Question text, A, label); did you mean "Question text"?'
    )
    with pytest.raises(UserError) as error:
        find_layout(["Q", "A", "label"], [], {}, "topic", "a.jsonl")
    assert str(error.value) == (
        'data.group_by: a.jsonl has no column "topic" '
        "(found: Q, A, label); give one of those it has"
    )


def test_optional_columns_that_only_later_rows_have() -> None:
    layout = widen(layout_of({"Instruction": "a", "output": "b"}), ["Input", "GROUP", "messages"])
    assert layout == Layout(
        "alpaca",
        {"instruction": "Instruction", "output": "output", "input": "Input", "group": "GROUP"},
    )


def test_a_text_column_without_headers_is_refused() -> None:
    rows: list[Row] = [{"text": "### 질문: a\n\n### 답변: b"}, {"text": "글"}, {"text": None}]
    with pytest.raises(UserError) as error:
        recognise(["text"], rows, where="a.jsonl")
    assert str(error.value) == (
        'a.jsonl: question and answer cannot be told apart in column "text" (1 of the first 2 rows '
        'are marked); "### 질문:" with "### 답변:" and "### Instruction:" with "### Response:" '
        "are understood: mark the rows so, or give two columns"
    )
