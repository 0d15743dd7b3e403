"""Tokens → Row → Batch: the order of an epoch, rows that lose nobody, exact arrays."""

from __future__ import annotations

import random

import numpy as np
import pytest

from honing.data.encode import IGNORE, Tokens
from honing.data.pack import (
    Ids,
    epoch_order,
    packed_batch,
    padded_batch,
    plan_rows,
    steps_of_epoch,
)

A = Tokens("a", (5, 6, 7), (IGNORE, 6, 7))
B = Tokens("b", (8,), (IGNORE,))
C = Tokens("c", (9, 0, 0, 4, 0), (IGNORE, IGNORE, 0, IGNORE, 0))


def rows_of(array: Ids | None) -> list[list[int]]:
    assert array is not None
    assert array.dtype == np.int64
    return [[int(value) for value in row] for row in array]


# --- the order of an epoch


def test_the_order_of_an_epoch_is_this_permutation() -> None:
    assert epoch_order(10, seed=42, epoch=0) == [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]
    assert epoch_order(10, seed=42, epoch=1) == [0, 8, 7, 4, 3, 1, 2, 9, 6, 5]
    assert epoch_order(10, seed=43, epoch=0) == [2, 8, 9, 5, 7, 1, 4, 6, 0, 3]


@pytest.mark.parametrize("num_examples", [0, 1, 2, 1000])
def test_every_example_comes_once_in_an_epoch(num_examples: int) -> None:
    order = epoch_order(num_examples, seed=1, epoch=3)
    assert sorted(order) == list(range(num_examples))
    assert all(type(index) is int for index in order)


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = {
        tuple(epoch_order(20, seed, epoch)) for seed in (0, 1, 2**32 - 1) for epoch in range(5)
    }
    assert len(orders) == 15


def test_the_order_neither_reads_nor_moves_the_global_random_state() -> None:
    orders = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        orders.append(epoch_order(100, seed=42, epoch=0))
        drawn = random.random(), np.random.random()
        random.seed(seed)
        np.random.seed(seed)
        assert (random.random(), np.random.random()) == drawn
    assert orders[0] == orders[1]


# --- steps


@pytest.mark.parametrize(
    ("num_examples", "size", "expected"),
    [
        (7, 3, [[0, 1, 2], [3, 4, 5], [6]]),
        (6, 3, [[0, 1, 2], [3, 4, 5]]),
        (2, 3, [[0, 1]]),
        (3, 1, [[0], [1], [2]]),
        (0, 3, []),
    ],
)
def test_the_last_short_group_is_a_step_of_its_own(
    num_examples: int, size: int, expected: list[list[int]]
) -> None:
    steps = steps_of_epoch(list(range(num_examples)), size)
    assert [list(step) for step in steps] == expected


# --- rows

LENGTHS = [10, 3, 7, 3, 12, 1, 5]


def test_packed_rows_are_filled_longest_first_where_the_next_still_fits() -> None:
    rows = plan_rows(range(7), LENGTHS, micro_batch_size=8, row_tokens=15)
    assert rows == [[4, 1], [0, 6], [2, 3, 5]]


def test_a_packed_row_holds_no_more_examples_than_a_micro_batch() -> None:
    rows = plan_rows(range(7), LENGTHS, micro_batch_size=2, row_tokens=15)
    assert rows == [[4, 1], [0, 6], [2, 3], [5]]


def test_an_example_longer_than_a_row_has_one_to_itself() -> None:
    assert plan_rows([0, 4, 5], LENGTHS, micro_batch_size=8, row_tokens=11) == [[4], [0, 5]]


def test_padded_rows_hold_neighbours_in_length() -> None:
    rows = plan_rows(range(7), LENGTHS, micro_batch_size=3, row_tokens=None)
    assert rows == [[4, 0, 2], [6, 1, 3], [5]]


def test_only_the_members_of_a_step_are_laid_in_rows() -> None:
    assert plan_rows([5, 2, 6], LENGTHS, micro_batch_size=2, row_tokens=None) == [[2, 6], [5]]
    assert plan_rows([], LENGTHS, micro_batch_size=2, row_tokens=None) == []
    assert plan_rows([], LENGTHS, micro_batch_size=2, row_tokens=9) == []


@pytest.mark.parametrize("packing", [True, False])
def test_rows_do_not_depend_on_the_order_in_which_the_members_come(packing: bool) -> None:
    row_tokens = 15 if packing else None
    expected = plan_rows(range(7), LENGTHS, micro_batch_size=3, row_tokens=row_tokens)
    for epoch in range(5):
        members = epoch_order(7, seed=0, epoch=epoch)
        assert plan_rows(members, LENGTHS, micro_batch_size=3, row_tokens=row_tokens) == expected


@pytest.mark.parametrize("seed", range(30))
def test_rows_keep_their_bounds_and_lose_nobody(seed: int) -> None:
    chooser = random.Random(seed)
    lengths = [chooser.randint(1, 60) for _ in range(chooser.randint(1, 80))]
    members = chooser.sample(range(len(lengths)), chooser.randint(1, len(lengths)))
    size, row_tokens = chooser.randint(1, 9), chooser.randint(1, 100)

    packed = plan_rows(members, lengths, micro_batch_size=size, row_tokens=row_tokens)
    assert sorted(index for row in packed for index in row) == sorted(members)
    for row in packed:
        assert len(row) <= size
        assert sum(lengths[index] for index in row) <= row_tokens or len(row) == 1

    padded = plan_rows(members, lengths, micro_batch_size=size, row_tokens=None)
    assert sorted(index for row in padded for index in row) == sorted(members)
    assert [len(row) for row in padded[:-1]] == [size] * (len(padded) - 1)
    in_line = [lengths[index] for row in padded for index in row]
    assert in_line == sorted(in_line, reverse=True)


# --- batches


def test_a_packed_batch_lays_examples_end_to_end_with_positions_from_zero() -> None:
    batch = packed_batch([A, B, C])
    assert batch.example_ids == ("a", "b", "c")
    assert rows_of(batch.input_ids) == [[5, 6, 7, 8, 9, 0, 0, 4, 0]]
    assert rows_of(batch.labels) == [
        [IGNORE, 6, 7, IGNORE, IGNORE, IGNORE, 0, IGNORE, 0],
    ]
    assert rows_of(batch.position_ids) == [[0, 1, 2, 0, 0, 1, 2, 3, 4]]
    assert batch.attention_mask is None
    assert batch.segment_lengths == (3, 1, 5)
    assert (batch.num_tokens, batch.num_supervised) == (9, 4)


def test_a_packed_batch_is_filled_up_with_tokens_that_count_nowhere() -> None:
    batch = packed_batch([A, B], multiple=6)
    assert batch.example_ids == ("a", "b")
    assert rows_of(batch.input_ids) == [[5, 6, 7, 8, 0, 0]]
    assert rows_of(batch.labels) == [[IGNORE, 6, 7, IGNORE, IGNORE, IGNORE]]
    assert rows_of(batch.position_ids) == [[0, 1, 2, 0, 0, 0]]
    assert batch.segment_lengths == (3, 1, 2)
    assert (batch.num_tokens, batch.num_supervised) == (4, 2)
    assert packed_batch([A, B], multiple=4).segment_lengths == (3, 1), "nothing to fill"


def test_a_padded_batch_lays_examples_below_each_other_and_masks_by_length() -> None:
    batch = padded_batch([A, B, C])
    assert batch.example_ids == ("a", "b", "c")
    assert rows_of(batch.input_ids) == [[5, 6, 7, 0, 0], [8, 0, 0, 0, 0], [9, 0, 0, 4, 0]]
    assert rows_of(batch.labels) == [
        [IGNORE, 6, 7, IGNORE, IGNORE],
        [IGNORE, IGNORE, IGNORE, IGNORE, IGNORE],
        [IGNORE, IGNORE, 0, IGNORE, 0],
    ]
    assert rows_of(batch.position_ids) == [[0, 1, 2, 3, 4]] * 3
    assert rows_of(batch.attention_mask) == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.segment_lengths is None
    assert (batch.num_tokens, batch.num_supervised) == (9, 4)


def test_the_end_token_is_learnt_though_padding_has_the_same_id() -> None:
    short = Tokens("short", (3, 0), (IGNORE, 0))
    batch = padded_batch([short, A])
    assert rows_of(batch.labels)[0] == [IGNORE, 0, IGNORE]
    assert rows_of(batch.attention_mask)[0] == [1, 1, 0]


def test_one_example_is_the_same_packed_and_padded() -> None:
    packed, padded = packed_batch([C]), padded_batch([C])
    for name in ("input_ids", "labels", "position_ids"):
        assert rows_of(vars(packed)[name]) == rows_of(vars(padded)[name])
    assert rows_of(padded.attention_mask) == [[1, 1, 1, 1, 1]]


def test_positions_of_a_padded_batch_can_be_written_to() -> None:
    batch = padded_batch([A, B])
    batch.position_ids[0, 0] = 9
    assert rows_of(batch.position_ids) == [[9, 1, 2], [0, 1, 2]]


def test_the_first_label_of_every_packed_example_is_not_learnt() -> None:
    batch = packed_batch([A, C, A])
    starts = np.flatnonzero(batch.position_ids[0] == 0)
    assert [int(start) for start in starts] == [0, 3, 8]
    assert [int(label) for label in batch.labels[0][starts]] == [IGNORE] * 3
