"""The stage behind `honing train`: configuration → data, model, training, report."""

from __future__ import annotations

import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import peft
import torch
import transformers

from honing.config import Config
from honing.config_file import dump_config, load_config
from honing.data.prepare import PreparedData, prepare_data
from honing.data.report import format_report
from honing.data.template import choose_template
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.generation.answer import answer_questions, encode_for_answering
from honing.generation.open_model import OpenModel
from honing.model.device import Choice, choose_device, choose_dtype, total_memory_bytes
from honing.model.load import Base, Model, find_base, load_model, load_tokenizer, text_model
from honing.model.lora import attach_lora, count_parameters
from honing.model.plan import plan_training
from honing.preparation import write_data
from honing.run import RunFolder, write_text
from honing.training.checkpoint import newest_valid_checkpoint, read_about
from honing.training.isolation import packing_works
from honing.training.progress import Progress
from honing.training.summary import TrainingReport, make_report, write_report
from honing.training.trainer import Interrupted, Samples, Trainer
from honing.version import VERSION

NUM_SAMPLES = 2
SAMPLE_TOKENS = 48
# What may differ from the stored configuration when a run goes on: it changes no number.
_FREE_ON_RESUME = frozenset({"train.log_every", "train.keep_last"})

Say = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """How a training ended. report: None where it was stopped by a signal."""

    run: RunFolder
    report: TrainingReport | None
    stopped_by: int | None = None


@dataclass(frozen=True)
class _Parts:
    """What a training is made of, before its first step."""

    config: Config
    base: Base
    model: Model
    text: TextModel
    data: PreparedData


def train(
    config: Config, *, resume: bool = False, overwrite: bool = False, say: Say = print
) -> Trained:
    """Train as configured, into config.output_dir.

    resume: continue the run that is there; overwrite: start afresh in its place.
    Raises UserError for what the user can mend, TrainingDiverged for a loss that is not finite.
    """
    run = RunFolder(Path(config.output_dir).expanduser())
    config, checkpoint = _start_or_resume(run, config, resume=resume, overwrite=overwrite, say=say)
    if checkpoint is None and resume and run.is_finished():
        return Trained(run, None)
    parts = _load_parts(config, checkpoint, say)
    if checkpoint is None:
        write_data(run, parts.data)
        write_text(run.config, dump_config(parts.config))
    trainer = _make_trainer(run, parts, say)
    if checkpoint is not None:
        _check_same_data(checkpoint, parts.data)
        _warn_of_another_machine(checkpoint, say)
        trainer.load_checkpoint(checkpoint)
        say(f"Going on from {checkpoint.name}, step {trainer.state.step} of {trainer.num_steps}")
    started = time.perf_counter()
    with _signals_stop(trainer) as received:
        try:
            trainer.train()
        except Interrupted:
            say(
                f"Stopped after step {trainer.state.step} of {trainer.num_steps}; all is saved. "
                f"Go on with the same command and --resume"
            )
            return Trained(run, None, stopped_by=received[0])
    seconds = time.perf_counter() - started
    report = make_report(run, parts.config, parts.data, trainer, parts.base.location, seconds)
    write_report(run, report)
    return Trained(run, report)


def _start_or_resume(
    run: RunFolder, config: Config, *, resume: bool, overwrite: bool, say: Say
) -> tuple[Config, Path | None]:
    """The configuration to use, and the checkpoint to go on from, None for a fresh start."""
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one of them")
    if not resume:
        if run.holds_a_run() and not overwrite:
            raise UserError(
                f"output_dir: {run.root} holds a run already; continue it with --resume, replace "
                "it with --overwrite, or choose another output_dir"
            )
        run.clear()
        return config, None
    if not run.holds_a_run():
        say(f"--resume: {run.root} holds no run yet, so this one starts afresh")
        return config, None
    if run.is_finished():
        say(f"--resume: the run in {run.root} is finished; see {run.report_markdown}")
        return config, None
    checkpoint, skipped = newest_valid_checkpoint(run)
    for line in skipped:
        say(f"--resume: {line}")
    if checkpoint is None:
        say(f"--resume: {run.root} has no checkpoint that can be read, so the run starts afresh")
        run.clear()
        return config, None
    stored = load_config(run.config)
    _check_same_settings(stored, config, run)
    return _with_free_settings(stored, config), checkpoint


def _check_same_settings(stored: Config, wanted: Config, run: RunFolder) -> None:
    """A resumed run keeps its settings; what says auto agrees with whatever was chosen."""
    differing = [
        f"{key} ({found} there, {asked} here)"
        for key, found, asked in _differences(stored.model_dump(), wanted.model_dump())
        if asked != "auto" and key not in _FREE_ON_RESUME and not key.startswith("generate.")
    ]
    if differing:
        raise UserError(
            f"--resume: {run.config} has other settings: {', '.join(differing[:4])}; use the same "
            "ones, or --overwrite to start afresh"
        )


def _differences(a: Any, b: Any, above: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a:
            yield from _differences(a[key], b.get(key), f"{above}.{key}" if above else key)
    elif a != b and above != "output_dir":
        yield above, a, b


def _with_free_settings(stored: Config, wanted: Config) -> Config:
    free = {key.split(".")[1] for key in _FREE_ON_RESUME}
    update = {name: getattr(wanted.train, name) for name in free}
    return stored.model_copy(update={"train": stored.train.model_copy(update=update)})


def _load_parts(config: Config, checkpoint: Path | None, say: Say) -> _Parts:
    """Load and prepare all that a training needs; each `auto` is resolved and said."""
    device = choose_device(config.device)
    dtype = choose_dtype(config.model.dtype, device.value)
    base = find_base(config.model)
    tokenizer = load_tokenizer(base)
    text = text_model(
        base, tokenizer, choose_template(config.data.template, tokenizer.chat_template)
    )
    data = prepare_data(config.data, config.seed, text)
    if checkpoint is None:
        say(format_report(data.report))
    model = load_model(base, dtype.value, device.value)
    fingerprint = model.honing_fingerprint
    model = attach_lora(model, config.lora, config.seed)
    model.honing_fingerprint = fingerprint
    memory = total_memory_bytes(device.value)
    plan = plan_training(
        config,
        model,
        device=device.value,
        dtype=dtype.value,
        packing_works=packing_works(model, data.train.tokens, device.value),
        memory_bytes=memory,
    )
    if checkpoint is None:
        _say_choices(device, dtype, base, model, plan.reasons, say)
    return _Parts(plan.config, base, model, text, data)


def _say_choices(
    device: Choice, dtype: Choice, base: Base, model: Model, reasons: tuple[str, ...], say: Say
) -> None:
    say(f"Model: {base.name}")
    say(f"  device: {device.value} ({device.reason}); dtype: {dtype.value} ({dtype.reason})")
    say(f"  trainable: {count_parameters(model)}")
    for reason in reasons:
        say(f"  {reason}")


def _make_trainer(run: RunFolder, parts: _Parts, say: Say) -> Trainer:
    settings, data = parts.config.train, parts.data
    rows = () if settings.eval_every == "never" else data.val.tokens
    trainer = Trainer(
        parts.model,
        data.train.tokens,
        rows,
        settings,
        seed=parts.config.seed,
        device=parts.config.device,
        max_length=parts.config.data.max_length,
        run=run,
        about=_about(parts),
        sample=_sampler(parts) if rows else None,
    )
    trainer.progress = Progress(run, trainer.num_steps)
    micro = settings.micro_batch_size
    say(
        f"  {trainer.num_steps} steps, {trainer.steps_per_epoch} an epoch, of "
        f"{settings.global_batch_size} examples in micro-batches of at most {micro}"
        + (f" or {trainer.row_tokens} tokens" if trainer.row_tokens else "")
    )
    return trainer


def _about(parts: _Parts) -> dict[str, Any]:
    """What a checkpoint says of itself: all that generating, evaluating and merging need."""
    return {
        "honing": VERSION,
        "base": {
            "name": parts.config.model.base,
            "fingerprint": parts.model.honing_fingerprint,
            "dtype": parts.config.model.dtype,
        },
        "template": parts.text.template.to_record(),
        "supervise": parts.config.data.supervise,
        "eos_id": parts.text.encoder.eos_id,
        "bos_id": parts.text.encoder.bos_id,
        "end_ids": list(parts.text.end_ids()),
        "data_fingerprint": parts.data.report.fingerprint,
        "seed": parts.config.seed,
        "environment": _environment(),
    }


def _environment() -> dict[str, Any]:
    """What bit-for-bit repetition depends on, besides the configuration."""
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "num_threads": torch.get_num_threads(),
    }


def _sampler(parts: _Parts) -> Callable[[], Samples]:
    """Answers to the first validation prompts; greedy, so that no random state moves."""
    update = {"max_new_tokens": SAMPLE_TOKENS, "temperature": 0.0, "num_answers": 1}
    settings = parts.config.generate.model_copy(update=update)
    examples = parts.data.val.examples[:NUM_SAMPLES]
    opened = OpenModel(parts.model, parts.text, parts.config.device, adapter=None)
    questions = encode_for_answering(opened, examples, settings)

    def sample() -> Samples:
        answers, _ = answer_questions(opened, questions, settings)
        return tuple(
            (example.prompt_text, answer.text)
            for example, answer in zip(examples, answers, strict=True)
        )

    return sample


def _check_same_data(checkpoint: Path, data: PreparedData) -> None:
    about = read_about(checkpoint) or {}
    if about.get("data_fingerprint") != data.report.fingerprint:
        raise UserError(
            "--resume: the rows of data.source are not those that the run began with; restore "
            "them, or start afresh with --overwrite"
        )


def _warn_of_another_machine(checkpoint: Path, say: Say) -> None:
    about = read_about(checkpoint) or {}
    stored, here = about.get("environment", {}), _environment()
    differing = [
        f"{name} {stored.get(name)} → {value}"
        for name, value in here.items()
        if stored.get(name) != value
    ]
    if differing:
        say(
            f"WARNING: the run goes on with {', '.join(differing)}: its numbers will not be bit "
            "for bit those of an uninterrupted one"
        )


@contextmanager
def _signals_stop(trainer: Trainer) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM let the step end, and the trainer save. A second one ends at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, _: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        trainer.stop_requested = True
        trainer.progress.say("Stopping after this step; once more to stop at once …")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
