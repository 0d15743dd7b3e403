"""Examples of a step → micro-batches, each process its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from honing.config import TrainConfig
from honing.data.encode import IGNORE, Tokens
from honing.data.pack import Batch, packed_batch, padded_batch, plan_rows
from honing.training.processes import Processes

ROW_BYTES = 2048
"""Of a packed row, a number for each of its tokens: 512 tokens in float32, 1,024 in bfloat16.
Enough to keep the matrix products busy, short enough for the activations of a small machine."""

ROW_MULTIPLE = 32
"""Of a packed row's tokens. oneDNN writes machine code for each new length, and keeps it: 2 ms and
a megabyte for each product. Rows of few lengths keep that small."""


def packed_row_tokens(dtype: torch.dtype, max_length: int) -> int:
    """Of a packed row, on a base of this type, where memory is no matter."""
    return max(ROW_BYTES // dtype.itemsize, max_length)


def micro_batches(
    rows: Sequence[Tokens],
    lengths: Sequence[int],
    members: Sequence[int],
    settings: TrainConfig,
    row_tokens: int | None,
    processes: Processes,
) -> list[Batch]:
    """This process's micro-batches of a step, as many as every other's: where its share gives
    fewer, blank ones, of which nothing is learnt.

    lengths: of all rows. members: the step's rows, by number. settings: without "auto" in it.
    row_tokens: of the longest packed row; None where rows are padded.
    """
    plans = [
        plan_rows(
            share,
            lengths,
            micro_batch_size=int(settings.micro_batch_size),
            row_tokens=row_tokens,
        )
        for share in processes.shares_of(members, lengths)
    ]
    packed = partial(packed_batch, multiple=ROW_MULTIPLE if settings.fast_forms else 1)
    lay_out = packed if settings.packing else padded_batch
    own = plans[processes.rank]
    blank = lay_out([_blank(rows[members[0]])])
    num_blank = max(map(len, plans)) - len(own)
    return [lay_out([rows[index] for index in row]) for row in own] + [blank] * num_blank


def _blank(row: Tokens) -> Tokens:
    """The first token of a row, and nothing to learn."""
    return Tokens(row.example_id, row.ids[:1], (IGNORE,))
