"""A long training: does its memory grow, do files stay open, can others read along?

    python benchmarks/soak.py [--steps 20000]

Trains a tiny model with `honing train` in a process of its own, and looks at it from outside: its
memory (RSS), its open files, the lines of metrics.jsonl and the TensorBoard events so far. The
slope is that of the straight line through all looks after the first tenth, by least squares. The
exit status is 1 where memory grows by 1 MB or more per 1,000 steps, where the number of open files
changes, or where a reader fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy  # noqa: E402
import psutil  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402
from tests.runs import save_rows, small_overrides  # noqa: E402
from tests.tiny import save_tiny_base  # noqa: E402

MOST_MB_PER_1000_STEPS = 1.0
NUM_ROWS = 400
LOOKS = 200
SETTINGS = (
    *("train.epochs=100000", "train.log_every=10", "train.eval_every=500", "train.save_every=500"),
    "train.max_val_rows=8",
)


@dataclass(frozen=True)
class Look:
    """The training at one moment. events: the newest step in TensorBoard's file."""

    step: int
    rss_mb: float
    num_files: int
    events: int


@dataclass
class Soak:
    """exit_status: of the training. unreadable: what readers stumbled over, a line each."""

    num_steps: int
    seconds: float = 0.0
    exit_status: int = 0
    looks: list[Look] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def steady(self) -> list[Look]:
        """Looks after the first tenth, in which libraries load what they need."""
        return [look for look in self.looks if look.step >= self.num_steps // 10]

    @property
    def mb_per_1000_steps(self) -> float:
        steps = [look.step / 1000 for look in self.steady]
        return float(numpy.polyfit(steps, [look.rss_mb for look in self.steady], 1)[0])

    @property
    def num_files(self) -> tuple[int, int]:
        """Fewest and most open files, between two saves."""
        found = [look.num_files for look in self.steady]
        return min(found), max(found)

    @property
    def failures(self) -> list[str]:
        found = list(self.unreadable)
        if self.exit_status:
            found.append(f"honing train ended with {self.exit_status}")
        if len(self.steady) < 10:
            return [*found, f"only {len(self.steady)} looks"]
        if self.mb_per_1000_steps >= MOST_MB_PER_1000_STEPS:
            found.append(f"memory grows by {self.mb_per_1000_steps:.2f} MB per 1,000 steps")
        half = len(self.steady) // 2
        early, late = (
            max(look.num_files for look in looks)
            for looks in (self.steady[:half], self.steady[half:])
        )
        if late > early:
            found.append(f"open files rose from {early} to {late}")
        return found


def soak(folder: Path, num_steps: int) -> Soak:
    """Train for so many steps, and look at it about LOOKS times."""
    base = save_tiny_base(folder / "base")
    rows = save_rows(folder / "rows.jsonl", different_rows())
    arguments = small_overrides(base, rows, folder / "run", *SETTINGS)
    (folder / "empty.yaml").write_text("", encoding="utf-8")
    command = [sys.executable, "-m", "honing", "train", str(folder / "empty.yaml"), *arguments]
    command.append(f"train.max_steps={num_steps}")
    result, started = Soak(num_steps), time.perf_counter()
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        watch(child, folder / "run", result)
    result.seconds = time.perf_counter() - started
    result.exit_status = child.returncode
    if child.returncode:
        print((folder / "log").read_text(encoding="utf-8")[-2000:], file=sys.stderr)
    return result


def different_rows() -> list[dict[str, Any]]:
    return [
        {"instruction": f"질문 {n * 7919 % 10007}: {n} + {n % 13}", "output": f"답 {n + n % 13}."}
        for n in range(NUM_ROWS)
    ]


def watch(child: subprocess.Popen[bytes], run: Path, result: Soak) -> None:
    process, looked_at = psutil.Process(child.pid), 0
    events: EventAccumulator | None = None
    while child.poll() is None:
        time.sleep(0.2)
        step = newest_line(run / "metrics.jsonl", result)
        if step < looked_at + max(1, result.num_steps // LOOKS):
            continue
        events = events or EventAccumulator(str(run / "logs"))
        try:
            memory, num_files = process.memory_info().rss / 1e6, process.num_fds()
        except psutil.Error:
            break  # it has ended by now
        result.looks.append(Look(step, memory, num_files, newest_event(events, step, result)))
        looked_at = step


def newest_line(path: Path, result: Soak) -> int:
    """The newest step of metrics.jsonl; its last line may be half-written."""
    if not path.exists():
        return -1
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    try:
        return max((json.loads(line)["step"] for line in lines[-3:]), default=-1)
    except (ValueError, KeyError) as error:
        result.unreadable.append(f"metrics.jsonl: {error}")
        return -1


def newest_event(events: EventAccumulator, step: int, result: Soak) -> int:
    try:
        events.Reload()
        found = int(events.Scalars("train/loss")[-1].step)
    except Exception as error:  # whatever TensorBoard raises, the reader failed
        result.unreadable.append(f"TensorBoard at step {step}: {type(error).__name__} {error}")
        return -1
    if found < step - 500:
        result.unreadable.append(f"TensorBoard at step {step}: shows step {found}")
    return found


def report(result: Soak) -> str:
    """Markdown, for benchmarks/torture.md."""
    first, last = result.steady[0], result.steady[-1]
    low, high = result.num_files
    rows = {
        "optimizer steps, validations and saves every 500": f"{result.num_steps:,}",
        "seconds": f"{result.seconds:,.0f}",
        "looks from outside": str(len(result.looks)),
        f"memory at step {first.step:,} and at step {last.step:,}": (
            f"{first.rss_mb:.1f} MB, {last.rss_mb:.1f} MB"
        ),
        "slope per 1,000 steps": f"{result.mb_per_1000_steps:+.3f} MB",
        "open files, fewest and most": f"{low}, {high}",
        "metrics.jsonl and TensorBoard events read during the run": (
            f"{len(result.looks)} times, {len(result.unreadable)} failures"
        ),
    }
    lines = ["## Long soak", "", "| | |", "|---|---:|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = soak(Path(name), options.steps)
    print(report(result))
    for failure in result.failures:
        print(failure, file=sys.stderr)
    return int(bool(result.failures))


if __name__ == "__main__":
    sys.exit(main())
