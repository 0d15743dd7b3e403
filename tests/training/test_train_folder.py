"""The stage behind `honing train` and a folder that is not empty, or a base that cannot be packed:
an error costs nothing that was there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

import honing.model.attention
from honing.config_file import load_config
from honing.errors import UserError
from honing.preparation import prepare
from honing.training.train import train
from tests.runs import contents_below, names_below, qa_rows, save_rows, small_config
from tests.tiny_run import TinyRun

CHECKPOINT = (
    *("adapter_config.json", "adapter_model.safetensors", "honing.json", "manifest.json"),
    "trainer_state.pt",
)
SHORT = ("train.max_steps=1", "train.eval_every=never")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", qa_rows())


# --- packing


def test_where_isolation_is_broken_nothing_is_packed(
    tiny_base: Path, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated = honing.model.attention.isolated_attention

    def broken(*arguments: Any, segment_lengths: Any = None, **options: Any) -> Any:
        whole = None if segment_lengths is None else (sum(segment_lengths),)
        return isolated(*arguments, segment_lengths=whole, **options)

    functions = transformers.AttentionInterface._global_mapping
    monkeypatch.setitem(functions, honing.model.attention.NAME, broken)
    out = tmp_path / "out"
    with pytest.raises(UserError) as caught:
        train(small_config(tiny_base, rows, out, *SHORT, "train.packing=true"), say=print)
    assert str(caught.value) == (
        "train.packing: true, but on this base a packed row does not have the loss of its "
        "examples alone; set train.packing=auto"
    )
    assert not out.exists()
    said: list[str] = []
    train(small_config(tiny_base, rows, out, *SHORT), say=said.append)
    assert "  packing: off, this architecture cannot keep the examples of a row apart" in said
    assert load_config(out / "config.yaml").train.packing is False


# --- a folder that is not empty


@pytest.mark.parametrize("left", ["config.yaml", "metrics.jsonl", "checkpoints/last"])
def test_a_folder_that_holds_a_run_is_refused(
    left: str, tiny_base: Path, rows: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / left).parent.mkdir(parents=True)
    (out / left).write_text("mine")
    with pytest.raises(UserError) as caught:
        train(small_config(tiny_base, rows, out), say=print)
    assert str(caught.value) == (
        f"output_dir: {out} holds a run already; continue it with --resume, replace it with "
        "--overwrite, or choose another output_dir"
    )
    assert contents_below(out) == {left: b"mine"}


def test_a_prepared_folder_is_trained_in(tiny_base: Path, rows: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(small_config(tiny_base, rows, out))
    splits = str(out / "splits")
    assert train(small_config(tiny_base, splits, out, *SHORT), say=lambda _: None).report


def test_overwrite_replaces_what_a_run_writes_and_nothing_else(
    tiny_base: Path, rows: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    train(small_config(tiny_base, rows, out, "train.save_every=1"), say=lambda _: None)
    mine = ("notes.txt", "checkpoints/mine/weights.bin", "logs/other.txt", "splits/extra.csv")
    for name in mine:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    before = names_below(out)
    assert "checkpoints/step-000005/honing.json" in before
    config = small_config(tiny_base, rows, out, *SHORT, "data.test_fraction=0")
    train(config, overwrite=True, say=lambda _: None)
    (events,) = (out / "logs").glob("events*")
    assert names_below(out) == {
        *mine,
        "config.yaml",
        "data_report.json",
        "splits/train.jsonl",
        "splits/val.jsonl",
        *(f"checkpoints/{f}/{name}" for f in ("step-000001", "final") for name in CHECKPOINT),
        "checkpoints/last",
        f"logs/{events.name}",
        "metrics.jsonl",
        "training_report.md",
        "training_report.json",
    }
    assert f"logs/{events.name}" not in before


BROKEN: dict[str, Callable[[Path], str]] = {
    "base": lambda folder: f"model.base={folder}/none",
    "data": lambda folder: f"data.source={folder}/none.jsonl",
    "layers": lambda folder: "lora.target_modules=[none]",
    "length": lambda folder: "data.max_length=1000",
    "split": lambda folder: "data.val_fraction=0.01",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_an_error_costs_no_old_run(
    broken: str, tiny_run: TinyRun, tiny_base: Path, rows: str, tmp_path: Path
) -> None:
    before = contents_below(tiny_run.folder)
    setting = BROKEN[broken](tmp_path)
    with pytest.raises(UserError):
        train(
            small_config(tiny_base, rows, tiny_run.folder, setting),
            overwrite=True,
            say=lambda _: None,
        )
    assert contents_below(tiny_run.folder) == before
    with pytest.raises(UserError):
        train(small_config(tiny_base, rows, tmp_path / "out", setting), say=lambda _: None)
    assert not (tmp_path / "out").exists()
