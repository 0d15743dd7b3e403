"""The page in a real Chromium: nothing asked for, nothing executed, everything usable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from honing.report.comparison import Answer, Comparison, Sample
from honing.report.html import render_page
from honing.report.words import show_hidden
from tests.report.browser import Tab, open_browser
from tests.report.pages import HOSTILE, full_comparison, poisoned


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with open_browser(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


VISIBLE = "[...document.querySelectorAll('article')].filter(a => a.offsetParent).length"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Texts and the nearest background behind each, as WCAG 2.2 measures their contrast (1.4.3).
LOW_CONTRAST = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const svg = element instanceof SVGElement;
    let back = behind(element);
    if (element.classList.contains("inside")) {
      back = rgb(style.getPropertyValue("--part"));
    }
    const [a, b] = [light(rgb(svg ? style.fill : style.color)), light(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([element.className.baseVal || element.className || element.tagName,
      element.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return found;
})()
"""


def write(folder: Path, name: str, comparison: Comparison, language: Any = "en") -> Path:
    path = folder / f"{name}.html"
    path.write_text(render_page(comparison, language), encoding="utf-8")
    return path


def hostile_comparison(hostile: str) -> Comparison:
    """Every text from outside begins with it, and one answer has 100,000 characters more."""
    made = full_comparison(2, leaked=True)
    everywhere: Comparison = poisoned(made, lambda text: hostile + text)
    answers = {
        "base": Answer("짧은 답", 1.0, "length", 0.0),
        everywhere.tables[0].run.name: Answer(hostile + "a" * 100_000, 1.0, "length", 0.0),
        everywhere.tables[1].run.name: Answer(hostile, 1.0, "length", 0.0),
    }
    row = Sample(hostile, hostile, hostile, answers, 1.0, ("random",))
    return replace(everywhere, samples=(row,))


def complaints(tab: Tab) -> list[dict[str, Any]]:
    """What the console, the policy and the page's own script have to say."""
    kinds = (
        "Runtime.consoleAPICalled",
        "Runtime.exceptionThrown",
        "Log.entryAdded",
        "Audits.issueAdded",
        "Page.javascriptDialogOpening",
        "Target.targetCreated",
    )
    return [found for kind in kinds for found in tab.told(kind)]


def requests(tab: Tab) -> list[str]:
    return [found["request"]["url"] for found in tab.told("Network.requestWillBeSent")]


@pytest.mark.process
def test_hostile_answers_do_nothing_and_the_page_asks_for_nothing(tab: Tab, tmp_path: Path) -> None:
    # First that the ways of looking see anything at all.
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
        "<title>unharmed</title><img src='x.png'><b onclick='1'>b</b><script>1</script>",
        encoding="utf-8",
    )
    tab.open(bad)
    assert complaints(tab)
    worse = tmp_path / "worse.html"
    worse.write_text(f"<title>unharmed</title>{HOSTILE[0]}<img src='y.png'>", encoding="utf-8")
    tab.open(worse)
    assert tab.value("document.title") == "pwned"
    assert requests(tab) == [worse.as_uri(), worse.with_name("y.png").as_uri()]

    for number, hostile in enumerate(HOSTILE):
        page = write(tmp_path, f"hostile-{number}", hostile_comparison(hostile), "ko")
        tab.open(page)
        for selector in ("article", "table.metrics", "svg", "details.part > summary"):
            tab.click(selector)
        assert tab.value("document.title").endswith("어느 쪽이 나아졌습니까?")
        assert complaints(tab) == []
        assert requests(tab) == [page.as_uri()]
        assert tab.value("document.querySelectorAll('script, style').length") == 2
        assert (
            tab.value("document.querySelectorAll('img, iframe, a:not([href^=\"#\"])').length") == 0
        )
        assert tab.value(VISIBLE) == 1
        assert tab.value("document.querySelector('article .prompt').textContent") == (
            show_hidden(hostile)
        )


@pytest.mark.process
def test_it_can_be_used_by_mouse_keyboard_and_phone_in_both_themes(
    tab: Tab, tmp_path: Path
) -> None:
    made = full_comparison(3, leaked=True)
    tags = [set(sample.tags) for sample in made.samples]
    chosen = sum(bool(own & {"best", "worst", "random"}) for own in tags)
    page = write(tmp_path, "page", made, "en")
    tab.resize(1280)
    tab.prefer("light")
    tab.open(page)
    status = "document.getElementById('status').textContent"
    pressed = "document.querySelector('[data-filter][aria-pressed=true]').dataset.filter"
    assert tab.value(VISIBLE) == chosen
    assert tab.value(pressed) == "selection"
    for tag in ("best", "worst", "random", "stopped", "not-stopped", "looping", "leaked", "empty"):
        tab.click(f"button[data-filter='{tag}']")
        wanted = sum(tag in own for own in tags)
        # A button for nothing is disabled, and what was shown before stays.
        if wanted:
            assert tab.value(VISIBLE) == wanted
            assert tab.value(pressed) == tag
    tab.click("button[data-filter='all']")
    assert tab.value(VISIBLE) == len(made.samples)

    # The keyboard: from the search field on with the tabulator, and Enter.
    tab.click("#search")
    tab.write("지하철 ")
    found = [s for s in made.samples if "지하철" in s.prompt + s.reference]
    assert tab.value(VISIBLE) == len(found) > 0
    assert tab.value(status) == f"{len(found)} of {len(made.samples)} rows"
    tab.press("Escape")
    assert tab.value(VISIBLE) == len(made.samples)
    tab.write("made-up:7")
    assert tab.value(VISIBLE) == 1
    tab.press("Escape")
    tab.press("Tab")
    tab.press("Tab")
    assert tab.value("document.activeElement.dataset.marks") == "reference"
    assert tab.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    background = "getComputedStyle(document.querySelector('.reply mark.r')).backgroundColor"
    before = tab.value(background)
    tab.press("Enter")
    assert tab.value("document.getElementById('sample-list').dataset.marks") == "reference"
    assert tab.value(background) != before

    # Both themes, by the system and by the button; every text readable.
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.value(paper)
    assert tab.value(LOW_CONTRAST) == []
    tab.click("#theme")
    dark = tab.value(paper)
    assert dark != light
    assert tab.value(LOW_CONTRAST) == []
    tab.click("#theme")
    assert tab.value(paper) == light
    tab.prefer("dark")
    tab.open(page)
    assert tab.value(paper) == dark
    assert tab.value("document.getElementById('theme').textContent") == "Light"

    # What is folded is opened for the printer; filters are left out.
    folded = "[...document.querySelectorAll('details')].filter(d => !d.open).length"
    before = tab.value(folded)
    assert before > 3
    tab.value("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.value(folded) == 0
    tab.value("window.dispatchEvent(new Event('afterprint'))")
    assert tab.value(folded) == before
    tab.send("Emulation.setEmulatedMedia", media="print")
    assert tab.value("getComputedStyle(document.getElementById('controls')).display") == "none"
    assert tab.value(paper) == "rgb(255, 255, 255)"
    tab.send("Emulation.setEmulatedMedia", media="")

    # A phone: nothing sticks out, in either language, with one run or five, long names too.
    long_name = poisoned(full_comparison(1), lambda text: "아주-긴-이름-" * 9 + text)
    for name, comparison in {"one": long_name, "five": full_comparison(5, leaked=True)}.items():
        for language in ("en", "ko"):
            path = write(tmp_path, f"{name}-{language}", comparison, language)
            for width in (400, 320):
                tab.resize(width)
                tab.open(path)
                assert tab.value(OVERFLOW) <= 0, (name, language, width)
            assert complaints(tab) == []
