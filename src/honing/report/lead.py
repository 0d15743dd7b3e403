"""The answer first: what a comparison says, in plain sentences. What is not shown is not said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from honing.evaluation.record import Estimate
from honing.report.comparison import Comparison, Difference, MetricLine, RunInfo
from honing.report.names import FLOORS, MetricName, metric_name, name_of
from honing.report.texts import Wording, number

CHIEF = ("chrf", "perplexity")
"""Metrics that are spoken of one by one: one of the answers, one of the probabilities."""


@dataclass(frozen=True)
class Sentence:
    """A sentence whose verdict stands out. style: CSS class of the verdict."""

    text: Markup
    style: str


@dataclass(frozen=True)
class Lead:
    """What is said of one run: the chief metrics one by one, and then the rest."""

    name: str
    style: str
    main: tuple[Sentence, ...]
    more: tuple[str, ...]


_STYLES = {"better": "better", "worse": "worse", "different": "different"}


def lead_of_run(name: str, style: str, lines: Sequence[MetricLine], t: Wording) -> Lead:
    """A run against its base. name: empty where it is the only one."""
    chief = chief_lines(lines)
    main = [_sentence(line, t) for line in chief]
    rest = [line for line in lines if line not in chief]
    return Lead(name, style, tuple(main), tuple(_say_rest(rest, t)))


def lead_of_many(comparison: Comparison, t: Wording) -> Lead:
    """Which runs are better than their bases and than each other, by the chief metric alone."""
    chief = [(table.run.name, chief_lines(table.lines)[:1]) for table in comparison.tables]
    found = [(name, lines[0]) for name, lines in chief if lines]
    if not found:
        return Lead("", "run-0", (), ())
    metric = metric_name(found[0][1].name, found[0][1].unit).label.of(t.language)
    said: list[Sentence] = []

    def names(verdict: str) -> str:
        return ", ".join(name for name, line in found if line.all_rows.verdict == verdict)

    if better := names("better"):
        said.append(Sentence(t.markup("many_better", metric=metric, names=better), "better"))
    if worse := names("worse"):
        said.append(Sentence(t.markup("many_worse", metric=metric, names=worse), "worse"))
    if still_open := names("not distinguishable"):
        said.append(Sentence(t.markup("many_open", metric=metric, names=still_open), ""))
    return Lead("", "run-0", tuple([*said, *_say_pairs(comparison, t)]), ())


def _say_pairs(comparison: Comparison, t: Wording) -> list[Sentence]:
    """Pairs of runs that differ by the chief metric; the others only in sum."""
    said = []
    num_open = 0
    for pair in comparison.pairs:
        for line in chief_lines(pair.lines)[:1]:
            given = line.all_rows
            interval = _say_interval(given, metric_name(line.name, line.unit), t)
            after = t.with_particle(pair.after, "이/가")
            values = {"before": pair.before, "after": after, "interval": interval}
            num_open += given.verdict == "not distinguishable"
            if given.verdict == "better":
                said.append(Sentence(t.markup("pair_better", **values), "better"))
            elif given.verdict == "worse":
                said.append(Sentence(t.markup("pair_worse", **values), "worse"))
    if num_open:
        rest = t.markup("pairs_rest_open") if said else t.markup("pairs_open")
        said.append(Sentence(rest, ""))
    return said


def _sentence(line: MetricLine, t: Wording) -> Sentence:
    text, floor = say_line(line, t), _say_floor(line, t)
    whole = Markup("{} {}").format(text, floor) if floor else text
    return Sentence(whole, _STYLES.get(line.all_rows.verdict, ""))


def chief_lines(lines: Sequence[MetricLine]) -> list[MetricLine]:
    """The chief metrics that are there; where there is none, the first."""
    found = [line for name in CHIEF for line in lines if line.name == name]
    return found or list(lines[:1])


def say_line(line: MetricLine, t: Wording) -> Markup:
    """One metric's difference as a sentence with its interval and verdict."""
    name, given = metric_name(line.name, line.unit), line.all_rows
    label = _capital(name.label.of(t.language))
    before = number(given.before.score, name.decimals)
    after = number(given.after.score, name.decimals)
    if given.verdict == "no test":
        topic = t.with_particle(label, "은/는")
        after = t.with_particle(after, "이/가")
        return t.markup("is_untested", name=label, topic=topic, before=before, after=after)
    if given.verdict == "not distinguishable":
        return _say_open(name, given, label, before, after, t)
    amount = _amount(abs(given.difference), name, t)
    subject, target = t.with_particle(label, "이/가"), t.with_particle(after, "으로/로")
    change = (
        t("rose", name=subject, amount=amount, before=before, after=target)
        if given.difference >= 0
        else t("fell", name=subject, amount=amount, before=before, after=target)
    )
    interval = _say_interval(given, name, t)
    if given.verdict == "better":
        return t.markup("is_better", change=change, interval=interval)
    if given.verdict == "worse":
        return t.markup("is_worse", change=change, interval=interval)
    return t.markup("is_different", change=change, interval=interval)


def _say_open(
    name: MetricName, given: Difference, label: str, before: str, after: str, t: Wording
) -> Markup:
    low, high = given.interval or (float("nan"), float("nan"))
    sentence = t.markup(
        "is_open",
        name=label,
        topic=t.with_particle(label, "은/는"),
        before=before,
        after=t.with_particle(after, "이/가"),
        low=number(low, name.decimals),
        high=number(high, name.decimals),
    )
    if given.smallest_detectable is None:
        return sentence
    smallest = _amount(given.smallest_detectable, name, t)
    return Markup("{} {}").format(sentence, t("would_show", smallest=smallest))


def _capital(label: str) -> str:
    """As a sentence begins; a name such as chrF keeps its own letters."""
    return label[0].upper() + label[1:] if label.islower() else label


def _say_interval(given: Difference, name: MetricName, t: Wording) -> str:
    """Of the amount, so that 'fell by 4' stands beside '3 to 5'."""
    if given.interval is None:
        return ""
    low, high = given.interval
    if given.difference < 0:
        low, high = -high, -low
    return t("interval", low=number(low, name.decimals), high=number(high, name.decimals))


def _amount(value: float, name: MetricName, t: Wording) -> str:
    text = number(value, name.decimals)
    if name.unit == "points":
        return t("points", number=text)
    return t("percentage_points", number=text) if name.unit == "%" else text


def _say_floor(line: MetricLine, t: Wording) -> str:
    """Whether the tuned model beats the best of the floors; nothing where there is none."""
    if not line.floors:
        return ""
    floor, score = max(line.floors.items(), key=lambda item: item[1])
    values = {
        "floor": name_of(FLOORS, floor, t.language),
        "score": number(score, metric_name(line.name, line.unit).decimals),
    }
    against = against_floor(line.all_rows.after, score)
    if against == "above":
        return t("floor_above", **values)
    return t("floor_below", **values) if against == "below" else t("floor_open", **values)


def against_floor(estimate: Estimate, floor: float) -> str:
    """above, below or open: by the interval of the model's own score; a floor has none."""
    low, high = estimate.interval or (estimate.score, estimate.score)
    if low > floor:
        return "above"
    return "below" if high < floor else "open"


def _say_rest(lines: Sequence[MetricLine], t: Wording) -> list[str]:
    """Names of the other metrics by verdict; those that cannot be told apart only in sum."""

    def names(verdict: str) -> str:
        return ", ".join(
            metric_name(line.name, line.unit).label.of(t.language)
            for line in lines
            if line.all_rows.verdict == verdict
        )

    said = []
    if better := names("better"):
        said.append(t("also_better", names=better))
    if worse := names("worse"):
        said.append(t("also_worse", names=worse))
    if different := names("different"):
        said.append(t("also_different", names=different))
    if names("not distinguishable"):
        said.append(t("rest_open"))
    return [" ".join(said)] if said else []


def say_facts(runs: Sequence[RunInfo], t: Wording) -> str:
    """What was measured on: rows, groups, leaks; of each kind once."""
    said: list[str] = []
    for run in runs:
        text = t(
            "facts",
            rows=number(run.num_rows, 0),
            split=name_of_split(run.split, t),
            groups=number(run.num_groups, 0),
        )
        if run.num_leaked:
            text += t("facts_leaked", leaked=number(run.num_leaked, 0))
        if text not in said:
            said.append(text)
    return " / ".join(said)


def name_of_split(split: str, t: Wording) -> str:
    """test, val and train by their names in the language; a file by its own."""
    if split == "test":
        return t("split_test")
    if split == "val":
        return t("split_val")
    return t("split_train") if split == "train" else split
