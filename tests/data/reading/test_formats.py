"""Files of every kind -> rows with numbers; broken ones -> one line that says where."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from honing.data.example import Example, Exchange
from honing.data.reading.read import DroppedRow, ReadRows
from tests.data.reading.files import (
    EXCHANGES,
    ROWS,
    TABLE,
    error_of,
    exchanges,
    ids,
    lines_of,
    read,
    save,
)


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


# ------------------------------------------------------------------ refused

ROW = lines_of(ROWS[1:])
ALONE = "write one object a line, or one list around them all"
MEND = "mend that line or take it out"
CUT = "it ends too early: copy the file again if it was cut short, else mend that line"


@pytest.mark.parametrize(
    ("content", "message"),
    [
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
        (ROW + "[" * 200_000, "f.jsonl, line 2: JSON nested too deeply; take that row out"),
        ("[" * 200_000, "f.jsonl, line 1: JSON nested too deeply; take that row out"),
        ("[\n" * 200_000, "f.jsonl: JSON nested too deeply; take that row out"),
        (
            ROW + '{"a": ' + "9" * 5000 + "}\n",
            "f.jsonl, line 2: a number with too many digits; shorten it or quote it",
        ),
    ],
)
def test_bad_json_and_no_json(tmp_path: Path, content: str, message: str) -> None:
    assert error_of(save(tmp_path / "f.jsonl", content)) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
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
            'instruction\toutput\n"안녕"은?\t네\n',
            "f.csv, line 2: broken CSV ('tab' expected after '\"'); inside quotes write a quote as "
            "two, and close each",
        ),
    ],
)
def test_bad_tables(tmp_path: Path, content: str, message: str) -> None:
    assert error_of(save(tmp_path / "f.csv", content)) == message


def test_parquet_files_that_unpack_without_end_are_refused(tmp_path: Path) -> None:
    def repeated(name: str, number: int, text: str) -> str:
        numbers = pyarrow.array([0] * number, pyarrow.int32())
        column = pyarrow.DictionaryArray.from_arrays(numbers, pyarrow.array([text]))
        path = tmp_path / name
        table = pyarrow.table({"instruction": column, "output": column})
        parquet.write_table(table, path, compression="zstd")
        return str(path)

    many = repeated("many.parquet", 50_000, "a")
    size = Path(many).stat().st_size
    assert error_of(many) == (
        f"many.parquet: broken Parquet file (50,000 rows in {size:,} bytes); copy or write it again"
    )
    long = repeated("long.parquet", 1000, "x" * 300_000)
    assert Path(long).stat().st_size < 10_000
    assert error_of(long) == (
        "long.parquet: broken Parquet file (it unpacks to more than 1000 times its size); copy or "
        "write it again"
    )
