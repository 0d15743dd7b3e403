"""Prompt → Tokens: ids and labels, cut to length where they must be.

Labels are set here, token by token, and never worked out again from ids, offsets or padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from honing.data.template import Prompt, Segment

IGNORE = -100
"""Label of a token that is not learnt; the value that torch's cross entropy ignores."""


@dataclass(frozen=True)
class TextEncoder:
    """The part of a tokenizer that encoding needs.

    encode: texts → ids each, without BOS or EOS. With literal=True, names of special tokens in a
    text are plain characters: a row that says "<|im_end|>" does not end its turn.
    bos_id: put before every example, None where this tokenizer puts none.
    """

    encode: Callable[[Sequence[str], bool], list[list[int]]]
    eos_id: int
    bos_id: int | None = None


@dataclass(frozen=True)
class Tokens:
    """One encoded example. ids and labels have equal length; label IGNORE means not supervised.

    The first label is always IGNORE: nothing predicts a first token, and so rows laid end to end
    have no special case at their joints. num_cut counts prompt tokens that were cut away.
    """

    example_id: str
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    num_cut: int = 0

    @property
    def num_supervised(self) -> int:
        return len(self.labels) - self.labels.count(IGNORE)


@dataclass(frozen=True)
class TooLong:
    """An example whose answer, end token and template alone exceed the longest length."""

    example_id: str
    num_needed: int


def encode_prompts(
    prompts: Sequence[Prompt], encoder: TextEncoder, max_length: int
) -> list[Tokens | TooLong]:
    """Encode whole prompts, question and answer, each to at most max_length tokens.

    Too long: tokens are cut from the left of the input, then of the instruction. The answer and
    its end are kept whole, or the example is TooLong.
    """
    return join_pieces(prompts, encode_pieces(prompts, encoder), encoder, max_length)


def encode_pieces(prompts: Sequence[Prompt], encoder: TextEncoder) -> list[list[list[int]]]:
    """The first half of encode_prompts: ids of each segment of each prompt."""
    return _encode_segments([prompt.segments for prompt in prompts], encoder)


def join_pieces(
    prompts: Sequence[Prompt],
    pieces: Sequence[Sequence[list[int]]],
    encoder: TextEncoder,
    max_length: int,
) -> list[Tokens | TooLong]:
    """The second half of encode_prompts."""
    return [
        _join(prompt.example_id, prompt.segments, ids, encoder, max_length)
        for prompt, ids in zip(prompts, pieces, strict=True)
    ]


def encode_questions(
    prompts: Sequence[Prompt], encoder: TextEncoder, max_length: int
) -> list[Tokens | TooLong]:
    """Encode what stands before the last answer: the same ids that training saw there."""
    pieces = _encode_segments([prompt.asked for prompt in prompts], encoder)
    return [
        _join(prompt.example_id, prompt.asked, ids, encoder, max_length)
        for prompt, ids in zip(prompts, pieces, strict=True)
    ]


def _encode_segments(
    rows: Sequence[Sequence[Segment]], encoder: TextEncoder
) -> list[list[list[int]]]:
    """Ids of each segment of each row. A text that stands in many rows is encoded once."""
    texts: dict[tuple[bool, str], list[int]] = {}
    for literal in (False, True):
        distinct = _distinct(s.text for row in rows for s in row if s.literal == literal)
        ids = encoder.encode(distinct, literal)
        texts |= {(literal, text): piece for text, piece in zip(distinct, ids, strict=True)}
    return [[texts[segment.literal, segment.text] for segment in row] for row in rows]


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _join(
    example_id: str,
    segments: Sequence[Segment],
    pieces: Sequence[list[int]],
    encoder: TextEncoder,
    max_length: int,
) -> Tokens | TooLong:
    ends = sum(segment.ends_answer for segment in segments)
    # A chat template may write BOS itself: never two.
    first = next((piece[0] for piece in pieces if piece), None)
    bos = [] if encoder.bos_id is None or first == encoder.bos_id else [encoder.bos_id]
    length = len(bos) + ends + sum(map(len, pieces))
    excess = max(0, length - max_length)
    cuts = _cuts(segments, pieces, excess)
    if sum(cuts) < excess:
        return TooLong(example_id, length - sum(cuts))
    ids, labels = list(bos), [IGNORE] * len(bos)
    for segment, piece, num_cut in zip(segments, pieces, cuts, strict=True):
        kept = piece[num_cut:] + [encoder.eos_id] * segment.ends_answer
        ids += kept
        labels += kept if segment.supervised else [IGNORE] * len(kept)
    if labels:
        labels[0] = IGNORE
    return Tokens(example_id, tuple(ids), tuple(labels), num_cut=sum(cuts))


def _cuts(segments: Sequence[Segment], pieces: Sequence[list[int]], excess: int) -> list[int]:
    """Tokens to take from the left of each segment: first those of cut order 1, then 2."""
    cuts = [0] * len(segments)
    by_order = sorted((s.cut_order, index) for index, s in enumerate(segments) if s.cut_order)
    for _, index in by_order:
        cuts[index] = min(len(pieces[index]), excess - sum(cuts))
    return cuts
