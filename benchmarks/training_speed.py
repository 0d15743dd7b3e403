"""Tokens a second of a training step: honing against other trainers and a plain loop.

    python benchmarks/training_speed.py --rows FILE.jsonl FILE.jsonl [--tokenizer FOLDER]
        [--trl-python PATH] [--llamafactory-python PATH] [--litgpt-python PATH]
        [--rounds 2] [--output FILE.md]

A peer whose Python is not named or not there is left out, LitGPT for GPT-2 too, which it has no
model for. A peer that fails has its error in the table; the others go on.

Two shapes: GPT-2 small with random weights and adapters on c_attn and c_proj (--tokenizer: a folder
with GPT-2's), and the embedded SmolLM2-135M with adapters on every layer. The ways to train stand
in training_ways.py, the tables in training_tables.py; what is counted and compared is said in
measured_on.py, which heads the output.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measured_on import PEERS, head, python_of_peer
from training_start import STEP_EXAMPLES
from training_tables import LARGEST_DIFFERENCE, Result, Results, shape_section, speed
from training_ways import MEMORY_LIMIT_GB, WAYS

NUM_STEPS = 3


def mixed_rows(files: list[Path]) -> list[dict[str, str]]:
    """Rows of the files in turn."""
    read = [[json.loads(line) for line in f.open(encoding="utf-8")] for f in files]
    mixed = [row for group in zip(*read, strict=False) for row in group]
    return mixed[: NUM_STEPS * STEP_EXAMPLES]


def prepare(shape: str, rows: list[dict[str, str]], tokenizer: Path | None, folder: Path) -> int:
    """Write base, adapter and rows; the floating-point operations that a run needs."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from honing.config import LoraConfig, ModelConfig
    from honing.data.encode import Tokens, encode_prompts
    from honing.data.example import Example, Exchange
    from honing.data.template import choose_template
    from honing.model.load import find_base, load_model, load_tokenizer, text_encoder, text_model
    from honing.model.lora import attach_lora

    template = choose_template("instruction", None)
    if shape == "GPT-2 small":
        loaded = AutoTokenizer.from_pretrained(tokenizer)
        torch.manual_seed(0)
        config = GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        model: Any = GPT2LMHeadModel(config)
        lora = LoraConfig(dropout=0.0, target_modules=["c_attn", "c_proj"])
        encoder = text_encoder(loaded)
    else:
        base = find_base(ModelConfig())
        loaded = load_tokenizer(base)
        model = load_model(base, "float32", "cpu")
        lora = LoraConfig(dropout=0.0)
        encoder = text_model(base, loaded, template).encoder
    from honing.data.template import render

    examples = [
        Example(f"{n}", (Exchange(row["instruction"], row["output"], row.get("input", "")),))
        for n, row in enumerate(rows)
    ]
    prompts = [render(example, template, "response") for example in examples]
    encoded = [r for r in encode_prompts(prompts, encoder, 512) if isinstance(r, Tokens)]
    encoded = encoded[: len(encoded) // STEP_EXAMPLES * STEP_EXAMPLES]  # whole steps alone
    model.save_pretrained(folder / "base")
    loaded.save_pretrained(folder / "base")
    head_size = model.get_output_embeddings().weight.numel()
    inside = (".h.", ".layers.")
    blocks = sum(p.numel() for n, p in model.named_parameters() if any(i in n for i in inside))
    attach_lora(model, lora, seed=42).save_pretrained(folder / "adapter")
    as_json = [{"input_ids": list(r.ids), "labels": list(r.labels)} for r in encoded]
    (folder / "rows.json").write_text(json.dumps(as_json), encoding="utf-8")
    counted = encoded[STEP_EXAMPLES:]
    num_tokens, num_supervised = (
        sum(len(r.ids) for r in counted),
        sum(r.num_supervised for r in counted),
    )
    return 4 * (blocks * num_tokens + head_size * num_supervised)


def sgemm_flops_per_s() -> float:
    """Median rate of a 2048 × 2048 × 2048 product in float32 on all cores."""
    import torch

    a, b, out = torch.randn(2048, 2048), torch.randn(2048, 2048), torch.empty(2048, 2048)
    rates = []
    for _ in range(9):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        rates.append(2 * 2048**3 / (time.perf_counter() - started))
    return statistics.median(rates)


def python_of(way: str, shape: str, options: argparse.Namespace) -> str | None:
    """The Python that runs a way; None: it is left out."""
    without_model = shape == "GPT-2 small" or python_of_peer("LitGPT", options) is None
    if way in options.leave_out or ("LitGPT" in way and without_model):
        return None
    peer = way.split(",")[0]
    return python_of_peer(peer, options) if peer in PEERS else sys.executable


def run_way(way: str, folder: Path, python: str) -> Result:
    """What the way printed; of a peer that failed `failed`, the last line of its errors."""
    script = Path(__file__).with_name("training_ways.py")
    command = [python, "-W", "ignore", str(script), str(folder), way]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        if python == sys.executable:
            raise SystemExit(f"{way}: exit status {done.returncode}")
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        without_folders = re.sub(r"/\S*/", "…/", said[-1])  # which are this machine's matter
        return {"failed": without_folders.replace("|", "/")}
    result: Result = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def measured_way(way: str, folder: Path, python: str, needed: int) -> Result:
    """A run of a way, and the machine's own rate before and after it."""
    before = sgemm_flops_per_s()
    result = run_way(way, folder, python)
    if "failed" not in result:
        rate = (before + sgemm_flops_per_s()) / 2
        result["sgemm_flops_per_s"] = rate
        result["of_sgemm"] = needed / sum(result["seconds"][1:]) / rate
    return result


def described(result: Result) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    return (
        f"{speed(result):.1f} tokens/s, {result['of_sgemm']:.3f} of sgemm "
        f"({result['sgemm_flops_per_s'] / 1e9:.0f} GFLOP/s), "
        f"peak {result['peak_bytes'] / 1e9:.2f} GB, "
        f"losses {' '.join(f'{loss:.6f}' for loss in result['losses'])}"
    )


def compare(shape: str, options: argparse.Namespace) -> Results:
    """All ways of one shape, in turn, round after round."""
    results: Results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        needed = prepare(shape, mixed_rows(options.rows), options.tokenizer, folder)
        for number, way in itertools.product(range(options.rounds), WAYS):
            python = python_of(way, shape, options)
            if python is None:
                continue
            result = measured_way(way, folder, python, needed)
            results.setdefault(way, []).append(result)
            said = f"{shape}, round {number + 1}, {way}: {described(result)}"
            print(said, file=sys.stderr, flush=True)
    return results


def main() -> None:
    from honing.model.device import choose_dtype

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, nargs="+", required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--trl-python")
    parser.add_argument("--llamafactory-python")
    parser.add_argument("--litgpt-python")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="WAY")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    shapes = ["SmolLM2-135M"] if options.tokenizer is None else ["GPT-2 small", "SmolLM2-135M"]
    lines = head(options, NUM_STEPS, LARGEST_DIFFERENCE, MEMORY_LIMIT_GB)
    for shape in shapes:
        lines += shape_section(shape, compare(shape, options), choose_dtype("auto", "cpu").value)
    text = "\n".join(lines)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
