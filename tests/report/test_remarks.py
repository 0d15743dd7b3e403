"""Sentences of records in Korean, held against the code that writes them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

import honing
from honing.evaluation.score import look_around
from honing.report.remarks import KOREAN, say_remark

# Sentences that are put together of two texts in the code: each part is looked for.
JOINED = {"Korean is split into characters for BLEU and ROUGE, not into morphemes: {}; {}"}


def wordings_of_the_code() -> set[str]:
    """Texts and f-texts of the package, with {} for what is filled in; none of remarks.py."""
    found = set()
    for path in Path(honing.__file__).parent.rglob("*.py"):
        if path.name == "remarks.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.add(
                    "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "{}"
                        for part in node.values
                    )
                )
    return found


def test_each_wording_is_written_somewhere() -> None:
    written = "\n".join(wordings_of_the_code())
    for english in KOREAN:
        blank = re.sub(r"\{\w+\}", "{}", english)
        for part in blank.split("; ") if blank in JOINED else [blank]:
            # Words before the first and after the last {} may be filled in as well: compare what
            # stands between, piece by piece.
            pieces = [piece for piece in part.split("{}") if len(piece) > 6]
            assert pieces or part == "{}"
            assert all(piece in written for piece in pieces), english


@pytest.mark.parametrize("english", KOREAN)
def test_each_wording_is_said_in_korean_with_its_values(english: str) -> None:
    names = [name for _, name, _, _ in Formatter().parse(english) if name]
    values = {name: f"<{name}>" for name in names}
    said = say_remark(english.format(**values), "ko")
    assert said == KOREAN[english].format(**values)
    assert re.search("[가-힣]", said)
    used = {name for _, name, _, _ in Formatter().parse(KOREAN[english]) if name}
    assert used <= set(names)
    assert say_remark(english.format(**values), "en") == english.format(**values)


def test_what_is_not_known_is_shown_as_it_is() -> None:
    assert say_remark("something new: {x}", "ko") == "something new: {x}"


def test_warnings_of_a_real_evaluation_are_known() -> None:
    around = look_around(
        ["네.", "아니요, 그렇지 않습니다."],
        inputs=[],
        prompts=[],
        train_prompts=[],
        train_responses=[],
        num_groups=2,
        seed=0,
    )
    assert around.warnings
    for warning in around.warnings:
        assert re.search("[가-힣]", say_remark(warning, "ko")), warning
