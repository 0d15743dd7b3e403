"""Texts in Markdown, read again by a CommonMark parser."""

from __future__ import annotations

import pytest

from honing.report.markdown import Markdown, block, cell, escape, inline
from tests.report.pages import HOSTILE

markdown_it = pytest.importorskip("markdown_it")

NASTY = (
    *HOSTILE,
    "# heading",
    "1. list",
    "2) list",
    "- list",
    "+ list",
    "--- ",
    "=====",
    "> quote",
    "*bold* _it_ __b__ ~~gone~~ `code`",
    "[link](http://x.y) ![image](x) [ref]: http://x.y",
    "a | b | c",
    "https://evil.example <https://evil.example>",
    "&lt;b&gt; &amp; \\* \\",
    "@someone $x^2$",
)


def parse(text: str) -> list[str]:
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    kinds: list[str] = []
    for token in parser.parse(text):
        kinds.append(token.type)
        kinds += [child.type for child in token.children or ()]
    return kinds


@pytest.mark.parametrize("text", NASTY)
def test_a_line_stays_a_line_of_text(text: str) -> None:
    line = escape(text)
    assert "\n" not in line
    assert set(parse(line)) <= {
        "paragraph_open",
        "inline",
        "text",
        "text_special",
        "paragraph_close",
    }
    rendered = markdown_it.MarkdownIt("commonmark", {"html": True}).render(line)
    assert "<a" not in rendered
    row = f"| a | b |\n|---|---|\n| {line} | {cell(text)} |\n| x | y |\n"
    assert parse(row).count("td_open") == 4
    assert parse(row).count("code_inline") == 1


@pytest.mark.parametrize("text", [*NASTY, "```\nout\n```", "````\n~~~\n", "`", "``a`` ```b```"])
def test_a_block_holds_what_is_in_it(text: str) -> None:
    tokens = markdown_it.MarkdownIt("commonmark", {"html": True}).parse(f"{block(text)}\n\nafter")
    assert [token.type for token in tokens] == [
        "fence",
        "paragraph_open",
        "inline",
        "paragraph_close",
    ]
    assert tokens[0].info == "text"
    assert tokens[0].content.encode("utf-8")
    if text.isascii() and text.isprintable():
        assert tokens[0].content == f"{text}\n"
        assert parse(inline(text)).count("code_inline") == 1


def test_markdown_and_numbers_are_left_as_they_are() -> None:
    assert escape(Markdown("`a` | *b*")) == "`a` | *b*"
    assert escape(3) == 3
    assert escape("8.2 and −3.5, step-000060, data_max.jsonl") == (
        "8.2 and −3.5, step-000060, data_max.jsonl"
    )
