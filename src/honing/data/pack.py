"""Tokens → Row → Batch, in an order that is a function of seed and epoch.

A row is what lies in one micro-batch. Packed, its examples lie end to end in one line, with
positions that start again at each; padded, each has a line of its own. The loss of a step is a sum
over its supervised tokens, so both give the same gradient. A packed row may end in a few tokens of
nobody, which round its length up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from honing.data.encode import IGNORE, Tokens

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """One micro-batch.

    input_ids, labels, position_ids: (B, T). attention_mask: (B, T), 1 where a token stands; None
    in a packed row, which has B = 1 and in segment_lengths the examples' lengths and, where a
    filling follows them, its length.
    """

    example_ids: tuple[str, ...]
    input_ids: Ids
    labels: Ids
    position_ids: Ids
    attention_mask: Ids | None
    segment_lengths: tuple[int, ...] | None

    @property
    def num_supervised(self) -> int:
        return int((self.labels != IGNORE).sum())

    @property
    def num_tokens(self) -> int:
        """Tokens of the examples, without padding."""
        if self.segment_lengths is not None:
            return sum(self.segment_lengths[: len(self.example_ids)])
        assert self.attention_mask is not None
        return int(self.attention_mask.sum())


def epoch_order(num_examples: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch: a permutation that depends on seed and epoch alone."""
    order = np.random.default_rng([seed, epoch]).permutation(num_examples)
    return [int(index) for index in order]


def steps_of_epoch(order: Sequence[int], global_batch_size: int) -> list[Sequence[int]]:
    """Examples of each optimizer step; the last, short group is a step of its own."""
    return [
        order[start : start + global_batch_size]
        for start in range(0, len(order), global_batch_size)
    ]


def plan_rows(
    members: Sequence[int],
    lengths: Sequence[int],
    *,
    micro_batch_size: int,
    row_tokens: int | None,
) -> list[list[int]]:
    """Distribute examples over rows, longest first.

    A row holds at most micro_batch_size examples. With row_tokens (packing), each example goes to
    the first row in which it still fits (first-fit decreasing, Johnson 1973: at most 11/9 of the
    fewest rows); without, neighbours in length share a row, which keeps padding low.
    """
    longest_first = sorted(members, key=lambda index: (-lengths[index], index))
    if row_tokens is None:
        return [
            longest_first[start : start + micro_batch_size]
            for start in range(0, len(longest_first), micro_batch_size)
        ]
    rows: list[list[int]] = []
    filled: list[int] = []
    for index in longest_first:
        for number, row in enumerate(rows):
            if len(row) < micro_batch_size and filled[number] + lengths[index] <= row_tokens:
                row.append(index)
                filled[number] += lengths[index]
                break
        else:
            rows.append([index])
            filled.append(lengths[index])
    return rows


def packed_batch(examples: Sequence[Tokens], multiple: int = 1) -> Batch:
    """Examples end to end: (1, T), then as few tokens as make T divisible by multiple."""
    lengths = tuple(len(example.ids) for example in examples)
    filling = -sum(lengths) % multiple
    return Batch(
        example_ids=tuple(example.example_id for example in examples),
        input_ids=_line([i for example in examples for i in example.ids] + [0] * filling),
        labels=_line([i for example in examples for i in example.labels] + [IGNORE] * filling),
        position_ids=_line([place for n in lengths for place in range(n)] + [0] * filling),
        attention_mask=None,
        segment_lengths=(*lengths, filling) if filling else lengths,
    )


def padded_batch(examples: Sequence[Tokens]) -> Batch:
    """Examples below each other, padded on the right: (B, T). Padding is masked by length."""
    B, T = len(examples), max(len(example.ids) for example in examples)
    ids, labels = np.zeros((B, T), np.int64), np.full((B, T), IGNORE, np.int64)
    mask = np.zeros((B, T), np.int64)
    for line, example in enumerate(examples):
        n = len(example.ids)
        ids[line, :n], labels[line, :n], mask[line, :n] = example.ids, example.labels, 1
    positions = np.broadcast_to(np.arange(T, dtype=np.int64), (B, T)).copy()
    return Batch(tuple(e.example_id for e in examples), ids, labels, positions, mask, None)


def _line(values: Sequence[int]) -> Ids:
    return np.asarray(values, np.int64)[None, :]
