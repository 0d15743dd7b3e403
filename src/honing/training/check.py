"""The stage behind `honing check RUN`: can this run be trusted? Its files, numbers, base and
tokenizer, and whether the adapter does anything, asked again after the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from honing.config import Config, GenerateConfig
from honing.config_file import load_config
from honing.data.example import Example, Exchange
from honing.data.template import Template, choose_template
from honing.errors import UserError
from honing.files import read_json
from honing.generation.answer import encode_for_answering
from honing.generation.open_model import (
    OpenModel,
    answering_config,
    find_adapter,
    in_bits_of_training,
)
from honing.model.device import choose_device, choose_dtype
from honing.model.load import Model, find_base, load_model, load_tokenizer, text_model
from honing.model.lora import ADAPTER_WEIGHTS, load_adapter
from honing.model.vocabulary import check_tokenizer, num_embeddings, tokenizer_fingerprint
from honing.run import RunFolder
from honing.training.checkpoint import problem_of, read_about
from honing.training.manifest import MANIFEST

_PROMPTS = (
    "대한민국의 수도는 어디인가요?",
    "What is the capital of France?",
    "1부터 5까지 세어 보세요.",
)
_DOUBLED = ("pissa", "olora")
"""Initialisations whose adapters are saved as [B, -B₀]: see model/lora.py, adapter_to_save."""

_MOST_BYTES = 1 << 30
"""Of a report, which names every row that leaked."""

Verdict = Literal["ok", "failed", "not recorded"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Check:
    """One question to a run. not recorded: the run is older than what would answer it."""

    name: str
    verdict: Verdict
    detail: str

    def __str__(self) -> str:
        return f"{self.verdict:<13} {self.name}: {self.detail}"


@dataclass(frozen=True)
class RunChecks:
    run: str
    checkpoint: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(check.name for check in self.checks if check.verdict == "failed")

    def to_record(self) -> dict[str, Any]:
        return {**asdict(self), "passed": not self.failed}


def check_run(
    name: str, overrides: Sequence[str] = (), *, checkpoint: str | None = None, say: Say = print
) -> RunChecks:
    """Audit a run; each check is said when it is done.

    checkpoint: the one whose adapter is tried on the base, as for generate. Raises UserError where
    there is no run, or its configuration cannot be read.
    """
    run = RunFolder(Path(name).expanduser())
    if not run.config.is_file():
        raise UserError(f"{name}: holds no run; name a folder that honing train wrote")
    config = answering_config(name, overrides)
    used = find_adapter(name, checkpoint)
    assert used is not None
    checks = []
    for check in (*_checks_of_files(run), *_checks_of_model(used, config)):
        say(str(check))
        checks.append(check)
    return RunChecks(str(run.root), str(used), tuple(checks))


def _ok(name: str, is_ok: bool, detail: str, problem: str) -> Check:
    return Check(name, "ok", detail) if is_ok else Check(name, "failed", problem)


# What is told by the files alone


def _checks_of_files(run: RunFolder) -> Iterator[Check]:
    report = _read_record(run.report_json)
    yield _ok(
        "finished",
        report is not None,
        f"{run.report_json.name} is there",
        f"{run.report_json.name} is missing or damaged; go on with honing train … --resume",
    )
    yield from _pointers(run, report or {})
    yield _ends(_read_record(run.data_report))
    is_doubled = load_config(run.config).lora.init in _DOUBLED
    finals = [run.final] if run.final.is_dir() else []
    for folder in (*run.step_checkpoints(), *finals):
        yield _files(folder)
        yield from _numbers(folder, is_doubled)


def _pointers(run: RunFolder, report: dict[str, Any]) -> Iterator[Check]:
    steps = run.step_checkpoints()
    newest = steps[-1].name if steps else "none"
    last = run.linked("last")
    found = "nothing" if last is None else last.name
    yield _ok("last", found == newest, f"is {newest}", f"is {found}, the newest is {newest}")
    yield _ok("final", run.final.is_dir(), "is there", "is missing")
    step, best = report.get("best_step"), run.linked("best")
    if not isinstance(step, int):
        yield Check("best", "not recorded", "there was no validation")
        return
    expected, found = run.step_checkpoint(step).name, "nothing" if best is None else best.name
    yield _ok("best", found == expected, f"is {expected}", f"is {found}, it was {expected}")


def _ends(data: dict[str, Any] | None) -> Check:
    try:
        share = float((data or {})["splits"]["train"]["share_ending_in_eos"])
    except (KeyError, TypeError, ValueError):
        return Check("ends", "not recorded", "the data report says nothing of end tokens")
    problem = "no training row ends in a learnt end token, so answers never stop"
    return _ok("ends", share > 0, f"{share:.0f} % of the training rows end in one", problem)


def _files(folder: Path) -> Check:
    problem = problem_of(folder)
    if problem is None and not (folder / MANIFEST).is_file():
        detail = f"can be read; an older version wrote no {MANIFEST} to compare with"
        return Check(f"files of {folder.name}", "not recorded", detail)
    return _ok(f"files of {folder.name}", problem is None, "are as they were written", str(problem))


def _numbers(folder: Path, is_doubled: bool) -> Iterator[Check]:
    try:
        weights = load_file(folder / ADAPTER_WEIGHTS)
    # A damaged file, of which the check of the files tells.
    except Exception:
        return
    wrong = sorted(name for name, tensor in weights.items() if not torch.isfinite(tensor).all())
    yield _ok(
        f"numbers of {folder.name}",
        not wrong,
        f"{len(weights)} tensors are finite",
        f"{len(wrong)} of {len(weights)} tensors are not finite, the first is {_first(wrong)}",
    )
    ends = {name: w for name, w in weights.items() if "lora_B" in name or "embedding_A" in name}
    still = sorted(name for name, w in ends.items() if not _has_moved(name, w, is_doubled))
    yield _ok(
        f"lora_B of {folder.name}",
        bool(ends) and not still,
        f"all {len(ends)} have moved",
        f"{len(still)} of {len(ends)} have not moved, the first is {_first(still)}",
    )


def _has_moved(name: str, weight: Tensor, is_doubled: bool) -> bool:
    """lora_B, of an embedding lora_embedding_A, starts at zero, or at what is saved beside it: B₀
    with its sign turned, A₀ as it is."""
    if not is_doubled:
        return bool(weight.any())
    if "embedding_A" in name:
        learnt, start = weight.chunk(2, dim=0)
        return not torch.equal(learnt, start)
    learnt, start = weight.chunk(2, dim=1)
    return not torch.equal(learnt, -start)


def _first(names: Sequence[str]) -> str:
    return names[0] if names else "none"


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = read_json(path, _MOST_BYTES)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


# What is told by the base with the adapter


def _checks_of_model(adapter: Path, config: Config) -> Iterator[Check]:
    try:
        about = read_about(adapter) or {}
        wanted = config.model
        recorded = about.get("base")
        stored = recorded if isinstance(recorded, dict) else {}
        if "base" not in wanted.model_fields_set:
            wanted = wanted.model_copy(update={"base": str(stored.get("name", ""))})
        wanted = in_bits_of_training(wanted, about, adapter)
        base = find_base(wanted)
        tokenizer = load_tokenizer(base)
        device = choose_device(config.device).value
        is_plain = device == "cpu" and wanted.dtype == "auto"
        dtype = "float32" if is_plain else choose_dtype(wanted.dtype, device).value
        model = load_model(base, dtype, device)
    except UserError as error:
        yield Check("base", "failed", str(error))
        return
    yield _same_base(stored.get("fingerprint"), model.honing_fingerprint, base.name)
    yield _same_tokenizer(about, tokenizer, base.name)
    yield _same_vocabulary(about, len(tokenizer), num_embeddings(model))
    try:
        model = load_adapter(model, adapter)
    except UserError as error:
        yield Check("keys", "failed", str(error))
        return
    yield Check("keys", "ok", "the adapter's tensors are those that the base takes")
    template = _template(about)
    text = text_model(base, tokenizer, template)
    yield _effect(OpenModel(model.eval(), text, device, adapter), dtype)


def _same_base(recorded: object, found: str, name: str) -> Check:
    if not isinstance(recorded, str):
        return Check("base", "not recorded", "the checkpoint does not say on which it was trained")
    return _ok(
        "base",
        recorded == found,
        f"{name} is the one that was trained on",
        f"{name} is not the one that was trained on, or has changed (fingerprint {found[:12]}, "
        f"trained on {recorded[:12]})",
    )


def _same_tokenizer(about: dict[str, Any], tokenizer: Any, name: str) -> Check:
    recorded = about.get("tokenizer")
    if not isinstance(recorded, dict) or "fingerprint" not in recorded:
        return Check("tokenizer", "not recorded", "an older version wrote no fingerprint of it")
    try:
        check_tokenizer(about, tokenizer_fingerprint(tokenizer), name)
    except UserError as error:
        return Check("tokenizer", "failed", str(error))
    return Check("tokenizer", "ok", "is the one that was trained with")


def _same_vocabulary(about: dict[str, Any], num_tokens: int, num_found: int) -> Check:
    recorded = about.get("tokenizer")
    trained = recorded.get("num_embeddings") if isinstance(recorded, dict) else None
    if not isinstance(trained, int):
        return Check("vocabulary", "not recorded", "an older version wrote no number of embeddings")
    return _ok(
        "vocabulary",
        trained == num_found,
        f"{num_found:,} embeddings as in the training, for {num_tokens:,} tokens",
        f"the base has {num_found:,} embeddings, and had {trained:,} in the training; the others "
        "were not saved",
    )


def _template(about: dict[str, Any]) -> Template:
    try:
        return Template.from_record(about["template"])
    except (KeyError, TypeError):
        return choose_template("instruction", None)


@torch.no_grad()
def _effect(opened: OpenModel, dtype: str) -> Check:
    """The largest change of a logit through the adapter, over a few prompts."""
    examples = [Example(f"prompt:{n}", (Exchange(p, ""),)) for n, p in enumerate(_PROMPTS, start=1)]
    questions = encode_for_answering(opened, examples, GenerateConfig(max_new_tokens=8))
    largest = 0.0
    for question in questions:
        ids = torch.tensor([question.ids], device=opened.device)
        tuned = _logits(opened.model, ids)
        with opened.model.disable_adapter():
            base = _logits(opened.model, ids)
        if not (torch.isfinite(tuned).all() and torch.isfinite(base).all()):
            return Check("effect", "failed", f"the logits are not finite in {dtype}")
        largest = max(largest, float((tuned - base).abs().max()))
    return _ok(
        "effect",
        largest > 0,
        f"the adapter changes logits by up to {largest:.3g}, on {len(questions)} prompts",
        f"the adapter changes no logit in {dtype}, on {len(questions)} prompts",
    )


def _logits(model: Model, ids: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float()
