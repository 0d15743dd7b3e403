"""The run that this system was first drafted with, on its own shape: GPT-2 small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from honing.cli import main

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "first_draft.yaml"
SHORT = (
    "data.max_rows=2",
    "train.max_steps=1",
    "train.eval_every=never",
    "device=cpu",
    "model.dtype=float32",
)


@pytest.fixture(scope="module")
def gpt2_small(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder of GPT-2 small's shape with random weights, and its own tokenizer."""
    folder = tmp_path_factory.mktemp("gpt2_small")
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).to(torch.bfloat16).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "gpt2-tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.shared
def test_the_first_draft_on_gpt2_small(
    gpt2_small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(CONFIG), f"model.base={gpt2_small}", *SHORT]) == 0
    shown = capsys.readouterr().out
    assert "  trainable: 811,008 of 125,250,816 parameters (0.65 %)\n" in shown
    assert "note: learning from 2 of 800 training rows (data.max_rows)\n" in shown

    final = Path("outputs/checkpoints/final")
    sizes = {path.name: path.stat().st_size for path in final.iterdir()}
    assert set(sizes) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "trainer_state.pt",
        "honing.json",
        "manifest.json",
    }
    # Four bytes a parameter, and two AdamW moments of the same size: its 9.4 MB.
    assert 0 < sizes["adapter_model.safetensors"] - 4 * 811_008 < 20_000
    assert 0 < sizes["trainer_state.pt"] - 8 * 811_008 < 100_000
    settings = json.loads((final / "adapter_config.json").read_text(encoding="utf-8"))
    assert sorted(settings["target_modules"]) == ["c_attn", "c_proj"]
    assert (settings["r"], settings["lora_alpha"], settings["lora_dropout"]) == (8, 16, 0.05)
    assert settings["fan_in_fan_out"] is True

    (events,) = Path("outputs/logs").iterdir()
    assert events.name.startswith("events.out.tfevents.")
    report = json.loads(Path("outputs/training_report.json").read_text(encoding="utf-8"))
    assert (report["trainable_parameters"], report["total_parameters"]) == (811_008, 125_250_816)
    assert report["num_steps"] == 1
