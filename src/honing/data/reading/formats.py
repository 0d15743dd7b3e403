"""Files -> raw rows: JSON, JSONL, CSV and Parquet.

What a file is, is decided by its content. Row numbers are what the user can look up: the line in a
JSONL or CSV file, the place (from 1) in a JSON list or a Parquet file.
"""

from __future__ import annotations

import codecs
import csv
import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from honing.data.reading.names import listed, shown
from honing.data.reading.rows import Unusable
from honing.data.reading.shapes import find_column, understood
from honing.data.reading.text_file import (
    check_text,
    first_lines,
    first_text,
    is_cp949,
    refuse_what_is_no_text,
    text_lines,
    text_of,
)
from honing.errors import UserError

RawRows = Generator[tuple[int, object], None, None]

KINDS = {
    ".json": "one JSON list",
    ".jsonl": "one JSON object a line",
    ".ndjson": "one JSON object a line",
    ".csv": "a CSV table",
    ".tsv": "a CSV table",
    ".parquet": "Parquet",
}
"""What a file of this ending is taken to hold; another content is read too, and said."""

MOST_EXPANSION = 1000
FREE_CHARS = 1 << 28
"""What a Parquet file may unpack to, in characters: so many times its bytes, and a quarter billion.
One text that is meant a million times takes a few bytes there."""


@dataclass(frozen=True)
class Wishes:
    """The settings that say how to read."""

    columns: Mapping[str, str]
    encoding: str | None
    group_by: str | None


@dataclass(frozen=True)
class Found:
    """What a file turned out to be. `columns` is empty where only the rows can tell."""

    kind: str
    rows: RawRows
    columns: tuple[str, ...] = ()
    repaired: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_file(path: Path, label: str, wishes: Wishes) -> Found:
    """Look at the first bytes, and open the file as what it is."""
    with open(path, "rb") as handle:
        head = handle.read(256)
    if head.startswith(b"PAR1"):
        found = _open_parquet(path, label)
    else:
        found = _open_text(path, label, head, wishes)
    usual = KINDS.get(path.suffix.lower())
    if usual in (None, found.kind) or "around" in found.kind:
        return found
    note = f"{label} holds {found.kind}, read as such"
    return Found(found.kind, found.rows, found.columns, found.repaired, (*found.notes, note))


def _open_text(path: Path, label: str, head: bytes, wishes: Wishes) -> Found:
    refuse_what_is_no_text(path, label, head, wishes.encoding)
    encoding = wishes.encoding or "utf-8"
    start = first_text(path, label, encoding)
    named_json = (path.suffix.lower() in KINDS) and "JSON" in KINDS[path.suffix.lower()]
    is_json = start[0] in "[{" or (named_json and _is_json(start))
    notes: tuple[str, ...] = ()
    if wishes.encoding is None and not is_json and is_cp949(path):
        encoding = "cp949"
        notes = (f"{label} is cp949, not UTF-8: read as cp949",)
    has_crlf = check_text(path, label, encoding)
    if is_json:
        found = _open_json(path, label, encoding, wishes)
    else:
        found = _open_table(path, label, encoding, wishes)
    repaired = {"BOM": int(head.startswith(codecs.BOM_UTF8)), "CRLF": int(has_crlf)}
    return Found(found.kind, found.rows, found.columns, repaired, notes + found.notes)


def _fits(columns: Collection[str], wishes: Wishes) -> bool:
    """Whether these are column names that can be read."""
    if understood(columns):
        return True
    names = wishes.columns.values()
    return bool(names) and all(find_column(columns, name) for name in names)


def counted(values: Iterable[object]) -> RawRows:
    """Rows named by their place, from 1."""
    return ((number, value) for number, value in enumerate(values, start=1))


# ------------------------------------------------------------------ JSON


def _open_json(path: Path, label: str, encoding: str, wishes: Wishes) -> Found:
    """One object a line where the first line is whole and others follow; else one value."""
    number, line, following = first_lines(path, label, encoding)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        # A line that merely stops too early may be the start of a value over several lines.
        is_cut = isinstance(error, json.JSONDecodeError) and error.pos >= len(line.rstrip())
        if following is None or not is_cut:
            raise _broken(label, number, error) from None
        is_row = line.startswith("{") and following.startswith("{") and _is_json(following)
        try:
            with text_of(path, encoding, "\n") as handle:
                value = json.load(handle)
        except (ValueError, RecursionError) as whole_error:
            if is_row:
                raise _broken(label, number, error) from None
            place = whole_error.lineno if isinstance(whole_error, json.JSONDecodeError) else None
            raise _broken(label, place, whole_error) from None
    else:
        if following is not None:
            return Found("one JSON object a line", _json_lines(path, label, encoding))
    return _json_value(value, number, label, wishes)


def _json_lines(path: Path, label: str, encoding: str) -> RawRows:
    with closing(text_lines(path, encoding)) as lines:
        for number, line in lines:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _broken(label, number, error) from None
            yield number, value


def _json_value(value: object, number: int, label: str, wishes: Wishes) -> Found:
    """A file that is one JSON value: the list of rows, an object around that list, or a row."""
    if isinstance(value, dict) and not _fits(value, wishes):
        lists = {
            name: items
            for name, items in value.items()
            if isinstance(items, list) and any(isinstance(item, dict) for item in items)
        }
        if len(lists) > 1:
            raise UserError(
                f"{label} holds several lists ({listed(lists)}); give each in a file of its own"
            )
        for name, items in lists.items():
            note = f'{label} wraps its rows in one list, "{shown(name)}": read as such'
            return Found("one JSON object around a list", counted(items), notes=(note,))
    if isinstance(value, list):
        return Found("one JSON list", counted(value))
    return Found("one JSON object a line", ((number, row) for row in [value]))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _broken(label: str, line: int | None, error: Exception) -> UserError:
    where = label if line is None else f"{label}, line {line}"
    if isinstance(error, RecursionError):
        return UserError(f"{where}: JSON nested too deeply; take that row out")
    if not isinstance(error, json.JSONDecodeError):
        return UserError(f"{where}: a number with too many digits; shorten it or quote it")
    found = f"broken JSON ({error.msg.removesuffix(' at')} at column {error.colno})"
    advice = "mend that line or take it out"
    if error.msg == "Extra data":
        advice = "write one object a line, or one list around them all"
    elif error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"):
        advice = "it ends too early: copy the file again if it was cut short, else mend that line"
    return UserError(f"{where}: {found}; {advice}")


# ------------------------------------------------------------------ CSV


def _open_table(path: Path, label: str, encoding: str, wishes: Wishes) -> Found:
    csv.field_size_limit(2**31 - 1)  # the default refuses texts over 128 KiB
    headers = {mark: _header(path, encoding, mark) for mark in ",;\t"}
    mark = max(headers, key=lambda mark: (_fits(headers[mark], wishes), len(headers[mark])))
    header = headers[mark]
    number, line, _ = first_lines(path, label, encoding)
    if path.suffix.lower() not in (".csv", ".tsv") and not _fits(header, wishes):
        raise UserError(
            f'{label}, line {number}: plain text ("{shown(line)}"), not rows; '
            "give JSON, JSONL, Parquet, or CSV with a header line"
        )
    if not header:
        raise UserError(f"{label}, line {number}: broken CSV header; check its quotation marks")
    twice = [name for name, times in Counter(header).items() if times > 1 and name]
    if twice:
        raise UserError(
            f'{label}, line {number}: column "{shown(twice[0])}" stands twice; rename one'
        )
    return Found("a CSV table", _table_rows(path, label, encoding, mark), tuple(header))


def _header(path: Path, encoding: str, delimiter: str) -> list[str]:
    with text_of(path, encoding, "") as handle:
        try:
            rows = csv.reader(handle, delimiter=delimiter, strict=True)
            cells = next((cells for cells in rows if cells), [])
        except csv.Error:
            return []
    return [unicodedata.normalize("NFC", cell).strip() for cell in cells]


def _table_rows(path: Path, label: str, encoding: str, delimiter: str) -> RawRows:
    """(line where the record starts, cells by column)."""
    header = _header(path, encoding, delimiter)
    with text_of(path, encoding, "") as handle:
        # strict: an unclosed quote would otherwise swallow the rest of the file without a word.
        reader = csv.reader(handle, delimiter=delimiter, strict=True)
        header_read = False
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                found = str(error).replace("\t", "tab")
                raise UserError(
                    f"{label}, line {line}: broken CSV ({found}); inside quotes write a quote "
                    "as two, and close each"
                ) from None
            if cells is None:
                return
            if cells and header_read:
                # A delimiter outside quotes has cut a text in two: half an answer is no answer.
                too_many = any(cell.strip() for cell in cells[len(header) :])
                row = dict(zip(header, cells, strict=False))
                yield line, Unusable("more cells than columns") if too_many else row
            header_read = header_read or bool(cells)


# ------------------------------------------------------------------ Parquet


def _open_parquet(path: Path, label: str) -> Found:
    import pyarrow.parquet  # costs a tenth of a second, for those who have such files

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = tuple(map(str, file.schema_arrow.names))
            num_rows, num_bytes = file.metadata.num_rows, path.stat().st_size
        if num_rows > max(MOST_EXPANSION, num_bytes):
            raise ValueError(f"{num_rows:,} rows in {num_bytes:,} bytes")
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _broken_parquet(label, error) from None
    return Found("Parquet", _parquet_rows(path, label), columns)


def _parquet_rows(path: Path, label: str) -> RawRows:
    import pyarrow.parquet

    number = 0
    left = MOST_EXPANSION * path.stat().st_size + FREE_CHARS
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    left -= sum(len(value) for value in row.values() if isinstance(value, str))
                    if left < 0:
                        raise ValueError(f"it unpacks to more than {MOST_EXPANSION} times its size")
                    yield number, row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _broken_parquet(label, error) from None


def _broken_parquet(label: str, error: Exception) -> UserError:
    return UserError(f"{label}: broken Parquet file ({shown(error, 120)}); copy or write it again")
