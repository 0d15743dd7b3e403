"""Where a run's files lie; pointers to checkpoints; files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

import honing.run
from honing.errors import UserError
from honing.files import write_json, write_text
from honing.run import RunFolder

ADVICE = "free some space or choose another folder"


def a_run(root: Path, *steps: int) -> RunFolder:
    """A folder with empty checkpoints of these steps."""
    run = RunFolder(root)
    for step in steps:
        run.step_checkpoint(step).mkdir(parents=True)
    return run


def no_links(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EPERM, "Operation not permitted")


def full_disk(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# --- paths


def test_each_file_of_a_run_has_its_place(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    paths = {
        run.config: "config.yaml",
        run.data_report: "data_report.json",
        run.splits: "splits",
        run.split_file("val"): "splits/val.jsonl",
        run.checkpoints: "checkpoints",
        run.step_checkpoint(7): "checkpoints/step-000007",
        run.step_checkpoint(1_234_567): "checkpoints/step-1234567",
        run.final: "checkpoints/final",
        run.logs: "logs",
        run.metrics: "metrics.jsonl",
        run.report_json: "training_report.json",
        run.report_markdown: "training_report.md",
    }
    assert {path.relative_to(tmp_path).as_posix(): name for path, name in paths.items()} == {
        name: name for name in paths.values()
    }


def test_naming_the_files_of_a_run_makes_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "outputs")
    assert run.step_checkpoints() == []
    assert run.linked("best") is None
    assert run.checkpoint_to_use() is None
    assert not run.holds_a_run()
    run.clear()
    assert names_below(tmp_path) == set()


def test_checkpoints_of_steps_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    run = a_run(tmp_path, 1_000_000, 999_999, 2, 10)
    for other in ("step-new", "final", ".step-000003.new"):
        (run.checkpoints / other).mkdir()
    (run.checkpoints / "step-000004").write_text("a file")
    assert run.step_checkpoints() == [
        run.step_checkpoint(step) for step in (2, 10, 999_999, 1_000_000)
    ]


@pytest.mark.parametrize(
    ("file", "holds"),
    [
        ("config.yaml", True),
        ("metrics.jsonl", True),
        ("checkpoints/x", True),
        ("data_report.json", False),
        ("splits/train.jsonl", False),
        ("my notes.txt", False),
    ],
)
def test_a_run_is_held_where_a_training_was_started(tmp_path: Path, file: str, holds: bool) -> None:
    write_text(tmp_path / file, "")
    assert RunFolder(tmp_path).holds_a_run() is holds


def test_a_run_is_finished_when_its_report_is_written(tmp_path: Path) -> None:
    run = a_run(tmp_path, 1)
    assert not run.is_finished()
    write_json(run.report_json, {})
    assert run.is_finished()


# --- clear


def a_full_run(root: Path) -> RunFolder:
    run = a_run(root, 5, 10)
    for folder in (run.final, run.checkpoints / ".step-000015.new"):
        folder.mkdir()
    write_text(run.step_checkpoint(5) / "honing.json", "{}")
    run.link("last", run.step_checkpoint(10))
    run.link("best", run.step_checkpoint(5))
    for split in ("train", "val", "test"):
        write_text(run.split_file(split), "")
    written = (run.config, run.data_report, run.metrics, run.report_json, run.report_markdown)
    for path in (*written, run.logs / "events.out.tfevents.1.host.2.0"):
        write_text(path, "")
    for name in ("config.json", "merge_report.json", "rows-q8_0.gguf"):
        write_text(run.merged / name, "{}")
    return run


DATA = {"data_report.json", *(f"splits/{name}.jsonl" for name in ("train", "val", "test"))}
"""What may be the source of the next run, and is replaced file by file."""


def test_clear_removes_all_that_a_run_wrote_but_its_data(tmp_path: Path) -> None:
    run = a_full_run(tmp_path)
    run.clear()
    assert names_below(tmp_path) == {*DATA, "splits"}
    assert not run.holds_a_run()


def test_clear_removes_what_a_killed_process_left_aside(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    left = [".config.yaml.new", ".report.html.new", "checkpoints/.last.new"]
    for name in [*left, "evaluation/.base.json.new"]:
        write_text(tmp_path / name, "")
    for name in (".step-000001.gone", ".final.old"):
        (run.checkpoints / name).mkdir()
    for name in (".merged.new", ".merged.old"):
        write_text(tmp_path / name / "config.json", "{}")
    run.clear()
    assert names_below(tmp_path) == set()


def test_a_process_killed_while_it_clears_leaves_a_run_that_can_go_on_or_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of a finished run goes first, that of a run last, whatever the order on the disk."""
    run = a_full_run(tmp_path)
    removed: list[str] = []
    remove = honing.run._remove

    def watched(path: Path) -> None:
        removed.append(path.name)
        assert run.holds_a_run()
        assert not (run.is_finished() and len(removed) > 1)
        remove(path)

    monkeypatch.setattr(honing.run, "_remove", watched)
    run.clear()
    assert (removed[0], removed[-1]) == ("training_report.json", "config.yaml")


def test_clear_leaves_what_a_run_did_not_write(tmp_path: Path) -> None:
    run = a_full_run(tmp_path)
    foreign = {
        "notes.txt",
        "my_logs/a.txt",
        "logs/server.log",
        "splits/mine.csv",
        "checkpoints/step-by-step.md",
        "checkpoints/kept/adapter.safetensors",
    }
    for name in foreign:
        write_text(tmp_path / name, "mine")
    run.clear()
    left = {name for name in names_below(tmp_path) if (tmp_path / name).is_file()}
    assert left == foreign | DATA


def test_clear_does_not_follow_links_out_of_the_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    write_text(elsewhere / "adapter.safetensors", "mine")
    run = a_run(tmp_path / "run", 1)
    os.symlink(elsewhere, run.final)
    run.clear()
    assert (elsewhere / "adapter.safetensors").read_text() == "mine"
    assert names_below(tmp_path / "run") == set()


def test_clear_says_what_it_cannot_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_full_run(tmp_path)
    monkeypatch.setattr(Path, "unlink", no_links)
    with pytest.raises(UserError) as caught:
        run.clear()
    assert str(caught.value) == (
        f"{tmp_path}: the old run cannot be removed (Operation not permitted); "
        "choose another output_dir"
    )


# --- pointers


def test_a_link_is_relative_and_moves_with_its_folder(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a", 5)
    run.link("best", run.step_checkpoint(5))
    assert os.readlink(run.checkpoints / "best") == "step-000005"
    moved = RunFolder((tmp_path / "a").rename(tmp_path / "b"))
    assert moved.linked("best") == moved.step_checkpoint(5)


def test_a_newer_link_replaces_an_older_one_in_one_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path, 5, 10)
    run.link("last", run.step_checkpoint(5))
    renames: list[tuple[str, str, Path | None]] = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        renames.append((source.name, target.name, run.linked("last")))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    run.link("last", run.step_checkpoint(10))
    assert renames == [(".last.new", "last", run.step_checkpoint(5))]
    assert run.linked("last") == run.step_checkpoint(10)
    assert names_below(run.checkpoints) == {"step-000005", "step-000010", "last"}


def test_where_there_are_no_links_a_file_holds_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "symlink", no_links)
    run = a_run(tmp_path, 5, 10)
    for step in (5, 10):
        run.link("best", run.step_checkpoint(step))
        assert (run.checkpoints / "best").read_bytes() == b"step-%06d\n" % step
        assert run.linked("best") == run.step_checkpoint(step)
    monkeypatch.undo()
    run.link("best", run.step_checkpoint(5))
    assert (run.checkpoints / "best").is_symlink()
    assert names_below(run.checkpoints) == {"step-000005", "step-000010", "best"}


def test_a_link_left_aside_by_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    run = a_run(tmp_path, 5)
    os.symlink("step-000001", run.checkpoints / ".best.new")
    run.link("best", run.step_checkpoint(5))
    assert run.linked("best") == run.step_checkpoint(5)


@pytest.mark.parametrize("as_link", [True, False])
@pytest.mark.parametrize(
    "target",
    ["../../etc", "/etc", "../other", "..", ".", "step-000009", "step-000005/x", "x" * 255],
)
def test_a_pointer_to_something_else_is_not_followed(
    tmp_path: Path, target: str, as_link: bool
) -> None:
    run = a_run(tmp_path / "run", 5)
    (run.step_checkpoint(5) / "x").mkdir()
    for outside in ("run/etc", "run/other", "etc"):
        (tmp_path / outside).mkdir()
    pointer = run.checkpoints / "best"
    if as_link:
        os.symlink(target, pointer)
    else:
        pointer.write_text(target + "\n")
    assert run.linked("best") is None


@pytest.mark.parametrize("content", [b"", b"\n", b"\0", b"\xff\xfe", b"x" * 10_000])
def test_a_damaged_pointer_file_points_nowhere(tmp_path: Path, content: bytes) -> None:
    run = a_run(tmp_path, 5)
    (run.checkpoints / "best").write_bytes(content)
    assert run.linked("best") is None


def test_a_copy_in_which_the_link_became_a_folder_is_that_checkpoint(tmp_path: Path) -> None:
    run = a_run(tmp_path, 5)
    write_text(run.checkpoints / "best" / "honing.json", "{}")
    assert run.linked("best") == run.checkpoints / "best"
    run.link("best", run.step_checkpoint(5))
    assert run.linked("best") == run.step_checkpoint(5)


def test_a_link_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path, 5)
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError) as caught:
        run.link("best", run.step_checkpoint(5))
    expected = f"{run.checkpoints / 'best'}: cannot be written (No space left on device); {ADVICE}"
    assert str(caught.value) == expected
    assert names_below(run.checkpoints) == {"step-000005"}


def test_the_best_checkpoint_is_used_then_the_final_then_the_last(tmp_path: Path) -> None:
    run = a_run(tmp_path, 5, 10)
    run.link("last", run.step_checkpoint(10))
    assert run.checkpoint_to_use() == run.step_checkpoint(10)
    run.final.mkdir()
    assert run.checkpoint_to_use() == run.final
    run.link("best", run.step_checkpoint(5))
    assert run.checkpoint_to_use() == run.step_checkpoint(5)
