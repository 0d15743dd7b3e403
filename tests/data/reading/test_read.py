"""Rows of one or several files -> examples, with what was dropped, repaired and noticed."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from honing.data.example import Example, Exchange
from honing.data.reading.read import DroppedRow
from tests.data.reading.files import (
    EXCHANGES,
    ROWS,
    TABLE,
    error_of,
    exchanges,
    ids,
    lines_of,
    one_row,
    read,
    save,
)


def test_several_files_are_joined(tmp_path: Path) -> None:
    names = [one_row(tmp_path / "a.jsonl", "1"), save(tmp_path / "b.csv", "Q,A,x\nb,\nc,2\n")]
    rows = read(names)
    assert ids(rows) == ["a.jsonl:1", "b.csv:3"]
    assert rows.dropped == (DroppedRow("b.csv:2", 2, "empty output"),)
    assert (rows.num_rows, rows.shape) == (3, "alpaca")
    assert rows.columns == ("instruction", "output", "Q", "A", "x")
    assert rows.notes == ("a.jsonl is alpaca; b.csv is question-answer",)


def test_decomposed_hangul_is_composed_and_counted(tmp_path: Path) -> None:
    text = unicodedata.normalize("NFD", lines_of(ROWS))
    rows = read(save(tmp_path / "a.jsonl", text))
    assert (exchanges(rows), rows.repaired) == (EXCHANGES, {"NFD": 2})
    rows = read(save(tmp_path / "a.csv", unicodedata.normalize("NFD", "질문,답변\n물은?,물\n")))
    assert (exchanges(rows), rows.columns) == ([Exchange("물은?", "물")], ("질문", "답변"))


def test_dropped_rows_keep_their_place(tmp_path: Path) -> None:
    bad = [{"instruction": "a"}, "text", {"instruction": "a", "output": "\0"}]
    text = lines_of([*bad, ROWS[0]]) + '{"instruction": "a", "output": "\\ud800"}\n'
    text += '{"instruction": "a", "output": NaN}\n{"instruction": "a", "output": 1e999}\n'
    rows = read(save(tmp_path / "a.jsonl", text))
    assert (ids(rows), rows.num_rows) == (["a.jsonl:4"], 7)
    assert rows.dropped == (
        DroppedRow("a.jsonl:1", 1, "no output"),
        DroppedRow("a.jsonl:2", 2, "row is not an object (str)"),
        DroppedRow("a.jsonl:3", 3, "U+0000 in output"),
        DroppedRow("a.jsonl:5", 5, "half a character (lone surrogate) in output"),
        DroppedRow("a.jsonl:6", 6, "no output"),
        DroppedRow("a.jsonl:7", 7, "output is not text (float)"),
    )


def test_no_half_character_leaves_the_reader(tmp_path: Path) -> None:
    text = '{"instruction": "a", "output": "b", "x\\ud800": 1}\n'
    assert read(save(tmp_path / "a.jsonl", text)).columns == ("instruction", "output", "x\\ud800")


def test_the_first_row_may_be_no_object(tmp_path: Path) -> None:
    rows = read(save(tmp_path / "a.jsonl", "null\n" + lines_of(ROWS)))
    assert (ids(rows), rows.num_rows) == (["a.jsonl:2", "a.jsonl:3"], 3)


def test_a_column_that_starts_late_is_read(tmp_path: Path) -> None:
    plain = [{"instruction": f"{n}?", "output": "b"} for n in range(150)]
    late = {"instruction": "a", "output": "b", "input": "c", "group": "g"}
    rows = read(save(tmp_path / "a.jsonl", lines_of([*plain, late])))
    assert rows.examples[-1] == Example(
        "a.jsonl:151", (Exchange("a", "b", "c"),), group="g", row=151
    )
    assert rows.columns == ("instruction", "output", "input", "group")


def test_notes_on_shapes_name_the_file(tmp_path: Path) -> None:
    row = {"prompt": "물은?\n### Response:\n", "completion": "H2O"}
    rows = read(save(tmp_path / "a.jsonl", lines_of([row])))
    assert rows.notes == (
        'a.jsonl: 1 of 1 prompts hold a response mark ("### Response:", "<|im_start|>" …) already, '
        'so the template would be applied twice: set data.template to {prompt: "{instruction}"}',
    )


def test_group_by(tmp_path: Path) -> None:
    name = save(tmp_path / "a.csv", "Q,A,label\n물은?,H2O,3\n불은?,뜨거워,\n")
    assert [e.group for e in read(name, group_by="label").examples] == ["3", None]
    assert [e.group for e in read(name).examples] == [None, None]
    assert error_of(name, group_by="lable") == (
        'data.group_by: a.csv has no column "lable" (found: Q, A, label); did you mean "label"?'
    )


# ------------------------------------------------------------------ refused

OBJECTS = 'write each row as {"instruction": …, "output": …}'
EXPECTED = (
    "expected instruction and output, prompt and completion, question and answer, messages, or "
    "text: name yours under data with columns: {instruction: …, output: …}"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "f.jsonl holds no rows; give a file with rows"),
        (
            b"{}",
            f"f.jsonl: question and answer not found among its columns (found: none); {EXPECTED}",
        ),
        ("[1]\n[2]\n", f"f.jsonl: its rows are no objects but for example list; {OBJECTS}"),
        ('["a", "b"]', f"f.jsonl: its rows are no objects but for example str; {OBJECTS}"),
        (
            '{"text": "글"}\n',
            'f.jsonl: question and answer cannot be told apart in column "text" (0 of the first 1 '
            'rows are marked); "### 질문:" with "### 답변:" and "### Instruction:" with '
            '"### Response:" are understood: mark the rows so, or give two columns',
        ),
        (
            lines_of(
                [{"instruction": "a", "output": ""}] * 3 + [{"instruction": "", "output": ""}]
            ),
            "f.jsonl: no usable row; empty output in 3 of 4 (first: f.jsonl:1); "
            "mend the rows, or name other columns with data.columns",
        ),
    ],
)
def test_jsonl_without_usable_rows(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert error_of(save(tmp_path / "f.jsonl", content)) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Q,A\n", "f.csv holds no rows; give a file with rows"),
        (
            "번호,글\n1,안녕\n",
            "f.csv: question and answer not found among its columns (found: 번호, 글); "
            + EXPECTED.replace("{instruction: …, output: …}", "{instruction: 번호, output: 글}"),
        ),
        (
            "Q,A\n안녕,네,뭐\n",
            "f.csv: no usable row; more cells than columns in 1 of 1 (first: f.csv:2); "
            "mend the rows, or name other columns with data.columns",
        ),
    ],
)
def test_tables_without_usable_rows(tmp_path: Path, content: str, message: str) -> None:
    assert error_of(save(tmp_path / "f.csv", content)) == message


def test_wishes_that_do_not_fit(tmp_path: Path) -> None:
    name = save(tmp_path / "a.csv", TABLE)
    assert error_of(name, columns={"instruction": "Question", "output": "A"}) == (
        'data.columns.instruction: a.csv has no column "Question" (found: Q, A, label); '
        "give one of those it has"
    )
    assert error_of(name, columns={"outptu": "A"}).startswith('data.columns: "outptu" is none of')


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = one_row(tmp_path / "a.jsonl", "1")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr("builtins.open", refuse)
    assert error_of(name) == "a.jsonl: cannot be read (Permission denied)"
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert error_of(str(tmp_path)) == "data.source: cannot look into x (Permission denied)"
