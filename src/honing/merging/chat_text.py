"""A template of ours as others read it: Jinja for transformers and llama.cpp, Go for Ollama."""

from __future__ import annotations

import json

from honing.data.example import Example, Exchange
from honing.data.template import Template
from honing.data.text_model import TextModel

# Private-use characters, as in data.chat_template: no template looks for them.
_SYSTEM, _USER, _ANSWER = "\ue0f2", "\ue0f3", "\ue0f4"


def jinja_template(template: Template, *, writes_bos: bool) -> str:
    """A chat template that renders what data.template.render does: the Jinja text of a chat
    template as it is, and for a template of plain text one that says the same.

    Words go in as they are: where the template's text ends in a space, a tokenizer joins it to
    the first word, while honing encodes them apart.
    """
    if template.chat_template is not None:
        return template.chat_template
    question = template.prompt_without_input.replace("{input}", "")
    before, _, after = question.partition("{instruction}")
    user = f"{_quoted(before)} + message['content'] + {_quoted(after)}"
    answer = f"{_quoted(template.answer_prefix)} + message['content'] + eos_token"
    return (
        f"{'{{ bos_token }}' if writes_bos else ''}"
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ message['content'] + \"\\n\\n\" }}"
        f"{{% elif message['role'] == 'user' %}}{{{{ {user} }}}}"
        f"{{% else %}}{{{{ {answer} }}}}"
        '{% if not loop.last %}{{ "\\n\\n" }}{% endif %}'
        "{% endif %}{% endfor %}"
    )


def _quoted(text: str) -> str:
    """A Jinja string literal; JSON's escapes are Jinja's too."""
    return json.dumps(text, ensure_ascii=False)


def ollama_template(text: TextModel, eos_token: str, bos_token: str | None) -> str:
    """The Go template of a Modelfile, over Ollama's .System and .Messages.

    Ollama puts BOS before all where the model's file says so, hence none is written here.
    """
    without, _, middle, between = _around(text, "", eos_token)
    before, after, _, _ = _around(text, _SYSTEM, eos_token)
    if bos_token:
        without, before = without.removeprefix(bos_token), before.removeprefix(bos_token)
    # What stands before every question, whatever came before it.
    user = _common_end(_common_end(without, after), between)
    system = f"{_go(before)}{{{{ .System }}}}{_go(after.removesuffix(user))}"
    default = _go(without.removesuffix(user))
    prefix = text.template.answer_prefix  # written by the model, and so no part of the question
    middle = middle.removesuffix(prefix)
    end = between.removesuffix(user)
    otherwise = f"{{{{ else }}}}{default}" if default else ""
    return (
        f"{{{{ if .System }}}}{system}{otherwise}{{{{ end }}}}"
        "{{ range .Messages }}"
        f'{{{{ if eq .Role "user" }}}}{_go(user)}{{{{ .Content }}}}{_go(middle)}'
        f'{{{{ else if eq .Role "assistant" }}}}{_go(prefix)}{{{{ .Content }}}}{_go(end)}'
        "{{ end }}{{ end }}"
    )


def _around(text: TextModel, system: str, eos_token: str) -> tuple[str, str, str, str]:
    """The template's own text in a chat of two exchanges: before the system text (all before the
    question where there is none), from it to the question, from the question to its answer, and
    from that answer to the next question."""
    exchanges = (Exchange(f"{_USER}1", f"{_ANSWER}1"), Exchange(f"{_USER}2", f"{_ANSWER}2"))
    prompt = text.to_prompt(Example("marks", exchanges, system=system), "response")
    whole = "".join(s.text + eos_token * s.ends_answer for s in prompt.segments)
    head, _, rest = whole.partition(f"{_USER}1")
    before, _, after = head.partition(_SYSTEM)
    middle, _, rest = rest.partition(f"{_ANSWER}1")
    between, _, _ = rest.partition(f"{_USER}2")
    return before, after, middle, between


def _common_end(a: str, b: str) -> str:
    length = 0
    while length < min(len(a), len(b)) and a[-1 - length] == b[-1 - length]:
        length += 1
    return a[len(a) - length :]


def _go(text: str) -> str:
    """Text in a Go template, where only two opening braces mean anything."""
    return text.replace("{{", '{{ "{{" }}')
