"""A finished training of a tiny model, for all that works on one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from honing.config import Config
from honing.config_file import load_config
from honing.training.train import train
from tests.tiny import PAIRS, save_tiny_base

STEPS = ("step-000004", "step-000006")
"""Checkpoints that are kept; the best is the first of them."""

CONFIG = """\
output_dir: {run}
model: {{base: {base}}}
data: {{source: {rows}, template: koalpaca-v1.1, max_length: 128}}
train: {{max_steps: 6, learning_rate: 1.0e-2, warmup_ratio: 0, global_batch_size: 4,
         save_every: 2, eval_every: 4}}
generate: {{max_new_tokens: 9}}
"""


@dataclass(frozen=True)
class TinyRun:
    """Where everything of the run lies. Its template is not the default one."""

    folder: Path
    base: Path
    rows: Path
    config: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def load(self, *overrides: str) -> Config:
        return load_config(self.config, overrides)


def write_rows(path: Path, times: int = 4) -> Path:
    """Rows of the tiny pairs, each some times with another number behind it."""
    rows = [
        {"instruction": f"{question} {number}", "output": answer}
        for number in range(times)
        for question, answer in PAIRS
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def make_tiny_run(folder: Path) -> TinyRun:
    """Train in a folder that is there and empty."""
    run = TinyRun(
        folder=folder / "run",
        base=save_tiny_base(folder / "base"),
        rows=write_rows(folder / "rows.jsonl"),
        config=folder / "config.yaml",
    )
    text = CONFIG.format(run=run.folder, base=run.base, rows=run.rows)
    run.config.write_text(text, encoding="utf-8")
    train(run.load(), say=lambda _: None)
    return run
