"""Comparisons with all that a page can show, hostile ones among them; and a reader of HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from html.parser import HTMLParser
from typing import Any

from honing.evaluation.record import Estimate
from honing.report.comparison import Comparison, Difference, MetricLine, RunTable
from honing.report.names import LEVELS, METRICS
from tests.report.made_up import made_up_comparison

HOSTILE = (
    "<script>document.title='pwned'</script>",
    "</style></script><img src=x onerror=\"document.title='pwned'\">",
    "<a href=\"javascript:document.title='pwned'\">누르기</a>",
    '<svg onload="document.title=\'pwned\'"><iframe src="http://127.0.0.1:9/x"></iframe>',
    "\"' onmouseover='document.title=1' style='position:fixed' x=\"",
    "--><![CDATA[ ]]> &lt;b&gt; {{ 7 * 7 }} {% raw %} ${1} \\u003cscript\\u003e",
    "\u202e거꾸로 \u2066안\u200b보임\x00\x1b[31m\ud800\u3164",
    "https://example.com/?a=1&b=2#c " + "긴 " * 600,
)


def full_comparison(num_runs: int = 1, *, leaked: bool = False) -> Comparison:
    """Made up, with all known metrics, speech levels, and data reports as training writes them."""
    made = made_up_comparison(num_runs=num_runs, num_rows=60, leaked=leaked)
    tables = tuple(_full_table(table, leaked) for table in made.tables)
    return replace(made, tables=tables, num_tests=sum(len(table.lines) for table in tables))


def _full_table(table: RunTable, leaked: bool) -> RunTable:
    known = {line.name: line for line in table.lines}
    lines = tuple(known.get(name) or _share_line(name, leaked) for name in METRICS)
    levels = dict(zip((f"speech_level_{level}" for level in LEVELS), (5, 80, 5, 5, 5), strict=True))
    data = {
        f"{prefix}_{name}": v for prefix in ("references", "training") for name, v in levels.items()
    }
    run = replace(
        table.run,
        figures_base={**table.run.figures_base, **levels, **data},
        figures_tuned={**table.run.figures_tuned, **levels, "references_distinct_1": 44.4, **data},
        figure_signatures={**table.run.figure_signatures, **dict.fromkeys(levels, "by endings")},
        data_report=DATA_REPORT,
        training=TRAINING,
        config={
            "seed": 42,
            "lora": {"rank": 8, "alpha": 16.0, "target_modules": ["q_proj"]},
            "data": {"source": "rows.jsonl", "template": "instruction", "max_length": 128},
            "train": {"epochs": 1, "learning_rate": 1e-3},
        },
    )
    return RunTable(run, lines)


def _share_line(name: str, leaked: bool) -> MetricLine:
    difference = Difference(
        before=Estimate(40.0, (30.0, 50.0)),
        after=Estimate(42.0, (32.0, 52.0)),
        difference=2.0,
        interval=(-1.0, 5.0),
        p_value=0.2,
        p_holm=1.0,
        smallest_detectable=4.3,
        verdict="not distinguishable",
    )
    return MetricLine(
        name, f"{name}|made up", "higher", "0–100", difference, difference if leaked else None, {}
    )


DATA_REPORT: Mapping[str, Any] = {
    "source": "folder/rows.jsonl",
    "shape": "alpaca",
    "template": "instruction",
    "max_length": 128,
    "num_read": 1010,
    "num_kept": 1000,
    "dropped": {"answer does not fit into 128 tokens": {"num_rows": 10, "rows": ["rows.jsonl:3"]}},
    "splits": {
        "train": {
            "num_rows": 800,
            "share_supervised": 46.3,
            "share_ending_in_eos": 100.0,
            "num_cut_rows": 15,
            "length_percentiles": {"p50": 69, "p95": 110, "p100": 128},
        }
    },
    "leaks": {
        "val": {"num_rows": 100, "num_leaked": 0, "num_by_kind": {}, "examples": ()},
        "test": {
            "num_rows": 100,
            "num_leaked": 2,
            "num_by_kind": {"near-equal prompt": 2},
            "examples": (
                {
                    "held_out_id": "rows.jsonl:66",
                    "train_id": "rows.jsonl:133",
                    "kind": "near-equal prompt",
                    "similarity": 0.6,
                    "held_out_text": "해외여행 가고 싶어.",
                    "train_text": "해외여행 가고싶다",
                },
            ),
        },
    },
    "tokens_per_syllable": 2.788,
    "shown_rows": ({"id": "rows.jsonl:7", "text": "### Response:\n⟦조금만 더 버텨요.⟧"},),
    "notes": ("learning from 800 of 900 training rows",),
    "warnings": ("2 of 100 test rows have a twin in train",),
    "fingerprint": "9ef9b430b0845ad46f3449820e9dcae27dc8daa84a318575",
}
TRAINING: Mapping[str, Any] = {
    "num_steps": 60,
    "num_tokens": 68_988,
    "training_seconds": 499.4,
    "best_val_loss": 1.27,
    "trainable_parameters": 2_442_240,
    "total_parameters": 136_957_248,
}

# What chooses a code path of the page; everything else that is a text comes from outside.
_OURS = {"better", "unit", "verdict", "stopped", "tags"}


_OUR_KEYS = {"data_report", "training", "config", "figures_base", "figures_tuned", "kept_keys"}


def poisoned(value: Any, poison: Callable[[str], str], name: str = "") -> Any:
    """The same record with all texts from outside changed, run names alike wherever they stand."""
    if name in _OURS or (name == "curves"):
        return value
    if isinstance(value, str):
        return poison(value)
    if is_dataclass(value) and not isinstance(value, type):
        ours = {"name"} if isinstance(value, MetricLine) else set()  # or all would be unknown
        names = [f.name for f in fields(value) if f.name not in ours]
        return replace(value, **{n: poisoned(getattr(value, n), poison, n) for n in names})
    if isinstance(value, Mapping):
        keep_keys = name in _OUR_KEYS
        below = "kept_keys" if keep_keys else ""
        return {
            key if keep_keys or key == "base" else poison(key): poisoned(item, poison, below)
            for key, item in value.items()
        }
    if isinstance(value, tuple | list):
        return tuple(poisoned(item, poison, name) for item in value)
    return value


@dataclass
class Element:
    """One element of a page, with all text inside it."""

    tag: str
    attributes: dict[str, str]
    parents: tuple[str, ...]
    text: str = ""
    children: list[Element] = field(default_factory=list)


class Document(HTMLParser):
    """A page as its elements in order. Fails on a tag that is not closed where it has to be."""

    _VOID = frozenset({"meta", "input", "br", "hr", "img", "link"})

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(page)
        self.close()
        assert self._open == [], self._open[-1].tag

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        assert len(given) == len(attrs), f"an attribute of {tag} stands twice: {attrs}"
        element = Element(tag, given, tuple(above.tag for above in self._open))
        self.elements.append(element)
        if self._open:
            self._open[-1].children.append(element)
        if tag not in self._VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self._VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert [element.tag for element in self._open[-1:]] == [tag], f"</{tag}> closes nothing"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, style: str = "") -> list[Element]:
        """Elements of a tag, of a class where one is given."""
        return [
            element
            for element in self.elements
            if element.tag == tag
            and (not style or style in element.attributes.get("class", "").split())
        ]

    def text_of(self, tag: str, style: str = "") -> list[str]:
        return [" ".join(element.text.split()) for element in self.all(tag, style)]
