"""The trainers that honing is compared with, each run by its own code on rows in token ids.

TRL's and LLaMA-Factory's trainers start from the same adapter and weigh tokens alike, as honing
does. LitGPT has a model of its own, for which base and adapter are converted; it weighs examples
alike and clips no gradients, so its losses are compared with those of a plain loop that does too.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from training_start import LEARNING_RATE, STEP_EXAMPLES, Row, loaded, padding_share


def clock() -> tuple[Any, list[float], list[float]]:
    """A callback of transformers' Trainer; the times of its steps' ends and its logged losses.

    The first time is the start of the first step.
    """
    from transformers import TrainerCallback

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

    return Clock(), ends, losses


def trainer_arguments(micro_batch_size: int, bf16: bool) -> dict[str, Any]:
    """What TRL and LLaMA-Factory hand on to transformers' Trainer."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": STEP_EXAMPLES // micro_batch_size,
        "bf16": bf16,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "use_cpu": True,
        "disable_tqdm": True,
    }


def differences(ends: list[float]) -> list[float]:
    return [ends[n] - ends[n - 1] for n in range(1, len(ends))]


def train_trl(
    folder: Path,
    rows: list[Row],
    micro_batch_size: int,
    gradient_checkpointing: bool,
    bf16: bool = False,
) -> dict[str, Any]:
    import trl
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    callback, ends, losses = clock()
    trainer = trl.SFTTrainer(
        model=loaded(folder),
        args=trl.SFTConfig(
            **trainer_arguments(micro_batch_size, bf16),
            gradient_checkpointing=gradient_checkpointing,
            train_sampling_strategy="sequential",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    trainer.train()
    padding = padding_share(rows, micro_batch_size)
    return {"losses": losses, "seconds": differences(ends), "padding": padding}


def train_llama_factory(
    folder: Path,
    rows: list[Row],
    micro_batch_size: int,
    gradient_checkpointing: bool,
    bf16: bool = False,
) -> dict[str, Any]:
    """`llamafactory-cli train` on a tokenized data set, going on with the adapter."""
    # It imports torchaudio, which is for rows with sound and is not installed.
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)
    from datasets import Dataset
    from llamafactory.train.tuner import run_exp

    tokenized = tempfile.mkdtemp()
    masked = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
    Dataset.from_list(masked).save_to_disk(tokenized)
    callback, ends, losses = clock()
    run_exp(
        {
            **trainer_arguments(micro_batch_size, bf16),
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "model_name_or_path": str(folder / "base"),
            "adapter_name_or_path": str(folder / "adapter"),
            "dataset": "none",  # it asks for one, and reads tokenized_path in its place
            "tokenized_path": tokenized,
            "template": "empty",
            "disable_shuffling": True,
            "disable_gradient_checkpointing": not gradient_checkpointing,
        },
        callbacks=[callback],
    )
    padding = padding_share(rows, micro_batch_size, multiple=8)  # as its collator fills
    return {"losses": losses, "seconds": differences(ends), "padding": padding}


def litgpt_adapter(folder: Path, num_layers: int) -> dict[str, Any]:
    """PEFT's adapter under LitGPT's names: query, key and value one below the other."""
    import torch
    from safetensors.torch import load_file

    peft = load_file(folder / "adapter" / "adapter_model.safetensors")
    parts = {
        "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attn.proj": ("self_attn.o_proj",),
        "mlp.fc_1": ("mlp.gate_proj",),
        "mlp.fc_2": ("mlp.up_proj",),
        "mlp.proj": ("mlp.down_proj",),
    }
    return {
        f"transformer.h.{layer}.{name}.lora_{side}": torch.cat(
            [
                peft[f"base_model.model.model.layers.{layer}.{part}.lora_{side}.weight"]
                for part in of_peft
            ]
        )
        for layer in range(num_layers)
        for name, of_peft in parts.items()
        for side in "AB"
    }


def litgpt_rows(rows: list[Row]) -> Any:
    """A data module's place in fit: its loaders of one row each."""
    import torch
    from litgpt.data.base import get_sft_collate_fn
    from torch.utils.data import DataLoader

    dataset: Any = [
        {
            "input_ids": torch.tensor(row["input_ids"]),
            "labels": torch.tensor(row["labels"]),
            "token_counts": dict.fromkeys(("raw", "raw_plus_prompt_template"), len(row["labels"])),
        }
        for row in rows
    ]
    return DataLoader(dataset, batch_size=1, collate_fn=get_sft_collate_fn())


def train_litgpt(folder: Path, rows: list[Row], precision: str) -> dict[str, Any]:
    """`litgpt finetune_lora` from its loaders on: its model and loop, with a constant rate."""
    import lightning
    import torch
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.finetune.lora import fit
    from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
    from litgpt.utils import choose_logger

    base, out = (folder / "base").resolve(), Path(tempfile.mkdtemp())
    if not (base / "lit_model.pth").exists():
        convert = ["-m", "litgpt", "convert_to_litgpt", str(base), "--model_name", "SmolLM2-135M"]
        subprocess.run([sys.executable, *convert], check=True)  # its memory is not the training's
    layers = ("query", "key", "value", "projection", "mlp")
    settings = json.loads((folder / "adapter" / "adapter_config.json").read_text("utf-8"))
    config = Config.from_file(
        base / "model_config.yaml",
        lora_r=settings["r"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=0.0,
        **{f"lora_{layer}": True for layer in layers},
    )
    fabric = lightning.Fabric(
        accelerator="cpu", devices=1, precision=precision, loggers=choose_logger("csv", out, "")
    )
    with fabric.init_module():
        model = GPT(config)
    mark_only_lora_as_trainable(model)
    model = fabric.setup_module(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    optimizer = fabric.setup_optimizers(optimizer)
    adapter = litgpt_adapter(folder, config.n_layer)
    model.load_state_dict({**torch.load(base / "lit_model.pth", mmap=True), **adapter})
    fit(
        fabric=fabric,
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
        train_dataloader=fabric.setup_dataloaders(litgpt_rows(rows)),
        val_dataloader=fabric.setup_dataloaders(litgpt_rows(rows[:1])),
        devices=1,
        checkpoint_dir=base,
        out_dir=out,
        train=TrainArgs(
            global_batch_size=STEP_EXAMPLES,
            micro_batch_size=1,
            epochs=1,
            max_steps=len(rows) // STEP_EXAMPLES,
        ),
        eval=EvalArgs(max_new_tokens=1),
        data=None,
    )
    return {**litgpt_log(out / "logs"), "padding": 0.0}


def litgpt_log(folder: Path) -> dict[str, list[float]]:
    """Losses (each the mean of a step's examples) and seconds, from a line for each example."""
    with next(folder.rglob("metrics.csv")).open(encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["iter_time"]]
    steps = [lines[i : i + STEP_EXAMPLES] for i in range(0, len(lines), STEP_EXAMPLES)]
    return {
        "losses": [float(step[-1]["loss"]) for step in steps],
        "seconds": [sum(float(line["iter_time"]) for line in step) for step in steps],
    }
