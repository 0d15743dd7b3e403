"""Greedy answers of a run, base and tuned: row by row, one padded loop, and honing's own way.

python benchmarks/evaluation_speed.py RUN [--rows 200] [--batch-size 32] [--max-new-tokens 64]

The same prompts, weights and number type, in one process, in turn. Row by row and padded use
transformers' generate with PEFT's adapter as it was loaded, which is what a script after a training
does; honing folds it in, lays the weights out for few lines, and lets the next row take the place
of a finished one, as `honing evaluate` does. A row whose text
differs is counted: two tokens that are almost equally likely can change places with the batch.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from honing.evaluation.evaluate import evaluation_config
from honing.evaluation.held_out import load_held_out
from honing.generation.answer import answer_each, encode_for_answering, stops
from honing.generation.open_model import OpenModel, fold_adapter, open_model
from honing.model.packed import packed_products
from honing.run import RunFolder

Answers = list[list[int]]


def generate(opened: OpenModel, rows: Sequence[Sequence[int]], ends: Any, most: int) -> Answers:
    """transformers' own generate over one batch, padded on the left."""
    T = max(map(len, rows))
    ids = torch.tensor([[0] * (T - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in rows])
    with torch.no_grad():
        made = opened.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=most,
            eos_token_id=list(ends),
            pad_token_id=ends[0],
        )
    found = []
    for row in made[:, T:].tolist():
        end = next((place for place, token in enumerate(row) if token in ends), len(row))
        found.append(row[:end])
    return found


def measure(way: Callable[[], Answers]) -> tuple[float, Answers]:
    started = time.perf_counter()
    answers = way()
    return time.perf_counter() - started, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    options = parser.parse_args()
    run = RunFolder(Path(options.run))
    config = evaluation_config(run, [f"evaluate.num_samples={options.rows}"])
    update = {
        "temperature": 0.0,
        "repetition_penalty": 1.0,
        "max_new_tokens": options.max_new_tokens,
    }
    settings = config.generate.model_copy(update={**update, "batch_size": options.batch_size})
    opened = open_model(options.run, config, fold=False)
    examples = load_held_out(run, config).examples
    questions = encode_for_answering(opened, examples, settings)
    rows = [question.ids for question in questions]
    ends = stops(opened, settings).ids
    size, most = options.batch_size, options.max_new_tokens
    totals = {"row by row": 0.0, "one padded loop": 0.0, "honing": 0.0}
    differing = dict.fromkeys(totals, 0)
    num_tokens = 0

    def row_by_row() -> Answers:
        return [generate(opened, [row], ends, most)[0] for row in rows]

    def padded() -> Answers:
        starts = range(0, len(rows), size)
        return [a for s in starts for a in generate(opened, rows[s : s + size], ends, most)]

    def ours() -> Answers:
        with packed_products(opened.model):
            done = {job[0]: list(ids.ids) for job, ids in answer_each(opened, questions, settings)}
        return [done[place] for place in range(len(rows))]

    for kind in ("base", "tuned"):
        off = opened.model.disable_adapter() if kind == "base" else contextlib.nullcontext()
        with off:
            seconds, alone = measure(row_by_row)
            totals["row by row"] += seconds
            num_tokens += sum(map(len, alone))
            seconds, found = measure(padded)
            totals["one padded loop"] += seconds
            differing["one padded loop"] += sum(a != b for a, b in zip(alone, found, strict=True))
            if kind == "tuned":
                fold_adapter(opened.model)
            seconds, found = measure(ours)
            totals["honing"] += seconds
            differing["honing"] += sum(a != b for a, b in zip(alone, found, strict=True))
    print(f"{len(rows)} rows, base and tuned, batch {size}, at most {most} new tokens")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {opened.model.dtype}")
    for way, seconds in totals.items():
        print(
            f"{way:<16} {seconds:7.1f} s {num_tokens / seconds:7.1f} tokens/s "
            f"{totals['row by row'] / seconds:5.1f} × row by row; "
            f"{differing[way]} of {2 * len(rows)} texts differ"
        )


if __name__ == "__main__":
    main()
