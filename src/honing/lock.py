"""One training in a folder: a lock that dies with its process, however the process dies."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from honing.errors import UserError
from honing.files import cannot_write, make_folder

_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})
"""What a file system answers that knows no locks, as some network drives are mounted."""


@contextmanager
def only_holder(path: Path, busy: str) -> Iterator[bool]:
    """Hold a lock file while the body runs; UserError(busy) where another process holds it.

    True where it is held, False where the file system has no locks. The lock is the system's own,
    flock or on Windows LockFileEx. The file goes away afterwards, and so do folders that were made
    for it and hold nothing else.
    """
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    try:
        lock = _take(path, busy)
        try:
            yield lock is not None
        finally:
            # While it is held: who has opened this file by now finds it gone, and looks again.
            with contextlib.suppress(OSError):
                path.unlink()
            if lock is not None:
                lock.release()
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _take(path: Path, busy: str) -> FileLock | None:
    # Not the library's way out, a lock that outlives its process.
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        make_folder(path.parent)
        lock.acquire()
    except Timeout:
        raise UserError(busy) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise UserError(cannot_write(path, error)) from None
    return lock
