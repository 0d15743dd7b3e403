"""Samples → what the page shows of each: texts as text, changed words marked, long ones folded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from markupsafe import Markup, escape

from honing.report.comparison import Answer, Comparison, Sample
from honing.report.names import STOPPED, TAGS, name_of
from honing.report.texts import Wording, number
from honing.report.words import Kind, mark_changes, show_hidden, split_hidden

FOLD = 400
FOLD_LINES = 8
"""Characters and lines of an answer that are shown before the rest is folded."""
_SLACK = 200
"""Fewer characters than these are not worth a fold."""
_REPEATS = 50.0

Span = tuple[int, int]
Parts = Sequence[tuple[Kind, str]]


@dataclass(frozen=True)
class Reply:
    """One text beside the others: the reference, the base's answer, a run's."""

    name: str
    style: str
    text: Markup
    how: str


@dataclass(frozen=True)
class SampleCard:
    """One held-out row."""

    id: str
    prompt: Markup
    gain: str
    gain_style: str
    tags: tuple[str, ...]
    labels: tuple[str, ...]
    replies: tuple[Reply, ...]


def sample_cards(comparison: Comparison, styles: Mapping[str, str], t: Wording) -> list[SampleCard]:
    """Best gains, worst losses, the random draw, then all others. styles: run → its CSS class."""
    ordered = sorted(comparison.samples, key=_order)
    return [_card(sample, styles, t) for sample in ordered]


def _order(sample: Sample) -> tuple[int, float]:
    """The best begins with the highest gain, the worst with the greatest loss."""
    gain = 0.0 if math.isnan(sample.gain) else sample.gain
    for place, (tag, sign) in enumerate((("best", -1.0), ("worst", 1.0), ("random", 0.0))):
        if tag in sample.tags:
            return place, sign * gain
    return 3, 0.0


def filters(comparison: Comparison, t: Wording) -> list[tuple[str, str, int]]:
    """Buttons above the samples: key, label, number of rows."""
    tags = [set(sample.tags) for sample in comparison.samples]
    shown = sum(bool(own & {"best", "worst", "random"}) for own in tags)
    return [
        ("selection", t("filter_selection"), shown),
        *(
            (tag, text.of(t.language), sum(tag in own for own in tags))
            for tag, text in TAGS.items()
        ),
        ("all", t("filter_all"), len(tags)),
    ]


def _card(sample: Sample, styles: Mapping[str, str], t: Wording) -> SampleCard:
    base = sample.answers.get("base")
    runs = {name: answer for name, answer in sample.answers.items() if name != "base"}
    replies = [Reply(t("reference"), "reference", said(sample.reference, {}, t), "")]
    changes: dict[str, Parts] = {}
    if base is not None:
        changes = {name: mark_changes(base.text, answer.text) for name, answer in runs.items()}
        only = next(iter(changes.values())) if len(changes) == 1 else []
        replies.append(_base_reply(base, only, sample.reference, t))
    for name, answer in runs.items():
        reply = _run_reply(name, answer, changes.get(name, []), sample.reference, t)
        replies.append(replace(reply, style=styles.get(name, "run-0")))
    gain = "" if math.isnan(sample.gain) else f"{number(sample.gain, 1, signed=True)} chrF"
    return SampleCard(
        id=sample.id,
        prompt=said(sample.prompt, {}, t),
        gain=gain,
        gain_style="better" if sample.gain > 0 else "worse" if sample.gain < 0 else "open",
        tags=sample.tags,
        labels=tuple(name_of(TAGS, tag, t.language) for tag in sample.tags),
        replies=tuple(replies),
    )


def _base_reply(base: Answer, change: Parts, reference: str, t: Wording) -> Reply:
    """With a single run, the base's words that it dropped are marked; with several they differ."""
    marks = {
        "b": _spans(change, "removed") if _share_words(change) else [],
        "r": _spans(mark_changes(reference, base.text), "added"),
    }
    return Reply(t("base"), "base", said(base.text, marks, t), _how(base, t))


def _run_reply(name: str, answer: Answer, change: Parts, reference: str, t: Wording) -> Reply:
    """change: from the base's answer to this one; without parts where there is no base."""
    kinds = {kind for kind, text in change if re.search(r"\w", text)}
    marks = {
        "b": _spans(change, "added") if _share_words(change) else [],
        "r": _spans(mark_changes(reference, answer.text), "added"),
    }
    how = _how(answer, t)
    if kinds == {"added", "removed"}:
        how += " · " + t("all_new")
    return Reply(name, "", said(answer.text, marks, t), how)


def _share_words(change: Parts) -> bool:
    """Whether a word stayed: marks on all of a text would tell nothing."""
    return any(kind == "same" and re.search(r"\w", text) for kind, text in change)


def _spans(change: Parts, kind: Kind) -> list[Span]:
    """Where the added parts stand in the text after, or the removed ones in the text before;
    without the space before them."""
    spans: list[Span] = []
    place = 0
    for part, text in change:
        if part == kind:
            spans.append((place + len(text) - len(text.lstrip()), place + len(text)))
        if part in ("same", kind):
            place += len(text)
    return spans


def _how(answer: Answer, t: Wording) -> str:
    score = t("reply_score", score=number(answer.score))
    parts = [score, name_of(STOPPED, answer.stopped, t.language)]
    if answer.repetition >= _REPEATS:
        parts.append(t("reply_repetition", share=number(answer.repetition, 0)))
    return " · ".join(parts)


def said(text: str, marks: Mapping[str, Sequence[Span]], t: Wording) -> Markup:
    """A text of a model or of the data as it is: escaped, hidden characters shown, and folded
    where it is long. marks: CSS class of a mark → where it stands."""
    if not text:
        return Markup('<div class="said nothing" dir="auto">{}</div>').format(t("nothing_said"))
    fold = _fold(text)
    if fold is None:
        return Markup('<div class="said" dir="auto">{}</div>').format(_marked(text, marks, 0))
    return Markup(
        '<div class="said" dir="auto"><details class="fold"><summary>{}'
        '<span class="more" data-more="{}"></span></summary>{}</details></div>'
    ).format(
        _marked(text[:fold], marks, 0),
        t("more", number=number(len(text), 0)),
        _marked(text[fold:], marks, fold),
    )


def _fold(text: str) -> int | None:
    """Where the folded part begins; None where nothing is folded."""
    lines = text.split("\n")
    place = len("\n".join(lines[:FOLD_LINES])) if len(lines) > FOLD_LINES + 2 else len(text)
    if place > FOLD and len(text) > FOLD + _SLACK:
        return FOLD
    return place if place < len(text) else None


def _marked(text: str, marks: Mapping[str, Sequence[Span]], offset: int) -> Markup:
    """A piece of a text that starts at offset, cut where marks begin and end."""
    spans = {
        style: [(max(0, a - offset), min(len(text), b - offset)) for a, b in places]
        for style, places in marks.items()
    }
    edges = {0, len(text)}
    edges.update(edge for places in spans.values() for a, b in places if a < b for edge in (a, b))
    pieces = []
    next_span = dict.fromkeys(spans, 0)
    for start, end in pairwise(sorted(edges)):
        styles = []
        for style, places in spans.items():
            while next_span[style] < len(places) and places[next_span[style]][1] <= start:
                next_span[style] += 1
            if next_span[style] < len(places) and places[next_span[style]][0] <= start:
                styles.append(style)
        shown = show_text(text[start:end])
        pieces.append(
            Markup('<mark class="{}">{}</mark>').format(" ".join(styles), shown)
            if styles
            else shown
        )
    return Markup("").join(pieces)


def show_text(text: str) -> Markup:
    """Escaped; characters that nobody would see stand as escapes in a box."""
    if show_hidden(text) == text:
        return escape(text)
    return Markup("").join(
        Markup('<span class="escape">{}</span>').format(piece) if is_hidden else piece
        for is_hidden, piece in split_hidden(text)
    )
