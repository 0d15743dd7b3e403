"""A run's data report → what the page shows of it. Older or foreign reports may lack any part."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from honing.report.comparison import RunInfo
from honing.report.lead import name_of_split
from honing.report.names import TWINS, name_of
from honing.report.remarks import say_remark
from honing.report.side_by_side import said, show_text
from honing.report.texts import Wording, number


@dataclass(frozen=True)
class Twin:
    """A held-out row and the training row that resembles it."""

    held_out_id: str
    held_out_text: Markup
    train_id: str
    train_text: Markup
    kind: str


@dataclass(frozen=True)
class LeakView:
    """The leak audit of one split."""

    sentence: str
    twins: tuple[Twin, ...]


@dataclass(frozen=True)
class DataView:
    """The data of one run, or of several that learnt from the same."""

    names: str
    facts: tuple[tuple[str, str], ...]
    split_columns: tuple[str, ...]
    splits: tuple[tuple[str, tuple[str, ...]], ...]
    leaks: tuple[LeakView, ...]
    shown_rows: tuple[tuple[str, Markup], ...]
    remarks: tuple[str, ...]


def data_views(runs: Sequence[RunInfo], t: Wording) -> list[DataView]:
    """One view for each different report."""
    seen: list[tuple[Mapping[str, Any], list[str]]] = []
    for run in runs:
        names = next((names for report, names in seen if report == run.data_report), None)
        if names is None:
            seen.append((run.data_report, [run.name]))
        else:
            names.append(run.name)
    return [_view(", ".join(names), report, t) for report, names in seen]


def _view(names: str, report: Mapping[str, Any], t: Wording) -> DataView:
    columns = ("rows", "learnt", "end_in_eos", "cut", "median_length", "length_95", "longest")
    return DataView(
        names=names,
        facts=tuple(_facts(report, t)),
        split_columns=(t("split"), *(_column(column, t) for column in columns)),
        splits=tuple(
            (name_of_split(name, t), _split_cells(split))
            for name, split in _mapping(report, "splits").items()
            if isinstance(split, Mapping)
        ),
        leaks=tuple(
            _leak(name_of_split(name, t), leak, t)
            for name, leak in _mapping(report, "leaks").items()
            if isinstance(leak, Mapping)
        ),
        shown_rows=tuple(
            (str(row.get("id", "")), _shown_row(str(row.get("text", ""))))
            for row in _records(report, "shown_rows")
        ),
        remarks=tuple(
            say_remark(str(remark), t.language)
            for key in ("warnings", "notes")
            for remark in _list(report, key)
        ),
    )


def _column(key: str, t: Wording) -> str:
    """A heading of the table of splits."""
    return {
        "rows": t("rows"),
        "learnt": t("learnt"),
        "end_in_eos": t("end_in_eos"),
        "cut": t("cut"),
        "median_length": t("median_length"),
        "length_95": t("length_95"),
        "longest": t("longest"),
    }[key]


def _facts(report: Mapping[str, Any], t: Wording) -> list[tuple[str, str]]:
    facts = [
        (label, str(report[key]))
        for key, label in (("source", t("source")), ("template", t("template")))
        if report.get(key)
    ]
    if isinstance(report.get("max_length"), int):
        facts.append((t("max_length"), t("tokens", number=number(report["max_length"], 0))))
    kept, read = report.get("num_kept"), report.get("num_read")
    if isinstance(kept, int) and isinstance(read, int):
        facts.append((t("kept"), t("of", part=number(kept, 0), whole=number(read, 0))))
    for reason, rows in _mapping(report, "dropped").items():
        if isinstance(rows, Mapping):
            said = say_remark(reason, t.language)
            facts.append((t("dropped"), f"{rows.get('num_rows', '?')} × {said}"))
    if isinstance(report.get("tokens_per_syllable"), float):
        facts.append((t("tokens_per_syllable"), number(report["tokens_per_syllable"], 2)))
    if report.get("fingerprint"):
        facts.append((t("fingerprint"), str(report["fingerprint"])[:16]))
    return facts


def _split_cells(split: Mapping[str, Any]) -> tuple[str, ...]:
    lengths = _mapping(split, "length_percentiles")
    return (
        _count(split.get("num_rows")),
        _share(split.get("share_supervised")),
        _share(split.get("share_ending_in_eos")),
        _count(split.get("num_cut_rows")),
        _count(lengths.get("p50")),
        _count(lengths.get("p95")),
        _count(lengths.get("p100")),
    )


def _leak(split: str, leak: Mapping[str, Any], t: Wording) -> LeakView:
    rows, leaked = _count(leak.get("num_rows")), _count(leak.get("num_leaked"))
    if not leak.get("num_leaked"):
        return LeakView(t("leak_none", split=split, rows=rows), ())
    kinds = (
        ", ".join(
            f"{name_of(TWINS, kind, t.language)} {n}"
            for kind, n in _mapping(leak, "num_by_kind").items()
        )
        or "?"
    )
    sentence = t("leak_some", split=split, leaked=leaked, rows=rows, kinds=kinds)
    twins = tuple(
        Twin(
            held_out_id=str(twin.get("held_out_id", "")),
            held_out_text=said(str(twin.get("held_out_text", "")), {}, t),
            train_id=str(twin.get("train_id", "")),
            train_text=said(str(twin.get("train_text", "")), {}, t),
            kind=name_of(TWINS, str(twin.get("kind", "")), t.language),
        )
        for twin in _records(leak, "examples")
    )
    return LeakView(sentence, twins)


def _shown_row(text: str) -> Markup:
    """A row with what is learnt, in ⟦ ⟧, set off."""
    pieces = re.split(r"(⟦.*?⟧)", text, flags=re.DOTALL)
    return Markup("").join(
        Markup("<b>{}</b>").format(show_text(piece)) if place % 2 else show_text(piece)
        for place, piece in enumerate(pieces)
    )


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _records(record: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [row for row in _list(record, key) if isinstance(row, Mapping)]


def _list(record: Mapping[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    return list(value) if isinstance(value, list | tuple) else []


def _count(value: Any) -> str:
    return number(value, 0) if isinstance(value, int | float) else "–"


def _share(value: Any) -> str:
    return f"{number(value, 0)} %" if isinstance(value, int | float) else "–"
