"""Chat templates: the text that transformers makes, at a bounded cost, with nothing in reach."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

from honing.data.chat_sandbox import BUDGET, TooCostly, render_chat_template
from honing.data.chat_template import render_chat
from honing.data.example import Example, Exchange
from honing.errors import UserError
from honing.model.load import chat_renderer
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

# In the manner of Llama 3, Gemma, Qwen 3, Mistral and ChatML with a default system text.
TEMPLATES = {
    "chatml": CHAT_TEMPLATE,
    "llama": (
        "{{- bos_token }}\n{%- if messages[0]['role'] == 'system' %}\n"
        "    {%- set system_message = messages[0]['content'] | trim %}\n"
        "    {%- set messages = messages[1:] %}\n{%- else %}\n"
        '    {%- set system_message = "" %}\n{%- endif %}\n'
        '{{- "<|start|>system\\n\\n" }}{{- system_message }}{{- "<|eot|>" }}\n'
        "{%- for message in messages %}\n"
        "    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}\n"
        "        {{- '<|start|>' + message['role'] + '\\n\\n' + message['content'] | trim "
        "+ '<|eot|>' }}\n    {%- endif %}\n{%- endfor %}"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system') }}"
        "{% endif %}{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}"
        "{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
        "{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<turn>' + role + '\\n' + message['content'] | trim + '<end>\\n' }}{% endfor %}"
    ),
    "qwen": (
        "{%- set ns = namespace(multi_step_tool=true, last=messages|length - 1) %}\n"
        "{%- for message in messages[::-1] %}\n"
        "    {%- set index = (messages|length - 1) - loop.index0 %}\n"
        '    {%- if ns.multi_step_tool and message.role == "user" and message.content is string '
        "and not(message.content.startswith('<r>') and message.content.endswith('</r>')) %}\n"
        "        {%- set ns.multi_step_tool = false %}\n        {%- set ns.last = index %}\n"
        "    {%- endif %}\n{%- endfor %}\n{%- for message in messages %}\n"
        "    {%- if message.content is string %}\n        {%- set content = message.content %}\n"
        "    {%- else %}\n        {%- set content = '' %}\n    {%- endif %}\n"
        "    {%- if message.role == 'assistant' and '</think>' in content %}\n"
        "        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n"
        "    {%- endif %}\n"
        "    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n"
        "{%- endfor %}"
    ),
    "blocks": (
        "{% macro turn(role, text='') -%}[{{ role | upper }}] {{ text | replace('a', 'b') }}"
        "{{ caller() if caller else '' }}{%- endmacro %}{% for m in messages if m.content %}"
        "{% set shown %}{{ m.content }}{% endset %}"
        "{{ turn(m.role, text=shown) }}{% if not loop.last %}{{ ' ' * 2 }}{% endif %}"
        "{{ [m.role, m.content[:2]] | join('-') }}{{ {'k': m.content} | tojson(indent=2) }}"
        "{% generation %}{{ m.content | length ~ '|' ~ loop.index }}{% endgeneration %}"
        "{% if loop.index > 3 %}{% break %}{% endif %}{% endfor %}"
        "{% call turn('x') %}y{% endcall %}"
        "{{ messages | map(attribute='role') | list | unique | join(', ') }}"
        "{% for k, v in messages[0].items() %}{{ k }}={{ v.split(' ') | first }}{% endfor %}"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
    ),
}
CHATS = [
    [("user", " 수도는\n어디인가요? a b "), ("assistant", "서울입니다.<b>")],
    [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "<think>d</think>\n\ne")],
    [("system", "s y s"), ("user", "a\n"), ("assistant", "'\"\\")],
]


def messages(chat: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in chat]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("chat", CHATS, ids=len)
def test_the_text_is_that_of_transformers(name: str, chat: list[tuple[str, str]]) -> None:
    tokenizer = tiny_tokenizer()
    given: dict[str, Any] = {"chat_template": TEMPLATES[name], "tokenize": False}
    try:
        expected = tokenizer.apply_chat_template(messages(chat), **given)
    except jinja2.TemplateError as error:
        with pytest.raises(jinja2.TemplateError, match=str(error)):
            chat_renderer(tokenizer, TEMPLATES[name]).render(messages(chat))
        return
    assert chat_renderer(tokenizer, TEMPLATES[name]).render(messages(chat)) == expected
    assert len(expected) > 20


@pytest.mark.model
def test_the_embedded_models_own_template(packaged_model: str) -> None:
    from honing.config import ModelConfig
    from honing.model.load import find_base, load_tokenizer

    tokenizer = load_tokenizer(find_base(ModelConfig(base=packaged_model)))
    for chat in CHATS:
        ours = chat_renderer(tokenizer, tokenizer.chat_template).render(messages(chat))
        assert ours == tokenizer.apply_chat_template(messages(chat), tokenize=False)


def rendered(template: str) -> str:
    return render_chat_template(template, messages(CHATS[0]), {"bos_token": "<s>"})


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ messages[0].content | attr('__class__') }}",
        "{% set ns = namespace(_x=1) %}",
        "{{ self.__init__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('id') }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_nothing_of_python_is_in_reach(template: str) -> None:
    try:
        text = rendered(template)
    except (jinja2.TemplateError, TypeError):
        return
    assert text == ""  # Jinja's "undefined"


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(90000) if false %}{% endfor %}" * 20,
        "{{ 'x' * 1000000000000 }}",
        "{{ 10 ** 10 }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ '%0999999999d' % 1 }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(90) %}"
        "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(90) %}"
        "{% set ns.x = [ns.x, ns.x] %}{% endfor %}",
        "{% macro m(n) %}aa{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{{ ('a' * 10000).replace('a', 'b' * 10000) }}",
        "{{ range(100000) | join('a' * 10000) }}",
        "{{ [1] | tojson(indent=999999999) }}",
        "{% if x %}{% endif %}" * 10_000,
    ],
)
def test_what_costs_more_than_a_chat_is_refused(template: str) -> None:
    with pytest.raises(TooCostly):
        rendered(template)


def test_the_budget_is_for_each_rendering_and_grows_with_the_chat() -> None:
    template = "{% for m in messages %}{{ m.content * 20 }}{% endfor %}"
    long = messages([("user", "가" * (BUDGET // 40)), ("assistant", "b")])
    for _ in range(3):
        assert len(render_chat_template(template, long, {})) == BUDGET // 2 + 20


def test_an_error_of_a_template_is_one_line() -> None:
    example = Example("rows:1", (Exchange("a", "b"),))
    renderer = chat_renderer(tiny_tokenizer(), "{{ raise_exception('no\n\x1b[31m way') }}")
    with pytest.raises(UserError) as caught:
        render_chat(example, renderer, "response")
    assert str(caught.value) == (
        "data.template: chat: the model's chat template refuses this chat (no \\x1b[31m way); "
        "use another data.template"
    )
