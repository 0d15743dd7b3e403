"""Trainings that are killed, and drives that fail: nothing is lost, and what is resumed is bit for
bit what was not interrupted. `make torture` does the same many times over."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from honing.errors import UserError
from honing.run import RunFolder
from honing.training.checkpoint import newest_valid_checkpoint
from tests.crashes import (
    Shared,
    fail_and_resume,
    fill_and_resume,
    own_config,
    training,
    what_it_left,
)
from tests.faults import failing_at, small_drive
from tests.integration.test_resume import LLAMA, everything, resumed, same, stop_after, trainer
from tests.runs import qa_rows, save_rows

NUM_KILLS = 6
NUM_FAULTS = 6
SEED = 5


# --- a process that is killed


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_trainings_lose_nothing_and_end_bit_for_bit_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.crashes", str(tmp_path)]
    command += ["--kills", str(NUM_KILLS), "--seed", str(SEED)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert len(outcome["kills"]) == NUM_KILLS
    assert [kill for kill in outcome["kills"] if kill["lost"]] == []
    assert [kill for kill in outcome["kills"] if kill["half_written"]] == []
    assert [k for k in outcome["kills"] if k["damage"] and not k["skipped"]] == []
    assert outcome["differing"] == [[]] * len(outcome["differing"])
    assert outcome["differing_bits"] == 0


# --- a file operation that fails


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A trainer's uninterrupted run."""
    made = trainer(RunFolder(tmp_path_factory.mktemp("whole")), **LLAMA)
    made.train()
    return everything(made)


def test_each_operation_may_fail_from_a_resume_to_the_end(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    """Each write, sync, rename, link and folder in turn, from step 4 to the end of step 6."""
    stopped = RunFolder(tmp_path / "stopped")
    stop_after(trainer(stopped, **LLAMA), 4)
    met: set[str] = set()
    for n in range(1, 1000):
        run = RunFolder(tmp_path / str(n))
        shutil.copytree(stopped.root, run.root, symlinks=True)
        said = "training has ended"
        with failing_at(n, (errno.ENOSPC, errno.EIO)[n % 2]) as fault:
            try:
                resumed(run, **LLAMA).train()
            except UserError as error:
                said = str(error)
        if fault.happened is None:
            break
        met.add(fault.happened)
        kept, skipped = newest_valid_checkpoint(run)
        assert kept is not None
        assert kept.name >= "step-000004"
        assert skipped == []
        assert not list(run.checkpoints.glob(".*.new"))
        assert "\n" not in said
        assert said.endswith(("; free some space or choose another folder", "has ended"))
        again = resumed(run, **LLAMA)
        again.train()
        found = everything(again)
        del found["steps"]  # a removal that failed is no error, and leaves one checkpoint more
        assert [key for key in found if not same(found[key], whole[key])] == []
    assert n > 40
    assert met == {"write_all", "sync", "rename", "make_link", "make_one_folder"}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, rows: str) -> Any:
    """What an uninterrupted training leaves, and its number of file operations."""
    folder = tmp_path_factory.mktemp("expected") / "run"
    number = training(own_config(tiny_base, rows, folder), Shared())
    return what_it_left(folder), number


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", qa_rows())


def test_any_operation_of_a_training_may_fail(
    expected: Any, tiny_base: Path, rows: str, tmp_path: Path
) -> None:
    left, num_operations = expected
    draw = random.Random(SEED)
    for place in range(NUM_FAULTS):
        config = own_config(tiny_base, rows, tmp_path / str(place))
        n = draw.randint(1, num_operations)
        failure = fail_and_resume(config, n, draw.choice([errno.ENOSPC, errno.EIO]), left)
        assert failure is not None
        assert not failure.lost
        assert failure.differing == ()
        if failure.said is not None:
            assert failure.said.startswith(str(tmp_path / str(place)))


@pytest.mark.parametrize("kilobytes", [12, 60, 120, 200])
def test_a_drive_that_is_full(
    kilobytes: int, expected: Any, tiny_base: Path, rows: str, tmp_path: Path
) -> None:
    """Full before the first step, in the first checkpoint, in the second, in a later one."""
    left, _ = expected
    try:
        with small_drive(tmp_path / "drive") as drive:
            config = own_config(tiny_base, rows, drive / "run")
            failure = fill_and_resume(config, drive, kilobytes, left)
    except PermissionError as error:
        pytest.skip(f"needs the right to mount a file system in memory ({error.strerror})")
    assert failure.said is not None
    assert failure.said.endswith(
        ": cannot be written (No space left on device); free some space or choose another folder"
    )
    assert not failure.lost
    assert failure.differing == ()
