"""A .gguf file → a folder that transformers loads in seconds, made once and kept in a cache.

The weights of a quantised file are expanded to float32: "dequantised", not the original ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from honing.errors import UserError
from honing.files import read_json
from honing.model.gguf_header import check_header

CONVERTER_VERSION = 1
"""Goes up when conversion writes another folder; folders of other versions are not used."""

_RECORD = "conversion.json"
# How a vocabulary was cut into words before its merges were learnt (`tokenizer.ggml.pre`), where
# transformers 5.23 does not carry that over: SmolLM's digits stand alone.
_SINGLE_DIGITS = frozenset({"smollm"})


def cache_folder() -> Path:
    """Where converted models are kept: HONING_CACHE, else honing/ in the user's cache folder."""
    if chosen := os.environ.get("HONING_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~")).expanduser() / "honing"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "honing"


def converted_folder(gguf_file: Path) -> Path:
    """The converted model of a .gguf file, converted now if it has not been.

    The folder is named by the file's SHA-256, and each of its files is checked against the hash
    noted when it was written; a damaged folder is made anew.
    """
    source_hash = sha256_of(gguf_file)
    folder = cache_folder() / "gguf" / f"{gguf_file.stem}-{source_hash[:16]}-v{CONVERTER_VERSION}"
    if _is_intact(folder, source_hash):
        return folder
    print(f"Converting {gguf_file.name} (once, about half a minute) …", file=sys.stderr)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder.parent) as name:
            aside = Path(name) / folder.name
            aside.mkdir()
            _convert(gguf_file, aside)
            files = {path.name: sha256_of(path) for path in sorted(aside.iterdir())}
            record = {"source": gguf_file.name, "source_sha256": source_hash, "files": files}
            (aside / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
            if not _is_intact(folder, source_hash):  # another process may have been quicker
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(aside, folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{folder.parent}: the converted model cannot be written ({reason}); "
            "set HONING_CACHE to a folder with 1 GB of space"
        ) from None
    return folder


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_intact(folder: Path, source_hash: str) -> bool:
    try:
        record = read_json(folder / _RECORD)
        return record["source_sha256"] == source_hash and all(
            sha256_of(folder / Path(name).name) == expected
            for name, expected in record["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _convert(gguf_file: Path, folder: Path) -> None:
    try:
        import gguf  # noqa: F401  # transformers needs it and says so less clearly
    except ImportError:
        raise UserError(
            f"{gguf_file}: reading GGUF files needs one more package; pip install 'honing[gguf]'"
        ) from None
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(gguf_file.parent),
        "gguf_file": gguf_file.name,
        "local_files_only": True,
    }
    try:
        check_header(gguf_file)
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(**source)
    # A damaged or foreign file makes the reader raise whatever it stumbles over, and tokenizers'
    # own error is no Exception.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{gguf_file}: cannot be read as a GGUF model ({reason}); "
            "is the file complete, and its architecture one that transformers knows?"
        ) from None
    _drop_quantisation_marks(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _mend_tokenizer(folder, _pre_tokenizer_name(gguf_file))


def _drop_quantisation_marks(model: Any) -> None:
    """transformers marks what came from a GGUF file as not to be saved, though it is plain now."""
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _pre_tokenizer_name(gguf_file: Path) -> str:
    import gguf

    field = gguf.GGUFReader(gguf_file).fields.get("tokenizer.ggml.pre")
    return str(field.contents()) if field else ""


def _mend_tokenizer(folder: Path, pre_tokenizer: str) -> None:
    """Put right what the converter loses: the split of digits, the names of a model's inputs."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if pre_tokenizer in _SINGLE_DIGITS:
        digits = {"type": "Digits", "individual_digits": True}
        content["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [digits, content["pre_tokenizer"]],
        }
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    # Said of the reading machine, not of the tokenizer.
    for key in ("is_local", "local_files_only"):
        settings.pop(key, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    path.write_text(json.dumps(settings, ensure_ascii=False, indent=2), encoding="utf-8")
