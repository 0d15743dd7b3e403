"""What is fuzzed of models: adapters, states and records of checkpoints, bases, GGUF files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unittest import mock

from honing.config import Config, ModelConfig
from honing.data.template import choose_template
from honing.errors import UserError
from honing.generation.open_model import check_model
from honing.merging.gguf_export import write_gguf
from honing.model.gguf import converted_folder
from honing.model.gguf_header import Impossible, check_header
from honing.model.load import find_base, load_model, load_tokenizer, text_model
from honing.model.lora import load_adapter
from honing.training.checkpoint import check_adapter_files, problem_of, read_about
from tests.fuzz.targets import Target
from tests.tiny import tiny_model
from tests.tiny_run import TinyRun

ADAPTER_CONFIG_OF_PEFT = {
    **{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
    **{"target_modules": ["q_proj", "v_proj"], "bias": "none", "fan_in_fan_out": False},
    **{"auto_mapping": None, "base_model_name_or_path": "base", "modules_to_save": None},
    **{"rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False, "megatron_config": None},
    **{"megatron_core": "megatron.core", "layer_replication": None, "init_lora_weights": True},
    **{"loftq_config": {}, "layers_to_transform": None, "layers_pattern": None},
}


def model_targets(run: TinyRun, folder: Path) -> list[Target]:
    """All that reading a model means. folder: for copies and for a GGUF file."""
    checkpoint, base = folder / "checkpoint", folder / "base"
    shutil.copytree(run.checkpoints / "final", checkpoint)
    (checkpoint / "manifest.json").rename(folder / "manifest.json")
    shutil.copytree(run.base, base)
    write_gguf(run.base, folder / "tiny.gguf", "f32", [0])

    def of(kind: str, place: Path, name: str, records: bool = False) -> Target:
        seeds = ((place / name).read_bytes(),)
        read = _open_base if place == base else _open_checkpoint
        return Target(kind, f"model/{name}", seeds, read, records, place)

    adapter = of("adapter-config", checkpoint, "adapter_config.json", records=True)
    more = (*adapter.seeds, json.dumps(ADAPTER_CONFIG_OF_PEFT).encode())
    manifest = (folder / "manifest.json").read_bytes()
    gguf = ((folder / "tiny.gguf").read_bytes(),)
    return [
        Target(adapter.kind, adapter.file, more, _open_checkpoint, True, checkpoint),
        of("adapter-weights", checkpoint, "adapter_model.safetensors"),
        of("about", checkpoint, "honing.json", records=True),
        of("state", checkpoint, "trainer_state.pt"),
        Target("manifest", "model/manifest.json", (manifest,), _open_files, True, checkpoint),
        of("base-config", base, "config.json", records=True),
        of("base-weights", base, "model.safetensors"),
        of("tokenizer", base, "tokenizer.json", records=True),
        of("tokenizer-config", base, "tokenizer_config.json", records=True),
        of("generation-config", base, "generation_config.json", records=True),
        Target("gguf-header", "tiny.gguf", gguf, _check_header),
        Target("gguf", "tiny.gguf", gguf, _convert),
    ]


def _open_files(path: Path) -> object:
    """As --resume and generate look at a checkpoint before they open it."""
    check_adapter_files(path.parent)
    return problem_of(path.parent)


def _open_checkpoint(path: Path) -> object:
    folder = path.parent
    problem = problem_of(folder)
    assert problem is None or "\n" not in problem
    read_about(folder)
    check_model(str(folder), Config(), None)
    return load_adapter(tiny_model("llama"), folder)


def _open_base(path: Path) -> object:
    base = find_base(ModelConfig(base=str(path.parent)))
    tokenizer = load_tokenizer(base)
    text = text_model(base, tokenizer, choose_template("instruction", None))
    text.encoder.encode(["질문?\n", "a <|end|>"], True)
    return load_model(base, "float32", "cpu")


def _check_header(path: Path) -> object:
    try:
        check_header(path)
    except Impossible as error:
        raise UserError(error) from None
    return None


def _convert(path: Path) -> object:
    cache = path.parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    with (
        mock.patch.dict(os.environ, HONING_CACHE=str(cache)),
        open(os.devnull, "w") as nowhere,
        mock.patch("sys.stderr", nowhere),
    ):
        return converted_folder(path)
