"""Sentences of records in Korean, held against the code that writes them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import honing
from honing.data.reading.rows import REMARKS
from honing.evaluation.score import look_around
from honing.report.remarks import HOLDING, KOREAN, PARTS, say_remark

# Sentences that are put together of two texts in the code: each part is looked for.
JOINED = {"Korean is split into characters for BLEU and ROUGE, not into morphemes: {}; {}"}

SOURCES = Path(honing.__file__).parent


def written(node: ast.AST) -> Iterator[str]:
    """Texts and f-texts below a node, with {} for what is filled in."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
        yield "".join(map(str, parts))
    else:
        for child in ast.iter_child_nodes(node):
            yield from written(child)


def wordings_of_the_code() -> set[str]:
    """All texts of the package; none of the remarks' own."""
    paths = [path for path in SOURCES.rglob("*.py") if "remarks" not in path.name]
    return {text for path in paths for text in written(ast.parse(path.read_text(encoding="utf-8")))}


# --- whatever the code can note


WRITERS = r"_?(\w+_)?notes|why_not|_warnings|_fallback"
"""Functions whose texts are remarks, and calls whose arguments are."""
HOLDERS = {"notes", "warnings", "note", "ONE_SEED"}
"""Names that remarks are given to."""


WITHIN = {
    "Korean is split into characters for BLEU and ROUGE, not into morphemes: {}",
    "its whole context holds",
    "a row of this length holds",
    'pip install "honing[ko]"',
}
"""Pieces of other remarks, which say the same in Korean in one, and a command."""


def is_remark(text: str) -> bool:
    """Words, and not a key, a separator or a piece of an f-text."""
    return len(re.findall(r"[A-Za-z]{2,}", text)) > 1


def noted_by(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and re.fullmatch(WRITERS, node.name):
            body = node.body[ast.get_docstring(node) is not None :]
            yield from (text for line in body for text in written(line))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            of = getattr(getattr(node.func, "value", None), "id", "")
            if name in ("Unusable", "_fallback") or (name == "append" and of in HOLDERS):
                yield from (text for argument in node.args for text in written(argument))
            for keyword in node.keywords:
                if keyword.arg in HOLDERS:
                    yield from written(keyword.value)
        elif isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id in HOLDERS for target in node.targets
        ):
            yield from written(node.value)


def all_remarks() -> list[str]:
    """Remarks of comparisons, evaluations and data, with something in each blank."""
    folders = ("report/compare.py", "report/seeds.py", "evaluation", "data")
    paths = [
        path
        for name in folders
        for path in ([SOURCES / name] if ".py" in name else sorted((SOURCES / name).rglob("*.py")))
    ]
    found = [text for path in paths for text in noted_by(ast.parse(path.read_text("utf-8")))]
    return sorted({text for text in [*found, *of_files()] if is_remark(text)} - WITHIN)


def of_files() -> list[str]:
    """What a table of texts makes of them."""
    return ["{}: {} of {} " + text for text in REMARKS.values()]


def test_remarks_are_found_where_they_are_written() -> None:
    found = all_remarks()
    assert len(found) >= 40
    for wanted in (
        "{}: compared on the {} rows that both answered",
        "{}: {} is not compared, for {}",
        "only one of them has it",
        "{} is cp949, not UTF-8: read as cp949",
        "mecab-ko is not installed",
        "turns do not alternate between user and assistant",
    ):
        assert wanted in found


@pytest.mark.parametrize("english", all_remarks())
def test_each_remark_that_can_be_written_has_a_korean_form(english: str) -> None:
    assert any(
        re.search("[가-힣]", said) and english not in said
        for blank in ("x", "7", "alpaca")
        for said in (say_remark(english.replace("{}", blank), "ko"), part(english, blank))
    )


def part(english: str, blank: str) -> str:
    """What stands within another remark, as a reason does."""
    whole = f"{{}}: bleu is not compared, for {english}".replace("{}", blank)
    return say_remark(whole, "ko").partition("(")[2]


def test_no_english_is_left_of_a_comparison() -> None:
    notes = {
        "a and b: compared on the 12 rows that both answered": (
            "a, b: 둘 다 답한 12행에서 비교했습니다"
        ),
        "a and its base: bits_per_character is not compared, for only one of them has it": (
            "a 실행과 그 원본: 글자당 비트 비교하지 않음(한쪽에만 있음)"
        ),
        "a and b: perplexity is not compared, for their tokens are not the same; bits per "
        "character are": (
            "a, b: 혼란도(perplexity) 비교하지 않음(토큰이 서로 다름. 글자당 비트는 견줄 수 있음)"
        ),
        "val has 3 rows where 10 were asked for: rows that belong together were not parted, and "
        "the largest group has 1 row": (
            "검증 데이터는 바란 10행이 아니라 3행입니다. 함께 두어야 하는 행은 나누지 않았고, 가장 "
            "큰 묶음은 1행입니다"
        ),
        "a.json is messages; b.csv is alpaca; c.csv is question-answer": (
            "a.json: messages 형식, b.csv: alpaca 형식, c.csv: question-answer 형식"
        ),
        "1 of 9 test rows have a twin in train, so their loss measures memory, not learning. For "
        "example a:1 and b:2 (same prompt): 'A. B' / 'A. B'. use data.on_leak=drop": (
            "테스트 행 9개 가운데 1개는 학습 행에 쌍둥이가 있어서, 손실이 배운 것이 아니라 외운 "
            "것을 잽니다. 예: a:1, b:2 (같은 질문): 'A. B' / 'A. B'. data.on_leak=drop을 쓰세요"
        ),
    }
    assert {english: say_remark(english, "ko") for english in notes} == notes


def test_a_runs_own_name_stays() -> None:
    said = say_remark(
        "test: 3 of 9 rows have a twin in training; the clean figures leave them out", "ko"
    )
    assert said.startswith("test: 9행 가운데 3행은")


# --- each wording


COMPOSED = {"use data.split=grouped, or data.on_leak=drop", "use data.on_leak=drop"}
"""What the code writes in one text with something in it, or with nothing."""


def test_each_wording_is_written_somewhere() -> None:
    everything = "\n".join([*wordings_of_the_code(), *of_files()])
    for english in {*KOREAN, *PARTS} - COMPOSED:
        blank = re.sub(r"\{\w+\}", "{}", english)
        for piece in blank.split("; ") if blank in JOINED else [blank]:
            # Words before the first and after the last {} may be filled in as well: compare what
            # stands between, piece by piece.
            pieces = [text for text in piece.split("{}") if len(text) > 6]
            assert all(text in everything for text in pieces), english


SAMPLES = {"count": "12", "shape": "alpaca"}


@pytest.mark.parametrize("english", KOREAN)
def test_each_wording_is_said_in_korean_with_its_values(english: str) -> None:
    names = [name for _, name, _, _ in Formatter().parse(english) if name]
    values = {name: SAMPLES.get(name, f"<{name}>") for name in names}
    said = say_remark(english.format(**values), "ko")
    assert said == KOREAN[english].format(**values)
    assert re.search("[가-힣]", said)
    used = {name for _, name, _, _ in Formatter().parse(KOREAN[english]) if name}
    assert used <= set(names)
    assert say_remark(english.format(**values), "en") == english.format(**values)


def test_places_that_hold_words_are_places_of_wordings() -> None:
    places = {name for text in (*KOREAN, *PARTS) for _, name, _, _ in Formatter().parse(text)}
    assert places >= HOLDING


def test_what_is_not_known_is_shown_as_it_is() -> None:
    for text in ("something new: {x}", "7 rows", "it is val", "no such thing here", "test"):
        assert say_remark(text, "ko") == text


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
