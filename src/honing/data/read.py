"""Sources -> raw rows -> Examples: JSON, JSONL, CSV, Parquet and Hub data sets.

What a file is, is decided by its content. Every text is opened as UTF-8 (or `data.encoding`),
never in the machine's own encoding. Row numbers are what the user can look up: the line in a JSONL
or CSV file, the place (from 1) in a JSON list, a Parquet file or a Hub split.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from honing.data import shapes
from honing.data.example import Example
from honing.data.shapes import Unusable, did_you_mean, listed, shown
from honing.errors import UserError

SourceSpec = str | list[str] | dict[str, str | list[str]]
RawRows = Generator[tuple[int, object], None, None]

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "test": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "val"
)
KINDS = {
    ".json": "one JSON list",
    ".jsonl": "one JSON object a line",
    ".ndjson": "one JSON object a line",
    ".csv": "a CSV table",
    ".tsv": "a CSV table",
    ".parquet": "Parquet",
}
"""What a file of this ending is taken to hold; another content is read too, and said."""

PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
OLD_EXCEL = b"\xd0\xcf\x11\xe0"
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
NO_FILE_ENCODINGS = ("idna", "punycode", "unicode-escape", "raw-unicode-escape")
"""Codecs of Python's that no file is written in."""
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

    examples: tuple[Example, ...]
    num_rows: int
    dropped: tuple[DroppedRow, ...]
    repaired: dict[str, int]
    notes: tuple[str, ...]
    shape: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class _Wishes:
    """The settings that say how to read."""

    columns: Mapping[str, str]
    encoding: str | None
    group_by: str | None


@dataclass(frozen=True)
class _Found:
    """What a file turned out to be. `columns` is empty where only the rows can tell."""

    kind: str
    rows: RawRows
    columns: tuple[str, ...] = ()
    repaired: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_source(
    source: SourceSpec,
    *,
    columns: Mapping[str, str] | None,
    encoding: str | None,
    group_by: str | None,
) -> dict[str, ReadRows]:
    """Everything under `data.source`: {"all": rows} where it is not split yet, else the user's own
    splits under "train", "val" and "test" (train always, the others where given).
    """
    wishes = _Wishes(dict(columns or {}), encoding, group_by)
    shapes.check_mapping(wishes.columns)
    _check_encoding(encoding)
    if isinstance(source, str) and _is_hub_id(source):
        return _read_hub(source, wishes)
    try:
        files = _find_files(source)
    except OSError as error:  # a folder that may not be looked into
        found = f"{error.filename} ({error.strerror})"
        raise UserError(f"data.source: cannot look into {shown(found, 200)}") from error
    parts: dict[str, list[tuple[str, ReadRows]]] = {}
    for (split, path), label in zip(files, _labels(files), strict=True):
        parts.setdefault(split, []).append((label, _read_file(path, label, wishes)))
    return {split: _join(split, parts[split]) for split in parts}


# ------------------------------------------------------------------ which files


def _is_hub_id(source: str) -> bool:
    """`owner/name` or `owner/name:config`, and nothing on this machine that it could mean."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?", source, re.ASCII):
        return False
    looks_local = Path(source).suffix.lower() in KINDS or os.path.isdir(source.split("/")[0])
    return not looks_local and not os.path.exists(source)


def _find_files(source: SourceSpec) -> list[tuple[str, Path]]:
    """(split, file) for each file of the source; the split is "all" where there is none yet."""
    if isinstance(source, str) and os.path.isdir(os.path.expanduser(source)):
        return _files_in(Path(source).expanduser())
    if not isinstance(source, dict):
        return [("all", path) for path in _listed_files(source, "data.source")]
    for name in source:
        if name not in SPLITS:
            hint = did_you_mean(str(name), SPLITS)
            raise UserError(f'data.source: "{shown(name)}" is none of train, val, test{hint}')
    given = {name: source[name] for name in SPLITS if source.get(name) is not None}
    if "train" not in given:
        raise UserError("data.source: no train among its splits; give train: FILE")
    return [
        (name, path)
        for name, files in given.items()
        for path in _listed_files(files, f"data.source.{name}")
    ]


def _listed_files(files: object, key: str) -> list[Path]:
    """One file or a list of files, each of which must be there, and only once."""
    names = [files] if isinstance(files, str) else files
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise UserError(f"{key}: {shown(files)} is no file name and no list of file names")
    paths = [Path(name).expanduser() for name in names]
    for path in paths:
        if not os.path.isfile(path):
            raise _no_file(path, key)
    twice = [p for p, number in Counter(path.resolve() for path in paths).items() if number > 1]
    if twice:
        raise UserError(f"{key}: {shown(twice[0].name)} is listed twice; take one out")
    return paths


def _no_file(path: Path, key: str) -> UserError:
    name = shown(path, 200)
    if os.path.isdir(path):
        return UserError(f"{key}: {name} is a folder; give its files")
    if os.path.exists(path):
        return UserError(f"{key}: {name} is not a regular file; save it as a file and give that")
    beside = os.listdir(path.parent) if os.path.isdir(path.parent) else []
    advice = did_you_mean(path.name, beside) or "; give an existing file or folder"
    hub = " (a data set on the Hub is named OWNER/NAME)" if len(path.parts) == 1 else ""
    if len(path.parts) == 2 and not path.suffix and os.path.isdir(path.parts[0]):
        hub = f' (rename the folder "{shown(path.parts[0])}" if a Hub data set is meant)'
    return UserError(f"{key}: no such file: {name}{hub}{advice}")


def _files_in(folder: Path) -> list[tuple[str, Path]]:
    """A folder's train, val and test files, shards included; or its only data file."""
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in KINDS and path.is_file() and not path.name.startswith(".")
    ]
    splits: dict[str, list[Path]] = {}
    for path in files:
        name = re.fullmatch(r"([a-z]+)(-\d+-of-\d+)?", path.stem.lower())
        if name and name[1] in SPLIT_NAMES:
            splits.setdefault(SPLIT_NAMES[name[1]], []).append(path)
    where = f"data.source: {shown(folder, 200)}"
    names = listed([path.name for path in files])
    if not splits:
        if len(files) == 1:
            return [("all", files[0])]
        raise UserError(f"{where}: no train file among its data files ({names}); name the file")
    for split, paths in splits.items():
        if len(paths) > 1 and not all("-of-" in path.stem for path in paths):
            names = listed([path.name for path in paths])
            raise UserError(f"{where}: more than one {split} file ({names}); name one")
    if "train" not in splits:
        raise UserError(f"{where}: no train file among its data files ({names}); name the files")
    if len(splits) == 1:
        return [("all", path) for path in splits["train"]]
    return [(split, path) for split in SPLITS for path in splits.get(split, [])]


def _labels(files: Sequence[tuple[str, Path]]) -> list[str]:
    """A short name for each file that no other has: its name, with folders where two are alike."""
    # Not resolved: a link's own name says more than the blob that it leads to.
    whole = [(split, *path.absolute().parts) for split, path in files]
    labels = []
    for own in whole:
        others = [other for other in whole if other is not own]
        size = 1
        while any(other[-size:] == own[-size:] for other in others) and size < len(own) - 1:
            size += 1
        # The very same file under two splits: only the split tells the rows apart.
        same = any(other[1:] == own[1:] for other in others)
        labels.append(shown("/".join((own[0], own[-1]) if same else own[-size:]), 200))
    return labels


# ------------------------------------------------------------------ one file


def _read_file(path: Path, label: str, wishes: _Wishes) -> ReadRows:
    try:
        return _collect(label, _open_file(path, label, wishes), wishes)
    except OSError as error:
        raise UserError(f"{label}: cannot be read ({error.strerror or shown(error)})") from error


def _open_file(path: Path, label: str, wishes: _Wishes) -> _Found:
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
    return _Found(found.kind, found.rows, found.columns, found.repaired, (*found.notes, note))


def _open_text(path: Path, label: str, head: bytes, wishes: _Wishes) -> _Found:
    _refuse_what_is_no_text(path, label, head, wishes.encoding)
    encoding = wishes.encoding or "utf-8"
    start = _first_text(path, encoding)
    if not start:
        raise _empty(label)
    named_json = (path.suffix.lower() in KINDS) and "JSON" in KINDS[path.suffix.lower()]
    is_json = start[0] in "[{" or (named_json and _is_json(start))
    notes: tuple[str, ...] = ()
    if wishes.encoding is None and not is_json and _is_cp949(path):
        encoding = "cp949"
        notes = (f"{label} is cp949, not UTF-8: read as cp949",)
    has_crlf = _check_text(path, label, encoding)
    if is_json:
        found = _open_json(path, label, encoding, wishes)
    else:
        found = _open_table(path, label, encoding, wishes)
    repaired = {"BOM": int(head.startswith(codecs.BOM_UTF8)), "CRLF": int(has_crlf)}
    return _Found(found.kind, found.rows, found.columns, repaired, notes + found.notes)


def _empty(label: str) -> UserError:
    return UserError(f"{label} is empty; give a file with rows")


def _refuse_what_is_no_text(path: Path, label: str, head: bytes, encoding: str | None) -> None:
    if head.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{label} is a Git LFS pointer, not the data; run `git lfs pull` in its repository"
        )
    packed = next((name for mark, name in PACKED.items() if head.startswith(mark)), None)
    if head.startswith(OLD_EXCEL) or (packed and path.suffix.lower() == ".xlsx"):
        raise UserError(f"{label} is an Excel workbook; save it as CSV UTF-8 and give that")
    if packed:
        raise UserError(f"{label} is packed ({packed}); unpack it and give the file inside")
    if head.startswith(UTF16_MARKS) and encoding is None:
        raise UserError(
            f"{label} is UTF-16, not UTF-8; save it as UTF-8, or set data.encoding=utf-16"
        )


# ------------------------------------------------------------------ text


def _check_encoding(encoding: str | None) -> None:
    if encoding is None:
        return
    try:
        "a".encode(encoding)  # refuses the codecs that are not for text, as lookup() does not
        if codecs.lookup(encoding).name in NO_FILE_ENCODINGS:
            raise LookupError
    except (LookupError, ValueError):
        raise UserError(
            f'data.encoding: no text encoding "{shown(encoding)}"; give for example utf-8 or cp949'
        ) from None


@contextmanager
def _text_of(path: Path, encoding: str, newline: str) -> Iterator[TextIO]:
    """The file as text, after its byte order mark where it has one."""
    with open(path, encoding=encoding, newline=newline) as handle:
        if handle.read(1) != "\ufeff":
            handle.seek(0)
        yield handle


def _first_text(path: Path, encoding: str) -> str:
    """The start of the first line that is not blank; what cannot be decoded does not matter yet."""
    with open(path, encoding=encoding, errors="replace", newline="\n") as handle:
        try:
            while piece := handle.readline(1 << 16):
                if text := piece.lstrip("\ufeff").strip():
                    return text
        except UnicodeError:  # a few codecs know no "replace"
            return "?"
    return ""


def _is_cp949(path: Path) -> bool:
    """Whether a text is Korean Windows' encoding rather than UTF-8 or damaged UTF-8."""
    try:
        with open(path, encoding="utf-8") as handle:
            while handle.read(1 << 20):
                pass
        return False
    except UnicodeDecodeError:
        data = path.read_bytes()
    # The first letters of cp949 hardly ever make UTF-8; many that do come from a damaged file.
    sound = data[: _first_bad_byte(data, "utf-8")].decode()
    letters = len(sound) - len(sound.encode("ascii", "ignore"))
    return letters <= 8 and b"\0" not in data and _first_bad_byte(data, "cp949") is None


def _first_bad_byte(data: bytes, encoding: str) -> int | None:
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        return error.start
    except UnicodeError:
        return 0
    return None


def _check_text(path: Path, label: str, encoding: str) -> bool:
    """Refuse bytes that are no text, with their line. True where lines end in CRLF."""
    line = 1
    try:
        with open(path, encoding=encoding) as handle:
            while piece := handle.read(1 << 20):
                nul = piece.find("\0")
                if nul >= 0:
                    line += piece.count("\n", 0, nul)
                    raise UserError(
                        f"{label}, line {line}: a NUL byte, so this is no text in {encoding}; "
                        "save it as UTF-8 text"
                    )
                line += piece.count("\n")
            return "\r\n" in (handle.newlines or ())
    except UnicodeError:
        raise _not_decodable(path, label, encoding) from None


def _not_decodable(path: Path, label: str, encoding: str) -> UserError:
    data = path.read_bytes()
    offset = _first_bad_byte(data, encoding) or 0
    line = data.count(b"\n", 0, offset) + 1
    advice = "save it as UTF-8, or name its encoding with data.encoding"
    if encoding == "utf-8" and _is_cp949(path):
        advice = "it seems to be cp949: save it as UTF-8, or set data.encoding=cp949"
    found = f"byte 0x{data[offset]:02x} at offset {offset}"
    return UserError(f"{label}, line {line}: not {encoding} ({found}); {advice}")


# ------------------------------------------------------------------ JSON


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(path: Path, encoding: str) -> Generator[tuple[int, str], None, None]:
    """(line number, line) of the lines that are not blank."""
    with _text_of(path, encoding, "\n") as handle:
        for number, line in enumerate(handle, start=1):
            # Files with a mark each, joined by `cat`, have marks at later lines too.
            text = line.removeprefix("\ufeff").rstrip("\n")
            if text and not text.isspace():
                yield number, text


def _first_lines(path: Path, label: str, encoding: str) -> tuple[int, str, str | None]:
    """Number and text of the first line that is not blank, and the text of the next."""
    with closing(_lines(path, encoding)) as lines:
        first = next(lines, None)
        following = next(lines, None)
    if first is None:
        raise _empty(label)
    return (*first, following[1] if following else None)


def _open_json(path: Path, label: str, encoding: str, wishes: _Wishes) -> _Found:
    """One object a line where the first line is whole and others follow; else one value."""
    number, line, following = _first_lines(path, label, encoding)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        # A line that merely stops too early may be the start of a value over several lines.
        is_cut = isinstance(error, json.JSONDecodeError) and error.pos >= len(line.rstrip())
        if following is None or not is_cut:
            raise _broken(label, number, error) from None
        is_row = line.startswith("{") and following.startswith("{") and _is_json(following)
        try:
            with _text_of(path, encoding, "\n") as handle:
                value = json.load(handle)
        except (ValueError, RecursionError) as whole_error:
            if is_row:
                raise _broken(label, number, error) from None
            place = whole_error.lineno if isinstance(whole_error, json.JSONDecodeError) else None
            raise _broken(label, place, whole_error) from None
    else:
        if following is not None:
            return _Found("one JSON object a line", _json_lines(path, label, encoding))
    return _json_value(value, number, label, wishes)


def _json_lines(path: Path, label: str, encoding: str) -> RawRows:
    with closing(_lines(path, encoding)) as lines:
        for number, line in lines:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _broken(label, number, error) from None
            yield number, value


def _json_value(value: object, number: int, label: str, wishes: _Wishes) -> _Found:
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
            return _Found("one JSON object around a list", _counted(items), notes=(note,))
    if isinstance(value, list):
        return _Found("one JSON list", _counted(value))
    return _Found("one JSON object a line", ((number, row) for row in [value]))


def _counted(values: Iterable[object]) -> RawRows:
    return ((number, value) for number, value in enumerate(values, start=1))


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


def _fits(columns: Collection[str], wishes: _Wishes) -> bool:
    """Whether these are column names that can be read."""
    if shapes.understood(columns):
        return True
    names = wishes.columns.values()
    return bool(names) and all(shapes.find_column(columns, name) for name in names)


# ------------------------------------------------------------------ CSV


def _open_table(path: Path, label: str, encoding: str, wishes: _Wishes) -> _Found:
    csv.field_size_limit(2**31 - 1)  # the default refuses texts over 128 KiB
    headers = {mark: _header(path, encoding, mark) for mark in ",;\t"}
    mark = max(headers, key=lambda mark: (_fits(headers[mark], wishes), len(headers[mark])))
    header = headers[mark]
    number, line, _ = _first_lines(path, label, encoding)
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
    return _Found("a CSV table", _table_rows(path, label, encoding, mark), tuple(header))


def _header(path: Path, encoding: str, delimiter: str) -> list[str]:
    with _text_of(path, encoding, "") as handle:
        try:
            rows = csv.reader(handle, delimiter=delimiter, strict=True)
            cells = next((cells for cells in rows if cells), [])
        except csv.Error:
            return []
    return [unicodedata.normalize("NFC", cell).strip() for cell in cells]


def _table_rows(path: Path, label: str, encoding: str, delimiter: str) -> RawRows:
    """(line where the record starts, cells by column)."""
    header = _header(path, encoding, delimiter)
    with _text_of(path, encoding, "") as handle:
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


# ------------------------------------------------------------------ Parquet and the Hub


def _open_parquet(path: Path, label: str) -> _Found:
    import pyarrow.parquet  # costs a tenth of a second, for those who have such files

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = tuple(map(str, file.schema_arrow.names))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _broken_parquet(label, error) from None
    return _Found("Parquet", _parquet_rows(path, label), columns)


def _parquet_rows(path: Path, label: str) -> RawRows:
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _broken_parquet(label, error) from None


def _broken_parquet(label: str, error: Exception) -> UserError:
    return UserError(f"{label}: broken Parquet file ({shown(error, 120)}); copy or write it again")


def _read_hub(source: str, wishes: _Wishes) -> dict[str, ReadRows]:
    """The splits of a Hub data set; "all" where it has only one."""
    name, _, config = source.partition(":")
    import datasets  # 2 s, for those who read from the Hub

    try:
        loaded: Mapping[str, Any] = datasets.load_dataset(name, config or None)
        split_of = _hub_splits(source, list(loaded))
        return {
            split: _join(split, [(f"{name}/{hub}", _collect_hub(loaded[hub], name, hub, wishes))])
            for hub, split in split_of.items()
        }
    except UserError:
        raise
    except Exception as error:  # whatever its dozen libraries raise, the user sees one line
        raise _hub_failure(source, error) from error


def _collect_hub(split: Any, name: str, hub: str, wishes: _Wishes) -> ReadRows:
    batches = split.with_format("arrow").iter(batch_size=1000)  # undecoded: images stay bytes
    rows = _counted(row for batch in batches for row in batch.to_pylist())
    found = _Found("a Hub data set", rows, tuple(split.column_names))
    return _collect(f"{name}/{hub}", found, wishes)


def _hub_splits(source: str, found: list[str]) -> dict[str, str]:
    """The Hub's split names -> ours."""
    if len(found) == 1:
        return {found[0]: "all"}
    ours = {hub: SPLIT_NAMES[hub.lower()] for hub in found if hub.lower() in SPLIT_NAMES}
    if "train" not in ours.values():
        raise UserError(
            f"data.source: {source} has no train split (found: {listed(found)}); "
            "save the one you mean as a file and give that"
        )
    first = {split: hub for hub, split in reversed(ours.items())}
    if len(first) == 1:
        return {first["train"]: "all"}
    return {first[split]: split for split in SPLITS if split in first}


def _hub_failure(source: str, error: Exception) -> UserError:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    where = f"data.source: {source}"
    instead = "give a file (JSON, JSONL, CSV, Parquet), or `sample`"
    if kinds & {"OfflineModeIsEnabled", "ConnectionError", "ConnectTimeout", "ConnectError"}:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        return UserError(
            f"{where}: no such file here, and the Hub cannot be reached{offline}; "
            f"with a network it would be fetched, without one {instead}"
        )
    if kinds & {"DatasetNotFoundError", "RepositoryNotFoundError", "GatedRepoError"}:
        return UserError(
            f"{where}: no such file here, and no such data set on the Hub that is open to you; "
            f"check its name, log in with `hf auth login` if it is private, or {instead}"
        )
    return UserError(f"{where}: the Hub data set cannot be read ({shown(error, 160)}); {instead}")


# ------------------------------------------------------------------ rows -> examples


def _collect(label: str, found: _Found, wishes: _Wishes) -> ReadRows:
    """All examples of one file. Rows are read as a stream; only the first ones are held."""
    with closing(found.rows) as rows:
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
        layout = shapes.find_layout(list(columns), objects, wishes.columns, wishes.group_by, label)
        examples, dropped, marks = [], [], Counter[str]()
        for number, value in chain(head, rows):
            if isinstance(value, dict) and not value.keys() <= columns.keys():
                new = [name for name in value if name not in columns]
                columns |= dict.fromkeys(new)
                layout = shapes.widen(layout, new)
            example_id = f"{label}:{number}"
            outcome, noticed = shapes.read_row(value, layout, example_id, number)
            if isinstance(outcome, Example):
                examples.append(outcome)
                marks.update(noticed)
            else:
                dropped.append(DroppedRow(example_id, number, outcome))
    repaired = Counter(found.repaired) + Counter({k: marks[k] for k in ("CRLF", "NFD")})
    return ReadRows(
        examples=tuple(examples),
        num_rows=len(examples) + len(dropped),
        dropped=tuple(dropped),
        repaired=dict(repaired),
        notes=found.notes + shapes.remarks(marks, len(examples), label),
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
        examples=tuple(chain.from_iterable(rows.examples for rows in files)),
        num_rows=num_rows,
        dropped=dropped,
        repaired=dict(repaired),
        notes=tuple(notes),
        shape=best.shape,
        columns=tuple(dict.fromkeys(chain.from_iterable(rows.columns for rows in files))),
    )
