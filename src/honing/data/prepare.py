"""The whole way of the data: rows → examples → prompts → tokens, split, audited and reported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from honing.config import DataConfig, SplitFiles
from honing.data.audit import LeakAudit, audit_leaks
from honing.data.encode import Tokens, TooLong, encode_prompts
from honing.data.example import Example
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
from honing.data.text_model import TextModel
from honing.errors import UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class EncodedSplit:
    """Examples and their tokens, side by side."""

    examples: tuple[Example, ...]
    tokens: tuple[Tokens, ...]


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
    """The splits on their way, with what has been said about them so far."""

    splits: Mapping[str, EncodedSplit]
    num_groups: int | None
    dealt_at_random: bool
    notes: tuple[str, ...]


def prepare_data(data: DataConfig, seed: int, text: TextModel) -> PreparedData:
    """Read, check, encode, split and audit the rows of a configuration.

    Raises UserError where the rows cannot be read, none is usable, nothing would be learnt, a
    split that was asked for would be empty, or rows leak and data.on_leak is "error".
    """
    if text.context_length is not None and data.max_length > text.context_length:
        raise UserError(
            f"data.max_length: {data.max_length}, but {text.name} knows only "
            f"{text.context_length} positions; set data.max_length={text.context_length} or less"
        )
    read = read_rows(data)
    encoded: dict[str, EncodedSplit] = {}
    dropped = [row for rows in read.values() for row in rows.dropped]
    for name, rows in read.items():
        encoded[name], too_long = encode_examples(rows.examples, data, text)
        dropped += too_long
        _check_not_empty(name, encoded[name], rows, data.max_length)
    parts = _split(encoded, data, seed)
    parts = _slice_train(parts, data.max_rows, seed)
    audits = {
        name: audit_leaks(parts.splits["train"].examples, parts.splits[name].examples)
        for name in ("val", "test")
        if parts.splits[name].examples
    }
    parts = _treat_leaks(parts, audits, data.on_leak)
    _check_learnable(parts.splits["train"], text)
    report = _report(data, text, read, dropped, parts, audits)
    return PreparedData(**parts.splits, report=report)


def read_rows(data: DataConfig) -> dict[str, ReadRows]:
    """The rows of data.source, under "all", or under the user's own splits."""
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
    source: SourceSpec
    if isinstance(data.source, SplitFiles):
        source = {k: v for k, v in data.source.model_dump().items() if v is not None}
    else:
        source = data.source
    columns = data.columns.model_dump(exclude_none=True) if data.columns else None
    return read_source(source, columns=columns, encoding=data.encoding, group_by=data.group_by)


def encode_examples(
    examples: Sequence[Example], data: DataConfig, text: TextModel
) -> tuple[EncodedSplit, list[DroppedRow]]:
    """Encode; a chat that is too long loses its oldest turns first. Too long even so: dropped."""
    kept: list[tuple[Example, Tokens]] = []
    dropped: list[DroppedRow] = []
    waiting = [(example, example) for example in examples]
    while waiting:
        prompts = [text.to_prompt(example, data.supervise) for example, _ in waiting]
        encoded = encode_prompts(prompts, text.encoder, data.max_length)
        again = []
        for (example, whole), tokens in zip(waiting, encoded, strict=True):
            was_cut = isinstance(tokens, TooLong) or tokens.num_cut > 0
            if was_cut and len(example.exchanges) > 1:
                again.append((example.without_oldest_exchange(), whole))
            elif isinstance(tokens, TooLong):
                reason = f"answer does not fit into {data.max_length} tokens"
                dropped.append(DroppedRow(whole.id, whole.row, reason))
            else:
                if example is not whole:
                    lost = _num_tokens(whole, data, text) - len(tokens.ids)
                    tokens = replace(tokens, num_cut=lost)
                kept.append((whole, tokens))
        waiting = again
    order = {example.id: place for place, example in enumerate(examples)}
    kept.sort(key=lambda pair: order[pair[0].id])
    return EncodedSplit(tuple(e for e, _ in kept), tuple(t for _, t in kept)), dropped


def _num_tokens(example: Example, data: DataConfig, text: TextModel) -> int:
    prompt = text.to_prompt(example, data.supervise)
    (tokens,) = encode_prompts([prompt], text.encoder, max_length=1 << 30)
    assert isinstance(tokens, Tokens)
    return len(tokens.ids)


def _check_not_empty(name: str, split: EncodedSplit, rows: ReadRows, max_length: int) -> None:
    if not split.tokens:
        where = "data.source" if name == "all" else f"data.source ({name})"
        raise UserError(
            f"{where}: none of {rows.num_rows} rows can be used, since no answer fits into "
            f"{max_length} tokens; raise data.max_length"
        )


def _split(encoded: Mapping[str, EncodedSplit], data: DataConfig, seed: int) -> _Parts:
    if "all" not in encoded:
        empty = EncodedSplit((), ())
        return _Parts({name: encoded.get(name, empty) for name in SPLITS}, None, False, ())
    rows = encoded["all"]
    split = split_examples(
        rows.examples,
        how=data.split,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=seed,
    )
    places = {"train": split.train, "val": split.val, "test": split.test}
    at_random = data.split == "random"
    return _Parts(
        splits={name: _take(rows, p) for name, p in places.items()},
        num_groups=None if at_random else split.num_groups,
        dealt_at_random=at_random,
        notes=split.notes,
    )


def _take(rows: EncodedSplit, places: Sequence[int]) -> EncodedSplit:
    return EncodedSplit(
        tuple(rows.examples[place] for place in places),
        tuple(rows.tokens[place] for place in places),
    )


def _slice_train(parts: _Parts, max_rows: int | None, seed: int) -> _Parts:
    """Learn from a seeded slice of the training rows, which stay in their order."""
    train = parts.splits["train"]
    num_rows = len(train.tokens)
    if max_rows is None or max_rows >= num_rows:
        return parts
    places = sorted(Random(seed).sample(range(num_rows), max_rows))
    note = f"learning from {max_rows:,} of {num_rows:,} training rows (data.max_rows)"
    splits = {**parts.splits, "train": _take(train, places)}
    return replace(parts, splits=splits, notes=(*parts.notes, note))


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
    splits = dict(parts.splits)
    notes = list(parts.notes)
    for name, ids in leaked.items():
        rows = splits[name]
        clean = [place for place, example in enumerate(rows.examples) if example.id not in ids]
        if not clean:
            raise UserError(
                f"data.on_leak: drop would leave no {name} row: all of {len(ids)} have a twin in "
                "train; use other held-out rows, or data.split=grouped over all rows together"
            )
        splits[name] = _take(rows, clean)
        notes.append(f"{len(ids):,} {name} rows with a twin in train were dropped (data.on_leak)")
    return replace(parts, splits=splits, notes=tuple(notes))


def _check_learnable(train: EncodedSplit, text: TextModel) -> None:
    if not any(row.num_supervised for row in train.tokens):
        raise UserError("data: no token of any training row would be learnt; check data.supervise")
    ends = text.end_ids()
    if not any(row.labels[-1] in ends for row in train.tokens):
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
            name: report_split(split.examples, split.tokens, ends)
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


def split_records(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """The lines of one of splits/*.jsonl, which honing can read again as a source.

    All of a file have the same columns: the chats' where there is one, as the reader asks for.
    """
    as_chats = any(len(example.exchanges) > 1 for example in examples)
    return [_as_chat(e) if as_chats else _as_columns(e) for e in examples]


def _as_columns(example: Example) -> dict[str, Any]:
    exchange = example.exchanges[0]
    return _names(example) | {
        **({"system": example.system} if example.system else {}),
        "instruction": exchange.instruction,
        "input": exchange.input,
        "output": exchange.output,
    }


def _as_chat(example: Example) -> dict[str, Any]:
    messages = [{"role": "system", "content": example.system}] if example.system else []
    for exchange in example.exchanges:
        question = "\n\n".join(part for part in (exchange.instruction, exchange.input) if part)
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": exchange.output})
    return _names(example) | {"messages": messages}


def _names(example: Example) -> dict[str, Any]:
    group = {} if example.group is None else {"group": example.group}
    return {"id": example.id, **group}
