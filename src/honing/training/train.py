"""The stage behind `honing train`: configuration → data, model, training, report."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from honing.config import Config, GenerateConfig
from honing.config_file import dump_config, load_config
from honing.data.encode import Tokens
from honing.data.example import Example
from honing.errors import UserError
from honing.files import clear_asides, write_text
from honing.generation.answer import answer_questions, encode_for_answering
from honing.generation.open_model import OpenModel
from honing.lock import only_holder
from honing.model.vocabulary import check_tokenizer
from honing.preparation import write_data
from honing.run import RunFolder
from honing.training.checkpoint import newest_valid_checkpoint, read_about
from honing.training.cost import forecast
from honing.training.parts import Parts, describe, environment, load_parts
from honing.training.processes import Processes, together
from honing.training.progress import Progress
from honing.training.summary import TrainingReport, make_report, write_report
from honing.training.trainer import Interrupted, Samples, Trainer

NUM_SAMPLES = 2
SAMPLE_TOKENS = 48
ECHO_S = 2.0
"""Seconds in which a launcher repeats a signal that the terminal has already given."""
# What may differ from the stored configuration when a run goes on: it changes no number.
_FREE_ON_RESUME = frozenset({"train.log_every", "train.keep_last", "train.shard_base"})

Say = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """How a training ended. report: None where it was stopped by a signal. is_first: False in
    processes that have nothing to say, as the first of them does."""

    run: RunFolder
    report: TrainingReport | None
    stopped_by: int | None = None
    is_first: bool = True


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
    with together(config.device) as processes, ExitStack() as stack:
        if not processes.is_first:
            say = _nothing
        if processes.from_first(lambda: resume and run.is_finished()):
            say(f"--resume: the run in {run.root} is finished; see {run.report_markdown}")
            return Trained(run, None, is_first=processes.is_first)
        processes.from_first(lambda: _hold(run, stack, say))
        config, checkpoint = processes.from_first(
            lambda: _start_or_resume(run, config, resume, overwrite, say)
        )
        _check_number(config, processes, say)
        return _train(run, config, checkpoint, processes, say, stop_after)


def _nothing(_: str) -> None:
    pass


def _hold(run: RunFolder, stack: ExitStack, say: Say) -> None:
    """Keep other trainings out of the folder until the stack is left."""
    busy = (
        f"output_dir: another training is at work in {run.root}; wait for its end, or choose "
        "another output_dir"
    )
    if not stack.enter_context(only_holder(run.lock, busy)):
        say(f"WARNING: {run.root} is on a drive without locks: start no second training there")


def _check_number(config: Config, processes: Processes, say: Say) -> None:
    if processes.number == 1:
        if config.train.shard_base:
            raise UserError(
                "train.shard_base: true, but this is one process; start several with torchrun or "
                "accelerate launch, or use train.shard_base=false"
            )
        return
    size = config.train.global_batch_size
    if size < processes.number:
        raise UserError(
            f"train.global_batch_size: {processes.number} processes cannot share steps of {size} "
            "examples; raise it, or start fewer processes"
        )
    say(f"{processes.number} processes, {processes.num_local} of them here, share each step")


def _train(
    run: RunFolder,
    config: Config,
    checkpoint: Path | None,
    processes: Processes,
    say: Say,
    stop_after: int | None,
) -> Trained:
    parts = load_parts(config, processes, say if checkpoint is None else _nothing)
    trainer = _make_trainer(run, parts, processes, say)
    trainer.stop_after = stop_after
    if checkpoint is None and processes.number == 1:
        say(forecast(trainer, parts.config))
    processes.from_first(lambda: _prepare_folder(run, checkpoint, parts, processes, say))
    if checkpoint is not None:
        trainer.load_checkpoint(checkpoint)
        say(f"Going on from {checkpoint.name}, step {trainer.state.step} of {trainer.num_steps}")
    started = time.perf_counter()
    with _signals_stop(trainer) as received:
        try:
            trainer.train()
        except Interrupted:
            numbers = [number for own in processes.gathered(received) for number in own]
            if not numbers and trainer.state.step == stop_after:
                return Trained(run, None, is_first=processes.is_first)
            say(
                f"Stopped after step {trainer.state.step} of {trainer.num_steps}; all is saved. "
                f"Go on with the same command and --resume"
            )
            stopped_by = numbers[0] if numbers else signal.SIGINT
            return Trained(run, None, stopped_by, is_first=processes.is_first)
    seconds = time.perf_counter() - started
    report = processes.from_first(lambda: _report(run, parts, trainer, seconds))
    return Trained(run, report, is_first=processes.is_first)


def _prepare_folder(
    run: RunFolder, checkpoint: Path | None, parts: Parts, processes: Processes, say: Say
) -> None:
    """Not before all is known to fit: an error until here leaves the folder as it was."""
    if checkpoint is None:
        run.clear()
        write_data(run, parts.data)
    else:
        _check_same_start(checkpoint, parts)
        _warn_of_another_machine(checkpoint, processes, say)
    write_text(run.config, dump_config(parts.config))


def _report(run: RunFolder, parts: Parts, trainer: Trainer, seconds: float) -> TrainingReport:
    report = make_report(run, parts.config, parts.data, trainer, parts.base.location, seconds)
    write_report(run, report)
    return report


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


def _make_trainer(run: RunFolder, parts: Parts, processes: Processes, say: Say) -> Trainer:
    settings, data = parts.config.train, parts.data
    rows = () if settings.eval_every == "never" else data.val.tokens
    trainer = Trainer(
        parts.model,
        data.train.tokens,
        rows,
        settings,
        seed=parts.config.seed,
        device=parts.config.device,
        run=run if processes.is_first else None,
        about=describe(parts, processes),
        # All go through a divided base together, also where the first alone shows what it says.
        sample=_sampler(parts) if rows and (processes.is_first or settings.shard_base) else None,
        packing_is_checked=True,
        processes=processes,
    )
    if processes.is_first:
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


def _sampler(parts: Parts) -> Callable[[], Samples]:
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


def _check_same_start(checkpoint: Path, parts: Parts) -> None:
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


def _warn_of_another_machine(checkpoint: Path, processes: Processes, say: Say) -> None:
    about = read_about(checkpoint) or {}
    stored = {"num_processes": 1, **about.get("environment", {})}  # as older versions had it
    here = environment(processes)
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
    """Ctrl-C and SIGTERM let the step end, and the trainer save. A second one ends at once; what
    follows the first on its heels is a launcher's, which passes on what the terminal gave to all.
    """
    received: list[int] = []
    first_at = 0.0
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal first_at
        if received:
            if trainer.processes.number > 1 and time.monotonic() - first_at < ECHO_S:
                return
            raise KeyboardInterrupt
        received.append(number)
        first_at = time.monotonic()
        trainer.stop_requested = True
        trainer.progress.say("Stopping after this step; once more to stop at once …")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that was not set from Python cannot be put back
                signal.signal(number, handler)
