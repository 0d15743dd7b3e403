"""The stage behind `honing merge`: adapter into base, written, read back, compared, then kept."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from honing.config import Config
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.generation.open_model import OpenModel, answering_config, find_adapter, open_model
from honing.merging.card import default_card
from honing.merging.chat_text import jinja_template
from honing.merging.difference import Difference
from honing.merging.folder import REPORT, check_output, check_space, folder_aside, write_model
from honing.merging.gguf_export import BITS, check_gguf, write_gguf
from honing.merging.gguf_verify import verify_gguf
from honing.merging.ollama import MODELFILE, modelfile
from honing.merging.reference import (
    Reference,
    choose_rows,
    in_published_base,
    measure_reference,
)
from honing.merging.verify import Expected, Verification, verify_merged
from honing.merging.weights import DTYPES, are_tied, check_adapter, merge_weights, tensor_hashes
from honing.model.device import peak_memory_bytes
from honing.model.forward import plain_model
from honing.model.four_bit import is_in_4bit, num_values
from honing.model.gguf import sha256_of
from honing.model.load import Model, find_base, fingerprint_of, load_tokenizer
from honing.model.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from honing.run import RunFolder, write_json, write_text
from honing.training.checkpoint import read_about
from honing.version import VERSION

OTHER_FILES = 64 << 20
"""Bytes for all that is not weights: tokenizer, configuration, card."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Merged:
    """A merged model that passed its checks. gguf and modelfile: where a GGUF was asked for."""

    folder: Path
    verification: Verification
    gguf: Path | None
    record: dict[str, Any]

    def to_record(self) -> dict[str, Any]:
        return self.record


@dataclass(frozen=True)
class _Wishes:
    """What is merged, and how. about: what the checkpoint says of itself. in_4bit: the base was,
    while it was trained on."""

    name: str
    adapter: Path
    about: dict[str, Any]
    config: Config
    dtype: str
    base_dtype: str
    in_4bit: bool
    card: str | None


def merge(
    name: str,
    output: str | None = None,
    *,
    dtype: str | None = None,
    checkpoint: str | None = None,
    gguf: str | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
    card: str | None = None,
    say: Say = print,
) -> Merged:
    """Merge a run's adapter into its base; the folder loads with transformers alone.

    output: default merged/ in the run. dtype: of storage, one of weights.DTYPES; default the
    base's own. gguf: one of gguf_export.BITS, for a GGUF file too. card: text of README.md.
    Raises UserError for what the user can mend, CheckFailed where the merged model is not the one
    that was measured; neither leaves a folder behind.
    """
    started = time.perf_counter()
    adapter = find_adapter(name, checkpoint)
    if adapter is None:
        raise UserError(f"{name}: is no run and holds no adapter; name a run that was trained")
    run = _run_of(adapter)
    folder = _output(output, Path(name).expanduser(), run)
    check_output(folder, overwrite=overwrite)
    config = _merging_config(name, overrides)
    opened = open_model(str(adapter), config, fold=False)
    check_adapter(opened.model)
    in_4bit = is_in_4bit(opened.model)
    stored = _stored_dtype(opened.model)
    about = read_about(adapter) or {}
    stores = _choose_dtype(dtype, stored)
    wishes = _Wishes(name, adapter, about, config, stores, stored, in_4bit, card)
    _check_room(opened, wishes, folder, gguf)
    say(f"Computing what {adapter} answers, unmerged")
    chosen = choose_rows(run, opened)
    reference = measure_reference(opened, chosen, getattr(torch, wishes.dtype))
    published = _in_published_base(opened, wishes, reference)
    say(f"Merging in float64, storing {wishes.dtype}")
    opened = open_model(str(adapter), config, fold=False, expanded=True)
    with folder_aside(folder, overwrite=overwrite) as aside:
        expected = _write_merged(opened, wishes, reference, aside)
        text = opened.text
        del opened
        say("Reading it back from disk, and comparing")
        verification = verify_merged(aside, expected)
        record = _record(wishes, expected, verification, published)
        if gguf is not None:
            say(f"Writing {gguf} for llama.cpp")
            record["gguf"] = _write_gguf(aside, wishes, expected, text, gguf)
        record |= _measured(aside, time.perf_counter() - started)
        write_json(aside / REPORT, record)
    file = None if gguf is None else folder / record["gguf"]["name"]
    return Merged(folder, verification, file, record)


def _run_of(adapter: Path) -> RunFolder | None:
    """The run that a checkpoint lies in; None for an adapter that lies elsewhere."""
    checkpoints = adapter.resolve().parent
    run = RunFolder(checkpoints.parent)
    return run if checkpoints == run.checkpoints else None


def _output(wanted: str | None, named: Path, run: RunFolder | None) -> Path:
    if wanted is not None:
        return Path(wanted).expanduser()
    if not (named / ADAPTER_CONFIG).is_file():
        return RunFolder(named).merged
    if run is None:
        raise UserError(f"{named}: is an adapter outside a run; say where to with --output DIR")
    return run.merged


def _merging_config(name: str, overrides: Sequence[str]) -> Config:
    """How to open the run: on the CPU, where float64 is, and in float32."""
    for override in overrides:
        key = override.partition("=")[0]
        if key in ("device", "model.dtype"):
            raise UserError(
                f"command line, {key}: does nothing to a merge, which is computed on the CPU in "
                "float32 and float64; --dtype says in which type it is stored"
            )
    config = answering_config(name, overrides)
    model = config.model.model_copy(update={"dtype": "float32"})
    return config.model_copy(update={"device": "cpu", "model": model})


def _stored_dtype(model: Model) -> str:
    """The type that the base is stored in, as transformers found it when it loaded it."""
    return str(plain_model(model).config.dtype).removeprefix("torch.")


def _choose_dtype(wanted: str | None, stored: str) -> str:
    dtype = wanted or stored
    if dtype not in DTYPES:
        which = "--dtype" if wanted else "model.base: is stored in"
        raise UserError(f"{which}: {dtype}; a merged model is stored in {', '.join(DTYPES)}")
    return dtype


def _check_room(opened: OpenModel, wishes: _Wishes, output: Path, gguf: str | None) -> None:
    """Raise UserError where a GGUF of this model, or any of it on this disk, cannot be."""
    model = plain_model(opened.model)
    if gguf is not None:
        check_gguf(model.config, _tokenizer(opened, wishes), gguf)
    numbers = sum(num_values(p) for name, p in model.named_parameters() if "lora_" not in name)
    bits = 8 * getattr(torch, wishes.dtype).itemsize + (0 if gguf is None else BITS[gguf])
    check_space(output, int(numbers * bits / 8) + OTHER_FILES)


def _tokenizer(opened: OpenModel, wishes: _Wishes) -> Any:
    model = wishes.config.model.model_copy(update={"base": opened.text.name})
    return load_tokenizer(find_base(model))


def _in_published_base(
    opened: OpenModel, wishes: _Wishes, reference: Reference
) -> Difference | None:
    """Of the merge that is not made, from what was trained; None where both are the same."""
    if not wishes.in_4bit:
        return None
    model = wishes.config.model.model_copy(update={"base": opened.text.name})
    return in_published_base(model, wishes.adapter, reference)


def _write_merged(
    opened: OpenModel, wishes: _Wishes, reference: Reference, folder: Path
) -> Expected:
    """Merge, and write the folder. Returns what it must be found to hold."""
    about, text = wishes.about, opened.text
    base = {
        "name": _public_name(text.name),
        "fingerprint": opened.model.honing_fingerprint,
        "expanded_from_4bit": wishes.in_4bit,
    }
    tokenizer = _tokenizer(opened, wishes)
    model = merge_weights(opened.model, getattr(torch, wishes.dtype))
    end_ids = tuple(dict.fromkeys((*about.get("end_ids", ()), *reference.ends.ids)))
    expected = Expected(
        dtype=wishes.dtype,
        hashes=tensor_hashes(model),
        tied=are_tied(model),
        fingerprint=fingerprint_of(model),
        vocabulary_size=model.config.get_text_config().vocab_size,
        num_tokens=len(tokenizer),
        eos_id=about.get("eos_id", text.encoder.eos_id),
        end_ids=end_ids,
        template=text.template,
        reference=reference,
        trust_remote_code=wishes.config.model.trust_remote_code,
    )
    record = {
        "honing": VERSION,
        "merged_from": {
            "run": _run_name(wishes),
            "checkpoint": wishes.adapter.name,
            "adapter_sha256": sha256_of(wishes.adapter / ADAPTER_WEIGHTS),
        },
        "base": base,
        "fingerprint": expected.fingerprint,
        "template": text.template.to_record(),
        "eos_id": expected.eos_id,
        "bos_id": text.encoder.bos_id,
        "end_ids": list(end_ids),
        "data_fingerprint": about.get("data_fingerprint"),
        "generate": wishes.config.generate.model_dump(),
    }
    write_model(
        folder,
        model,
        tokenizer,
        chat_template=jinja_template(text.template, writes_bos=text.encoder.bos_id is not None),
        end_ids=end_ids,
        about=record,
        card=wishes.card or default_card(record, wishes.dtype),
    )
    return expected


def _run_name(wishes: _Wishes) -> str:
    """Its folder's name alone: what is merged may be given away, with all that lies in it."""
    run = _run_of(wishes.adapter)
    return (Path(wishes.name) if run is None else run.root).resolve().name


def _public_name(base: str) -> str:
    """A name of the Hub as it is, and of a folder or file the last part."""
    path = Path(base).expanduser()
    return path.resolve().name if path.exists() else base


def _write_gguf(
    folder: Path, wishes: _Wishes, expected: Expected, text: TextModel, type: str
) -> dict[str, Any]:
    """The GGUF file and its Modelfile beside the model."""
    path = folder / f"{Path(wishes.name).resolve().name}-{type}.gguf"
    write_gguf(folder, path, type, expected.end_ids)
    file = verify_gguf(folder, path, type, expected.reference)
    bos = text.encoder.bos_id
    content = modelfile(
        path.name,
        text,
        wishes.config.generate,
        eos_token=text.decode([expected.eos_id]),
        bos_token=None if bos is None else text.decode([bos]),
        end_tokens=[text.decode([end]) for end in expected.end_ids],
    )
    write_text(folder / MODELFILE, content)
    return {**file.to_record(), "modelfile": MODELFILE}


def _record(
    wishes: _Wishes, expected: Expected, verification: Verification, published: Difference | None
) -> dict[str, Any]:
    """merge_report.json, but for what is known at its end. published: None for a plain base."""
    reference = expected.reference
    return {
        "honing": VERSION,
        "run": _run_name(wishes),
        "checkpoint": wishes.adapter.name,
        "dtype": wishes.dtype,
        "base_dtype": wishes.base_dtype,
        "base_in_4bit": None if published is None else {"in_published_base": published.to_record()},
        "arithmetic": "float64, layer by layer, rounded once to dtype; compared in float32",
        "tied_embeddings": expected.tied,
        "num_tensors": len(expected.hashes),
        "compared_on": {
            "split": reference.split,
            "num_rows": len(reference.rows),
            "num_positions": verification.difference.num_positions,
            "largest_logit": reference.largest_logit,
        },
        "effect_of_adapter": reference.effect.to_record(),
        "effect_of_rounding": reference.rounding.to_record(),
        **verification.to_record(),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "python": platform.python_version(),
        },
    }


def _measured(folder: Path, seconds: float) -> dict[str, Any]:
    """Files with their sizes and hashes, seconds, and the most memory of this process."""
    files = {
        path.name: {"num_bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
    }
    return {
        "files": files,
        "num_bytes": sum(file["num_bytes"] for file in files.values()),
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes("cpu"),
    }


def format_terminal(merged: Merged) -> str:
    """What the command prints."""
    record, found = merged.record, merged.verification.difference
    limits = record["tolerance"]
    lines = [
        f"Merged {record['run']} ({record['checkpoint']}) into {merged.folder}: {record['dtype']}, "
        f"{record['num_bytes'] / 1e6:.0f} MB, {record['seconds']:.0f} s",
        f"  read back and compared with base and adapter on {found.num_positions} positions of "
        f"{record['compared_on']['num_rows']} rows ({record['compared_on']['split']}):",
        f"  logits differ by at most {found.max_abs_logit:.1e} (tolerance "
        f"{limits['max_abs_logit']:.1e}), mean KL {found.mean_kl_nats:.1e} nats (tolerance "
        f"{limits['mean_kl_nats']:.1e}; the adapter's own effect "
        f"{record['effect_of_adapter']['mean_kl_nats']:.1e})",
        f"  most likely token the same in {found.num_agreeing} of {found.num_positions}; greedy "
        f"answers the same in {merged.verification.same_answers} of "
        f"{merged.verification.num_answers}",
    ]
    if (in_4bit := record["base_in_4bit"]) is not None:
        other = in_4bit["in_published_base"]
        lines.append(
            "  the base is the one that was trained on, its 4-bit weights expanded; merged into it "
            f"as published, the model would be off by a mean KL of {other['mean_kl_nats']:.1e} nats"
        )
    if merged.gguf is not None:
        lines += _gguf_lines(merged.gguf, record["gguf"])
    return "\n".join(lines)


def _gguf_lines(path: Path, record: dict[str, Any]) -> list[str]:
    found, checked = record["difference"], record["llama_cpp"]
    lines = [
        f"{path}: {record['num_bytes'] / 1e6:.0f} MB; ollama create NAME -f "
        f"{path.parent / MODELFILE}",
        f"  with its values: mean KL {found['mean_kl_nats']:.1e} nats from base and adapter, most "
        f"likely token the same in {found['num_agreeing']} of {found['num_positions']}",
    ]
    if checked is None:
        return [*lines, "  not run in llama.cpp: neither xllamacpp nor llama-cpp-python is here"]
    answers = checked["greedy_answers"]
    return [
        *lines,
        f"  in llama.cpp: greedy answers the same in {answers['same']} of {answers['of']}, "
        f"log-probabilities {checked['mean_nats']:.1e} nats from torch's",
    ]
