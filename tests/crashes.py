"""Trainings that are killed and resumed: a warm process forks one for each kill.

    python -m tests.crashes FOLDER --kills 6 --seed 1

prints what happened as JSON. torch and honing are imported once, so that a kill costs what its
training costs. Half of the kills come after a seeded time, half in the place of a seeded file
operation (write, half done; sync; rename; link; new folder), most of which belong to a save; these
take away with them what was not synced, as a loss of power does.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tqdm import tqdm

import honing.training.train as stage
from honing.config import Config
from honing.errors import UserError
from honing.run import RunFolder
from honing.training.checkpoint import newest_valid_checkpoint
from honing.training.manifest import MANIFEST
from honing.training.trainer import Trainer
from tests.faults import Fault, at_operation, failing_at, lose_power, resize_drive
from tests.runs import lines_of_metrics, names_below, qa_rows, save_rows, small_config
from tests.tiny import save_tiny_base

SETTINGS = (
    *("lora.dropout=0.3", "train.save_every=1", "train.keep_last=2", "train.eval_every=2"),
    "train.log_every=1",
)
MOST_KILLS_OF_A_RUN = 3
SHARE_DAMAGED = 0.25
HANGS_AFTER_S = 300
NEVER = 10**9


@dataclass(frozen=True)
class Kill:
    """where: what the training was at. lost: the checkpoint that was saved last is no longer there,
    or not whole. half_written: checkpoints that cannot be read and were not damaged on purpose.
    damage: what was then done to the newest one, in some cases. skipped: what a resume passes over,
    in one line each."""

    run: int
    how: str
    where: str
    step: int
    lost: bool
    half_written: tuple[str, ...]
    damage: str | None
    skipped: tuple[str, ...]


@dataclass
class Outcome:
    """differing: for each run that went to its end, what is not as in the uninterrupted one."""

    seed: int
    num_operations: int
    seconds: float
    kills: list[Kill] = field(default_factory=list)
    differing: list[list[str]] = field(default_factory=list)
    differing_bits: int = 0


class Shared:
    """A page that a forked process writes and its parent reads: where it is, and what it saved."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def write(self, **changes: Any) -> None:
        text = json.dumps({**self.read(), **changes}).encode()
        self._page[:] = text.ljust(mmap.PAGESIZE, b"\0")

    def read(self) -> dict[str, Any]:
        text = self._page[:].rstrip(b"\0")
        return json.loads(text) if text else {"where": [], "saved": 0, "step": 0}

    def clear(self) -> None:
        self._page[:] = bytes(mmap.PAGESIZE)


def own_config(base: Path, rows: str, folder: Path) -> Config:
    """Six steps, a checkpoint after each, a validation after every second."""
    return small_config(base, rows, folder, *SETTINGS)


@contextmanager
def telling(shared: Shared) -> Iterator[None]:
    """The trainer says what it is at."""

    def told(name: str, label: str) -> Callable[..., Any]:
        own = getattr(Trainer, name)

        def method(self: Trainer, *arguments: Any, **options: Any) -> Any:
            before = shared.read()["where"]
            shared.write(where=[*before, label], step=self.state.step)
            result = own(self, *arguments, **options)
            saved = {"saved": self.state.step} if name == "save_checkpoint" else {}
            shared.write(where=before, **saved)
            return result

        return method

    labels = {
        "train": "loop",
        "_train_step": "step",
        "_validate": "validation",
        "_log_steps": "log",
        "load_checkpoint": "resume",
        "save_checkpoint": "save",
        "_write": "checkpoint",
    }
    with ExitStack() as patches:
        for name, label in labels.items():
            patches.enter_context(mock.patch.object(Trainer, name, told(name, label)))
        patches.enter_context(mock.patch.object(stage, "SAMPLE_TOKENS", 4))
        yield


def training(config: Config, shared: Shared, kill_at: int = NEVER) -> int:
    """Resume, or start, in this process; the number of file operations until its end."""

    def die(fault: Fault) -> None:
        lose_power(Path(config.output_dir), fault)
        os.kill(os.getpid(), signal.SIGKILL)

    def count(operation: str) -> None:
        shared.write(operation=operation)

    with telling(shared), at_operation(kill_at, die, count) as counted:
        stage.train(config, resume=True, say=lambda _: None)
    return len(counted.counted)


def forked(body: Callable[[], object], log: Path) -> int:
    """A child that does something and exits with 0, or 1 and a traceback in the log; its id. One
    that hangs is ended by SIGALRM."""
    child = os.fork()
    if child:
        return child
    # tqdm's own lock is shared by forked processes, and one that is killed never lets go of it.
    tqdm.set_lock(threading.RLock())
    signal.alarm(HANGS_AFTER_S)
    status = 1
    try:
        with log.open("a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                body()
                status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
    finally:
        os._exit(status)


def end_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_and_resume(folder: Path, num_kills: int, seed: int) -> Outcome:
    """Kill trainings until there were num_kills, and resume each to its end."""
    draw, shared = random.Random(seed), Shared()
    base = save_tiny_base(folder / "base")
    rows = save_rows(folder / "rows.jsonl", qa_rows())
    outcome, expected = _uninterrupted(folder, base, rows, shared, seed)
    number = 0
    while len(outcome.kills) < num_kills:
        number += 1
        out = folder / f"run-{number}"
        config = own_config(base, rows, out)
        for _ in range(min(MOST_KILLS_OF_A_RUN, num_kills - len(outcome.kills))):
            kill = _one_kill(config, number, outcome, draw, shared, folder / "log")
            if kill is None:
                break
            outcome.kills.append(kill)
        last = forked(lambda config=config: training(config, shared), folder / "log")  # type: ignore[misc]
        if end_of(last):
            raise RuntimeError((folder / "log").read_text(encoding="utf-8"))
        found = what_it_left(out)
        outcome.differing.append([key for key in expected if not same(found[key], expected[key])])
        if found["files"] != expected["files"]:
            outcome.differing[-1] += sorted(set(found["files"]) ^ set(expected["files"]))
        outcome.differing_bits += num_differing_bits(found["adapter"], expected["adapter"])
    return outcome


def _uninterrupted(
    folder: Path, base: Path, rows: str, shared: Shared, seed: int
) -> tuple[Outcome, dict[str, Any]]:
    """A run without a kill: what it leaves, its time, and its number of file operations."""
    config = own_config(base, rows, folder / "whole")
    started = time.perf_counter()
    count = folder / "operations"
    child = forked(lambda: count.write_text(str(training(config, shared))), folder / "log")
    if end_of(child):
        raise RuntimeError((folder / "log").read_text(encoding="utf-8"))
    seconds = time.perf_counter() - started
    return Outcome(seed, int(count.read_text()), seconds), what_it_left(folder / "whole")


def _one_kill(
    config: Config, run: int, outcome: Outcome, draw: random.Random, shared: Shared, log: Path
) -> Kill | None:
    """Kill a training once; None where it came to its end before."""
    shared.clear()
    if draw.random() < 0.5:
        number = draw.randint(1, outcome.num_operations)
        how = f"operation {number}"
        ended = end_of(forked(lambda: training(config, shared, number), log))
    else:
        seconds = draw.uniform(0.0, outcome.seconds)
        how = f"after {seconds:.2f} s"
        child = forked(lambda: training(config, shared), log)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # of a child that has ended and was not waited for: nothing
        ended = end_of(child)
    if ended == 0:
        return None
    if ended != -signal.SIGKILL:
        raise RuntimeError(f"ended with {ended}: {log.read_text(encoding='utf-8')}")
    told = shared.read()
    where = ": ".join(told["where"][1:]) or ("loop" if told["where"] else "start")
    if "checkpoint" in where or how.startswith("operation"):
        where += f" ({told.get('operation', 'none')})"
    folder = RunFolder(Path(config.output_dir))
    lost = newest_step(folder) < told["saved"]
    hurt = {k.damage.split("/")[0] for k in outcome.kills if k.run == run and k.damage}
    before = newest_valid_checkpoint(folder)[1]
    half = tuple(line for line in before if line.split(" ")[0] not in hurt)
    damage = damaged(folder, draw) if draw.random() < SHARE_DAMAGED else None
    skipped = tuple(newest_valid_checkpoint(folder)[1])
    return Kill(run, how, where, told["step"], lost, half, damage, skipped)


def newest_step(run: RunFolder) -> int:
    found, _ = newest_valid_checkpoint(run)
    return 0 if found is None else int(found.name.removeprefix("step-"))


def damaged(run: RunFolder, draw: random.Random) -> str | None:
    """Flip a bit in the newest checkpoint, cut a file short, or remove it; what was done."""
    folders = run.step_checkpoints()
    if not folders:
        return None
    path = draw.choice(sorted(folders[-1].iterdir()))
    name = f"{folders[-1].name}/{path.name}"
    content = bytearray(path.read_bytes())
    kind = draw.choice(["bit", "cut", "gone"])
    if not content or (kind == "gone" and path.name != MANIFEST):
        path.unlink()
        return f"{name} removed"
    place = draw.randrange(max(1, len(content) - 1))  # the last byte of a text says nothing
    if kind == "cut":
        path.write_bytes(content[:place])
        return f"{name} cut to {place} bytes"
    bit = draw.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"{name}: bit {bit} of byte {place} flipped"


@dataclass(frozen=True)
class Failure:
    """A training in which one file operation failed. said: the error; None where the training came
    to its end all the same. lost, differing: as in Kill and Outcome, after a resume."""

    operation: str
    said: str | None
    lost: bool
    differing: tuple[str, ...]


def fail_and_resume(config: Config, n: int, error: int, expected: dict[str, Any]) -> Failure | None:
    """Let the n-th file operation of a training fail, and resume; None where it has fewer."""
    run, shared, said = RunFolder(Path(config.output_dir)), Shared(), None
    with telling(shared), failing_at(n, error) as fault:
        try:
            stage.train(config, resume=True, say=lambda _: None)
        except UserError as raised:
            said = str(raised)
    if fault.happened is None:
        return None
    lost = newest_step(run) < shared.read()["saved"]
    training(config, shared)
    return Failure(fault.happened, said, lost, differing(run.root, expected))


def fill_and_resume(
    config: Config, drive: Path, kilobytes: int, expected: dict[str, Any]
) -> Failure:
    """Train on a drive of so many kB, give it room, and resume."""
    run, shared, said = RunFolder(Path(config.output_dir)), Shared(), None
    resize_drive(drive, kilobytes)
    with telling(shared):
        try:
            stage.train(config, resume=True, say=lambda _: None)
        except UserError as raised:
            said = str(raised)
    lost = newest_step(run) < shared.read()["saved"]
    resize_drive(drive, 100 * kilobytes)
    training(config, shared)
    return Failure("full drive", said, lost, differing(run.root, expected))


def differing(folder: Path, expected: dict[str, Any]) -> tuple[str, ...]:
    """What of a finished run is not as in the uninterrupted one. Where an operation failed, a
    pointer may be a file, and an old checkpoint have been left."""
    found = what_it_left(folder)
    return tuple(key for key in expected if key != "files" and not same(found[key], expected[key]))


def what_it_left(folder: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on interruptions."""
    run = RunFolder(folder)
    state = torch.load(run.final / "trainer_state.pt", weights_only=True)
    names = {name for name in names_below(folder) if not name.startswith("logs/")}
    return {
        "adapter": (run.final / "adapter_model.safetensors").read_bytes(),
        "about": (run.final / "honing.json").read_bytes(),
        "state": without_times(state),
        "metrics": [without_times(line) for line in lines_of_metrics(folder)],
        "links": [str(path and path.name) for path in map(run.linked, ("last", "best"))],
        "files": sorted(names),
        "splits": [path.read_bytes() for path in sorted(run.splits.iterdir())],
    }


def without_times(value: Any) -> Any:
    """Plain records without what a clock measured."""
    if isinstance(value, dict):
        timed = {"seconds", "tokens_per_s", "memory_bytes"}
        return {key: without_times(item) for key, item in value.items() if key not in timed}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def num_differing_bits(a: bytes, b: bytes) -> int:
    length = max(len(a), len(b))
    pairs = zip(a.ljust(length, b"\0"), b.ljust(length, b"\0"), strict=True)
    return sum((x ^ y).bit_count() for x, y in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(asdict(kill_and_resume(options.folder, options.kills, options.seed))))


if __name__ == "__main__":
    main()
