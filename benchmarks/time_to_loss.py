"""Tokens and seconds until the validation loss that the first draft's recipe ends at.

    python benchmarks/time_to_loss.py --data FOLDER_OR_JSONL [--rows 160] [--val-rows 48]
        [--longest 128] [--seeds 1 2 3] [--recipes "defaults:" "linear: train.scheduler=linear"]
        [--cost-rounds 3] --cache FOLDER

Recipes are a name and settings of honing, on top of its defaults; b_rate=8 beside them gives the
adapters' B eight times the learning rate of A (LoRA+, Hayou et al. 2024). The draft is
configs/first_draft.yaml on the embedded SmolLM2-135M, with the layers nearest to GPT-2's c_attn
and c_proj, and a warm-up of the share that it had: 100 of 150 steps.

All recipes see the same training rows, and are measured on the same held-out rows; a seed settles
order, adapters and dropout. The draft trains to its end; the loss there is the target of its seed.
A recipe has reached it at its first validation that is not above. Validations take no part in
tokens or seconds.

How examples are laid out changes no loss but by rounding and the draw of dropout, so all recipes
train in today's layout. Seconds are tokens × CPU seconds a token beside those of the draft in its
own layout (an example at a time, activations computed again), measured in --cost-rounds steps in
turn; the draft's own row shows what today's layout alone saves. Results lie in --cache, a line
each, so that what was stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import torch

from honing.config import Config, ModelConfig
from honing.config_file import load_config
from honing.data.encode import Tokens, encode_prompts
from honing.data.example import Example, Exchange
from honing.data.pack import epoch_order, steps_of_epoch
from honing.data.template import choose_template, render
from honing.errors import TrainingDiverged
from honing.model.device import choose_dtype
from honing.model.load import Base, find_base, load_model, load_tokenizer, text_model
from honing.model.lora import attach_lora, trainable_parameters
from honing.training.layout import packed_row_tokens
from honing.training.trainer import Trainer

DRAFT = "first draft"
DRAFT_FILE = Path(__file__).parents[1] / "configs" / "first_draft.yaml"
DRAFT_LAYERS = "lora.target_modules=[q_proj,k_proj,v_proj,o_proj,down_proj]"
DRAFT_STEPS = 150
SHUFFLE_SEED = 42
VALIDATIONS = (*(n / 15 for n in range(1, 8)), 0.6, 0.8, 1.0)
"""As shares of the run: many where the target is looked for. Of the draft only the end counts."""
DRAFT_VALIDATIONS = (1 / 3, 2 / 3, 1.0)


@dataclass(frozen=True)
class Recipe:
    """config: without "auto" in its training. b_rate: times the learning rate, for each B."""

    name: str
    config: Config
    b_rate: float = 1.0


@dataclass(frozen=True)
class Rows:
    """What all recipes see. name: of the data set, with its sizes."""

    name: str
    train: Sequence[Tokens]
    val: Sequence[Tokens]


@dataclass(frozen=True)
class Point:
    """One validation: after how many steps and training tokens; loss in nats a token."""

    step: int
    tokens: int
    loss: float


class TwoRates(torch.optim.AdamW):
    """AdamW whose groups have their own multiple, `times`, of the rate that the trainer sets."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] *= group["times"]
        return super().step(closure)


def read_recipe(text: str) -> Recipe:
    """NAME: KEY=VALUE …, with b_rate as a key of its own."""
    name, _, settings = text.partition(":")
    given = settings.split()
    b_rate = [float(s.removeprefix("b_rate=")) for s in given if s.startswith("b_rate=")]
    kept = [s for s in given if not s.startswith("b_rate=")]
    return Recipe(name.strip(), load_config(None, kept), *b_rate)


def draft_recipe(num_rows: int) -> Recipe:
    """The first draft's recipe, its warm-up as long a share of the run as it was."""
    config = load_config(DRAFT_FILE, [DRAFT_LAYERS])
    steps = config.train.epochs * math.ceil(num_rows / config.train.global_batch_size)
    warmup = round((config.train.warmup_steps or 0) * steps / DRAFT_STEPS)
    train = config.train.model_copy(update={"warmup_steps": warmup})
    return Recipe(DRAFT, config.model_copy(update={"train": train}))


def read_rows(source: Path, num_train: int, num_val: int, longest: int, base: Base) -> Rows:
    """Rows of at most `longest` tokens, drawn from train.jsonl and, where it is there, val.jsonl
    of a folder, or all from the one file."""
    file = source / "train.jsonl" if source.is_dir() else source
    held_out = source / "val.jsonl"
    train = _encoded(file, longest, base)
    val = _encoded(held_out, longest, base) if held_out.exists() else train[num_train:]
    title = f"{source.stem}, {num_train} rows, {num_val} held out, of at most {longest} tokens"
    if len(train) < num_train or len(val) < num_val:
        raise SystemExit(f"{source}: {len(train)} and {len(val)} rows, too few for {title}")
    return Rows(title, train[:num_train], val[:num_val])


def _encoded(file: Path, longest: int, base: Base) -> list[Tokens]:
    template = choose_template("instruction", None)
    encoder = text_model(base, load_tokenizer(base), template).encoder
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    Random(SHUFFLE_SEED).shuffle(rows)
    examples = (
        Example(str(n), (Exchange(row["instruction"], row["output"], row.get("input", "")),))
        for n, row in enumerate(rows)
    )
    prompts = [render(example, template, "response") for example in examples]
    encoded = encode_prompts(prompts, encoder, 4096)
    return [row for row in encoded if isinstance(row, Tokens) and len(row.ids) <= longest]


def make_trainer(recipe: Recipe, rows: Rows, base: Base, seed: int, as_written: bool) -> Trainer:
    """as_written: an example at a time, activations computed again; else in today's layout."""
    settings = recipe.config.train
    dtype = choose_dtype(recipe.config.model.dtype, "cpu").value
    layout = {
        "micro_batch_size": 1 if as_written else settings.global_batch_size,
        "gradient_checkpointing": as_written,
        "packing": not as_written,
        "packed_row_tokens": packed_row_tokens(
            getattr(torch, dtype), recipe.config.data.max_length
        ),
    }
    model = attach_lora(load_model(base, dtype, "cpu"), recipe.config.lora, seed)
    trainer = Trainer(model, rows.train, rows.val, settings.model_copy(update=layout), seed=seed)
    if recipe.b_rate != 1.0:
        named = trainable_parameters(model)
        groups = [
            {"params": [p for name, p in named if ("lora_B" in name) is is_b], "times": times}
            for is_b, times in ((False, 1.0), (True, recipe.b_rate))
        ]
        trainer.optimizer = TwoRates(groups, weight_decay=settings.weight_decay)
    return trainer


def run(recipe: Recipe, rows: Rows, base: Base, seed: int) -> list[Point]:
    """The validations of one training; where it diverges, the last is infinite."""
    trainer = make_trainer(recipe, rows, base, seed, as_written=False)
    shares = DRAFT_VALIDATIONS if recipe.name == DRAFT else VALIDATIONS
    due = {max(1, round(trainer.num_steps * share)) for share in shares}
    points: list[Point] = []
    num_tokens = 0
    for epoch in range(recipe.config.train.epochs):
        order = epoch_order(len(rows.train), seed, epoch)
        for members in steps_of_epoch(order, recipe.config.train.global_batch_size):
            try:
                trainer._train_step(members)
            except TrainingDiverged:
                return [*points, Point(trainer.state.step + 1, num_tokens, math.inf)]
            num_tokens += sum(trainer.lengths[index] for index in members)
            if trainer.state.step in due:
                sum_nats, number = trainer.evaluate()
                points.append(Point(trainer.state.step, num_tokens, sum_nats / number))
                print(f"{recipe.name}, seed {seed}: {points[-1]}", file=sys.stderr, flush=True)
    return points


def cost_beside_draft(recipe: Recipe, rows: Rows, base: Base, rounds: int) -> float:
    """CPU seconds a token, as a share of the draft's in its own layout: the median of rounds of a
    step of each in turn, after one that is not counted."""
    draft = draft_recipe(len(rows.train))
    size = draft.config.train.global_batch_size
    theirs = make_trainer(draft, rows, base, 1, as_written=True)
    own = make_trainer(recipe, rows, base, 1, as_written=False)
    shares = []
    for number in range(rounds + 1):
        start = number * size % (len(rows.train) - size + 1)
        members = range(start, start + size)
        shares.append(_cpu_seconds(own, members) / _cpu_seconds(theirs, members))
    return statistics.median(shares[1:])


def _cpu_seconds(trainer: Trainer, members: Sequence[int]) -> float:
    """Of one step. Not wall time, so that other programs on the machine matter less."""
    started = time.process_time()
    trainer._train_step(members)
    return time.process_time() - started


def cached(folder: Path, what: dict[str, Any], compute: Callable[[], Any]) -> Any:
    """A result that was written before, or is computed and written now."""
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    file = folder / "results.jsonl"
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        if (record := json.loads(line))["key"] == key:
            return record["result"]
    result = json.loads(json.dumps(compute(), default=asdict))
    folder.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps({"key": key, "what": what, "result": result}) + "\n")
    return result


def line_of(name: str, runs: list[list[Point]], targets: list[Point], cost: float | None) -> str:
    """A row of the table. runs, targets: of each seed. cost: of a token beside the draft's."""
    ends, shares, reached = [], [], []
    for own, target in zip(runs, targets, strict=True):
        tokens = next((p.tokens for p in own if p.loss <= target.loss), None)
        reached.append("not" if tokens is None else f"{tokens:,}")
        shares.append(math.inf if tokens is None else tokens / target.tokens)
        ends.append(own[-1].loss)
    mean = statistics.mean(shares)
    cells = [
        name,
        f"{statistics.mean(ends):.4f} ({', '.join(f'{end:.4f}' for end in ends)})",
        f"{statistics.mean(min(point.loss for point in own) for own in runs):.4f}",
        ", ".join(reached),
        f"{mean:.2f} ({', '.join(f'{share:.2f}' for share in shares)})",
        *(["", ""] if cost is None else [f"{cost:.2f}", f"{mean * cost:.2f}"]),
    ]
    return " | ".join(cells)


HEAD = (
    "recipe | loss at the end, nats a token (each seed) | lowest loss | tokens to the draft's | "
    "share of the draft's tokens (each seed) | seconds a token beside the draft's | share of the "
    "draft's seconds"
)


def about() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    dtype = choose_dtype("auto", "cpu").value
    return f"{torch.get_num_threads()} threads, base in {dtype}, {versions}, commit {commit}"


def compare(options: argparse.Namespace, base: Base) -> list[str]:
    """The table of one data set, as lines of Markdown."""
    rows = read_rows(options.data, options.rows, options.val_rows, options.longest, base)
    lines = [HEAD, "|".join(["---"] * 7)]
    targets: list[Point] = []
    for recipe in (draft_recipe(len(rows.train)), *map(read_recipe, options.recipes)):
        what = recipe.config.model_dump(include={"lora", "train"})
        what |= {"rows": rows.name, "b_rate": recipe.b_rate}
        runs = []
        for seed in options.seeds:
            train = partial(run, recipe, rows, base, seed)
            found = cached(options.cache, {**what, "seed": seed}, train)
            runs.append([Point(**point) for point in found])
        cost = None
        if rounds := options.cost_rounds:
            measure = partial(cost_beside_draft, recipe, rows, base, rounds)
            cost = cached(options.cache, {**what, "rounds": rounds}, measure)
        targets = targets or [own[-1] for own in runs]  # the draft comes first
        lines.append(line_of(recipe.name, runs, targets, cost))
    return [f"## {rows.name}", "", *(f"| {line} |" for line in lines), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--val-rows", type=int, default=48)
    parser.add_argument("--longest", type=int, default=128, metavar="TOKENS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--recipes", nargs="*", default=["today's defaults:"])
    parser.add_argument("--cost-rounds", type=int, default=0)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    print("\n".join([about(), "", *compare(options, find_base(ModelConfig()))]))


if __name__ == "__main__":
    main()
