"""What a training is made of: data, base, adapter; each `auto` resolved and said."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import peft
import torch
import transformers

from honing.config import Config
from honing.data.prepare import PreparedData
from honing.data.report import format_report
from honing.data.stored import shortest, with_ids_from
from honing.data.template import choose_template
from honing.data.text_model import TextModel
from honing.errors import UserError
from honing.model.device import Choice, choose_device, choose_dtype, total_memory_bytes
from honing.model.four_bit import check_four_bit, check_settings
from honing.model.load import Base, Model, find_base, load_model, load_tokenizer, text_model
from honing.model.lora import attach_lora, count_parameters, layers_to_adapt
from honing.model.plan import plan_training
from honing.model.vocabulary import check_embeddings, num_embeddings, tokenizer_fingerprint
from honing.preparation import prepare_rows
from honing.training.isolation import packing_works
from honing.training.layout import packed_row_tokens
from honing.training.processes import Processes
from honing.training.sharding import shard_base
from honing.version import VERSION

Say = Callable[[str], None]


@dataclass(frozen=True)
class Parts:
    """What a training is made of, before its first step. config: without "auto" in it."""

    config: Config
    base: Base
    model: Model
    text: TextModel
    tokenizer: dict[str, Any]
    data: PreparedData


def load_parts(config: Config, processes: Processes, say: Say) -> Parts:
    """Load and prepare all that a training needs. Each process does so for itself, and finds what
    the others do; settings are the first one's. Raises UserError for what the user can mend."""
    device = choose_device(config.device)
    if config.model.load_in_4bit:
        check_settings(config)
        check_four_bit(device.value)
    dtype = processes.from_first(lambda: choose_dtype(config.model.dtype, device.value))
    base, tokenizer, text = processes.in_turns(lambda: _load_text(config))
    data = processes.in_turns(lambda: prepare_rows(config, text, tokenizer))
    say(format_report(data.report))
    whole_on = "cpu" if config.train.shard_base else device.value
    model = processes.each(lambda: _load_base(base, dtype.value, whole_on, data))
    vocabulary = {
        "fingerprint": tokenizer_fingerprint(tokenizer),
        "num_tokens": len(tokenizer),
        "num_embeddings": num_embeddings(model),
    }
    fingerprint = model.honing_fingerprint
    _check_same_everywhere(
        processes,
        {
            f"model.base: {base.name}": (fingerprint, vocabulary["fingerprint"]),
            "data.source": data.report.fingerprint,
        },
    )
    config, reasons = _with_layers(config, model)
    model = attach_lora(model, config.lora, config.seed)
    model.honing_fingerprint = fingerprint
    if config.train.shard_base:
        model = shard_base(model, processes, device.value)
    shared_by = processes.num_local if device.value == "cpu" else 1
    works = packing_works(model, [*shortest(data.train.tokens, 3)], device.value)
    plan = processes.from_first(
        lambda: plan_training(
            config,
            model,
            device=device.value,
            dtype=dtype.value,
            packing_works=works,
            packed_row_tokens=packed_row_tokens(model.dtype, config.data.max_length),
            memory_bytes=total_memory_bytes(device.value) // shared_by,
        )
    )
    _say_choices(device, dtype, base, model, reasons + plan.reasons, say)
    return Parts(plan.config, base, model, text, vocabulary, data)


def _load_text(config: Config) -> tuple[Base, Any, TextModel]:
    base = find_base(config.model)
    tokenizer = load_tokenizer(base)
    template = choose_template(config.data.template, tokenizer.chat_template)
    return base, tokenizer, text_model(base, tokenizer, template)


def _load_base(base: Base, dtype: str, device: str, data: PreparedData) -> Model:
    model = load_model(base, dtype, device)
    known = num_embeddings(model)
    unknown = (with_ids_from(rows.tokens, known) for rows in (data.train, data.val))
    check_embeddings(model, chain.from_iterable(unknown), base.name)
    return model


def _check_same_everywhere(processes: Processes, fingerprints: dict[str, object]) -> None:
    everywhere = processes.gathered(fingerprints)
    for key, expected in everywhere[0].items():
        for rank, found in enumerate(everywhere):
            if found[key] != expected:
                raise UserError(
                    f"{key}: process {rank} finds another under this name than process 0; give "
                    "every machine the same files"
                )


def _with_layers(config: Config, model: Model) -> tuple[Config, tuple[str, ...]]:
    """lora.target_modules with "auto" resolved, and why."""
    if config.lora.target_modules != "auto":
        return config, ()
    layers = layers_to_adapt(model)
    names = ", ".join(dict.fromkeys(layer.rsplit(".", 1)[-1] for layer in layers))
    lora = config.lora.model_copy(update={"target_modules": layers})
    reason = f"target_modules: {names}, all linear layers inside the blocks"
    return config.model_copy(update={"lora": lora}), (reason,)


def _say_choices(
    device: Choice, dtype: Choice, base: Base, model: Model, reasons: tuple[str, ...], say: Say
) -> None:
    say(f"Model: {base.name}")
    say(f"  device: {device.value} ({device.reason}); dtype: {dtype.value} ({dtype.reason})")
    say(f"  trainable: {count_parameters(model)}")
    for reason in reasons:
        say(f"  {reason}")


def describe(parts: Parts, processes: Processes) -> dict[str, Any]:
    """What a checkpoint says of itself: all that generating, evaluating and merging need."""
    return {
        "honing": VERSION,
        "base": {
            "name": parts.config.model.base,
            "fingerprint": parts.model.honing_fingerprint,
            "dtype": parts.config.model.dtype,
            "load_in_4bit": parts.config.model.load_in_4bit,
        },
        "tokenizer": parts.tokenizer,
        "template": parts.text.template.to_record(),
        "supervise": parts.config.data.supervise,
        "eos_id": parts.text.encoder.eos_id,
        "bos_id": parts.text.encoder.bos_id,
        "end_ids": list(parts.text.end_ids()),
        "data_fingerprint": parts.data.report.fingerprint,
        "seed": parts.config.seed,
        "environment": environment(processes),
    }


def environment(processes: Processes) -> dict[str, Any]:
    """What bit-for-bit repetition depends on, besides the configuration."""
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "num_threads": torch.get_num_threads(),
        "num_processes": processes.number,
    }
