"""manifest.json: size and SHA-256 of each file of a checkpoint, so that a flipped bit is found.

Files that it does not name, such as a model card, are no concern of it. Checkpoints from before
there were manifests have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from honing.files import read_json

MANIFEST = "manifest.json"

_MOST_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20


def manifest_of(contents: Mapping[str, bytes | memoryview]) -> bytes:
    """The manifest of files by name and content."""
    files = {
        name: {"bytes": memoryview(content).nbytes, "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(contents.items())
    }
    return (json.dumps({"files": files}, indent=1) + "\n").encode()


def damage(folder: Path, names: Iterable[str]) -> tuple[str, str] | None:
    """The first of the named files that is not as the manifest says, and what is wrong with it.

    None where all are, or where there is no manifest.
    """
    path = folder / MANIFEST
    try:
        if not path.exists():
            return None
        if path.stat().st_size > _MOST_BYTES:
            return MANIFEST, "is larger than any manifest"
        record = read_json(path)
    except (OSError, ValueError) as error:
        return MANIFEST, f"cannot be read ({_reason(error)})"
    for name in names:
        expected = _entry(record, name)
        if expected is None:
            return MANIFEST, f"says nothing of {name}"
        if wrong := _wrong_with(folder / name, *expected):
            return name, wrong
    return None


def _entry(record: Any, name: str) -> tuple[int, str] | None:
    """Bytes and SHA-256 of a file, from a record that anyone may have written."""
    files = record.get("files") if isinstance(record, dict) else None
    entry = files.get(name) if isinstance(files, dict) else None
    if not isinstance(entry, dict):
        return None
    num_bytes, digest = entry.get("bytes"), entry.get("sha256")
    return (num_bytes, digest) if isinstance(num_bytes, int) and isinstance(digest, str) else None


def _wrong_with(path: Path, num_bytes: int, digest: str) -> str | None:
    if not path.is_file():
        return "is missing"
    try:
        found = path.stat().st_size
        if found != num_bytes:
            return f"is damaged ({found:,} bytes of {num_bytes:,})"
        if sha256_of(path) != digest:
            return f"is damaged (its SHA-256 is not the one in {MANIFEST})"
    except OSError as error:
        return f"cannot be read ({_reason(error)})"
    return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in blocks. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return " ".join((reason or str(error)).split())[:100]
