"""A training that was interrupted goes on as if nothing had happened, or says why it cannot."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from honing.cli import main
from honing.config import Config
from honing.config_file import load_config
from honing.errors import UserError
from honing.training.train import Trained, train
from honing.training.trainer import Trainer
from tests.runs import (
    contents_below,
    lines_of_metrics,
    qa_rows,
    save_rows,
    small_config,
    small_overrides,
)
from tests.tiny import save_tiny_base

CHANGES_WITH_TIME = ("tokens_per_s", "memory_bytes")
# Dropout draws random numbers at every step, validation runs between the steps of an epoch.
SETTINGS = ("lora.dropout=0.3", "train.eval_every=2", "train.save_every=2", "train.keep_last=3")

Signals = tuple[signal.Signals, ...]
STOPS: dict[str, tuple[int, Signals, int]] = {
    "Ctrl-C in an epoch": (2, (signal.SIGINT,), 130),
    "SIGTERM at its end": (3, (signal.SIGTERM,), 143),
    "Ctrl-C twice": (5, (signal.SIGINT, signal.SIGINT), 130),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", qa_rows())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, rows: str) -> Path:
    """A run of six steps that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    train(small_config(tiny_base, rows, folder, *SETTINGS), say=lambda _: None)
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, rows: str) -> Path:
    """The same, stopped after step 5, with checkpoints of steps 2, 4 and 5. Tests copy it."""
    folder = tmp_path_factory.mktemp("stopped") / "out"
    with pytest.MonkeyPatch.context() as patch:
        stop_in_step(patch, 5, signal.SIGINT)
        trained = train(small_config(tiny_base, rows, folder, *SETTINGS), say=lambda _: None)
    assert trained.stopped_by == signal.SIGINT
    assert [path.name for path in sorted((folder / "checkpoints").glob("step-*"))] == [
        "step-000002",
        "step-000004",
        "step-000005",
    ]
    return folder


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path / "out", symlinks=True)
    return tmp_path / "out"


@pytest.fixture
def resume(tiny_base: Path, rows: str) -> Callable[..., tuple[Trained, list[str]]]:
    """Resume a folder with more settings; how it ended, and what was said."""

    def resumed(folder: Path, *overrides: str, **options: Any) -> tuple[Trained, list[str]]:
        said: list[str] = []
        config = small_config(tiny_base, rows, folder, *SETTINGS, *overrides)
        trained = train(config, **{"resume": True, "say": said.append, **options})
        return trained, said

    return resumed


def stop_in_step(patch: pytest.MonkeyPatch, step: int, *signals: signal.Signals) -> None:
    """Send signals in an optimizer step, which counts from 1."""
    own = Trainer._train_step

    def stopping(self: Trainer, members: Any) -> None:
        if self.state.step == step - 1:
            for number in signals:
                signal.raise_signal(number)
        own(self, members)

    patch.setattr(Trainer, "_train_step", stopping)


def what_was_learnt(folder: Path) -> dict[str, Any]:
    """All that must be the same, bit for bit, in an interrupted run and one that was not."""
    final = folder / "checkpoints/final"
    state = torch.load(final / "trainer_state.pt", weights_only=True)
    history = state["train_state"].pop("history")
    for totals in (*(epoch["totals"] for epoch in history), state["train_state"]["epoch_totals"]):
        del totals["seconds"]
    del state["train_state"]["unlogged"]
    lines = lines_of_metrics(folder)
    report = json.loads((folder / "training_report.json").read_text("utf-8"))
    about = json.loads((final / "honing.json").read_text("utf-8"))
    return {
        "adapter": (final / "adapter_model.safetensors").read_bytes(),
        "about": about,
        "state": state,
        "history": history,
        "metrics": [{k: v for k, v in x.items() if k not in CHANGES_WITH_TIME} for x in lines],
        "losses": [(epoch["train_loss"], epoch["val_loss"]) for epoch in report["epochs"]],
        "best": (report["best_val_loss"], report["best_step"], report["base_val_loss"]),
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "splits": contents_below(folder / "splits"),
    }


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


# --- bit for bit


@pytest.mark.parametrize("how", STOPS)
def test_resumed_is_bit_for_bit_uninterrupted(
    how: str,
    whole: Path,
    tiny_base: Path,
    rows: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step, signals, status = STOPS[how]
    out = tmp_path / "out"
    (tmp_path / "mine.yaml").write_text("")
    arguments = ["train", str(tmp_path / "mine.yaml")]
    arguments += small_overrides(tiny_base, rows, out, *SETTINGS)
    with monkeypatch.context() as patch:
        stop_in_step(patch, step, *signals)
        assert main(arguments) == status
    ended = capsys.readouterr()
    if how == "Ctrl-C twice":  # at once: the checkpoint of step 4 is the newest
        assert ended.err.splitlines()[-1].endswith("honing: stopped")
        step = 4
    else:
        assert ended.out.splitlines()[-1] == (
            f"Stopped after step {step} of 6; all is saved. Go on with the same command and "
            "--resume"
        )
    assert not (out / "training_report.json").exists()
    assert main([*arguments, "--resume"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert f"Going on from step-00000{step}, step {step} of 6" in shown
    assert shown[-1] == f"Next: honing generate {out} --prompt '…'"
    assert "Data:" not in shown[0]
    expected = what_was_learnt(whole)
    # Stopping leaves a checkpoint of its own among the newest ones.
    found = what_was_learnt(out)
    assert {"best", "final", "last", "step-000006"} <= set(found.pop("checkpoints"))
    del expected["checkpoints"]
    assert_same(found, expected)


def test_what_a_killed_run_wrote_after_its_checkpoint_is_dropped(
    whole: Path, copy: Path, resume: Callable[..., tuple[Trained, list[str]]]
) -> None:
    shutil.rmtree(copy / "checkpoints/step-000005")
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 6, "train_lo')
    trained, said = resume(copy)
    assert said[-1] == "Going on from step-000004, step 4 of 6"
    assert trained.report is not None
    assert_same(what_was_learnt(copy)["metrics"], what_was_learnt(whole)["metrics"])


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "trainer_state.pt", "honing.json"])
def test_a_damaged_checkpoint_is_passed_over_and_said(
    file: str, whole: Path, copy: Path, resume: Callable[..., tuple[Trained, list[str]]]
) -> None:
    damaged = copy / "checkpoints/step-000005" / file
    damaged.write_bytes(damaged.read_bytes()[:-40])
    (copy / "checkpoints/step-000004/honing.json").unlink()
    _, said = resume(copy)
    assert said[0].startswith(f"--resume: step-000005 skipped: {file} is damaged (")
    assert said[1] == "--resume: step-000004 skipped: honing.json is missing"
    assert said[-1] == "Going on from step-000002, step 2 of 6"
    found, expected = what_was_learnt(copy), what_was_learnt(whole)
    assert_same(found["adapter"], expected["adapter"])
    assert_same(found["metrics"], expected["metrics"])


def test_the_report_counts_from_the_start(
    copy: Path, resume: Callable[..., tuple[Trained, list[str]]]
) -> None:
    report = resume(copy)[0].report
    assert report is not None
    assert [epoch.epoch for epoch in report.epochs] == [1, 2]
    assert report.training_seconds == pytest.approx(sum(epoch.seconds for epoch in report.epochs))
    assert report.num_steps == 6


# --- nothing to go on from


def test_where_nothing_is_there_it_starts_afresh_and_says_so(
    whole: Path, tmp_path: Path, resume: Callable[..., tuple[Trained, list[str]]]
) -> None:
    out = tmp_path / "out"
    _, said = resume(out)
    assert said[0] == f"--resume: {out} holds no run yet, so this one starts afresh"
    assert said[1].startswith("Data: ")
    assert_same(what_was_learnt(out), what_was_learnt(whole))


def test_without_a_checkpoint_that_can_be_read_it_starts_afresh_and_says_so(
    whole: Path, copy: Path, resume: Callable[..., tuple[Trained, list[str]]]
) -> None:
    for folder in (copy / "checkpoints").glob("step-*"):
        (folder / "trainer_state.pt").write_bytes(b"")
    (copy / "notes.txt").write_text("mine")
    _, said = resume(copy)
    assert [line.split(" skipped")[0] for line in said[:3]] == [
        "--resume: step-000005",
        "--resume: step-000004",
        "--resume: step-000002",
    ]
    assert said[3] == (
        f"--resume: {copy} has no checkpoint that can be read, so the run starts afresh"
    )
    assert_same(what_was_learnt(copy), what_was_learnt(whole))
    assert (copy / "notes.txt").read_text() == "mine"


def test_a_finished_run_is_left_alone_and_that_is_said(
    whole: Path, tiny_base: Path, rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents_below(whole)
    (tmp_path / "mine.yaml").write_text("")
    arguments = ["train", str(tmp_path / "mine.yaml"), "--resume"]
    assert main([*arguments, *small_overrides(tiny_base, rows, whole, *SETTINGS)]) == 0
    assert capsys.readouterr().out == (
        f"--resume: the run in {whole} is finished; see {whole}/training_report.md\n"
    )
    assert contents_below(whole) == before


# --- other settings, rows, base, machine


def test_other_settings_are_an_error_that_names_both_values(
    copy: Path, resume: Callable[..., tuple[Trained, list[str]]]
) -> None:
    before = contents_below(copy)
    with pytest.raises(UserError) as caught:
        resume(copy, "train.epochs=3")
    assert str(caught.value) == (
        f"--resume: {copy / 'config.yaml'} has other settings: train.epochs (2 there, 3 here); "
        "use the same ones, or --overwrite to start afresh"
    )
    with pytest.raises(UserError) as caught:
        resume(
            copy, "train.micro_batch_size=2", "data.columns={output: A}", "seed=1", "lora.rank=4"
        )
    assert str(caught.value).partition(": ")[2].partition("; ")[0] == (
        f"{copy / 'config.yaml'} has other settings: seed (42 there, 1 here), "
        "lora.rank (2 there, 4 here), data.columns (None there, "
        "{'instruction': None, 'input': None, 'output': 'A', 'prompt': None, 'completion': None, "
        "'messages': None, 'text': None, 'system': None, 'group': None} here), "
        "train.micro_batch_size (4 there, 2 here)"
    )
    assert contents_below(copy) == before


def test_settings_that_change_no_number_may_differ(
    whole: Path, copy: Path, resume: Callable[..., tuple[Trained, list[str]]]
) -> None:
    free = ("train.log_every=3", "train.keep_last=1", "generate.max_new_tokens=5", "device=auto")
    autos = ("model.dtype=auto", "train.packing=auto", "lora.target_modules=auto")
    trained, _ = resume(copy, *free, *autos)
    stored = load_config(copy / "config.yaml")
    assert (stored.train.log_every, stored.train.keep_last) == (3, 1)
    assert stored.generate.max_new_tokens == 5
    assert (stored.device, stored.model.dtype, stored.output_dir) == ("cpu", "float32", str(copy))
    assert trained.report is not None
    assert Config.model_validate(trained.report.config) == stored
    assert_same(what_was_learnt(copy)["adapter"], what_was_learnt(whole)["adapter"])
    steps = [line["step"] for line in lines_of_metrics(copy) if line["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_other_rows_are_an_error(tiny_base: Path, copy: Path, tmp_path: Path, rows: str) -> None:
    changed = save_rows(
        tmp_path / "rows.jsonl", [*qa_rows(11), {"instruction": "z", "output": "z"}]
    )
    stored = (copy / "config.yaml").read_text("utf-8")
    (copy / "config.yaml").write_text(stored.replace(rows, changed), encoding="utf-8")
    before = contents_below(copy)
    with pytest.raises(UserError) as caught:
        train(small_config(tiny_base, changed, copy, *SETTINGS), resume=True, say=print)
    assert str(caught.value) == (
        "--resume: the rows of data.source are not those that the run began with; restore them, "
        "or start afresh with --overwrite"
    )
    assert contents_below(copy) == before


def test_another_base_under_the_same_name_is_an_error(
    tiny_base: Path, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny_base, base)
    config = small_config(base, rows, out, "train.eval_every=never")
    with monkeypatch.context() as patch:
        stop_in_step(patch, 1, signal.SIGINT)
        train(config, say=lambda _: None)
    save_tiny_base(base, seed=1)
    before = contents_below(out)
    with pytest.raises(UserError) as caught:
        train(config, resume=True, say=lambda _: None)
    assert str(caught.value) == (
        f"--resume: model.base: {base} is not the model that the run began with: its weights have "
        "changed; restore them, or start afresh with --overwrite"
    )
    assert contents_below(out) == before


def test_another_tokenizer_is_an_error(
    tiny_base: Path, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are the same, and so are the rows."""
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny_base, base)
    config = small_config(base, rows, out, "train.eval_every=never")
    with monkeypatch.context() as patch:
        stop_in_step(patch, 1, signal.SIGINT)
        train(config, say=lambda _: None)
    tokenizer = json.loads((base / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["merges"].pop()
    (base / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    before = contents_below(out)
    with pytest.raises(UserError) as caught:
        train(config, resume=True, say=lambda _: None)
    message = str(caught.value)
    assert message.startswith(
        f"--resume: model.base: {base}: its tokenizer has changed since the training (fingerprint "
    )
    assert message.endswith("), so the same text has other tokens; restore it")
    assert contents_below(out) == before


def test_another_machine_is_warned_about(
    copy: Path, resume: Callable[..., tuple[Trained, list[str]]]
) -> None:
    path = copy / "checkpoints/step-000005/honing.json"
    about = json.loads(path.read_text("utf-8"))
    here = dict(about["environment"])
    about["environment"] |= {"torch": "1.0", "num_threads": 64}
    path.write_text(json.dumps(about), encoding="utf-8")
    (path.parent / "manifest.json").unlink()
    trained, said = resume(copy)
    assert said[-2] == (
        f"WARNING: the run goes on with torch 1.0 → {here['torch']}, num_threads 64 → "
        f"{here['num_threads']}: its numbers will not be bit for bit those of an uninterrupted one"
    )
    assert trained.report is not None


def test_the_same_machine_is_not_warned_about(
    copy: Path, resume: Callable[..., tuple[Trained, list[str]]]
) -> None:
    _, said = resume(copy)
    assert said == [
        "  6 steps, 3 an epoch, of 4 examples, packed into rows of at most 512 tokens",
        "Going on from step-000005, step 5 of 6",
    ]


def test_resume_and_overwrite_exclude_each_other(
    copy: Path, resume: Callable[..., tuple[Trained, list[str]]]
) -> None:
    before = contents_below(copy)
    with pytest.raises(UserError) as caught:
        resume(copy, overwrite=True)
    assert str(caught.value) == ("--resume and --overwrite exclude each other; give one of them")
    assert contents_below(copy) == before


def test_a_run_that_was_moved_goes_on_where_it_is(
    copy: Path, tmp_path: Path, resume: Callable[..., tuple[Trained, list[str]]]
) -> None:
    moved = tmp_path / "moved"
    copy.rename(moved)
    trained, _ = resume(moved)
    assert trained.report is not None
    assert trained.report.checkpoint.startswith(str(moved))
    assert not copy.exists()
