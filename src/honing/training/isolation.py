"""Does packing work on this model? Measured on real rows, before the first step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from honing.data.encode import IGNORE, Tokens
from honing.data.pack import packed_batch
from honing.model.attention import NAME
from honing.model.forward import head_of, hidden_states, plain_model
from honing.model.load import Model
from honing.training.loss import response_loss

_NUM_EXAMPLES = 3
_LONGEST = 64
# Relative difference of the loss that rounding explains.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}


@torch.no_grad()
def packing_works(model: Model, rows: Sequence[Tokens], device: str) -> bool:
    """Whether a packed row has the loss that its examples have alone, by the library's own way.

    An architecture whose attention ignores the lengths, or whose head is not the plain one that
    honing knows, shows here, instead of learning quietly from its neighbours.
    """
    examples = [_shortened(row) for row in sorted(rows, key=lambda r: len(r.ids))[:_NUM_EXAMPLES]]
    causal_model = plain_model(model)
    before = causal_model.config._attn_implementation
    model.eval()
    alone = 0.0
    for example in examples:
        ids = torch.tensor([example.ids], device=device)
        labels = torch.tensor([example.labels], device=device)
        logits = causal_model(input_ids=ids, use_cache=False).logits[0, :-1].double()
        alone += float(
            torch.nn.functional.cross_entropy(
                logits, labels[0, 1:], ignore_index=IGNORE, reduction="sum"
            )
        )
    batch = packed_batch(examples)
    try:
        causal_model.set_attn_implementation(NAME)
        hidden = hidden_states(
            model,
            torch.from_numpy(batch.input_ids).to(device),
            torch.from_numpy(batch.position_ids).to(device),
            None,
            batch.segment_lengths,
        )
        labels = torch.from_numpy(batch.labels).to(device)
        packed = float(response_loss(hidden, labels, head_of(model))[0])
    # An architecture that takes no lengths, or has no decoder under the usual name.
    except (TypeError, AttributeError, ValueError):
        return False
    finally:
        causal_model.set_attn_implementation(before)
    return abs(packed - alone) <= _TOLERANCE[causal_model.dtype] * abs(alone)


def _shortened(row: Tokens) -> Tokens:
    return Tokens(row.example_id, row.ids[-_LONGEST:], (IGNORE, *row.labels[-_LONGEST:][1:]))
