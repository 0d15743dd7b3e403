"""Example → Prompt: exact texts and segments of every template of plain text."""

from __future__ import annotations

import json

import pytest

from honing.config import TemplateConfig
from honing.data.example import Example, Exchange
from honing.data.template import TEMPLATES, Segment, Supervise, Template, choose_template, render
from honing.errors import UserError

ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
)
ALPACA_KO = "아래는 작업을 설명하는 지시문입니다. 요청을 알맞게 완료하는 응답을 작성하세요.\n\n"
ALPACA_KO_INPUT = (
    "아래는 작업을 설명하는 지시문과 추가 맥락을 담은 입력입니다. "
    "요청을 알맞게 완료하는 응답을 작성하세요.\n\n"
)
KOALPACA = (
    "Below is an instruction that describes a task.\n"
    "아래는 작업을 설명하는 명령어입니다.\n\n"
    "Write a response that appropriately completes the request.\n"
    "명령어에 따른 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
)
KOALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context.\n"
    "아래는 작업을 설명하는 명령어와 추가적 맥락을 제공하는 입력이 짝을 이루는 예제입니다.\n\n"
    "Write a response that appropriately completes the request.\n"
    "요청을 적절히 완료하는 응답을 작성하세요.\n\n"
)

# name → (before the instruction, before the input, before the answer, the answer's own beginning)
WITH_INPUT = {
    "instruction": ("### Instruction:\n", "\n\n### Input:\n", "\n\n### Response:\n", ""),
    "alpaca": (
        f"{ALPACA_INPUT}### Instruction:\n",
        "\n\n### Input:\n",
        "\n\n### Response:",
        "",
    ),
    "alpaca-ko": (f"{ALPACA_KO_INPUT}### 지시:\n", "\n\n### 입력:\n", "\n\n### 응답:\n", ""),
    "koalpaca-v1.0": (
        f"{KOALPACA_INPUT}### Instruction(명령어):\n",
        "\n\n### Input(입력):\n",
        "\n\n### Response(응답):",
        "",
    ),
    "koalpaca-v1.1": ("### 질문: ", "\n\n### 맥락: ", "\n\n### 답변:", " "),
}
# name → (before the instruction, before the answer, the answer's own beginning)
WITHOUT_INPUT = {
    "instruction": ("### Instruction:\n", "\n\n### Response:\n", ""),
    "alpaca": (f"{ALPACA}### Instruction:\n", "\n\n### Response:", ""),
    "alpaca-ko": (f"{ALPACA_KO}### 지시:\n", "\n\n### 응답:\n", ""),
    "koalpaca-v1.0": (f"{KOALPACA}### Instruction(명령어):\n", "\n\n### Response(응답):", ""),
    "koalpaca-v1.1": ("### 질문: ", "\n\n### 답변:", " "),
}
SHORT = TEMPLATES["instruction"]


def example(*exchanges: Exchange, system: str = "") -> Example:
    return Example("rows:1", exchanges, system=system)


def custom(prompt: str, without_input: str | None = None) -> Template:
    return choose_template(
        TemplateConfig(prompt=prompt, prompt_without_input=without_input), chat_template=None
    )


# --- the templates that have a name


def test_every_named_template_of_plain_text_is_tested_here() -> None:
    assert set(TEMPLATES) == set(WITH_INPUT) == set(WITHOUT_INPUT)


@pytest.mark.parametrize("name", WITH_INPUT)
def test_a_row_with_an_input_has_these_segments(name: str) -> None:
    before, between, after, prefix = WITH_INPUT[name]
    prompt = render(example(Exchange("번역해", "하나", "one")), TEMPLATES[name], "response")
    assert prompt.segments == (
        Segment(before),
        Segment("번역해", literal=True, cut_order=2),
        Segment(between),
        Segment("one", literal=True, cut_order=1),
        Segment(after),
        Segment(f"{prefix}하나", supervised=True, literal=True, ends_answer=True),
    )
    assert prompt.example_id == "rows:1"
    assert prompt.asked == prompt.segments[:5]
    assert prompt.text == f"{before}번역해{between}one{after}{prefix}하나"


@pytest.mark.parametrize("name", WITHOUT_INPUT)
def test_a_row_without_an_input_has_these_segments(name: str) -> None:
    before, after, prefix = WITHOUT_INPUT[name]
    prompt = render(example(Exchange("물은?", "H2O")), TEMPLATES[name], "response")
    assert prompt.segments == (
        Segment(before),
        Segment("물은?", literal=True, cut_order=2),
        Segment(after),
        Segment(f"{prefix}H2O", supervised=True, literal=True, ends_answer=True),
    )
    assert prompt.asked == prompt.segments[:3]
    assert prompt.text == f"{before}물은?{after}{prefix}H2O"


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("material", ["", "재료"])
def test_no_question_ends_in_a_space(name: str, material: str) -> None:
    asked = render(example(Exchange("q", "a", material)), TEMPLATES[name], "response").asked
    assert not asked[-1].text.endswith(" ")


def test_the_first_drafts_form_is_exact() -> None:
    exchange = Exchange("한국의 수도는?", "서울입니다.")
    assert render(example(exchange), SHORT, "response").text == (
        "### Instruction:\n한국의 수도는?\n\n### Response:\n서울입니다."
    )


# --- templates of the user's own


def test_a_custom_template_may_have_the_input_before_the_instruction() -> None:
    template = custom("글: {input}\n질문: {instruction}\n답:\n")
    prompt = render(example(Exchange("무엇?", "공", "공을 찼다")), template, "response")
    assert prompt.segments == (
        Segment("글: "),
        Segment("공을 찼다", literal=True, cut_order=1),
        Segment("\n질문: "),
        Segment("무엇?", literal=True, cut_order=2),
        Segment("\n답:\n"),
        Segment("공", supervised=True, literal=True, ends_answer=True),
    )


def test_a_custom_template_without_an_input_leaves_its_place_empty() -> None:
    template = custom("글: {input}\n질문: {instruction}\n답:\n")
    assert template == Template(
        "custom", "글: {input}\n질문: {instruction}\n답:\n", "글: \n질문: {instruction}\n답:\n"
    )
    assert render(example(Exchange("무엇?", "공")), template, "response").text == (
        "글: \n질문: 무엇?\n답:\n공"
    )


def test_a_custom_template_with_a_form_of_its_own_for_rows_without_input() -> None:
    template = custom("{instruction}\n{input}\n", "Q {instruction}\n")
    assert render(example(Exchange("q", "a")), template, "response").text == "Q q\na"
    assert render(example(Exchange("q", "a", "i")), template, "response").text == "q\ni\na"


def test_the_space_before_an_empty_input_does_not_end_the_prompt() -> None:
    template = custom("{instruction} {input}")
    assert template.prompt_without_input == "{instruction}"
    assert render(example(Exchange("q", "a")), template, "response").segments == (
        Segment("q", literal=True, cut_order=2),
        Segment("a", supervised=True, literal=True, ends_answer=True),
    )


def test_a_template_without_a_place_for_the_input_leaves_it_out() -> None:
    prompt = render(example(Exchange("q", "a", "unused")), custom("{instruction}:"), "response")
    assert prompt.text == "q:a"


# --- the user's words


@pytest.mark.parametrize("name", TEMPLATES)
def test_words_that_look_like_places_stay_as_they_are(name: str) -> None:
    before, between, after, prefix = WITH_INPUT[name]
    words = Exchange("{input} {instruction}", "{instruction}{input}", "{instruction} {0} %s")
    prompt = render(example(words), TEMPLATES[name], "response")
    assert prompt.text == (
        f"{before}{{input}} {{instruction}}{between}{{instruction}} {{0}} %s{after}{prefix}"
        "{instruction}{input}"
    )
    literal = [segment.text for segment in prompt.segments if segment.literal]
    assert literal == [words.instruction, words.input, f"{prefix}{words.output}"]


def test_a_system_text_stands_first_and_is_never_cut() -> None:
    prompt = render(example(Exchange("q", "a"), system="존댓말로."), SHORT, "response")
    assert prompt.segments[:3] == (
        Segment("존댓말로.", literal=True),
        Segment("\n\n"),
        Segment("### Instruction:\n"),
    )
    assert prompt.num_asked == 5


# --- several exchanges


def test_exchanges_are_parted_by_a_blank_line_and_each_answer_ends() -> None:
    chat = example(Exchange("하나?", "1", "재료"), Exchange("둘?", "2", "재료 2"))
    prompt = render(chat, SHORT, "response")
    assert prompt.text == (
        "### Instruction:\n하나?\n\n### Input:\n재료\n\n### Response:\n1"
        "\n\n"
        "### Instruction:\n둘?\n\n### Input:\n재료 2\n\n### Response:\n2"
    )
    assert prompt.segments[5:8] == (
        Segment("1", literal=True, ends_answer=True),
        Segment("\n\n"),
        Segment("### Instruction:\n"),
    )
    assert prompt.num_asked == 12
    cuttable = [
        (segment.text, segment.cut_order) for segment in prompt.segments if segment.cut_order
    ]
    assert cuttable == [("하나?", 2), ("재료", 1), ("둘?", 2), ("재료 2", 1)]


@pytest.mark.parametrize(
    ("supervise", "expected"),
    [
        ("response", "2"),
        ("all_turns", "1|2"),
        (
            "everything",
            "지침|\n\n|### Instruction:\n|하나?|\n\n### Response:\n|1"
            "|\n\n|### Instruction:\n|둘?|\n\n### Response:\n|2",
        ),
    ],
)
def test_supervise_says_which_segments_are_learnt(supervise: Supervise, expected: str) -> None:
    chat = example(Exchange("하나?", "1"), Exchange("둘?", "2"), system="지침")
    prompt = render(chat, SHORT, supervise)
    assert "|".join(s.text for s in prompt.segments if s.supervised) == expected
    ends = [segment.text for segment in prompt.segments if segment.ends_answer]
    assert ends == ["1", "2"]


@pytest.mark.parametrize("supervise", ["response", "all_turns", "everything"])
def test_what_is_learnt_does_not_change_the_text(supervise: Supervise) -> None:
    chat = example(Exchange("하나?", "1", "재료"), Exchange("둘?", "2"), system="지침")
    plain, other = render(chat, SHORT, "response"), render(chat, SHORT, supervise)
    assert (other.text, other.num_asked) == (plain.text, plain.num_asked)


def test_an_answer_yet_to_come_leaves_only_its_end() -> None:
    prompt = render(example(Exchange("q", "")), SHORT, "response")
    assert prompt.segments[3:] == (Segment("", supervised=True, literal=True, ends_answer=True),)
    assert prompt.asked == render(example(Exchange("q", "a")), SHORT, "response").asked


# --- choosing and storing


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_chosen_by_its_name(name: str) -> None:
    assert choose_template(name, chat_template="unused") is TEMPLATES[name]


def test_the_models_own_chat_template_is_chosen_by_chat() -> None:
    assert choose_template("chat", "{{ messages }}") == Template(
        "chat", chat_template="{{ messages }}"
    )


@pytest.mark.parametrize("none", [None, ""])
def test_chat_without_a_chat_template_is_the_users_error(none: str | None) -> None:
    with pytest.raises(UserError) as caught:
        choose_template("chat", none)
    assert str(caught.value) == (
        "data.template: chat, but this base model has no chat template of its own; "
        "use data.template=instruction"
    )


@pytest.mark.parametrize(
    "template",
    [*TEMPLATES.values(), custom("{input}{instruction}:"), choose_template("chat", "{{ x }}")],
    ids=lambda template: template.name,
)
def test_a_template_comes_back_from_the_record_that_a_checkpoint_stores(
    template: Template,
) -> None:
    assert Template.from_record(json.loads(json.dumps(template.to_record()))) == template
