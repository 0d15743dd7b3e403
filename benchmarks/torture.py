"""All that must not harm, many times over: kills, drives that fail, files from strangers, and a
night's training. Is anything lost, does a bit differ, does anything crash? Writes a report.

    python benchmarks/torture.py [--kills 120] [--seed 1] [--stride 1] [--output FILE.md]
                                 [--steps 20000] [--scale 1.0]

Kills come from the command line of a warm process (tests/crashes.py), half after a random time,
half in the place of a random file operation; a quarter of the checkpoints so left are damaged, too.
Then each file operation of a training fails in turn (every --stride-th), once as on a full drive
(ENOSPC), once as on a broken one (EIO); then trainings run on drives in memory that are really
full, of every size from none to enough. All are resumed to their end and compared with a training
that nothing happened to. Last come benchmarks/soak.py and benchmarks/fuzz.py. The exit status is 1
where anything is lost, differs, grows or is read wrongly.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import soak  # noqa: E402
import torch  # noqa: E402
from tests import crashes  # noqa: E402
from tests.faults import small_drive  # noqa: E402
from tests.runs import qa_rows, save_rows  # noqa: E402
from tests.tiny import save_tiny_base  # noqa: E402

import fuzz  # noqa: E402
from honing.version import VERSION  # noqa: E402

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
DRIVES_KB = (*range(8, 64, 4), *range(64, 300, 16))


@dataclass(frozen=True)
class Faults:
    """What failed (an error or a drive's size) and how it went."""

    kind: str
    failures: tuple[crashes.Failure, ...]

    @property
    def num_bad(self) -> int:
        return sum(failure.lost or bool(failure.differing) for failure in self.failures)


def kill(folder: Path, num_kills: int, seed: int) -> crashes.Outcome:
    with quiet():
        return crashes.kill_and_resume(folder, num_kills, seed)


def fail(folder: Path, stride: int) -> tuple[int, list[Faults]]:
    """Each operation of a training fails once with each error; then drives that are full."""
    base = save_tiny_base(folder / "base")
    rows = save_rows(folder / "rows.jsonl", qa_rows())
    with quiet():
        whole = crashes.own_config(base, rows, folder / "whole")
        num_operations = crashes.training(whole, crashes.Shared())
        expected = crashes.what_it_left(folder / "whole")
        found = []
        for name, error in ERRORS.items():
            failures = []
            for n in range(1, num_operations + 1, stride):
                config = crashes.own_config(base, rows, folder / f"{name}-{n}")
                failure = crashes.fail_and_resume(config, n, error, expected)
                assert failure is not None
                failures.append(failure)
            found.append(Faults(name, tuple(failures)))
        found.append(Faults("full drive", tuple(fill(folder, base, rows, expected))))
    return num_operations, found


def fill(
    folder: Path, base: Path, rows: str, expected: dict[str, Any]
) -> Iterator[crashes.Failure]:
    for kilobytes in DRIVES_KB:
        try:
            with small_drive(folder / f"drive-{kilobytes}") as drive:
                config = crashes.own_config(base, rows, drive / "run")
                yield crashes.fill_and_resume(config, drive, kilobytes, expected)
        except PermissionError:
            return


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Progress bars of hundreds of trainings tell nobody anything; errors still do."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def report(
    outcome: crashes.Outcome, num_operations: int, faults: Sequence[Faults], command: str
) -> str:
    kills, differing = outcome.kills, sum(map(bool, outcome.differing))
    damaged = [k for k in kills if k.damage]
    lines = [
        "# Torture: kills, faults, a long run, files from strangers",
        "",
        f"`{command}`, honing {VERSION}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}, one thread. A "
        "tiny Llama; for kills and faults six steps, a checkpoint after each, "
        f"{num_operations} file operations.",
        "",
        "## Kills (SIGKILL)",
        "",
        "| | number |",
        "|---|---:|",
        f"| kills, seed {outcome.seed} | {len(kills)} |",
        f"| of them in the place of a file operation, unsynced content lost | "
        f"{sum(k.how.startswith('operation') for k in kills)} |",
        f"| trainings that were resumed to their end | {len(outcome.differing)} |",
        f"| checkpoints lost | {sum(k.lost for k in kills)} |",
        f"| checkpoints half-written | {sum(len(k.half_written) for k in kills)} |",
        f"| checkpoints damaged on purpose | {len(damaged)} |",
        f"| of them found and passed over | {sum(bool(k.skipped) for k in damaged)} |",
        f"| trainings that differ from the uninterrupted one | {differing} |",
        f"| bits of the final adapters that differ | {outcome.differing_bits} |",
        "",
        "Where they fell, and in which operation:",
        "",
        "| where | kills |",
        "|---|---:|",
    ]
    lines += [f"| {where} | {n} |" for where, n in Counter(k.where for k in kills).most_common()]
    lines += [
        "",
        "## File operations that fail",
        "",
        "| what fails | trainings | said in one line | went on | checkpoints lost | differ |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [_row(f.kind, f.failures) for f in faults]
    lines += ["", "By operation:", "", lines[-len(faults) - 2], "|---|---:|---:|---:|---:|---:|"]
    every = [failure for f in faults for failure in f.failures if f.kind in ERRORS]
    for name in dict.fromkeys(failure.operation for failure in every):
        lines.append(_row(name, [failure for failure in every if failure.operation == name]))
    if not faults[-1].failures:
        lines += ["", "Full drives were left out: nothing may be mounted here."]
    return "\n".join([*lines, ""])


def _row(name: str, failures: Sequence[crashes.Failure]) -> str:
    said = [failure for failure in failures if failure.said is not None]
    numbers = (
        len(failures),
        sum("\n" not in str(failure.said) for failure in said),
        len(failures) - len(said),
        sum(failure.lost for failure in failures),
        sum(bool(failure.differing) for failure in failures),
    )
    return f"| {name} | {' | '.join(map(str, numbers))} |"


def kept() -> str:
    """The inputs that were read wrongly once, or that a guard was written for."""
    folders = sorted((ROOT / "tests" / "fuzz" / "corpus").iterdir())
    counts = [f"{folder.name} {len(list(folder.iterdir()))}" for folder in folders]
    total = sum(len(list(folder.iterdir())) for folder in folders)
    return (
        f"Found before and mended, or guarded against: {total} inputs, kept as tests in "
        f"tests/fuzz/corpus ({', '.join(counts)}).\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stride", type=int, default=1, help="fail every so many-th operation")
    parser.add_argument("--steps", type=int, default=20_000, help="of the long run")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of inputs")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "torture.md")
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        (killed := Path(name) / "kills").mkdir()
        (failed := Path(name) / "faults").mkdir()
        # First the kills: a process that has computed gradients is not to be forked.
        outcome = kill(killed, options.kills, options.seed)
        print(f"{len(outcome.kills)} kills after {time.perf_counter() - started:.0f} s", flush=True)
        num_operations, faults = fail(failed, options.stride)
        print(f"faults after {time.perf_counter() - started:.0f} s", flush=True)
        (long := Path(name) / "soak").mkdir()
        soaked = soak.soak(long, options.steps)
    print(f"the long run after {time.perf_counter() - started:.0f} s", flush=True)
    fuzzed = fuzz.fuzz_all(options.seed, options.scale)
    command = f"python benchmarks/torture.py --kills {options.kills} --seed {options.seed}"
    command += f" --stride {options.stride}" if options.stride > 1 else ""
    text = report(outcome, num_operations, faults, command)
    text += "\n" + soak.report(soaked) + "\n" + fuzz.report(fuzzed, options.seed) + "\n" + kept()
    options.output.write_text(text, encoding="utf-8")
    print(text)
    bad = [k for k in outcome.kills if k.lost or k.half_written or (k.damage and not k.skipped)]
    differing = [keys for keys in outcome.differing if keys]
    broken = [
        failure for f in faults for failure in f.failures if failure.lost or failure.differing
    ]
    wrong = [one for one in fuzzed if one.wrong]
    for item in (*bad, *differing, *broken, *soaked.failures, *wrong):
        print(json.dumps(item, default=vars), file=sys.stderr)
    kills_and_faults = bad or differing or broken or outcome.differing_bits
    return int(bool(kills_and_faults or soaked.failures or wrong))


if __name__ == "__main__":
    sys.exit(main())
