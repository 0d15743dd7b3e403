"""Does packing work on this model? Measured on real rows, before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from honing.data.encode import IGNORE, Tokens
from honing.data.pack import packed_batch
from honing.model.attention import NAME
from honing.model.forward import head_of, hidden_states, plain_model
from honing.model.load import Model
from honing.training.loss import response_loss

_NUM_EXAMPLES = 3
_LONGEST = 64
# Relative difference of the loss that rounding explains: other kernels, other sums.
_LOSS_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.bfloat16: 3e-2,
    torch.float16: 1e-2,
}
# The same kernels on the same shapes differ by next to nothing, whatever the type.
_LEAK_TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 1e-3,
    torch.float16: 1e-3,
}


@torch.no_grad()
def packing_works(model: Model, rows: Sequence[Tokens], device: str) -> bool:
    """Whether the examples of a packed row are computed as if each were alone.

    Two questions, on real rows. Does the row have the loss that its examples have alone, by the
    library's own way? And do the states of the later examples stay as they are when the tokens of
    the first are others? The second finds what leaks through attention, convolutions or recurrent
    states even in bfloat16, where rounding would hide it from the first.
    """
    examples = [_shortened(row) for row in sorted(rows, key=lambda r: len(r.ids))[:_NUM_EXAMPLES]]
    examples *= 2 if len(examples) == 1 else 1
    causal_model = plain_model(model)
    model.eval()
    vocabulary = causal_model.config.get_text_config().vocab_size
    others = [_with_other_ids(examples[0], vocabulary), *examples[1:]]
    labels = torch.from_numpy(packed_batch(examples).labels).to(device)
    try:
        alone = sum(_own_loss(causal_model, example, device) for example in examples)
        with _isolated_attention(causal_model):
            hidden, others_hidden = (
                _packed_states(model, row, device) for row in (examples, others)
            )
            packed = float(response_loss(hidden, labels, head_of(model))[0])
    # An architecture that takes no lengths, or has no decoder under the usual name.
    except (TypeError, AttributeError, ValueError):
        return False
    after_first = len(examples[0].ids)
    leaked = _relative_difference(others_hidden[:, after_first:], hidden[:, after_first:])
    dtype = causal_model.dtype
    return (
        abs(packed - alone) <= _LOSS_TOLERANCE[dtype] * abs(alone)
        and leaked <= _LEAK_TOLERANCE[dtype]
    )


def _shortened(row: Tokens) -> Tokens:
    return Tokens(row.example_id, row.ids[-_LONGEST:], (IGNORE, *row.labels[-_LONGEST:][1:]))


def _with_other_ids(row: Tokens, vocabulary: int) -> Tokens:
    return Tokens(row.example_id, tuple((i + 1) % vocabulary for i in row.ids), row.labels)


def _own_loss(causal_model: Model, example: Tokens, device: str) -> float:
    """Sum in nats over the learnt tokens, by the model's own logits."""
    ids, labels = torch.tensor([example.ids], device=device), torch.tensor(example.labels)
    logits = causal_model(input_ids=ids, use_cache=False).logits[0, :-1]
    # On the CPU: an Apple GPU has no float64.
    wide = logits.cpu().double()
    return float(cross_entropy(wide, labels[1:], ignore_index=IGNORE, reduction="sum"))


def _packed_states(model: Model, examples: Sequence[Tokens], device: str) -> Tensor:
    batch = packed_batch(examples)
    return hidden_states(
        model,
        torch.from_numpy(batch.input_ids).to(device),
        torch.from_numpy(batch.position_ids).to(device),
        None,
        batch.segment_lengths,
    )


def _relative_difference(a: Tensor, b: Tensor) -> float:
    a, b = a.cpu().double(), b.cpu().double()
    return float((a - b).norm() / b.norm())


@contextmanager
def _isolated_attention(causal_model: Model) -> Iterator[None]:
    before = causal_model.config._attn_implementation
    try:
        causal_model.set_attn_implementation(NAME)
        yield
    finally:
        causal_model.set_attn_implementation(before)
