"""Encodings, byte order marks and line ends; and files that are no text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from honing.data.example import Exchange
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
UTF8 = "save it as UTF-8"
NAME = "or name its encoding with data.encoding"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f.jsonl is empty; give a file with rows"),
        (b"\xef\xbb\xbf", "f.jsonl is empty; give a file with rows"),
        (b" \n\n", "f.jsonl is empty; give a file with rows"),
        (b"\x1c\n", "f.jsonl is empty; give a file with rows"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "f.jsonl is a Git LFS pointer, not the data; run `git lfs pull` in its repository",
        ),
        (gzip.compress(b"{}"), "f.jsonl is packed (gzip); unpack it and give the file inside"),
        (b"PK\x03\x04...", "f.jsonl is packed (zip); unpack it and give the file inside"),
        (
            ROW.encode() + b'{"instruction": "a\0b"}\n',
            "f.jsonl, line 2: a NUL byte, so this is no text in utf-8; save it as UTF-8 text",
        ),
        (
            ROW.encode() + b'{"instruction": "\xff"}\n',
            "f.jsonl, line 2: not utf-8 (byte 0xff at offset 78); save it as UTF-8, or name its "
            "encoding with data.encoding",
        ),
    ],
)
def test_jsonl_that_is_no_text(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert error_of(save(tmp_path / "f.jsonl", content)) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
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
        (b"\xd0\xcf\x11\xe0", "f.csv is an Excel workbook; save it as CSV UTF-8 and give that"),
    ],
)
def test_csv_that_is_no_text(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert error_of(save(tmp_path / "f.csv", content)) == message


def test_an_excel_workbook(tmp_path: Path) -> None:
    name = save(tmp_path / "f.xlsx", b"PK\x03\x04...")
    assert error_of(name) == "f.xlsx is an Excel workbook; save it as CSV UTF-8 and give that"
