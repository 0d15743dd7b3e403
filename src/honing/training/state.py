"""TrainState: where a training stands, as plain records that go into a checkpoint and come back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Totals:
    """Sums over steps. loss_nats is over num_supervised tokens; seconds are without validation."""

    loss_nats: float = 0.0
    num_supervised: int = 0
    num_tokens: int = 0
    num_micro_batches: int = 0
    num_steps: int = 0
    grad_norm: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Totals) -> Totals:
        mine, theirs = asdict(self), asdict(other)
        return Totals(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def mean_loss(self) -> float:
        return self.loss_nats / self.num_supervised if self.num_supervised else math.nan


@dataclass(frozen=True)
class EpochRecord:
    """One pass over the rows: its sums, and the validation loss after it, where there was one."""

    epoch: int
    totals: Totals
    val_loss: float | None


@dataclass
class TrainState:
    """Where a training stands. `epoch` is the one in progress, from 0; `step_in_epoch` and `step`
    count finished optimizer steps."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    base_loss: float | None = None
    val_loss: float | None = None
    val_step: int | None = None
    best_loss: float | None = None
    best_step: int | None = None
    num_evaluations_without_gain: int = 0
    stopped_early: bool = False
    epoch_totals: Totals = field(default_factory=Totals)
    unlogged: Totals = field(default_factory=Totals)
    history: list[EpochRecord] = field(default_factory=list)


def state_from_record(record: dict[str, Any]) -> TrainState:
    """TrainState from the plain dictionaries that a checkpoint holds."""
    values = dict(record)
    values["epoch_totals"] = Totals(**values["epoch_totals"])
    values["unlogged"] = Totals(**values["unlogged"])
    values["history"] = [
        EpochRecord(**{**epoch, "totals": Totals(**epoch["totals"])}) for epoch in values["history"]
    ]
    return TrainState(**values)
