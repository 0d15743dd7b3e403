"""TrainState: sums, and there and back through plain records."""

from __future__ import annotations

import io
import math
from dataclasses import asdict, fields

import pytest
import torch

from honing.training.state import EpochRecord, Totals, TrainState, state_from_record

ONE = Totals(
    loss_nats=6.0,
    num_supervised=4,
    num_tokens=10,
    num_micro_batches=2,
    num_steps=1,
    grad_norm=0.5,
    seconds=0.25,
)


def test_totals_add_up_field_by_field() -> None:
    assert Totals() + ONE == ONE
    assert Totals(12.0, 8, 20, 4, 2, 1.0, 0.5) == ONE + ONE
    assert all(getattr(ONE + ONE, f.name) == 2 * getattr(ONE, f.name) for f in fields(Totals))


def test_mean_loss_is_over_supervised_tokens() -> None:
    assert ONE.mean_loss == 1.5
    assert math.isnan(Totals().mean_loss)


def full_state() -> TrainState:
    return TrainState(
        step=7,
        epoch=2,
        step_in_epoch=1,
        base_loss=3.5,
        val_loss=2.5,
        val_step=6,
        best_loss=2.25,
        best_step=3,
        num_evaluations_without_gain=1,
        stopped_early=True,
        epoch_totals=ONE,
        unlogged=ONE + ONE,
        history=[EpochRecord(0, ONE, 2.25), EpochRecord(1, ONE + ONE, None)],
    )


@pytest.mark.parametrize("state", [TrainState(), full_state()], ids=["fresh", "full"])
def test_there_and_back_through_a_checkpoints_file(state: TrainState) -> None:
    file = io.BytesIO()
    torch.save(asdict(state), file)
    file.seek(0)
    assert state_from_record(torch.load(file, weights_only=True)) == state


def test_reading_leaves_the_record_as_it_was() -> None:
    record = asdict(full_state())
    state_from_record(record)
    assert record == asdict(full_state())


def test_states_share_nothing() -> None:
    first, second = TrainState(), TrainState()
    first.history.append(EpochRecord(0, ONE, None))
    assert second.history == []
