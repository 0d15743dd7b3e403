"""Files of every kind -> examples with row numbers; bad ones -> one line that says where."""

from __future__ import annotations

import gzip
import json
import sys
import types
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from honing.data.example import Example, Exchange
from honing.data.read import DroppedRow, ReadRows, SourceSpec, read_source
from honing.errors import UserError

ROWS = [
    {"instruction": "물은?", "input": "", "output": "H2O"},
    {"instruction": "더해라", "input": "1, 2", "output": "3"},
]
EXCHANGES = [Exchange("물은?", "H2O"), Exchange("더해라", "3", "1, 2")]


def lines_of(rows: Iterable[object]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def save(path: Path, content: str | bytes) -> str:
    """Write a file, text as UTF-8, and give its name."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def read_all(
    source: SourceSpec,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    group_by: str | None = None,
) -> dict[str, ReadRows]:
    return read_source(source, columns=columns, encoding=encoding, group_by=group_by)


def read(source: SourceSpec, **wishes: Any) -> ReadRows:
    splits = read_all(source, **wishes)
    assert list(splits) == ["all"]
    return splits["all"]


def exchanges(rows: ReadRows) -> list[Exchange]:
    return [example.exchanges[0] for example in rows.examples]


def ids(rows: ReadRows) -> list[str]:
    return [example.id for example in rows.examples]


def error_of(source: SourceSpec, **wishes: Any) -> str:
    with pytest.raises(UserError) as error:
        read_all(source, **wishes)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


# ------------------------------------------------------------------ formats


def test_jsonl(tmp_path: Path) -> None:
    text = lines_of(ROWS[:1]) + "\n  \n" + lines_of(ROWS[1:])
    assert read(save(tmp_path / "a.jsonl", text)) == ReadRows(
        examples=(
            Example("a.jsonl:1", (EXCHANGES[0],), row=1),
            Example("a.jsonl:4", (EXCHANGES[1],), row=4),
        ),
        num_rows=2,
        dropped=(),
        repaired={},
        notes=(),
        shape="alpaca",
        columns=("instruction", "input", "output"),
    )


@pytest.mark.parametrize("indent", [None, 2])
def test_json_list(tmp_path: Path, indent: int | None) -> None:
    text = json.dumps(ROWS, indent=indent)
    rows = read(save(tmp_path / "a.json", text))
    assert (ids(rows), exchanges(rows)) == (["a.json:1", "a.json:2"], EXCHANGES)
    assert rows.notes == ()
    rows = read(save(tmp_path / "a.jsonl", text))
    assert (ids(rows), exchanges(rows)) == (["a.jsonl:1", "a.jsonl:2"], EXCHANGES)
    assert rows.notes == ("a.jsonl holds one JSON list, read as such",)


def test_a_list_with_one_row_a_line(tmp_path: Path) -> None:
    text = "[\n" + ",\n".join(json.dumps(row) for row in ROWS[:1]) + "\n]\n"
    assert exchanges(read(save(tmp_path / "a.json", text))) == EXCHANGES[:1]


@pytest.mark.parametrize("indent", [None, 2])
def test_an_object_around_the_list(tmp_path: Path, indent: int | None) -> None:
    text = json.dumps({"version": "1.1", "data": ROWS, "tags": ["ko"]}, indent=indent)
    rows = read(save(tmp_path / "a.json", text))
    assert (ids(rows), exchanges(rows)) == (["a.json:1", "a.json:2"], EXCHANGES)
    assert rows.notes == ('a.json wraps its rows in one list, "data": read as such',)
    two = save(tmp_path / "b.json", json.dumps({"train": ROWS, "dev": ROWS}))
    assert error_of(two) == (
        "b.json holds several lists (train, dev); give each in a file of its own"
    )


def test_one_row_alone(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    rows = read(save(tmp_path / "a.jsonl", json.dumps(chat)))
    assert (ids(rows), rows.shape, rows.notes) == (["a.jsonl:1"], "messages", ())
    renamed = {"dialog": chat["messages"]}
    rows = read(
        save(tmp_path / "b.json", json.dumps(renamed, indent=1)), columns={"messages": "dialog"}
    )
    assert exchanges(rows) == [Exchange("a", "b")]
    assert rows.notes == ("b.json holds one JSON object a line, read as such",)


TABLE = 'Q,A,label\n안녕,"반가워,\n정말 ""반가워""",0\n\n물은?,H2O,1\n'


def test_csv_rows_are_named_by_the_line_they_start_at(tmp_path: Path) -> None:
    rows = read(save(tmp_path / "a.csv", TABLE))
    assert exchanges(rows) == [Exchange("안녕", '반가워,\n정말 "반가워"'), Exchange("물은?", "H2O")]
    assert ids(rows) == ["a.csv:2", "a.csv:5"]
    assert (rows.shape, rows.columns) == ("question-answer", ("Q", "A", "label"))
    mapped = read(str(tmp_path / "a.csv"), columns={"instruction": "Q", "output": "A"})
    assert (mapped.examples, mapped.shape) == (rows.examples, "alpaca")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_csv_with_other_delimiters(tmp_path: Path, mark: str) -> None:
    text = f"instruction{mark}input{mark}output\n더해라{mark}1, 2{mark}3\n"
    assert exchanges(read(save(tmp_path / "a.csv", text))) == EXCHANGES[1:]


def test_csv_of_one_text_column(tmp_path: Path) -> None:
    text = 'text\n"### 질문: 물은?\n\n### 답변: H2O"\n'
    rows = read(save(tmp_path / "a.csv", text))
    assert (exchanges(rows), rows.shape) == ([Exchange("물은?", "H2O")], "koalpaca-text")


def test_csv_with_a_very_long_cell(tmp_path: Path) -> None:
    rows = read(save(tmp_path / "a.csv", f"Q,A\n물은?,{'가' * 300_000}\n"))
    assert len(rows.examples[0].response_text) == 300_000


def test_csv_rows_of_another_length(tmp_path: Path) -> None:
    rows = read(save(tmp_path / "a.csv", "Q,A\n안녕,네, 안녕하세요\n물은?\n불은?,뜨거워,,\n"))
    assert exchanges(rows) == [Exchange("불은?", "뜨거워")]
    assert rows.dropped == (
        DroppedRow("a.csv:2", 2, "more cells than columns"),
        DroppedRow("a.csv:3", 3, "no output"),
    )


def test_parquet(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist([*ROWS, {"instruction": "a", "output": None}])
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = read(str(tmp_path / "a.parquet"))
    assert (ids(rows), exchanges(rows)) == (["a.parquet:1", "a.parquet:2"], EXCHANGES)
    assert rows.dropped == (DroppedRow("a.parquet:3", 3, "no output"),)
    assert rows.columns == ("instruction", "input", "output")
    data = (tmp_path / "a.parquet").read_bytes()
    rows = read(save(tmp_path / "b.jsonl", data))
    assert rows.notes == ("b.jsonl holds Parquet, read as such",)
    message = error_of(save(tmp_path / "c.parquet", data[:-9]))
    assert message.startswith("c.parquet: broken Parquet file (")
    assert message.endswith("); copy or write it again")
    parquet.write_table(table.slice(0, 0), tmp_path / "d.parquet")
    assert error_of(str(tmp_path / "d.parquet")) == "d.parquet holds no rows; give a file with rows"


def test_parquet_chats(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": turns}]), tmp_path / "a.parquet")
    assert exchanges(read(str(tmp_path / "a.parquet"))) == [Exchange("a", "b")]


def test_the_ending_does_not_decide(tmp_path: Path) -> None:
    rows = read(save(tmp_path / "a.json", lines_of(ROWS)))
    assert (ids(rows), rows.notes) == (
        ["a.json:1", "a.json:2"],
        ("a.json holds one JSON object a line, read as such",),
    )
    rows = read(save(tmp_path / "a.csv", lines_of(ROWS)))
    assert rows.notes == ("a.csv holds one JSON object a line, read as such",)
    rows = read(save(tmp_path / "b.jsonl", TABLE))
    assert (len(rows.examples), rows.notes) == (2, ("b.jsonl holds a CSV table, read as such",))
    assert exchanges(read(save(tmp_path / "data", lines_of(ROWS)))) == EXCHANGES


# ------------------------------------------------------------------ repairs, drops


def test_byte_order_marks_are_dropped_and_counted(tmp_path: Path) -> None:
    for name, text in [("a.jsonl", lines_of(ROWS)), ("a.json", json.dumps(ROWS))]:
        rows = read(save(tmp_path / name, b"\xef\xbb\xbf" + text.encode()))
        assert (exchanges(rows), rows.repaired) == (EXCHANGES, {"BOM": 1})
    rows = read(save(tmp_path / "a.csv", '\ufeff"Q","A"\n물은?,H2O\n'))
    assert (exchanges(rows), rows.repaired) == (EXCHANGES[:1], {"BOM": 1})
    marked = lines_of(ROWS[:1]) + "\ufeff" + lines_of(ROWS[1:])
    assert exchanges(read(save(tmp_path / "joined.jsonl", marked))) == EXCHANGES


def test_crlf_is_counted_by_file_and_by_row(tmp_path: Path) -> None:
    inside = {"instruction": "a\r\nb", "output": "c\r"}
    text = lines_of([*ROWS, inside])
    rows = read(save(tmp_path / "a.jsonl", text))
    assert rows.repaired == {"CRLF": 1}
    assert exchanges(rows)[2] == Exchange("a\nb", "c\n")
    rows = read(save(tmp_path / "b.jsonl", text.replace("\n", "\r\n")))
    assert rows.repaired == {"CRLF": 2}
    assert ids(rows) == ["b.jsonl:1", "b.jsonl:2", "b.jsonl:3"]
    rows = read(save(tmp_path / "a.csv", TABLE.replace("\n", "\r\n")))
    assert (rows.repaired, ids(rows)) == ({"CRLF": 2}, ["a.csv:2", "a.csv:5"])
    assert exchanges(rows)[0] == Exchange("안녕", '반가워,\n정말 "반가워"')
    rows = read(save(tmp_path / "a.json", json.dumps(ROWS, indent=1).replace("\n", "\r\n")))
    assert rows.repaired == {"CRLF": 1}


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


# ------------------------------------------------------------------ encodings


def test_cp949_tables_are_read_and_said(tmp_path: Path) -> None:
    rows = read(save(tmp_path / "a.csv", TABLE.encode("cp949")))
    assert rows.notes == ("a.csv is cp949, not UTF-8: read as cp949",)
    assert exchanges(rows)[1] == Exchange("물은?", "H2O")
    rows = read(str(tmp_path / "a.csv"), encoding="euc-kr")
    assert (exchanges(rows)[1], rows.notes) == (Exchange("물은?", "H2O"), ())


def test_json_in_another_encoding_has_to_be_named(tmp_path: Path) -> None:
    name = save(tmp_path / "a.jsonl", ('{"a": 1}\n' + lines_of(ROWS)).encode("cp949"))
    assert error_of(name) == (
        "a.jsonl, line 2: not utf-8 (byte 0xb9 at offset 26); it seems to be cp949: "
        "save it as UTF-8, or set data.encoding=cp949"
    )
    assert exchanges(read(name, encoding="cp949")) == EXCHANGES
    assert error_of(name, encoding="ascii").startswith("a.jsonl, line 2: not ascii (byte 0xb9 at")


def test_damaged_utf8_is_not_taken_for_cp949(tmp_path: Path) -> None:
    data = bytearray(("Q,A\n" + "물은 무엇인가요?,물은 H2O입니다\n" * 9).encode())
    data[100] = 0xFF
    message = error_of(save(tmp_path / "a.csv", bytes(data)))
    assert message == (
        "a.csv, line 4: not utf-8 (byte 0xeb at offset 99); "
        "save it as UTF-8, or name its encoding with data.encoding"
    )


def test_utf16(tmp_path: Path) -> None:
    advice = "is UTF-16, not UTF-8; save it as UTF-8, or set data.encoding=utf-16"
    name = save(tmp_path / "a.csv", TABLE.encode("utf-16"))
    assert error_of(name) == f"a.csv {advice}"
    assert exchanges(read(name, encoding="utf-16"))[1] == Exchange("물은?", "H2O")
    name = save(tmp_path / "a.jsonl", lines_of(ROWS).encode("utf-16"))
    assert error_of(name) == f"a.jsonl {advice}"


@pytest.mark.parametrize("encoding", ["utf9", "base64", "a\0b", "undefined", "idna"])
def test_unknown_encodings(tmp_path: Path, encoding: str) -> None:
    name = save(tmp_path / "a.jsonl", lines_of(ROWS))
    message = error_of(name, encoding=encoding)
    assert message.startswith('data.encoding: no text encoding "')
    assert message.endswith('"; give for example utf-8 or cp949')


# ------------------------------------------------------------------ refused

ROW = lines_of(ROWS[1:])
ALONE = "write one object a line, or one list around them all"
MEND = "mend that line or take it out"
CUT = "it ends too early: copy the file again if it was cut short, else mend that line"
UTF8 = "save it as UTF-8"
NAME = "or name its encoding with data.encoding"
OBJECTS = 'write each row as {"instruction": …, "output": …}'
EXPECTED = (
    "expected instruction and output, prompt and completion, question and answer, messages, or "
    "text: name yours under data with columns: {instruction: …, output: …}"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f.jsonl is empty; give a file with rows"),
        (b"\xef\xbb\xbf", "f.jsonl is empty; give a file with rows"),
        (b" \n\n", "f.jsonl is empty; give a file with rows"),
        (b"\x1c\n", "f.jsonl is empty; give a file with rows"),
        (b"[]", "f.jsonl holds no rows; give a file with rows"),
        (
            b"{}",
            f"f.jsonl: question and answer not found among its columns (found: none); {EXPECTED}",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "f.jsonl is a Git LFS pointer, not the data; run `git lfs pull` in its repository",
        ),
        (gzip.compress(b"{}"), "f.jsonl is packed (gzip); unpack it and give the file inside"),
        (b"PK\x03\x04...", "f.jsonl is packed (zip); unpack it and give the file inside"),
        (
            "\n2024-01-01 INFO 학습, 시작\n",
            'f.jsonl, line 2: plain text ("2024-01-01 INFO 학습, 시작"), not rows; '
            "give JSON, JSONL, Parquet, or CSV with a header line",
        ),
        (
            ROW * 16 + '{"instruction": a}\n' + ROW,
            f"f.jsonl, line 17: broken JSON (Expecting value at column 17); {MEND}",
        ),
        (
            ROW + '{"instruction": "더하',
            f"f.jsonl, line 2: broken JSON (Unterminated string starting at column 17); {CUT}",
        ),
        (
            '{"instruction": "a",\n' + ROW,
            "f.jsonl, line 1: broken JSON (Expecting property name enclosed in double quotes "
            f"at column 21); {CUT}",
        ),
        (
            '{"a": "b\n' + ROW,
            f"f.jsonl, line 1: broken JSON (Unterminated string starting at column 7); {CUT}",
        ),
        (
            '[\n{"instruction": "a"},\n{"instruction" "b"}\n]\n',
            f"f.jsonl, line 3: broken JSON (Expecting ':' delimiter at column 16); {MEND}",
        ),
        (
            "[" + ROW.strip(),
            f"f.jsonl, line 1: broken JSON (Expecting ',' delimiter at column 56); {CUT}",
        ),
        (
            ROW + ROW.strip() + ",\n",
            f"f.jsonl, line 2: broken JSON (Extra data at column 55); {ALONE}",
        ),
        (
            (json.dumps(ROWS[0], indent=1) + "\n") * 2,
            f"f.jsonl, line 6: broken JSON (Extra data at column 1); {ALONE}",
        ),
        ("[1]\n[2]\n", f"f.jsonl: its rows are no objects but for example list; {OBJECTS}"),
        ('["a", "b"]', f"f.jsonl: its rows are no objects but for example str; {OBJECTS}"),
        (ROW + "[" * 200_000, "f.jsonl, line 2: JSON nested too deeply; take that row out"),
        ("[" * 200_000, "f.jsonl, line 1: JSON nested too deeply; take that row out"),
        ("[\n" * 200_000, "f.jsonl: JSON nested too deeply; take that row out"),
        (
            ROW + '{"a": ' + "9" * 5000 + "}\n",
            "f.jsonl, line 2: a number with too many digits; shorten it or quote it",
        ),
        (
            ROW.encode() + b'{"instruction": "a\0b"}\n',
            "f.jsonl, line 2: a NUL byte, so this is no text in utf-8; save it as UTF-8 text",
        ),
        (
            ROW.encode() + b'{"instruction": "\xff"}\n',
            "f.jsonl, line 2: not utf-8 (byte 0xff at offset 78); save it as UTF-8, or name its "
            "encoding with data.encoding",
        ),
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
def test_bad_json_and_no_json(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert error_of(save(tmp_path / "f.jsonl", content)) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Q,A\n", "f.csv holds no rows; give a file with rows"),
        ("Q,A,Q\n1,2,3\n", 'f.csv, line 1: column "Q" stands twice; rename one'),
        (
            'Q,A\n안녕,네\n"물은?,H2O\n불은?,뜨거워\n',
            "f.csv, line 3: broken CSV (unexpected end of data); inside quotes write a quote as "
            "two, and close each",
        ),
        (
            'Q,A\n"안녕"은?,네\n',
            "f.csv, line 2: broken CSV (',' expected after '\"'); inside quotes write a quote as "
            "two, and close each",
        ),
        ('"Q,A\n안녕,네\n', "f.csv, line 1: broken CSV header; check its quotation marks"),
        (
            "번호,글\n1,안녕\n",
            "f.csv: question and answer not found among its columns (found: 번호, 글); "
            + EXPECTED.replace("{instruction: …, output: …}", "{instruction: 번호, output: 글}"),
        ),
        (
            "Q,A\n안녕,네\0\n",
            f"f.csv, line 2: a NUL byte, so this is no text in utf-8; {UTF8} text",
        ),
        (
            b"\x89PNG\r\n\x1a\n\0\0",
            f"f.csv, line 1: not utf-8 (byte 0x89 at offset 0); {UTF8}, {NAME}",
        ),
        (
            b"Q,A\n\xff\xff,\x80\n",
            f"f.csv, line 2: not utf-8 (byte 0xff at offset 4); {UTF8}, {NAME}",
        ),
        ("\u3000\n".encode("cp949"), "f.csv is empty; give a file with rows"),
        (
            'instruction\toutput\n"안녕"은?\t네\n',
            "f.csv, line 2: broken CSV ('tab' expected after '\"'); inside quotes write a quote as "
            "two, and close each",
        ),
        (b"\xd0\xcf\x11\xe0", "f.csv is an Excel workbook; save it as CSV UTF-8 and give that"),
        (
            "Q,A\n안녕,네,뭐\n",
            "f.csv: no usable row; more cells than columns in 1 of 1 (first: f.csv:2); "
            "mend the rows, or name other columns with data.columns",
        ),
    ],
)
def test_bad_tables(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert error_of(save(tmp_path / "f.csv", content)) == message


def test_an_excel_workbook(tmp_path: Path) -> None:
    name = save(tmp_path / "f.xlsx", b"PK\x03\x04...")
    assert error_of(name) == "f.xlsx is an Excel workbook; save it as CSV UTF-8 and give that"


def test_wishes_that_do_not_fit(tmp_path: Path) -> None:
    name = save(tmp_path / "a.csv", TABLE)
    assert error_of(name, columns={"instruction": "Question", "output": "A"}) == (
        'data.columns.instruction: a.csv has no column "Question" (found: Q, A, label); '
        "give one of those it has"
    )
    assert error_of(name, columns={"outptu": "A"}).startswith('data.columns: "outptu" is none of')


# ------------------------------------------------------------------ sources


def one_row(path: Path, answer: str) -> str:
    return save(path, lines_of([{"instruction": "a", "output": answer}]))


def answers(splits: dict[str, ReadRows]) -> dict[str, list[str]]:
    return {
        split: [example.response_text for example in rows.examples]
        for split, rows in splits.items()
    }


def test_several_files_are_joined(tmp_path: Path) -> None:
    names = [one_row(tmp_path / "a.jsonl", "1"), save(tmp_path / "b.csv", "Q,A,x\nb,\nc,2\n")]
    rows = read(names)
    assert ids(rows) == ["a.jsonl:1", "b.csv:3"]
    assert rows.dropped == (DroppedRow("b.csv:2", 2, "empty output"),)
    assert (rows.num_rows, rows.shape) == (3, "alpaca")
    assert rows.columns == ("instruction", "output", "Q", "A", "x")
    assert rows.notes == ("a.jsonl is alpaca; b.csv is question-answer",)


def test_files_of_one_name_get_ids_of_their_own(tmp_path: Path) -> None:
    names = [one_row(tmp_path / folder / "a.jsonl", folder) for folder in ("x", "y")]
    assert ids(read([*names, one_row(tmp_path / "b.jsonl", "b")])) == [
        *("x/a.jsonl:1", "y/a.jsonl:1", "b.jsonl:1")
    ]
    deeper = [one_row(tmp_path / folder / "z" / "a.jsonl", folder) for folder in ("x", "y")]
    assert ids(read(deeper)) == ["x/z/a.jsonl:1", "y/z/a.jsonl:1"]
    same = read_all({"train": names[0], "val": names[0]})
    assert [ids(rows) for rows in same.values()] == [["train/a.jsonl:1"], ["val/a.jsonl:1"]]


def test_splits_that_the_user_made(tmp_path: Path) -> None:
    a, b, c = (one_row(tmp_path / f"{name}.jsonl", name) for name in "abc")
    assert answers(read_all({"test": c, "train": [a, b]})) == {"train": ["a", "b"], "test": ["c"]}
    assert answers(read_all({"train": a, "val": b, "test": c})) == {
        "train": ["a"],
        "val": ["b"],
        "test": ["c"],
    }
    assert answers(read_all({"train": a})) == {"train": ["a"]}
    empty = save(tmp_path / "e.jsonl", '{"instruction": "a", "output": ""}')
    assert error_of({"train": a, "val": empty}).startswith("e.jsonl: no usable row; empty output")


def test_folders(tmp_path: Path) -> None:
    for name in ("train.jsonl", "Dev.json", "test.csv.jsonl", "test.jsonl", "extra.csv"):
        one_row(tmp_path / name, name)
    save(tmp_path / "README.md", "# rows")
    save(tmp_path / "._train.jsonl", b"\0")
    splits = read_all(str(tmp_path))
    assert answers(splits) == {
        "train": ["train.jsonl"],
        "val": ["Dev.json"],
        "test": ["test.jsonl"],
    }


def test_folders_with_little_in_them(tmp_path: Path) -> None:
    one_row(tmp_path / "one" / "rows.jsonl", "1")
    assert answers(read_all(str(tmp_path / "one"))) == {"all": ["1"]}
    one_row(tmp_path / "shards" / "train-00001-of-00002.jsonl", "2")
    one_row(tmp_path / "shards" / "train-00000-of-00002.jsonl", "1")
    assert answers(read_all(str(tmp_path / "shards"))) == {"all": ["1", "2"]}


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    one_row(tmp_path / "blobs" / "0f3a", "1")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").symlink_to(tmp_path / "blobs" / "0f3a")
    assert ids(read(str(tmp_path / "rows"))) == ["train.jsonl:1"]


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = one_row(tmp_path / "a.jsonl", "1")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr("builtins.open", refuse)
    assert error_of(name) == "a.jsonl: cannot be read (Permission denied)"
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert error_of(str(tmp_path)) == "data.source: cannot look into x (Permission denied)"


def test_folders_that_do_not_say_what_to_read(tmp_path: Path) -> None:
    where = f"data.source: {tmp_path}"
    assert (
        error_of(str(tmp_path))
        == f"{where}: no train file among its data files (none); name the file"
    )
    one_row(tmp_path / "val.jsonl", "1")
    assert error_of(str(tmp_path)) == (
        f"{where}: no train file among its data files (val.jsonl); name the files"
    )
    one_row(tmp_path / "train.jsonl", "1")
    one_row(tmp_path / "train.json", "1")
    assert error_of(str(tmp_path)) == (
        f"{where}: more than one train file (train.json, train.jsonl); name one"
    )


def test_sources_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one_row(tmp_path / "data" / "train.jsonl", "1")
    advice = "give an existing file or folder"
    no_hub = " (a data set on the Hub is named OWNER/NAME)"
    assert error_of("rows.jsonl") == f"data.source: no such file: rows.jsonl{no_hub}; {advice}"
    assert error_of("koalpaca") == f"data.source: no such file: koalpaca{no_hub}; {advice}"
    assert error_of("data/trian.jsonl") == (
        'data.source: no such file: data/trian.jsonl; did you mean "train.jsonl"?'
    )
    assert error_of("data/koalpaca") == (
        'data.source: no such file: data/koalpaca (rename the folder "data" if a Hub data set is '
        f"meant); {advice}"
    )
    assert error_of("owner/rows.csv") == f"data.source: no such file: owner/rows.csv; {advice}"
    assert error_of("./a/b") == f"data.source: no such file: a/b; {advice}"
    assert error_of("/a/b") == f"data.source: no such file: /a/b; {advice}"
    assert error_of(["data/train.jsonl", "data"]) == "data.source: data is a folder; give its files"
    assert error_of({"train": "data/x.jsonl"}).startswith(
        "data.source.train: no such file: data/x."
    )
    assert error_of("x" * 300).startswith("data.source: no such file: xxx")
    assert error_of("a\0b").startswith("data.source: no such file: a\\x00b")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "data.source: [] is no file name and no list of file names"),
        ([3], "data.source: [3] is no file name and no list of file names"),
        ({}, "data.source: no train among its splits; give train: FILE"),
        ({"val": "a"}, "data.source: no train among its splits; give train: FILE"),
        (
            {"train": "a", "vla": "b"},
            'data.source: "vla" is none of train, val, test; did you mean "val"?',
        ),
        ({"train": 3}, "data.source.train: 3 is no file name and no list of file names"),
    ],
)
def test_sources_of_the_wrong_form(source: Any, message: str) -> None:
    assert error_of(source) == message


def test_a_file_given_twice(tmp_path: Path) -> None:
    name = one_row(tmp_path / "a.jsonl", "1")
    assert error_of([name, name]) == "data.source: a.jsonl is listed twice; take one out"


# ------------------------------------------------------------------ the Hub


class HubSplit:
    """As much of datasets.Dataset as is read."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.column_names = list(rows[0]) if rows else ["instruction", "output"]

    def with_format(self, kind: str) -> HubSplit:
        assert kind == "arrow"
        return self

    def iter(self, batch_size: int) -> Iterable[Any]:
        for start in range(0, len(self.rows), batch_size):
            yield pyarrow.Table.from_pylist(self.rows[start : start + batch_size])


def serve(monkeypatch: pytest.MonkeyPatch, answer: dict[str, HubSplit] | Exception) -> list[object]:
    """Put a stand-in in the Hub's place; the list fills with what it is asked for."""
    asked: list[object] = []

    def load_dataset(*names: object) -> dict[str, HubSplit]:
        asked.append(names)
        if isinstance(answer, Exception):
            raise answer
        return answer

    module = types.ModuleType("datasets")
    module.__dict__["load_dataset"] = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_hub_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = HubSplit([{"instruction": "a", "output": "b", "url": "u"}] * 1001)
    asked = serve(monkeypatch, {"train": rows})
    read_rows = read("beomi/KoAlpaca-v1.1a")
    assert asked == [("beomi/KoAlpaca-v1.1a", None)]
    assert (len(read_rows.examples), read_rows.columns) == (1001, ("instruction", "output", "url"))
    assert ids(read_rows)[-1] == "beomi/KoAlpaca-v1.1a/train:1001"
    asked = serve(monkeypatch, {"test": rows, "validation": rows, "train": rows, "other": rows})
    splits = read_all("owner/name:config")
    assert asked == [("owner/name", "config")]
    assert list(splits) == ["train", "val", "test"]
    assert ids(splits["val"])[0] == "owner/name/validation:1"
    serve(monkeypatch, {"train": rows, "extra": rows})
    assert list(read_all("owner/name")) == ["all"]
    serve(monkeypatch, {"a": rows, "b": rows})
    assert error_of("owner/name") == (
        "data.source: owner/name has no train split (found: a, b); "
        "save the one you mean as a file and give that"
    )
    serve(monkeypatch, {"train": HubSplit([])})
    assert error_of("owner/name") == "owner/name/train holds no rows; give a file with rows"


class DatasetNotFoundError(FileNotFoundError):
    """Named as the Hub's own."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Couldn't reach"),
            "data.source: owner/name: no such file here, and the Hub cannot be reached"
            " (HF_HUB_OFFLINE is set); with a network it would be fetched, without one "
            "give a file (JSON, JSONL, CSV, Parquet), or `sample`",
        ),
        (
            DatasetNotFoundError("doesn't exist"),
            "data.source: owner/name: no such file here, and no such data set on the Hub that is "
            "open to you; check its name, log in with `hf auth login` if it is private, or give a "
            "file (JSON, JSONL, CSV, Parquet), or `sample`",
        ),
        (
            ValueError("Config name is missing.\nPlease pick one among: ['ko', 'en']"),
            "data.source: owner/name: the Hub data set cannot be read (Config name is missing. "
            "Please pick one among: ['ko', 'en']); give a file (JSON, JSONL, CSV, Parquet), or "
            "`sample`",
        ),
    ],
)
def test_hub_failures(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    serve(monkeypatch, error)
    assert error_of("owner/name") == message
