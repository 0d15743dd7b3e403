"""TrainState on disk: written aside, synced, renamed, so that a checkpoint is whole or absent."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from honing.errors import UserError
from honing.model.load import Model
from honing.model.lora import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    adapter_to_save,
    restore_adapter,
)
from honing.run import RunFolder, cannot_write

TRAINER_STATE = "trainer_state.pt"
ABOUT = "honing.json"


@dataclass(frozen=True)
class CheckpointSizes:
    """Bytes of one checkpoint, for the report."""

    adapter: int
    whole: int


def write_checkpoint(
    folder: Path, model: Model, state: Mapping[str, Any], about: Mapping[str, Any]
) -> CheckpointSizes:
    """Write one checkpoint folder: adapter in PEFT's format, state of the trainer, and what
    generation, evaluation and merging need to know (about).

    Raises UserError, with nothing half-written in place, where the disk is full or read-only.
    """
    aside = folder.with_name(f".{folder.name}.new")
    settings, tensors = adapter_to_save(model)
    weights = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        settings.save_pretrained(str(aside))
        # Made in memory first: torch and safetensors, writing for themselves, report a full disk
        # in errors of their own ("unexpected pos 576 vs 534").
        (aside / ADAPTER_WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))
        packed = io.BytesIO()
        torch.save(dict(state), packed)
        (aside / TRAINER_STATE).write_bytes(packed.getbuffer())
        text = json.dumps(about, ensure_ascii=False, indent=1)
        (aside / ABOUT).write_text(text + "\n", encoding="utf-8")
        for path in aside.iterdir():
            _sync(path)
        _sync(aside)
        _replace_folder(aside, folder)
    except OSError as error:
        raise UserError(cannot_write(folder, error)) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    return CheckpointSizes(sizes[ADAPTER_WEIGHTS], sum(sizes.values()))


def _replace_folder(aside: Path, folder: Path) -> None:
    """Move a folder into place; one that is there is moved away first, as none can be replaced."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(aside, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows has no sync of folders; its renames are journalled
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_about(folder: Path) -> dict[str, Any] | None:
    """honing.json of a checkpoint; None for an adapter that honing did not write."""
    path = folder / ABOUT
    if not path.is_file():
        return None
    try:
        record = _read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); use another checkpoint") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}: holds no record; use another checkpoint")
    return record


def read_state(folder: Path, model: Model) -> dict[str, Any]:
    """Load a checkpoint's adapter into the model, and return the trainer's state."""
    restore_adapter(model, load_file(folder / ADAPTER_WEIGHTS), str(folder))
    state: dict[str, Any] = _read_tensors(folder / TRAINER_STATE)
    return state


def newest_valid_checkpoint(run: RunFolder) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of a step that can be read whole, and a line for each that cannot."""
    skipped: list[str] = []
    for folder in reversed(run.step_checkpoints()):
        problem = _problem_of(folder)
        if problem is None:
            return folder, skipped
        skipped.append(f"{folder.name} skipped: {problem}")
    return None, skipped


def _problem_of(folder: Path) -> str | None:
    for name, read in _READERS.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        try:
            read(folder / name)
        # Damaged files make the parsers raise errors of many kinds.
        except Exception as error:
            reason = " ".join(str(error).split()).partition(". ")[0][:100]
            return f"{name} cannot be read ({reason})"
    return None


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_tensors(path: Path) -> Any:
    return torch.load(path, weights_only=True, map_location="cpu")


_READERS: Mapping[str, Callable[[Path], Any]] = {
    ADAPTER_CONFIG: _read_json,
    ADAPTER_WEIGHTS: load_file,
    TRAINER_STATE: _read_tensors,
    ABOUT: _read_json,
}
"""The files of a checkpoint."""


def remove_old_checkpoints(run: RunFolder, keep_last: int) -> None:
    """Keep the newest keep_last checkpoints, the last and the best; remove the others.

    The last is not the newest by number where training went on before a damaged one.
    """
    linked = {run.linked("last"), run.linked("best")}
    for folder in run.step_checkpoints()[:-keep_last]:
        if folder not in linked:
            shutil.rmtree(folder, ignore_errors=True)
