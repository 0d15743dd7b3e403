"""What the data path knows of a base: which ids end an answer, and which way a row is rendered."""

from __future__ import annotations

from dataclasses import replace

from honing.data.chat_template import render_chat
from honing.data.example import Example, Exchange
from honing.data.template import render
from tests.runs import tiny_text
from tests.tiny import tiny_tokenizer

EXAMPLE = Example("a:1", (Exchange("더해라", "3", "1, 2"),), system="짧게", row=1)


def ids_of(*names: str) -> tuple[int, ...]:
    return tuple(tiny_tokenizer().convert_tokens_to_ids(name) for name in names)


def test_an_answer_of_a_plain_template_ends_in_eos_alone() -> None:
    assert tiny_text("instruction").end_ids() == ids_of("<|end|>")
    assert tiny_text("koalpaca-v1.1").end_ids() == ids_of("<|end|>")


def test_a_chats_own_end_token_comes_before_eos() -> None:
    assert tiny_text("chat").end_ids() == ids_of("<|im_end|>", "<|end|>")


def test_a_chat_that_ends_in_eos_has_one_end() -> None:
    text = tiny_text("chat")
    encoder = replace(text.encoder, eos_id=ids_of("<|im_end|>")[0])
    assert replace(text, encoder=encoder).end_ids() == ids_of("<|im_end|>")


def test_rows_are_rendered_by_the_chat_template_or_the_text_one() -> None:
    plain, chat = tiny_text("instruction"), tiny_text("chat")
    assert plain.to_prompt(EXAMPLE, "response") == render(EXAMPLE, plain.template, "response")
    assert plain.to_prompt(EXAMPLE, "response").text == (
        "짧게\n\n### Instruction:\n더해라\n\n### Input:\n1, 2\n\n### Response:\n3"
    )
    assert chat.chat is not None
    assert chat.to_prompt(EXAMPLE, "everything") == render_chat(EXAMPLE, chat.chat, "everything")
    assert chat.to_prompt(EXAMPLE, "response").text == (
        "<|im_start|>system\n짧게<|im_end|>\n<|im_start|>user\n더해라\n\n1, 2<|im_end|>\n"
        "<|im_start|>assistant\n3<|im_end|>"
    )


def test_ids_are_decoded_with_the_names_of_special_tokens() -> None:
    text = tiny_text()
    (ids,) = text.encoder.encode(["안녕 , 하세요"], False)
    assert text.decode([*ids, *ids_of("<|end|>")]) == "안녕 , 하세요<|end|>"
