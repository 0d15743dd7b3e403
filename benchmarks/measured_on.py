"""Head of results.md: machine, versions, commit and command of a measurement."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import textwrap
from importlib.metadata import version
from pathlib import Path

PEERS = {"TRL": "trl", "LLaMA-Factory": "llamafactory", "LitGPT": "litgpt"}
"""Each peer's package."""

EXPLAINED = """\
Same base, adapter, rows, order and steps for all, all dropout off; rows come from the files in
turn. Each way runs in a process of its own, in turn, {rounds} rounds; the first of {steps} steps is
not counted. Tokens are those of the examples, without padding. A median stands beside the lowest
and highest round. Peak memory is all that the process ever held.

"Of sgemm": the needed work, 4 × parameters of the blocks × tokens + 4 × parameters of the head ×
supervised tokens, beside the rate of a 2048 × 2048 × 2048 product in float32 on all cores just
before and after.

The difference of a step's loss is the largest from the plain loop's, in nats a token. Above
{largest:g} in float32 a comparison is void; in bfloat16 it is only shown. LitGPT has no model for
GPT-2, and it weighs examples alike, not tokens: its losses stand beside a plain loop's that does so
too, and only its speed is compared with honing's.

"Memory limit" is honing with train.memory_limit={limit} (GB), and else left to itself.
"""


def processor() -> str:
    """Cores and the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} × {names[0] if names else platform.machine()}"


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """A line: processor, versions, commit."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    return f"{processor()}, Python {platform.python_version()}, {versions}, honing at {commit()}"


def python_of_peer(peer: str, options: argparse.Namespace) -> str | None:
    """None: it is not named, or not there."""
    pythons = {
        "TRL": options.trl_python,
        "LLaMA-Factory": options.llamafactory_python,
        "LitGPT": options.litgpt_python,
    }
    return shutil.which(pythons[peer]) if pythons[peer] else None


def peer_versions(options: argparse.Namespace) -> str:
    """Of each peer and of the libraries in its environment."""
    described = []
    for peer, package in PEERS.items():
        python = python_of_peer(peer, options)
        if python is None:
            described.append(f"{peer} left out")
            continue
        own = version_in(python, package)
        libraries = ("torch", "transformers", "peft", "lightning")
        found = [(name, version_in(python, name)) for name in libraries]
        beside = ", ".join(f"{name} {number}" for name, number in found if number)
        described.append(f"{peer} {own or 'not found'} ({beside})")
    return "; ".join(described)


def version_in(python: str, package: str) -> str | None:
    """A package's version in another environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def shortened(path: Path) -> str:
    """The last two parts: where else a file lies is this machine's matter."""
    whole = path.resolve()
    return "/".join(whole.relative_to(whole.anchor).parts[-2:])


def bench_command(options: argparse.Namespace) -> str:
    rows = " ".join(shortened(path) for path in options.rows)
    tokenizer = f" TOKENIZER={shortened(options.tokenizer)}" if options.tokenizer else ""
    return f'make bench ROWS="{rows}"{tokenizer} ROUNDS={options.rounds}'


def head(options: argparse.Namespace, steps: int, largest: float, limit: float) -> list[str]:
    """Title, what was measured on what, how to repeat it, and what the columns say.

    largest: difference of losses from which on a comparison is void. limit: of the memory, in GB.
    """
    import torch

    from honing.model.device import choose_dtype

    chosen = choose_dtype("auto", "cpu")
    paragraphs = [
        f"{machine()}; {torch.get_num_threads()} threads. Left to itself, honing keeps the base in "
        f"{chosen.value} here: {chosen.reason}.",
        f"Beside it, each in its own environment: {peer_versions(options)}.",
    ]
    explained = EXPLAINED.format(rounds=options.rounds, steps=steps, largest=largest, limit=limit)
    paragraphs += explained.strip().split("\n\n")
    wrapped = [textwrap.fill(text, 100, break_on_hyphens=False) for text in paragraphs]
    wrapped.insert(2, f"    {bench_command(options)}")
    return ["# Training speed", "", *(line for text in wrapped for line in (text, ""))]
