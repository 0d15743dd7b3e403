"""The ways to train that training_speed.py compares, each run in a process of its own.

    PYTHON benchmarks/training_ways.py FOLDER WAY

FOLDER: what training_speed.py prepared: base/ (a model in transformers' format), adapter/ (PEFT's,
from which all start) and rows.json (ids and labels). Prints one line of JSON: the loss of each step
in nats a token, seconds of each step, tokens of each step, share of padding, peak memory; under a
memory limit also `chosen`, what honing's plan made of it.
The peers' ways run in environments of their own, which have none of honing.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from training_peers import train_litgpt, train_llama_factory, train_trl
from training_start import LEARNING_RATE, STEP_EXAMPLES, Row, loaded, steps_of

MEMORY_LIMIT_GB = 1.3


def train_honing(
    folder: Path,
    rows: list[Row],
    dtype: str = "float32",
    memory_limit: float | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """memory_limit: in GB; with it, layout and checkpointing are left to honing's plan."""
    from honing.config import TrainConfig
    from honing.data.encode import Tokens
    from honing.training.layout import packed_row_tokens
    from honing.training.trainer import Trainer

    tokens = [Tokens(str(n), r["input_ids"], r["labels"]) for n, r in enumerate(rows)]
    longest = max(len(row.ids) for row in tokens)
    model, chosen = loaded(folder, dtype), {}
    fixed = {
        "micro_batch_size": STEP_EXAMPLES,
        "packing": True,
        "packed_row_tokens": packed_row_tokens(model.dtype, longest),
        "gradient_checkpointing": False,
    }
    train = TrainConfig(
        epochs=1,
        global_batch_size=STEP_EXAMPLES,
        learning_rate=LEARNING_RATE,
        weight_decay=0.0,
        warmup_steps=0,
        scheduler="constant",
        memory_limit=memory_limit,
        **(fixed if memory_limit is None else {}),
        **settings,
    )
    if memory_limit is not None:
        train, reasons = as_planned(train, model, dtype, longest)
        chosen = {"chosen": reasons}
    trainer = Trainer(model, tokens, (), train, seed=1)
    losses, seconds, num_laid_out = [], [], 0
    for start in range(0, len(tokens), STEP_EXAMPLES):
        step = range(start, min(start + STEP_EXAMPLES, len(tokens)))
        before = trainer.state.epoch_totals.loss_nats
        started = time.perf_counter()
        trainer._train_step(step)
        seconds.append(time.perf_counter() - started)
        batches = trainer.batches(tokens, trainer.lengths, step)
        num_laid_out += sum(batch.input_ids.size for batch in batches)
        members = rows[start : start + STEP_EXAMPLES]
        number = sum(label != -100 for row in members for label in row["labels"][1:])
        losses.append((trainer.state.epoch_totals.loss_nats - before) / number)
    padding = 1.0 - sum(trainer.lengths) / num_laid_out
    return {"losses": losses, "seconds": seconds, "padding": padding, **chosen}


def as_planned(train: Any, model: Any, dtype: str, max_length: int) -> tuple[Any, tuple[str, ...]]:
    """What `honing train` makes of the settings that are left to it, and why."""
    from honing.config import Config, DataConfig
    from honing.model.device import total_memory_bytes
    from honing.model.plan import plan_training
    from honing.training.layout import packed_row_tokens

    plan = plan_training(
        Config(data=DataConfig(max_length=max_length), train=train),
        model,
        device="cpu",
        dtype=dtype,
        packing_works=True,  # the trainer looks whether it does
        packed_row_tokens=packed_row_tokens(model.dtype, max_length),
        memory_bytes=total_memory_bytes("cpu"),
    )
    return plan.config.train, plan.reasons


def train_plain(folder: Path, rows: list[Row], like_litgpt: bool = False) -> dict[str, Any]:
    """Fifteen lines of PyTorch: an example at a time, transformers' own logits.

    like_litgpt: examples weigh alike instead of tokens, and gradients are not clipped.
    """
    import torch
    from torch.nn.functional import cross_entropy

    model = loaded(folder).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    losses, seconds = [], []
    for step in steps_of(rows):
        started = time.perf_counter()
        number = sum(label != -100 for row in step for label in row["labels"][1:])
        total = 0.0
        for row in step:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
            loss = cross_entropy(logits, labels[1:], reduction="sum") / number
            if like_litgpt:
                loss = cross_entropy(logits, labels[1:]) / len(step)
            loss.backward()
            total += loss.item()
        if not like_litgpt:
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        losses.append(total)
    return {"losses": losses, "seconds": seconds, "padding": 0.0}


WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "honing": (train_honing, {}),
    "honing, plain forms": (train_honing, {"fast_forms": False}),
    "honing, bfloat16 base": (train_honing, {"dtype": "bfloat16"}),
    "honing, memory limit": (train_honing, {"memory_limit": MEMORY_LIMIT_GB}),
    "honing, memory limit, bfloat16 base": (
        train_honing,
        {"memory_limit": MEMORY_LIMIT_GB, "dtype": "bfloat16"},
    ),
    "plain loop": (train_plain, {}),
    "TRL, 1 × 16, no checkpointing": (
        train_trl,
        {"micro_batch_size": 1, "gradient_checkpointing": False},
    ),
    "TRL, 1 × 16, no checkpointing, bf16": (
        train_trl,
        {"micro_batch_size": 1, "gradient_checkpointing": False, "bf16": True},
    ),
    "TRL, its defaults, bf16 off": (
        train_trl,
        {"micro_batch_size": 8, "gradient_checkpointing": True},
    ),
    "LLaMA-Factory, 1 × 16, no checkpointing": (
        train_llama_factory,
        {"micro_batch_size": 1, "gradient_checkpointing": False},
    ),
    "LLaMA-Factory, 1 × 16, no checkpointing, bf16": (
        train_llama_factory,
        {"micro_batch_size": 1, "gradient_checkpointing": False, "bf16": True},
    ),
    "LLaMA-Factory, its defaults": (
        train_llama_factory,
        {"micro_batch_size": 8, "gradient_checkpointing": True},
    ),
    "plain loop, LitGPT's loss": (train_plain, {"like_litgpt": True}),
    "LitGPT, 1 × 16": (train_litgpt, {"precision": "32-true"}),
    "LitGPT, 1 × 16, bf16-true": (train_litgpt, {"precision": "bf16-true"}),
}


def peak_bytes() -> int:
    """The most memory that this process ever held. getrusage counts the process that started it
    too, up to that start, and the benchmark's own has held models."""
    status = Path("/proc/self/status")
    if not status.exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    lines = status.read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    warnings.simplefilter("ignore")
    folder, way = Path(sys.argv[1]), sys.argv[2]
    rows = json.loads((folder / "rows.json").read_text("utf-8"))
    train, settings = WAYS[way]
    result = train(folder, rows, **settings)
    result["tokens"] = [sum(len(row["input_ids"]) for row in step) for step in steps_of(rows)]
    assert len(result["losses"]) == len(result["seconds"]) == len(result["tokens"]), "steps differ"
    result["peak_bytes"] = peak_bytes()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
