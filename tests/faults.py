"""A file layer that fails, or a process that dies, at the n-th operation."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from honing import files

OPERATIONS = ("write_all", "sync", "rename", "make_link", "make_one_folder")


@dataclass
class Fault:
    """counted: the operations so far. happened: the one that was to fail; None while it has not.
    unsynced: bytes that are on the disk for sure, of files (by inode) of which more was written."""

    counted: list[str] = field(default_factory=list)
    happened: str | None = None
    unsynced: dict[int, int] = field(default_factory=dict)


@contextmanager
def at_operation(
    n: int, act: Callable[[Fault], None], on_count: Callable[[str], None] = lambda _: None
) -> Iterator[Fault]:
    """Do something in the place of the n-th operation, counted from 1. Half of a write is done."""
    fault = Fault()

    def wrapped(name: str) -> Callable[..., None]:
        own = getattr(files, name)

        def operation(*arguments: Any) -> None:
            fault.counted.append(name)
            on_count(name)
            is_it = len(fault.counted) == n
            if name == "write_all":
                before = os.fstat(arguments[0].fileno())
                fault.unsynced.setdefault(before.st_ino, before.st_size)
                own(arguments[0], arguments[1][: len(arguments[1]) // 2] if is_it else arguments[1])
            elif not is_it:
                own(*arguments)
                if name == "sync":
                    fault.unsynced.pop(os.fstat(arguments[0]).st_ino, None)
            if is_it:
                fault.happened = name
                act(fault)

        return operation

    with ExitStack() as patches:
        for name in OPERATIONS:
            patches.enter_context(mock.patch.object(files, name, wrapped(name)))
        yield fault


def failing_at(n: int, error: int = 0) -> AbstractContextManager[Fault]:
    """The n-th operation raises an OSError."""

    def fail(_: Fault) -> None:
        raise OSError(error, os.strerror(error))

    return at_operation(n, fail)


def lose_power(folder: Path, fault: Fault) -> None:
    """Take away what was written and not synced of the files below a folder, whatever their names
    are by now. What else a real loss of power takes away, such as names, stays."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_ino in fault.unsynced:
            os.truncate(path, fault.unsynced[path.stat().st_ino])


# A drive that is really full

_REMOUNT, _DETACH = 32, 2  # MS_REMOUNT of sys/mount.h, MNT_DETACH of umount2(2)


@contextmanager
def small_drive(folder: Path) -> Iterator[Path]:
    """A file system in memory, mounted at a folder that is made for it; PermissionError where this
    process may mount none. resize_drive gives it its size."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "umount2"):
        raise PermissionError(errno.EPERM, "mounting is done here on Linux alone")
    folder.mkdir(parents=True)
    _mount(folder, 0, 4)
    try:
        yield folder
    finally:
        libc.umount2(os.fsencode(folder), _DETACH)


def resize_drive(folder: Path, kilobytes: int) -> None:
    _mount(folder, _REMOUNT, kilobytes)


def _mount(folder: Path, flags: int, kilobytes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={kilobytes}k".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options):
        number = ctypes.get_errno()
        raise PermissionError(number, os.strerror(number))
