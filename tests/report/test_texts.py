"""Wording in both languages: complete, used, and right to the last sound."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

import honing.report
from honing.evaluation.record import Verdict
from honing.report import names
from honing.report.names import METRICS, Text, metric_name, name_of
from honing.report.texts import TEXTS, Wording, choose_particle, number, p_value

FOLDER = Path(honing.report.__file__).parent
SAME_IN_BOTH = {"reply_score", "percentage_points", "range"}
"""Texts without a word of either language."""


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def tables_of_names() -> dict[str, Mapping[str, Text]]:
    return {
        name: value
        for name, value in vars(names).items()
        if name.isupper() and name != "METRICS" and isinstance(value, Mapping)
    }


@pytest.mark.parametrize("key", TEXTS)
def test_each_text_is_there_in_both_languages(key: str) -> None:
    text = TEXTS[key]
    assert text.en.strip()
    assert bool(re.search("[가-힣]", text.ko)) != (key in SAME_IN_BOTH)
    assert not re.search("[가-힣]", text.en)
    # Korean takes a subject with its particle where English takes the bare name.
    replaced = {"name": "topic"} if "topic" in placeholders(text.ko) else {}
    english = {replaced.get(name, name) for name in placeholders(text.en)}
    assert english == placeholders(text.ko)
    assert text.en.endswith(".") == text.ko.endswith(".")
    assert re.findall("<[^>]*>", text.en) == re.findall("<[^>]*>", text.ko)


def test_every_text_is_used_and_no_other_is_asked_for() -> None:
    sources = [*FOLDER.glob("*.py"), *FOLDER.glob("*.html.j2")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    asked = set(re.findall(r"""\bt(?:\.markup)?\(\s*["'](\w+)["']""", code))
    assert asked == set(TEXTS)


def test_each_name_is_there_in_both_languages() -> None:
    tables = tables_of_names()
    assert {"FAMILIES", "VERDICTS", "FLOORS", "LEVELS", "STOPPED", "TAGS", "TWINS"} <= set(tables)
    texts = [text for table in tables.values() for text in table.values()]
    texts += [metric.label for metric in METRICS.values()]
    texts += [metric.meaning for metric in METRICS.values()]
    for text in texts:
        assert text.en
        assert text.ko
        assert text.en == text.ko or re.search("[가-힣]", text.ko)


def test_the_names_are_those_that_records_hold() -> None:
    assert set(names.VERDICTS) == set(get_args(Verdict))
    assert {metric.family for metric in METRICS.values()} == set(names.FAMILIES)


def test_what_is_not_known_is_called_what_it_calls_itself() -> None:
    assert name_of(names.FLOORS, "copy the input", "ko") == "입력을 그대로 옮기기"
    assert name_of(names.FLOORS, "a_new floor", "ko") == "a new floor"
    assert metric_name("chrf", "0–100").label.ko == "chrF"
    new = metric_name("new_metric", "0–100")
    assert (new.label.en, new.unit, new.decimals) == ("new metric", "points", 1)
    assert metric_name("new_metric", "seconds").unit == ""


@pytest.mark.parametrize(
    ("word", "pair", "expected"),
    [
        ("혼란도", "이/가", "가"),
        ("글자당 비트", "은/는", "는"),
        ("스스로 끝맺은 답", "이/가", "이"),
        ("chrF", "이/가", "가"),
        ("chrF++", "은/는", "는"),
        ("BLEU", "이/가", "가"),
        ("ROUGE-L", "은/는", "은"),
        ("혼란도(perplexity)", "이/가", "가"),
        ("14.5", "으로/로", "로"),
        ("10.0", "으로/로", "으로"),
        ("7.1", "으로/로", "로"),
        ("7.3", "으로/로", "으로"),
        ("서울", "으로/로", "로"),
        ("8.7", "이/가", "이"),
        ("∞", "이/가", "가"),
        ("", "이/가", "가"),
    ],
)
def test_particles_follow_the_last_sound(word: str, pair: str, expected: str) -> None:
    assert choose_particle(word, pair) == expected
    assert Wording("ko").with_particle(word, pair) == word + expected
    assert Wording("en").with_particle(word, pair) == word


@pytest.mark.parametrize(
    ("value", "decimals", "plain", "signed"),
    [
        (6.25, 1, "6.2", "+6.2"),
        (-6.3, 1, "−6.3", "−6.3"),
        (-0.04, 1, "0.0", "0.0"),
        (0.0, 2, "0.00", "0.00"),
        (12345.678, 2, "12,346", "+12,346"),
        (float("nan"), 1, "–", "–"),
        (float("-inf"), 1, "−∞", "−∞"),
    ],
)
def test_numbers(value: float, decimals: int, plain: str, signed: str) -> None:
    assert number(value, decimals) == plain
    assert number(value, decimals, signed=True) == signed


def test_a_p_value_is_never_zero() -> None:
    assert [p_value(p) for p in (0.0, 0.0009, 0.0123, 1.0)] == [
        "< 0.001",
        "< 0.001",
        "0.012",
        "1.000",
    ]


def test_a_percent_sign_stays_with_its_number() -> None:
    assert Wording("en")("difference") == "difference (95\u00a0%)"


def test_values_in_marked_up_texts_are_escaped() -> None:
    text = Wording("en").markup("many_better", metric="<i>", names="a & b")
    assert text == "By &lt;i&gt;, <b>better</b> than the base: a &amp; b."
