"""The stage behind `honing plan CONFIG`: what a training will cost, from its real first steps.

Its micro-batches at their real lengths are computed forwards and backwards, no formula stands for
them. Adapters, optimizer and random states stay as they were. A line of it heads every training:
see forecast.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from honing.config import Config
from honing.data.pack import Batch, epoch_order, steps_of_epoch
from honing.errors import UserError
from honing.model.device import (
    peak_memory_bytes,
    random_states,
    set_random_states,
    total_memory_bytes,
)
from honing.model.forward import plain_model
from honing.model.four_bit import FROM_THE_BASE, saved_bytes
from honing.model.lora import count_parameters
from honing.model.plan import LEFT_BETWEEN, activation_bytes
from honing.training.parts import load_parts
from honing.training.processes import Processes
from honing.training.trainer import Trainer

Say = Callable[[str], None]

TIMED_S = 20.0
LOOKED_AT = 100
"""Steps in which the longest micro-batch is looked for."""
PROBED_STEPS = 150
"""Steps of a training from which on it is timed beforehand: three steps or so, 2 % of it."""
WORTH_SAVING = 0.1
"""Share of the memory that a base in 4 bits must save to be named."""
ADAM_BYTES = 8
"""Two moments in float32 for each trainable parameter."""
SAVED_BYTES = 12
"""Parameter and moments once more, in RAM, while a checkpoint is written (measured at rank 32)."""


@dataclass(frozen=True)
class Cost:
    """num_tokens: of all epochs, without padding. seconds: of the steps, and of the validations.
    peak_bytes: of the device's memory. available_bytes: what it has free, or the limit that was
    set. num_timed_steps: on which the seconds rest."""

    num_steps: int
    num_tokens: int
    tokens_per_s: float
    training_seconds: float
    validation_seconds: float
    peak_bytes: int
    available_bytes: int
    row_tokens: int
    num_timed_steps: int
    advice: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return self.peak_bytes <= self.available_bytes

    def to_record(self) -> dict[str, Any]:
        return {**asdict(self), "fits": self.fits}


def plan(config: Config, say: Say = print) -> Cost:
    """Load what a training needs, time it and weigh it. Writes nothing.

    Raises UserError where the training would be refused, or cannot begin to fit.
    """
    parts = load_parts(config, Processes(), say)
    settings = parts.config.train
    trainer = Trainer(
        parts.model,
        parts.data.train.tokens,
        () if settings.eval_every == "never" else parts.data.val.tokens,
        settings,
        seed=parts.config.seed,
        device=parts.config.device,
        packing_is_checked=True,
    )
    return measure_cost(trainer, parts.config)


def forecast(trainer: Trainer, config: Config) -> str:
    """A line for the head of a training, a warning where it will not fit. Long trainings alone are
    timed: of others, and of those that seem too large, the memory is estimated."""
    row_tokens = _longest(trainer, _first_steps(trainer)).input_ids.size
    peak, available = _estimated_bytes(trainer, row_tokens), _available_bytes(config)
    of = f"of {available / 1e9:.1f} GB"
    if peak > available:
        advice = "; or ".join(_advice(trainer, config, row_tokens, peak))
        return f"WARNING: memory: some {peak / 1e9:.1f} {of}: WILL HARDLY FIT; to fit: {advice}"
    if trainer.num_steps < PROBED_STEPS:
        return f"  memory: some {peak / 1e9:.1f} {of}; time: see the bar after the first steps"
    cost = measure_cost(trainer, config, timed_s=0.0)
    if not cost.fits:
        advice = "; or ".join(cost.advice)
        return f"WARNING: memory: {cost.peak_bytes / 1e9:.1f} {of}: DOES NOT FIT; to fit: {advice}"
    return (
        f"  memory: {cost.peak_bytes / 1e9:.1f} {of}; time: {_duration(cost.training_seconds)}, "
        f"and {_duration(cost.validation_seconds)} of validation"
    )


def _estimated_bytes(trainer: Trainer, row_tokens: int) -> int:
    """Memory of a training without computing any of it: by a formula, and rather too much."""
    kept = activation_bytes(trainer.model, row_tokens, fast_forms=trainer.settings.fast_forms)
    if trainer.settings.gradient_checkpointing:
        kept //= plain_model(trainer.model).config.get_text_config().num_hidden_layers
    if trainer.device == "cpu":
        kept = round(kept * LEFT_BETWEEN)
    before = peak_memory_bytes(trainer.device)
    return _with_optimizer(trainer, before, before + kept)


def _with_optimizer(trainer: Trainer, before: int, in_a_step: int) -> int:
    """Peak of a training that takes so much before its first step, and in it, in bytes. The
    optimizer's share stays; what a checkpoint takes while it is written comes between steps."""
    trainable = count_parameters(trainer.model).trainable
    saved = before + SAVED_BYTES * trainable if trainer.device == "cpu" else 0
    return max(in_a_step, saved) + ADAM_BYTES * trainable


def measure_cost(trainer: Trainer, config: Config, *, timed_s: float = TIMED_S) -> Cost:
    """What the rest of a training costs, which has not begun. config: without "auto" in it.
    timed_s: enough steps are timed to fill this, at least one."""
    states = random_states(trainer.device)
    available = _available_bytes(config)
    steps = _first_steps(trainer)
    longest = _longest(trainer, steps)
    row_tokens = longest.input_ids.size
    before = peak_memory_bytes(trainer.device)
    kept = activation_bytes(trainer.model, row_tokens, fast_forms=trainer.settings.fast_forms)
    needed = 0 if trainer.settings.gradient_checkpointing else kept
    if before + needed > 2 * available:  # even half of the estimate would not fit
        raise UserError(
            f"plan: the longest micro-batch, {row_tokens} tokens, needs some {needed / 1e9:.1f} GB "
            f"beside {before / 1e9:.1f} GB of the model, of {available / 1e9:.1f} GB; "
            + "; or ".join(_advice(trainer, config, row_tokens, before + needed))
        )
    _try(trainer, [longest])
    num_timed, num_tokens, seconds = 0, 0, 0.0
    for members in steps:
        started = time.perf_counter()
        num_tokens += _try(trainer, _batches(trainer, members))
        seconds += time.perf_counter() - started
        num_timed += 1
        if seconds > timed_s:
            break
    _try(trainer, [longest])  # once more, where memory is no longer fresh
    tokens_per_s = num_tokens / seconds
    validation = _validation_seconds(trainer)
    set_random_states(trainer.device, states)
    total = _total_tokens(trainer)
    peak = _with_optimizer(trainer, before, peak_memory_bytes(trainer.device))
    return Cost(
        num_steps=trainer.num_steps,
        num_tokens=total,
        tokens_per_s=tokens_per_s,
        training_seconds=total / tokens_per_s,
        validation_seconds=validation * _num_validations(trainer),
        peak_bytes=peak,
        available_bytes=available,
        row_tokens=row_tokens,
        num_timed_steps=num_timed,
        advice=() if peak <= available else _advice(trainer, config, row_tokens, peak),
    )


def format_cost(cost: Cost) -> str:
    """For the terminal."""
    verdict = "fits" if cost.fits else "DOES NOT FIT"
    lines = [
        f"  memory: {cost.peak_bytes / 1e9:.2f} of {cost.available_bytes / 1e9:.2f} "
        f"GB: {verdict} (measured at the longest row, {cost.row_tokens} tokens)",
        f"  time: {_duration(cost.training_seconds)} for {cost.num_tokens:,} tokens at "
        f"{cost.tokens_per_s:.0f} a second, and {_duration(cost.validation_seconds)} of validation "
        f"({cost.num_timed_steps} of {cost.num_steps} steps timed)",
        *(f"  to fit: {line}" for line in cost.advice),
    ]
    return "\n".join(lines)


def _first_steps(trainer: Trainer) -> list[Sequence[int]]:
    order = epoch_order(len(trainer.rows), trainer.seed, epoch=0)
    return steps_of_epoch(order, trainer.settings.global_batch_size)[:LOOKED_AT]


def _longest(trainer: Trainer, steps: Sequence[Sequence[int]]) -> Batch:
    """The micro-batch of the most tokens, padding counted."""
    return max(
        (batch for members in steps for batch in _batches(trainer, members)),
        key=lambda batch: batch.input_ids.size,
    )


def _batches(trainer: Trainer, members: Sequence[int]) -> list[Batch]:
    return trainer.batches(trainer.rows, trainer.lengths, members)


def _try(trainer: Trainer, batches: list[Batch]) -> int:
    """A step without its end, of which nothing is kept; its tokens."""
    trainer.model.train()
    trainer.add_gradients(batches, max(1, sum(batch.num_supervised for batch in batches)))
    trainer.optimizer.zero_grad(set_to_none=True)
    return sum(batch.num_tokens for batch in batches)


def _total_tokens(trainer: Trainer) -> int:
    share = trainer.num_steps / trainer.steps_per_epoch
    return round(share * sum(trainer.lengths))


def _num_validations(trainer: Trainer) -> int:
    """The base's, those on the way, and the last one."""
    every = trainer.settings.eval_every
    if not trainer.val_rows:
        return 0
    period = trainer.steps_per_epoch if every == "epoch" else int(every)
    return 1 + -(-trainer.num_steps // period)


def _validation_seconds(trainer: Trainer) -> float:
    """Of one pass over the validation rows, from a share of them."""
    if not trainer.val_rows:
        return 0.0
    few = min(len(trainer.val_rows), 2 * trainer.settings.global_batch_size)
    started = time.perf_counter()
    trainer.evaluate(few)
    share = sum(trainer.val_lengths[:few]) / sum(trainer.val_lengths)
    return (time.perf_counter() - started) / share


def _available_bytes(config: Config) -> int:
    if config.train.memory_limit is not None:
        return int(config.train.memory_limit * 1e9)
    if config.device == "cuda":
        return total_memory_bytes("cuda")
    return int(psutil.virtual_memory().available) + int(psutil.Process().memory_info().rss)


def _advice(trainer: Trainer, config: Config, row_tokens: int, peak_bytes: int) -> tuple[str, ...]:
    """What makes it smaller, the least painful first."""
    advice = []
    if not config.train.gradient_checkpointing:
        advice.append("train.gradient_checkpointing=true (about a third more time)")
    shorter = row_tokens // 2
    if shorter >= 64:
        advice.append(_shorter_rows(shorter, config))
    if config.lora.rank > 4:
        advice.append(f"lora.rank={config.lora.rank // 2}")
    saved = saved_bytes(plain_model(trainer.model))
    # On a CPU the weights as they are stored pass through its memory all the same.
    is_fit = config.device == "cuda" and config.lora.init not in FROM_THE_BASE
    if is_fit and saved > WORTH_SAVING * peak_bytes:
        advice.append(f"model.load_in_4bit=true ({saved / 1e9:.1f} GB less)")
    advice.append("a smaller model.base")
    return tuple(advice)


def _shorter_rows(num_tokens: int, config: Config) -> str:
    """Settings for micro-batches of so many tokens."""
    packed = f"train.packed_row_tokens={num_tokens}" if config.train.packing else ""
    if packed and num_tokens >= config.data.max_length:
        return f"{packed} (somewhat slower)"
    return f"data.max_length={num_tokens} {packed}".rstrip() + " (longer rows are cut or left out)"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
