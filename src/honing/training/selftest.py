"""The stage behind `honing train CONFIG --selftest-resume`: is a resumed training, with this
configuration on this machine, bit for bit the one that was not interrupted?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from honing.config import Config
from honing.errors import UserError
from honing.model.lora import ADAPTER_WEIGHTS
from honing.run import RunFolder
from honing.training.checkpoint import TRAINER_STATE
from honing.training.manifest import sha256_of
from honing.training.train import train

NUM_STEPS = 6
STOPPED_AFTER = 3
NUM_VAL_ROWS = 4

Say = Callable[[str], None]


@dataclass(frozen=True)
class StepPair:
    """One step: loss in nats a supervised token and norm of the gradient, of the uninterrupted
    training and of the resumed one."""

    step: int
    losses: tuple[float, float]
    grad_norms: tuple[float, float]

    @property
    def is_same(self) -> bool:
        return len(set(self.losses)) == len(set(self.grad_norms)) == 1


@dataclass(frozen=True)
class SelfTest:
    """adapters: SHA-256 of the uninterrupted training's and of the resumed one's. differing_state:
    what of the trainer's state differs: optimizer, scaler, random_states."""

    stopped_after: int
    steps: tuple[StepPair, ...]
    adapters: tuple[str, str]
    differing_state: tuple[str, ...]

    @property
    def problem(self) -> str | None:
        """What differs, in one line; None where nothing does."""
        first = next((pair.step for pair in self.steps if not pair.is_same), None)
        if first is not None and first <= self.stopped_after:
            return (
                f"step {first} gives other numbers each time it is computed here, before any "
                "interruption: operations of this device sum in changing order; resumed or not, "
                "no two trainings will be equal bit for bit"
            )
        parts = [] if first is None else [f"step {first}"]
        parts += [name.replace("_", " ") for name in self.differing_state]
        parts += ["the adapter"] if len(set(self.adapters)) > 1 else []
        if not parts:
            return None
        return (
            "a resumed training is not bit for bit the uninterrupted one here: they differ in "
            f"{', '.join(parts)}; please report this with your configuration"
        )

    def to_record(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.problem is None}


def selftest_resume(config: Config, say: Say = print) -> SelfTest:
    """Train a few steps of this configuration twice, once stopped half-way and resumed from its
    checkpoint by a trainer that is made anew, and compare. What was trained is removed.

    Raises UserError as a training does, and KeyboardInterrupt where a signal stops it.
    """
    output = Path(config.output_dir).expanduser()
    beside = next(folder for folder in output.absolute().parents if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.selftest-", dir=beside) as folder:
        tested = _run_twice(config, Path(folder), say)
    for pair in tested.steps:
        say(_line(pair))
    before, after = (digest[:16] for digest in tested.adapters)
    say(f"adapter after step {tested.steps[-1].step}: {before} {_word(before == after)} {after}")
    if tested.problem is None:
        say(
            f"A training that is stopped after step {tested.stopped_after} and resumed is bit for "
            "bit the uninterrupted one here"
        )
    return tested


def _run_twice(config: Config, folder: Path, say: Say) -> SelfTest:
    whole = _shortened(config, folder / "whole")
    parts = _shortened(config, folder / "parts")
    say(f"Training {NUM_STEPS} steps without an interruption …")
    num_steps = _train(whole, NUM_STEPS)
    if num_steps < 2:
        raise UserError("selftest: this configuration makes one step, and none to resume after it")
    stopped = min(STOPPED_AFTER, num_steps - 1)
    say(f"Training {stopped} steps, to be stopped there …")
    _train(parts, stopped)
    say("Resuming with a trainer that is made anew …")
    _train(parts, NUM_STEPS, resume=True)
    pairs = zip(_logged(whole), _logged(parts), strict=True)
    steps = tuple(
        StepPair(
            step=one["step"],
            losses=(one["train_loss"], other["train_loss"]),
            grad_norms=(one["grad_norm"], other["grad_norm"]),
        )
        for one, other in pairs
    )
    folders = [_run(config).step_checkpoint(num_steps) for config in (whole, parts)]
    adapters = [sha256_of(folder / ADAPTER_WEIGHTS) for folder in folders]
    states = [torch.load(folder / TRAINER_STATE, weights_only=True) for folder in folders]
    differing = tuple(
        name
        for name in ("optimizer", "scaler", "random_states")
        if not _same(states[0][name], states[1][name])
    )
    return SelfTest(stopped, steps, (adapters[0], adapters[1]), differing)


def _shortened(config: Config, folder: Path) -> Config:
    """The same training, of which a few steps are run: rates and rows stay those of all of it."""
    settings = config.train
    num_val_rows = min(NUM_VAL_ROWS, settings.max_val_rows or NUM_VAL_ROWS)
    changes = {"log_every": 1, "max_val_rows": num_val_rows, "keep_last": 2}
    train = settings.model_copy(update=changes)
    return config.model_copy(update={"train": train, "output_dir": str(folder)})


def _train(config: Config, stop_after: int, resume: bool = False) -> int:
    """Train until a step; the steps that were done, fewer where the training has fewer."""
    trained = train(config, resume=resume, say=_nothing, stop_after=stop_after)
    if trained.stopped_by is not None:
        raise KeyboardInterrupt
    last = trained.run.linked("last")
    assert last is not None
    return int(last.name.removeprefix("step-"))


def _nothing(_: str) -> None:
    pass


def _run(config: Config) -> RunFolder:
    return RunFolder(Path(config.output_dir))


def _logged(config: Config) -> Iterator[dict[str, Any]]:
    text = _run(config).metrics.read_text(encoding="utf-8")
    lines = map(json.loads, text.splitlines())
    return (line for line in lines if line["kind"] == "train")


def _same(a: Any, b: Any) -> bool:
    """Equal in type and value: plain records with tensors in them."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _line(pair: StepPair) -> str:
    (loss, other_loss), (norm, other_norm) = pair.losses, pair.grad_norms
    return (
        f"step {pair.step}: loss {loss:.9g} {_word(loss == other_loss)} {other_loss:.9g}, "
        f"gradient {norm:.9g} {_word(norm == other_norm)} {other_norm:.9g}"
    )


def _word(is_same: bool) -> str:
    return "=" if is_same else "≠"
