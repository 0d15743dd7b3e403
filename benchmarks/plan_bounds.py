"""Is `honing plan` right? What it says beside what the training then takes, three configurations.

    python benchmarks/plan_bounds.py --rows FILE.jsonl [--steps 6] [--output FILE.md]

On the embedded SmolLM2-135M: honing's defaults; activations computed again and rank 32; rows of
their own with padding. Each is planned in one process and trained in another, both as a user would.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "rank 32, checkpointing, float32": (
        "lora.rank=32",
        "train.gradient_checkpointing=true",
        "model.dtype=float32",
    ),
    "padded, 4 at once": ("train.packing=false", "train.micro_batch_size=4"),
}


def honing(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "honing", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def compare(name: str, settings: tuple[str, ...], options: argparse.Namespace) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(f"data:\n  source: {json.dumps(str(options.rows.resolve()))}\n", "utf-8")
        overrides = (
            *settings,
            "data.max_rows=400",
            f"train.max_steps={options.steps}",
            "train.max_val_rows=32",
            f"output_dir={folder}/run",
        )
        planned = honing("plan", str(config), *overrides)
        taken = honing("train", str(config), *overrides)
    memory = planned["peak_bytes"] / taken["peak_memory_bytes"] - 1.0
    time = planned["training_seconds"] / taken["training_seconds"] - 1.0
    return (
        f"| {name} | {planned['peak_bytes'] / 1e9:.2f} | {taken['peak_memory_bytes'] / 1e9:.2f} "
        f"| {memory:+.0%} | {planned['training_seconds']:.0f} | {taken['training_seconds']:.0f} "
        f"| {time:+.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = [
        "| configuration | peak GB, planned | measured | apart | s, planned | measured | apart |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, settings in CONFIGURATIONS.items():
        lines.append(compare(name, settings, options))
        print(lines[-1], file=sys.stderr)
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
