"""RunFolder: the only place that knows which file of a run lies where."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from honing.errors import UserError
from honing.files import ASIDES, replace_link
from honing.files import cannot_write as cannot_write
from honing.files import write_json as write_json
from honing.files import write_text as write_text

_WRITTEN = (
    # First the mark that a run is finished, last the one that there is a run: a process that is
    # killed here leaves one that goes on from what is left, or starts afresh.
    "training_report.json",
    "training_report.md",
    "checkpoints/final",
    "checkpoints/last",
    "checkpoints/best",
    "checkpoints/step-[0-9]*",
    *(f"checkpoints/{pattern}" for pattern in ASIDES),
    "logs/events.out.tfevents.*",
    "evaluation/base.json",
    "evaluation/tuned.json",
    "evaluation/.*.part.jsonl",
    "merged",
    ".merged.old",
    "report.html",
    "report.json",
    "report.md",
    "metrics.jsonl",
    "config.yaml",
)
"""Everything that a run writes, but for its data, which may be the source of the next run and is
replaced file by file: what a new run with --overwrite removes."""


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
    def lock(self) -> Path:
        """Held while a training writes here."""
        return self.root / ".lock"

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

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    @property
    def evaluation_base(self) -> Path:
        return self.evaluation / "base.json"

    @property
    def evaluation_tuned(self) -> Path:
        return self.evaluation / "tuned.json"

    @property
    def merged(self) -> Path:
        return self.root / "merged"

    @property
    def comparison_page(self) -> Path:
        return self.root / "report.html"

    @property
    def comparison_json(self) -> Path:
        return self.root / "report.json"

    @property
    def comparison_markdown(self) -> Path:
        return self.root / "report.md"

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

    def check_files(self) -> None:
        """Raise UserError where a link in it leads out, or a pipe or device stands for a file.

        Anyone may have made the folder, and what is written through such a link, or read from a
        pipe that never ends, is none of the run's.
        """
        home = Path(os.path.realpath(self.root))
        for path in self._own_paths():
            if not Path(os.path.realpath(path)).is_relative_to(home):
                raise UserError(
                    f"{path}: is a link that leads out of the run's folder, and is not followed; "
                    "put a copy of what it leads to in its place"
                )
            if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
                raise UserError(
                    f"{path}: is a pipe or a device, and no file; take it out of the run's folder"
                )

    def _own_paths(self) -> Iterator[Path]:
        """All that is read, or added to; what is replaced whole goes through no link."""
        yield from (self.config, self.data_report, self.metrics)
        yield from (self.report_json, self.report_markdown)
        for folder in (self.splits, self.checkpoints, self.logs, self.evaluation):
            yield folder
            for inner, folders, files in os.walk(folder):  # which enters no link
                yield from (Path(inner, name) for name in (*folders, *files))

    def clear(self) -> None:
        """Remove what a run writes, by name, and nothing else that lies in the folder.

        Raises UserError where something cannot be removed.
        """
        try:
            for folder in (self.splits, self.checkpoints, self.logs, self.evaluation):
                if folder.is_symlink():
                    folder.unlink()  # what it leads to may belong to another run
            for written in (self.root / pattern for pattern in _WRITTEN):
                for name in os.listdir(written.parent) if written.parent.is_dir() else ():
                    if fnmatch(name, written.name) or fnmatch(name, f".{written.name}.new"):
                        _remove(written.parent / name)
            for folder in (self.splits, self.checkpoints, self.logs, self.evaluation):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"{self.root}: the old run cannot be removed ({reason}); choose another output_dir"
            ) from None

    def link(self, name: str, target: Path) -> None:
        """Point checkpoints/NAME at a checkpoint beside it, in the place of an older pointer."""
        pointer = self.checkpoints / name
        try:
            replace_link(pointer, target.name)
        except OSError as error:
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
        return self.linked("best") or self.linked("final") or self.linked("last")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
