"""How far two models are apart on the same rows of ids, and how far rounding alone moves one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from honing.model.forward import plain_model
from honing.model.load import Model

PROBE_SCALE = math.sqrt(2)


@dataclass(frozen=True)
class Difference:
    """Of a model from a reference. max_abs_logit: largest over all positions and tokens.

    mean_kl_nats: KL(reference ‖ model), mean over positions. num_agreeing: positions where both
    find the same token most likely.
    """

    max_abs_logit: float
    mean_kl_nats: float
    num_agreeing: int
    num_positions: int

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.max_abs_logit) and math.isfinite(self.mean_kl_nats)

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def logits_of(model: Model, rows: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """Logits of each row alone: (T, V) in float32."""
    causal_model = plain_model(model)
    for ids in rows:
        input_ids = torch.tensor([list(ids)], device=causal_model.device)
        logits: Tensor = causal_model(input_ids=input_ids, use_cache=False).logits[0]
        yield logits.float()


def difference(reference: Iterable[Tensor], other: Iterable[Tensor]) -> Difference:
    """Of two models' logits, row by row; sums in float64."""
    largest, sum_kl, num_agreeing, num_positions = 0.0, 0.0, 0, 0
    for a, b in zip(reference, other, strict=True):
        row = float((a - b).abs().max())
        largest = row if math.isnan(row) else max(largest, row)
        if math.isnan(largest):
            return Difference(math.nan, math.nan, 0, 0)
        log_p, log_q = (logits.double().log_softmax(-1) for logits in (a, b))
        sum_kl += float((log_p.exp() * (log_p - log_q)).sum())
        num_agreeing += int((a.argmax(-1) == b.argmax(-1)).sum())
        num_positions += len(a)
    return Difference(largest, sum_kl / max(1, num_positions), num_agreeing, num_positions)


@torch.no_grad()
def round_weights(model: Model, dtype: torch.dtype) -> None:
    """Move each base weight by its rounding error in dtype, in place; the adapter stays.

    w → round(w·√2) / √2: an error as large as that of a cast, also where w is stored in dtype
    already and a cast would change nothing.
    """
    for name, weight in plain_model(model).named_parameters():
        if "lora_" not in name:
            rounded = (weight.double() * PROBE_SCALE).to(dtype).double() / PROBE_SCALE
            weight.data = rounded.to(weight.dtype)
