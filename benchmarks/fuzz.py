"""Malformed and hostile files, many of each kind: does honing read or refuse every one?

    python benchmarks/fuzz.py [--seed 1] [--scale 1.0] [--output FILE.json]

The kinds and the ways of reading are those of tests/fuzz. Each kind runs in a process of its own,
which may take 2 GB more than at its start and compute 60 s at an input; where one dies or hangs,
that is counted and another goes on behind that input. Input n of a kind is a function of (seed,
kind, n). Then the readers run under atheris, where that is installed (pip install -e '.[fuzz]'):
its inputs are led by the lines that they reach. The exit status is 1 where anything is read
wrongly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

LIGHT = {
    **{"json": 15_000, "jsonl": 15_000, "csv": 10_000, "parquet": 10_000, "text": 6_000},
    **{"config": 6_000, "config-record": 3_000, "override": 8_000, "template": 4_000},
    **{"chat-template": 8_000, "predictions": 4_000, "evaluation": 10_000},
    **{"metrics": 5_000, "part": 5_000},
}
MODELS = {
    **{"adapter-config": 1_500, "adapter-weights": 1_500, "about": 1_000, "state": 1_000},
    **{"manifest": 1_500, "base-config": 1_500, "base-weights": 1_000, "tokenizer": 1_500},
    **{"tokenizer-config": 1_500, "generation-config": 800, "gguf-header": 5_000, "gguf": 500},
}
ATHERIS = {"json": 10_000, "jsonl": 10_000, "csv": 10_000, "text": 10_000}
MOST_MB = 2_000
MOST_SECONDS = 60
MOST_LOOKS_S = 300


@dataclass
class Fuzzed:
    """One kind of input. wrong: (number of the input, what happened)."""

    kind: str
    number: int = 0
    read: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    grown_mb: float = 0.0
    wrong: list[tuple[int, str]] = field(default_factory=list)


# --- in a process of its own


def work(kind: str, start: int, stop: int, seed: int, folder: Path) -> Fuzzed:
    import psutil

    warnings.simplefilter("ignore")
    target = target_of(kind, folder)
    peak = peak_mb()
    most = psutil.Process().memory_info().vms + (MOST_MB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGPROF, stop_it)
    done = Fuzzed(kind)
    from tests.fuzz.targets import tried

    for number in range(start, stop):
        done.number = number - start
        (folder / "at").write_text(json.dumps(asdict(done)))
        content = target.make(random.Random(f"{seed}:{kind}:{number}"))
        place, began = folder / "input", time.process_time()
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)  # of computing, not of a busy machine
        outcome = tried(target, content, place)
        signal.setitimer(signal.ITIMER_PROF, 0)
        done.slowest_s = max(done.slowest_s, time.process_time() - began)
        shutil.rmtree(place)
        if outcome in ("read", "refused"):
            setattr(done, outcome, getattr(done, outcome) + 1)
        else:
            done.wrong.append((number, outcome))
    done.number = stop - start
    done.grown_mb = peak_mb() - peak
    return done


def peak_mb() -> float:
    """The most memory that this process ever held. getrusage counts its parent's, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Hangs(BaseException):
    pass


def stop_it(*_: object) -> None:
    raise Hangs(f"not done after {MOST_SECONDS} s")


def target_of(kind: str, folder: Path) -> Any:
    from tests.fuzz.targets import light_targets

    if kind in LIGHT:
        return next(target for target in light_targets() if target.kind == kind)
    from tests.fuzz.models import model_targets
    from tests.tiny_run import make_tiny_run

    made = folder / "made"
    (made / "models").mkdir(parents=True)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        run = make_tiny_run(made)
    targets = model_targets(run, made / "models")
    return next(target for target in targets if target.kind == kind)


def work_with_atheris(kind: str, runs: int, seed: int, folder: Path) -> None:
    """Does not return: libFuzzer ends the process. What is wrong is written as it is found."""
    import atheris

    with atheris.instrument_imports(include=["honing.data.reading"]):
        from tests.fuzz.targets import light_targets, tried
    target = next(target for target in light_targets() if target.kind == kind)
    (corpus := folder / "corpus").mkdir()
    for number, content in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(content)
    done = Fuzzed(kind)

    def one(content: bytes) -> None:
        outcome = tried(target, content, folder / "input")
        done.number += 1
        if outcome in ("read", "refused"):
            setattr(done, outcome, getattr(done, outcome) + 1)
        else:
            done.wrong.append((done.number, f"{outcome} {content[:200]!r}"))
        if done.number % 500 == 0 or outcome not in ("read", "refused"):
            (folder / "result").write_text(json.dumps(asdict(done)))

    options = [f"-runs={runs}", f"-seed={seed}", "-max_len=4096", f"-timeout={MOST_SECONDS}"]
    atheris.Setup([sys.argv[0], *options, "-rss_limit_mb=4000", str(corpus)], one)
    atheris.Fuzz()


# --- from outside


def fuzz(kind: str, number: int, seed: int) -> Fuzzed:
    """All inputs of one kind; where a process dies or hangs, another goes on behind that input."""
    total, start = Fuzzed(kind), 0
    while start < number:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            command = [kind, str(start), str(number), str(seed), str(folder)]
            status, out = watched([sys.executable, __file__, "--work", *command], folder / "at")
            if status == 0:
                add(total, json.loads(out.splitlines()[-1]))
                break
            at = folder / "at"
            if not at.exists():
                raise RuntimeError(f"{kind}: no input was tried: {out[-2000:]}")
            before = json.loads(at.read_text())
        add(total, before)
        start += before["number"]
        total.wrong.append((start, f"the process ended with {status}"))
        total.number += 1
        start += 1
    return total


def watched(command: list[str], at: Path) -> tuple[int, str]:
    """Exit status and output; a process that stays at one input is ended."""
    import psutil

    with tempfile.TemporaryFile("w+") as out, open(os.devnull, "w") as nowhere:
        errors = out if os.environ.get("FUZZ_VERBOSE") else nowhere
        child = subprocess.Popen(command, stdout=out, stderr=errors, cwd=ROOT)
        process, before, waited = psutil.Process(child.pid), "", 0
        while child.poll() is None:
            time.sleep(0.5)
            # Counted in looks, and only while it runs: a busy machine may pause either of us.
            now = at.read_text() if at.exists() else ""
            if process.status() != psutil.STATUS_STOPPED:
                before, waited = now, waited + 1 if now and now == before else 0
            if waited > 2 * MOST_LOOKS_S:
                child.kill()
                child.wait()
        out.seek(0)
        return child.returncode, out.read()


def add(total: Fuzzed, found: dict[str, Any]) -> None:
    for name in ("number", "read", "refused"):
        setattr(total, name, getattr(total, name) + found[name])
    total.slowest_s = max(total.slowest_s, found["slowest_s"])
    total.grown_mb = max(total.grown_mb, found["grown_mb"])
    total.wrong += [(number, what) for number, what in found["wrong"]]


def fuzz_with_atheris(kind: str, runs: int, seed: int) -> Fuzzed:
    total = Fuzzed(f"{kind} (atheris)")
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, __file__, "--atheris", kind, str(runs), str(seed), name]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        result = Path(name) / "result"
        if not result.exists():
            raise RuntimeError(f"{kind}: atheris: {done.stderr[-2000:]}")
        add(total, json.loads(result.read_text()))
        if done.returncode:
            last = done.stderr[-300:]
            total.wrong.append((total.number, f"atheris ended with {done.returncode}: {last}"))
    return total


def fuzz_all(seed: int, scale: float = 1.0) -> list[Fuzzed]:
    """Every kind, told as it is done. scale: of the numbers of inputs."""
    found = []
    for kind, number in {**LIGHT, **MODELS}.items():
        found.append(fuzz(kind, max(1, int(number * scale)), seed))
        tell(found[-1])
    for kind, runs in ATHERIS.items() if find_spec("atheris") else ():
        found.append(fuzz_with_atheris(kind, max(500, int(runs * scale)), seed))
        tell(found[-1])
    return found


def tell(found: Fuzzed) -> None:
    print(f"{found.kind}: {found.number:,} inputs, {len(found.wrong)} read wrongly", flush=True)
    for what, times in Counter(what for _, what in found.wrong).most_common(5):
        print(f"  {times} × {what}", flush=True)


def report(found: list[Fuzzed], seed: int) -> str:
    """Markdown, for benchmarks/torture.md."""
    total = sum(one.number for one in found)
    wrong = sum(len(one.wrong) for one in found)
    lines = [
        "## Malformed and hostile files",
        "",
        f"{total:,} inputs, seed {seed}: {wrong} read wrongly. Each was read, or refused in one "
        "line that steers no terminal.",
        "",
        "| kind | inputs | read | refused | wrong | slowest, s | memory grew by, MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in found:
        cost = f"{one.slowest_s:.2f} | {one.grown_mb:.0f}"
        if one.kind.endswith("(atheris)"):
            cost = "| "
        counts = f"{one.number:,} | {one.read:,} | {one.refused:,} | {len(one.wrong)}"
        lines.append(f"| {one.kind} | {counts} | {cost} |")
    if not any(one.kind.endswith("(atheris)") for one in found):
        lines += ["", "atheris is not installed here: its part was left out."]
    return "\n".join([*lines, ""])


def main() -> int:
    if sys.argv[1:2] == ["--work"]:
        kind, start, stop, seed, folder = sys.argv[2:]
        done = work(kind, int(start), int(stop), int(seed), Path(folder))
        print(json.dumps(asdict(done)))
        return 0
    if sys.argv[1:2] == ["--atheris"]:
        kind, runs, seed, folder = sys.argv[2:]
        work_with_atheris(kind, int(runs), int(seed), Path(folder))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of inputs")
    parser.add_argument("--output", type=Path, help="what was found, as JSON")
    options = parser.parse_args()
    found = fuzz_all(options.seed, options.scale)
    if options.output:
        options.output.write_text(json.dumps([asdict(one) for one in found], indent=1))
    print(report(found, options.seed))
    return int(any(one.wrong for one in found))


if __name__ == "__main__":
    sys.exit(main())
