"""The leak audit names for each held-out row the strongest twin, and for the others none."""

from __future__ import annotations

import random

import pytest

from honing.data.audit import LeakAudit, Twin, audit_leaks
from honing.data.example import Example, Exchange
from honing.data.minhash import THRESHOLD, jaccard
from honing.data.split import split_examples
from tests.data.test_minhash import sentences

LONG = "이 문장은 스무 글자보다 깁니다, 정말로요."


def row(
    id: str, instruction: str, output: str = "네", *, input: str = "", group: str | None = None
) -> Example:
    return Example(id, (Exchange(instruction, output, input),), group=group)


TRAIN = [
    row("t:1", "비가 와", "우산"),
    row("t:2", "Is it OK?"),
    row("t:3", "3박4일 놀러가고 싶다"),
    row("t:4", "물은 무엇인가", LONG),
    row("t:5", "산에 오르자", group="산"),
]


@pytest.mark.parametrize(
    ("held_out", "expected"),
    [
        (row("v", "비가 와"), ("t:1", "same prompt", 1.0, "비가 와", "비가 와")),
        (
            row("v", "is it ok"),
            ("t:2", "same prompt up to case, spaces and punctuation", 1.0, "is it ok", "Is it OK?"),
        ),
        (
            row("v", "3박4일 정도 놀러가고 싶다"),
            (
                "t:3",
                "near-equal prompt",
                8 / 14,
                "3박4일 정도 놀러가고 싶다",
                "3박4일 놀러가고 싶다",
            ),
        ),
        (row("v", "불은", LONG + "!"), ("t:4", "same response", 1.0, LONG + "!", LONG)),
        (row("v", "바다", group="산"), ("t:5", "same group", 1.0, "바다", "산에 오르자")),
        (row("v", "바다", "우산"), None),
        (row("v", "!?"), None),
    ],
)
def test_each_kind_of_twin(held_out: Example, expected: tuple[object, ...] | None) -> None:
    audit = audit_leaks(TRAIN, [held_out])
    twins = () if expected is None else (Twin("v", *expected),)  # type: ignore[arg-type]
    assert audit == LeakAudit(1, twins)


def test_the_strongest_kind_wins_and_rows_keep_their_order() -> None:
    held_out = [
        row("v:1", "바다", group="산"),
        row("v:2", "물은 무엇인가?", LONG),  # response and normalised prompt
        row("v:3", "눈이 온다"),
        row("v:4", "3박4일 놀러가고 싶다", LONG, group="산"),
        row("v:5", "3박4일간 놀러가고 싶다", LONG, group="산"),
        row("v:6", "바다", LONG, group="산"),
    ]
    audit = audit_leaks(TRAIN, held_out)
    assert [(twin.held_out_id, twin.train_id, twin.kind) for twin in audit.twins] == [
        ("v:1", "t:5", "same group"),
        ("v:2", "t:4", "same prompt up to case, spaces and punctuation"),
        ("v:4", "t:3", "same prompt"),
        ("v:5", "t:3", "near-equal prompt"),
        ("v:6", "t:4", "same response"),
    ]
    assert audit.num_rows == 6
    assert list(audit.num_by_kind.items()) == [
        ("same prompt", 1),
        ("same prompt up to case, spaces and punctuation", 1),
        ("near-equal prompt", 1),
        ("same response", 1),
        ("same group", 1),
    ]


def test_the_most_similar_twin_is_named_then_the_first() -> None:
    train = [
        row("t:1", "내일 오후에 서울 날씨 어떤지 알려줘"),
        row("t:2", "오늘 오후에 서울 날씨 어떤지 알려줄래"),
        *(
            row(f"t:{k}", f"오늘 오후에 서울 날씨 어떤지 알려줄{end}")
            for k, end in enumerate("까게지", 3)
        ),
        row("t:6", "오늘 밤에 서울 날씨 어떤지 알려줘"),
    ]
    (twin,) = audit_leaks(train, [row("v", "오늘 오후에 서울 날씨 어떤지 알려줘")]).twins
    assert (twin.train_id, twin.kind) == ("t:2", "near-equal prompt")
    assert twin.similarity == 13 / 18


def test_near_twins_agree_with_a_comparison_of_every_pair() -> None:
    train, held_out = (
        [row(f"{name}:{k}", text) for k, text in enumerate(texts)]
        for name, texts in (("t", sentences(600)[:300]), ("v", sentences(600)[300:]))
    )
    expected: dict[str, float] = {}
    for one in held_out:
        best = max(jaccard(one.prompt_text, other.prompt_text) for other in train)
        if best >= THRESHOLD:
            expected[one.id] = best
    twins = {twin.held_out_id: twin for twin in audit_leaks(train, held_out).twins}
    by_id = {one.id: one.prompt_text for one in (*train, *held_out)}
    for id, twin in twins.items():
        assert twin.similarity == jaccard(by_id[id], by_id[twin.train_id]) <= expected[id]
    assert len(twins) >= 0.95 * len(expected) > 100
    num_best = sum(twins[id].similarity == expected[id] for id in twins)
    assert num_best >= 0.95 * len(expected)


def test_one_long_instruction_is_no_leak_but_a_near_input_under_it_is() -> None:
    instruction = "다음 요청에서 해야 할 일을 명사구로 정리하세요."
    train = [row("t:1", instruction, input="거실 창문을 열어라")]
    held_out = [
        row("v:1", instruction, input="학교에서 온 메일 차단해줘"),
        row("v:2", instruction, input="거실 창문을 좀 열어라"),
        row("v:3", "한 문장으로 된 영어로 옮기시오", input="거실 창문을 다 열어라"),
    ]
    (twin,) = audit_leaks(train, held_out).twins
    assert (twin.held_out_id, twin.kind, twin.similarity) == ("v:2", "near-equal prompt", 6 / 11)
    assert twin.train_text == f"{instruction}\n거실 창문을 열어라"


def test_nothing_to_compare() -> None:
    assert audit_leaks([], []) == LeakAudit(0, ())
    assert audit_leaks(TRAIN, []) == LeakAudit(0, ())
    assert audit_leaks([], TRAIN) == LeakAudit(5, ())
    assert LeakAudit(0, ()).num_by_kind == {}


def template_rows(with_groups: bool) -> list[Example]:
    """1,000 rows from 10 templates, as the first draft's sample was made."""
    rng = random.Random(0)
    words = ["".join(rng.choices("가나다라마바사아자차카타파하", k=3)) for _ in range(11)]
    return [
        row(
            f"s:{number}",
            f"{' '.join(words[number % 10 :][:1] * 2)} {number % 10}번 틀에서 {rng.choice(words)} "
            f"{number}에 관하여 자세하고 친절하게 {words[number % 10]} 설명해 주세요",
            group=f"template {number % 10}" if with_groups else None,
        )
        for number in range(1000)
    ]


@pytest.mark.parametrize("with_groups", [True, False])
def test_templates_under_a_random_split_leak_in_every_row(with_groups: bool) -> None:
    rows = template_rows(with_groups)
    split = split_examples(rows, how="random", val_fraction=0.1, test_fraction=0.1, seed=42)
    audit = audit_leaks([rows[at] for at in split.train], [rows[at] for at in split.val])
    assert audit.num_rows == 100
    assert len(audit.twins) == 100


def test_a_grouped_split_of_groups_has_no_leak() -> None:
    rows = template_rows(with_groups=True)
    split = split_examples(rows, how="grouped", val_fraction=0.1, test_fraction=0.1, seed=42)
    assert [len(part) for part in (split.train, split.val, split.test)] == [800, 100, 100]
    assert split.num_groups == 10
    for held_out in (split.val, split.test):
        audit = audit_leaks([rows[at] for at in split.train], [rows[at] for at in held_out])
        assert "same group" not in audit.num_by_kind
