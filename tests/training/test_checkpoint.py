"""A checkpoint is whole or absent, and what cannot be read is skipped and said."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from honing import files
from honing.errors import UserError
from honing.model.lora import adapter_weights, load_adapter
from honing.run import RunFolder
from honing.training.checkpoint import (
    check_adapter_files,
    newest_valid_checkpoint,
    read_about,
    read_state,
    remove_old_checkpoints,
    write_checkpoint,
)
from tests.tiny import adapted_model, fill_lora_b, tiny_model

FILES = ["adapter_config.json", "adapter_model.safetensors", "honing.json", "trainer_state.pt"]
ALL_FILES = sorted([*FILES, "manifest.json"])
ABOUT = {"template": "### 질문: {instruction}", "metrics": {"step": 3, "val_loss": None}}


def state(step: int = 3) -> dict[str, Any]:
    return {"step": step, "random": torch.arange(5), "names": ["a", None, 1.5]}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def model() -> Any:
    return adapted_model("llama")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def weights_of(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in adapter_weights(model).items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_files_of_a_checkpoint(run: RunFolder, model: Any) -> None:
    folder = run.step_checkpoint(3)
    sizes = write_checkpoint(folder, model, state(), ABOUT)
    assert folder.name == "step-000003"
    assert [path.name for path in sorted(folder.iterdir())] == ALL_FILES
    assert sizes.adapter == (folder / "adapter_model.safetensors").stat().st_size
    assert sizes.whole == sum(path.stat().st_size for path in folder.iterdir())
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000003"]
    assert read_about(folder) == ABOUT
    assert "### 질문" in (folder / "honing.json").read_text(encoding="utf-8")


def test_what_was_written_comes_back(run: RunFolder, model: Any) -> None:
    folder = run.step_checkpoint(3)
    write_checkpoint(folder, model, state(), ABOUT)
    written = weights_of(model)
    fill_lora_b(model, seed=99)
    assert not equal(weights_of(model), written)
    found = read_state(folder, model)
    assert equal(weights_of(model), written)
    assert torch.equal(found.pop("random"), torch.arange(5))
    assert found == {"step": 3, "names": ["a", None, 1.5]}
    assert equal(weights_of(load_adapter(tiny_model("llama"), folder)), written)


def test_writing_leaves_the_model_trainable(run: RunFolder, model: Any) -> None:
    write_checkpoint(run.final, model, state(), ABOUT)
    assert model.peft_config["default"].inference_mode is False
    settings = json.loads((run.final / "adapter_config.json").read_text())
    assert settings["inference_mode"] is True
    assert settings["peft_type"] == "LORA"
    assert sum(p.requires_grad for p in model.parameters()) == 28


def test_a_checkpoint_of_the_same_name_is_replaced(run: RunFolder, model: Any) -> None:
    write_checkpoint(run.final, model, state(1), ABOUT)
    (run.final / "stray").write_text("")
    fill_lora_b(model, seed=99)
    write_checkpoint(run.final, model, state(2), ABOUT)
    assert [path.name for path in sorted(run.final.iterdir())] == ALL_FILES
    assert [path.name for path in run.checkpoints.iterdir()] == ["final"]
    fresh = adapted_model("llama")
    assert read_state(run.final, fresh)["step"] == 2
    assert equal(weights_of(fresh), weights_of(model))


def test_every_file_is_on_the_disk_before_the_folder_takes_its_name(
    run: RunFolder, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.checkpoints.mkdir(parents=True)
    events: list[str] = []
    sync, rename = os.fsync, os.replace
    names: dict[int, str] = {}

    def synced(handle: int) -> None:
        events.append(f"sync {os.fstat(handle).st_ino}")
        sync(handle)

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        names.update({os.stat(path).st_ino: path.name for path in [*target.iterdir(), target]})
        names[os.stat(target.parent).st_ino] = "checkpoints"
        events.append("rename")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_checkpoint(run.final, model, state(), ABOUT)
    named = [event if event == "rename" else names[int(event.split()[1])] for event in events]
    assert sorted(named[:4]) == FILES
    assert named[4:] == ["manifest.json", "final", "rename", "checkpoints"]


def test_what_a_killed_process_left_aside_is_cleared(run: RunFolder, model: Any) -> None:
    for name in (".final.new", ".final.old"):
        (run.checkpoints / name).mkdir(parents=True)
        (run.checkpoints / name / "half").write_text("")
    write_checkpoint(run.final, model, state(), ABOUT)
    assert [path.name for path in run.checkpoints.iterdir()] == ["final"]


def test_the_trainers_state_runs_no_code(run: RunFolder, model: Any) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("code from a checkpoint was run",)

    write_checkpoint(run.final, model, {"step": Payload()}, ABOUT)
    with pytest.raises(Exception, match="Weights only load failed"):
        read_state(run.final, model)


def test_a_checkpoint_of_another_shape(run: RunFolder, model: Any) -> None:
    write_checkpoint(run.final, adapted_model("llama", rank=4), state(), ABOUT)
    with pytest.raises(UserError) as caught:
        read_state(run.final, model)
    assert str(caught.value) == (
        f"{run.final}: this adapter does not fit the base model: 28 of 28 tensors differ, the "
        "first is base_model.model.model.layers.0.mlp.down_proj.lora_A.weight; is it for another "
        "base?"
    )


def test_about_of_an_adapter_that_peft_wrote(tmp_path: Path, model: Any) -> None:
    model.save_pretrained(str(tmp_path))
    assert read_about(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_about_that_cannot_be_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "honing.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_about(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'honing.json'}: ")
    assert str(caught.value).endswith("; use another checkpoint")
    assert "\n" not in str(caught.value)


# A disk that is full


def full(*arguments: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old checkpoint can be moved away, and the new one cannot take its place."""
    rename = os.replace

    def renamed(source: Path, target: Path) -> None:
        if Path(source).name == ".final.new":
            full()
        rename(source, target)

    monkeypatch.setattr(os, "replace", renamed)


def full_after_the_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new checkpoint has its name, and whether that is on the disk nobody knows."""
    sync = files.sync_folder

    def synced(folder: Path) -> None:
        if folder.name == "checkpoints":
            full()
        sync(folder)

    monkeypatch.setattr(files, "sync_folder", synced)


FAILURES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "torch.save": lambda patch: patch.setattr(torch, "save", full),
    "fsync": lambda patch: patch.setattr(os, "fsync", full),
    "rename": lambda patch: patch.setattr(files, "rename", full),
    "last rename": full_at_the_end,
    "last sync": full_after_the_rename,
    "write": lambda patch: patch.setattr(files, "write_all", full),
    "folder": lambda patch: patch.setattr(os, "mkdir", full),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(
    failure: str, run: RunFolder, model: Any
) -> None:
    write_checkpoint(run.final, model, state(1), ABOUT)
    before = contents(run.final)
    with pytest.MonkeyPatch.context() as patch:
        FAILURES[failure](patch)
        with pytest.raises(UserError) as caught:
            write_checkpoint(run.final, adapted_model("llama", seed=9), state(2), ABOUT)
    assert str(caught.value) == (
        f"{run.final}: cannot be written (No space left on device); "
        "free some space or choose another folder"
    )
    assert [path.name for path in run.checkpoints.iterdir()] == ["final"]
    assert contents(run.final) == before


@pytest.mark.parametrize("num_bytes", [100, 5_000, 60_000])
def test_files_that_may_not_grow_leave_nothing(num_bytes: int, run: RunFolder, model: Any) -> None:
    """The system itself stops the write, in the settings, the weights, or the trainer's state."""
    resource = pytest.importorskip("resource")
    many = {"moments": torch.zeros(100_000)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
        with pytest.raises(UserError) as caught:
            write_checkpoint(run.final, model, many, ABOUT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == (
        f"{run.final}: cannot be written (File too large); free some space or choose another folder"
    )
    assert list(run.checkpoints.iterdir()) == []


# The newest that is as it was written


def test_no_checkpoints(run: RunFolder) -> None:
    assert newest_valid_checkpoint(run) == (None, [])


def two_checkpoints(run: RunFolder, model: Any) -> tuple[Path, Path]:
    older, newer = run.step_checkpoint(9), run.step_checkpoint(10)
    for folder in (newer, older):
        write_checkpoint(folder, model, state(), ABOUT)
    write_checkpoint(run.final, model, state(), ABOUT)
    return older, newer


def test_the_newest_is_the_one_of_the_highest_step(run: RunFolder, model: Any) -> None:
    _, newer = two_checkpoints(run, model)
    assert newest_valid_checkpoint(run) == (newer, [])


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(name: str, run: RunFolder, model: Any) -> None:
    older, newer = two_checkpoints(run, model)
    (newer / name).unlink()
    assert newest_valid_checkpoint(run) == (older, [f"step-000010 skipped: {name} is missing"])


@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize("byte", ["first", "middle", "last"])
def test_a_flipped_bit(name: str, byte: str, run: RunFolder, model: Any) -> None:
    """In a tensor too, which every parser would read without a word."""
    older, newer = two_checkpoints(run, model)
    content = bytearray((newer / name).read_bytes())
    content[{"first": 0, "middle": len(content) // 2, "last": -1}[byte]] ^= 1
    (newer / name).write_bytes(content)
    found, skipped = newest_valid_checkpoint(run)
    assert found == older
    assert len(skipped) == 1
    if name != "manifest.json":
        assert skipped == [
            f"step-000010 skipped: {name} is damaged (its SHA-256 is not the one in manifest.json)"
        ]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", ["nothing", "half", "all but two bytes"])
def test_a_truncated_file(name: str, share: str, run: RunFolder, model: Any) -> None:
    older, newer = two_checkpoints(run, model)
    content = (newer / name).read_bytes()
    num_bytes = {"nothing": 0, "half": len(content) // 2}.get(share, len(content) - 2)
    (newer / name).write_bytes(content[:num_bytes])
    why = f"step-000010 skipped: {name} is damaged ({num_bytes:,} bytes of {len(content):,})"
    assert newest_valid_checkpoint(run) == (older, [why])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", ["nothing", "half", "all but two bytes"])
def test_a_truncated_file_where_there_was_no_manifest_yet(
    name: str, share: str, run: RunFolder, model: Any
) -> None:
    older, newer = two_checkpoints(run, model)
    for folder in (older, newer):
        (folder / "manifest.json").unlink()
    content = (newer / name).read_bytes()
    num_bytes = {"nothing": 0, "half": len(content) // 2}.get(share, len(content) - 2)
    (newer / name).write_bytes(content[:num_bytes])
    found, (why,) = newest_valid_checkpoint(run)
    assert found == older
    assert why.startswith(f"step-000010 skipped: {name} cannot be read (")
    assert "\n" not in why


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "trainer_state.pt"])
def test_garbage_in_the_place_of_a_file(name: str, run: RunFolder, model: Any) -> None:
    older, newer = two_checkpoints(run, model)
    (newer / "manifest.json").unlink()
    (newer / name).write_bytes(os.urandom(5000))
    found, (why,) = newest_valid_checkpoint(run)
    assert found == older
    assert why.startswith(f"step-000010 skipped: {name} cannot be read (")


def test_a_model_card_beside_the_adapter_is_no_damage(run: RunFolder, model: Any) -> None:
    _, newer = two_checkpoints(run, model)
    (newer / "README.md").write_text("# mine")
    assert newest_valid_checkpoint(run) == (newer, [])
    check_adapter_files(newer)


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.safetensors", "honing.json"]
)
def test_a_damaged_adapter_is_one_line_that_names_the_file(
    name: str, run: RunFolder, model: Any
) -> None:
    write_checkpoint(run.final, model, state(), ABOUT)
    (run.final / "trainer_state.pt").unlink()  # no answer needs it
    check_adapter_files(run.final)
    content = bytearray((run.final / name).read_bytes())
    content[-5] ^= 64
    (run.final / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        check_adapter_files(run.final)
    assert str(caught.value) == (
        f"{run.final / name}: is damaged (its SHA-256 is not the one in manifest.json); use "
        "another checkpoint or a copy of this one, or remove manifest.json if you changed it "
        "yourself"
    )
    (run.final / "manifest.json").unlink()
    check_adapter_files(run.final)


def test_all_damaged(run: RunFolder, model: Any) -> None:
    older, newer = two_checkpoints(run, model)
    (older / "honing.json").write_text("")
    (newer / "honing.json").unlink()
    found, why = newest_valid_checkpoint(run)
    assert found is None
    assert [line.split(" skipped")[0] for line in why] == ["step-000010", "step-000009"]


# Room on the disk


def folders(run: RunFolder) -> list[str]:
    return [path.name for path in run.step_checkpoints()]


@pytest.fixture
def make(model: Any) -> Callable[..., None]:
    def made(run: RunFolder, *steps: int) -> None:
        for step in steps:
            write_checkpoint(run.step_checkpoint(step), model, state(), ABOUT)

    return made


def test_the_newest_are_kept_and_the_best(run: RunFolder, make: Callable[..., None]) -> None:
    make(run, 1, 2, 3, 4, 5)
    run.final.mkdir()
    run.link("best", run.step_checkpoint(2))
    run.link("last", run.step_checkpoint(5))
    assert remove_old_checkpoints(run, 2) is None
    assert folders(run) == ["step-000002", "step-000004", "step-000005"]
    assert run.final.is_dir()
    assert remove_old_checkpoints(run, 1) is None
    assert folders(run) == ["step-000002", "step-000005"]
    assert {path.name for path in run.checkpoints.iterdir()} == {
        *("step-000002", "step-000005", "final", "best", "last")
    }


def test_fewer_than_are_kept(run: RunFolder, make: Callable[..., None]) -> None:
    assert remove_old_checkpoints(run, 5) is None
    make(run, 1, 2)
    assert remove_old_checkpoints(run, 5) is None
    assert folders(run) == ["step-000001", "step-000002"]


@pytest.mark.parametrize("keep_last", [1, 2])
def test_damaged_ones_of_higher_numbers_do_not_count(
    keep_last: int, run: RunFolder, make: Callable[..., None]
) -> None:
    make(run, 5, 10, 15)
    for step in (20, 25):  # resumed from 10, as these could not be read
        run.step_checkpoint(step).mkdir()
    run.link("last", run.step_checkpoint(15))
    assert remove_old_checkpoints(run, keep_last) is None
    expected = ["step-000015", "step-000020", "step-000025"]
    assert folders(run) == (["step-000010"] if keep_last == 2 else []) + expected


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("is_lost", [True, False])
def test_nothing_is_removed_where_the_newest_is_damaged(
    is_lost: bool, file: str, run: RunFolder, make: Callable[..., None]
) -> None:
    make(run, 1, 2, 3)
    run.link("last", run.step_checkpoint(3))
    path = run.step_checkpoint(3) / file
    if is_lost:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    why = "is missing" if is_lost else "is damaged (its SHA-256 is not the one in manifest.json)"
    assert remove_old_checkpoints(run, 1) == (
        f"step-000003: {file} {why}; no older checkpoint is removed"
    )
    assert folders(run) == ["step-000001", "step-000002", "step-000003"]
    assert newest_valid_checkpoint(run)[0] == run.step_checkpoint(2)
