"""Example → Prompt in a model's own chat template.

The template is rendered once with placeholders in place of the words, which shows where the words
stand; the real words are then laid in. Nothing is tokenised twice, and the question that training
saw is the question that generation asks.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from honing.data.example import Example, Exchange
from honing.data.template import Prompt, Segment, Supervise, kept_segments
from honing.errors import UserError

Message = dict[str, str]

# Private-use characters: no template looks for them, strips them or escapes them.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"
_PLACEHOLDER = re.compile(f"{_OPEN}([a-z]+)([0-9]+){_CLOSE}")


@dataclass(frozen=True)
class ChatRenderer:
    """A tokenizer's chat template as a function, and the texts that can end a turn.

    render: messages → text, in Jinja's sandbox. special_tokens: texts of all special tokens.
    """

    render: Callable[[Sequence[Message]], str]
    special_tokens: tuple[str, ...]


@dataclass(frozen=True)
class _Slot:
    """A place for words: whose they are, and in which exchange."""

    role: str
    number: int


def render_chat(example: Example, renderer: ChatRenderer, supervise: Supervise) -> Prompt:
    """An example as the chat template writes it.

    The turn's own end token, which is the one behind the last answer, is supervised with its
    answer; where a template has none, the end-of-text id is. What the template writes after the
    last end token is left out.
    Raises UserError where the template refuses the chat or changes its words.
    """
    words = {_Slot("system", 0): example.system}
    for number, exchange in enumerate(example.exchanges):
        words[_Slot("user", number)] = _user_words(exchange)
        words[_Slot("assistant", number)] = exchange.output
    pieces = _skeleton(renderer, len(example.exchanges), bool(example.system))
    rendered = _render(renderer, _messages(example), example.id)
    written = _words_as_written(pieces, words, rendered)
    if written is None:
        raise UserError(
            f"{example.id}: the model's chat template changes the words of this chat; "
            "use another data.template"
        )
    return _to_prompt(example, pieces, written, renderer.special_tokens, supervise)


def _to_prompt(
    example: Example,
    pieces: Sequence[str | _Slot],
    words: dict[_Slot, str],
    special_tokens: tuple[str, ...],
    supervise: Supervise,
) -> Prompt:
    last = len(example.exchanges) - 1
    everything = supervise == "everything"
    closing = pieces[-1] if isinstance(pieces[-1], str) else ""
    turn_end = _until_special_token(closing, special_tokens)
    segments: list[Segment] = []
    num_asked = 0
    end = ""  # of an answer: already laid down when the template's own text comes
    for piece, after in zip(pieces, [*pieces[1:], ""], strict=True):
        if isinstance(piece, str):
            segments.append(Segment(piece.removeprefix(end), everything))
            end = ""
        elif piece.role == "assistant":
            num_asked = len(segments)
            learnt = piece.number == last or supervise != "response"
            end = turn_end if isinstance(after, str) and after.startswith(turn_end) else ""
            segments.append(Segment(words[piece], learnt, literal=True))
            segments.append(Segment(end, learnt, ends_answer=not end))
        else:
            newest = piece == _Slot("user", last)
            segments += _words(example.exchanges[last], words[piece], newest, everything)
    if closing:
        segments.pop()  # what the template writes after the last end token
    asked = kept_segments(segments[:num_asked])
    return Prompt(example.id, asked + kept_segments(segments[num_asked:]), len(asked))


def _words(exchange: Exchange, words: str, newest: bool, supervised: bool) -> list[Segment]:
    """The user's words; in the newest question the input can be cut, then the instruction."""
    if not newest:
        return [Segment(words, supervised, literal=True)]
    for material in (exchange.input, exchange.input.rstrip()):
        if material and words.endswith(material):
            return [
                Segment(words.removesuffix(material), supervised, literal=True, cut_order=2),
                Segment(material, supervised, literal=True, cut_order=1),
            ]
    return [Segment(words, supervised, literal=True, cut_order=2)]


def _user_words(exchange: Exchange) -> str:
    return "\n\n".join(part for part in (exchange.instruction, exchange.input) if part)


def _messages(example: Example) -> list[Message]:
    messages = [{"role": "system", "content": example.system}] if example.system else []
    for exchange in example.exchanges:
        messages.append({"role": "user", "content": _user_words(exchange)})
        messages.append({"role": "assistant", "content": exchange.output})
    return messages


@functools.lru_cache(maxsize=256)
def _skeleton(
    renderer: ChatRenderer, num_exchanges: int, with_system: bool
) -> tuple[str | _Slot, ...]:
    """The template's own text between places for words, for a chat of this length."""
    exchanges = tuple(
        Exchange(f"{_OPEN}user{n}{_CLOSE}", f"{_OPEN}assistant{n}{_CLOSE}")
        for n in range(num_exchanges)
    )
    system = f"{_OPEN}system0{_CLOSE}" if with_system else ""
    marked = Example("placeholders", exchanges, system=system)
    text = _render(renderer, _messages(marked), "data.template: chat")
    pieces: list[str | _Slot] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        pieces += [text[end : match.start()], _Slot(match[1], int(match[2]))]
        end = match.end()
    pieces.append(text[end:])
    slots = [piece for piece in pieces if isinstance(piece, _Slot)]
    once = len(slots) == len(set(slots)) == 2 * num_exchanges + with_system
    if not once or slots[-1] != _Slot("assistant", num_exchanges - 1):
        raise UserError(
            "data.template: chat, but this model's chat template does not write each turn "
            "exactly once; use data.template=instruction"
        )
    return tuple(piece for piece in pieces if piece != "")


def _words_as_written(
    pieces: Sequence[str | _Slot], words: Mapping[_Slot, str], rendered: str
) -> dict[_Slot, str] | None:
    """Words as the rendered chat holds them, which may have lost white space at their ends; None
    where it holds others."""
    written: dict[_Slot, str] = {}
    end = 0
    for piece, after in zip(pieces, [*pieces[1:], ""], strict=True):
        forms = [piece] if isinstance(piece, str) else _trimmed(words[piece])
        follows = after if isinstance(after, str) else ""
        form = next((form for form in forms if rendered.startswith(form + follows, end)), None)
        if form is None:
            return None
        if isinstance(piece, _Slot):
            written[piece] = form
        end += len(form)
    return written if end == len(rendered) else None


def _trimmed(text: str) -> list[str]:
    """A text, and what templates make of it: Llama and Gemma trim it, Qwen takes line breaks."""
    return [text, text.strip(), text.rstrip(), text.lstrip(), text.lstrip("\n"), text.strip("\n")]


def _render(renderer: ChatRenderer, messages: Sequence[Message], where: str) -> str:
    try:
        return renderer.render(messages)
    # Templates raise whatever Jinja and their own raise_exception() raise.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{where}: the model's chat template refuses this chat ({reason}); "
            "use another data.template"
        ) from None


def _until_special_token(text: str, special_tokens: tuple[str, ...]) -> str:
    """Text up to its first special token, that token included; empty where there is none."""
    found = [(text.index(token), -len(token), token) for token in special_tokens if token in text]
    if not found:
        return ""
    start, _, token = min(found)
    return text[: start + len(token)]
