"""Examples → Tokens, a batch at a time; chats that are too long lose their oldest turns.

While the ids of one batch are joined, the tokenizer works on the next one in a thread of its own:
it leaves Python's lock alone, so that it keeps all cores busy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from honing.data.encode import Tokens, TooLong, encode_pieces, join_pieces
from honing.data.example import Example
from honing.data.reading.read import DroppedRow
from honing.data.template import Prompt, Supervise
from honing.data.text_model import TextModel

BATCH_ROWS = 1_000
BATCH_CHARS = 1 << 20  # what the tokenizer makes of a character takes some 100 bytes


@dataclass(frozen=True)
class _Batch:
    """Prompts on their way through the tokenizer."""

    prompts: list[Prompt]
    pieces: Future[list[list[list[int]]]]


@dataclass(frozen=True)
class _Encoding:
    """How to encode. thread: the one in which the tokenizer works, as it can do one thing at a
    time."""

    text: TextModel
    supervise: Supervise
    max_length: int
    thread: ThreadPoolExecutor

    def start(self, examples: Sequence[Example]) -> _Batch:
        prompts = [self.text.to_prompt(example, self.supervise) for example in examples]
        return _Batch(prompts, self.thread.submit(encode_pieces, prompts, self.text.encoder))

    def finish(self, batch: _Batch, max_length: int | None = None) -> list[Tokens | TooLong]:
        longest = max_length or self.max_length
        return join_pieces(batch.prompts, batch.pieces.result(), self.text.encoder, longest)


def encode_each(
    examples: Sequence[Example], text: TextModel, supervise: Supervise, max_length: int
) -> Iterator[Tokens | DroppedRow]:
    """The tokens of each example in turn, or why there are none.

    A chat that is too long loses its oldest turns first; what is too long even so is dropped.
    """
    with ThreadPoolExecutor(1) as thread:
        encoding = _Encoding(text, supervise, max_length, thread)
        started: deque[tuple[list[Example], _Batch]] = deque()
        for batch in _batches(examples):
            started.append((batch, encoding.start(batch)))
            if len(started) > 1:
                yield from _finished(*started.popleft(), encoding)
        while started:
            yield from _finished(*started.popleft(), encoding)


def _batches(examples: Sequence[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    num_chars = 0
    for example in examples:
        batch.append(example)
        for exchange in example.exchanges:
            num_chars += len(exchange.instruction) + len(exchange.input) + len(exchange.output)
        if len(batch) == BATCH_ROWS or num_chars >= BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch


def _finished(
    wholes: list[Example], batch: _Batch, encoding: _Encoding
) -> Iterator[Tokens | DroppedRow]:
    outcomes = encoding.finish(batch)
    shortened: set[int] = set()
    tried = dict(enumerate(wholes))
    while tried := {
        place: example.without_oldest_exchange()
        for place, example in tried.items()
        if len(example.exchanges) > 1 and _was_cut(outcomes[place])
    }:
        shortened |= tried.keys()
        again = encoding.finish(encoding.start([*tried.values()]))
        for place, outcome in zip(tried, again, strict=True):
            outcomes[place] = outcome
    for place, (whole, outcome) in enumerate(zip(wholes, outcomes, strict=True)):
        if isinstance(outcome, TooLong):
            reason = f"answer does not fit into {encoding.max_length} tokens"
            yield DroppedRow(whole.id, whole.row, reason)
        elif place in shortened:
            yield replace(outcome, num_cut=_num_tokens(whole, encoding) - len(outcome.ids))
        else:
            yield outcome


def _num_tokens(example: Example, encoding: _Encoding) -> int:
    (tokens,) = encoding.finish(encoding.start([example]), max_length=1 << 30)
    assert isinstance(tokens, Tokens)
    return len(tokens.ids)


def _was_cut(outcome: Tokens | TooLong) -> bool:
    return isinstance(outcome, TooLong) or outcome.num_cut > 0
