"""The ways to train that training_speed.py compares, each run in a process of its own.

    PYTHON benchmarks/training_ways.py FOLDER WAY

FOLDER: what training_speed.py prepared: base/ (a model in transformers' format), adapter/ (PEFT's,
from which all start) and rows.json (ids and labels). Prints one line of JSON: the loss of each step
in nats a token, seconds of each step, tokens of each step, share of padding, peak memory.
TRL's ways run in an environment that has TRL and none of honing.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

STEP_EXAMPLES = 16
LEARNING_RATE = 2e-4

Row = dict[str, Any]


def steps_of(rows: list[Row]) -> list[list[Row]]:
    return [rows[i : i + STEP_EXAMPLES] for i in range(0, len(rows), STEP_EXAMPLES)]


def loaded(folder: Path, dtype: str = "float32") -> Any:
    """The base with the adapter on it, all dropout off; dtype: of the base alone."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=getattr(torch, dtype))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.attn_pdrop = 0.0
    for module in model.modules():
        if isinstance(getattr(module, "attn_dropout", None), torch.nn.Dropout):
            module.attn_dropout.p = 0.0
    return peft.PeftModel.from_pretrained(model, str(folder / "adapter"), is_trainable=True)


def train_honing(
    folder: Path, rows: list[Row], dtype: str = "float32", **settings: Any
) -> dict[str, Any]:
    from honing.config import TrainConfig
    from honing.data.encode import Tokens
    from honing.training.trainer import Trainer

    tokens = [Tokens(str(n), r["input_ids"], r["labels"]) for n, r in enumerate(rows)]
    train = TrainConfig(
        epochs=1,
        global_batch_size=STEP_EXAMPLES,
        micro_batch_size=STEP_EXAMPLES,
        learning_rate=LEARNING_RATE,
        weight_decay=0.0,
        warmup_steps=0,
        scheduler="constant",
        packing=True,
        gradient_checkpointing=False,
        **settings,
    )
    longest = max(len(row.ids) for row in tokens)
    trainer = Trainer(loaded(folder, dtype), tokens, (), train, seed=1, max_length=longest)
    losses, seconds = [], []
    for start in range(0, len(tokens), STEP_EXAMPLES):
        before = trainer.state.epoch_totals.loss_nats
        started = time.perf_counter()
        trainer._train_step(range(start, min(start + STEP_EXAMPLES, len(tokens))))
        seconds.append(time.perf_counter() - started)
        members = rows[start : start + STEP_EXAMPLES]
        number = sum(label != -100 for row in members for label in row["labels"][1:])
        losses.append((trainer.state.epoch_totals.loss_nats - before) / number)
    return {"losses": losses, "seconds": seconds, "padding": 0.0}


def train_plain(folder: Path, rows: list[Row]) -> dict[str, Any]:
    """Fifteen lines of PyTorch: an example at a time, transformers' own logits."""
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
            loss = cross_entropy(logits, labels[1:], reduction="sum")
            (loss / number).backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        losses.append(total / number)
    return {"losses": losses, "seconds": seconds, "padding": 0.0}


def train_trl(
    folder: Path,
    rows: list[Row],
    micro_batch_size: int,
    gradient_checkpointing: bool,
    bf16: bool = False,
) -> dict[str, Any]:
    import trl
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback

    ends: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not ends:
                ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    trainer = trl.SFTTrainer(
        model=loaded(folder),
        args=trl.SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=micro_batch_size,
            gradient_accumulation_steps=STEP_EXAMPLES // micro_batch_size,
            gradient_checkpointing=gradient_checkpointing,
            bf16=bf16,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            train_sampling_strategy="sequential",
            num_train_epochs=1,
            save_strategy="no",
            report_to="none",
            logging_steps=1,
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
    padded = sum(
        max(len(row["input_ids"]) for row in rows[i : i + micro_batch_size]) * micro_batch_size
        for i in range(0, len(rows), micro_batch_size)
    )
    real = sum(len(row["input_ids"]) for row in rows)
    seconds = [ends[n] - ends[n - 1] for n in range(1, len(ends))]
    return {"losses": losses, "seconds": seconds, "padding": 1.0 - real / padded}


WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "honing": (train_honing, {}),
    "honing, plain forms": (train_honing, {"fast_forms": False}),
    "honing, bfloat16 base": (train_honing, {"dtype": "bfloat16"}),
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
}


def main() -> None:
    warnings.simplefilter("ignore")
    folder, way = Path(sys.argv[1]), sys.argv[2]
    rows = json.loads((folder / "rows.json").read_text("utf-8"))
    train, settings = WAYS[way]
    result = train(folder, rows, **settings)
    result["tokens"] = [sum(len(row["input_ids"]) for row in step) for step in steps_of(rows)]
    result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
