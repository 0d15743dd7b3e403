"""Sources -> Examples: every split as read, with what was dropped, repaired and noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from honing.data.example import Example
from honing.data.reading.formats import Found, RawRows, Wishes, open_file
from honing.data.reading.hub_data import open_hub
from honing.data.reading.names import shown
from honing.data.reading.rows import read_row, remarks
from honing.data.reading.shapes import check_mapping, find_layout, widen
from honing.data.reading.source import SourceSpec, find_files, is_hub_id
from honing.data.reading.text_file import check_encoding
from honing.data.stored import example_writer, joined
from honing.errors import UserError

FIRST_ROWS = 100
"""Rows looked at to recognise the shape."""


@dataclass(frozen=True)
class DroppedRow:
    """A row that was left out, and why."""

    id: str
    row: int
    reason: str


@dataclass(frozen=True)
class ReadRows:
    """One split as read.

    `repaired` counts `BOM` in files, `NFD` in rows, and `CRLF` in both: each file whose lines end
    so, and each row with one inside a text. Nothing repaired, no key.
    """

    examples: Sequence[Example]
    num_rows: int
    dropped: tuple[DroppedRow, ...]
    repaired: dict[str, int]
    notes: tuple[str, ...]
    shape: str
    columns: tuple[str, ...]


def read_source(
    source: SourceSpec,
    *,
    columns: Mapping[str, str] | None,
    encoding: str | None,
    group_by: str | None,
    folder: Path | None = None,
) -> dict[str, ReadRows]:
    """Everything under `data.source`: {"all": rows} where it is not split yet, else the user's own
    splits under "train", "val" and "test" (train always, the others where given).

    folder: where the examples lie afterwards; None keeps them in memory.
    """
    wishes = Wishes(dict(columns or {}), encoding, group_by)
    check_mapping(wishes.columns)
    check_encoding(encoding)
    if isinstance(source, str) and is_hub_id(source):
        return {
            split: _join(split, [(label, _collect(label, found, wishes, folder))])
            for split, (label, found) in open_hub(source).items()
        }
    parts: dict[str, list[tuple[str, ReadRows]]] = {}
    for file in find_files(source):
        rows = _read_file(file.path, file.label, wishes, folder)
        parts.setdefault(file.split, []).append((file.label, rows))
    return {split: _join(split, parts[split]) for split in parts}


def _read_file(path: Path, label: str, wishes: Wishes, folder: Path | None) -> ReadRows:
    try:
        return _collect(label, open_file(path, label, wishes), wishes, folder)
    except OSError as error:
        raise UserError(f"{label}: cannot be read ({error.strerror or shown(error)})") from error


def _collect(label: str, found: Found, wishes: Wishes, folder: Path | None) -> ReadRows:
    """All examples of one file. Rows are read as a stream; only the first ones are held."""
    with closing(found.rows) as rows, closing(example_writer(folder)) as writer:
        head, objects = _first_rows(rows)
        if not head:
            raise UserError(f"{label} holds no rows; give a file with rows")
        if not objects and not found.columns:
            kind = type(head[0][1]).__name__
            raise UserError(
                f"{label}: its rows are no objects but for example {kind}; write each row as "
                '{"instruction": …, "output": …}'
            )
        columns = dict.fromkeys(found.columns or chain.from_iterable(objects))
        layout = find_layout(list(columns), objects, wishes.columns, wishes.group_by, label)
        dropped, marks = [], Counter[str]()
        for number, value in chain(head, rows):
            if isinstance(value, dict) and not value.keys() <= columns.keys():
                new = [name for name in value if name not in columns]
                columns |= dict.fromkeys(new)
                layout = widen(layout, new)
            example_id = f"{label}:{number}"
            outcome, noticed = read_row(value, layout, example_id, number)
            if isinstance(outcome, Example):
                writer.append(outcome)
                marks.update(noticed)
            else:
                dropped.append(DroppedRow(example_id, number, outcome))
        examples = writer.finish()
    repaired = Counter(found.repaired) + Counter({k: marks[k] for k in ("CRLF", "NFD")})
    return ReadRows(
        examples=examples,
        num_rows=len(examples) + len(dropped),
        dropped=tuple(dropped),
        repaired=dict(repaired),
        notes=found.notes + remarks(marks, len(examples), label),
        shape=layout.shape,
        columns=tuple(name.encode(errors="backslashreplace").decode() for name in columns if name),
    )


def _first_rows(rows: RawRows) -> tuple[list[tuple[int, object]], list[dict[str, object]]]:
    """Rows until FIRST_ROWS of them are objects, and those objects."""
    head: list[tuple[int, object]] = []
    objects: list[dict[str, object]] = []
    for number, value in rows:
        head.append((number, value))
        if isinstance(value, dict):
            objects.append(value)
            if len(objects) == FIRST_ROWS:
                break
    return head, objects


def _join(split: str, parts: Sequence[tuple[str, ReadRows]]) -> ReadRows:
    """The files of one split, one after the other. Refused where no row is left."""
    files = [rows for _, rows in parts]
    best = max(files, key=lambda rows: len(rows.examples))
    dropped = tuple(row for rows in files for row in rows.dropped)
    num_rows = sum(rows.num_rows for rows in files)
    if not best.examples:
        where = parts[0][0] if len(parts) == 1 else f"the {len(parts)} files of {split}"
        reason, times = Counter(row.reason for row in dropped).most_common(1)[0]
        first = next(row.id for row in dropped if row.reason == reason)
        raise UserError(
            f"{where}: no usable row; {reason} in {times:,} of {num_rows:,} (first: {first}); "
            "mend the rows, or name other columns with data.columns"
        )
    notes = [note for rows in files for note in rows.notes]
    if len({rows.shape for rows in files}) > 1:
        notes.append("; ".join(f"{label} is {rows.shape}" for label, rows in parts))
    repaired = sum((Counter(rows.repaired) for rows in files), Counter[str]())
    return ReadRows(
        examples=joined([rows.examples for rows in files]),
        num_rows=num_rows,
        dropped=dropped,
        repaired=dict(repaired),
        notes=tuple(notes),
        shape=best.shape,
        columns=tuple(dict.fromkeys(chain.from_iterable(rows.columns for rows in files))),
    )
