"""Is a GGUF file's header possible? Asked before a parser believes its counts, lengths and sizes.

The parsers that transformers uses loop and allocate by what the header says, and a header of a few
bytes can say 2**64. Here each count is held against the bytes that are left, each tensor against
the file, and each size of the model against the tensors. Layout: docs/gguf.md of ggml.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_NESTED = 3
MOST_DIMENSIONS = 8
MOST_SQUARED_BYTES = 10**9
"""Of tokens, the sum of their lengths squared: converters try each place to cut one in two."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_STRING, _ARRAY = 8, 9
_SIZES = (
    *("embedding_length", "feed_forward_length", "vocab_size", "head_count", "head_count_kv"),
    *("key_length", "value_length", "dimension_count", "expert_count", "expert_used_count"),
)
"""Last words of keys that no model has larger than the longest side of a tensor."""


class Impossible(Exception):
    """What the header says cannot be; the message says what."""


@dataclass
class _Reader:
    """Reads from a file, never past its end."""

    file: BinaryIO
    left: int
    squared: int = 0
    numbers: dict[str, int] = field(default_factory=dict)

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise Impossible("it ends before its header does")
        self.left -= count
        return self.file.read(count)

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]

    def text(self) -> bytes:
        return self.take(self.number("Q"))

    def name(self) -> str:
        return self.text().decode("utf-8", "replace")

    def token(self) -> None:
        self.squared += len(self.text()) ** 2
        if self.squared > MOST_SQUARED_BYTES:
            raise Impossible("its tokens are longer than any vocabulary's")


def check_header(path: Path) -> None:
    """Raise Impossible where a GGUF header contradicts its file. Raises OSError too."""
    size = path.stat().st_size
    with path.open("rb") as file:
        reader = _Reader(file, size)
        if reader.take(4) != MAGIC:
            raise Impossible("it does not begin as a GGUF file does")
        version = reader.number("I")
        if version not in VERSIONS:
            raise Impossible(f"it is of version {version}; versions 2 and 3 are read")
        num_tensors, num_keys = reader.number("Q"), reader.number("Q")
        # Each takes some bytes, so a loop ends at the end of the file at the latest.
        for _ in range(num_keys):
            _read_value(reader, reader.name(), reader.number("I"), 0)
        tensors = list(_read_tensors(reader, num_tensors))
        start = _aligned(size - reader.left, reader.numbers.get("general.alignment", 32))
    _check_places(tensors, size - start)
    _check_sizes(reader.numbers, {name: shape for name, shape, _, _ in tensors})


def _read_value(reader: _Reader, key: str, kind: int, depth: int) -> None:
    """Read one value; whole numbers are kept by their key."""
    if kind == _STRING:
        reader.token() if depth else reader.text()
    elif kind == _ARRAY:
        inner, count = reader.number("I"), reader.number("Q")
        if depth >= MOST_NESTED:
            raise Impossible("it nests lists too deeply")
        if inner in _SCALARS:
            content = reader.take(count * struct.calcsize(_SCALARS[inner]))
            if inner not in (6, 12) and 0 < count <= 10_000:
                numbers = struct.unpack(f"<{count}{_SCALARS[inner]}", content)
                reader.numbers[key] = max(reader.numbers.get(key, 0), *numbers)
        else:
            for _ in range(count):
                _read_value(reader, key, inner, depth + 1)
    elif kind in _SCALARS:
        value = reader.number(_SCALARS[kind])
        if isinstance(value, int):
            reader.numbers[key] = value
    else:
        raise Impossible(f"it holds a value of unknown kind {kind}")


def _read_tensors(reader: _Reader, count: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    """(name, shape, kind, offset) of each tensor."""
    for _ in range(count):
        name = reader.name()
        num_sides = reader.number("I")
        if num_sides > MOST_DIMENSIONS:
            raise Impossible(f"a tensor has {num_sides} dimensions")
        shape = tuple(reader.number("Q") for _ in range(num_sides))
        yield name, shape, reader.number("I"), reader.number("Q")


def _aligned(offset: int, alignment: int) -> int:
    if alignment <= 0 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise Impossible(f"it is aligned to {alignment} bytes")
    return -(-offset // alignment) * alignment


def _check_places(tensors: list[tuple[str, tuple[int, ...], int, int]], num_bytes: int) -> None:
    """Each tensor lies inside the file."""
    from gguf import GGML_QUANT_SIZES

    sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
    total = 0
    for _, shape, kind, offset in tensors:
        if kind not in sizes:
            raise Impossible(f"a tensor is of unknown kind {kind}")
        count = 1
        for side in shape:
            count *= side
        block, block_bytes = sizes[kind]
        length = -(-count // block) * block_bytes
        total += length
        if offset + length > num_bytes or total > num_bytes:
            raise Impossible("its tensors are larger than the file; was it cut short?")


def _check_sizes(numbers: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
    """What the model is said to be is no larger than the tensors that are there."""
    longest = max((side for shape in shapes.values() for side in shape), default=0)
    embedding = shapes.get("token_embd.weight", (0,))
    for key, value in numbers.items():
        word = key.rpartition(".")[2]
        most = longest if word in _SIZES else None
        if word == "embedding_length":
            most = embedding[0] if embedding else 0
        if word == "block_count":
            most = len(shapes)
        if word == "context_length" and "position_embd.weight" in shapes:
            most = longest
        if most is not None and value > most:
            raise Impossible(f"it says {word} {value:,}, and its tensors are smaller")
