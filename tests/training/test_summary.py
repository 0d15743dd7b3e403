"""The end of a run in numbers: table and text of a report made by hand, exactly."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from honing.config import Config
from honing.config_file import load_config
from honing.run import RunFolder
from honing.training.state import EpochRecord, Totals
from honing.training.summary import (
    EpochSummary,
    TrainingReport,
    change_percent,
    format_markdown,
    format_summary,
    format_table,
    format_terminal,
    summarise,
    weights_bytes,
    write_report,
)

EPOCHS = (
    EpochSummary(1, 2.6645, None, 2.0820, -20.0, 82.04, 9.751, 1234.5),
    EpochSummary(2, 1.9000, -28.69, 1.5000, -27.95, 81.96, 9.76, 1236.0),
    EpochSummary(3, 1.6462, -13.36, 1.3502, -9.99, 82.0, 9.7555, 1235.0),
)


def report(**changes: Any) -> TrainingReport:
    config = load_config(None, ["seed=7", "data.source=a.jsonl", "data.columns={instruction: Q}"])
    values: dict[str, Any] = {
        "epochs": EPOCHS,
        "base_val_loss": 2.6025,
        "final_val_loss": 1.3502,
        "best_val_loss": 1.3502,
        "best_step": 150,
        "stopped_early": False,
        "num_steps": 150,
        "num_tokens": 303750,
        "num_supervised": 60750,
        "seconds": 260.4,
        "training_seconds": 246.0,
        "seconds_per_epoch": 82.0,
        "micro_batches_per_s": 9.756,
        "tokens_per_s": 1234.756,
        "trainable_parameters": 811008,
        "total_parameters": 125250816,
        "peak_memory_bytes": 500_000_000,
        "total_memory_bytes": 8_000_000_000,
        "memory_headroom_percent": 93.75,
        "adapter_bytes": 3_249_312,
        "checkpoint_bytes": 9_748_000,
        "base_bytes": 497_774_208,
        "saved_percent": 99.347,
        "checkpoint": "outputs/checkpoints/best",
        "next_command": "honing generate outputs --prompt '…'",
        "files": ("outputs/config.yaml", "outputs/checkpoints/final"),
        "data_fingerprint": "abc",
        "config": config.model_dump(mode="json"),
    }
    return TrainingReport(**{**values, **changes})


TABLE = """\
| epoch | train loss |  change | validation |  change |     s | batches/s | tokens/s |
|------:|-----------:|--------:|-----------:|--------:|------:|----------:|---------:|
|  base |            |         |     2.6025 |         |       |           |          |
|     1 |     2.6645 |         |     2.0820 | -20.0 % |  82.0 |      9.75 |     1234 |
|     2 |     1.9000 | -28.7 % |     1.5000 | -27.9 % |  82.0 |      9.76 |     1236 |
|     3 |     1.6462 | -13.4 % |     1.3502 | -10.0 % |  82.0 |      9.76 |     1235 |
|   all |            |         |            |         | 246.0 |      9.76 |     1235 |"""

SUMMARY = [
    "Validation loss 2.6025 (base) → 1.3502 (best, step 150): -48.1 %; perplexity 13.50 → 3.86",
    "150 steps, 303,750 tokens (60,750 learnt from) in 246 s of training, 82.0 s an epoch; "
    "260 s with validation and saving",
    "Peak memory 0.50 of 8.0 GB (94 % free)",
    "Trained 811,008 of 125,250,816 parameters (0.65 %)",
    "Adapter 3.2 MB, checkpoint with optimizer state 9.7 MB; the base has 497.8 MB, so 99.3 % is "
    "saved",
]


def test_the_table_exactly() -> None:
    assert "\n".join(format_table(report())) == TABLE


def test_without_validation_the_table_has_dashes() -> None:
    epoch = EpochSummary(1, 2.5, None, None, None, 1.25, 4.0, 100.0)
    alone = report(
        epochs=(epoch,),
        base_val_loss=None,
        final_val_loss=None,
        best_val_loss=None,
        best_step=None,
    )
    assert format_table(alone) == [
        "| epoch | train loss | change | validation | change |   s | batches/s | tokens/s |",
        "|------:|-----------:|-------:|-----------:|-------:|----:|----------:|---------:|",
        "|     1 |     2.5000 |        |          – |        | 1.2 |      4.00 |      100 |",
    ]
    assert format_summary(alone) == SUMMARY[1:]


def test_the_lines_below_the_table_exactly() -> None:
    assert format_summary(report()) == SUMMARY


def test_what_is_unusual_is_said() -> None:
    lines = format_summary(
        report(
            stopped_early=True,
            base_bytes=None,
            saved_percent=None,
            adapter_bytes=11_640,
            checkpoint_bytes=99_999,
            seconds=31.4,
            best_val_loss=800.0,
        )
    )
    assert lines[0].endswith("+30639.7 %; perplexity 13.50 → inf")
    assert lines[1].startswith("150 steps, stopped early, 303,750 tokens")
    assert lines[1].endswith("in 246 s of training, 82.0 s an epoch; 31 s since it was resumed")
    assert lines[4] == "Adapter 11.6 kB, checkpoint with optimizer state 100.0 kB"


def test_what_the_terminal_shows() -> None:
    end = [
        "Settings: rank 8, alpha 16, dropout 0.05, 3 epochs of 16 examples a step, "
        "rate 0.001 (cosine), auto, seed 7",
        "Written outputs/config.yaml",
        "Written outputs/checkpoints/final",
        "Use outputs/checkpoints/best",
        "Next: honing generate outputs --prompt '…'",
    ]
    assert format_terminal(report()).split("\n") == [*TABLE.split("\n"), *SUMMARY, *end]


def test_the_markdown_and_its_settings(tmp_path: Path) -> None:
    text = format_markdown(report())
    head, _, settings = text.partition("## Settings\n\n```yaml\n")
    assert head == (
        f"# Training report\n\n{TABLE}\n\n"
        + "".join(f"- {line}\n" for line in SUMMARY)
        + "\nUse `outputs/checkpoints/best`. Next: `honing generate outputs --prompt '…'`\n"
        "\n## Files\n\n- `outputs/config.yaml`\n- `outputs/checkpoints/final`\n\n"
    )
    assert settings.endswith("\n```\n")
    (tmp_path / "again.yaml").write_text(settings.removesuffix("```\n"), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml") == Config.model_validate(report().config)


def test_both_files_are_written_the_json_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    write_report(run, report())
    assert run.report_markdown.read_text(encoding="utf-8") == format_markdown(report())
    record = json.loads(run.report_json.read_text(encoding="utf-8"))
    assert record == json.loads(json.dumps(report().to_record()))
    run.clear()

    def full(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr("honing.training.summary.write_text", full)
    with pytest.raises(OSError, match="full"):
        write_report(run, report())
    assert not run.is_finished()


def test_the_record_has_the_promised_keys() -> None:
    record = report().to_record()
    assert set(record) == {
        "epochs",
        "base_val_loss",
        "final_val_loss",
        "best_val_loss",
        "best_step",
        "stopped_early",
        "num_steps",
        "num_tokens",
        "num_supervised",
        "seconds",
        "training_seconds",
        "seconds_per_epoch",
        "micro_batches_per_s",
        "tokens_per_s",
        "trainable_parameters",
        "total_parameters",
        "peak_memory_bytes",
        "total_memory_bytes",
        "memory_headroom_percent",
        "adapter_bytes",
        "checkpoint_bytes",
        "base_bytes",
        "saved_percent",
        "checkpoint",
        "next_command",
        "files",
        "data_fingerprint",
        "config",
    }
    assert set(record["epochs"][0]) == {
        "epoch",
        "train_loss",
        "train_change",
        "val_loss",
        "val_change",
        "seconds",
        "micro_batches_per_s",
        "tokens_per_s",
    }


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [
        (2.0, 1.5, -25.0),
        (2.0, 2.5, 25.0),
        (2.6645, 1.6462, pytest.approx(-38.2173, abs=1e-4)),  # the first draft's own figures
        (2.0820, 1.3502, pytest.approx(-35.1489, abs=1e-4)),
        (None, 1.0, None),
        (1.0, None, None),
        (0.0, 1.0, None),
        (math.inf, 1.0, None),
        (math.nan, 1.0, None),
    ],
)
def test_changes_in_percent(before: float | None, after: float | None, percent: Any) -> None:
    assert change_percent(before, after) == percent


def test_the_size_of_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "hub" / "models--owner--name"
    snapshot = cached / "snapshots" / "abc"
    for folder in (tmp_path / "local", snapshot):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        for number in (1, 2):
            (folder / f"model-{number}-of-2.safetensors").write_bytes(bytes(100 * number))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert weights_bytes(str(tmp_path / "local")) == 300
    assert weights_bytes("owner/name") == 300
    assert weights_bytes("owner/other") is None
    (tmp_path / "empty").mkdir()
    assert weights_bytes(str(tmp_path / "empty")) is None


def test_epochs_are_compared_with_the_one_before() -> None:
    def totals(loss: float) -> Totals:
        return Totals(
            loss_nats=loss * 10,
            num_supervised=10,
            num_tokens=100,
            num_micro_batches=8,
            num_steps=2,
            seconds=4.0,
        )

    history = [
        EpochRecord(0, totals(4.0), 3.0),
        EpochRecord(1, totals(3.0), None),
        EpochRecord(2, totals(1.5), 1.5),
    ]
    first, second, third = summarise(history, 6.0)
    assert first == EpochSummary(1, 4.0, None, 3.0, -50.0, 4.0, 2.0, 25.0)
    assert second == EpochSummary(2, 3.0, -25.0, None, None, 4.0, 2.0, 25.0)
    assert third == EpochSummary(3, 1.5, -50.0, 1.5, -50.0, 4.0, 2.0, 25.0)
    (alone,) = summarise(history[:1], None)
    assert alone == replace(first, val_change=None)
