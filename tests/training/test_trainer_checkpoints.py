"""What the loop saves and when, what it points at, when it stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from honing import files
from honing.errors import UserError
from honing.model.lora import adapter_weights, load_adapter
from honing.run import RunFolder
from honing.training.checkpoint import read_about
from honing.training.trainer import Interrupted, Trainer
from tests.tiny import adapted_model, tiny_model
from tests.training.test_trainer import VAL, Recorder, trainer


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def kept(run: RunFolder) -> list[int]:
    return [int(folder.name.removeprefix("step-")) for folder in run.step_checkpoints()]


def linked(run: RunFolder, name: str) -> int | None:
    folder = run.linked(name)
    return None if folder is None else int(folder.name.removeprefix("step-"))


def with_losses(made: Trainer, losses: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Validations that give these losses; the first is the base model's."""
    script: Iterator[float] = iter(losses)
    monkeypatch.setattr(made, "evaluate", lambda: (next(script) * 4, 4))
    return made


# When


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"save_every": "epoch"}, [3, 6]),
        ({"save_every": 1}, [1, 2, 3, 4, 5, 6]),
        ({"save_every": 2}, [2, 4, 6]),
        ({"save_every": 4}, [4, 6]),  # the last step always
        ({"save_every": "never"}, [6]),
        ({"save_every": "epoch", "max_steps": 4}, [3, 4]),
    ],
)
def test_when_it_saves(settings: dict[str, Any], steps: list[int], run: RunFolder) -> None:
    trainer(run=run, val=[], keep_last=100, **settings).train()
    assert kept(run) == steps
    assert linked(run, "last") == steps[-1]
    assert run.final.is_dir()
    assert run.linked("best") is None
    assert run.checkpoint_to_use() == run.final


def test_a_better_validation_loss_is_saved_at_once(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(run=run, keep_last=100, eval_every=1, save_every="never")
    with_losses(made, [9.0, 5.0, 6.0, 4.0, 4.0, 3.0, 8.0], monkeypatch).train()
    assert kept(run) == [1, 3, 5, 6]  # an equal loss is not a better one
    assert linked(run, "best") == 5
    assert (made.state.best_step, made.state.best_loss) == (5, 3.0)
    assert (made.state.val_step, made.state.val_loss) == (6, 8.0)
    assert made.state.base_loss == 9.0
    assert run.checkpoint_to_use() == run.step_checkpoint(5)


def test_the_best_stays_however_few_are_kept(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(run=run, keep_last=1, eval_every=1, save_every=1)
    with_losses(made, [9.0, 5.0, 2.0, 4.0, 4.0, 3.0, 8.0], monkeypatch).train()
    assert kept(run) == [2, 6]
    assert (linked(run, "best"), linked(run, "last")) == (2, 6)


def test_a_worse_tuning_has_a_best_checkpoint_too(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's own loss is for comparison: best means the best of the checkpoints."""
    made = trainer(run=run, keep_last=1)
    with_losses(made, [1.0, 5.0, 6.0], monkeypatch).train()
    assert linked(run, "best") == 3


def test_links_are_relative_so_that_a_run_can_be_moved(run: RunFolder) -> None:
    trainer(run=run).train()
    moved = RunFolder(run.root.with_name("moved"))
    run.root.rename(moved.root)
    assert linked(moved, "last") == 6
    assert moved.linked("best") is not None


def test_final_is_what_the_end_of_training_left(run: RunFolder) -> None:
    made = trainer(run=run)
    made.train()
    (final, last) = (load_adapter(tiny_model("llama"), run.final), run.step_checkpoint(6))
    for name, tensor in adapter_weights(made.model).items():
        assert torch.equal(tensor, adapter_weights(final)[name])
    for name in ("adapter_model.safetensors", "honing.json"):
        assert (run.final / name).read_bytes() == (last / name).read_bytes()
    assert made.checkpoint_sizes is not None
    assert made.checkpoint_sizes.adapter == (run.final / "adapter_model.safetensors").stat().st_size


def test_what_a_checkpoint_says_of_itself(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(run=run, keep_last=100, eval_every="epoch", save_every=2)
    made.about = {"base": "tiny", "eos": 0}
    with_losses(made, [9.0, 5.0, 6.0], monkeypatch).train()

    def about(step: int) -> Any:
        return read_about(run.step_checkpoint(step))

    assert about(2) == {
        "base": "tiny",
        "eos": 0,
        "metrics": {"step": 2, "base_val_loss": 9.0, "val_loss": None},
    }
    assert about(3)["metrics"] == {"step": 3, "base_val_loss": 9.0, "val_loss": 5.0}
    assert about(4)["metrics"]["val_loss"] is None  # not the one of step 3
    assert read_about(run.final) == about(6)


def test_without_a_run_nothing_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = trainer(max_steps=1)
    made.train()
    assert made.save_checkpoint() is None
    assert list(tmp_path.iterdir()) == []


# Early stopping


@pytest.mark.parametrize(
    ("patience", "losses", "last"),
    [
        (1, [9.0, 5.0, 5.0], 2),
        (1, [9.0, 5.0, 4.0, 4.5], 3),
        (2, [9.0, 5.0, 6.0, 7.0], 3),
        (2, [9.0, 5.0, 6.0, 4.0, 5.0, 5.0], 5),
        (3, [9.0, 5.0, 6.0, 7.0, 4.0, 5.0, 6.0], 6),
        (None, [9.0, 5.0, 6.0, 7.0, 8.0, 9.0, 9.0], 6),
    ],
)
def test_it_stops_after_so_many_validations_without_a_lower_loss(
    patience: int | None,
    losses: list[float],
    last: int,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Recorder()
    made = trainer(
        run=run, progress=recorder, eval_every=1, early_stopping_patience=patience, log_every=100
    )
    with_losses(made, losses, monkeypatch).train()
    assert made.state.step == last
    assert made.state.stopped_early == (last < 6)
    assert linked(run, "last") == last
    assert run.final.is_dir()
    best = losses.index(min(losses[1:]))
    assert linked(run, "best") == best
    assert sum(record.totals.num_steps for record in made.state.history) == last
    # The last steps are logged, whatever log_every says.
    assert [line.step for line in recorder.logs] == [last]


# Stopping and going on


def test_a_requested_stop_finishes_the_step_and_saves(run: RunFolder) -> None:
    made = trainer(run=run, save_every="never", val=[])

    def ask(*_: Any) -> None:
        if made.state.step == 1:
            made.stop_requested = True

    made.optimizer.register_step_post_hook(ask)
    with pytest.raises(Interrupted):
        made.train()
    assert made.state.step == 2
    assert kept(run) == [2]
    assert linked(run, "last") == 2
    assert not run.final.exists()


def test_a_stop_that_comes_with_the_last_step_is_none(run: RunFolder) -> None:
    made = trainer(run=run, val=[])
    made.optimizer.register_step_post_hook(
        lambda *_: setattr(made, "stop_requested", made.state.step == 5)
    )
    made.train()
    assert made.state.step == 6
    assert run.final.is_dir()


def test_a_finished_training_stays_finished(run: RunFolder) -> None:
    first = trainer(run=run)
    first.train()
    again = trainer(run=run)
    again.load_checkpoint(run.step_checkpoint(6))
    again.train()
    assert again.state == first.state
    for a, b in zip(again.parameters, first.parameters, strict=True):
        assert torch.equal(a, b)


def test_a_training_that_was_stopped_early_stays_stopped(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"eval_every": 1, "early_stopping_patience": 1}
    with_losses(trainer(run=run, **settings), [9.0, 5.0, 6.0], monkeypatch).train()
    again = trainer(run=run, **settings)
    again.load_checkpoint(run.step_checkpoint(2))
    assert with_losses(again, [], monkeypatch).train().step == 2


def test_a_checkpoint_of_another_adapter(run: RunFolder) -> None:
    trainer(run=run, max_steps=1).train()
    made = trainer(adapted_model("gpt2"), run=run)
    with pytest.raises(UserError, match=r"this adapter does not fit the base model: 44 of 16"):
        made.load_checkpoint(run.final)


def test_going_on_before_a_damaged_best_points_at_the_best_that_is_left(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"eval_every": 1, "save_every": 1, "keep_last": 1}
    made = trainer(run=run, **{**settings, "keep_last": 100})
    with_losses(made, [9.0, 5.0, 6.0, 7.0, 3.0, 8.0, 8.0], monkeypatch).train()
    assert linked(run, "best") == 4
    again = trainer(run=run, **settings)
    again.load_checkpoint(run.step_checkpoint(2))
    assert linked(run, "best") == 1
    assert (again.state.step, again.state.best_step, again.state.best_loss) == (2, 1, 5.0)
    with_losses(again, [7.5, 6.5, 6.5, 6.5], monkeypatch).train()
    assert (linked(run, "best"), linked(run, "last")) == (1, 6)
    assert kept(run) == [1, 6]


def test_a_full_disk_is_said_and_the_last_checkpoint_stands(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(run=run, val=VAL, save_every=1)
    saved: list[int] = []
    write = made._write

    def until_full(folder: Path, states: Any) -> None:
        if len(saved) == 2:
            monkeypatch.setattr(files, "write_all", full)
        saved.append(made.state.step)
        write(folder, states)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(made, "_write", until_full)
    with pytest.raises(UserError) as caught:
        made.train()
    assert str(caught.value) == (
        f"{run.step_checkpoint(3)}: cannot be written (No space left on device); "
        "free some space or choose another folder"
    )
    assert kept(run) == [1, 2]
    assert linked(run, "last") == 2
