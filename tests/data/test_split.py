"""Which rows stay together, in which part they come, and what is said where that cannot be had."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Literal

import pytest

from honing.data.audit import audit_leaks
from honing.data.example import Example, Exchange
from honing.data.groups import group_rows
from honing.data.split import Split, split_examples
from honing.errors import UserError

SYLLABLES = "가나다라마바사아자차카타파하거너더러머버서어저처커터퍼허"


def row(
    instruction: str,
    output: str = "네",
    *,
    input: str = "",
    group: str | None = None,
    system: str = "",
) -> Example:
    exchanges = (Exchange(instruction, output, input),)
    return Example(f"rows:{instruction}/{input}", exchanges, system=system, group=group)


def apart(num: int, seed: int = 0, length: int = 14) -> list[Example]:
    """Rows that have nothing in common."""
    rng = random.Random(seed)
    return [row("".join(rng.choices(SYLLABLES, k=length))) for _ in range(num)]


def grouped(
    examples: list[Example], *, val: float = 0.1, test: float = 0.1, seed: int = 0
) -> Split:
    return split_examples(examples, how="grouped", val_fraction=val, test_fraction=test, seed=seed)


def groups_of(examples: list[Example]) -> list[int]:
    return group_rows(examples).heads.tolist()  # type: ignore[no-any-return]


LONG = "이 문장은 스무 글자보다 깁니다, 정말로요."


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        pytest.param(row("비가 와"), row("비가 와", "우산"), True, id="equal prompt"),
        pytest.param(row("Is it OK?"), row("is it  ok"), True, id="normalised prompt"),
        pytest.param(row("?!"), row("..."), False, id="nothing but signs"),
        pytest.param(row("??"), row("??"), True, id="equal signs"),
        pytest.param(
            row("3박4일 놀러가고 싶다"), row("3박4일 정도 놀러가고 싶다"), True, id="near prompt"
        ),
        pytest.param(row("사과"), row("사과해"), False, id="short prompts must be equal"),
        pytest.param(row("7"), row("8"), False, id="other number"),
        pytest.param(row("12 더하기 7은?"), row("12 더하기 8은?"), False, id="other short sum"),
        pytest.param(row("12 + 7"), row("12 - 7"), False, id="other sign between numbers"),
        pytest.param(row("물", LONG), row("불", LONG.upper() + "!"), True, id="long response"),
        pytest.param(row("물", LONG[:20]), row("불", LONG[:20]), True, id="20 characters"),
        pytest.param(row("물", LONG[:19]), row("불", LONG[:19]), False, id="19 characters"),
        pytest.param(row("물", group="a"), row("불", group="a"), True, id="equal group"),
        pytest.param(row("물", group="a"), row("불", group="b"), False, id="other group"),
        pytest.param(row("물", group=""), row("불", group=""), False, id="empty group"),
        pytest.param(
            row("다음 문장을 명사구로 정리하세요.", input="거실 불 좀 켜줘"),
            row("다음 문장을 명사구로 정리하세요.", input="내일 날씨 어때"),
            False,
            id="one instruction, other inputs",
        ),
        pytest.param(
            row("다음 문장을 명사구로 정리하세요.", input="거실 스탠드 불 좀 켜줘"),
            row("다음 문장을 명사구로 정리하라.", input="거실 스탠드 불 켜줘"),
            True,
            id="near instruction, near input",
        ),
        pytest.param(
            row("한국어로 옮겨 주세요", input="The weather is fine today"),
            row("주어가 무엇인지 찾으세요", input="The weather was fine today"),
            False,
            id="other task on a near input",
        ),
        pytest.param(
            row("왕이 산 곳은 어디인가요?", input="짧게"),
            row("책을 빌린 사람은 누구죠?", input="짧게"),
            False,
            id="what tells the rows apart is the instruction",
        ),
        pytest.param(
            row("오늘 저녁에 뭐 먹을까", system="너는 요리사다"),
            row("오늘 저녁에 뭐 먹을까?", system="너는 의사다"),
            True,
            id="the system text is no part of the question",
        ),
    ],
)
def test_which_rows_belong_together(first: Example, second: Example, together: bool) -> None:
    assert (groups_of([first, *apart(20), second])[-1] == 0) == together
    assert (groups_of([second, *apart(20), first])[-1] == 0) == together


def test_chats_are_compared_by_all_their_turns() -> None:
    def chat(*questions: str) -> Example:
        return Example("chat", tuple(Exchange(question, "그래요") for question in questions))

    same = chat("어제 산 책이 재미없어", "환불할 수 있을까", "고마워")
    near = chat("어제 산 책이 재미없어", "환불할 수 있을까", "정말 고마워")
    other = chat("부산까지 얼마나 걸려", "기차가 더 빠를까", "고마워")
    assert groups_of([same, near, other]) == [0, 0, 2]


def test_what_few_rows_have_is_searched_even_if_it_is_the_instruction() -> None:
    rows = [row(one.exchanges[0].instruction, input="한 문장으로") for one in apart(300)]
    twin = row(rows[0].exchanges[0].instruction + "요", input="한 문장으로")
    assert groups_of([*rows, twin]) == [*range(300), 0]


def test_a_preamble_that_all_rows_share_joins_none() -> None:
    preamble = "Below is an instruction. Write a response that completes the request. ### "
    rows = [row(preamble + one.exchanges[0].instruction) for one in apart(200)]
    assert groups_of(rows) == list(range(200))
    twin = row(rows[7].exchanges[0].instruction + "요")
    assert groups_of([*rows, twin])[-1] == 7


def test_a_long_label_joins_no_rows() -> None:
    labels = (
        "이 글은 긍정적인 감정을 담고 있는 글입니다.",
        "이 글은 부정적인 감정을 담고 있는 글입니다.",
    )
    rows = [row(one.exchanges[0].instruction, labels[k % 2]) for k, one in enumerate(apart(100))]
    split = grouped(rows)
    assert split.num_groups == 100
    assert split.notes == (
        "100 of 100 rows share their long response with more than 5% of the rows: "
        "it was taken for a label and joins no rows",
    )
    assert groups_of(rows[:20]) == [0, 1] * 10  # 10 rows each: not yet a label


def twins() -> list[Example]:
    """300 rows: 240 single ones, 20 twins of the first of them, 10 groups of 4 by `group`."""
    rows = apart(240)
    rows += [row(one.exchanges[0].instruction + "요") for one in rows[:20]]
    return rows + [
        row(one.exchanges[0].instruction, group=f"g{number // 4}")
        for number, one in enumerate(apart(40, seed=1))
    ]


def test_no_group_is_parted_and_sizes_are_met() -> None:
    rows = twins()
    heads = groups_of(rows)
    assert sorted(set(heads)) == sorted({*range(240), *range(260, 300, 4)})
    seen = set()
    for seed in range(20):
        split = grouped(rows, seed=seed)
        parts = (split.train, split.val, split.test)
        assert [len(part) for part in parts] == [240, 30, 30]
        assert sorted(sum(parts, ())) == list(range(300))
        assert all(list(part) == sorted(part) for part in parts)
        heads_of = [{heads[place] for place in part} for part in parts]
        assert sum(len(heads_in_part) for heads_in_part in heads_of) == len(set(heads))
        assert (split.num_groups, split.notes) == (250, ())
        seen.add(split.test)
    assert len(seen) == 20


def test_split_is_a_function_of_rows_and_seed() -> None:
    rows = twins()
    assert grouped(rows, seed=3) == grouped(rows, seed=3)
    small = [*apart(8), row("비가 와", "우산"), row("비가 와")]
    assert grouped(small, val=0.2, test=0.2, seed=7) == Split(
        train=(1, 2, 3, 4, 5, 6),
        val=(0, 7),
        test=(8, 9),
        num_groups=9,
        num_cut_back_components=0,
        num_cut_back_rows=0,
        notes=(),
    )


def chain(num: int) -> list[Example]:
    """Each row is near to the next, the first and the last have nothing in common."""
    text = "".join(random.Random(5).choices(SYLLABLES, k=20 + 3 * num))
    return [row(text[3 * k : 3 * k + 20]) for k in range(num)]


def test_a_component_above_a_twentieth_is_cut_back_to_what_is_equal() -> None:
    links = chain(12)
    again = row(links[4].exchanges[0].instruction, "다른 답")
    loud = row(links[7].exchanges[0].instruction + "!!")
    promised = [row(one.exchanges[0].instruction, group="g") for one in links[9:11]]
    rows = [*links[:9], *promised, links[11], again, loud, *apart(186)]
    split = grouped(rows)
    assert groups_of(rows)[:14] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 11, 4, 7]
    assert (split.num_cut_back_components, split.num_cut_back_rows) == (1, 14)
    assert split.num_groups == 200 - 3
    assert split.notes == (
        "14 of 200 rows hang together by near-equal prompts in 1 component above 5% of the rows: "
        "there, only equal prompts, equal long responses and groups were kept together",
    )
    larger = [*rows, *apart(80, seed=9)]  # 14 of 280 rows are 5 %, not above
    assert grouped(larger).num_cut_back_components == 0
    assert groups_of(larger)[:14] == [0] * 14


def test_equality_above_a_twentieth_stays_whole() -> None:
    rows = [*(row(one.exchanges[0].instruction, group="g") for one in apart(60)), *apart(40, 1)]
    split = grouped(rows)
    assert (split.num_groups, split.num_cut_back_components) == (41, 0)
    assert set(range(60)) <= set(split.train)
    assert split.notes == ()


def test_sizes_that_cannot_be_met_are_said() -> None:
    rows = [
        row(one.exchanges[0].instruction, group=f"g{number // 25}")
        for number, one in enumerate(apart(100))
    ]
    split = grouped(rows)
    assert [len(part) for part in (split.train, split.val, split.test)] == [50, 25, 25]
    assert split.notes == (
        "val has 25 rows where 10 were asked for: rows that belong together were not parted, "
        "and the largest group has 25 rows",
        "test has 25 rows where 10 were asked for: rows that belong together were not parted, "
        "and the largest group has 25 rows",
    )


def test_the_closer_size_is_taken() -> None:
    rows = [
        row(one.exchanges[0].instruction, group=f"g{number // 6}")
        for number, one in enumerate(apart(120))
    ]
    assert len(grouped(rows, val=0, test=14 / 120).test) == 12
    assert len(grouped(rows, val=0, test=16 / 120).test) == 18
    assert grouped(rows, val=0, test=16 / 120).notes != ()
    assert grouped(rows, val=0, test=17 / 120).notes == ()  # one row off


def test_each_part_gets_a_group_where_there_are_enough() -> None:
    names = [*"aaabbbcccc"]
    rows = [
        row(one.exchanges[0].instruction, group=name)
        for name, one in zip(names, apart(10), strict=True)
    ]
    for seed in range(10):  # two groups of 3 in test would leave one for val and train
        split = grouped(rows, test=0.6, val=0.2, seed=seed)
        assert sorted(map(len, (split.train, split.val, split.test))) == [3, 3, 4]


def test_parts_that_were_not_asked_for_stay_empty() -> None:
    hows: tuple[Literal["grouped", "random"], ...] = ("grouped", "random")
    for how in hows:
        split = split_examples(apart(20), how=how, val_fraction=0, test_fraction=0, seed=0)
        assert (split.train, split.val, split.test) == (tuple(range(20)), (), ())


@pytest.mark.parametrize(
    ("examples", "val", "test", "message"),
    [
        (
            apart(4),
            0.1,
            0.0,
            "data.val_fraction: 0.1 of 4 rows is less than one row; raise it, add rows, "
            "or set it to 0",
        ),
        (
            apart(12),
            0.1,
            0.01,
            "data.test_fraction: 0.01 of 12 rows is less than one row; raise it, add rows, "
            "or set it to 0",
        ),
        (
            apart(10),
            0.5,
            0.5,
            "data.val_fraction, data.test_fraction: 0.5 and 0.5 of 10 rows leave none to train "
            "on; lower them",
        ),
    ],
)
@pytest.mark.parametrize("how", ["grouped", "random"])
def test_an_empty_part_is_refused(
    examples: list[Example],
    val: float,
    test: float,
    message: str,
    how: Literal["grouped", "random"],
) -> None:
    with pytest.raises(UserError) as caught:
        split_examples(examples, how=how, val_fraction=val, test_fraction=test, seed=0)
    assert str(caught.value) == message


def test_too_few_groups_are_refused() -> None:
    rows = [
        row(one.exchanges[0].instruction, group=f"g{number % 2}")
        for number, one in enumerate(apart(20))
    ]
    with pytest.raises(UserError) as caught:
        grouped(rows)
    assert str(caught.value) == (
        "data.val_fraction, data.test_fraction: the 20 rows make only 2 groups of rows that belong "
        "together, too few for train and val and test; add rows that differ, set it to 0, or use "
        "data.split=random"
    )
    assert [len(part) for part in (grouped(rows, test=0).train, grouped(rows, test=0).val)] == [
        10,
        10,
    ]
    with pytest.raises(UserError, match=r"^data\.val_fraction: the 5 rows make only 1 group of"):
        grouped([row("비가 와")] * 5, val=0.2, test=0)


def test_random_split_has_the_asked_sizes() -> None:
    rows = [row("모두 같은 질문")] * 1000

    def split(seed: int) -> Split:
        return split_examples(rows, how="random", val_fraction=0.1, test_fraction=0.1, seed=seed)

    first = split(42)
    assert [len(part) for part in (first.train, first.val, first.test)] == [800, 100, 100]
    assert sorted(first.train + first.val + first.test) == list(range(1000))
    assert list(first.train) == sorted(first.train)
    assert (first.num_groups, first.notes) == (1000, ())
    assert first == split(42)
    assert first.test != split(43).test


@pytest.mark.shared
def test_real_rows_are_split_without_leaks(shared: Path) -> None:
    rows = []
    for name in ("train", "val", "test"):
        text = (shared / f"data/songys_chatbot/{name}.jsonl").read_text(encoding="utf-8")
        for line in text.splitlines():
            fields = json.loads(line)
            rows.append(row(fields["instruction"], fields["output"]))
    parts = grouped(rows, seed=42)
    assert [len(part) for part in (parts.train, parts.val, parts.test)] == [9400, 1175, 1175]
    assert 10_500 < parts.num_groups < 10_600
    assert (parts.num_cut_back_rows, parts.notes) == (0, ())
    dealt = split_examples(rows, how="random", val_fraction=0.1, test_fraction=0.1, seed=42)
    leaks = []
    for split in (parts, dealt):
        train, test = ([rows[place] for place in part] for part in (split.train, split.test))
        leaks.append(len(audit_leaks(train, test).twins))
    # What MinHash misses (5 % of the pairs at the threshold) it misses in both, mostly.
    assert leaks[0] <= 2
    assert leaks[1] > 0.1 * 1175
