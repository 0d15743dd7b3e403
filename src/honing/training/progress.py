"""What a training shows while it runs: progress bar, TensorBoard, metrics.jsonl.

Listens and decides nothing: the trainer works the same without it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from honing.errors import UserError
from honing.run import RunFolder, cannot_write


@dataclass(frozen=True)
class LoggedSteps:
    """Means over the steps since the last line. train_loss in nats a supervised token."""

    step: int
    epoch: float
    train_loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    memory_bytes: int


@dataclass(frozen=True)
class LoggedEvaluation:
    """A validation. Step 0 is the base model before the first step."""

    step: int
    epoch: float
    val_loss: float
    val_perplexity: float
    samples: tuple[tuple[str, str], ...] = ()


def perplexity(loss_nats: float) -> float:
    """exp of a mean loss, infinite rather than an error where that overflows."""
    return math.exp(loss_nats) if loss_nats < 700 else math.inf


class Progress:
    """Progress bar on the terminal; events and lines in the run's folder, where there is one."""

    def __init__(self, run: RunFolder | None, num_steps: int, *, show: bool = True) -> None:
        self._run = run
        self._num_steps = num_steps
        self._show = show
        self._bar: tqdm[Any] | None = None
        self._events: Any = None

    def start(self, step: int) -> None:
        """Open the outlets. What a killed run wrote after `step` is dropped."""
        if self._show:
            self._bar = tqdm(
                total=self._num_steps, initial=step, unit="step", dynamic_ncols=True, leave=True
            )
        if self._run is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        # At step 0 nothing is kept: the base model is measured again.
        first_new_step = step + 1 if step else 0
        with _said_in_one_line(self._run.root):
            self._run.logs.mkdir(parents=True, exist_ok=True)
            self._events = SummaryWriter(str(self._run.logs), purge_step=first_new_step)
            _drop_lines_from(self._run.metrics, first_new_step)

    def stepped(self, loss: float, rate: float) -> None:
        """One optimizer step is done."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.3f}, rate {rate:.1e}", refresh=False)
            self._bar.update(1)

    def logged(self, steps: LoggedSteps) -> None:
        self._write_line("train", asdict(steps))
        self._scalars(
            steps.step,
            {
                "train/loss": steps.train_loss,
                "train/learning_rate": steps.learning_rate,
                "train/grad_norm": steps.grad_norm,
                "train/tokens_per_s": steps.tokens_per_s,
                "train/memory_GB": steps.memory_bytes / 1e9,
            },
        )

    def evaluated(self, evaluation: LoggedEvaluation, note: str) -> None:
        record = asdict(evaluation)
        record["samples"] = [
            {"prompt": prompt, "answer": answer} for prompt, answer in evaluation.samples
        ]
        self._write_line("validation", record)
        self._scalars(
            evaluation.step,
            {
                "validation/loss": evaluation.val_loss,
                "validation/perplexity": evaluation.val_perplexity,
            },
        )
        if self._run is not None and self._events is not None:
            with _said_in_one_line(self._run.logs):
                for number, (prompt, answer) in enumerate(evaluation.samples, start=1):
                    text = f"**{prompt}**\n\n{answer}"
                    self._events.add_text(f"sample/{number}", text, evaluation.step)
                self._events.flush()
        self.say(
            f"step {evaluation.step}: validation loss {evaluation.val_loss:.4f}, "
            f"perplexity {evaluation.val_perplexity:.2f}{note}"
        )

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._show:
            tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._events is not None:
            # After a full disk this fails once more, and the first error is the one to show.
            with suppress(OSError):
                self._events.close()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        if self._run is not None and self._events is not None:
            with _said_in_one_line(self._run.logs):
                for name, value in values.items():
                    self._events.add_scalar(name, value, step)
                self._events.flush()

    def _write_line(self, kind: str, record: dict[str, Any]) -> None:
        if self._run is not None:
            line = json.dumps({"kind": kind, **record}, ensure_ascii=False)
            with (
                _said_in_one_line(self._run.metrics),
                self._run.metrics.open("a", encoding="utf-8", newline="\n") as file,
            ):
                file.write(line + "\n")


@contextmanager
def _said_in_one_line(path: Path) -> Iterator[None]:
    """A full disk becomes the user's error, with the path in it."""
    try:
        yield
    except OSError as error:
        raise UserError(cannot_write(path, error)) from None


def _drop_lines_from(path: Path, step: int) -> None:
    """Keep the lines before a step: those of a resumed run's past. A half-written line goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] < step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    path.write_text("".join(kept), encoding="utf-8", newline="\n")
