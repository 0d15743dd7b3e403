"""Rows that lie on disk and look like sequences in memory: for data sets of a million rows.

A million Examples and Tokens as Python objects take 30 GB; here a row costs some 70 bytes of memory
(where it lies, and the counts that a report needs) and is read when it is asked for. Small data
sets are plain tuples instead; the functions at the end of this file know the difference.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from itertools import chain
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from honing.data.encode import IGNORE, Tokens
from honing.data.example import Example
from honing.data.split_file import as_chat, as_columns, as_line, example_of, line_of
from honing.errors import UserError
from honing.files import cannot_write

Ints = NDArray[np.int64]
Places = Sequence[int] | Ints
Row = TypeVar("Row")


_BLOCK_BYTES = 1 << 20
_BLOCK_PIECES = 1_000


class Pieces:
    """Pieces of bytes in one file; can be sent to another process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _mapped(self) -> mmap:
        with self.path.open("rb") as file:
            return mmap(file.fileno(), 0, access=ACCESS_READ)

    def read(self, start: int, size: int) -> bytes:
        return self._mapped[start : start + size] if size else b""

    def each(self, starts: Ints, sizes: Ints) -> Iterator[bytes]:
        """Pieces in turn; those that lie near each other are read together.

        Read and not mapped: what is mapped and touched counts as this process's memory.
        """
        at = 0
        with self.path.open("rb", buffering=0) as file:
            while at < len(starts):
                first = starts[at]
                begin = starts[at : at + _BLOCK_PIECES] - first
                end = begin + sizes[at : at + _BLOCK_PIECES]
                apart = np.flatnonzero((begin < 0) | (end > _BLOCK_BYTES))
                number = max(1, int(apart[0])) if len(apart) else len(begin)
                file.seek(int(first))
                block = file.read(int(end[:number].max()))
                for a, b in zip(begin[:number].tolist(), end[:number].tolist(), strict=True):
                    yield block[a:b]
                at += number

    def __reduce__(self) -> tuple[type[Pieces], tuple[Path]]:
        return Pieces, (self.path,)


def _write(file: BinaryIO, piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:  # else the file that is being read would be blamed
        raise UserError(cannot_write(Path(file.name), error)) from None


class PiecesWriter:
    """Writes pieces one behind the other, and notes where each starts."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self.pieces = Pieces(path)
        self.starts = array("q")
        self.sizes = array("q")
        self._end = self._file.tell()

    def append(self, piece: bytes) -> None:
        _write(self._file, piece)
        self.starts.append(self._end)
        self.sizes.append(len(piece))
        self._end += len(piece)

    def places(self) -> tuple[Ints, Ints]:
        """Starts and sizes of all that was written."""
        return np.array(self.starts, np.int64), np.array(self.sizes, np.int64)

    def close(self) -> None:
        self._file.close()


class StoredTexts(Sequence[str]):
    """Texts in one file of UTF-8."""

    def __init__(self, pieces: Pieces, starts: Ints, sizes: Ints) -> None:
        self.pieces, self.starts, self.sizes = pieces, starts, sizes

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> StoredTexts: ...
    def __getitem__(self, place: int | slice) -> str | StoredTexts:
        if isinstance(place, slice):
            return StoredTexts(self.pieces, self.starts[place], self.sizes[place])
        piece = self.pieces.read(int(self.starts[place]), int(self.sizes[place]))
        return piece.decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces.each(self.starts, self.sizes):
            yield piece.decode("utf-8", "surrogatepass")

    def take(self, places: Places) -> StoredTexts:
        return StoredTexts(self.pieces, self.starts[places], self.sizes[places])


class StoredExamples(Sequence[Example]):
    """Examples as lines of a file, each as it will stand in a splits/*.jsonl.

    rows: each example's own `row`. is_chat: which have several exchanges.
    """

    def __init__(self, pieces: Pieces, starts: Ints, sizes: Ints, rows: Ints, is_chat: Any) -> None:
        self.pieces, self.starts, self.sizes = pieces, starts, sizes
        self.rows, self.is_chat = rows, is_chat

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> StoredExamples: ...
    def __getitem__(self, place: int | slice) -> Example | StoredExamples:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        line = self.pieces.read(int(self.starts[place]), int(self.sizes[place]))
        return example_of(line, int(self.rows[place]))

    def __iter__(self) -> Iterator[Example]:
        for line, row in zip(self.lines(), self.rows, strict=True):
            yield example_of(line, int(row))

    def lines(self) -> Iterator[bytes]:
        """The line of each example, with its line end."""
        return self.pieces.each(self.starts, self.sizes)

    def take(self, places: Places) -> StoredExamples:
        return StoredExamples(
            self.pieces,
            *(a[places] for a in (self.starts, self.sizes, self.rows, self.is_chat)),
        )

    def followed_by(self, other: StoredExamples) -> StoredExamples:
        """These and the examples of another one of the same file."""
        assert self.pieces.path == other.pieces.path
        joined = (
            np.concatenate((getattr(self, name), getattr(other, name)))
            for name in ("starts", "sizes", "rows", "is_chat")
        )
        return StoredExamples(self.pieces, *joined)


@dataclass(frozen=True)
class TokenCounts:
    """Of each row its tokens, those that are learnt, those cut off, its last label, and its largest
    id."""

    lengths: Ints
    num_supervised: Ints
    num_cut: Ints
    last_labels: Ints
    largest_ids: Ints

    def take(self, places: Places) -> TokenCounts:
        return TokenCounts(*(getattr(self, field.name)[places] for field in fields(self)))


class StoredTokens(Sequence[Tokens]):
    """Tokens in one memory-mapped file of int32: an id, or ~id where it is learnt.

    starts: where each row begins, in tokens.
    """

    def __init__(self, path: Path, ids: StoredTexts, starts: Ints, counts: TokenCounts) -> None:
        self.path, self.example_ids, self.starts, self.counts = path, ids, starts, counts

    @cached_property
    def _coded(self) -> NDArray[np.int32]:
        return np.memmap(self.path, np.int32, "r")

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, place: int) -> Tokens: ...
    @overload
    def __getitem__(self, place: slice) -> StoredTokens: ...
    def __getitem__(self, place: int | slice) -> Tokens | StoredTokens:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        start = int(self.starts[place])
        coded = self._coded[start : start + int(self.counts.lengths[place])]
        return _decoded(self.example_ids[place], coded, int(self.counts.num_cut[place]))

    def __iter__(self) -> Iterator[Tokens]:
        coded = Pieces(self.path).each(4 * self.starts, 4 * self.counts.lengths)
        for name, piece, num_cut in zip(self.example_ids, coded, self.counts.num_cut, strict=True):
            yield _decoded(name, np.frombuffer(piece, np.int32), int(num_cut))

    def take(self, places: Places) -> StoredTokens:
        ids, counts = self.example_ids.take(places), self.counts.take(places)
        return StoredTokens(self.path, ids, self.starts[places], counts)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_coded"}


def _decoded(example_id: str, coded: NDArray[np.int32], num_cut: int) -> Tokens:
    learnt = coded < 0
    ids = np.where(learnt, ~coded, coded)
    labels = np.where(learnt, ids, IGNORE)
    return Tokens(example_id, tuple(ids.tolist()), tuple(labels.tolist()), num_cut)


class InMemory(Generic[Row]):
    """The writer of small data sets: a list that becomes a tuple."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def append(self, row: Row) -> None:
        self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def finish(self) -> tuple[Row, ...]:
        return tuple(self._rows)

    def close(self) -> None: ...


class ExampleWriter:
    """Puts examples behind those that the folder's file of lines holds already."""

    def __init__(self, folder: Path) -> None:
        self._lines = PiecesWriter(folder / "rows.jsonl")
        self._rows = array("q")
        self._is_chat = array("b")

    def append(self, example: Example) -> None:
        self._lines.append(line_of(example))
        self._rows.append(example.row)
        self._is_chat.append(len(example.exchanges) > 1)

    def __len__(self) -> int:
        return len(self._rows)

    def finish(self) -> StoredExamples:
        self.close()
        starts, sizes = self._lines.places()
        rows, is_chat = np.array(self._rows, np.int64), np.array(self._is_chat, np.bool_)
        return StoredExamples(self._lines.pieces, starts, sizes, rows, is_chat)

    def close(self) -> None:
        self._lines.close()


class TokenWriter:
    """Puts tokens behind those that the folder's file of tokens holds already."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tokens.int32"
        self._file = self._path.open("ab")
        self._ids = PiecesWriter(folder / "ids.txt")
        self._end = self._file.tell() // 4
        self._starts = array("q")
        self._counts = [array("q") for _ in fields(TokenCounts)]

    def append(self, tokens: Tokens) -> None:
        ids, labels = tokens.ids, tokens.labels
        # A label is its id, or IGNORE. Plain Python: numpy takes twice as long on a row this short.
        coded = [i if label == IGNORE else ~i for i, label in zip(ids, labels, strict=True)]
        _write(self._file, array("i", coded).tobytes())
        self._ids.append(tokens.example_id.encode())
        counts = len(ids), tokens.num_supervised, tokens.num_cut, labels[-1], max(ids)
        for values, count in zip(self._counts, counts, strict=True):
            values.append(count)
        self._starts.append(self._end)
        self._end += len(ids)

    def __len__(self) -> int:
        return len(self._starts)

    def finish(self) -> StoredTokens:
        self.close()
        ids = StoredTexts(self._ids.pieces, *self._ids.places())
        counts = TokenCounts(*(np.array(values, np.int64) for values in self._counts))
        return StoredTokens(self._path, ids, np.array(self._starts, np.int64), counts)

    def close(self) -> None:
        self._file.close()
        self._ids.close()


def example_writer(folder: Path | None) -> ExampleWriter | InMemory[Example]:
    return ExampleWriter(folder) if folder else InMemory()


def token_writer(folder: Path | None) -> TokenWriter | InMemory[Tokens]:
    return TokenWriter(folder) if folder else InMemory()


def joined(parts: Sequence[Sequence[Example]]) -> Sequence[Example]:
    """Examples one after the other: all in memory, or all of one writer's folder."""
    stored = [part for part in parts if isinstance(part, StoredExamples)]
    if stored:
        return reduce(StoredExamples.followed_by, stored)
    return tuple(chain.from_iterable(parts))


def taken(rows: Sequence[Row], places: Places) -> Sequence[Row]:
    """The rows at some places: a tuple of a tuple, a view of what lies on disk."""
    if isinstance(rows, StoredExamples | StoredTokens | StoredTexts):
        stored: Sequence[Any] = rows.take(np.asarray(places, np.int64))
        return stored
    return tuple(rows[int(place)] for place in places)


def split_lines(examples: Sequence[Example]) -> Iterator[bytes]:
    """The lines of one of splits/*.jsonl, which honing can read again as a source.

    All of a file have the same columns: the chats' where there is one, as the reader asks for.
    """
    if isinstance(examples, StoredExamples):
        as_chats = bool(examples.is_chat.any())
        if as_chats == examples.is_chat.all():
            yield from examples.lines()
            return
    else:
        as_chats = any(len(example.exchanges) > 1 for example in examples)
    for example in examples:
        yield as_line(as_chat(example) if as_chats else as_columns(example))


def counts_of(rows: Sequence[Tokens]) -> TokenCounts:
    """Counts of each row; rows that lie on disk are not read for them."""
    if isinstance(rows, StoredTokens):
        return rows.counts
    counts = ((len(r.ids), r.num_supervised, r.num_cut, r.labels[-1], max(r.ids)) for r in rows)
    return TokenCounts(*np.array([*counts], np.int64).reshape(-1, 5).T)


def shortest(rows: Sequence[Tokens], number: int) -> Iterator[Tokens]:
    """The `number` shortest rows, the first of equally long ones first."""
    order = np.argsort(counts_of(rows).lengths, kind="stable")
    return (rows[place] for place in order[:number].tolist())


def with_ids_from(rows: Sequence[Tokens], first_id: int) -> Iterator[Tokens]:
    """The rows that hold an id of at least first_id; others that lie on disk are not read."""
    if isinstance(rows, StoredTokens):
        rows = rows.take(np.flatnonzero(rows.counts.largest_ids >= first_id))
    return (row for row in rows if max(row.ids) >= first_id)
