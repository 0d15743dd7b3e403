"""Valid files → malformed ones, by a seeded choice: nearly valid gets further than noise."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

TOKENS = (
    *(b"{", b"}", b"[", b"]", b'"', b"'", b",", b":", b"\n", b"\r\n", b"\t", b"\0", b"\x1b[31m"),
    *(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xfe\xff", b"NaN", b"-Infinity"),
    *(b"1e999", b"9" * 5000, b"-1", b"null", b"true", b"\\ud800", b"\\u0000", b"[" * 3000),
    *(b'{"a":' * 3000, b"&a [*a, *a]", b"!!python/object/apply:os.system [id]", b"<<: *a"),
    *(b"2024-13-45", b"0x", b"{{ ", b" }}", b"{% for x in y %}", b"../../x", b"\xe2\x80\xae"),
    *(b"- ", b"? ", b"| ", b"> ", b"# ", b"%YAML 9.9\n", b"--- ", b"=", b";", b"PAR1", b"GGUF"),
)
NUMBERS = (0, 1, 2, 127, 128, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**63, 2**64, 10**400, -(10**30), 1.5, -0.0, 1e308),
    *(
        float("nan"),
        float("inf"),
        "",
        " ",
        "\0",
        "\ud800",
        "\x1b[2J",
        "\u202e",
        "a\nb\r",
        "가" * 300,
    ),
    *("가" * 300, "../../x", "/etc/passwd", "file:///etc", "~nobody/x", "C:\\x", "x" * 20_000),
    *("{instruction}", "{input}", "1", "true", "null", "NaN", "auto", "2024-01-01"),
    *(
        [],
        {},
        [[]],
        [None],
        [{}],
        {"": None},
        {"a": {"b": [1, "x", None]}},
        ["x"] * 3,
        {"__class__": "x"},
        [1] * 1000,
    ),
)


def mutated(content: bytes, draw: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Up to four changes of bytes: flipped, set, cut, removed, doubled, put in, spliced."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        content = draw.choice(_OF_BYTES)(content, draw, others)
    return content


def _flip(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    if not content:
        return b"\0"
    changed = bytearray(content)
    for _place in range(draw.choice((1, 1, 3, 10))):
        changed[_any(changed, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _set(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    """A number in the place of some bytes, in the order of bytes that headers have."""
    packed = struct.pack("<Q", draw.choice(NUMBERS))[: draw.choice((1, 2, 4, 8))]
    place = _any(content, draw)
    return content[:place] + packed + content[place + len(packed) :]


def _cut(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    return content[: _any(content, draw)]


def _remove(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    start = _any(content, draw)
    return content[:start] + content[start + draw.choice((1, 2, 8, 64)) :]


def _double(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    start = _any(content, draw)
    piece = content[start : start + draw.choice((1, 8, 64, 512))]
    place = _any(content, draw)
    return content[:place] + piece * draw.choice((1, 2, 50)) + content[place:]


def _insert(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    place = _any(content, draw)
    return content[:place] + draw.choice(TOKENS) + content[place:]


def _noise(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    place = _any(content, draw)
    length = draw.choice((1, 4, 16))
    return content[:place] + draw.randbytes(length) + content[place + length :]


def _splice(content: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    other = draw.choice(others) if others else content
    return content[: _any(content, draw)] + other[_any(other, draw) :]


_OF_BYTES: tuple[Callable[[bytes, random.Random, Sequence[bytes]], bytes], ...] = (
    *(_flip, _set, _cut, _remove, _double, _insert, _noise, _splice),
)


def _any(content: bytes | bytearray, draw: random.Random) -> int:
    """A place; the first bytes, where headers are, more often than others."""
    most = min(len(content), 64) if draw.random() < 0.3 else len(content)
    return draw.randrange(max(1, most))


# --- records


def mutated_record(record: Any, draw: random.Random) -> Any:
    """Up to three values of a plain record changed: replaced, removed, nested, doubled, renamed."""
    record = copy.deepcopy(record)
    for _ in range(draw.choice((1, 1, 2, 3))):
        record = _changed(record, draw)
    return record


def _changed(value: Any, draw: random.Random) -> Any:
    deeper = isinstance(value, dict | list) and value and draw.random() < 0.85
    if not deeper:
        return _replacement(value, draw)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw.choice(keys)
    kind = draw.random()
    if kind < 0.08:
        del value[key]
    elif kind < 0.16 and isinstance(value, dict):
        value[draw.choice((*map(str, keys), "", "\ud800", "__class__", "x" * 300, "auto_map"))] = (
            _value(draw)
        )
    elif kind < 0.2 and isinstance(value, list):
        value.extend(value * draw.choice((1, 10)))
    else:
        value[key] = _changed(value[key], draw)
    return value


def _replacement(value: Any, draw: random.Random) -> Any:
    kind = draw.random()
    if kind < 0.06:
        return _nested(draw.choice((30, 900, 3000)))
    if kind < 0.2 and isinstance(value, int | float) and not isinstance(value, bool):
        return draw.choice((-value, value + 1, value * 1000, value % 7 + 0.5, str(value)))
    if kind < 0.3 and isinstance(value, str):
        return draw.choice((value * 3, value[::-1], value + "\x1b[0m", [value], {value: value}))
    return _value(draw)


def _value(draw: random.Random) -> Any:
    return copy.deepcopy(draw.choice(VALUES))


class _Nested(list[Any]):
    """Lists in lists: written by dump, as json.dumps would not come to their end."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth

    def __deepcopy__(self, _: Any) -> _Nested:
        return self


def _nested(depth: int) -> _Nested:
    return _Nested(depth)


def dump(record: Any, draw: random.Random) -> bytes:
    """A record as JSON, now and then with a key twice, or in letters that are not escaped."""
    text = _to_json(record, ensure_ascii=draw.random() < 0.5)
    if draw.random() < 0.05 and text.startswith("{") and len(text) > 2:
        text = "{" + text[1:-1] + "," + text[1:]
    return text.encode("utf-8", "surrogatepass")


def _to_json(value: Any, ensure_ascii: bool) -> str:
    if isinstance(value, _Nested):
        return "[" * value.depth + "]" * value.depth
    if isinstance(value, dict):
        pairs = (
            f"{json.dumps(str(key), ensure_ascii=ensure_ascii)}: {_to_json(item, ensure_ascii)}"
            for key, item in value.items()
        )
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_to_json(item, ensure_ascii) for item in value) + "]"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**300:
        return "9" * 5000
    return json.dumps(value, ensure_ascii=ensure_ascii)
