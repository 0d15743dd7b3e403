"""The stage behind `honing plan`: real steps are timed, and nothing is left changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import honing.training.cost
from honing.cli import main
from honing.config import Config
from honing.errors import UserError
from honing.model.device import peak_memory_bytes
from honing.model.lora import adapter_weights, attach_lora
from honing.training.cost import (
    Cost,
    _shorter_rows,
    forecast,
    format_cost,
    measure_cost,
    plan,
)
from honing.training.trainer import Trainer
from tests.runs import contents_below, qa_rows, save_rows, small_config, small_overrides
from tests.tiny import PAIRS, encoded, tiny_model, tiny_tokenizer, train_settings

ROWS = encoded(PAIRS)
LENGTHS = [len(row.ids) for row in ROWS]


@pytest.fixture
def config(tiny_base: Path, tmp_path: Path) -> Config:
    rows = save_rows(tmp_path / "rows.jsonl", qa_rows())
    return small_config(tiny_base, rows, tmp_path / "out", "data.val_fraction=0.2")


def quiet(_: str) -> None:
    pass


def too_little() -> float:
    """GB: four fifths of what this process has taken already."""
    return 0.8 * peak_memory_bytes("cpu") / 1e9


def trainer(**settings: Any) -> Trainer:
    model = attach_lora(tiny_model("llama"), Config().lora, seed=0)
    given = {"epochs": 3, "global_batch_size": 4, "packing": True, **settings}
    chosen = train_settings(**given)
    return Trainer(model, ROWS, ROWS[:3], chosen, seed=1, packing_is_checked=True)


def config_of(made: Trainer) -> Config:
    return Config().model_copy(update={"device": "cpu", "train": made.settings})


def test_a_plan_writes_nothing(config: Config, tmp_path: Path) -> None:
    before = contents_below(tmp_path)
    cost = plan(config, quiet)
    assert contents_below(tmp_path) == before
    assert cost.fits
    assert (cost.num_steps, cost.advice) == (6, ())


def test_counts_of_the_whole_training() -> None:
    made = trainer()
    cost = measure_cost(made, config_of(made))
    assert (cost.num_steps, cost.num_tokens) == (6, 3 * sum(LENGTHS))
    assert cost.num_timed_steps == 2, "all of the first epoch's"
    longest = max(sum(LENGTHS[i] for i in step) for step in first_epoch(made))
    assert (longest, cost.row_tokens) == (223, 224), "as it is laid out"
    assert cost.training_seconds == pytest.approx(cost.num_tokens / cost.tokens_per_s)


def first_epoch(made: Trainer) -> list[Any]:
    from honing.data.pack import epoch_order, steps_of_epoch

    return steps_of_epoch(epoch_order(len(ROWS), made.seed, 0), 4)


def test_a_training_after_a_plan_is_the_same_to_the_bit() -> None:
    adapters = []
    for planned in (False, True):
        made = trainer(learning_rate=1e-2)
        torch.manual_seed(7)
        if planned:
            measure_cost(made, config_of(made))
        made.train()
        adapters.append(adapter_weights(made.model))
    assert all(torch.equal(adapters[0][name], tensor) for name, tensor in adapters[1].items())


@pytest.mark.parametrize(
    ("settings", "number"),
    [({}, 4), ({"eval_every": 2}, 4), ({"eval_every": 4}, 3), ({"max_steps": 3}, 3)],
)
def test_validations_are_counted(
    settings: dict[str, Any], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(honing.training.cost, "_validation_seconds", lambda _: 10.0)
    made = trainer(**settings)
    assert measure_cost(made, config_of(made)).validation_seconds == 10.0 * number
    made.train()
    # The base's is the first; then as the loop itself measured.
    logged = sum(epoch.val_loss is not None for epoch in made.state.history)
    assert number >= logged + 1


def test_what_does_not_fit_gets_advice(config: Config) -> None:
    limit = too_little()
    limited = config.train.model_copy(update={"memory_limit": limit})
    cost = plan(config.model_copy(update={"train": limited}), quiet)
    assert not cost.fits
    assert cost.available_bytes == int(limit * 1e9)
    assert cost.advice[-1] == "a smaller model.base"
    assert "DOES NOT FIT" in format_cost(cost)


def test_what_cannot_begin_to_fit_is_refused(config: Config) -> None:
    limited = config.train.model_copy(update={"memory_limit": 0.001})
    with pytest.raises(UserError, match=r"^plan: the longest micro-batch, \d+ tokens, needs some"):
        plan(config.model_copy(update={"train": limited}), quiet)


def test_what_is_said() -> None:
    cost = Cost(90, 6000, 50.0, 120.0, 30.0, 2 * 10**9, 8 * 10**9, 412, 3, ())
    assert format_cost(cost) == (
        "  memory: 2.00 of 8.00 GB: fits (measured at the longest row, 412 tokens)\n"
        "  time: 2 min for 6,000 tokens at 50 a second, and 30 s of validation "
        "(3 of 90 steps timed)"
    )


# --- the line at the head of a training


def said(
    monkeypatch: pytest.MonkeyPatch,
    gb: float,
    *,
    saved: int = 0,
    device: str = "cpu",
    **settings: Any,
) -> str:
    """Where 1 GB is taken before the first step, and gb are there."""
    monkeypatch.setattr(honing.training.cost, "peak_memory_bytes", lambda _: 10**9)
    monkeypatch.setattr(honing.training.cost, "_available_bytes", lambda _: round(gb * 1e9))
    monkeypatch.setattr(honing.training.cost, "saved_bytes", lambda _: saved)
    made = trainer(**settings)
    return forecast(made, config_of(made).model_copy(update={"device": device}))


def test_a_short_training_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honing.training.cost, "measure_cost", None)
    assert said(monkeypatch, 8) == (
        "  memory: some 1.0 of 8.0 GB; time: see the bar after the first steps"
    )


def test_what_seems_too_large_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honing.training.cost, "measure_cost", None)
    assert said(monkeypatch, 0.5) == (
        "WARNING: memory: some 1.0 of 0.5 GB: WILL HARDLY FIT; to fit: "
        "train.gradient_checkpointing=true (about a third more time); or data.max_length=112 "
        "train.packed_row_tokens=112 (longer rows are cut or left out); or lora.rank=4; or a "
        "smaller model.base"
    )
    saving: dict[str, Any] = {"saved": 3 * 10**8, "gradient_checkpointing": True}
    assert "load_in_4bit" not in said(monkeypatch, 0.5, **saving)
    assert said(monkeypatch, 0.5, device="cuda", **saving) == (
        "WARNING: memory: some 1.0 of 0.5 GB: WILL HARDLY FIT; to fit: data.max_length=112 "
        "train.packed_row_tokens=112 (longer rows are cut or left out); or lora.rank=4; or "
        "model.load_in_4bit=true (0.3 GB less); or a smaller model.base"
    )


def test_shorter_rows_are_named_by_the_settings_that_make_them() -> None:
    short = Config().data.model_copy(update={"max_length": 256})
    packed = Config().train.model_copy(update={"packing": True})
    padded = Config().train.model_copy(update={"packing": False})
    fits = Config().model_copy(update={"data": short, "train": packed})
    assert _shorter_rows(256, fits) == "train.packed_row_tokens=256 (somewhat slower)"
    assert _shorter_rows(255, fits) == (
        "data.max_length=255 train.packed_row_tokens=255 (longer rows are cut or left out)"
    )
    assert _shorter_rows(300, fits.model_copy(update={"train": padded})) == (
        "data.max_length=300 (longer rows are cut or left out)"
    )


@pytest.mark.parametrize(
    ("peak", "line"),
    [
        (2, "  memory: 2.0 of 8.0 GB; time: 2 min, and 30 s of validation"),
        (9, "WARNING: memory: 9.0 of 8.0 GB: DOES NOT FIT; to fit: a; or b"),
    ],
)
def test_a_long_training_is_timed(peak: int, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(made: Trainer, _: Config, *, timed_s: float) -> Cost:
        assert (made.num_steps, timed_s) == (150, 0.0)
        advice = ("a", "b") if peak > 8 else ()
        return Cost(150, 6000, 50.0, 120.0, 30.0, peak * 10**9, 8 * 10**9, 412, 1, advice)

    monkeypatch.setattr(honing.training.cost, "measure_cost", measured)
    assert said(monkeypatch, 8, max_steps=150, epochs=75) == line


def test_a_forecast_takes_a_step_and_the_longest_micro_batch_twice_and_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(honing.training.cost, "PROBED_STEPS", 6)
    adapters, tried = [], []
    add_gradients = Trainer.add_gradients

    def counted(*given: Any) -> float:
        tried.append(given)
        return add_gradients(*given)

    monkeypatch.setattr(Trainer, "add_gradients", counted)
    for foreseen in (False, True):
        made = trainer(learning_rate=1e-2)
        torch.manual_seed(7)
        before = len(tried)
        if foreseen:
            forecast(made, config_of(made))
            given = [batches for _, batches, _ in tried[before:]]
            assert [len(batches) for batches in given] == [1, 1, 1]
            assert given[0][0] is given[2][0] is not given[1][0]
        made.train()
        adapters.append(adapter_weights(made.model))
    assert all(torch.equal(adapters[0][name], tensor) for name, tensor in adapters[1].items())


def test_the_command(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = save_rows(tmp_path / "rows.jsonl", qa_rows())
    written = tmp_path / "c.yaml"
    written.write_text(f"model:\n  base: {tiny_base}\ndata:\n  source: {rows}\n", encoding="utf-8")
    assert main(["plan", str(written), "device=cpu", "data.max_length=64"]) == 0
    assert f"Next: honing train {written} device=cpu data.max_length=64" in capsys.readouterr().out
    limited = [f"train.memory_limit={too_little()}", "device=cpu", "data.max_length=64"]
    assert main(["plan", str(written), *limited]) == 1
    assert "DOES NOT FIT" in capsys.readouterr().out


@pytest.mark.process
def test_the_memory_that_is_planned_is_what_a_training_takes(tmp_path: Path) -> None:
    """In processes of their own, on a base whose activations outweigh the program's own memory."""
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 4096, "num_hidden_layers": 8}
    LlamaForCausalLM(
        LlamaConfig(**shape, num_attention_heads=4, vocab_size=320, max_position_embeddings=512)
    ).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    answer = " ".join("The quick brown fox jumps over the lazy dog." for _ in range(8))
    rows = [{"instruction": f"Say {n}.", "output": f"{n}: {answer}"} for n in range(20)]
    source = save_rows(tmp_path / "rows.jsonl", rows)
    found = {}
    for command, key in (("plan", "peak_bytes"), ("train", "peak_memory_bytes")):
        config = tmp_path / f"{command}.yaml"
        config.write_text(f"data:\n  source: {source}\n  max_length: 512\n", encoding="utf-8")
        overrides = small_overrides(tmp_path / "base", source, tmp_path / command)[1:]
        overrides = [o for o in overrides if not o.startswith("data.max_length")]
        arguments = [command, str(config), *overrides, f"output_dir={tmp_path / command}", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "honing", *arguments, "train.epochs=1"],
            stdout=subprocess.PIPE,
            check=True,
            timeout=300,
        )
        found[command] = json.loads(done.stdout)[key]
    assert found["plan"] == pytest.approx(found["train"], rel=0.15)
    assert found["train"] > 7e8, "else the program's own memory would hide a wrong plan"
