"""Tokens a second of a training step: honing against other trainers and a plain loop.

    python benchmarks/training_speed.py --rows FILE.jsonl FILE.jsonl [--tokenizer FOLDER]
        [--trl-python PATH] [--llamafactory-python PATH] [--litgpt-python PATH]
        [--rounds 2] [--output FILE.md]

A peer whose Python is not named is left out, LitGPT for GPT-2 too, which it has no model for.
LitGPT weighs examples alike and not tokens: its losses stand beside those of a plain loop that does
so too. A peer that fails has its error in the table; the others go on.

Two shapes: GPT-2 small with random weights and adapters on c_attn and c_proj (--tokenizer: a folder
with GPT-2's), and the embedded SmolLM2-135M with adapters on every layer. All ways start from the
same base and adapter, take the same rows in the same order and the same steps, with all dropout
off; a comparison whose losses differ step by step is void, but for the ways in bfloat16, whose
difference is shown. What honing takes without being asked (model.dtype=auto) is bfloat16 where the
processor has units for it, else float32. Rows come from the files in turn, so
short and long ones mix. Tokens are those of the examples, without padding. Each way runs in a
process of its own, in turn, several rounds; the first step of each is not counted.

The work that is needed, 4 × parameters of the blocks × tokens + 4 × parameters of the head ×
supervised tokens, stands beside the rate of a 2048 × 2048 × 2048 product of the same minute.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

NUM_STEPS = 4
STEP_EXAMPLES = 16
LARGEST_DIFFERENCE = 1e-3
"""Of two ways' losses in nats; the sums of some hundred thousand products differ in rounding."""


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
    head = model.get_output_embeddings().weight.numel()
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
    return 4 * (blocks * num_tokens + head * num_supervised)


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
    if "LitGPT" in way and (shape == "GPT-2 small" or not options.litgpt_python):
        return None
    peers = {
        "TRL": options.trl_python,
        "LLaMA-Factory": options.llamafactory_python,
        "LitGPT": options.litgpt_python,
    }
    return None if way in options.leave_out else peers.get(way.split(",")[0], sys.executable)


def run_way(way: str, folder: Path, python: str) -> dict[str, Any]:
    """What the way printed; of a peer that failed `failed`, the last line of its errors."""
    script = Path(__file__).with_name("training_ways.py")
    command = [python, "-W", "ignore", str(script), str(folder), way]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        if python == sys.executable:
            raise SystemExit(f"{way}: exit status {done.returncode}")
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failed": said[-1].replace("|", "/")}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def compare(shape: str, options: argparse.Namespace) -> list[str]:
    """The table of one shape, as lines of Markdown."""
    from training_ways import WAYS

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        needed = prepare(shape, mixed_rows(options.rows), options.tokenizer, folder)
        results: dict[str, list[dict[str, Any]]] = {}
        for number, way in itertools.product(range(options.rounds), WAYS):
            python = python_of(way, shape, options)
            if not python:
                continue
            before = sgemm_flops_per_s()
            result = run_way(way, folder, python)
            results.setdefault(way, []).append(result)
            said = f"{shape}, round {number + 1}, {way}"
            if "failed" in result:
                print(f"{said}: failed: {result['failed']}", file=sys.stderr)
                continue
            rate = (before + sgemm_flops_per_s()) / 2
            result["of_sgemm"] = needed / sum(result["seconds"][1:]) / rate
            print(
                f"{said}: {speed(result):.1f} tokens/s, "
                f"{result['of_sgemm']:.3f} of sgemm ({rate / 1e9:.0f} GFLOP/s), "
                f"losses {' '.join(f'{loss:.6f}' for loss in result['losses'])}",
                file=sys.stderr,
            )
    return table(shape, results)


def speed(result: dict[str, Any]) -> float:
    return float(sum(result["tokens"][1:]) / sum(result["seconds"][1:]))


def table(shape: str, results: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [
        f"## {shape}",
        "",
        "| way | tokens/s (median) | × plain loop | of sgemm | peak memory GB | padding | "
        "largest difference of a step's loss |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = statistics.median(speed(run) for run in results["plain loop"])
    for way, all_runs in results.items():
        runs = [run for run in all_runs if "failed" not in run]
        if not runs:
            lines.append(f"| {way} | failed: {all_runs[0]['failed']} | | | | | |")
            continue
        middle = statistics.median(speed(run) for run in runs)
        lines.append(
            f"| {way} | {middle:.1f} | {middle / plain:.2f} "
            f"| {statistics.median(run['of_sgemm'] for run in runs):.2f} "
            f"| {max(run['peak_bytes'] for run in runs) / 1e9:.2f} | {runs[0]['padding']:.0%} "
            f"| {difference(way, results)} |"
        )
    return [*lines, ""]


def difference(way: str, results: dict[str, list[dict[str, Any]]]) -> str:
    """The largest of a step's loss from the plain loop's, of its kind."""
    from training_ways import WAYS

    reference = "plain loop, LitGPT's loss" if "LitGPT" in way else "plain loop"
    if reference not in results:
        return "not compared"
    first = next(run for run in results[way] if "failed" not in run)
    pairs = zip(first["losses"], results[reference][0]["losses"], strict=True)
    apart = max(abs(a - b) for a, b in pairs)
    settings = WAYS[way][1]
    is_rounded = (
        "dtype" in settings or "bf16" in settings or settings.get("precision") == "bf16-true"
    )
    void = "" if apart <= LARGEST_DIFFERENCE or is_rounded else " **void**"
    return f"{apart:.1e}{void}"


def machine() -> str:
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        if line.startswith("model name")
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"{len(names)} × {names[0]}, Python {platform.python_version()}, {versions}, {commit}"


def main() -> None:
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
    lines = ["# Training speed", "", machine(), ""]
    for shape in shapes:
        lines += compare(shape, options)
    text = "\n".join(lines)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
