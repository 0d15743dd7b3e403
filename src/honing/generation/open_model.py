"""MODEL on a command line → a loaded model and the way to ask it.

A base (Hub id, folder, .gguf file, package:…), a run, a checkpoint folder, or an adapter that PEFT
wrote. A checkpoint says itself which base, template and end tokens it was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from honing.config import Config, ModelConfig
from honing.config_file import load_config
from honing.data.template import Template, choose_template
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.model.device import choose_device, choose_dtype
from honing.model.load import Model, find_base, load_model, load_tokenizer, text_model
from honing.model.lora import ADAPTER_CONFIG, load_adapter
from honing.run import RunFolder
from honing.training.checkpoint import read_about


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
    folder = Path(name).expanduser()
    if (folder / ADAPTER_CONFIG).is_file():
        if checkpoint:
            raise UserError(
                f"{name}: is a checkpoint itself; --checkpoint goes with a run's folder"
            )
        return folder
    run = RunFolder(folder)
    if not (run.config.is_file() and run.checkpoints.is_dir()):
        if checkpoint:
            raise UserError(f"{name}: is no run's folder, so it has no checkpoint {checkpoint}")
        return None
    if checkpoint is None:
        chosen = run.checkpoint_to_use()
        if chosen is None:
            raise UserError(f"{name}: holds no finished checkpoint yet; train, or wait for one")
        return chosen
    chosen = run.linked(checkpoint) or run.checkpoints / Path(checkpoint).name
    if not (chosen / ADAPTER_CONFIG).is_file():
        there = ", ".join(sorted(p.name for p in run.checkpoints.iterdir() if p.name[0] != "."))
        raise UserError(f"{name}: has no checkpoint {checkpoint}; there are {there}")
    return chosen


def open_model(
    name: str, config: Config, *, base_only: bool = False, checkpoint: str | None = None
) -> OpenModel:
    """Load a model by name. config gives device, dtype and, for a base plain, the template.

    base_only: the same base and template, without the adapter. Raises UserError where the
    adapter was trained on another base.
    """
    adapter = find_adapter(name, checkpoint)
    source = _source(name, adapter, config)
    device = choose_device(config.device).value
    # On a CPU single tokens gain nothing from bfloat16, and batches then change greedy answers.
    setting = config.model.dtype
    plain = device == "cpu" and setting == "auto"
    dtype = "float32" if plain else choose_dtype(setting, device).value
    base = find_base(source.base)
    tokenizer = load_tokenizer(base)
    notes = []
    if "template" in source.about:
        template = Template.from_record(source.about["template"])
    else:
        template = choose_template(config.data.template, tokenizer.chat_template)
        if adapter is not None:
            notes.append(
                f"{adapter} does not say with which template it was trained; "
                f"asking with '{template.name}' (data.template)"
            )
    text = text_model(base, tokenizer, template)
    model = load_model(base, dtype, device)
    _check_base(adapter, source, model.honing_fingerprint)
    if adapter is not None and not base_only:
        model = load_adapter(model, adapter)
    return OpenModel(model, text, device, adapter if not base_only else None, tuple(notes))


def answering_config(name: str, overrides: Sequence[str] = ()) -> Config:
    """How to ask a model: a run's own generate section, with overrides laid over it.

    Device and number type are this machine's, not those that the run was trained with.
    """
    config = load_config(None, overrides)
    folder = Path(name).expanduser()
    for run in (RunFolder(folder), RunFolder(folder.resolve().parent.parent)):
        if run.config.is_file() and run.checkpoints.is_dir():
            return config.model_copy(
                update={"generate": load_config(run.config, overrides).generate}
            )
    return config


def _source(name: str, adapter: Path | None, config: Config) -> _Source:
    trusted = config.model.trust_remote_code
    if adapter is None:
        about = read_about(Path(name)) if Path(name).is_dir() else None
        return _Source(ModelConfig(base=name, trust_remote_code=trusted), None, about or {})
    about = read_about(adapter)
    if about is not None:
        base = str(about.get("base", {}).get("name", ""))
        return _Source(ModelConfig(base=base, trust_remote_code=trusted), adapter, about)
    try:
        settings = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base = settings["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{adapter}: names no base model in {ADAPTER_CONFIG} ({error})") from None
    if not isinstance(base, str) or not base:
        raise UserError(f"{adapter}: names no base model in {ADAPTER_CONFIG}")
    return _Source(ModelConfig(base=base, trust_remote_code=trusted), adapter, {})


def _check_base(adapter: Path | None, source: _Source, fingerprint: str) -> None:
    trained_on = source.about.get("base", {}).get("fingerprint")
    if adapter is not None and trained_on and trained_on != fingerprint:
        raise UserError(
            f"{adapter}: was trained on another base: {source.base.base} has changed since "
            f"(fingerprint {fingerprint[:12]}, trained on {trained_on[:12]}); restore that base"
        )
