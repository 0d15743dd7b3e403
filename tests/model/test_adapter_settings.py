"""adapter_config.json from anyone: what is taken from it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest

from honing.model.adapter_settings import Unfit, adapter_settings

SHAPES = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": (4, 32),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": (32, 4),
    "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": (2, 32),
    "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": (64, 2),
    "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight": (4, 32),
    "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight": (32, 4),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector": (32,),
}
RECORD = {"peft_type": "LORA", "r": 4, "rank_pattern": {"up_proj": 2}, "lora_alpha": 16}


def settings_of(folder: Path, shapes: dict[str, tuple[int, ...]] = SHAPES, **changes: Any) -> Any:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**RECORD, **changes}))
    return adapter_settings(path, shapes)


def test_layers_and_ranks_are_those_of_the_tensors(tmp_path: Path) -> None:
    found = settings_of(tmp_path, target_modules="(.*)*x", exclude_modules="(a+)+$")
    assert found.target_modules == {
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
    }
    assert found.exclude_modules is None
    assert (found.r, found.rank_pattern) == (4, {r"model\.layers\.0\.mlp\.up_proj": 2})
    assert (found.lora_alpha, found.lora_dropout, found.bias) == (16, 0.0, "none")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"use_dora": True, "use_rslora": True}, {"use_dora": True, "use_rslora": True}),
        ({"init_lora_weights": "pissa_niter_4"}, {"init_lora_weights": "pissa_niter_4"}),
        ({"init_lora_weights": "gaussian"}, {"init_lora_weights": True}),
        ({"alpha_pattern": {"up_proj": 3}}, {"alpha_pattern": {"up_proj": 3}}),
        ({"alpha_pattern": {"^m.up_proj": 3}}, {"alpha_pattern": {r"^m\.up_proj": 3}}),
        ({"modules_to_save": ["lm_head"]}, {"modules_to_save": ["lm_head"]}),
        ({"lora_dropout": 0.3, "megatron_core": "os"}, {"lora_dropout": 0.0}),
        ({"a_key_of_tomorrow": None, "another": False}, {}),
    ],
)
def test_what_is_taken(changes: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    found = settings_of(tmp_path, **changes)
    assert {key: getattr(found, key) for key in expected} == expected


def test_what_peft_writes_says_nothing_that_is_refused(tmp_path: Path) -> None:
    peft.LoraConfig(r=4, rank_pattern={"up_proj": 2}, target_modules=["x"]).save_pretrained(
        tmp_path
    )
    assert adapter_settings(tmp_path / "adapter_config.json", SHAPES).r == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"megatron_config": {"a": 1}}, "adapter_config.json sets megatron_config, which honing"),
        ({"layer_replication": [[0, 9]]}, "adapter_config.json sets layer_replication, which"),
        ({"a_key_of_tomorrow": 1}, "adapter_config.json sets a_key_of_tomorrow, which honing"),
        ({"init_lora_weights": "loftq"}, 'init_lora_weights is "loftq", which honing does not'),
        ({"init_lora_weights": "pissa_niter_999"}, "init_lora_weights is"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "alpha_pattern holds more than names of layers"),
        ({"alpha_pattern": {"a": "3"}}, 'alpha_pattern is "3"; expected a number'),
        ({"lora_alpha": 1e999}, "lora_alpha is Infinity; expected a number"),
        ({"lora_alpha": True}, "lora_alpha is true; expected a number"),
        ({"r": 10**9, "rank_pattern": {}}, "r is 1000000000, and its tensors have another rank"),
        ({"r": "4"}, 'r is "4"; expected a whole number'),
        ({"bias": "some"}, 'bias is "some"; expected one of'),
        ({"use_dora": 1}, "use_dora is 1; expected one of"),
        ({"modules_to_save": "all"}, 'modules_to_save is "all"; expected names of layers'),
        ({"target_modules": 3}, "target_modules is 3; expected names of layers"),
        ({"peft_type": "IA3"}, "holds an adapter of type IA3; honing reads LoRA adapters"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(Unfit) as caught:
        settings_of(tmp_path, **changes)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("shapes", [{}, {"a.b": (1, 2)}, {next(iter(SHAPES)): (0, 32)}])
def test_tensors_that_are_no_adapter(shapes: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="its tensors are none of a LoRA adapter"):
        settings_of(tmp_path, shapes)
