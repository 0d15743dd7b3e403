"""The whole way of the data: rows → examples → prompts → tokens, split, audited and reported."""

from __future__ import annotations

import gc
import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from honing.config import DataConfig, SplitFiles
from honing.data.audit import LeakAudit, audit_compared
from honing.data.compared import Compared, compare
from honing.data.encode import Tokens
from honing.data.encode_batches import encode_each
from honing.data.example import Example
from honing.data.groups import SignatureTable, groups_of
from honing.data.minhash import Ints
from honing.data.reading.read import DroppedRow, ReadRows, read_source
from honing.data.reading.source import SourceSpec
from honing.data.report import (
    MANY_TOKENS_A_SYLLABLE,
    DataReport,
    report_dropped,
    report_leaks,
    report_split,
    show_row,
    tokens_per_syllable,
)
from honing.data.sample import SAMPLE_SOURCES, sample_examples
from honing.data.split import split_examples
from honing.data.stored import counts_of, taken, token_writer
from honing.data.text_model import TextModel
from honing.errors import UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class EncodedSplit:
    """Examples and their tokens, side by side: tuples, or views of what lies on disk."""

    examples: Sequence[Example]
    tokens: Sequence[Tokens]


@dataclass(frozen=True)
class PreparedData:
    """Data that is ready for training. val and test may be empty."""

    train: EncodedSplit
    val: EncodedSplit
    test: EncodedSplit
    report: DataReport

    @property
    def splits(self) -> Mapping[str, EncodedSplit]:
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True)
class _Parts:
    """The splits on their way, with what has been said about them so far.

    compared: of all rows. places: which of them are whose.
    """

    splits: Mapping[str, EncodedSplit]
    compared: Compared
    places: Mapping[str, Ints]
    num_groups: int | None
    dealt_at_random: bool
    notes: tuple[str, ...]

    def with_rows(self, name: str, places: Sequence[int], note: str) -> _Parts:
        """One split with only the rows at some of its places."""
        rows = self.splits[name]
        fewer = EncodedSplit(taken(rows.examples, places), taken(rows.tokens, places))
        return replace(
            self,
            splits={**self.splits, name: fewer},
            places={**self.places, name: self.places[name][np.asarray(places, np.int64)]},
            notes=(*self.notes, note),
        )


def prepare_data(
    data: DataConfig, seed: int, text: TextModel, folder: Path | None = None
) -> PreparedData:
    """Read, check, encode, split and audit the rows of a configuration.

    folder: an empty one where rows and tokens lie afterwards, for data sets that are too large for
    memory; None keeps them in memory. The result is the same.
    Raises UserError where the rows cannot be read, none is usable, nothing would be learnt, a
    split that was asked for would be empty, or rows leak and data.on_leak is "error".
    """
    if text.context_length is not None and data.max_length > text.context_length:
        raise UserError(
            f"data.max_length: {data.max_length}, but {text.name} knows only "
            f"{text.context_length} positions; set data.max_length={text.context_length} or less"
        )
    read = read_rows(data, folder)
    encoded: dict[str, EncodedSplit] = {}
    dropped = [row for rows in read.values() for row in rows.dropped]
    for name, rows in read.items():
        encoded[name], too_long = encode_examples(rows.examples, data, text, folder)
        dropped += too_long
        _check_not_empty(name, encoded[name], rows, data.max_length)
    compared = compare(chain.from_iterable(rows.examples for rows in encoded.values()), folder)
    signatures = SignatureTable(folder)
    parts = _split(encoded, compared, signatures, data, seed)
    parts = _slice_train(parts, data.max_rows, seed)
    audits = {
        name: _audit(parts, name, signatures)
        for name in ("val", "test")
        if parts.splits[name].examples
    }
    parts = _treat_leaks(parts, audits, data.on_leak)
    _check_learnable(parts.splits["train"], text)
    report = _report(data, text, read, dropped, parts, audits)
    return PreparedData(**parts.splits, report=report)


def read_rows(data: DataConfig, folder: Path | None = None) -> dict[str, ReadRows]:
    """The rows of data.source, under "all", or under the user's own splits.

    folder: where the rows lie afterwards; None keeps them in memory.
    """
    if isinstance(data.source, str) and data.source in SAMPLE_SOURCES:
        examples = sample_examples(data.source)
        rows = ReadRows(
            examples=examples,
            num_rows=len(examples),
            dropped=(),
            repaired={},
            notes=(),
            shape="the bundled sample set",
            columns=("instruction", "input", "output", "group"),
        )
        return {"all": rows}
    columns = data.columns.model_dump(exclude_none=True) if data.columns else None
    return read_source(
        source_of(data),
        columns=columns,
        encoding=data.encoding,
        group_by=data.group_by,
        folder=folder,
    )


def source_of(data: DataConfig) -> SourceSpec:
    """data.source as the reader takes it."""
    if isinstance(data.source, SplitFiles):
        return {k: v for k, v in data.source.model_dump().items() if v is not None}
    return data.source


def encode_examples(
    examples: Sequence[Example], data: DataConfig, text: TextModel, folder: Path | None = None
) -> tuple[EncodedSplit, list[DroppedRow]]:
    """Encode; a chat that is too long loses its oldest turns first. Too long even so: dropped.

    folder: where the tokens lie afterwards; None keeps them in memory.
    """
    kept = array("q")
    dropped: list[DroppedRow] = []
    with closing(token_writer(folder)) as writer, _without_garbage_collection():
        encoded = encode_each(examples, text, data.supervise, data.max_length)
        for place, outcome in enumerate(encoded):
            if isinstance(outcome, Tokens):
                kept.append(place)
                writer.append(outcome)
            else:
                dropped.append(outcome)
        tokens = writer.finish()
    return EncodedSplit(taken(examples, kept), tokens), dropped


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Millions of small objects come and go, none in a circle; to look for circles among them
    takes a seventh of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _check_not_empty(name: str, split: EncodedSplit, rows: ReadRows, max_length: int) -> None:
    if not split.tokens:
        where = "data.source" if name == "all" else f"data.source ({name})"
        raise UserError(
            f"{where}: none of {rows.num_rows} rows can be used, since no answer fits into "
            f"{max_length} tokens; raise data.max_length"
        )


def _split(
    encoded: Mapping[str, EncodedSplit],
    compared: Compared,
    signatures: SignatureTable,
    data: DataConfig,
    seed: int,
) -> _Parts:
    if "all" not in encoded:
        empty = EncodedSplit((), ())
        splits = {name: encoded.get(name, empty) for name in SPLITS}
        ends = np.cumsum([len(rows.tokens) for rows in encoded.values()])
        blocks = np.split(np.arange(ends[-1]), ends[:-1])
        own = dict.fromkeys(SPLITS, np.arange(0)) | dict(zip(encoded, blocks, strict=True))
        return _Parts(splits, compared, own, None, False, ())
    rows = encoded["all"]
    at_random = data.split == "random"
    split = split_examples(
        rows.examples,
        how=data.split,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=seed,
        groups=None if at_random else groups_of(compared, signatures),
    )
    places = {"train": split.train, "val": split.val, "test": split.test}
    return _Parts(
        splits={
            name: EncodedSplit(taken(rows.examples, p), taken(rows.tokens, p))
            for name, p in places.items()
        },
        compared=compared,
        places={name: np.asarray(p, np.int64) for name, p in places.items()},
        num_groups=None if at_random else split.num_groups,
        dealt_at_random=at_random,
        notes=split.notes,
    )


def _slice_train(parts: _Parts, max_rows: int | None, seed: int) -> _Parts:
    """Learn from a seeded slice of the training rows, which stay in their order."""
    num_rows = len(parts.splits["train"].tokens)
    if max_rows is None or max_rows >= num_rows:
        return parts
    places = sorted(Random(seed).sample(range(num_rows), max_rows))
    note = f"learning from {max_rows:,} of {num_rows:,} training rows (data.max_rows)"
    return parts.with_rows("train", places, note)


def _audit(parts: _Parts, name: str, signatures: SignatureTable) -> LeakAudit:
    train, held_out = parts.splits["train"].examples, parts.splits[name].examples
    both = parts.compared.take(np.concatenate((parts.places["train"], parts.places[name])))
    return audit_compared(train, held_out, both, signatures)


def _treat_leaks(parts: _Parts, audits: Mapping[str, LeakAudit], on_leak: str) -> _Parts:
    leaked = {name: {twin.held_out_id for twin in a.twins} for name, a in audits.items()}
    leaked = {name: ids for name, ids in leaked.items() if ids}
    if not leaked or on_leak == "warn":
        return parts
    if on_leak == "error":
        counts = " and ".join(
            f"{len(ids)} of {audits[name].num_rows} {name} rows" for name, ids in leaked.items()
        )
        twin = next(iter(audits[next(iter(leaked))].twins))
        raise UserError(
            f"data.on_leak: {counts} have a twin in train ({twin.held_out_id} and "
            f"{twin.train_id}: {twin.kind}); {_remedy(parts.dealt_at_random)}"
        )
    for name, ids in leaked.items():
        rows = parts.splits[name]
        clean = [place for place, example in enumerate(rows.examples) if example.id not in ids]
        if not clean:
            raise UserError(
                f"data.on_leak: drop would leave no {name} row: all of {len(ids)} have a twin in "
                "train; use other held-out rows, or data.split=grouped over all rows together"
            )
        note = f"{len(ids):,} {name} rows with a twin in train were dropped (data.on_leak)"
        parts = parts.with_rows(name, clean, note)
    return parts


def _check_learnable(train: EncodedSplit, text: TextModel) -> None:
    counts = counts_of(train.tokens)
    if not counts.num_supervised.any():
        raise UserError("data: no token of any training row would be learnt; check data.supervise")
    if not np.isin(counts.last_labels, text.end_ids()).any():
        raise UserError(
            "data: no training row ends in an end token that is learnt, so answers would never "
            "stop; use another data.template"
        )


def _report(
    data: DataConfig,
    text: TextModel,
    read: Mapping[str, ReadRows],
    dropped: Sequence[DroppedRow],
    parts: _Parts,
    audits: Mapping[str, LeakAudit],
) -> DataReport:
    train = parts.splits["train"]
    ends = text.end_ids()
    per_syllable = tokens_per_syllable(train.examples, text.encoder)
    num_read = sum(rows.num_rows for rows in read.values())
    repaired: dict[str, int] = {}
    for rows in read.values():
        for kind, count in rows.repaired.items():
            repaired[kind] = repaired.get(kind, 0) + count
    source = data.source if isinstance(data.source, str) else json.dumps(_plain(data.source))
    return DataReport(
        source=source,
        shape=" and ".join(dict.fromkeys(rows.shape for rows in read.values())),
        template=text.template.name,
        supervise=data.supervise,
        max_length=data.max_length,
        tokenizer=text.name,
        num_read=num_read,
        num_kept=num_read - len(dropped),
        dropped=report_dropped(dropped),
        repaired=repaired,
        splits={
            name: report_split(parts.compared.take(parts.places[name]), split.tokens, ends)
            for name, split in parts.splits.items()
            if split.tokens
        },
        num_groups=parts.num_groups,
        leaks={name: report_leaks(audit) for name, audit in audits.items()},
        tokens_per_syllable=per_syllable,
        shown_rows=tuple(show_row(row, text) for row in train.tokens[:3]),
        notes=tuple(note for rows in read.values() for note in rows.notes) + parts.notes,
        warnings=_warnings(data, text, audits, _remedy(parts.dealt_at_random), per_syllable),
        fingerprint=fingerprint(parts.splits),
    )


def _plain(source: object) -> Any:
    return source.model_dump(exclude_none=True) if isinstance(source, SplitFiles) else source


def _remedy(dealt_at_random: bool) -> str:
    grouped = "data.split=grouped, or " if dealt_at_random else ""
    return f"use {grouped}data.on_leak=drop"


def _warnings(
    data: DataConfig,
    text: TextModel,
    audits: Mapping[str, LeakAudit],
    remedy: str,
    per_syllable: float | None,
) -> tuple[str, ...]:
    warnings = []
    for name, audit in audits.items():
        if not audit.twins or data.on_leak == "drop":
            continue
        twin = audit.twins[0]
        warnings.append(
            f"{len(audit.twins):,} of {audit.num_rows:,} {name} rows have a twin in train, so "
            f"their loss measures memory, not learning. For example {twin.held_out_id} and "
            f"{twin.train_id} ({twin.kind}): {_short(twin.held_out_text)} / "
            f"{_short(twin.train_text)}. {remedy}"
        )
    if per_syllable is not None and per_syllable > MANY_TOKENS_A_SYLLABLE:
        room = round((text.context_length or data.max_length) / per_syllable)
        whole = "its whole context holds" if text.context_length else "a row of this length holds"
        warnings.append(
            f"{text.name} needs {per_syllable:.1f} tokens for a Hangul syllable: training and "
            f"answers take that much longer, and {whole} about {room:,} "
            "syllables. A base that knows Korean needs under 1 (see configs/koalpaca.yaml)"
        )
    return tuple(warnings)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return f"'{text}'" if len(text) <= 40 else f"'{text[:39]}…'"


def fingerprint(splits: Mapping[str, EncodedSplit]) -> str:
    """SHA-256 over ids and labels of every split, in order: what a training really sees."""
    digest = hashlib.sha256()
    for name in SPLITS:
        digest.update(name.encode())
        for row in splits[name].tokens:
            digest.update(json.dumps([row.ids, row.labels]).encode())
    return digest.hexdigest()
