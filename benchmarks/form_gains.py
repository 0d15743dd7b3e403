"""What each faster form of a training step gains alone: a step with all of them beside a step
that has all but one, in turn, in one process.

    python benchmarks/form_gains.py --rows FILE.jsonl FILE.jsonl [--tokenizer FOLDER]
        [--rounds 1] [--dtypes float32 bfloat16] [--append-to FILE.md]

Shapes, rows and steps are those of training_speed.py; the adapters' dropout is 0.05. A gain is the
processor time without the form through that with it: median, lowest and highest of four steps and
as many rounds. Where a form does not apply (RMSNorm and the gated part in GPT-2), the figure
shows the scatter.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from measured_on import machine
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from training_speed import NUM_STEPS, mixed_rows, prepare
from training_start import STEP_EXAMPLES, loaded
from training_tables import line_of, with_span

from honing.config import TrainConfig
from honing.data.encode import IGNORE, Tokens
from honing.model import attention, forward, products
from honing.model.fast_forms import FORMS, use_fast_forms
from honing.model.forward import Head
from honing.training import layout
from honing.training import trainer as trainer_module
from honing.training.trainer import Trainer

RATE = 0.05

LABELS = {
    "norms": "RMSNorm in few passes",
    "activations": "activations in few passes",
    "gated parts": "gated part of a block in one function",
}
"""What the table says of some of FORMS."""

PRODUCTS = tuple(name for name in FORMS if name not in ("norms", "activations"))
"""Of FORMS, those that compute the adapters' products, and their dropout with them."""

EXPLAINED = """\
A step without the form through a step with all of them, in turn in one process, the adapters'
dropout 0.05: processor time, median (lowest to highest) of {steps} steps. Where a form does not
apply (RMSNorm and the gated part in GPT-2), the figure shows the scatter.
"""


@dataclass(frozen=True)
class Pair:
    """One form's name, what leaves it out, the training's settings then, and what the step with
    it has left out too."""

    name: str
    without: Callable[[], AbstractContextManager[Any]] = nullcontext
    settings: Mapping[str, Any] = field(default_factory=dict)
    beside: Callable[[], AbstractContextManager[Any]] = nullcontext


def only(*forms: str) -> Any:
    """A trainer that takes these of FORMS."""
    return patch.object(trainer_module, "use_fast_forms", lambda m: use_fast_forms(m, forms))


def all_but(*forms: str) -> Any:
    return only(*(name for name in FORMS if name not in forms))


@contextmanager
def torch_dropout() -> Iterator[None]:
    with patch.object(trainer_module, "use_cheap_dropout", lambda model: None), all_but(*PRODUCTS):
        yield


def one_mask() -> Any:
    """transformers' own mask over a packed row, made from its positions."""

    def hidden(model: Any, ids: Tensor, positions: Tensor, mask: Any, lengths: Any) -> Tensor:
        causal_model = forward.plain_model(model)
        decoder = getattr(causal_model, causal_model.base_model_prefix)
        output = decoder(
            input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False
        )
        return forward._last(output)

    return patch.object(trainer_module, "hidden_states", hidden)


def whole_logits() -> Any:
    """A plain loss: logits of every position, those that are not supervised too."""

    def loss(hidden: Tensor, labels: Tensor, head: Head) -> tuple[Tensor, int]:
        logits = head(hidden[:, :-1].flatten(0, 1)).float()
        shifted = labels[:, 1:].flatten()
        number = int((shifted != IGNORE).sum())
        return cross_entropy(logits, shifted, ignore_index=IGNORE, reduction="sum"), number

    return patch.object(trainer_module, "response_loss", loss)


def no_onednn() -> Any:
    return patch.object(products, "_has_onednn", lambda dtype: False)


def any_length() -> Any:
    return patch.object(layout, "ROW_MULTIPLE", 1)


def torch_attention() -> Any:
    return patch.object(attention, "_has_flash", lambda device: False)


PAIRS = (
    Pair("rows packed, not padded", settings={"packing": False}),
    Pair("packed rows of few lengths", any_length),
    Pair("attention inside each example, no mask", one_mask),
    Pair("attention's way back in float32", torch_attention),
    Pair("logits only where supervised, in chunks", whole_logits),
    Pair("products: the adapter's joined to the frozen one", lambda: all_but(*PRODUCTS)),
    Pair("products: oneDNN", no_onednn),
    *(Pair(LABELS.get(name, name), partial(all_but, name)) for name in FORMS if name != "products"),
    Pair(
        "dropout of 16 bits (products left out)",
        torch_dropout,
        beside=lambda: all_but(*PRODUCTS),
    ),
)


def make_trainer(
    folder: Path, rows: list[Tokens], dtype: str, settings: Mapping[str, Any]
) -> Trainer:
    model = loaded(folder, dtype)
    for layer in (module for module in model.modules() if isinstance(module, LoraLayer)):
        layer.lora_dropout = nn.ModuleDict({name: nn.Dropout(RATE) for name in layer.lora_A})
    train = TrainConfig(
        epochs=100,
        global_batch_size=STEP_EXAMPLES,
        micro_batch_size=STEP_EXAMPLES,
        gradient_checkpointing=False,
        packed_row_tokens=layout.packed_row_tokens(model.dtype, max(len(row.ids) for row in rows)),
        **{"packing": True, **settings},
    )
    return Trainer(model, rows, (), train, seed=1, packing_is_checked=True)


def seconds_of_step(trainer: Trainer, members: range) -> float:
    """Processor time, so that other programs on the machine matter less."""
    started = time.process_time()
    trainer._train_step(members)
    return time.process_time() - started


def gains(pair: Pair, folder: Path, rows: list[Tokens], dtype: str, rounds: int) -> list[float]:
    """Time without through time with, of each step."""
    with pair.beside():
        full = make_trainer(folder, rows, dtype, {})
    with pair.without():
        less = make_trainer(folder, rows, dtype, pair.settings)
    ratios = []
    starts = range(0, len(rows) - STEP_EXAMPLES + 1, STEP_EXAMPLES)
    for start in (0, *starts, *list(starts) * (rounds - 1)):
        members = range(start, start + STEP_EXAMPLES)
        with pair.beside():
            with_it = seconds_of_step(full, members)
        with pair.without():
            ratios.append(seconds_of_step(less, members) / with_it)
    return ratios[1:]


def shape_gains(shape: str, options: argparse.Namespace) -> dict[str, list[str]]:
    """Of each pair, the cells of a shape: one for each dtype."""
    cells: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(shape, mixed_rows(options.rows), options.tokenizer, folder)
        written = json.loads((folder / "rows.json").read_text("utf-8"))
        rows = [Tokens(str(n), r["input_ids"], r["labels"]) for n, r in enumerate(written)]
        for pair in PAIRS:
            ratios = [gains(pair, folder, rows, dtype, options.rounds) for dtype in options.dtypes]
            cells[pair.name] = [f"× {with_span(of_dtype, 2)}" for of_dtype in ratios]
            said = f"{shape}: {pair.name}: {', '.join(cells[pair.name])}"
            print(said, file=sys.stderr, flush=True)
    return cells


def section(shapes: list[str], options: argparse.Namespace) -> list[str]:
    """The table of all shapes, and what it says."""
    gained = [shape_gains(shape, options) for shape in shapes]
    names = [f"{shape}, {dtype}" for shape in shapes for dtype in options.dtypes]
    rows = [[pair.name, *(cell for of in gained for cell in of[pair.name])] for pair in PAIRS]
    steps = options.rounds * NUM_STEPS
    return [
        "## What each faster form gains",
        "",
        EXPLAINED.format(steps=steps),
        line_of(["form", *names]),
        "|---" * (1 + len(names)) + "|",
        *map(line_of, rows),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, nargs="+", required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--append-to", type=Path)
    options = parser.parse_args()
    shapes = ["SmolLM2-135M"] if options.tokenizer is None else ["GPT-2 small", "SmolLM2-135M"]
    text = "\n".join(section(shapes, options))
    print(f"{machine()}\n\n{text}", end="")
    if options.append_to:
        with options.append_to.open("a", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
