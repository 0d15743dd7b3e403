"""honing train --selftest-resume: it finds no difference where there is none, and what there is."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from honing.errors import UserError
from honing.training.selftest import selftest_resume
from honing.training.trainer import Trainer
from tests.runs import qa_rows, save_rows, small_config

DROPOUT = "lora.dropout=0.3"


@pytest.fixture
def rows(tmp_path: Path) -> str:
    return save_rows(tmp_path / "data" / "rows.jsonl", qa_rows())


def test_a_training_that_repeats_itself_passes(tiny_base: Path, rows: str, tmp_path: Path) -> None:
    said: list[str] = []
    config = small_config(tiny_base, rows, tmp_path / "new" / "out", DROPOUT)
    tested = selftest_resume(config, said.append)
    assert tested.problem is None
    assert tested.stopped_after == 3
    assert [pair.step for pair in tested.steps] == [1, 2, 3, 4, 5, 6]
    assert len({pair.losses for pair in tested.steps}) == 6
    digest = tested.adapters[0]
    assert tested.adapters == (digest, digest)
    assert len(digest) == 64
    first = tested.steps[0]
    assert said[3] == (
        f"step 1: loss {first.losses[0]:.9g} = {first.losses[0]:.9g}, "
        f"gradient {first.grad_norms[0]:.9g} = {first.grad_norms[0]:.9g}"
    )
    assert said[-2:] == [
        f"adapter after step 6: {digest[:16]} = {digest[:16]}",
        "A training that is stopped after step 3 and resumed is bit for bit the uninterrupted one "
        "here",
    ]
    assert len(said) == 3 + 6 + 2
    assert tested.to_record()["passed"] is True
    # Nothing is left, and nothing was made.
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_it_leaves_a_run_that_is_there_alone(tiny_base: Path, rows: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text("mine")
    config = small_config(tiny_base, rows, tmp_path / "out")
    assert selftest_resume(config, lambda _: None).problem is None
    assert (tmp_path / "out" / "config.yaml").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}


def test_a_training_of_fewer_steps(tiny_base: Path, rows: str, tmp_path: Path) -> None:
    config = small_config(tiny_base, rows, tmp_path / "out", "train.max_steps=2")
    tested = selftest_resume(config, lambda _: None)
    assert (tested.problem, tested.stopped_after, len(tested.steps)) == (None, 1, 2)
    config = small_config(tiny_base, rows, tmp_path / "out", "train.max_steps=1")
    with pytest.raises(UserError) as caught:
        selftest_resume(config, lambda _: None)
    assert str(caught.value) == (
        "selftest: this configuration makes one step, and none to resume after it"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def forgets_its_random_states(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("honing.training.trainer.set_random_states", lambda *_: torch.manual_seed(0))


def forgets_its_optimizer(patch: pytest.MonkeyPatch) -> None:
    load = Trainer.load_checkpoint

    def loaded(self: Trainer, folder: Path) -> None:
        load(self, folder)
        self.optimizer.state.clear()

    patch.setattr(Trainer, "load_checkpoint", loaded)


def never_repeats_itself(patch: pytest.MonkeyPatch) -> None:
    """As on a device that sums in changing order."""
    clip = Trainer._clip_gradients

    def clipped(self: Trainer) -> float:
        for parameter in self.parameters:
            assert parameter.grad is not None
            parameter.grad *= 1 + 1e-4 * torch.rand((), generator=noise)
        return clip(self)

    noise = torch.Generator().manual_seed(1)
    patch.setattr(Trainer, "_clip_gradients", clipped)


REPORT = "; please report this with your configuration"
FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "random states": (
        forgets_its_random_states,
        "a resumed training is not bit for bit the uninterrupted one here: they differ in step 4, "
        f"optimizer, random states, the adapter{REPORT}",
    ),
    "optimizer": (
        forgets_its_optimizer,
        "a resumed training is not bit for bit the uninterrupted one here: they differ in step 5, "
        f"optimizer, the adapter{REPORT}",
    ),
    "device": (
        never_repeats_itself,
        "step 1 gives other numbers each time it is computed here, before any interruption: "
        "operations of this device sum in changing order; resumed or not, no two trainings will "
        "be equal bit for bit",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_differs_is_said(
    fault: str, tiny_base: Path, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks, message = FAULTS[fault]
    breaks(monkeypatch)
    said: list[str] = []
    config = small_config(tiny_base, rows, tmp_path / "out", DROPOUT)
    tested = selftest_resume(config, said.append)
    assert tested.problem == message
    assert tested.to_record()["passed"] is False
    assert "≠" in said[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_signal_stops_it_and_nothing_is_left(
    tiny_base: Path, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Trainer._train_step

    def stopping(self: Trainer, members: Any) -> None:
        if self.state.step == 1:
            signal.raise_signal(signal.SIGINT)
        own(self, members)

    monkeypatch.setattr(Trainer, "_train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        selftest_resume(small_config(tiny_base, rows, tmp_path / "out"), lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
