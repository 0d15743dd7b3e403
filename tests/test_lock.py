"""One training in a folder: the second is refused, and the lock dies with its process."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import filelock
import pytest

from honing.errors import UserError
from honing.lock import only_holder
from honing.run import RunFolder
from honing.training import train as stage
from honing.training.train import train
from tests.runs import contents_below, qa_rows, save_rows, small_config
from tests.tiny_run import TinyRun

BUSY = "it is busy"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a" / "b" / ".lock"


def test_the_second_is_refused_until_the_first_is_done(path: Path) -> None:
    with only_holder(path, BUSY) as is_held:
        assert is_held
        with pytest.raises(UserError, match=BUSY), only_holder(path, BUSY):
            pytest.fail("two hold it")
        assert path.exists()
    with only_holder(path, BUSY):
        pass


def test_nothing_is_left_of_it(tmp_path: Path, path: Path) -> None:
    with only_holder(path, BUSY):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), only_holder(path, BUSY):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with only_holder(path, BUSY):
        (path.parent / "mine").write_text("")
    assert [name.name for name in path.parent.iterdir()] == ["mine"]


def test_who_opened_the_file_before_it_was_removed_looks_again(path: Path) -> None:
    """Else he, and the next one with a new file of that name, would both hold a lock."""
    path.parent.mkdir(parents=True)
    slow: Any = filelock.FileLock(path, timeout=10, poll_interval=0.001)
    own = slow._open_lock_file
    opened: list[Any] = []

    def open_slowly() -> Any:
        result = own()
        if not opened:
            opened.append(result)
            with only_holder(path, BUSY):
                pass
            assert not path.exists()
        return result

    slow._open_lock_file = open_slowly
    slow.acquire()
    assert path.exists()  # what he holds is the file of that name
    with pytest.raises(UserError), only_holder(path, BUSY):
        pytest.fail("two hold it")
    slow.release()


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_drive_without_locks_refuses_nobody(
    error: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_: object) -> NoReturn:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with only_holder(path, BUSY) as outer, only_holder(path, BUSY) as inner:
        assert (outer, inner) == (False, False)


def test_a_folder_that_cannot_be_written_is_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("honing.lock.make_folder", full)
    with pytest.raises(UserError) as caught, only_holder(path, BUSY):
        pytest.fail("there is no lock")
    assert str(caught.value) == (
        f"{path}: cannot be written (No space left on device); "
        "free some space or choose another folder"
    )


# --- the training


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_second_training_is_refused_and_costs_nothing(
    options: dict[str, bool], tiny_base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rows = save_rows(tmp_path / "rows.jsonl", qa_rows())
    config = small_config(tiny_base, rows, out, "train.max_steps=1", "train.eval_every=never")
    train(config, say=lambda _: None)
    RunFolder(out).report_json.unlink()
    before = contents_below(out)
    with only_holder(RunFolder(out).lock, BUSY):
        with pytest.raises(UserError) as caught:
            train(config, say=lambda _: None, **options)
        assert str(caught.value) == (
            f"output_dir: another training is at work in {out}; wait for its end, or choose "
            "another output_dir"
        )
    assert contents_below(out) == before


def test_a_training_holds_its_folder_until_its_end(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    rows = save_rows(tmp_path / "rows.jsonl", qa_rows())
    config = small_config(tiny_base, rows, out, "train.max_steps=1", "train.eval_every=never")
    refused: list[str] = []

    def then(own: Callable[..., object]) -> Callable[..., object]:
        def second(*arguments: object) -> object:
            with pytest.raises(UserError) as caught:
                train(config, resume=True, say=lambda _: None)
            refused.append(str(caught.value))
            return own(*arguments)

        return second

    for name in ("load_parts", "write_report"):
        monkeypatch.setattr(stage, name, then(getattr(stage, name)))
    train(config, say=lambda _: None)
    assert len(refused) == 2
    assert not RunFolder(out).lock.exists()


def test_a_finished_run_needs_no_lock(tiny_run: TinyRun) -> None:
    said: list[str] = []
    with only_holder(RunFolder(tiny_run.folder).lock, BUSY):
        train(tiny_run.load(), resume=True, say=said.append)
    assert said[0].startswith(f"--resume: the run in {tiny_run.folder} is finished; see ")


def test_a_drive_without_locks_is_said(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_: object) -> NoReturn:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    rows = save_rows(tmp_path / "rows.jsonl", qa_rows())
    said: list[str] = []
    out = tmp_path / "out"
    with pytest.raises(UserError):
        train(small_config(tiny_base, rows, out, "lora.target_modules=[none]"), say=said.append)
    assert said[0] == (
        f"WARNING: {out} is on a drive without locks: start no second training there"
    )
    assert not out.exists()
