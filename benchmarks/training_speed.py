"""Tokens a second of one training step: honing against TRL on the same base, rows and LoRA.

    python benchmarks/training_speed.py --rows FILE.jsonl --trl-python PATH [--rounds 3]

PATH is the Python of an environment in which TRL is installed. Each way runs in a process of its
own, in turn, several rounds; medians and ratios count, since machines are noisy. Tokens are those
of the examples, without padding. The first step of each run is not counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NUM_STEPS = 5
STEP_EXAMPLES = 16
WAYS = {
    "honing": {"who": "honing"},
    "honing float32": {"who": "honing", "dtype": "float32"},
    "TRL 1×16 float32": {"who": "trl", "bf16": False},
    "TRL 1×16 bfloat16": {"who": "trl", "bf16": True},
}


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return rows[: NUM_STEPS * STEP_EXAMPLES]


def run_honing(rows: list[dict[str, str]], dtype: str = "auto") -> dict[str, Any]:
    from honing.config import LoraConfig, ModelConfig, TrainConfig
    from honing.data.encode import Tokens, encode_prompts
    from honing.data.example import Example, Exchange
    from honing.data.template import choose_template
    from honing.model.device import choose_dtype, peak_memory_bytes
    from honing.model.load import find_base, load_model, load_tokenizer, text_model
    from honing.model.lora import attach_lora
    from honing.training.trainer import Trainer

    base = find_base(ModelConfig())
    text = text_model(base, load_tokenizer(base), choose_template("instruction", None))
    examples = [
        Example(f"row:{n}", (Exchange(row["instruction"], row["output"], row.get("input", "")),))
        for n, row in enumerate(rows)
    ]
    prompts = [text.to_prompt(example, "response") for example in examples]
    encoded = encode_prompts(prompts, text.encoder, 512)
    tokens = [row for row in encoded if isinstance(row, Tokens)]
    model = attach_lora(
        load_model(base, choose_dtype(dtype, "cpu").value, "cpu"), LoraConfig(), seed=42
    )
    settings = TrainConfig(
        epochs=1,
        global_batch_size=STEP_EXAMPLES,
        micro_batch_size=STEP_EXAMPLES,
        packing=True,
        gradient_checkpointing=False,
    )
    trainer = Trainer(model, tokens, (), settings, seed=42)
    seconds, done = [], []
    for start in range(0, len(tokens), STEP_EXAMPLES):
        members = range(start, min(start + STEP_EXAMPLES, len(tokens)))
        started = time.perf_counter()
        trainer._train_step(members)
        seconds.append(time.perf_counter() - started)
        done.append(sum(len(tokens[index].ids) for index in members))
    return _result(seconds, done, peak_memory_bytes("cpu"))


def run_trl(rows: list[dict[str, str]], bf16: bool) -> dict[str, Any]:
    import peft
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    from honing.config import ModelConfig
    from honing.model.device import peak_memory_bytes
    from honing.model.load import find_base

    folder = find_base(ModelConfig()).location
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = [
        {
            "prompt": f"### Instruction:\n{row['instruction']}\n\n### Response:\n",
            "completion": row["output"],
        }
        for row in rows
    ]
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not ends:
                ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    trainer = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=trl.SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=1,
            gradient_accumulation_steps=STEP_EXAMPLES,
            gradient_checkpointing=False,
            bf16=bf16,
            max_length=512,
            num_train_epochs=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(
            r=8, lora_alpha=16, lora_dropout=0.05, target_modules="all-linear"
        ),
        callbacks=[Clock()],
    )
    lengths = [len(row["input_ids"]) for row in trainer.train_dataset]
    trainer.train()
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    # The order is shuffled; each step has a sixteenth of all tokens on average.
    done = [sum(lengths) / len(seconds)] * len(seconds)
    return _result(seconds, done, peak_memory_bytes("cpu"))


def _result(seconds: list[float], tokens: list[Any], memory: int) -> dict[str, Any]:
    return {
        "tokens_per_s": sum(tokens[1:]) / sum(seconds[1:]),
        "memory_gb": memory / 1e9,
        "num_tokens": sum(tokens),
    }


def run_apart(way: str, rows: Path, trl_python: str) -> dict[str, Any]:
    python = trl_python if WAYS[way]["who"] == "trl" else sys.executable
    command = [python, "-W", "ignore", __file__, "--rows", str(rows), "--way", way]
    # TRL's environment has no honing in it; it needs only the base's converted folder.
    source = str(Path(__file__).resolve().parents[1] / "src")
    output = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": source},
    ).stdout
    result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--trl-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS)
    options = parser.parse_args()
    if options.way:
        settings = dict(WAYS[options.way])
        run = {"honing": run_honing, "trl": run_trl}[str(settings.pop("who"))]
        print(json.dumps(run(read_rows(options.rows), **settings)))  # type: ignore[operator]
        return
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way, collected in results.items():
            collected.append(run_apart(way, options.rows, options.trl_python))
            print(f"round {number + 1}: {way}: {collected[-1]}", file=sys.stderr)
    print("| way | tokens/s (median) | memory GB |\n|---|---|---|")
    for way, collected in results.items():
        speed = statistics.median(result["tokens_per_s"] for result in collected)
        memory = max(result["memory_gb"] for result in collected)
        print(f"| {way} | {speed:.0f} | {memory:.2f} |")


if __name__ == "__main__":
    main()
