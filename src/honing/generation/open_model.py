"""MODEL on a command line → a loaded model and the way to ask it.

A base (Hub id, folder, .gguf file, package:…), a run, a checkpoint folder, or an adapter that PEFT
wrote. A checkpoint says itself which base, template and end tokens it was trained with.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from honing.config import Config, DataConfig, GenerateConfig, ModelConfig
from honing.config_file import load_config
from honing.data.template import Template, choose_template
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.files import read_json
from honing.model.device import choose_device, choose_dtype
from honing.model.forward import plain_model
from honing.model.four_bit import expand, is_in_4bit
from honing.model.load import Base, Model, find_base, load_model, load_tokenizer, text_model
from honing.model.lora import ADAPTER_CONFIG, load_adapter, untie_adapted
from honing.run import RunFolder
from honing.training.checkpoint import ABOUT, check_adapter_files, read_about


@dataclass(frozen=True)
class OpenModel:
    """A model that can be asked. adapter: the checkpoint in use; None for a base plain."""

    model: Model
    text: TextModel
    device: str
    adapter: Path | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """Where a model's parts are: the base, the adapter, and what the checkpoint says of itself."""

    base: ModelConfig
    adapter: Path | None
    about: dict[str, Any]


def find_adapter(name: str, checkpoint: str | None) -> Path | None:
    """The checkpoint folder that a name stands for; None where it names a base model.

    checkpoint: a name under the run's checkpoints/, such as last, final or step-000010.
    """
    folder = _folder(name)
    if folder is not None and (folder / ADAPTER_CONFIG).is_file():
        if checkpoint is not None:
            raise UserError(
                f"{name}: is a checkpoint itself; --checkpoint goes with a run's folder"
            )
        return folder
    run = None if folder is None else RunFolder(folder)
    if run is None or not _is_run(run):
        if checkpoint is not None:
            raise UserError(f"{name}: is no run's folder, so it has no checkpoint {checkpoint}")
        return None
    run.check_files()
    if checkpoint is None:
        chosen = run.checkpoint_to_use()
        if chosen is None:
            raise UserError(f"{name}: holds no finished checkpoint yet; train, or wait for one")
        return chosen
    own_name = Path(checkpoint).name  # a path to the checkpoint means the same
    there = _checkpoints(run)
    if own_name not in there:
        raise UserError(
            f"{name}: has no checkpoint {checkpoint}; there are {', '.join(there) or 'none yet'}"
        )
    return run.linked(own_name)


def _folder(name: str) -> Path | None:
    """The folder of this name, if there is one; a name may be anything, a whole prompt too."""
    try:
        folder = Path(name).expanduser()
    except RuntimeError:  # ~nobody
        return None
    return folder if os.path.isdir(folder) else None


def _is_run(run: RunFolder) -> bool:
    return run.holds_a_run() and not (run.root / "config.json").is_file()


def _checkpoints(run: RunFolder) -> list[str]:
    """Names under checkpoints/ that hold an adapter, or point at one."""
    names = os.listdir(run.checkpoints) if run.checkpoints.is_dir() else []
    found = {name: run.linked(name) for name in sorted(names) if not name.startswith(".")}
    return [name for name, path in found.items() if path and (path / ADAPTER_CONFIG).is_file()]


def check_model(name: str, config: Config, checkpoint: str | None) -> None:
    """Raise what open_model would for a name that stands for nothing; nothing is loaded."""
    find_base(_source(name, find_adapter(name, checkpoint), config).base)


def open_model(
    name: str,
    config: Config,
    *,
    base_only: bool = False,
    checkpoint: str | None = None,
    fold: bool = True,
    expanded: bool = False,
) -> OpenModel:
    """Load a model by name. config gives device, dtype and, for a base plain, the template.

    base_only: the same base and template, without the adapter. fold: see fold_adapter; without it
    the adapter can be switched off. expanded: a base in 4 bits as plain layers of the same weights.
    Raises UserError where the adapter was trained on another base.
    """
    adapter = find_adapter(name, checkpoint)
    source = _source(name, adapter, config)
    device = choose_device(config.device).value
    # On a CPU single tokens gain nothing from bfloat16, and batches then change greedy answers.
    setting = config.model.dtype
    plain = device == "cpu" and setting == "auto"
    dtype = "float32" if plain else choose_dtype(setting, device).value
    base, tokenizer = _load_base(source)
    template = _template(source, config.data, tokenizer.chat_template)
    notes = () if "template" in source.about else _template_notes(source, config.data, tokenizer)
    text = text_model(base, tokenizer, template)
    model = load_model(base, dtype, device)
    _check_base(source, model.honing_fingerprint)
    if expanded:
        expand(model)
    if adapter is not None and not base_only:
        check_adapter_files(adapter)
        model = load_adapter(model, adapter)
        if fold:
            fold_adapter(model)
    model.eval()  # the adapter's dropout too
    return OpenModel(model, text, device, adapter if not base_only else None, notes)


def fold_adapter(model: Model) -> None:
    """Add the adapter to the weights where they are float32: the same answers with half the matrix
    products. In 16 or 4 bits the sum would be rounded, and the model another one."""
    if plain_model(model).dtype == torch.float32 and not is_in_4bit(model):
        untie_adapted(model)
        model.merge_adapter()


_READ = ("generate", "device", "model", "data.template")
"""Settings that answering reads; all others come from the checkpoint, or mean nothing here."""


def answering_config(name: str, overrides: Sequence[str] = ()) -> Config:
    """How to ask a model: the generate section of a run, or of the run that a merged folder came
    from, with overrides laid over it.

    Device and number type are this machine's, not those that the run was trained with.
    """
    config = load_config(None, overrides)
    for override in overrides:
        key = override.partition("=")[0]
        if not any(key == read or key.startswith(f"{read}.") for read in _READ):
            meant = "; did you mean generate.seed?" if key == "seed" else ""
            raise UserError(
                f"command line, {key}: does nothing to answers, which depend on generate.*, "
                f"device, model.* and data.template{meant}"
            )
    folder = _folder(name)
    if folder is None:
        return config
    is_checkpoint = (folder / ADAPTER_CONFIG).is_file()
    if not is_checkpoint and (folder / "config.json").is_file():
        return config.model_copy(update={"generate": _merged_generate(folder, config.generate)})
    run = RunFolder(folder.resolve().parent.parent if is_checkpoint else folder)
    if not (_is_run(run) and run.config.is_file()):
        return config
    return config.model_copy(update={"generate": load_config(run.config, overrides).generate})


def _merged_generate(folder: Path, wanted: GenerateConfig) -> GenerateConfig:
    """What a merged folder says of its way of answering, with what is set on the command line laid
    over it; of a base that honing did not write, the latter alone."""
    stored = (read_about(folder) or {}).get("generate", {})
    try:
        own = GenerateConfig.model_validate(stored)
    except ValidationError as error:
        key = ".".join(["generate", *map(str, error.errors()[0]["loc"])])
        raise UserError(
            f"{folder / ABOUT}: {key}: is no setting that this version of honing knows; mend it, "
            "or merge again"
        ) from None
    changes = {key: getattr(wanted, key) for key in wanted.model_fields_set}
    return own.model_copy(update=changes)


def _source(name: str, adapter: Path | None, config: Config) -> _Source:
    wanted = config.model
    if adapter is None:
        if "base" in wanted.model_fields_set and wanted.base != name:
            raise UserError(f"model.base: {wanted.base}, but {name} is the model to ask; name one")
        folder = _folder(name)
        about = None if folder is None else read_about(folder)
        return _Source(wanted.model_copy(update={"base": name}), None, about or {})
    about = read_about(adapter)
    wanted = in_bits_of_training(wanted, about, adapter)
    if "base" in wanted.model_fields_set:  # its place may have changed since
        return _Source(wanted, adapter, about or {})
    base = _base_in_peft_config(adapter) if about is None else _part(about, "base", "name")
    if not isinstance(base, str) or not base:
        raise UserError(
            f"{adapter}: names no base model in {ADAPTER_CONFIG if about is None else ABOUT}; "
            "say which it is with model.base=…"
        )
    return _Source(wanted.model_copy(update={"base": base}), adapter, about or {})


def in_bits_of_training(
    wanted: ModelConfig, about: dict[str, Any] | None, adapter: Path
) -> ModelConfig:
    """How to load an adapter's base: in 4 bits where it was trained so, and there alone.

    about: None for an adapter that PEFT wrote, which does not say. Raises UserError where the user
    asks for another base than the trained one.
    """
    if about is None:
        return wanted
    trained = _part(about, "base", "load_in_4bit") is True
    if "load_in_4bit" in wanted.model_fields_set and wanted.load_in_4bit != trained:
        raise UserError(
            f"model.load_in_4bit: {adapter} was trained with {str(trained).lower()}, and answers "
            "on another base would not be its own; leave it out"
        )
    return wanted.model_copy(update={"load_in_4bit": trained})


def _base_in_peft_config(adapter: Path) -> object:
    try:
        settings = read_json(adapter / ADAPTER_CONFIG)
    except (OSError, ValueError) as error:
        raise UserError(f"{adapter}: its {ADAPTER_CONFIG} cannot be read ({error})") from None
    return settings.get("base_model_name_or_path") if isinstance(settings, dict) else None


def _part(record: dict[str, Any], *keys: str) -> object:
    """A value inside a record that anyone may have written; None where it is not there."""
    value: object = record
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _load_base(source: _Source) -> tuple[Base, Any]:
    """The base and its tokenizer."""
    try:
        base = find_base(source.base)
        return base, load_tokenizer(base)
    except UserError as error:
        if source.adapter is None:
            raise
        raise UserError(
            f"{error} ({source.adapter} was trained on it: say where it is now with model.base=…)"
        ) from None


def _template(source: _Source, data: DataConfig, chat_template: str | None) -> Template:
    """The template that the checkpoint was trained with, else the one that is configured.

    Raises UserError where the user asks for one that is not the checkpoint's.
    """
    stored = source.about.get("template")
    if stored is None:
        return choose_template(data.template, chat_template)
    try:
        template = Template.from_record(stored)
    except TypeError:
        raise UserError(
            f"{source.adapter or source.base.base}: the template in {ABOUT} is not one that this "
            "version of honing knows"
        ) from None
    asked = "template" in data.model_fields_set
    if asked and choose_template(data.template, chat_template) != template:
        raise UserError(
            f"data.template: {source.adapter or source.base.base} was trained with the template "
            f"'{template.name}', and answers in another would not be its own; leave it out"
        )
    return template


def _template_notes(source: _Source, data: DataConfig, tokenizer: Any) -> tuple[str, ...]:
    """What to know where no checkpoint says with which template to ask."""
    if source.adapter is not None:
        name = data.template if isinstance(data.template, str) else "custom"
        return (
            f"{source.adapter} does not say with which template it was trained; "
            f"asking with '{name}' (data.template)",
        )
    if tokenizer.chat_template and "template" not in data.model_fields_set:
        return (
            f"{source.base.base} has a chat template of its own, and is asked in "
            f"'{data.template}'; data.template=chat asks in its own",
        )
    return ()


def _check_base(source: _Source, fingerprint: str) -> None:
    trained_on = _part(source.about, "base", "fingerprint")
    if source.adapter is not None and trained_on and trained_on != fingerprint:
        raise UserError(
            f"{source.adapter}: was trained on another base: {source.base.base} has changed since "
            f"(fingerprint {fingerprint[:12]}, trained on {str(trained_on)[:12]}); restore that "
            "base, or say where it is with model.base=…"
        )
