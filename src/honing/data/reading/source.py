"""`data.source` -> which files make which split, and a short name for each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from honing.data.reading.formats import KINDS
from honing.data.reading.names import did_you_mean, listed, shown
from honing.errors import UserError

SourceSpec = str | list[str] | dict[str, str | list[str]]

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "test": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "val"
)


@dataclass(frozen=True)
class SourceFile:
    """One file of a source. `split` is "all" where there is none yet; no two labels are equal."""

    split: str
    path: Path
    label: str


def is_hub_id(source: str) -> bool:
    """`owner/name` or `owner/name:config`, and nothing on this machine that it could mean."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?", source, re.ASCII):
        return False
    looks_local = Path(source).suffix.lower() in KINDS or os.path.isdir(source.split("/")[0])
    return not looks_local and not os.path.exists(source)


def find_files(source: SourceSpec) -> list[SourceFile]:
    """Every file of the source, in the order in which they are read."""
    try:
        files = _split_files(source)
    except OSError as error:  # a folder that may not be looked into
        found = f"{error.filename} ({error.strerror})"
        raise UserError(f"data.source: cannot look into {shown(found, 200)}") from error
    labels = _labels(files)
    return [SourceFile(*file, label) for file, label in zip(files, labels, strict=True)]


def _split_files(source: SourceSpec) -> list[tuple[str, Path]]:
    if isinstance(source, str) and os.path.isdir(os.path.expanduser(source)):
        return _files_in(Path(source).expanduser())
    if not isinstance(source, dict):
        return [("all", path) for path in _listed_files(source, "data.source")]
    for name in source:
        if name not in SPLITS:
            hint = did_you_mean(str(name), SPLITS)
            raise UserError(f'data.source: "{shown(name)}" is none of train, val, test{hint}')
    given = {name: source[name] for name in SPLITS if source.get(name) is not None}
    if "train" not in given:
        raise UserError("data.source: no train among its splits; give train: FILE")
    return [
        (name, path)
        for name, files in given.items()
        for path in _listed_files(files, f"data.source.{name}")
    ]


def _listed_files(files: object, key: str) -> list[Path]:
    """One file or a list of files, each of which must be there, and only once."""
    names = [files] if isinstance(files, str) else files
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise UserError(f"{key}: {shown(files)} is no file name and no list of file names")
    paths = [Path(name).expanduser() for name in names]
    for path in paths:
        if not os.path.isfile(path):
            raise _no_file(path, key)
    twice = [p for p, number in Counter(path.resolve() for path in paths).items() if number > 1]
    if twice:
        raise UserError(f"{key}: {shown(twice[0].name)} is listed twice; take one out")
    return paths


def _no_file(path: Path, key: str) -> UserError:
    name = shown(path, 200)
    if os.path.isdir(path):
        return UserError(f"{key}: {name} is a folder; give its files")
    if os.path.exists(path):
        return UserError(f"{key}: {name} is not a regular file; save it as a file and give that")
    beside = os.listdir(path.parent) if os.path.isdir(path.parent) else []
    advice = did_you_mean(path.name, beside) or "; give an existing file or folder"
    hub = " (a data set on the Hub is named OWNER/NAME)" if len(path.parts) == 1 else ""
    if len(path.parts) == 2 and not path.suffix and os.path.isdir(path.parts[0]):
        hub = f' (rename the folder "{shown(path.parts[0])}" if a Hub data set is meant)'
    return UserError(f"{key}: no such file: {name}{hub}{advice}")


def _files_in(folder: Path) -> list[tuple[str, Path]]:
    """A folder's train, val and test files, shards included; or its only data file."""
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in KINDS and path.is_file() and not path.name.startswith(".")
    ]
    splits: dict[str, list[Path]] = {}
    for path in files:
        name = re.fullmatch(r"([a-z]+)(-\d+-of-\d+)?", path.stem.lower())
        if name and name[1] in SPLIT_NAMES:
            splits.setdefault(SPLIT_NAMES[name[1]], []).append(path)
    where = f"data.source: {shown(folder, 200)}"
    names = listed([path.name for path in files])
    if not splits:
        if len(files) == 1:
            return [("all", files[0])]
        raise UserError(f"{where}: no train file among its data files ({names}); name the file")
    for split, paths in splits.items():
        if len(paths) > 1 and not all("-of-" in path.stem for path in paths):
            names = listed([path.name for path in paths])
            raise UserError(f"{where}: more than one {split} file ({names}); name one")
    if "train" not in splits:
        raise UserError(f"{where}: no train file among its data files ({names}); name the files")
    if len(splits) == 1:
        return [("all", path) for path in splits["train"]]
    return [(split, path) for split in SPLITS for path in splits.get(split, [])]


def _labels(files: Sequence[tuple[str, Path]]) -> list[str]:
    """A short name for each file that no other has: its name, with folders where two are alike."""
    # Not resolved: a link's own name says more than the blob that it leads to.
    whole = [(split, *path.absolute().parts) for split, path in files]
    labels = []
    for own in whole:
        others = [other for other in whole if other is not own]
        size = 1
        while any(other[-size:] == own[-size:] for other in others) and size < len(own) - 1:
            size += 1
        # The very same file under two splits: only the split tells the rows apart.
        same = any(other[1:] == own[1:] for other in others)
        labels.append(shown("/".join((own[0], own[-1]) if same else own[-size:]), 200))
    return labels
