"""A training that was interrupted and resumed equals one that ran through, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from honing.config import LoraConfig
from honing.model.lora import attach_lora
from honing.run import RunFolder
from honing.training.checkpoint import newest_valid_checkpoint
from honing.training.progress import Progress
from honing.training.trainer import Interrupted, Trainer
from tests.tiny import PAIRS, encoded, switch_off_dropout, tiny_model, train_settings

ROWS, VAL = encoded(PAIRS[:7]), encoded(PAIRS[5:])
NUM_STEPS = 6  # two epochs of 7 rows by 3: groups of 3, 3 and 1

LLAMA: dict[str, Any] = {"architecture": "llama", "packing": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama packed": LLAMA,
    "gpt2 padded": {"architecture": "gpt2", "packing": False},
    "recomputed": {**LLAMA, "gradient_checkpointing": True},
    "16 bit": {**LLAMA, "dtype": torch.float16},
    "dora": {**LLAMA, "lora": {"use_dora": True}},
    "pissa": {**LLAMA, "lora": {"init": "pissa"}},
}


def trainer(
    run: RunFolder,
    architecture: str = "llama",
    dtype: torch.dtype = torch.float32,
    lora: dict[str, Any] | None = None,
    **settings: Any,
) -> Trainer:
    """As the training stage makes it, each time from nothing."""
    base = tiny_model(architecture, dtype)
    switch_off_dropout(base)
    model = attach_lora(base, LoraConfig(dropout=0.1, **(lora or {})), 3)
    torch.manual_seed(11)
    resolved = train_settings(
        epochs=2,
        global_batch_size=3,
        micro_batch_size=2,
        learning_rate=1e-2,
        eval_every=2,
        save_every=2,
        log_every=2,
        **settings,
    )
    made = Trainer(
        model, ROWS, VAL, resolved, seed=5, run=run, progress=Progress(run, NUM_STEPS, show=False)
    )
    if made.scaler.is_enabled():
        # Low enough to learn at once, and grown within the run, so that its state matters.
        made.scaler.load_state_dict(
            {**made.scaler.state_dict(), "scale": 64.0, "growth_interval": 4}
        )
    return made


def resumed(run: RunFolder, **variant: Any) -> Trainer:
    made = trainer(run, **variant)
    torch.manual_seed(999)
    checkpoint, _ = newest_valid_checkpoint(run)
    assert checkpoint is not None
    made.load_checkpoint(checkpoint)
    return made


def stop_after(made: Trainer, step: int) -> None:
    """A signal that comes during a step."""

    def ask(*_: Any) -> None:
        made.stop_requested = made.stop_requested or made.state.step + 1 == step

    made.optimizer.register_step_pre_hook(ask)
    with pytest.raises(Interrupted):
        made.train()
    assert made.state.step == step


def without_times(value: Any) -> Any:
    """Plain records without what a clock measured."""
    if isinstance(value, dict):
        return {
            key: without_times(item)
            for key, item in value.items()
            if key not in {"seconds", "tokens_per_s", "memory_bytes"}
        }
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return value


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def lines_of(run: RunFolder) -> list[Any]:
    text = run.metrics.read_text(encoding="utf-8")
    return [without_times(json.loads(line)) for line in text.splitlines()]


def everything(made: Trainer) -> dict[str, Any]:
    """All that a training ends with, and its random states."""
    assert made.run is not None
    return {
        "adapter": [parameter.detach() for parameter in made.parameters],
        "optimizer": made.optimizer.state_dict(),
        "scaler": made.scaler.state_dict(),
        "random": torch.get_rng_state(),
        "state": without_times(asdict(made.state)),
        "lines": lines_of(made.run),
        "file": (made.run.final / "adapter_model.safetensors").read_bytes(),
        "steps": [folder.name for folder in made.run.step_checkpoints()],
        "links": [folder and folder.name for folder in map(made.run.linked, ("last", "best"))],
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert [key for key in expected if not same(found[key], expected[key])] == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each variant ends with when it runs through; measured once."""
    known: dict[str, dict[str, Any]] = {}

    def ends_with(variant: str) -> dict[str, Any]:
        if variant not in known:
            made = trainer(RunFolder(tmp_path_factory.mktemp("whole")), **VARIANTS[variant])
            made.train()
            known[variant] = everything(made)
        return known[variant]

    return ends_with


def test_a_training_moves_every_part_that_is_compared(uninterrupted: Any) -> None:
    ends = uninterrupted("llama packed")
    assert len(ends["state"]["history"]) == 2
    assert ends["state"]["step"] == NUM_STEPS
    assert [(line["kind"], line["step"]) for line in ends["lines"]] == [
        ("validation", 0),
        *((kind, step) for step in (2, 4, 6) for kind in ("train", "validation")),
    ]
    moments = ends["optimizer"]["state"]
    assert len(moments) == len(ends["adapter"]) == 28
    assert all(float(moment["step"]) == NUM_STEPS for moment in moments.values())
    assert not same(ends, uninterrupted("gpt2 padded"))
    assert uninterrupted("16 bit")["scaler"]["scale"] == 128.0


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_resumed_after_any_step(step: int, uninterrupted: Any, tmp_path: Path) -> None:
    """1, 2, 4 and 5 lie in the middle of an epoch, 3 between two; at 2 and 4 it saves anyway."""
    run = RunFolder(tmp_path)
    stop_after(trainer(run, **LLAMA), step)
    made = resumed(run, **LLAMA)
    assert made.state.step == step
    made.train()
    found = everything(made)
    # Its interruptions are checkpoints too; those that were due are the same ones.
    found["steps"] = uninterrupted("llama packed")["steps"]
    assert_same(found, uninterrupted("llama packed"))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "llama packed"])
def test_resumed_in_the_middle_of_an_epoch(
    variant: str, uninterrupted: Any, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    stop_after(trainer(run, **VARIANTS[variant]), 4)
    made = resumed(run, **VARIANTS[variant])
    made.train()
    assert_same(everything(made), uninterrupted(variant))


def test_resumed_after_every_step(uninterrupted: Any, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    stop_after(trainer(run, **LLAMA), 1)
    for step in range(2, NUM_STEPS):
        stop_after(resumed(run, **LLAMA), step)
    made = resumed(run, **LLAMA)
    made.train()
    found = everything(made)
    assert found["steps"] == ["step-000005", "step-000006"]
    found["steps"] = uninterrupted("llama packed")["steps"]
    assert_same(found, uninterrupted("llama packed"))


def test_a_resume_that_forgets_its_random_state_would_be_noticed(
    uninterrupted: Any, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    stop_after(trainer(run, **LLAMA), 4)
    made = resumed(run, **LLAMA)
    torch.manual_seed(999)
    made.train()
    expected = uninterrupted("llama packed")
    found = everything(made)
    differing = [key for key in expected if not same(found[key], expected[key])]
    assert {"adapter", "optimizer", "random", "state", "lines"} <= set(differing)


def train_and_be_killed_while_saving(folder: Path, step: int) -> None:
    """For a process of its own: it dies with the checkpoint of a step half-written."""
    made = trainer(RunFolder(folder), **LLAMA)
    sync = os.fsync

    def die(handle: int) -> None:
        if made.state.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = die  # type: ignore[assignment]
    made.train()


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_resumed_after_a_kill(uninterrupted: Any, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; "
        "from tests.integration.test_resume import train_and_be_killed_while_saving as train; "
        f"train(Path({str(tmp_path)!r}), step=4)"
    )
    root = Path(__file__).resolve().parents[2]
    child = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    run = RunFolder(tmp_path)
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == [
        ".step-000004.new",
        "best",
        "last",
        "step-000002",
    ]
    assert [line["step"] for line in lines_of(run)] == [0, 2, 2, 4, 4]
    made = resumed(run, **LLAMA)
    assert made.state.step == 2
    made.train()
    assert_same(everything(made), uninterrupted("llama packed"))
    assert not (run.checkpoints / ".step-000004.new").exists()
