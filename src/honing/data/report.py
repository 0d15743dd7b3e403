"""What was kept, cut and dropped, and what will be learnt from: the data report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from honing.data.audit import LeakAudit
from honing.data.compared import Compared
from honing.data.encode import IGNORE, TextEncoder, Tokens
from honing.data.example import Example
from honing.data.reading.read import DroppedRow
from honing.data.stored import counts_of
from honing.data.text_model import TextModel

PERCENTILES = (5, 25, 50, 75, 95, 100)
MANY_TOKENS_A_SYLLABLE = 2.0
_HANGUL_RUN = re.compile("[가-힣]+")
_MOST_RUNS = 5_000
_SHOWN_TWINS = 3
_SHOWN_ROW_NUMBERS = 20


@dataclass(frozen=True)
class SplitReport:
    """Counts over one split. Shares in %, lengths in tokens at the percentiles of PERCENTILES."""

    num_rows: int
    num_tokens: int
    num_supervised: int
    share_supervised: float
    share_ending_in_eos: float
    num_cut_rows: int
    cut_rows: tuple[str, ...]
    num_cut_tokens: int
    length_percentiles: dict[str, int]
    response_percentiles: dict[str, int]
    num_equal_rows: int
    num_equal_prompts: int


@dataclass(frozen=True)
class LeakReport:
    """Held-out rows of one split that have a twin in training."""

    num_rows: int
    num_leaked: int
    num_by_kind: dict[str, int]
    examples: tuple[dict[str, Any], ...]
    leaked_ids: tuple[str, ...]


@dataclass(frozen=True)
class ShownRow:
    """A row as the model sees it; what is learnt stands in ⟦ ⟧."""

    id: str
    text: str


@dataclass(frozen=True)
class DataReport:
    """All that is known of the data before training. warnings want action, notes do not."""

    source: str
    shape: str
    template: str
    supervise: str
    max_length: int
    tokenizer: str
    num_read: int
    num_kept: int
    dropped: dict[str, dict[str, Any]]
    repaired: dict[str, int]
    splits: dict[str, SplitReport]
    num_groups: int | None
    leaks: dict[str, LeakReport]
    tokens_per_syllable: float | None
    shown_rows: tuple[ShownRow, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    fingerprint: str

    def to_record(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> DataReport:
        """The report of which to_record, through JSON, made this."""
        splits = {
            name: SplitReport(**{**split, "cut_rows": tuple(split["cut_rows"])})
            for name, split in record["splits"].items()
        }
        leaks = {
            name: LeakReport(
                **{**leak, **{key: tuple(leak[key]) for key in ("examples", "leaked_ids")}}
            )
            for name, leak in record["leaks"].items()
        }
        shown = tuple(ShownRow(**row) for row in record["shown_rows"])
        said = {key: tuple(record[key]) for key in ("notes", "warnings")}
        return DataReport(
            **{**record, "splits": splits, "leaks": leaks, "shown_rows": shown, **said}
        )


def report_split(compared: Compared, rows: Sequence[Tokens], end_ids: Sequence[int]) -> SplitReport:
    """compared: of the same rows."""
    counts = counts_of(rows)
    num_tokens, num_supervised = int(counts.lengths.sum()), int(counts.num_supervised.sum())
    ending = int(np.isin(counts.last_labels, end_ids).sum())
    cut = np.flatnonzero(counts.num_cut)
    return SplitReport(
        num_rows=len(rows),
        num_tokens=num_tokens,
        num_supervised=num_supervised,
        share_supervised=_percent(num_supervised, num_tokens),
        share_ending_in_eos=_percent(ending, len(rows)),
        num_cut_rows=len(cut),
        cut_rows=tuple(rows[row].example_id for row in cut[:_SHOWN_ROW_NUMBERS].tolist()),
        num_cut_tokens=int(counts.num_cut.sum()),
        length_percentiles=percentiles(counts.lengths.tolist()),
        response_percentiles=percentiles(counts.num_supervised.tolist()),
        num_equal_rows=len(rows) - len(np.unique(compared.rows)),
        num_equal_prompts=len(rows) - len(np.unique(compared.prompts)),
    )


def report_dropped(dropped: Sequence[DroppedRow]) -> dict[str, dict[str, Any]]:
    """Rows left out, by reason: how many, and where the first are."""
    reasons: dict[str, list[str]] = {}
    for row in dropped:
        reasons.setdefault(row.reason, []).append(row.id)
    return {
        reason: {"num_rows": len(ids), "rows": ids[:_SHOWN_ROW_NUMBERS]}
        for reason, ids in sorted(reasons.items(), key=lambda item: -len(item[1]))
    }


def report_leaks(audit: LeakAudit) -> LeakReport:
    return LeakReport(
        num_rows=audit.num_rows,
        num_leaked=len(audit.twins),
        num_by_kind=audit.num_by_kind,
        examples=tuple(asdict(twin) for twin in audit.twins[:_SHOWN_TWINS]),
        leaked_ids=tuple(twin.held_out_id for twin in audit.twins),
    )


def percentiles(lengths: Sequence[int]) -> dict[str, int]:
    """Nearest-rank percentiles: each is a length that occurs."""
    ordered = sorted(lengths)
    return {f"p{p}": ordered[-(-p * len(ordered) // 100) - 1] for p in PERCENTILES if ordered}


def tokens_per_syllable(examples: Sequence[Example], encoder: TextEncoder) -> float | None:
    """Tokens that a Hangul syllable costs, over runs of Hangul alone; None where there are few."""
    runs: list[str] = []
    for example in examples:
        for text in (example.prompt_text, example.response_text):
            runs += _HANGUL_RUN.findall(text)
        if len(runs) >= _MOST_RUNS:
            break
    num_syllables = sum(map(len, runs))
    if num_syllables < 20:
        return None
    return sum(map(len, encoder.encode(runs, True))) / num_syllables


def show_row(row: Tokens, text: TextModel) -> ShownRow:
    """Decode a row span by span, with ⟦ ⟧ around what is learnt."""
    pieces: list[str] = []
    start = 0
    for end in range(1, len(row.ids) + 1):
        learnt = row.labels[start] != IGNORE
        if end == len(row.ids) or (row.labels[end] != IGNORE) != learnt:
            piece = text.decode(row.ids[start:end])
            pieces.append(f"⟦{piece}⟧" if learnt else piece)
            start = end
    return ShownRow(row.example_id, "".join(pieces))


def format_report(report: DataReport) -> str:
    """The report for a terminal."""
    lines = [
        f"Data: {report.source} ({report.shape})",
        f"  read {report.num_read:,} rows, kept {report.num_kept:,}, "
        f"dropped {report.num_read - report.num_kept:,}",
    ]
    for reason, rows in report.dropped.items():
        first = ", ".join(rows["rows"][:5]) + (" …" if rows["num_rows"] > 5 else "")
        lines.append(f"    {rows['num_rows']:,} × {reason}: {first}")
    if report.repaired:
        repaired = ", ".join(f"{kind} {count:,}" for kind, count in report.repaired.items())
        lines.append(f"  repaired: {repaired}")
    for name, split in report.splits.items():
        lines += _split_lines(name, split)
    if report.num_groups is not None:
        lines.append(f"  {report.num_groups:,} groups of rows that resemble each other")
    for name, leak in report.leaks.items():
        lines.append(
            f"  {name}: {leak.num_leaked:,} of {leak.num_rows:,} rows have a twin in train"
        )
    if report.tokens_per_syllable is not None:
        lines.append(f"  {report.tokens_per_syllable:.2f} tokens a Hangul syllable")
    lines += [f"  note: {note}" for note in report.notes]
    lines.append(f"Rows as the model sees them; ⟦ ⟧ is learnt (template {report.template}):")
    for row in report.shown_rows:
        lines.append(f"  {row.id}")
        lines += [f"  │ {line}" for line in row.text.split("\n")]
    lines += [f"WARNING: {warning}" for warning in report.warnings]
    return "\n".join(lines)


def _split_lines(name: str, split: SplitReport) -> list[str]:
    lengths, responses = split.length_percentiles, split.response_percentiles
    lines = [
        f"  {name}: {split.num_rows:,} rows, {split.num_tokens:,} tokens, "
        f"{split.share_supervised:.0f} % learnt from, {split.share_ending_in_eos:.0f} % end in EOS",
        f"    length in tokens: median {lengths['p50']}, 95 % up to {lengths['p95']}, "
        f"longest {lengths['p100']}; answers: median {responses['p50']}, "
        f"longest {responses['p100']}",
    ]
    if split.num_cut_rows:
        lines.append(
            f"    {split.num_cut_rows:,} rows cut by {split.num_cut_tokens:,} prompt tokens"
        )
    if split.num_equal_rows:
        lines.append(f"    {split.num_equal_rows:,} rows repeat another one exactly")
    return lines


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0
