"""Bytes -> text: encodings, byte order marks, and files that are no text.

Every text is opened as UTF-8 (or `data.encoding`), never in the machine's own encoding.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TextIO

from honing.data.reading.names import shown
from honing.errors import UserError

PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
OLD_EXCEL = b"\xd0\xcf\x11\xe0"
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
NO_FILE_ENCODINGS = ("idna", "punycode", "unicode-escape", "raw-unicode-escape")
"""Codecs of Python's that no file is written in."""


def check_encoding(encoding: str | None) -> None:
    """Refuse a `data.encoding` that no file can be in."""
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


def refuse_what_is_no_text(path: Path, label: str, head: bytes, encoding: str | None) -> None:
    """Refuse pointers, packed files and workbooks, by their first bytes, with the way out."""
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


@contextmanager
def text_of(path: Path, encoding: str, newline: str) -> Iterator[TextIO]:
    """The file as text, after its byte order mark where it has one."""
    with open(path, encoding=encoding, newline=newline) as handle:
        if handle.read(1) != "\ufeff":
            handle.seek(0)
        yield handle


def first_text(path: Path, label: str, encoding: str) -> str:
    """The start of the first line that is not blank; what cannot be decoded does not matter yet."""
    with open(path, encoding=encoding, errors="replace", newline="\n") as handle:
        try:
            while piece := handle.readline(1 << 16):
                if text := piece.lstrip("\ufeff").strip():
                    return text
        except UnicodeError:  # a few codecs know no "replace"
            return "?"
    raise _empty(label)


def _empty(label: str) -> UserError:
    return UserError(f"{label} is empty; give a file with rows")


def text_lines(path: Path, encoding: str) -> Generator[tuple[int, str], None, None]:
    """(line number, line) of the lines that are not blank."""
    with text_of(path, encoding, "\n") as handle:
        for number, line in enumerate(handle, start=1):
            # Files with a mark each, joined by `cat`, have marks at later lines too.
            text = line.removeprefix("\ufeff").rstrip("\n")
            if text and not text.isspace():
                yield number, text


def first_lines(path: Path, label: str, encoding: str) -> tuple[int, str, str | None]:
    """Number and text of the first line that is not blank, and the text of the next."""
    with closing(text_lines(path, encoding)) as lines:
        first = next(lines, None)
        following = next(lines, None)
    if first is None:
        raise _empty(label)
    return (*first, following[1] if following else None)


def check_text(path: Path, label: str, encoding: str) -> bool:
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
    if encoding == "utf-8" and is_cp949(path):
        advice = "it seems to be cp949: save it as UTF-8, or set data.encoding=cp949"
    found = f"byte 0x{data[offset]:02x} at offset {offset}"
    return UserError(f"{label}, line {line}: not {encoding} ({found}); {advice}")


def is_cp949(path: Path) -> bool:
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
