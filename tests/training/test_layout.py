"""A step's examples in micro-batches: how long rows get, and what fills them up."""

from __future__ import annotations

from typing import Any

import torch

from honing.data.pack import Batch
from honing.training.layout import micro_batches, packed_row_tokens
from honing.training.processes import Processes
from tests.tiny import PAIRS, encoded, train_settings

ROWS = encoded(PAIRS)
LENGTHS = [len(row.ids) for row in ROWS]


def laid_out(row_tokens: int | None = 512, **settings: Any) -> list[Batch]:
    given = {"packing": row_tokens is not None, "micro_batch_size": 8, **settings}
    chosen = train_settings(**given)
    return micro_batches(ROWS, LENGTHS, range(8), chosen, row_tokens, Processes())


def test_a_packed_row_in_bfloat16_holds_twice_the_tokens() -> None:
    assert packed_row_tokens(torch.float32, 128) == 512
    assert packed_row_tokens(torch.bfloat16, 128) == 1024
    assert packed_row_tokens(torch.bfloat16, 2000) == packed_row_tokens(torch.float32, 2000) == 2000


def test_packed_rows_have_few_lengths_and_count_none_of_the_filling() -> None:
    (filled,) = laid_out()
    assert (filled.input_ids.size, filled.num_tokens) == (448, 422)
    (bare,) = laid_out(fast_forms=False)
    assert (bare.input_ids.size, bare.num_tokens) == (422, 422)
    assert filled.num_supervised == bare.num_supervised


def test_padded_rows_are_as_long_as_their_longest_example() -> None:
    (padded,) = laid_out(None)
    assert padded.input_ids.shape == (8, max(LENGTHS))
    assert [batch.input_ids.shape for batch in laid_out(None, micro_batch_size=1)] == [
        (1, length) for length in sorted(LENGTHS, reverse=True)
    ]
