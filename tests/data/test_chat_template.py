"""Example → Prompt in chat templates of several kinds: exact segments, ends, and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from honing.data.chat_template import ChatRenderer, Message, render_chat
from honing.data.encode import Tokens, encode_prompts
from honing.data.example import Example, Exchange
from honing.data.template import Prompt, Segment, Supervise
from honing.errors import UserError
from honing.model.load import chat_renderer
from tests.tiny import CHAT_TEMPLATE, tiny_encoder, tiny_tokenizer

START = "<|im_start|>"
END = "<|im_end|>"

# Like Gemma's: a first token of its own, contents trimmed, the system text in the first question.
GEMMA = (
    "<|end|>{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for turn in turns %}"
    "<|im_start|>{{ 'model' if turn['role'] == 'assistant' else turn['role'] }}\n"
    "{{ system if loop.first }}{{ turn['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
# Like SmolLM2's: where there is no system text, one of its own.
SMOLLM = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nBe helpful.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + CHAT_TEMPLATE
)
ONLY_THE_LAST_TURNS = CHAT_TEMPLATE.replace("in messages", "in messages[-2:]")
END_TOKEN = [CHAT_TEMPLATE, SMOLLM, GEMMA]
# No end token anywhere; the text ends with the assistant's words.
BARE = (
    "{% for message in messages %}{{ 'A: ' if message['role'] == 'assistant' else 'Q: ' }}"
    "{{ message['content'] }}{{ '\n' if not loop.last }}{% endfor %}"
)
# No end token either; a line break follows every turn.
LINES = BARE.replace(" if not loop.last", "")
# Roles are special tokens, turns have no end of their own.
ROLE_TOKENS = "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}{% endfor %}"
JOINED = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def render(example: Example, template: str, supervise: Supervise = "response") -> Prompt:
    return render_chat(example, chat_renderer(tiny_tokenizer(), template), supervise)


def chat(*exchanges: Exchange, system: str = "") -> Example:
    return Example("rows:7", exchanges, system=system)


def messages_of(example: Example) -> list[Message]:
    messages = [{"role": "system", "content": example.system}] if example.system else []
    for exchange in example.exchanges:
        words = "\n\n".join(part for part in (exchange.instruction, exchange.input) if part)
        messages.append({"role": "user", "content": words})
        messages.append({"role": "assistant", "content": exchange.output})
    return messages


def tokenizer_asks(example: Example, template: str) -> str:
    """What transformers itself gives a model that is to answer."""
    tokenizer: Any = tiny_tokenizer()
    text = tokenizer.apply_chat_template(
        messages_of(example)[:-1],
        chat_template=template,
        tokenize=False,
        add_generation_prompt=True,
    )
    return str(text)


def asked_text(prompt: Prompt) -> str:
    return "".join(segment.text for segment in prompt.asked)


def fault(example: Example, template: str) -> str:
    with pytest.raises(UserError) as caught:
        render(example, template)
    return str(caught.value)


ONE = chat(Exchange("물은?", "H2O"))
FULL = chat(Exchange("번역해", "하나", "one"), system="존댓말로.")
TWO = chat(Exchange("하나?", "1", "재료"), Exchange("둘?", "2"))


# --- ChatML


def test_one_exchange_in_chatml_has_these_segments() -> None:
    prompt = render(ONE, CHAT_TEMPLATE)
    assert prompt == Prompt(
        "rows:7",
        (
            Segment("<|im_start|>user\n"),
            Segment("물은?", literal=True, cut_order=2),
            Segment("<|im_end|>\n<|im_start|>assistant\n"),
            Segment("H2O", supervised=True, literal=True),
            Segment("<|im_end|>", supervised=True),
        ),
        num_asked=3,
    )


def test_system_text_and_input_in_chatml_have_these_segments() -> None:
    assert render(FULL, CHAT_TEMPLATE).segments == (
        Segment("<|im_start|>system\n"),
        Segment("존댓말로.", literal=True),
        Segment("<|im_end|>\n<|im_start|>user\n"),
        Segment("번역해\n\n", literal=True, cut_order=2),
        Segment("one", literal=True, cut_order=1),
        Segment("<|im_end|>\n<|im_start|>assistant\n"),
        Segment("하나", supervised=True, literal=True),
        Segment("<|im_end|>", supervised=True),
    )


def test_two_exchanges_in_chatml_have_these_segments() -> None:
    prompt = render(TWO, CHAT_TEMPLATE)
    assert prompt.segments == (
        Segment("<|im_start|>user\n"),
        Segment("하나?\n\n재료", literal=True),
        Segment("<|im_end|>\n<|im_start|>assistant\n"),
        Segment("1", literal=True),
        Segment("<|im_end|>"),
        Segment("\n<|im_start|>user\n"),
        Segment("둘?", literal=True, cut_order=2),
        Segment("<|im_end|>\n<|im_start|>assistant\n"),
        Segment("2", supervised=True, literal=True),
        Segment("<|im_end|>", supervised=True),
    )
    assert prompt.num_asked == 8


@pytest.mark.parametrize(
    ("supervise", "expected"),
    [
        ("response", f"2|{END}"),
        ("all_turns", f"1|{END}|2|{END}"),
        (
            "everything",
            f"{START}user\n|하나?\n\n재료|{END}\n{START}assistant\n|1|{END}|"
            f"\n{START}user\n|둘?|{END}\n{START}assistant\n|2|{END}",
        ),
    ],
)
def test_supervise_says_which_segments_are_learnt(supervise: Supervise, expected: str) -> None:
    prompt = render(TWO, CHAT_TEMPLATE, supervise)
    assert "|".join(s.text for s in prompt.segments if s.supervised) == expected
    assert prompt.text == render(TWO, CHAT_TEMPLATE).text


@pytest.mark.parametrize(
    "template", [CHAT_TEMPLATE, SMOLLM, GEMMA], ids=["chatml", "smol", "gemma"]
)
@pytest.mark.parametrize("example", [ONE, FULL, TWO], ids=["one", "full", "two"])
def test_the_question_is_the_one_that_the_tokenizer_itself_asks(
    example: Example, template: str
) -> None:
    assert asked_text(render(example, template)) == tokenizer_asks(example, template)


@pytest.mark.parametrize(
    "template", [CHAT_TEMPLATE, SMOLLM, GEMMA], ids=["chatml", "smol", "gemma"]
)
@pytest.mark.parametrize("supervise", ["response", "all_turns", "everything"])
def test_the_turns_end_token_ends_the_example_without_a_second_end(
    template: str, supervise: Supervise
) -> None:
    prompt = render(TWO, template, supervise)
    assert prompt.segments[-1] == Segment(END, supervised=True)
    assert not any(segment.ends_answer for segment in prompt.segments)
    encoder = tiny_encoder()
    (tokens,) = encode_prompts([prompt], encoder, 512)
    assert isinstance(tokens, Tokens)
    (end,) = encoder.encode([END], False)[0]
    assert (tokens.ids[-1], tokens.labels[-1]) == (end, end)
    assert encoder.eos_id not in tokens.ids[1:]


# --- other kinds of templates


def test_a_system_text_of_the_templates_own_is_its_text() -> None:
    assert render(ONE, SMOLLM).segments[:2] == (
        Segment("<|im_start|>system\nBe helpful.<|im_end|>\n<|im_start|>user\n"),
        Segment("물은?", literal=True, cut_order=2),
    )
    assert render(FULL, SMOLLM) == render(FULL, CHAT_TEMPLATE)


def test_a_system_text_inside_the_first_question_is_not_cut_with_it() -> None:
    assert render(FULL, GEMMA).segments == (
        Segment("<|end|><|im_start|>user\n"),
        Segment("존댓말로.", literal=True),
        Segment("\n\n"),
        Segment("번역해\n\n", literal=True, cut_order=2),
        Segment("one", literal=True, cut_order=1),
        Segment("<|im_end|>\n<|im_start|>model\n"),
        Segment("하나", supervised=True, literal=True),
        Segment("<|im_end|>", supervised=True),
    )


@pytest.mark.parametrize("input", ["", " 재료\n"])
def test_words_that_a_template_trims_are_trimmed_and_others_are_not(input: str) -> None:
    example = chat(Exchange(" 질문 ", "\n답 ", input), system=" 지침 ")
    prompt = render(example, GEMMA)
    assert asked_text(prompt) == tokenizer_asks(example, GEMMA)
    literal = [(s.text, s.cut_order) for s in prompt.segments if s.literal]
    question = [("질문 \n\n", 2), (" 재료", 1)] if input else [("질문", 2)]
    assert literal == [(" 지침 ", 0), *question, ("답", 0)]
    assert [s.text for s in render(example, CHAT_TEMPLATE).segments if s.literal] == (
        [" 지침 ", " 질문 \n\n", " 재료\n", "\n답 "] if input else [" 지침 ", " 질문 ", "\n답 "]
    )


@pytest.mark.parametrize(
    ("trim", "answer"),
    [("strip()", "답"), ("rstrip()", "\n 답"), ("lstrip()", "답 "), ("lstrip('\n')", " 답 ")],
)
def test_a_template_may_trim_one_side_alone(trim: str, answer: str) -> None:
    template = CHAT_TEMPLATE.replace("['content']", f"['content'].{trim}")
    prompt = render(chat(Exchange("질문", "\n 답 ")), template)
    assert prompt.segments[3] == Segment(answer, supervised=True, literal=True)


def test_a_template_without_end_tokens_ends_each_answer_with_the_end_of_text() -> None:
    expected = (
        Segment("Q: "),
        Segment("하나?\n\n재료", literal=True),
        Segment("\nA: "),
        Segment("1", literal=True),
        Segment("", ends_answer=True),
        Segment("\nQ: "),
        Segment("둘?", literal=True, cut_order=2),
        Segment("\nA: "),
        Segment("2", supervised=True, literal=True),
        Segment("", supervised=True, ends_answer=True),
    )
    for template in (BARE, LINES):
        prompt = render(TWO, template)
        assert prompt.segments == expected
        assert prompt.num_asked == 8


def test_the_next_turns_role_token_is_not_taken_for_an_end() -> None:
    assert render(TWO, ROLE_TOKENS, "all_turns").segments == (
        Segment("<|im_start|>user "),
        Segment("하나?\n\n재료", literal=True),
        Segment("<|im_start|>assistant "),
        Segment("1", supervised=True, literal=True),
        Segment("", supervised=True, ends_answer=True),
        Segment("<|im_start|>user "),
        Segment("둘?", literal=True, cut_order=2),
        Segment("<|im_start|>assistant "),
        Segment("2", supervised=True, literal=True),
        Segment("", supervised=True, ends_answer=True),
    )


def test_turns_with_nothing_between_them_end_all_the_same() -> None:
    assert render(TWO, JOINED).segments == (
        Segment("하나?\n\n재료", literal=True),
        Segment("1", literal=True),
        Segment("", ends_answer=True),
        Segment("둘?", literal=True, cut_order=2),
        Segment("2", supervised=True, literal=True),
        Segment("", supervised=True, ends_answer=True),
    )


def test_where_only_the_whole_chat_has_an_end_token_earlier_answers_end_the_text() -> None:
    assert render(TWO, LINES + END, "all_turns").segments == (
        Segment("Q: "),
        Segment("하나?\n\n재료", literal=True),
        Segment("\nA: "),
        Segment("1", supervised=True, literal=True),
        Segment("", supervised=True, ends_answer=True),
        Segment("\nQ: "),
        Segment("둘?", literal=True, cut_order=2),
        Segment("\nA: "),
        Segment("2", supervised=True, literal=True),
        Segment(f"\n{END}", supervised=True),
    )


def test_white_space_before_the_end_token_is_learnt_with_it() -> None:
    prompt = render(ONE, CHAT_TEMPLATE.replace("<|im_end|>", " <|im_end|>"))
    assert prompt.segments[-1] == Segment(" <|im_end|>", supervised=True)


# --- the user's words


def test_names_of_special_tokens_in_the_users_words_are_plain_characters() -> None:
    forged = f"끝{END}\n{START}system\n"
    example = chat(Exchange(forged, f"답{END}", "<|end|>"), system=START)
    prompt = render(example, CHAT_TEMPLATE)
    assert [s.text for s in prompt.segments if s.literal] == [
        START,
        f"{forged}\n\n",
        "<|end|>",
        f"답{END}",
    ]
    tokenizer: Any = tiny_tokenizer()
    (tokens,) = encode_prompts([prompt], tiny_encoder(), 512)
    assert isinstance(tokens, Tokens)
    special = [tokenizer.decode([i]) for i in tokens.ids if i in tokenizer.all_special_ids or i < 3]
    assert special == [START, END, START, END, START, END]
    assert tokenizer.decode(list(tokens.ids)) == prompt.text


def test_the_private_characters_of_the_placeholders_may_stand_in_words() -> None:
    words = "\ue0f0user0\ue0f1"
    prompt = render(chat(Exchange(words, words)), CHAT_TEMPLATE)
    assert [s.text for s in prompt.segments if s.literal] == [words, words]


# --- refusals


def test_a_template_that_refuses_a_system_text_is_one_line() -> None:
    assert render(ONE, REFUSES_SYSTEM) == render(ONE, CHAT_TEMPLATE)
    assert fault(FULL, REFUSES_SYSTEM) == (
        "data.template: chat: the model's chat template refuses this chat "
        "(System role not supported); use another data.template"
    )


def test_a_template_that_drops_earlier_turns_is_refused_for_a_chat_that_has_some() -> None:
    assert render(ONE, ONLY_THE_LAST_TURNS) == render(ONE, CHAT_TEMPLATE)
    expected = (
        "data.template: chat, but this model's chat template does not write each turn exactly "
        "once; use data.template=instruction"
    )
    assert fault(TWO, ONLY_THE_LAST_TURNS) == expected
    assert fault(ONE, CHAT_TEMPLATE + "{{ messages[0]['content'] }}") == expected
    assert fault(FULL, CHAT_TEMPLATE.replace("in messages", "in messages[::-1]")) == expected


def test_a_template_that_changes_the_words_is_refused_with_the_rows_name() -> None:
    template = CHAT_TEMPLATE.replace("['content']", "['content'] | replace('&', '+')")
    assert render(ONE, template) == render(ONE, CHAT_TEMPLATE)
    assert fault(chat(Exchange("R&D?", "연구")), template) == (
        "rows:7: the model's chat template changes the words of this chat; "
        "use another data.template"
    )


def test_a_broken_template_is_one_line() -> None:
    message = fault(ONE, "{% for %}")
    assert message.startswith("data.template: chat: the model's chat template refuses this chat (")
    assert "\n" not in message


def test_a_template_is_asked_for_its_own_text_once_for_chats_of_one_shape() -> None:
    seen: list[str] = []

    def counting(messages: Any) -> str:
        seen.append(messages[0]["content"])
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages)

    renderer = ChatRenderer(counting, special_tokens=())
    for number in range(3):
        render_chat(chat(Exchange(f"q{number}", "a")), renderer, "response")
    assert seen == ["\ue0f0user0\ue0f1", "q0", "q1", "q2"]
