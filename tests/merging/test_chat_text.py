"""Templates of ours as transformers and Ollama read them."""

from __future__ import annotations

from typing import Any

import pytest

from honing.data.encode import Tokens, encode_questions
from honing.data.example import Example, Exchange
from honing.data.template import TEMPLATES, Template
from honing.merging.chat_text import jinja_template, ollama_template
from tests.runs import tiny_text
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

CHAT = Example(
    "rows:1",
    (Exchange("물은 몇 도에서 끓나요?", "섭씨 100도입니다."), Exchange('{{ 1 }} "hi"', "5")),
    system="짧게 답하세요.",
)
QUESTION = Example("rows:2", (Exchange("대한민국의 수도는 어디인가요?", ""),))
MESSAGES = [
    {"role": "system", "content": "짧게 답하세요."},
    {"role": "user", "content": "물은 몇 도에서 끓나요?"},
    {"role": "assistant", "content": "섭씨 100도입니다."},
    {"role": "user", "content": '{{ 1 }} "hi"'},
]


def rendered(template: Template, messages: list[dict[str, str]], **options: Any) -> Any:
    text = jinja_template(template, writes_bos=False)
    return tiny_tokenizer().apply_chat_template(
        messages, chat_template=text, add_generation_prompt=True, return_dict=False, **options
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_jinja_renders_a_chat_as_training_saw_it(name: str) -> None:
    segments = tiny_text(name).to_prompt(CHAT, "response").asked
    seen = "".join(s.text + "<|end|>" * s.ends_answer for s in segments)
    assert rendered(TEMPLATES[name], MESSAGES, tokenize=False) == seen


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"koalpaca-v1.1"}))
def test_a_question_has_the_ids_that_training_saw(name: str) -> None:
    text = tiny_text(name)
    (own,) = encode_questions([text.to_prompt(QUESTION, "response")], text.encoder, 999)
    assert isinstance(own, Tokens)
    asked = [{"role": "user", "content": QUESTION.exchanges[0].instruction}]
    assert tuple(rendered(TEMPLATES[name], asked, tokenize=True)) == own.ids


def test_a_template_of_the_users_own_may_hold_braces_and_quotes() -> None:
    template = Template("custom", "", '{{ "q" }}\\ {instruction}\n{input}{% x %}>')
    asked = [{"role": "user", "content": "안녕"}]
    assert rendered(template, asked, tokenize=False) == '{{ "q" }}\\ 안녕\n{% x %}>'


def test_bos_is_written_where_the_tokenizer_puts_one() -> None:
    assert jinja_template(TEMPLATES["instruction"], writes_bos=True).startswith("{{ bos_token }}")


def test_a_models_own_chat_template_is_kept() -> None:
    template = Template("chat", chat_template=CHAT_TEMPLATE)
    assert jinja_template(template, writes_bos=True) == CHAT_TEMPLATE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "koalpaca-v1.1",
            "{{ if .System }}{{ .System }}\n\n{{ end }}{{ range .Messages }}"
            '{{ if eq .Role "user" }}### 질문: {{ .Content }}\n\n### 답변:'
            '{{ else if eq .Role "assistant" }} {{ .Content }}<|end|>\n\n{{ end }}{{ end }}',
        ),
        (
            "chat",
            "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
            '{{ range .Messages }}{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}'
            "<|im_end|>\n<|im_start|>assistant\n"
            '{{ else if eq .Role "assistant" }}{{ .Content }}<|im_end|>\n{{ end }}{{ end }}',
        ),
    ],
)
def test_ollamas_template(name: str, expected: str) -> None:
    assert ollama_template(tiny_text(name), "<|end|>", None) == expected
