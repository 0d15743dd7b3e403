"""What the data path knows of a base model: its tokenizer as functions, and its limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from honing.data.chat_template import ChatRenderer, render_chat
from honing.data.encode import TextEncoder, Tokens, encode_prompts
from honing.data.example import Example, Exchange
from honing.data.template import Prompt, Supervise, Template, render


@dataclass(frozen=True)
class TextModel:
    """A tokenizer and a template: all that turns examples into ids and ids into text.

    decode: ids → text, names of special tokens included. chat: None unless template is a chat's.
    context_length: the most positions the base knows; None where it does not say.
    token_bytes: for each id the UTF-8 bytes that it writes; None where they cannot be known.
    """

    name: str
    encoder: TextEncoder
    decode: Callable[[Sequence[int]], str]
    template: Template
    chat: ChatRenderer | None = None
    context_length: int | None = None
    token_bytes: Callable[[], Sequence[bytes] | None] = lambda: None

    def to_prompt(self, example: Example, supervise: Supervise) -> Prompt:
        if self.chat is not None:
            return render_chat(example, self.chat, supervise)
        return render(example, self.template, supervise)

    def end_ids(self) -> tuple[int, ...]:
        """Ids that end an answer: the end-of-text id, and a chat turn's own end token."""
        probe = Example("probe", (Exchange("a", "b"),))
        (tokens,) = encode_prompts([self.to_prompt(probe, "response")], self.encoder, 1 << 30)
        assert isinstance(tokens, Tokens)
        return tuple(dict.fromkeys((tokens.ids[-1], self.encoder.eos_id)))
