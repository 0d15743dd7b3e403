"""`honing chat`: a conversation on the terminal, streamed syllable by syllable."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, replace

from honing.config import Config, GenerateConfig
from honing.data.example import Example, Exchange
from honing.generation.answer import answer_seed, encode_for_answering, stops, to_answer
from honing.generation.decode import decode_batch
from honing.generation.open_model import OpenModel, answering_config, open_model
from honing.generation.questions import question_from_text
from honing.generation.scripts import script_lock
from honing.generation.stream import SyllableStream
from honing.model.packed import packed_products

HELP = "Type a message; /new starts afresh, /quit (or Ctrl-D) ends."


@dataclass(frozen=True)
class Turn:
    """A question and the answer that was given to it."""

    question: str
    answer: str


def chat(
    model: str,
    config: Config | None = None,
    *,
    base_only: bool = False,
    checkpoint: str | None = None,
) -> None:
    """Talk with a model until the user ends it."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # arrow keys and history at the prompt
    config = config or answering_config(model)
    settings = config.generate
    opened = open_model(model, config, base_only=base_only, checkpoint=checkpoint)
    for note in opened.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{model}: {opened.adapter or 'the base, no adapter'}. {HELP}", file=sys.stderr)
    with packed_products(opened.model):
        _talk(opened, settings)


def _talk(opened: OpenModel, settings: GenerateConfig) -> None:
    turns: list[Turn] = []
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return
        except UnicodeDecodeError:
            print("That was not UTF-8 text; try again.", file=sys.stderr)
            continue
        command = line.strip()
        if command == "/quit":
            return
        if command == "/new":
            turns = []
        elif command.startswith("/"):
            print(HELP)
        elif command:
            turns = [*turns, reply(opened, settings, turns, line)]


def reply(opened: OpenModel, settings: GenerateConfig, turns: list[Turn], question: str) -> Turn:
    """Stream one answer to standard output. Ctrl-C ends the answer, not the chat."""
    example = _conversation(turns, question)
    question = example.exchanges[-1].instruction
    (tokens,) = encode_for_answering(opened, [example], settings)
    if tokens.num_cut:
        print("note: the oldest part of this chat no longer fits the context", file=sys.stderr)
    ends = stops(opened, settings)
    stream = SyllableStream(opened.text.decode, settings.stop, opened.text.template.answer_prefix)
    shown = ""

    def on_token(_: int, token: int) -> None:
        nonlocal shown
        piece = stream.add(token)
        shown += piece
        print(piece, end="", flush=True)

    try:
        (ids,) = decode_batch(
            opened.model,
            [tokens.ids],
            settings,
            ends,
            [answer_seed(settings.seed, len(turns), 0)],
            context_length=opened.text.context_length,
            on_token=on_token,
            lock=script_lock(opened.text, settings, ends.ids),
        )
    except KeyboardInterrupt:
        print(" …")
        return Turn(question, shown)
    answer = to_answer(opened, "chat", 0, ids, settings).text
    print(answer.removeprefix(shown))
    return Turn(question, answer)


def _conversation(turns: list[Turn], question: str) -> Example:
    asked = question_from_text(question).example
    past = tuple(Exchange(turn.question, turn.answer) for turn in turns)
    return replace(asked, exchanges=past + asked.exchanges)
