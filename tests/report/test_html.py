"""The page as a file: whole, closed to the outside, accessible, and deaf to what it shows."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest

import honing.report
from honing.report.comparison import Answer, Comparison, Sample
from honing.report.html import content_security_policy, render_page
from honing.report.names import Language
from tests.report.made_up import made_up_comparison
from tests.report.pages import HOSTILE, Document, full_comparison, poisoned

LANGUAGES: tuple[Language, ...] = ("en", "ko")


SHAPES: list[tuple[int, Language]] = [(runs, t) for runs in (1, 3) for t in LANGUAGES]


@functools.cache
def rendered(num_runs: int, language: Language) -> tuple[str, Document]:
    page = render_page(few_samples(full_comparison(num_runs, leaked=True)), language)
    return page, Document(page)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_page_is_whole_and_closed_to_the_outside(shape: tuple[int, Language]) -> None:
    page, document = rendered(*shape)
    assert page.startswith("<!doctype html>\n<html lang=")
    assert document.all("html")[0].attributes["lang"] == shape[1]
    assert not {"img", "iframe", "link", "object", "embed", "base", "form"} & {
        element.tag for element in document.elements
    }
    for element in document.elements:
        assert not any(name.startswith("on") or name == "style" for name in element.attributes)
        assert "src" not in element.attributes
        assert element.attributes.get("href", "#").startswith("#")
    assert "url(" not in page
    assert "@import" not in page


@pytest.mark.parametrize("shape", SHAPES)
def test_the_policy_allows_this_style_and_this_script_and_nothing_else(
    shape: tuple[int, Language],
) -> None:
    page, document = rendered(*shape)
    metas = {meta.attributes.get("http-equiv"): meta for meta in document.all("meta")}
    policy = metas["Content-Security-Policy"].attributes["content"]
    hashes = {}
    for tag in ("style", "script"):
        (element,) = document.all(tag)
        digest = hashlib.sha256(element.text.encode("utf-8")).digest()
        hashes[tag] = base64.b64encode(digest).decode("ascii")
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; "
        f"script-src 'sha256-{hashes['script']}'; base-uri 'none'; form-action 'none'"
    )
    assert "unsafe" not in policy
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert content_security_policy("a", "b") != content_security_policy("b", "a")


@pytest.mark.parametrize("shape", SHAPES)
def test_headings_tables_pictures_and_links_can_be_followed(shape: tuple[int, Language]) -> None:
    document = rendered(*shape)[1]
    levels = [int(e.tag[1]) for e in document.elements if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(th.attributes.get("scope") for th in document.all("th"))
    assert all(
        svg.attributes["aria-label"] and svg.attributes["role"] == "img"
        for svg in document.all("svg")
    )
    identifiers = [e.attributes["id"] for e in document.elements if "id" in e.attributes]
    assert len(identifiers) == len(set(identifiers))
    links = [a.attributes["href"].removeprefix("#") for a in document.all("a")]
    named = [e.attributes.get("aria-labelledby", "main") for e in document.all("section")]
    wanted = {*links, *(name for name in named if name != "main")}
    assert wanted <= set(identifiers)
    assert {"metrics", "behaviour", "samples", "data", "method", "training"} <= set(links)
    labels = [label.attributes["for"] for label in document.all("label")]
    assert labels == ["search"]
    assert len(document.all("svg")) > 10


@pytest.mark.parametrize("shape", SHAPES)
def test_each_row_of_a_table_has_as_many_cells_as_columns(shape: tuple[int, Language]) -> None:
    for table in rendered(*shape)[1].all("table"):
        rows = [row for part in table.children for row in part.children if row.tag == "tr"]
        widths = set()
        spanned = 0  # rows that a cell from above still reaches into
        for row in rows:
            width = sum(int(cell.attributes.get("colspan", "1")) for cell in row.children)
            widths.add(width + (1 if spanned else 0))
            spanned = max(0, spanned - 1)
            for cell in row.children:
                spanned = max(spanned, int(cell.attributes.get("rowspan", "1")) - 1)
        assert len(widths) == 1, widths


def test_the_answer_comes_first() -> None:
    document = rendered(1, "en")[1]
    assert document.text_of("h1") == ["Did it get better?"]
    lead = document.all("div", "lead")[0]
    assert lead.children[0].text.startswith("chrF ")
    assert document.text_of("title")[0] == "run-1: did it get better?"
    korean = rendered(3, "ko")[1]
    assert korean.text_of("h1") == ["어느 쪽이 나아졌습니까?"]
    assert korean.all("div", "lead")[0].text.split()[0] == "chrF로"


def test_the_same_comparison_makes_the_same_page() -> None:
    made = full_comparison(2)
    assert render_page(made, "ko") == render_page(made, "ko")
    assert render_page(made) == render_page(made, "en")


def test_every_run_metric_floor_note_and_figure_is_shown() -> None:
    made = full_comparison(3, leaked=True)
    text = Document(render_page(made, "en")).all("body")[0].text
    for table in made.tables:
        assert table.run.name in text
        assert table.run.checkpoint in text
        for line in table.lines:
            assert line.signature in text
        for warning in table.run.warnings:
            assert warning in text
    for note in made.notes:
        assert text.count(note) == 1
    for words in ("copy the input", "nearest training row", "해외여행 가고싶다", "2,442,240"):
        assert words in text
    assert "2 of 100 rows have a twin in training" in text
    assert "none of 100 rows has a twin" in text
    assert "10 × answer does not fit into 128 tokens" in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_from_outside_is_more_than_text(hostile: str) -> None:
    clean = few_samples(full_comparison(2, leaked=True))
    page = render_page(poisoned(clean, lambda text: hostile + text), "ko")
    expected, found = Document(render_page(clean, "ko")), Document(page)
    # The same elements, but for marks, folds and escapes, which the texts themselves bring along,
    # and the shapes of pictures, which depend on their lengths.
    tags = {element.tag for element in expected.elements}
    assert {element.tag for element in found.elements} <= tags | {"mark", "details", "summary"}
    ours = {"mark", "details", "summary", "span", "br"}
    for document in (expected, found):
        document.elements = [
            e for e in document.elements if e.tag not in ours and "svg" not in e.parents
        ]
    assert [e.tag for e in found.elements] == [e.tag for e in expected.elements]
    assert [set(e.attributes) for e in found.elements] == [
        set(e.attributes) for e in expected.elements
    ]
    for before, after in zip(expected.elements, found.elements, strict=True):
        if before.tag in ("script", "style"):
            assert after.text == before.text
    page.encode("utf-8")
    for hidden in "\u202e\u2066\u200b\x00\x1b\u3164":
        assert hidden not in page


def few_samples(comparison: Comparison) -> Comparison:
    return replace(comparison, samples=comparison.samples[:12])


def test_texts_from_outside_are_all_there() -> None:
    clean = full_comparison(2)
    page = render_page(poisoned(clean, lambda text: f"⟨{text}⟩"), "en")
    text = Document(page).all("body")[0].text
    sample = clean.samples[12]
    said = [sample.prompt, sample.reference, *(answer.text for answer in sample.answers.values())]
    for words in said:
        assert f"⟨{words}⟩" in text


def one_sample(text: str) -> Comparison:
    made = made_up_comparison(num_runs=1, num_rows=10)
    answers = {"base": Answer("짧다", 1.0, "end", 0.0), "run-1": Answer(text, 2.0, "length", 93.0)}
    return replace(made, samples=(Sample("row:1", "질문", "참조", answers, 1.0, ("random",)),))


def test_a_long_answer_is_folded_and_whole() -> None:
    text = "".join(f"{number} 번째 <말>.\n" for number in range(9_000))
    assert len(text) > 100_000
    document = Document(render_page(one_sample(text), "en"))
    (fold,) = document.all("details", "fold")
    assert fold.text == text
    assert "open" not in fold.attributes
    (more,) = document.all("span", "more")
    assert more.attributes["data-more"] == f"… all {len(text):,} characters"
    assert document.text_of("p", "how")[1] == (
        "chrF 2.0 · cut off at the longest length · repeats itself: 93 % · "
        "shares no word with the base"
    )
    almost = Document(render_page(one_sample("가" * 600), "en"))
    assert almost.all("details", "fold") == []


def test_parts_that_are_not_there_leave_no_holes() -> None:
    made = made_up_comparison(num_runs=1, num_rows=10)
    run = replace(
        made.tables[0].run,
        curves={},
        data_report={},
        training={},
        config={},
        settings={},
        figures_base={},
        figures_tuned={},
        figure_signatures={},
        warnings=(),
    )
    bare = replace(
        made, tables=(replace(made.tables[0], run=run),), samples=(), notes=(), made_with={}
    )
    document = Document(render_page(bare, "en"))
    ids = [section.attributes["id"] for section in document.all("section")]
    assert ids == ["answer", "metrics", "data", "method"]
    assert document.all("aside") == []
    links = [a.attributes["href"] for a in document.all("a")]
    assert links == ["#metrics", "#metrics", "#data", "#method"]
    assert "This run has no data report." in document.all("body")[0].text


def test_damaged_records_of_a_run_are_shown_as_far_as_they_go() -> None:
    made = full_comparison(1)
    broken: dict[str, Any] = {
        "splits": {"train": 3, "val": {}},
        "leaks": [],
        "dropped": {"x": 1},
        "notes": None,
    }
    run = replace(made.tables[0].run, data_report=broken, training={"num_steps": "?"})
    text = render_page(replace(made, tables=(replace(made.tables[0], run=run),)), "ko")
    assert Document(text).text_of("td", "n")


@pytest.mark.parametrize("kind", ["html", "css", "js"])
def test_templates_hold_no_words_of_their_own(kind: Literal["html", "css", "js"]) -> None:
    """All wording is in texts.py, so that no page mixes its languages."""
    for path in Path(honing.report.__file__).parent.glob(f"*.{kind}.j2"):
        text = path.read_text(encoding="utf-8")
        assert not re.search("[가-힣]", text)
        if kind == "html":
            bare = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", text, flags=re.DOTALL)
            bare = re.sub(r"<[^>]*>", "", bare)
            assert set(bare.split()) <= {"honing", "·", "→", ":"}, path.name
