"""Large data sets, prepared once: rows, tokens and report in a folder named by what they depend on.

A second run finds them there in seconds. The folder is checked against the hashes noted when it was
written; a damaged one, or one that something else wrote, counts as none.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from honing.config import DataConfig
from honing.data.encode import Tokens
from honing.data.example import Example
from honing.data.prepare import EncodedSplit, PreparedData
from honing.data.reading.source import SourceFile
from honing.data.report import DataReport
from honing.data.stored import Pieces, StoredExamples, StoredTexts, StoredTokens, TokenCounts
from honing.data.text_model import TextModel

MOST_BYTES = 20_000_000_000
"""The prepared sets together; those unused for longest go first."""

_A_DAY_S = 86_400
_RECORD = "prepared.json"
_KEPT = ("rows.jsonl", "tokens.int32", "ids.txt")
_COUNTS = tuple(field.name for field in fields(TokenCounts))
_LIBRARIES = ("tokenizers", "rensa", "numpy")


def content_key(
    files: Sequence[SourceFile],
    data: DataConfig,
    seed: int,
    text: TextModel,
    tokenizer_hash: str,
) -> str:
    """SHA-256 of all that prepared data depend on: the files' bytes and names, every setting of
    `data`, the seed, the tokenizer and the template, and the code that prepares them."""
    depends_on = {
        "files": [(file.split, file.label, sha256_of(file.path)) for file in files],
        "data": data.model_dump(mode="json"),
        "seed": seed,
        "tokenizer": [text.name, tokenizer_hash, text.encoder.eos_id, text.encoder.bos_id],
        "template": text.template.to_record(),
        "special_tokens": text.chat.special_tokens if text.chat else None,
        "context_length": text.context_length,
        "code": [*map(sha256_of, sorted(Path(__file__).parent.rglob("*.py")))],
        "libraries": [importlib.metadata.version(name) for name in _LIBRARIES],
    }
    return hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_prepared(folder: Path, data: PreparedData, key: str) -> None:
    """Complete a folder in which prepare_data has put rows and tokens. Raises OSError."""
    report = json.dumps(data.report.to_record(), ensure_ascii=False)
    (folder / "report.json").write_text(report, encoding="utf-8")
    for name, split in data.splits.items():
        np.savez(folder / f"{name}.npz", **_arrays(split.examples, split.tokens))
    names = ["report.json", *(f"{name}.npz" for name in data.splits), *_KEPT]
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()  # what only the split and the audit needed
    record = {"key": key, "files": {name: sha256_of(folder / name) for name in names}}
    (folder / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def load_prepared(folder: Path, key: str) -> PreparedData | None:
    """What save_prepared has left there, or None where it is not there, or not whole."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        intact = record["key"] == key and all(
            sha256_of(folder / Path(name).name) == expected
            for name, expected in record["files"].items()
        )
        if not intact:
            return None
        os.utime(folder / _RECORD)  # used just now
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        splits = {name: _split(folder, name) for name in ("train", "val", "test")}
        return PreparedData(**splits, report=DataReport.from_record(report))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        return None


def clear_oldest(root: Path, most_bytes: int = MOST_BYTES) -> None:
    """Remove the sets in a folder that were not used for longest, until the others fit. The newest
    stays; what a process that was killed left unfinished goes after a day."""
    now = time.time()
    for unfinished in root.glob(".preparing-*"):
        if now - unfinished.stat().st_mtime > _A_DAY_S:
            shutil.rmtree(unfinished, ignore_errors=True)
    sets = [(path.stat().st_mtime_ns, path.parent) for path in root.glob(f"*/{_RECORD}")]
    used = 0
    for place, (_, folder) in enumerate(sorted(sets, reverse=True)):
        used += sum(path.stat().st_size for path in folder.iterdir())
        if place and used > most_bytes:
            shutil.rmtree(folder, ignore_errors=True)


def _arrays(examples: Sequence[Example], tokens: Sequence[Tokens]) -> dict[str, Any]:
    """Where the rows of one split lie; nothing for a split without rows."""
    if not isinstance(examples, StoredExamples) or not isinstance(tokens, StoredTokens):
        return {}
    return {
        "line_starts": examples.starts,
        "line_sizes": examples.sizes,
        "rows": examples.rows,
        "is_chat": examples.is_chat,
        "id_starts": tokens.example_ids.starts,
        "id_sizes": tokens.example_ids.sizes,
        "token_starts": tokens.starts,
        **{name: getattr(tokens.counts, name) for name in _COUNTS},
    }


def _split(folder: Path, name: str) -> EncodedSplit:
    with np.load(folder / f"{name}.npz") as stored:
        arrays: Mapping[str, Any] = dict(stored)
    if not arrays:
        return EncodedSplit((), ())
    lines, tokens, ids = (folder / kept for kept in _KEPT)
    examples = StoredExamples(
        Pieces(lines), *(arrays[key] for key in ("line_starts", "line_sizes", "rows", "is_chat"))
    )
    example_ids = StoredTexts(Pieces(ids), arrays["id_starts"], arrays["id_sizes"])
    counts = TokenCounts(*(arrays[key] for key in _COUNTS))
    return EncodedSplit(examples, StoredTokens(tokens, example_ids, arrays["token_starts"], counts))
