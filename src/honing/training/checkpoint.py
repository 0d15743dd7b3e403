"""TrainState on disk: written aside, synced, renamed, so that a checkpoint is whole or absent."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from honing.errors import UserError
from honing.files import cannot_write, read_json, remove_folder, replaced_folder, write_file
from honing.model.load import Model
from honing.model.lora import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    adapter_to_save,
    restore_adapter,
)
from honing.run import RunFolder
from honing.training.manifest import MANIFEST, damage, manifest_of

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
    """Write one checkpoint folder: adapter in PEFT's format, state of the trainer, what
    generation, evaluation and merging need to know (about), and the manifest of them all.

    Raises UserError, with nothing half-written in place, where the disk is full or read-only.
    """
    settings, tensors = adapter_to_save(model)
    weights = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    try:
        # Made in memory first: torch and safetensors, writing for themselves, report a full disk
        # in errors of their own ("unexpected pos 576 vs 534").
        packed = io.BytesIO()
        torch.save(dict(state), packed)
        contents: dict[str, bytes | memoryview] = {
            ADAPTER_WEIGHTS: save(weights, metadata={"format": "pt"}),
            TRAINER_STATE: packed.getbuffer(),
            ABOUT: (json.dumps(about, ensure_ascii=False, indent=1) + "\n").encode(),
        }
        with replaced_folder(folder) as aside:
            contents[ADAPTER_CONFIG] = _peft_config(settings, aside)
            for name, content in contents.items():
                write_file(aside / name, content)
            write_file(aside / MANIFEST, manifest_of(contents))
    except OSError as error:
        raise UserError(cannot_write(folder, error)) from None
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    return CheckpointSizes(sizes[ADAPTER_WEIGHTS], sum(sizes.values()))


def _peft_config(settings: Any, folder: Path) -> bytes:
    """adapter_config.json as PEFT writes it."""
    settings.save_pretrained(str(folder))
    path = folder / ADAPTER_CONFIG
    content = path.read_bytes()
    path.unlink()
    return content


def read_about(folder: Path) -> dict[str, Any] | None:
    """honing.json of a checkpoint; None for an adapter that honing did not write."""
    path = folder / ABOUT
    if not path.is_file():
        return None
    try:
        record = read_json(path)
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
    """The newest checkpoint of a step that can be read whole, and a line for each that cannot.

    Raises UserError where a link leads out of the run's folder.
    """
    run.check_files()
    skipped: list[str] = []
    for folder in reversed(run.step_checkpoints()):
        problem = problem_of(folder)
        if problem is None:
            return folder, skipped
        skipped.append(f"{folder.name} skipped: {problem}")
    return None, skipped


def problem_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in one line; None where it can be read whole."""
    if found := _lost_or_damaged(folder):
        return found
    for name, read in _READERS.items():
        try:
            read(folder / name)
        # Damaged files make the parsers raise errors of many kinds.
        except Exception as error:
            reason = " ".join(str(error).split()).partition(". ")[0][:100]
            return f"{name} cannot be read ({reason})"
    return None


def _lost_or_damaged(folder: Path) -> str | None:
    for name in _READERS:
        if not (folder / name).is_file():
            return f"{name} is missing"
    found = damage(folder, _READERS)
    return None if found is None else " ".join(found)


def check_adapter_files(folder: Path) -> None:
    """Raise UserError where a file that answering reads is not the one that training wrote.

    What has no manifest, as an adapter that PEFT wrote, is taken as it is.
    """
    if found := damage(folder, (ADAPTER_CONFIG, ADAPTER_WEIGHTS, ABOUT)):
        name, wrong = found
        raise UserError(
            f"{folder / name}: {wrong}; use another checkpoint or a copy of this one, or remove "
            f"{MANIFEST} if you changed it yourself"
        )


def _read_tensors(path: Path) -> Any:
    """What torch.save wrote: tensors and plain values, never code, and no more than the file has.

    Raises what the parsers of a damaged file raise.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if any(part.compress_type for part in parts) or sum(part.file_size for part in parts) > size:
        raise ValueError("holds more than its bytes can")
    record = torch.load(path, weights_only=True, map_location="cpu")
    if any(tensor.numel() > size for tensor in _tensors_in(record)):
        raise ValueError("holds tensors that are larger than the file")
    return record


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors_in(item)


_READERS: Mapping[str, Callable[[Path], Any]] = {
    ADAPTER_CONFIG: read_json,
    ADAPTER_WEIGHTS: load_file,
    TRAINER_STATE: _read_tensors,
    ABOUT: read_json,
}
"""The files of a checkpoint."""


def remove_old_checkpoints(run: RunFolder, keep_last: int) -> str | None:
    """Keep the newest keep_last checkpoints and the best; remove the others.

    The newest is the last that was written, and not that of the highest number where training
    went on before damaged ones; those do not count, and stay. Nothing is removed, and a line says
    why, where the newest is not on the disk as it was written.
    """
    folders = run.step_checkpoints()
    if not folders:
        return None
    last = run.linked("last")
    newest = last if last in folders else folders[-1]
    counted = folders[: folders.index(newest) + 1]
    superfluous = [folder for folder in counted[:-keep_last] if folder != run.linked("best")]
    if superfluous and (problem := _lost_or_damaged(newest)):
        return f"{newest.name}: {problem}; no older checkpoint is removed"
    for folder in superfluous:
        remove_folder(folder)
    return None
