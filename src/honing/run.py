"""RunFolder: the only place that knows which file of a run lies where."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from honing.errors import UserError

_WRITTEN = (
    "config.yaml",
    "data_report.json",
    "metrics.jsonl",
    "training_report.json",
    "training_report.md",
    "splits/*.jsonl",
    "checkpoints/step-[0-9]*",
    "checkpoints/final",
    "checkpoints/last",
    "checkpoints/best",
    "checkpoints/.*.new",
    "checkpoints/.*.old",
    "logs/events.out.tfevents.*",
)
"""Everything that a run writes: what a new run with --overwrite removes."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Paths only; nothing is made before it is written."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def data_report(self) -> Path:
        return self.root / "data_report.json"

    @property
    def splits(self) -> Path:
        return self.root / "splits"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def final(self) -> Path:
        return self.checkpoints / "final"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def report_json(self) -> Path:
        return self.root / "training_report.json"

    @property
    def report_markdown(self) -> Path:
        return self.root / "training_report.md"

    def split_file(self, name: str) -> Path:
        return self.splits / f"{name}.jsonl"

    def step_checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}"

    def step_checkpoints(self) -> list[Path]:
        """Checkpoints of steps, oldest first."""
        found = [path for path in self.checkpoints.glob("step-*") if path.is_dir()]
        steps = {path: path.name.removeprefix("step-") for path in found}
        return sorted(
            (path for path in found if steps[path].isdecimal()), key=lambda path: int(steps[path])
        )

    def holds_a_run(self) -> bool:
        """A training was started here. What `prepare` alone wrote does not count."""
        return self.config.exists() or self.metrics.exists() or self.checkpoints.exists()

    def is_finished(self) -> bool:
        return self.report_json.exists()

    def clear(self) -> None:
        """Remove what a run writes, by name, and nothing else that lies in the folder.

        Raises UserError where something cannot be removed.
        """
        try:
            for written in (self.root / pattern for pattern in _WRITTEN):
                for name in os.listdir(written.parent) if written.parent.is_dir() else ():
                    if fnmatch(name, written.name):
                        _remove(written.parent / name)
            for folder in (self.splits, self.checkpoints, self.logs):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"{self.root}: the old run cannot be removed ({reason}); choose another output_dir"
            ) from None

    def link(self, name: str, target: Path) -> None:
        """Point checkpoints/NAME at a checkpoint beside it, replacing an older pointer atomically.

        A relative link; where there are no links, a file that holds the checkpoint's name.
        """
        pointer = self.checkpoints / name
        aside = self.checkpoints / f".{name}.new"
        try:
            aside.unlink(missing_ok=True)
            try:
                os.symlink(target.name, aside, target_is_directory=True)
            except (OSError, NotImplementedError):
                aside.write_text(target.name + "\n", encoding="utf-8")
            if pointer.is_dir() and not pointer.is_symlink():
                shutil.rmtree(pointer)  # a copy of the run in which the link became a folder
            os.replace(aside, pointer)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise UserError(cannot_write(pointer, error)) from None

    def linked(self, name: str) -> Path | None:
        """The checkpoint that checkpoints/NAME points at, if it is there.

        A pointer names a folder beside itself; any other is not followed. Where a copy of the run
        turned the link into a folder, it is that folder.
        """
        pointer = self.checkpoints / name
        if pointer.is_symlink():
            target = os.readlink(pointer)
        elif pointer.is_file():
            target = pointer.read_bytes()[:255].decode("utf-8", "replace").strip()
        else:
            return pointer if pointer.is_dir() else None
        if target in ("", ".", "..") or target != Path(target).name:
            return None
        folder = self.checkpoints / target
        return folder if os.path.isdir(folder) else None  # False for a name that cannot be one

    def checkpoint_to_use(self) -> Path | None:
        """The best checkpoint where validation ran, else the final one, else the last."""
        final = self.final if self.final.is_dir() else None
        return self.linked("best") or final or self.linked("last")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: aside, synced, renamed."""
    aside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def write_json(path: Path, record: Any) -> None:
    write_text(path, json.dumps(record, ensure_ascii=False, indent=1) + "\n")


def cannot_write(path: Path, error: OSError) -> str:
    """One line about a write that failed: a full disk, a missing right, a folder in the way."""
    reason = error.strerror or str(error)
    return f"{path}: cannot be written ({reason}); free some space or choose another folder"
