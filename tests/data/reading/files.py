"""Small files to read, and what reading them gives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from honing.data.example import Exchange
from honing.data.reading.read import ReadRows, read_source
from honing.data.reading.source import SourceSpec
from honing.errors import UserError

ROWS = [
    {"instruction": "물은?", "input": "", "output": "H2O"},
    {"instruction": "더해라", "input": "1, 2", "output": "3"},
]
EXCHANGES = [Exchange("물은?", "H2O"), Exchange("더해라", "3", "1, 2")]
TABLE = 'Q,A,label\n안녕,"반가워,\n정말 ""반가워""",0\n\n물은?,H2O,1\n'


def lines_of(rows: Iterable[object]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def save(path: Path, content: str | bytes) -> str:
    """Write a file, text as UTF-8, and give its name."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def one_row(path: Path, answer: str) -> str:
    return save(path, lines_of([{"instruction": "a", "output": answer}]))


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


def answers(splits: dict[str, ReadRows]) -> dict[str, list[str]]:
    return {
        split: [example.response_text for example in rows.examples]
        for split, rows in splits.items()
    }


def error_of(source: SourceSpec, **wishes: Any) -> str:
    with pytest.raises(UserError) as error:
        read_all(source, **wishes)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message
