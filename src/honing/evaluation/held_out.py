"""The held-out rows of a run: its own test or validation split, or a file of the user's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from honing.config import Config
from honing.data.audit import audit_leaks
from honing.data.example import Example
from honing.data.groups import group_rows
from honing.data.reading.read import read_source
from honing.errors import UserError
from honing.run import RunFolder


@dataclass(frozen=True)
class HeldOut:
    """Rows to evaluate on, and the training rows beside them.

    groups: for each row the number of its near-duplicate group, from 0. leaked: which rows have a
    twin in training. num_available: rows before the draw.
    """

    split: str
    examples: tuple[Example, ...]
    groups: tuple[int, ...]
    leaked: tuple[bool, ...]
    train: tuple[Example, ...]
    num_available: int
    notes: tuple[str, ...]

    @property
    def num_groups(self) -> int:
        return len(set(self.groups))


def load_held_out(run: RunFolder, config: Config) -> HeldOut:
    """The rows that config.evaluate asks for; a seeded draw where there are more than it wants.

    Raises UserError where the run has no such rows.
    """
    settings = config.evaluate
    train = _read_split(run, "train")
    if settings.source is not None:
        split, rows = Path(settings.source).name, _read_file(Path(settings.source).expanduser())
        leaked = frozenset(twin.held_out_id for twin in audit_leaks(train, rows).twins)
    else:
        split = _choose_split(run, settings.split)
        rows = _read_split(run, split)
        leaked = _leaked_ids(run, split)
    drawn = _draw(rows, settings.num_samples, config.seed)
    heads = group_rows(drawn).heads.tolist()
    number = {head: place for place, head in enumerate(dict.fromkeys(heads))}
    return HeldOut(
        split=split,
        examples=tuple(drawn),
        groups=tuple(number[head] for head in heads),
        leaked=tuple(example.id in leaked for example in drawn),
        train=tuple(train),
        num_available=len(rows),
        notes=_notes(split, settings.source is None),
    )


def _choose_split(run: RunFolder, wanted: str) -> str:
    there = [name for name in ("test", "val") if run.split_file(name).is_file()]
    if not there:
        raise UserError(
            f"{run.splits}: holds neither a test nor a validation split; name a file of held-out "
            "rows with evaluate.source=FILE"
        )
    if wanted != "auto" and wanted not in there:
        raise UserError(
            f"evaluate.split: {wanted}, but {run.splits} has no {wanted}.jsonl; "
            f"use evaluate.split={there[0]}"
        )
    return there[0] if wanted == "auto" else wanted


def _notes(split: str, is_own: bool) -> tuple[str, ...]:
    if is_own and split == "val":
        return ("the validation rows chose the checkpoint, so their scores flatter it a little",)
    return ()


def _draw(rows: Sequence[Example], number: int | None, seed: int) -> list[Example]:
    """A seeded draw, in the order of the rows."""
    if number is None or number >= len(rows):
        return list(rows)
    return [rows[place] for place in sorted(Random(seed).sample(range(len(rows)), number))]


def _read_file(path: Path) -> list[Example]:
    read = read_source(str(path), columns=None, encoding=None, group_by=None)
    if "all" not in read:
        raise UserError(f"evaluate.source: {path}: is a folder of splits; name one file")
    return list(read["all"].examples)


def _read_split(run: RunFolder, name: str) -> list[Example]:
    """One of splits/*.jsonl, with the ids that the rows had where they came from."""
    path = run.split_file(name)
    if not path.is_file():
        raise UserError(f"{path}: is missing; the rows of a run lie there: train again")
    read = read_source({"train": str(path)}, columns=None, encoding=None, group_by=None)["train"]
    ids = _original_ids(path)
    return [replace(example, id=ids.get(example.row, example.id)) for example in read.examples]


def _original_ids(path: Path) -> dict[int, str]:
    """Line number → the id in it."""
    ids = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            record: Any = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("id"), str):
                ids[number] = record["id"]
    return ids


def _leaked_ids(run: RunFolder, split: str) -> frozenset[str]:
    """What the audit found before the training."""
    try:
        report = json.loads(run.data_report.read_text(encoding="utf-8"))
        return frozenset(report["leaks"][split]["leaked_ids"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{run.data_report}: holds no leak audit of the {split} rows; it is missing or damaged"
        ) from None
