"""Comparison → tables for the terminal and as Markdown. What models and data say is untrusted."""

from __future__ import annotations

import math
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from honing.evaluation.record import Estimate, Evaluation
from honing.report.comparison import Comparison, Difference, MetricLine, RunInfo, Sample
from honing.report.lead import against_floor
from honing.report.markdown import block, cell, escape
from honing.report.names import METRICS, TAGS, metric_name, name_of
from honing.report.page import show_value
from honing.report.texts import number, p_value
from honing.report.words import show_hidden

WIDTH = 110
LONGEST_HEAD = 12
NUM_SAMPLES = 3
"""Samples of each kind in the Markdown; the page has all."""
LONGEST_SHOWN = 400
"""Characters of a text in the Markdown before the rest is left to the page."""

HEADER = ("metric", "base", "tuned", "difference [95 % interval]", "p (Holm)", "verdict")
_SHORT_FLOORS = {
    "copy the input": "copy",
    "a random other reference": "random",
    "nearest training row": "nearest",
}

_FLOOR_LEGEND = (
    "Best floor: what can be had without a model (copy the input; random other reference; nearest "
    "training row). The interval of the model's own score lies above (>), below (<) or around it "
    "(≈)."
)
_PLAIN = str.maketrans("−≈", "-~")
"""What a pipe on Korean Windows cannot show, where a lost minus would be a lie."""

_SIGNS = {"above": ">", "below": "<", "open": "≈"}

Row = tuple[str, ...]


def format_terminal(comparison: Comparison) -> str:
    """A table for each run against its base, and one for each two runs; then what to know."""
    parts = []
    for table in comparison.tables:
        title = [f"{_one_line(table.run.name)} against its base", *_facts(table.run)]
        parts.append([*title, "", *_terminal_tables(table.lines, HEADER)])
    for pair in comparison.pairs:
        before, after = _one_line(pair.before), _one_line(pair.after)
        title = [f"{after} against {before}", _rows(pair.num_rows, pair.num_groups)]
        header = (HEADER[0], _cut(before), _cut(after), *HEADER[3:])
        parts.append([*title, "", *_terminal_tables(pair.lines, header)])
    for spread in comparison.seed_spreads:
        rows = [("metric", "lowest", "mean", "highest"), *_spread_rows(spread.metrics)]
        names = ", ".join(map(_one_line, spread.runs))
        parts.append([*_wrapped(f"Only the seed differs: {names}"), "", *_aligned(rows)])
    lines = [line for table in comparison.tables for line in table.lines]
    parts.append(list(_wrapped_all(_how_counted({line.name: line.signature for line in lines}))))
    parts.append(list(_wrapped_all([*_notes(comparison), _tests(comparison)])))
    return "\n\n".join("\n".join(part) for part in parts if part).translate(_PLAIN)


def format_evaluation(evaluation: Evaluation) -> str:
    """The scores of one model or file alone."""
    rows = [("metric", "score", "95 % interval", "best floor")]
    for name, metric in evaluation.metrics.items():
        scores = {floor: given[name] for floor, given in evaluation.floors.items() if name in given}
        decimals = metric_name(name, metric.unit).decimals
        rows.append(
            (
                _label(name, metric.unit, metric.signature),
                number(metric.estimate.score, decimals),
                _interval(metric.estimate.interval, decimals, signed=False),
                _best_floor(metric.estimate, scores, decimals),
            )
        )
    data = evaluation.data
    facts = _rows(len(evaluation.predictions), len({row.group for row in evaluation.predictions}))
    title = f"{_one_line(str(data.get('split', '')))}: {facts}"
    signatures = {name: metric.signature for name, metric in evaluation.metrics.items()}
    of_rows = data.get("notes")
    notes = [*(of_rows if isinstance(of_rows, list) else []), *evaluation.warnings]
    below = [
        *(_wrapped(_FLOOR_LEGEND) if any(row[-1] for row in rows[1:]) else []),
        "",
        *_wrapped_all(_how_counted(signatures)),
        *_wrapped_all(f"note: {show_hidden(str(note))}" for note in notes),
    ]
    return "\n".join([title, "", *_aligned(rows), *below]).translate(_PLAIN)


# --- on the terminal


def _terminal_tables(lines: Sequence[MetricLine], header: Row) -> Iterator[str]:
    has_floors = any(line.floors for line in lines)
    rows = [(*header, "best floor") if has_floors else header]
    for line in lines:
        decimals = metric_name(line.name, line.unit).decimals
        floor = _best_floor(line.all_rows.after, line.floors, decimals)
        rows.append((*_cells(line, line.all_rows), *([floor] if has_floors else [])))
    yield from _aligned(rows)
    if has_floors:
        yield from _wrapped(_FLOOR_LEGEND)
    yield from _wrapped_all(_what_would_have_shown([(line, line.all_rows) for line in lines]))
    clean = [(line, line.clean) for line in lines if line.clean is not None]
    if clean:
        yield ""
        yield "On the rows without a twin in training:"
        yield from _aligned([header, *(_cells(line, given) for line, given in clean)])
        yield from _wrapped_all(_what_would_have_shown(clean))


def _cells(line: MetricLine, given: Difference) -> Row:
    decimals = metric_name(line.name, line.unit).decimals
    difference = number(given.difference, decimals, signed=True)
    interval = _interval(given.interval, decimals, signed=True)
    return (
        _label(line.name, line.unit, line.signature),
        number(given.before.score, decimals),
        number(given.after.score, decimals),
        f"{difference} {interval}".rstrip(),
        "–" if given.p_holm is None else p_value(given.p_holm),
        given.verdict,
    )


def _interval(ends: tuple[float, float] | None, decimals: int, *, signed: bool) -> str:
    if ends is None:
        return ""
    low, high = (number(end, decimals, signed=signed) for end in ends)
    return f"[{low}, {high}]"


def _label(name: str, unit: str, signature: str) -> str:
    """Name and tokenizer: BLEU (ko-mecab). A name that is no phrase for a table is its key."""
    known = METRICS.get(name)
    spoken = known is not None and known.family == "likeness"
    if not spoken:
        return _one_line(name).replace("_", " ")
    label = metric_name(name, unit).label.en
    tokens = re.search(r"\btok:(\D[^|]*?)(?:-\d[^|]*)?(?:\||$)", signature)
    return f"{label} ({tokens[1]})" if tokens else label


def _best_floor(estimate: Estimate, floors: Mapping[str, float], decimals: int) -> str:
    """Where the model stands to it, its score, and its name."""
    known = [(score, floor) for floor, score in floors.items() if math.isfinite(score)]
    if not known:
        return ""
    score, floor = max(known)
    sign = _SIGNS[against_floor(estimate, score)]
    return f"{sign} {number(score, decimals)} {_SHORT_FLOORS.get(floor, show_hidden(floor))}"


def _what_would_have_shown(lines: Sequence[tuple[MetricLine, Difference]]) -> list[str]:
    """The smallest detectable differences of what is not distinguishable."""
    said = [
        f"{metric_name(line.name, line.unit).label.en} "
        f"{number(given.smallest_detectable, metric_name(line.name, line.unit).decimals)}"
        for line, given in lines
        if given.verdict == "not distinguishable" and given.smallest_detectable is not None
    ]
    head = "Not distinguishable; with so many rows a difference would have shown from about: "
    return [head + "; ".join(said)] if said else []


def _aligned(rows: Sequence[Row]) -> list[str]:
    """Columns under each other: the first and words to the left, numbers to the right."""
    widths = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    left = {0} | {
        column
        for column, name in enumerate(rows[0])
        if name in ("verdict", "best floor", HEADER[3])
    }
    lines = [
        "  ".join(
            _pad(text, width, left=column in left)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "─" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]]


def _pad(text: str, width: int, *, left: bool) -> str:
    space = " " * (width - _width(text))
    return text + space if left else space + text


def _width(text: str) -> int:
    """Columns of a terminal: Hangul takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _cut(name: str) -> str:
    """A run's name as the head of a column."""
    return name if len(name) <= LONGEST_HEAD else name[: LONGEST_HEAD - 1] + "…"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _wrapped_all(texts: Sequence[str] | Iterator[str]) -> Iterator[str]:
    for text in texts:
        yield from _wrapped(text)


# --- what both say


def _facts(run: RunInfo) -> list[str]:
    rows = f"{_one_line(run.split)} split: {_rows(run.num_rows, run.num_groups)}"
    leaks = f"; {run.num_leaked:,} rows have a twin in training" if run.num_leaked else ""
    base = _one_line(run.base).rpartition("/")[2]
    return [*_wrapped(f"{_one_line(run.checkpoint)} on {base}"), rows + leaks]


def _one_line(text: str) -> str:
    return " ".join(show_hidden(text).split())


def _rows(num_rows: int, num_groups: int) -> str:
    return f"{num_rows:,} rows in {num_groups:,} groups of near-duplicates"


def _how_counted(signatures: Mapping[str, str]) -> list[str]:
    """Signatures of likeness and loss; metrics with one signature share a line."""
    names: dict[str, list[str]] = {}
    for name, signature in signatures.items():
        known = METRICS.get(name)
        if known is None or known.family in ("likeness", "prediction"):
            label = metric_name(name, "").label.en
            names.setdefault(show_hidden(signature), []).append(label)
    return [f"{', '.join(labels)}: {signature}" for signature, labels in names.items()]


def _notes(comparison: Comparison) -> list[str]:
    """Of the comparison, and of its runs: each once, with the runs that it is about."""
    of_runs: dict[str, list[str]] = {}
    for table in comparison.tables:
        for warning in dict.fromkeys(table.run.warnings):
            of_runs.setdefault(warning, []).append(table.run.name)
    said = [*comparison.notes]
    for warning, names in of_runs.items():
        of_all = len(names) == len(comparison.tables)
        said.append(warning if of_all else f"{', '.join(names)}: {warning}")
    return [f"note: {show_hidden(note)}" for note in dict.fromkeys(said)]


def _tests(comparison: Comparison) -> str:
    made = comparison.made_with
    return (
        "Intervals and p-values: paired bootstrap over groups of rows, BCa, "
        f"{made.get('num_resamples')} resamples, seed {made.get('seed')}; {comparison.num_tests} "
        "tests corrected together (Holm)"
    )


def _spread_rows(metrics: Mapping[str, tuple[float, float, float]]) -> list[Row]:
    rows = []
    for name, values in metrics.items():
        known = metric_name(name, "0–100")
        rows.append((known.label.en, *(number(value, known.decimals) for value in values)))
    return rows


# --- as Markdown


def format_markdown(comparison: Comparison) -> str:
    """All tables, what differs between runs, some samples, and how each number was made."""
    names = ", ".join(escape(table.run.name) for table in comparison.tables)
    parts = [f"# {names}: did it get better?"]
    for table in comparison.tables:
        facts = [escape(fact) for fact in _facts(table.run)]
        parts += [f"## {escape(table.run.name)} against its base", *facts]
        parts += _markdown_tables(table.lines, HEADER)
    for pair in comparison.pairs:
        before, after = escape(pair.before), escape(pair.after)
        parts += [f"## {after} against {before}", _rows(pair.num_rows, pair.num_groups)]
        parts += _markdown_tables(pair.lines, (HEADER[0], before, after, *HEADER[3:]))
    for spread in comparison.seed_spreads:
        rows = [("metric", "lowest", "mean", "highest"), *_spread_rows(spread.metrics)]
        runs = ", ".join(escape(name) for name in spread.runs)
        parts += ["## The seed alone", f"Only the seed differs: {runs}", _markdown_table(rows)]
    parts += _markdown_configs(comparison)
    notes = [escape(note.removeprefix("note: ")) for note in _notes(comparison)]
    parts += ["## Before you trust this", "\n".join(f"- {note}" for note in notes)]
    parts += _markdown_samples(comparison)
    parts += ["## How each number was made", _tests(comparison) + ".", _signatures(comparison)]
    made = ", ".join(f"{escape(key)} {escape(str(v))}" for key, v in comparison.made_with.items())
    return "\n\n".join([*parts, f"Made with: {made}."]) + "\n"


def _markdown_tables(lines: Sequence[MetricLine], header: Row) -> list[str]:
    has_floors = any(line.floors for line in lines)
    rows = [(*header, "would show from", *(("best floor",) if has_floors else ()))]
    for line in lines:
        decimals = metric_name(line.name, line.unit).decimals
        floor = escape(_best_floor(line.all_rows.after, line.floors, decimals))
        rows.append((*_markdown_cells(line, line.all_rows), *([floor] if has_floors else [])))
    parts = [_markdown_table(rows), *([escape(_FLOOR_LEGEND)] if has_floors else [])]
    clean = [(line, line.clean) for line in lines if line.clean is not None]
    if clean:
        rows = [(*header, "would show from"), *(_markdown_cells(*one) for one in clean)]
        parts += ["On the rows without a twin in training:", _markdown_table(rows)]
    return parts


def _markdown_cells(line: MetricLine, given: Difference) -> Row:
    label, *numbers, verdict = _cells(line, given)
    least = math.nan if given.smallest_detectable is None else given.smallest_detectable
    shown = number(least, metric_name(line.name, line.unit).decimals)
    said = f"**{verdict}**" if verdict in ("better", "worse") else verdict
    return (escape(label), *numbers, said, shown)


def _markdown_table(rows: Sequence[Row]) -> str:
    left = ("metric", "verdict", "best floor", "setting", "counted by")
    rule = " | ".join("---" if name in left else "---:" for name in rows[0])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"| {rule} |", *lines[1:]])


def _markdown_configs(comparison: Comparison) -> list[str]:
    if not comparison.config_differences:
        return []
    names = [table.run.name for table in comparison.tables]
    rows: list[Row] = [("setting", *(escape(name) for name in names))]
    for key, values in comparison.config_differences.items():
        shown = [cell(show_value(values[name])) if name in values else "–" for name in names]
        rows.append((cell(key), *shown))
    return ["## What differs between the runs", _markdown_table(rows)]


def _markdown_samples(comparison: Comparison) -> list[str]:
    parts = []
    for tag in ("best", "worst", "random"):
        found = [sample for sample in comparison.samples if tag in sample.tags]
        order = sorted(found, key=lambda sample: _rank(sample, tag))[:NUM_SAMPLES]
        if order:
            parts.append(f"### {name_of(TAGS, tag, 'en').capitalize()}")
        for sample in order:
            gain = f", chrF {number(sample.gain, 1, signed=True)}"
            parts += [f"{cell(sample.id)}{'' if math.isnan(sample.gain) else gain}"]
            parts += ["Prompt:", _quoted(sample.prompt), "Reference:", _quoted(sample.reference)]
            for name, answer in sample.answers.items():
                parts += [f"{escape(name)}:", _quoted(answer.text)]
    return ["## Samples", *parts] if parts else []


def _rank(sample: Sample, tag: str) -> float:
    """The draw stays in its order."""
    return {"best": -sample.gain, "worst": sample.gain}.get(tag, 0.0)


def _quoted(text: str) -> str:
    if len(text) <= LONGEST_SHOWN:
        return block(text)
    return block(f"{text[:LONGEST_SHOWN]}\n… {len(text):,} characters in all")


def _signatures(comparison: Comparison) -> str:
    rows: dict[Row, None] = {}
    for table in comparison.tables:
        own = {line.name: line.signature for line in table.lines} | dict(
            table.run.figure_signatures
        )
        rows |= dict.fromkeys((cell(name), cell(signature)) for name, signature in own.items())
    return _markdown_table([("metric", "counted by"), *rows])
