"""The stage behind `honing train`: configuration → data, model, training, report."""

from __future__ import annotations

import math
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import FrameType
from typing import Any

import peft
import torch
import transformers

from honing.config import Config, GenerateConfig
from honing.config_file import dump_config, load_config
from honing.data.encode import Tokens
from honing.data.example import Example
from honing.data.prepare import PreparedData, prepare_data
from honing.data.report import format_report
from honing.data.template import choose_template
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.files import clear_asides, write_text
from honing.generation.answer import answer_questions, encode_for_answering
from honing.generation.open_model import OpenModel
from honing.lock import only_holder
from honing.model.device import Choice, choose_device, choose_dtype, total_memory_bytes
from honing.model.load import Base, Model, find_base, load_model, load_tokenizer, text_model
from honing.model.lora import attach_lora, count_parameters, layers_to_adapt
from honing.model.plan import plan_training
from honing.model.vocabulary import (
    check_embeddings,
    check_tokenizer,
    num_embeddings,
    tokenizer_fingerprint,
)
from honing.preparation import write_data
from honing.run import RunFolder
from honing.training.checkpoint import newest_valid_checkpoint, read_about
from honing.training.isolation import packing_works
from honing.training.progress import Progress
from honing.training.summary import TrainingReport, make_report, write_report
from honing.training.trainer import ROW_TOKENS, Interrupted, Samples, Trainer
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
    tokenizer: dict[str, Any]
    data: PreparedData


def train(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = print,
    stop_after: int | None = None,
) -> Trained:
    """Train as configured, into config.output_dir.

    resume: continue the run that is there; overwrite: start afresh in its place.
    stop_after: save and return after this step, as after a signal.
    Raises UserError for what the user can mend, also where another training holds the folder, and
    TrainingDiverged for a loss that is not finite.
    """
    run = RunFolder(Path(config.output_dir).expanduser())
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one of them")
    if resume and run.is_finished():
        say(f"--resume: the run in {run.root} is finished; see {run.report_markdown}")
        return Trained(run, None)
    busy = (
        f"output_dir: another training is at work in {run.root}; wait for its end, or choose "
        "another output_dir"
    )
    with only_holder(run.lock, busy) as is_held:
        if not is_held:
            say(f"WARNING: {run.root} is on a drive without locks: start no second training there")
        config, checkpoint = _start_or_resume(run, config, resume, overwrite, say)
        return _train(run, config, checkpoint, say, stop_after)


def _train(
    run: RunFolder, config: Config, checkpoint: Path | None, say: Say, stop_after: int | None
) -> Trained:
    parts = _load_parts(config, checkpoint, say)
    trainer = _make_trainer(run, parts, say)
    trainer.stop_after = stop_after
    if checkpoint is None:
        # Not before all is known to fit: an error until here leaves the folder as it was.
        run.clear()
        write_data(run, parts.data)
    else:
        _check_same_start(checkpoint, parts)
        _warn_of_another_machine(checkpoint, say)
        trainer.load_checkpoint(checkpoint)
        say(f"Going on from {checkpoint.name}, step {trainer.state.step} of {trainer.num_steps}")
    write_text(run.config, dump_config(parts.config))
    started = time.perf_counter()
    with _signals_stop(trainer) as received:
        try:
            trainer.train()
        except Interrupted:
            if not received and trainer.state.step == stop_after:
                return Trained(run, None)
            say(
                f"Stopped after step {trainer.state.step} of {trainer.num_steps}; all is saved. "
                f"Go on with the same command and --resume"
            )
            return Trained(run, None, stopped_by=received[0] if received else signal.SIGINT)
    seconds = time.perf_counter() - started
    report = make_report(run, parts.config, parts.data, trainer, parts.base.location, seconds)
    write_report(run, report)
    return Trained(run, report)


def _start_or_resume(
    run: RunFolder, config: Config, resume: bool, overwrite: bool, say: Say
) -> tuple[Config, Path | None]:
    """The configuration to use, and the checkpoint to go on from, None for a fresh start."""
    if not resume:
        if run.holds_a_run() and not overwrite:
            raise UserError(
                f"output_dir: {run.root} holds a run already; continue it with --resume, replace "
                "it with --overwrite, or choose another output_dir"
            )
        return config, None
    if not run.holds_a_run():
        say(f"--resume: {run.root} holds no run yet, so this one starts afresh")
        return config, None
    clear_asides(run.checkpoints)
    checkpoint, skipped = newest_valid_checkpoint(run)
    for line in skipped:
        say(f"--resume: {line}")
    if checkpoint is None:
        say(f"--resume: {run.root} has no checkpoint that can be read, so the run starts afresh")
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
    train = stored.train.model_copy(update={name: getattr(wanted.train, name) for name in free})
    update = {"train": train, "generate": wanted.generate, "output_dir": wanted.output_dir}
    return stored.model_copy(update=update)


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
    check_embeddings(model, chain(data.train.tokens, data.val.tokens), base.name)
    vocabulary = {
        "fingerprint": tokenizer_fingerprint(tokenizer),
        "num_tokens": len(tokenizer),
        "num_embeddings": num_embeddings(model),
    }
    fingerprint = model.honing_fingerprint
    config, reasons = _with_layers(config, model)
    model = attach_lora(model, config.lora, config.seed)
    model.honing_fingerprint = fingerprint
    plan = plan_training(
        config,
        model,
        device=device.value,
        dtype=dtype.value,
        packing_works=packing_works(model, data.train.tokens, device.value),
        packed_row_tokens=max(ROW_TOKENS, config.data.max_length),
        memory_bytes=total_memory_bytes(device.value),
    )
    if checkpoint is None:
        _say_choices(device, dtype, base, model, reasons + plan.reasons, say)
    return _Parts(plan.config, base, model, text, vocabulary, data)


def _with_layers(config: Config, model: Model) -> tuple[Config, tuple[str, ...]]:
    """lora.target_modules with "auto" resolved, and why."""
    if config.lora.target_modules != "auto":
        return config, ()
    layers = layers_to_adapt(model)
    names = ", ".join(dict.fromkeys(layer.rsplit(".", 1)[-1] for layer in layers))
    lora = config.lora.model_copy(update={"target_modules": layers})
    reason = f"target_modules: {names}, all linear layers inside the blocks"
    return config.model_copy(update={"lora": lora}), (reason,)


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
        packing_is_checked=True,
    )
    trainer.progress = Progress(run, trainer.num_steps)
    say(
        f"  {trainer.num_steps} steps, {trainer.steps_per_epoch} an epoch, of "
        f"{settings.global_batch_size} examples, {_layout(trainer)}"
    )
    return trainer


def _layout(trainer: Trainer) -> str:
    """How the examples of a step are computed."""
    size = trainer.settings.global_batch_size
    micro = min(int(trainer.settings.micro_batch_size), size)
    if trainer.row_tokens and micro > 1:
        most = "" if micro == size else f" and {micro} examples"
        return f"packed into rows of at most {trainer.row_tokens} tokens{most}"
    return f"in {math.ceil(size / micro)} micro-batches of {micro}"


def _about(parts: _Parts) -> dict[str, Any]:
    """What a checkpoint says of itself: all that generating, evaluating and merging need."""
    return {
        "honing": VERSION,
        "base": {
            "name": parts.config.model.base,
            "fingerprint": parts.model.honing_fingerprint,
            "dtype": parts.config.model.dtype,
        },
        "tokenizer": parts.tokenizer,
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
    """Answers to the first validation prompts that can be asked; greedy, so that no random state
    moves."""
    update = {"max_new_tokens": SAMPLE_TOKENS, "temperature": 0.0, "num_answers": 1}
    settings = parts.config.generate.model_copy(update=update)
    opened = OpenModel(parts.model, parts.text, parts.config.device, adapter=None)
    asked = list(islice(_askable(opened, parts.data.val.examples, settings), NUM_SAMPLES))
    questions = [question for _, question in asked]

    def sample() -> Samples:
        answers, _ = answer_questions(opened, questions, settings)
        pairs = zip(asked, answers, strict=True)
        return tuple((example.prompt_text, answer.text) for (example, _), answer in pairs)

    return sample


def _askable(
    opened: OpenModel, examples: Sequence[Example], settings: GenerateConfig
) -> Iterator[tuple[Example, Tokens]]:
    """Examples and the ids of their questions, without those that leave no room for an answer."""
    for example in examples:
        try:
            (question,) = encode_for_answering(opened, [example], settings)
        except UserError:
            continue
        yield example, question


def _check_same_start(checkpoint: Path, parts: _Parts) -> None:
    """The rows and the base are still those that the run began with."""
    about = read_about(checkpoint) or {}
    if about.get("base", {}).get("fingerprint") != parts.model.honing_fingerprint:
        raise UserError(
            f"--resume: model.base: {parts.base.name} is not the model that the run began with: "
            "its weights have changed; restore them, or start afresh with --overwrite"
        )
    check_tokenizer(
        about, parts.tokenizer["fingerprint"], f"--resume: model.base: {parts.base.name}"
    )
    if about.get("data_fingerprint") != parts.data.report.fingerprint:
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
            if handler is not None:  # one that was not set from Python cannot be put back
                signal.signal(number, handler)
