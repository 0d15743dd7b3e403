"""Trainings by several processes: a warm process forks them, and they meet over gloo.

    python -m tests.several FOLDER

prints what happened as JSON. torch and honing are imported once.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor

import honing.training.train as stage
from honing.cli import main as honing
from honing.data.encode import IGNORE, Tokens
from honing.errors import HoningError, UserError
from honing.generation.answer import answer_each
from honing.model.forward import plain_model
from honing.run import RunFolder
from honing.training.processes import Processes, together
from honing.training.sharding import shard_base
from honing.training.trainer import Trainer
from tests.crashes import same, what_it_left
from tests.forks import ends_of, said, start
from tests.runs import (
    contents_below,
    lines_of_metrics,
    names_below,
    qa_rows,
    save_rows,
    small_overrides,
)
from tests.tiny import PAIRS, adapted_model, encoded, save_tiny_base, train_settings
from tests.training.test_trainer import Recorder

PLAIN = (
    "lora.dropout=0.0",
    "data.test_fraction=0.4",
    "train.save_every=2",
    "train.eval_every=2",
    "train.learning_rate=1e-3",
)
DROPPING = (*PLAIN, "lora.dropout=0.3")


# Commands


def train(folder: Path, number: int, *settings: str) -> dict[str, Any]:
    """`honing train` in so many processes."""
    command = ["train", str(folder.parent / "config.yaml"), f"output_dir={folder}", *settings]
    return _command(folder, number, command)


def evaluate(folder: Path, number: int) -> dict[str, Any]:
    """`honing evaluate` in so many processes."""
    text = f"evaluate.general_text={folder.parent / 'config.yaml'}"
    settings = ("device=cpu", "evaluate.batch_size=2", "evaluate.max_new_tokens=4", text)
    return _command(folder, number, ["evaluate", str(folder), *settings])


def _command(folder: Path, number: int, command: list[str]) -> dict[str, Any]:
    log = folder.parent / f"{folder.name}.log"
    ends = ends_of(start(number, lambda: honing(command), log))
    return {"ends": ends, "said": said(log, number)}


# What is asked of them


def methods(folder: Path) -> dict[str, Any]:
    """The methods of Processes, in two of them."""

    def caught(call: Callable[[], object]) -> str:
        try:
            return f"returned {call()}"
        except HoningError as error:
            return f"{type(error).__name__}: {error}"

    def fail() -> None:
        raise UserError("there is none")

    def body() -> int:
        with together("cpu") as processes:
            first = processes.is_first
            parameter = torch.nn.Parameter(torch.tensor([1.0 + processes.rank, -0.0]))
            other = torch.nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
            parameter.grad = torch.tensor([0.25, 0.5]) if first else None
            other.grad = torch.tensor([[1.5 * (1 + processes.rank)]], dtype=torch.float64)
            processes.sum_gradients([parameter, other])
            processes.send_values([parameter, other])
            assert parameter.grad is not None
            gradients = [parameter.grad.tolist(), other.grad.tolist()]
            sign = torch.signbit(parameter.detach()[1]).item()
            found = {
                "processes": [processes.rank, processes.number, processes.num_local],
                "gradients": gradients,
                "values": [*parameter.tolist(), sign],
                "sum": processes.sum_of(2.0**50 + processes.rank, 0.5),
                "any": [processes.any_of(not first), processes.any_of(False)],
                "gathered": processes.gathered({"rank": processes.rank}),
                "from first": processes.from_first(lambda: f"of {processes.rank}"),
                "each": processes.each(lambda: processes.rank),
                "in turns": processes.in_turns(lambda: processes.rank),
                "first fails": caught(lambda: processes.from_first(fail)),
                "second fails": caught(lambda: processes.each(fail if not first else lambda: 0)),
            }
            write(folder / f"methods.{processes.rank}", found)
        with together("cpu") as again:  # one work after another
            assert again.gathered(again.rank) == [0, 1]
            fail()
        return 0

    log = folder / "methods.log"
    ends = ends_of(start(2, body, log))
    found = [read(folder / f"methods.{rank}") for rank in (0, 1)] if ends == [2, 2] else []
    return {"ends": ends, "said": said(log, 2), "found": found}


ROWS = encoded(PAIRS)
MASKED = [
    replace(row, labels=(IGNORE,) * len(row.ids)) if i in (1, 6) else row
    for i, row in enumerate(ROWS)
]
VAL = encoded([("물은 몇 도에서 끓나요?", "서울입니다."), ("hi", "5"), ("2 + 3", "좋네요.")])
CASES: dict[str, dict[str, Any]] = {
    "padded": {"global_batch_size": 5},
    "packed": {"global_batch_size": 5, "packing": True},
    "a process without a row": {"global_batch_size": 7, "packing": True},
    "micro-batches of different number": {"global_batch_size": 5, "micro_batch_size": 1},
    "rows without a supervised token": {"global_batch_size": 4, "rows": MASKED},
    "base divided, padded": {"divide": True, "global_batch_size": 7, "micro_batch_size": 2},
    "base divided, packed": {"divide": True, "global_batch_size": 7, "packing": True},
    "base divided, recomputed": {
        **{"divide": True, "gradient_checkpointing": True},
        **{"global_batch_size": 5, "micro_batch_size": 1},
    },
}
DTYPES = {
    1: (torch.float32, torch.float64),
    2: (torch.float32, torch.float64),
    3: (torch.float64,),
}
"""Of how many processes which number types."""


def trained(
    processes: Processes,
    dtype: torch.dtype,
    rows: Sequence[Tokens] = ROWS,
    divide: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """A training of several steps, each of which is clipped: its adapter and figures."""
    model = adapted_model("llama", dtype)
    if divide and processes.number > 1:
        model = shard_base(model, processes, "cpu")
    resolved = train_settings(
        **{"epochs": 3, "learning_rate": 1e-3, "max_grad_norm": 0.5, "log_every": 1, **settings}
    )
    recorder = Recorder()
    made = Trainer(
        model,
        rows,
        VAL,
        resolved,
        seed=1,
        progress=recorder,
        processes=processes,
    )
    made.train()
    losses = [evaluation.val_loss for evaluation, _ in recorder.evaluations]
    base = [p for p in plain_model(model).model.layers.parameters() if not p.requires_grad]
    return {
        "num_held": sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in base),
        "adapter": torch.cat([p.detach().double().reshape(-1) for p in made.parameters]),
        "figures": [*recorder.losses, *losses, *(line.grad_norm for line in recorder.logs)],
        "counts": [
            (epoch.totals.num_supervised, epoch.totals.num_tokens) for epoch in made.state.history
        ],
    }


def trainings(folder: Path) -> dict[str, Any]:
    """Each case in one process, two and three: how far apart adapters and figures are."""

    def body(number: int) -> int:
        with together("cpu") as processes:
            made = {
                f"{name}, {dtype}": trained(processes, dtype, **case)
                for name, case in CASES.items()
                for dtype in DTYPES[number]
            }
            torch.save(made, folder / f"trained.{number}.{processes.rank}")
        return 0

    ends = [ends_of(start(n, partial(body, n), folder / f"train.{n}.log")) for n in DTYPES]
    if any(map(any, ends)):
        raise RuntimeError(str([said(folder / f"train.{n}.log", n) for n in DTYPES]))
    alone = _made(folder, 1)[0]
    return {
        f"{name}, {number} processes": _compared([one[name] for one in made], alone[name])
        for number in (2, 3)
        for made in [_made(folder, number)]
        for name in made[0]
    }


def _made(folder: Path, number: int) -> list[dict[str, dict[str, Any]]]:
    """What each of so many processes has made."""
    files = [folder / f"trained.{number}.{rank}" for rank in range(number)]
    return [torch.load(file, weights_only=True) for file in files]


def _compared(made: list[dict[str, Any]], expected: dict[str, Any]) -> dict[str, Any]:
    figures = torch.tensor([made[0]["figures"], expected["figures"]], dtype=torch.float64)
    return {
        "adapter": distance(made[0]["adapter"], expected["adapter"]),
        "figures": float(((figures[0] - figures[1]) / figures[1]).abs().max()),
        "held": [one["num_held"] / expected["num_held"] for one in made],
        "same counts": made[0]["counts"] == expected["counts"],
        "same everywhere": all(torch.equal(one["adapter"], made[0]["adapter"]) for one in made),
    }


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# Whole runs


def runs(folder: Path) -> dict[str, Any]:
    """Uninterrupted, resumed by as many processes and by others, killed, stopped, not finite."""
    base, rows = save_tiny_base(folder / "base"), save_rows(folder / "rows.jsonl", qa_rows())
    settings = small_overrides(base, rows, folder)[1:]
    (folder / "config.yaml").write_text("seed: 42\n", encoding="utf-8")
    plain, dropping = (*settings, *PLAIN), (*settings, *DROPPING)
    found: dict[str, Any] = {
        "alone": train(folder / "alone", 1, *plain),
        "two": train(folder / "two", 2, *plain),
        "dropping": train(folder / "dropping", 2, *dropping),
        "divided": train(folder / "divided", 2, *plain, "train.shard_base=true"),
        "too many": train(folder / "many", 2, *plain, "train.global_batch_size=1"),
    }
    with at_step(3, _kill_the_second):
        found["killed"] = train(folder / "killed", 2, *dropping)
    found["resumed"] = train(folder / "killed", 2, *dropping, "--resume")
    with at_step(3, _ask_the_second_to_stop):
        found["stopped"] = train(folder / "stopped", 2, *plain)
    for number in (1, 3):
        shutil.copytree(folder / "stopped", folder / f"stopped-{number}", symlinks=True)
        found[f"resumed by {number}"] = train(
            folder / f"stopped-{number}", number, *plain, "--resume"
        )
    with at_step(3, _spoil_the_second):
        found["not finite"] = train(folder / "spoilt", 2, *plain)
    return found | _left(folder)


def evaluations(folder: Path) -> dict[str, Any]:
    """One run, evaluated by one process, by two, and by two of which one is killed, then by one."""
    for name in ("by-two", "by-killed"):
        shutil.copytree(folder / "two", folder / name, symlinks=True)
    found = {"one": evaluate(folder / "two", 1), "two": evaluate(folder / "by-two", 2)}
    with _killed_while_answering(rank=1):
        found["killed"] = evaluate(folder / "by-killed", 2)
    evaluation = RunFolder(folder / "by-killed").evaluation
    parts = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in evaluation.iterdir()
    }
    found["rest"] = evaluate(folder / "by-killed", 1)
    names = ("two", "by-two", "by-killed")
    files = {name: contents_below(RunFolder(folder / name).evaluation) for name in names}
    return found | {
        "parts": parts,
        "files": sorted(files["two"]),
        "same": {name: files[name] == files["two"] for name in names},
    }


@contextmanager
def _killed_while_answering(rank: int) -> Iterator[None]:
    """A process is killed after its first answer of the base."""

    def answer_some(*arguments: Any) -> Iterator[Any]:
        for number, answer in enumerate(answer_each(*arguments)):
            if number == 1 and os.environ["RANK"] == str(rank):
                os.kill(os.getpid(), signal.SIGKILL)
            yield answer

    with mock.patch("honing.evaluation.answers.answer_each", answer_some):
        yield


def _left(folder: Path) -> dict[str, Any]:
    """What the runs left."""
    adapters = {
        name: adapter(folder / name)
        for name in ("alone", "two", "divided", "stopped-1", "stopped-3")
    }
    dropping, killed = what_it_left(folder / "dropping"), what_it_left(folder / "killed")
    files = {name: sorted(plain_names(folder / name)) for name in ("alone", "two")}
    return {
        "distances": {name: distance(adapters[name], adapters["alone"]) for name in adapters},
        "differing": [key for key in dropping if not same(dropping[key], killed[key])],
        "files": files,
        "metrics": {name: lines_of_metrics(folder / name) for name in ("alone", "two")},
        "saved": {name: saved(folder / name) for name in ("stopped", "spoilt")},
    }


def plain_names(folder: Path) -> set[str]:
    """Files without the time and process in the names of event files."""
    return {name if not name.startswith("logs/") else "logs/" for name in names_below(folder)}


def saved(folder: Path) -> list[str]:
    return [path.name for path in RunFolder(folder).step_checkpoints()]


def adapter(folder: Path) -> Tensor:
    weights = load_file(RunFolder(folder).final / "adapter_model.safetensors")
    return torch.cat([weights[name].double().reshape(-1) for name in sorted(weights)])


@contextmanager
def at_step(step: int, action: Callable[[Trainer], None]) -> Iterator[None]:
    """Do something in the second process, before the losses of a step."""
    own = Trainer._train_step

    def train_step(trainer: Trainer, members: Sequence[int]) -> None:
        if trainer.state.step == step - 1 and trainer.processes.rank == 1:
            action(trainer)
        own(trainer, members)

    with mock.patch.object(Trainer, "_train_step", train_step):
        yield


def _kill_the_second(_: Trainer) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _ask_the_second_to_stop(_: Trainer) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _spoil_the_second(trainer: Trainer) -> None:
    loss = trainer._loss
    trainer._loss = lambda batch: (loss(batch)[0] * math.nan, 0)  # type: ignore[method-assign]


def write(path: Path, record: Any) -> None:
    path.write_text(json.dumps(record), encoding="utf-8")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    folder = Path(sys.argv[1])
    with mock.patch.object(stage, "SAMPLE_TOKENS", 4):
        found = {
            "methods": methods(folder),
            "trainings": trainings(folder),
            "runs": runs(folder),
            "evaluations": evaluations(folder),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
