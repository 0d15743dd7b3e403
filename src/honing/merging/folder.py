"""The merged folder: what transformers loads, what honing reads, and a card; put in place whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from honing.errors import UserError
from honing.files import replaced_folder
from honing.model.load import Model
from honing.run import cannot_write, write_json, write_text
from honing.training.checkpoint import ABOUT

REPORT = "merge_report.json"
CARD = "README.md"

# Read only where do_sample is true; beside do_sample=false, transformers refuses to save them.
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


@contextlib.contextmanager
def folder_aside(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """A fresh folder beside output, moved to its place when the block ends well, else removed.

    Raises UserError where output is there already, is not ours to replace, or cannot be written.
    """
    check_output(output, overwrite=overwrite)
    try:
        with replaced_folder(output) as aside:
            yield aside
    except OSError as error:
        raise UserError(cannot_write(output, error)) from None
    except SafetensorError as error:  # safetensors' own name for a full disk
        raise UserError(
            f"{output}: cannot be written ({' '.join(str(error).split())}); free some space or "
            "choose another folder"
        ) from None


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raise UserError where something is in the way that is not to be replaced."""
    if not os.path.lexists(output):
        return
    if output.is_dir() and not output.is_symlink() and not any(output.iterdir()):
        return
    if not (output / REPORT).is_file():
        raise UserError(
            f"{output}: is there already, and is no merged model; choose another --output"
        )
    if not overwrite:
        raise UserError(
            f"{output}: holds a merged model already; replace it with --overwrite, or choose "
            "another --output"
        )


def check_space(output: Path, num_bytes: int) -> None:
    """Raise UserError where the disk has less room than the merged model needs."""
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < num_bytes:
        raise UserError(
            f"{output}: the merged model needs {num_bytes / 1e9:.2f} GB and {free / 1e9:.2f} GB "
            "are free; free some space or choose another --output"
        )


def write_model(
    folder: Path,
    model: Model,
    tokenizer: Any,
    *,
    chat_template: str,
    end_ids: Sequence[int],
    about: Mapping[str, Any],
    card: str,
) -> None:
    """Write weights, configuration, generation defaults, tokenizer, honing.json and README.md."""
    _set_ends(model, tokenizer, end_ids)
    model.save_pretrained(folder)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    _mend_tokenizer(folder / "tokenizer_config.json")
    write_json(folder / ABOUT, about)
    write_text(folder / CARD, card)
    for path in folder.glob("*.safetensors"):
        shutil.copymode(folder / ABOUT, path)  # safetensors makes them readable to their owner only


def _set_ends(model: Model, tokenizer: Any, end_ids: Sequence[int]) -> None:
    """The ends of an answer and a pad token as defaults of generate(); all else stays."""
    defaults = model.generation_config
    defaults._from_model_config = False  # else transformers may make them anew from config.json
    ends = list(end_ids)
    defaults.eos_token_id = ends[0] if len(ends) == 1 else ends
    if defaults.pad_token_id is None:
        pad = tokenizer.pad_token_id
        defaults.pad_token_id = ends[0] if pad is None else pad
    if not defaults.do_sample:
        for name in _SAMPLING:
            setattr(defaults, name, None)


def _mend_tokenizer(path: Path) -> None:
    """Take out what transformers notes of how the tokenizer was read, not of what it is, and call
    its class by the name that version 4 knows too."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only"):
        settings.pop(key, None)
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(path, settings)
