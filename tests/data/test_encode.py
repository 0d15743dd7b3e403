"""Prompt → Tokens: exact ids and labels, the beginning, the end, and what is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from honing.data.chat_template import render_chat
from honing.data.encode import (
    IGNORE,
    TextEncoder,
    Tokens,
    TooLong,
    encode_prompts,
    encode_questions,
)
from honing.data.example import Example, Exchange
from honing.data.template import TEMPLATES, Prompt, Segment, Supervise, render
from honing.model.load import chat_renderer, text_encoder
from tests.tiny import CHAT_TEMPLATE, PAIRS, example, tiny_encoder, tiny_tokenizer

END, IM_START, IM_END = 0, 1, 2
NAMES = [*TEMPLATES, "chat"]

# "물은?" in each template, up to the answer. The tiny tokenizer knows most Hangul as bytes; 264 is
# "###", 201 a line break, and 170 275 297 33 the question itself.
ASKED = {
    "instruction": (
        "264 285 85 86 84 87 69 86 75 274 28 201 170 275 297 33 201 201 264 223 319 85 82 274 "
        "85 71 28 201"
    ),
    "alpaca": (
        "36 71 78 81 89 223 75 85 223 67 80 223 75 80 85 86 84 87 69 86 75 274 223 86 74 67 "
        "86 223 70 71 85 69 84 75 68 71 85 223 67 223 86 67 85 77 16 223 57 84 75 86 71 223 "
        "67 223 84 71 85 82 274 85 71 223 86 74 67 86 223 67 82 82 84 81 82 84 75 67 86 71 78 "
        "91 223 69 81 79 82 78 71 86 71 85 223 86 273 223 84 71 83 87 71 85 86 16 201 201 264 "
        "285 85 86 84 87 69 86 75 274 28 201 170 275 297 33 201 201 264 223 319 85 82 274 85 "
        "71 28"
    ),
    "alpaca-ko": (
        "171 246 229 170 255 249 300 261 255 242 284 230 263 229 295 100 170 106 230 271 249 "
        "300 261 103 225 171 236 253 170 108 119 171 255 230 309 16 261 251 245 171 113 258 "
        "263 229 261 246 237 170 103 255 169 113 237 261 250 229 170 99 237 271 249 300 261 "
        "254 242 265 116 263 229 261 255 242 270 112 271 249 270 119 267 16 201 201 264 261 "
        "103 225 171 236 253 28 201 170 275 297 33 201 201 264 261 254 242 265 116 28 201"
    ),
    "koalpaca-v1.0": (
        "36 71 78 81 89 223 75 85 223 67 80 223 75 80 85 86 84 87 69 86 75 274 223 86 74 67 "
        "86 223 70 71 85 69 84 75 68 71 85 223 67 223 86 67 85 77 16 201 171 246 229 170 255 "
        "249 300 261 255 242 284 230 263 229 295 100 170 106 230 271 249 300 260 106 230 170 "
        "257 120 171 247 115 171 255 230 309 16 201 201 57 84 75 86 71 223 67 223 84 71 85 82 "
        "274 85 71 223 86 74 67 86 223 67 82 82 84 81 82 84 75 67 86 71 78 91 223 69 81 79 82 "
        "78 71 86 71 85 223 86 273 223 84 71 83 87 71 85 86 16 201 170 106 230 170 257 120 "
        "171 247 115 284 241 260 245 111 170 101 119 261 251 245 171 113 258 263 229 261 257 "
        "226 171 257 233 172 255 233 261 250 229 170 99 237 271 249 300 261 254 242 265 116 "
        "263 229 261 255 242 270 112 271 249 270 119 267 16 201 201 264 285 85 86 84 87 69 86 "
        "75 274 10 170 106 230 170 257 120 171 247 115 11 28 201 170 275 297 33 201 201 264 "
        "223 319 85 82 274 85 71 10 263 242 265 116 11 28"
    ),
    "koalpaca-v1.1": (
        "264 261 103 288 108 119 28 223 170 275 297 33 201 201 264 260 236 116 170 114 225 28"
    ),
    "chat": ("1 87 85 71 84 201 170 275 297 33 2 201 1 67 85 85 75 85 86 67 80 86 201"),
}
ANSWER = (270, 253, 262, 119, 171, 255, 230, 309, 16)
"""서울입니다."""
ANSWER_AFTER_A_SPACE = (295, *ANSWER[1:])
"""The same with a space before it, which the tokenizer joins to the first syllable."""


def prompt_of(example: Example, name: str, supervise: Supervise = "response") -> Prompt:
    if name == "chat":
        return render_chat(example, chat_renderer(tiny_tokenizer(), CHAT_TEMPLATE), supervise)
    return render(example, TEMPLATES[name], supervise)


def encode_one(prompt: Prompt, max_length: int = 4096, encoder: TextEncoder | None = None) -> Any:
    (tokens,) = encode_prompts([prompt], encoder or tiny_encoder(), max_length)
    return tokens


def decode(ids: Sequence[int]) -> str:
    tokenizer: Any = tiny_tokenizer()
    return str(tokenizer.decode(list(ids)))


def tokenizer_with_bos() -> Any:
    """The tiny tokenizer, which now puts <|im_start|> before every text."""
    tiny: Any = tiny_tokenizer()
    tokenizer = Tokenizer.from_str(tiny.backend_tokenizer.to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", IM_START)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<|im_start|>"
    )


# --- exact ids


@pytest.mark.parametrize("name", NAMES)
def test_the_ids_and_labels_of_a_row_are_these(name: str) -> None:
    asked = tuple(map(int, ASKED[name].split()))
    words = ANSWER_AFTER_A_SPACE if name == "koalpaca-v1.1" else ANSWER
    answer = (*words, IM_END if name == "chat" else END)
    assert encode_one(prompt_of(example("물은?", "서울입니다."), name)) == Tokens(
        "rows:1", ids=asked + answer, labels=(IGNORE,) * len(asked) + answer, num_cut=0
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_ids_say_what_the_prompt_says(name: str) -> None:
    prompt = prompt_of(example("물은?", "서울입니다."), name)
    end = "" if name == "chat" else "<|end|>"
    assert decode(encode_one(prompt).ids) == prompt.text + end
    assert ASKED[name].endswith("201") is prompt.segments[prompt.num_asked - 1].text.endswith("\n")


def test_what_is_learnt_is_counted() -> None:
    assert encode_one(prompt_of(example("물은?", "서울입니다."), "chat")).num_supervised == 10


def test_labels_of_a_chat_follow_its_segments() -> None:
    chat = Example("chat:1", (Exchange("1", "2"), Exchange("3", "4")))
    for supervise, labels in {
        "response": [IGNORE] * 8 + [22, END],
        "all_turns": [IGNORE] * 3 + [20, END, IGNORE, IGNORE, IGNORE, 22, END],
        "everything": [IGNORE, 19, 28, 20, END, 201, 21, 28, 22, END],
    }.items():
        segments = []
        for question, answer, first in (("1", "2", True), ("3", "4", False)):
            everything = supervise == "everything"
            learnt = supervise != "response" or not first
            segments += [
                Segment("Q" if first else "\n", everything),
                Segment(question, everything, literal=True),
                Segment(":", everything),
                Segment(answer, learnt, literal=True, ends_answer=True),
            ]
        tokens = encode_one(Prompt(chat.id, tuple(segments), 7))
        assert tokens.ids == (51, 19, 28, 20, END, 201, 21, 28, 22, END)
        assert list(tokens.labels) == labels


@pytest.mark.parametrize("name", NAMES)
def test_the_first_label_is_never_learnt_and_all_others_are_under_everything(name: str) -> None:
    tokens = encode_one(prompt_of(example("물은?", "서울입니다."), name, "everything"))
    assert tokens.labels == (IGNORE, *tokens.ids[1:])


# --- the beginning of a text


@pytest.mark.parametrize("name", TEMPLATES)
def test_bos_stands_once_before_a_row_where_the_tokenizer_puts_it(name: str) -> None:
    prompt = prompt_of(example("물은?", "서울입니다."), name)
    encoder = text_encoder(tokenizer_with_bos())
    assert encoder.bos_id == IM_START
    plain, with_bos = encode_one(prompt), encode_one(prompt, encoder=encoder)
    assert with_bos.ids == (IM_START, *plain.ids)
    assert with_bos.labels == (IGNORE, *plain.labels)


def test_bos_is_not_put_where_the_tokenizer_only_has_one() -> None:
    tiny: Any = tiny_tokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tiny.backend_tokenizer.to_str()),
        eos_token="<|end|>",
        bos_token="<|im_start|>",
    )
    assert text_encoder(tokenizer).bos_id is None
    assert tiny_encoder().bos_id is None


def test_bos_is_not_doubled_where_the_chat_template_writes_it() -> None:
    prompt = prompt_of(example("물은?", "서울입니다."), "chat")
    encoder = text_encoder(tokenizer_with_bos())
    assert encode_one(prompt, encoder=encoder) == encode_one(prompt)
    (question,) = encode_questions([prompt], encoder, 4096)
    assert isinstance(question, Tokens)
    assert question.ids[:2] == (IM_START, 87)


def test_a_user_who_types_the_name_of_bos_does_not_replace_it() -> None:
    prompt = Prompt("x", (Segment("<|im_start|>", literal=True), Segment("a", True)), 1)
    tokens = encode_one(prompt, encoder=text_encoder(tokenizer_with_bos()))
    assert tokens.ids == (IM_START, 30, 94, 75, 79, 65, 85, 86, 67, 84, 86, 94, 32, 67)


# --- segments and texts


def test_names_of_special_tokens_are_tokens_in_a_template_and_characters_in_the_users_words() -> (
    None
):
    tokens = encode_one(
        Prompt("x", (Segment("<|im_end|>"), Segment("<|im_end|>", True, literal=True)), 1)
    )
    assert tokens.ids == (IM_END, 30, 94, 75, 79, 65, 71, 80, 70, 94, 32)
    assert decode(tokens.ids) == "<|im_end|><|im_end|>"


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_the_ids_of_its_segments_end_to_end(name: str) -> None:
    encoder = tiny_encoder()
    for question, answer in PAIRS:
        prompt = prompt_of(example(question, answer, input=answer), name)
        expected: list[int] = []
        for segment in prompt.segments:
            (ids,) = encoder.encode([segment.text], segment.literal)
            expected += ids + [END] * segment.ends_answer
        assert encode_one(prompt).ids == tuple(expected)


@pytest.mark.parametrize("with_bos", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_ids_of_a_question_are_those_that_training_saw_before_the_answer(
    name: str, with_bos: bool
) -> None:
    encoder = text_encoder(tokenizer_with_bos()) if with_bos else tiny_encoder()
    prompts = [
        prompt_of(example(question, answer, input, row), name)
        for row, (question, answer) in enumerate(PAIRS)
        for input in ("", answer)
    ]
    rows = encode_prompts(prompts, encoder, 4096)
    questions = encode_questions(prompts, encoder, 4096)
    for whole, question in zip(rows, questions, strict=True):
        assert isinstance(whole, Tokens)
        assert isinstance(question, Tokens)
        num_asked = len(question.ids)
        assert whole.ids[:num_asked] == question.ids
        assert set(whole.labels[:num_asked]) == {IGNORE}
        assert whole.labels[num_asked:] == whole.ids[num_asked:]
        assert question.labels == (IGNORE,) * num_asked
        assert question.example_id == whole.example_id


def test_a_text_that_stands_in_many_rows_is_encoded_once() -> None:
    asked: list[tuple[list[str], bool]] = []

    def encode(texts: Sequence[str], literal: bool) -> list[list[int]]:
        asked.append((list(texts), literal))
        return [[len(text)] for text in texts]

    prompts = [prompt_of(example("q", answer), "instruction") for answer in ("a", "bb", "q")]
    rows = encode_prompts(prompts, TextEncoder(encode, eos_id=9), 100)
    assert asked == [
        (["### Instruction:\n", "\n\n### Response:\n"], False),
        (["q", "a", "bb"], True),
    ]
    assert [row.ids for row in rows if isinstance(row, Tokens)] == [
        (17, 1, 16, 1, 9),
        (17, 1, 16, 2, 9),
        (17, 1, 16, 1, 9),
    ]


def test_nothing_to_encode_is_nothing() -> None:
    assert encode_prompts([], tiny_encoder(), 8) == []


# --- cuts

# Instruction 10 ids, input 6, answer 2 and its end, template 1 + 1 + 1: 22 in all.
LONG = Prompt(
    "long:1",
    (
        Segment("Q"),
        Segment("0a1b2c3d4e", literal=True, cut_order=2),
        Segment(":"),
        Segment("UVWXYZ", literal=True, cut_order=1),
        Segment("\n"),
        Segment("ab", supervised=True, literal=True, ends_answer=True),
    ),
    num_asked=5,
)


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [
        (23, "Q0a1b2c3d4e:UVWXYZ\nab"),
        (22, "Q0a1b2c3d4e:UVWXYZ\nab"),
        (21, "Q0a1b2c3d4e:VWXYZ\nab"),
        (17, "Q0a1b2c3d4e:Z\nab"),
        (16, "Q0a1b2c3d4e:\nab"),
        (15, "Qa1b2c3d4e:\nab"),
        (7, "Qe:\nab"),
        (6, "Q:\nab"),
    ],
)
def test_the_input_is_cut_from_the_left_and_then_the_instruction(
    max_length: int, expected: str
) -> None:
    whole = encode_one(LONG)
    assert len(whole.ids) == 22
    tokens = encode_one(LONG, max_length)
    assert decode(tokens.ids) == f"{expected}<|end|>"
    assert tokens.ids[-4:] == whole.ids[-4:] == (201, 67, 68, END)
    assert tokens.labels == (IGNORE,) * (len(tokens.ids) - 3) + (67, 68, END)
    assert (len(tokens.ids), tokens.num_cut) == (min(22, max_length), max(0, 22 - max_length))


@pytest.mark.parametrize("max_length", [5, 1, 0])
def test_an_answer_that_does_not_fit_says_how_many_tokens_it_needs(max_length: int) -> None:
    assert encode_one(LONG, max_length) == TooLong("long:1", num_needed=6)


def test_a_question_is_cut_in_the_same_order() -> None:
    texts = {}
    for max_length in (19, 18, 13, 12, 3, 2):
        (tokens,) = encode_questions([LONG], tiny_encoder(), max_length)
        texts[max_length] = decode(tokens.ids) if isinstance(tokens, Tokens) else tokens
    assert texts == {
        19: "Q0a1b2c3d4e:UVWXYZ\n",
        18: "Q0a1b2c3d4e:VWXYZ\n",
        13: "Q0a1b2c3d4e:\n",
        12: "Qa1b2c3d4e:\n",
        3: "Q:\n",
        2: TooLong("long:1", num_needed=3),
    }


def test_bos_is_never_cut_and_counts() -> None:
    encoder = text_encoder(tokenizer_with_bos())
    assert encode_one(LONG, 23, encoder).num_cut == 0
    tokens = encode_one(LONG, 7, encoder)
    assert (tokens.ids[0], tokens.num_cut, decode(tokens.ids[1:])) == (
        IM_START,
        16,
        "Q:\nab<|end|>",
    )
    assert encode_one(LONG, 6, encoder) == TooLong("long:1", num_needed=7)


def test_each_end_of_a_chat_counts_and_the_oldest_input_is_cut_first() -> None:
    chat = Example("chat:1", (Exchange("12", "a", "34"), Exchange("56", "b", "78")))
    prompt = render(chat, TEMPLATES["koalpaca-v1.1"], "response")
    length = len(encode_one(prompt).ids)
    cut = [decode(encode_one(prompt, length - num_cut).ids) for num_cut in range(1, 9)]
    words = [
        [part.split("\n")[0] for part in text.replace("맥락: ", "질문: ").split("질문: ")[1:]]
        for text in cut
    ]
    assert words == [
        ["12", "4", "56", "78"],
        ["12", "", "56", "78"],
        ["12", "", "56", "8"],
        ["12", "", "56", ""],
        ["2", "", "56", ""],
        ["", "", "56", ""],
        ["", "", "6", ""],
        ["", "", "", ""],
    ]
    assert encode_one(prompt, length - 9) == TooLong("chat:1", num_needed=length - 8)


def test_a_cut_row_of_everything_still_begins_unlearnt() -> None:
    segments = (Segment("wxyz", True, literal=True, cut_order=2), Segment("ab", True))
    tokens = encode_one(Prompt("x", segments, 1), 4)
    assert tokens == Tokens("x", (91, 92, 67, 68), (IGNORE, 92, 67, 68), num_cut=2)
