"""The stage behind `honing evaluate RUN`: base and tuned on the same held-out rows.

One process, one copy of the weights: the base is measured first, with the adapter switched off,
then the adapter is folded in. What is there already is not computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from honing.config import Config, DataConfig, GenerateConfig
from honing.config_file import load_config
from honing.data.encode import Tokens
from honing.data.prepare import encode_examples
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.evaluation.answers import Answers, answer_rows, remove_parts
from honing.evaluation.files import read_evaluation, write_evaluation
from honing.evaluation.general import PlainText, measure_general, read_plain_text
from honing.evaluation.held_out import HeldOut, load_held_out
from honing.evaluation.record import Evaluation, GeneralText, Prediction
from honing.evaluation.score import Surroundings, look_around, score_predictions
from honing.generation.answer import encode_for_answering
from honing.generation.open_model import OpenModel, find_adapter, fold_adapter, open_model
from honing.model.forward import plain_model
from honing.model.four_bit import is_in_4bit
from honing.model.lora import ADAPTER_WEIGHTS
from honing.run import RunFolder
from honing.training.processes import Processes, together
from honing.version import VERSION

MOST_NEW_TOKENS = 256
KINDS = ("base", "tuned")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Evaluated:
    """Both models of a run, on the same rows."""

    run: RunFolder
    base: Evaluation
    tuned: Evaluation
    is_first: bool = True
    """False in processes that have nothing to say, as the first of them does."""


@dataclass(frozen=True)
class _Task:
    """All that both models are asked."""

    rows: HeldOut
    encoded: Sequence[Tokens]
    questions: tuple[Tokens, ...]
    settings: GenerateConfig
    config: Config
    around: Surroundings
    general: PlainText | None


def evaluate(
    name: str,
    overrides: Sequence[str] = (),
    *,
    checkpoint: str | None = None,
    say: Say = print,
    show_progress: bool = False,
) -> Evaluated:
    """Evaluate a run's checkpoint and its base; writes evaluation/base.json and tuned.json.

    Raises UserError for what the user can mend, among it a folder that holds no run.
    """
    run, adapter = _find_run(name, checkpoint)
    config = evaluation_config(run, overrides)
    with together(config.device) as processes:
        if not processes.is_first:
            say, show_progress = _nothing, False
        rows = processes.each(lambda: load_held_out(run, config))
        opened = processes.in_turns(lambda: open_model(str(adapter), config, fold=False))
        task = processes.each(lambda: _make_task(opened, rows, config, say))
        for line in (*rows.notes, *task.around.warnings):
            say(f"note: {line}")
        if processes.number > 1:
            say(f"{processes.number} processes, {processes.num_local} of them here, share the rows")
        done: dict[str, Evaluation] = {}
        for kind in KINDS:
            done[kind] = _evaluate_one(
                kind, opened, task, run, processes, show_progress=show_progress, say=say
            )
        return Evaluated(run, done["base"], done["tuned"], processes.is_first)


def _nothing(_: str) -> None:
    pass


def _find_run(name: str, checkpoint: str | None) -> tuple[RunFolder, Path]:
    adapter = find_adapter(name, checkpoint)
    if adapter is None:
        raise UserError(f"{name}: is no run's folder; name one that 'honing train' wrote")
    folder = Path(name).expanduser()
    run = RunFolder(folder if adapter.resolve() != folder.resolve() else folder.parent.parent)
    if not run.config.is_file():
        raise UserError(f"{name}: belongs to no run that honing trained; there is no {run.config}")
    return run, adapter


_READ = ("evaluate", "generate", "device", "model")
"""Settings that may differ from the run's own: how to answer and where to compute."""


def evaluation_config(run: RunFolder, overrides: Sequence[str] = ()) -> Config:
    """The run's configuration with overrides; device and number type are this machine's."""
    for override in overrides:
        key = override.partition("=")[0]
        if not any(key == read or key.startswith(f"{read}.") for read in _READ):
            raise UserError(
                f"command line, {key}: is the run's own and stays; evaluating reads evaluate.*, "
                "generate.*, device and model.*"
            )
    stored = load_config(run.config, overrides)
    wanted = load_config(None, overrides)
    return stored.model_copy(update={"device": wanted.device, "model": wanted.model})


def _make_task(opened: OpenModel, rows: HeldOut, config: Config, say: Say) -> _Task:
    data = config.data.model_copy(update={"supervise": "response"})
    split, dropped = encode_examples(rows.examples, data, opened.text)
    if dropped:
        ids = {row.id for row in dropped}
        say(f"note: {len(ids)} rows are left out: {dropped[0].reason} (data.max_length)")
        rows = _without(rows, ids)
    if not rows.examples:
        raise UserError("evaluate: no held-out row can be used; raise data.max_length")
    settings = _answer_settings(config, data, rows, opened.text)
    questions = encode_for_answering(opened, rows.examples, settings)
    wanted = config.evaluate.general_text
    general = None if wanted is None else read_plain_text(Path(wanted))
    around = look_around(
        [example.response_text for example in rows.examples],
        inputs=[
            example.exchanges[-1].input or example.exchanges[-1].instruction
            for example in rows.examples
        ],
        prompts=[example.prompt_text for example in rows.examples],
        train_prompts=[example.prompt_text for example in rows.train],
        train_responses=[example.response_text for example in rows.train],
        num_groups=rows.num_groups,
        seed=config.seed,
    )
    return _Task(rows, split.tokens, tuple(questions), settings, config, around, general)


def _without(rows: HeldOut, ids: set[str]) -> HeldOut:
    kept = [place for place, example in enumerate(rows.examples) if example.id not in ids]
    return HeldOut(
        rows.split,
        tuple(rows.examples[place] for place in kept),
        tuple(rows.groups[place] for place in kept),
        tuple(rows.leaked[place] for place in kept),
        rows.train,
        rows.num_available,
        rows.notes,
    )


def _answer_settings(
    config: Config, data: DataConfig, rows: HeldOut, text: TextModel
) -> GenerateConfig:
    """The run's own way of answering, greedy, and as long for the base as for the tuned model."""
    wanted = config.evaluate.max_new_tokens
    if wanted == "auto":
        taught, _ = encode_examples(rows.train, data, text)
        wanted = min(MOST_NEW_TOKENS, 2 * max(row.num_supervised for row in taught.tokens))
    update = {
        "temperature": 0.0,
        "num_answers": 1,
        "max_new_tokens": wanted,
        "min_new_tokens": min(config.generate.min_new_tokens, wanted),
        "batch_size": config.evaluate.batch_size,
    }
    return config.generate.model_copy(update=update)


def _evaluate_one(
    kind: str,
    opened: OpenModel,
    task: _Task,
    run: RunFolder,
    processes: Processes,
    *,
    show_progress: bool,
    say: Say,
) -> Evaluation:
    path = run.evaluation / f"{kind}.json"
    model, settings = _describe_model(kind, opened), _describe_settings(opened, task)
    key = _fingerprint(model, settings, task)
    _check_same_everywhere(processes, key)
    part = run.evaluation / f".{kind}.part.jsonl"
    stored = processes.from_first(lambda: _stored(path, key))
    predictions = None if stored is None else list(stored.predictions)
    general = None if stored is None else _same_text(stored.general, task.general)
    is_done = general is not None or task.general is None
    if predictions is not None:
        say(f"{kind}: the answers in {path} are of the same model and settings, and are kept")
    if predictions is None or not is_done:
        switched = _model_as(kind, opened)
        with switched:
            if predictions is None:
                answers = answer_rows(
                    opened,
                    task.encoded,
                    task.questions,
                    task.settings,
                    part=part,
                    key=key,
                    label=kind,
                    show_progress=show_progress,
                    processes=processes,
                )
                predictions = _predictions(task, answers)
            if task.general is not None and not is_done:
                text = task.general
                general = processes.from_first(lambda: measure_general(opened, text))

    def score() -> Evaluation:
        evaluation = score_predictions(
            kind,
            predictions,
            task.around,
            model=model,
            data=_describe_data(task),
            settings={**settings, "key": key},
            general=general,
            num_resamples=task.config.evaluate.num_resamples,
            seed=task.config.seed,
        )
        write_evaluation(path, evaluation)
        remove_parts(part)
        return evaluation

    return processes.from_first(score)


def _check_same_everywhere(processes: Processes, key: str) -> None:
    keys = processes.gathered(key)
    for rank, found in enumerate(keys):
        if found != keys[0]:
            raise UserError(
                f"evaluate: process {rank} has another model, rows or settings than process 0; "
                "give every machine the same run's folder, base and versions"
            )


def _model_as(kind: str, opened: OpenModel) -> contextlib.AbstractContextManager[object]:
    """The one copy of the weights as the base, or with the adapter folded into it."""
    if kind == "base":
        switched_off: contextlib.AbstractContextManager[object] = opened.model.disable_adapter()
        return switched_off
    fold_adapter(opened.model)
    return contextlib.nullcontext()


def _predictions(task: _Task, answers: Answers) -> list[Prediction]:
    rows = task.rows
    return [
        Prediction(
            id=example.id,
            prompt=example.prompt_text,
            reference=example.response_text,
            prediction=answer.text,
            sum_nats=loss.sum_nats,
            num_tokens=loss.num_tokens,
            stopped=answer.stopped,
            num_new_tokens=answer.num_tokens,
            repetition=answer.repetition,
            group=group,
            leaked=leaked,
        )
        for example, answer, loss, group, leaked in zip(
            rows.examples, answers.answers, answers.losses, rows.groups, rows.leaked, strict=True
        )
    ]


def _stored(path: Path, key: str) -> Evaluation | None:
    """What an earlier evaluation of the same model, rows and settings left."""
    if not path.is_file():
        return None
    try:
        stored = read_evaluation(path)
    except UserError:
        return None  # damaged: computed again, and replaced
    return stored if stored.settings.get("key") == key else None


def _same_text(stored: GeneralText | None, wanted: PlainText | None) -> GeneralText | None:
    """The losses that are stored, where they are of the text that is wanted."""
    if stored is None or wanted is None or not stored.signature.startswith(f"{wanted.name}|"):
        return None
    return stored if stored.sha256 == wanted.sha256 else None


def _describe_model(kind: str, opened: OpenModel) -> dict[str, Any]:
    assert opened.adapter is not None
    base = {"base": opened.text.name, "base_fingerprint": opened.model.honing_fingerprint}
    if kind == "base":
        return base
    weights = (opened.adapter / ADAPTER_WEIGHTS).read_bytes()
    checkpoint = opened.adapter.resolve().name
    return {**base, "checkpoint": checkpoint, "adapter_sha256": hashlib.sha256(weights).hexdigest()}


def _describe_data(task: _Task) -> dict[str, Any]:
    rows = task.rows
    return {
        "split": rows.split,
        "num_rows": len(rows.examples),
        "num_available": rows.num_available,
        "num_groups": rows.num_groups,
        "num_leaked": sum(rows.leaked),
        "notes": list(rows.notes),
    }


def _describe_settings(opened: OpenModel, task: _Task) -> dict[str, Any]:
    """Everything that the answers and losses depend on, besides model and rows."""
    answering = task.settings.model_dump(mode="json", exclude={"batch_size", "num_answers"})
    in_4bit = {"load_in_4bit": True} if is_in_4bit(opened.model) else {}  # older files say nothing
    return {
        **in_4bit,
        "generate": answering,
        "template": opened.text.template.name,
        "max_length": task.config.data.max_length,
        "dtype": str(plain_model(opened.model).dtype).removeprefix("torch."),
        "device": opened.device,
        "seed": task.config.seed,
        "honing": VERSION,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _fingerprint(model: dict[str, Any], settings: dict[str, Any], task: _Task) -> str:
    digest = hashlib.sha256(repr((sorted(model.items()), sorted(settings.items()))).encode())
    for row, question in zip(task.encoded, task.questions, strict=True):
        digest.update(repr((row.ids, row.labels, question.ids)).encode())
    for example in task.rows.examples:
        digest.update(repr((example.id, example.response_text)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
