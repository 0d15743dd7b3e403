"""Files and folders that are whole or absent: written aside, synced, renamed.

All that a run must not lose is written through the few operations at the top, each of which has
its Windows and macOS way. Names with a dot are asides: `.NAME.new` is being written, `.NAME.old`
stood in the place of NAME until now, `.NAME.gone` is being removed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from honing.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS: fsync leaves the data in the drive's cache, this does not (man 2 fsync there)."""

_IS_WINDOWS = sys.platform == "win32"
_NO_SYNC_OF_FOLDERS = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSUP})
"""What a file system answers that syncs no folders; PostgreSQL's fsync_fname passes it over too."""
_WAITS_S = (0.01, 0.05, 0.1, 0.2, 0.4)

ASIDES = (".*.new", ".*.old", ".*.gone")
"""Patterns of what a process that was killed leaves behind."""


# The operations. Each raises OSError.


def write_all(file: BinaryIO, content: bytes | memoryview) -> None:
    """Hand all bytes to the system."""
    file.write(content)
    file.flush()


def sync(handle: int) -> None:
    """Wait until an open file, or folder, is on the disk."""
    if fcntl is not None and _FULL_SYNC is not None:
        with contextlib.suppress(OSError):  # a network drive that knows fsync alone
            fcntl.fcntl(handle, _FULL_SYNC)
            return
    os.fsync(handle)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder its name, in one step; a file that has the name is replaced."""
    for wait in _WAITS_S if _IS_WINDOWS else ():
        try:
            os.replace(source, target)
            return
        except PermissionError:
            # Scanners and indexers open what was just written, and Windows renames no open file.
            time.sleep(wait)
    os.replace(source, target)


def make_link(path: Path, target: str) -> None:
    """A symbolic link to a folder beside it."""
    os.symlink(target, path, target_is_directory=True)


def make_one_folder(folder: Path) -> None:
    os.mkdir(folder)


# What is made of them


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: those made, renamed and removed."""
    if _IS_WINDOWS:
        return  # it opens no folders; NTFS keeps a journal of names
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # a folder in which one may make names and read none
    try:
        sync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC_OF_FOLDERS:
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """A folder and those above it; the names of new ones are on the disk."""
    if os.path.isdir(folder):
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    try:
        make_one_folder(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
    sync_folder(folder.parent)


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is not there yet, and wait until its content is on the disk."""
    with path.open("xb") as file:  # which follows no link that someone may have left
        write_all(file, content)
        sync(file.fileno())


def append_line(path: Path, line: str) -> None:
    """Add one line to a file that grows while others read it, and wait until it is on the disk."""
    with path.open("ab") as file:
        write_all(file, (line + "\n").encode())
        sync(file.fileno())


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all."""
    aside = _aside(path, "new")
    try:
        make_folder(path.parent)
        discard(aside)
        write_file(aside, content)
        rename(aside, path)
        sync_folder(path.parent)
    finally:
        discard(aside)


def replace_link(pointer: Path, target: str) -> None:
    """Point at a folder beside the pointer, in one step.

    A relative link; where there are no links, a file that holds the folder's name.
    """
    aside = _aside(pointer, "new")
    try:
        discard(aside)
        try:
            make_link(aside, target)
        except (OSError, NotImplementedError):
            write_file(aside, (target + "\n").encode())
        if pointer.is_dir() and not pointer.is_symlink():
            remove_folder(pointer)  # a copy of the run in which the link became a folder
        rename(aside, pointer)
        sync_folder(pointer.parent)
    finally:
        discard(aside)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write_file in. After the body it takes the place of `folder`, whole; where
    anything fails, all is as it was.

    A folder that is there is moved away first, as none can be replaced. A process that dies
    between the two renames leaves it as `.NAME.old`, which clear_asides moves back.
    """
    aside = _aside(folder, "new")
    try:
        discard(aside)
        make_folder(folder.parent)
        make_one_folder(aside)
        yield aside
        sync_folder(aside)
        _move_into_place(aside, folder)
    finally:
        discard(aside)


def _move_into_place(aside: Path, folder: Path) -> None:
    old = _aside(folder, "old")
    discard(old)
    if folder.exists():
        rename(folder, old)
    try:
        rename(aside, folder)
        sync_folder(folder.parent)
    except OSError:
        with contextlib.suppress(OSError):
            os.replace(folder, aside)
        if old.exists():
            os.replace(old, folder)
        raise
    discard(old)


def remove_folder(folder: Path) -> None:
    """Remove a folder under another name: what is left of it by a kill has none that counts.

    Where it cannot be removed, it stays; that is no error.
    """
    gone = _aside(folder, "gone")
    discard(gone)
    with contextlib.suppress(OSError):
        rename(folder, gone)
    discard(gone)


def discard(path: Path) -> None:
    """Remove a file, a link, or a whole folder, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def clear_asides(folder: Path) -> None:
    """Tidy up after a process that was killed: what it was replacing goes back to its name, what
    it had not finished, or was removing, goes away. No other process may be writing there."""
    if not os.path.isdir(folder):
        return
    for aside in [path for pattern in ASIDES for path in folder.glob(pattern)]:
        name, _, kind = aside.name[1:].rpartition(".")
        if kind == "old" and name and not os.path.lexists(folder / name):
            with contextlib.suppress(OSError):
                rename(aside, folder / name)
        else:
            discard(aside)


def _aside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


# Records that anyone may have written

MOST_RECORD_BYTES = 10_000_000
MOST_DEPTH = 50


def read_json(path: Path, most_bytes: int = MOST_RECORD_BYTES) -> Any:
    """The value in a small JSON file. Raises OSError, and ValueError where the file is no JSON,
    larger than any record, nested too deeply, or holds half a character, which no file takes."""
    if not path.is_file() and path.exists():  # a pipe never ends, and no device has a size
        raise ValueError("no file")
    if path.stat().st_size > most_bytes:
        raise ValueError(f"larger than {most_bytes:,} bytes")
    try:
        value = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_plain(value, 0)
    return value


def _check_plain(value: Any, depth: int) -> None:
    if isinstance(value, str):
        value.encode()  # a UnicodeEncodeError is a ValueError
    elif isinstance(value, dict | list):
        if depth >= MOST_DEPTH:
            raise ValueError("nested too deeply")
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_plain(item, depth + 1)


# For users' eyes


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, in UTF-8. Raises UserError where that fails."""
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise UserError(cannot_write(path, error)) from None


def write_json(path: Path, record: Any) -> None:
    """As write_text: a record that people can read."""
    write_text(path, json.dumps(record, ensure_ascii=False, indent=1) + "\n")


def cannot_write(path: Path, error: OSError) -> str:
    """One line about a write that failed: a full disk, a missing right, a folder in the way."""
    reason = error.strerror or str(error)
    return f"{path}: cannot be written ({reason}); free some space or choose another folder"
