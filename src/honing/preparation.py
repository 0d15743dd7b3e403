"""The stage behind `honing prepare`: rows read, checked, split, audited and reported."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from honing.config import Config, DataConfig
from honing.data.prepare import PreparedData, prepare_data, source_of
from honing.data.prepared_cache import clear_oldest, content_key, load_prepared, save_prepared
from honing.data.reading.source import SourceFile, find_files, is_hub_id
from honing.data.sample import SAMPLE_SOURCES
from honing.data.stored import split_lines
from honing.data.template import choose_template
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.files import (
    cannot_write,
    discard,
    make_folder,
    rename,
    sync,
    sync_folder,
    write_all,
)
from honing.model.gguf import cache_folder
from honing.model.load import find_base, load_tokenizer, text_model
from honing.model.vocabulary import tokenizer_fingerprint
from honing.run import RunFolder, write_json

LARGE_BYTES = 4_000_000
"""Files of together so many bytes (some 10,000 rows) are prepared on disk, and kept."""


def prepare(config: Config) -> PreparedData:
    """Prepare the data of a configuration and write data_report.json and splits/.

    Only the base's tokenizer is loaded. Raises UserError where the folder holds a run already.
    """
    run = RunFolder(Path(config.output_dir).expanduser())
    if run.holds_a_run():
        raise UserError(
            f"output_dir: {run.root} holds a training already, and its data report must stay; "
            "choose another output_dir"
        )
    base = find_base(config.model)
    tokenizer = load_tokenizer(base)
    template = choose_template(config.data.template, tokenizer.chat_template)
    data = prepare_rows(config, text_model(base, tokenizer, template), tokenizer)
    write_data(run, data)
    return data


def prepare_rows(config: Config, text: TextModel, tokenizer: Any) -> PreparedData:
    """The prepared data of a configuration: small sets in memory, large ones from the cache.

    The cache is the folder data/ beside the converted models (HONING_CACHE); it can be removed at
    any time, and keeps to prepared_cache.MOST_BYTES by itself.
    """
    files = _large_files(config.data)
    if not files:
        return prepare_data(config.data, config.seed, text)
    key = content_key(files, config.data, config.seed, text, _tokenizer_hash(tokenizer))
    root = cache_folder() / "data"
    folder = root / key[:32]
    found = load_prepared(folder, key)
    if found is None:
        try:
            root.mkdir(parents=True, exist_ok=True)
            _prepare_into(folder, key, config, text)
            clear_oldest(root)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"{root}: the prepared rows cannot be kept there ({reason}); set HONING_CACHE to a "
                "folder with four times the space of data.source"
            ) from None
        found = load_prepared(folder, key)
    if found is None:
        raise UserError(f"{folder}: was changed while it was in use; start again")
    return found


def _large_files(data: DataConfig) -> list[SourceFile]:
    """The files of a source that is too large for memory, none of another source."""
    source = source_of(data)
    if isinstance(source, str) and (source in SAMPLE_SOURCES or is_hub_id(source)):
        return []
    try:
        files = find_files(source)
        return files if sum(f.path.stat().st_size for f in files) >= LARGE_BYTES else []
    except (UserError, OSError):
        return []  # said when they are read


def _prepare_into(folder: Path, key: str, config: Config, text: TextModel) -> None:
    with tempfile.TemporaryDirectory(prefix=".preparing-", dir=folder.parent) as name:
        aside = Path(name) / folder.name
        aside.mkdir()
        save_prepared(aside, prepare_data(config.data, config.seed, text, aside), key)
        if load_prepared(folder, key) is None:  # another process may have been quicker
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(aside, folder)


def _tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of the whole tokenizer, or of what it does where it has no form to write down."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "to_str"):
        return tokenizer_fingerprint(tokenizer)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = False
    return hashlib.sha256(backend.to_str().encode()).hexdigest()


def write_data(run: RunFolder, data: PreparedData) -> None:
    """data_report.json, and the rows of each split as they were dealt."""
    write_json(run.data_report, data.report.to_record())
    for name, split in data.splits.items():
        if split.examples:
            _write_lines(run.split_file(name), split_lines(split.examples))
        else:
            run.split_file(name).unlink(missing_ok=True)


def _write_lines(path: Path, lines: Iterator[bytes]) -> None:
    """As honing.files.write_text, of lines that need not fit into memory together."""
    aside = path.with_name(f".{path.name}.new")
    try:
        make_folder(path.parent)
        discard(aside)
        with aside.open("xb") as file:
            while block := b"".join(islice(lines, 1_000)):
                write_all(file, block)
            sync(file.fileno())
        rename(aside, path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from None
    finally:
        discard(aside)
