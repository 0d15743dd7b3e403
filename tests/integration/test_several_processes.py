"""Several processes at one work: what they make is what one makes, and none is left waiting."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed

from honing.cli import main
from honing.run import RunFolder
from tests.crashes import without_times
from tests.several import adapter, distance, plain_names
from tests.tiny_run import TinyRun

MOST = {"torch.float32": 1e-6, "torch.float64": 1e-10}
ROOT = Path(__file__).resolve().parents[2]


def reason_against() -> str:
    """Why several processes cannot be tested here; empty where they can."""
    if not hasattr(os, "fork"):
        return "needs os.fork"
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        return "needs torch with gloo"
    try:
        socket.create_server(("localhost", 0)).close()
    except OSError as error:
        return f"needs sockets on localhost ({error})"
    return ""


needs_several = pytest.mark.skipif(bool(reason_against()), reason=reason_against())


@pytest.mark.process
@needs_several
def test_several_processes_make_what_one_makes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.several", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    check_methods(found["methods"])
    check_trainings(found["trainings"])
    check_ends(found["runs"])
    check_what_runs_left(found["runs"])
    check_evaluations(found["evaluations"])


def check_methods(found: dict[str, Any]) -> None:
    """Two processes have called each. The last error is said by the first, and ends both."""
    assert found["ends"] == [2, 2]
    assert found["said"] == [["honing: there is none"], []]
    for rank, got in enumerate(found["found"]):
        assert got == {
            "processes": [rank, 2, 2],
            "gradients": [[0.25, 0.5], [[1.5 + 3.0]]],
            "values": [1.0, -0.0, True],  # of the first, down to the sign of its zero
            "sum": [2.0**51 + 1, 1.0],
            "any": [True, False],
            "gathered": [{"rank": 0}, {"rank": 1}],
            "from first": "of 0",
            "each": rank,
            "in turns": rank,
            "first fails": "UserError: there is none",
            "second fails": "UserError: process 1: there is none",
        }


def check_trainings(found: dict[str, Any]) -> None:
    """Padded and packed, shares of different length, a process without a row or a token."""
    assert len(found) == 24
    for name, compared in found.items():
        number = int(name[-len("N processes")])
        most = MOST["torch.float32" if "float32" in name else "torch.float64"]
        held = 1 / number if "divided" in name else 1.0
        assert compared["held"] == pytest.approx([held] * number, abs=0.03), name
        assert compared["adapter"] <= most, name
        assert compared["figures"] <= most, name  # losses, validation losses, gradient norms
        assert compared["same counts"], name
        assert compared["same everywhere"], name


def check_ends(found: dict[str, Any]) -> None:
    ends = {name: outcome["ends"] for name, outcome in found.items() if "ends" in outcome}
    assert ends == {
        "alone": [0],
        "two": [0, 0],
        "dropping": [0, 0],
        "divided": [0, 0],
        "too many": [2, 2],
        "killed": [1, -9],
        "resumed": [0, 0],
        "stopped": [143, 143],  # by a signal to the second alone
        "resumed by 1": [0],
        "resumed by 3": [0, 0, 0],
        "not finite": [1, 1],
    }
    # The first one speaks, and says in one line what all meet.
    for name in ends:
        first, *others = found[name]["said"]
        assert others == [[]] * len(others), name
        assert "Traceback (most recent call last):" not in first, name
    assert "2 processes, 2 of them here, share each step" in found["two"]["said"][0]
    last = {name: found[name]["said"][0][-1] for name in ends}
    assert last["too many"] == (
        "honing: train.global_batch_size: 2 processes cannot share steps of 1 examples; raise it, "
        "or start fewer processes"
    )
    assert last["killed"].startswith(
        "honing: process 0 of 2: another one has ended, so this one ends too ("
    )
    assert last["killed"].endswith(
        "); look for its own message, and start again, a training with --resume: what was saved "
        "stands"
    )
    assert last["stopped"].startswith("Stopped after step 3 of 4; all is saved. Go on with ")
    assert last["not finite"].startswith("honing: the loss of step 3 is not a finite number (nan)")
    assert warned("resumed", found) == []
    assert "num_processes 2 → 1" in warned("resumed by 1", found)[0]
    assert "num_processes 2 → 3" in warned("resumed by 3", found)[0]


def warned(name: str, found: dict[str, Any]) -> list[str]:
    return [line for line in found[name]["said"][0] if line.startswith("WARNING: the run goes on")]


def check_what_runs_left(found: dict[str, Any]) -> None:
    assert found["distances"]["alone"] == 0.0
    assert max(found["distances"].values()) <= 1e-6
    assert set(found["distances"]) == {"alone", "two", "divided", "stopped-1", "stopped-3"}
    # Killed in step 3 and resumed by as many, with dropout: bit for bit the uninterrupted one.
    assert found["differing"] == []
    assert found["saved"] == {"stopped": ["step-000002", "step-000003"], "spoilt": ["step-000002"]}
    # One writer: the same files, and the same lines.
    assert found["files"]["two"] == found["files"]["alone"]
    alone, two = (without_times(found["metrics"][name]) for name in ("alone", "two"))
    assert [line.keys() for line in two] == [line.keys() for line in alone]
    assert [line["step"] for line in two] == [line["step"] for line in alone]
    for key in ("train_loss", "val_loss", "grad_norm"):
        figures = [[line[key] for line in lines if key in line] for lines in (two, alone)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-6)


def check_evaluations(found: dict[str, Any]) -> None:
    """One process, two, and two of which one was killed: the same files, byte for byte."""
    assert found["one"]["ends"] == found["rest"]["ends"] == [0]
    assert found["two"]["ends"] == [0, 0]
    assert found["two"]["said"][1] == []
    assert found["killed"]["ends"] == [1, -9]
    # Five rows in batches of two: the first had three of the losses and answers to make.
    assert found["parts"] == {".base.part.jsonl": 1 + 2 + 3, ".1.base.part.jsonl": 1 + 1 + 1}
    assert found["files"] == ["base.json", "tuned.json"]
    assert found["same"] == {"two": True, "by-two": True, "by-killed": True}


@pytest.mark.process
@needs_several
def test_torchrun_starts_them(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    # In float32 wherever it runs: in bfloat16 each micro-batch rounds its own share of a gradient.
    settings = ["device=cpu", "model.dtype=float32", "lora.dropout=0.0"]
    settings += ["train.learning_rate=1.0e-3"]
    command = ["train", str(tiny_run.config), *settings]
    here = [f"output_dir={tmp_path / 'alone'}"]
    assert main([*command, *here]) == 0
    there = ["-m", "honing", *command, f"output_dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", *there], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("2 processes, 2 of them here, share each step") == 1
    assert len([line for line in lines if line.startswith("Next: ")]) == 1
    assert plain_names(tmp_path / "run") == plain_names(tmp_path / "alone")
    assert distance(adapter(tmp_path / "run"), adapter(tmp_path / "alone")) <= 1e-6
    assert RunFolder(tmp_path / "run").is_finished()
