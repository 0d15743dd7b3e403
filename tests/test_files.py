"""Files and folders that are whole or absent, on each kind of system, whatever fails."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from honing import files
from honing.errors import UserError
from honing.files import (
    append_line,
    cannot_write,
    clear_asides,
    make_folder,
    read_json,
    remove_folder,
    rename,
    replace_file,
    replace_link,
    replaced_folder,
    sync_folder,
    write_json,
    write_text,
)
from tests.faults import failing_at
from tests.runs import contents_below, names_below

ADVICE = "free some space or choose another folder"


def full_disk(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def fill(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        (folder / name).write_text(text)
    return folder


# --- a file


def test_text_is_written_as_utf8_with_plain_line_ends_into_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_text(path, "한국어\n둘\r\n")
    assert path.read_bytes() == "한국어\n둘\r\n".encode()
    assert names_below(tmp_path) == {"a/b.txt"}


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_after(tmp_path: Path) -> None:
    with failing_at(10**9) as fault:
        write_text(tmp_path / "a", "x")
    assert fault.counted == ["write_all", "sync", "rename", "sync"]
    assert fault.unsynced == {}


def test_a_record_is_written_as_readable_json(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", {"이름": [1, None]})
    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    assert text == '{\n "이름": [\n  1,\n  null\n ]\n}\n'
    assert json.loads(text) == {"이름": [1, None]}


@pytest.mark.parametrize("fails", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "metrics.json"
    write_text(path, "old")
    monkeypatch.setattr(os, fails, full_disk)
    with pytest.raises(UserError) as caught:
        write_text(path, "new")
    assert str(caught.value) == f"{path}: cannot be written (No space left on device); {ADVICE}"
    assert contents_below(tmp_path) == {"metrics.json": b"old"}


def test_an_interrupted_write_leaves_nothing_beside_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> NoReturn:
        raise KeyboardInterrupt

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.txt", "new")
    assert contents_below(tmp_path) == {"a.txt": b"old"}


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")
    path = tmp_path / "file" / "a.txt"
    with pytest.raises(UserError) as caught:
        write_text(path, "x")
    assert str(caught.value) == f"{path}: cannot be written (File exists); {ADVICE}"


def test_a_folder_in_the_way_cannot_be_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UserError) as caught:
        write_text(tmp_path / "a.txt", "x")
    expected = f"{tmp_path / 'a.txt'}: cannot be written (Is a directory); {ADVICE}"
    assert str(caught.value) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_without_a_reason_of_its_own_is_still_told() -> None:
    error: Any = OSError("odd")
    assert cannot_write(Path("x"), error) == f"x: cannot be written (odd); {ADVICE}"


def test_a_link_left_in_the_place_of_the_aside_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "run").mkdir()
    os.symlink(outside, tmp_path / "run" / ".config.yaml.new")
    write_text(tmp_path / "run/config.yaml", "new")
    assert outside.read_text() == "mine"
    assert contents_below(tmp_path / "run") == {"config.yaml": b"new"}


def test_lines_are_added_one_by_one(tmp_path: Path) -> None:
    for line in ("하나", "둘"):
        append_line(tmp_path / "lines", line)
    assert (tmp_path / "lines").read_bytes() == "하나\n둘\n".encode()


# --- a folder


def replaced(folder: Path, text: str) -> None:
    with replaced_folder(folder) as aside:
        for name in ("a", "b"):
            files.write_file(aside / name, text.encode())


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for text in ("old", "new"):
        replaced(tmp_path / "runs" / "f", text)
    assert contents_below(tmp_path) == {"runs/f/a": b"new", "runs/f/b": b"new"}


def test_a_removed_folder_leaves_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "f", "x")
    fill(tmp_path / ".f.gone", "a process that was killed had begun")
    remove_folder(tmp_path / "f")
    remove_folder(tmp_path / "not there")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_removed_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "f", "x")
    monkeypatch.setattr(files, "rename", full_disk)
    remove_folder(tmp_path / "f")
    assert names_below(tmp_path) == {"f/a", "f/b"}


@pytest.mark.parametrize(
    ("left", "there", "expected"),
    [
        ([".f.new"], [], []),
        ([".f.new"], ["f"], ["f"]),
        ([".f.old"], [], ["f"]),  # killed between the two renames
        ([".f.old", ".f.new"], [], ["f"]),
        ([".f.old"], ["f"], ["f"]),
        ([".f.gone", "..f.old.gone"], ["f"], ["f"]),
        ([".f.gone"], [], []),
        ([".f", ".old", "..new"], ["f"], ["f", ".f"]),
    ],
)
def test_what_a_killed_process_left_is_put_right(
    left: list[str], there: list[str], expected: list[str], tmp_path: Path
) -> None:
    for name in left:
        fill(tmp_path / name, "left")
    for name in there:
        fill(tmp_path / name, "there")
    clear_asides(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} - {".old"} == set(expected)
    for name in expected:
        text = "there" if name in there else "left"
        assert contents_below(tmp_path / name) == {"a": text.encode(), "b": text.encode()}


def test_asides_that_are_files_and_links(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.config.yaml.new").write_text("half")
    os.symlink(outside, tmp_path / "run/.best.new", target_is_directory=True)
    clear_asides(tmp_path / "run")
    clear_asides(tmp_path / "not there")
    assert list((tmp_path / "run").iterdir()) == []
    assert names_below(outside) == {"a", "b"}


# --- the n-th operation fails


def write_a_file(folder: Path, text: str) -> None:
    replace_file(folder / "f", text.encode())


def write_a_folder(folder: Path, text: str) -> None:
    replaced(folder / "f", text)


def write_a_link(folder: Path, text: str) -> None:
    replace_link(folder / "f", text)


@pytest.mark.parametrize("write", [write_a_file, write_a_folder, write_a_link])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("old", ["old", None])
def test_whatever_operation_fails_it_is_the_old_or_the_new_and_nothing_beside_it(
    write: Callable[[Path, str], None], error: int, old: str | None, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    found: set[str] = set()
    write(tmp_path / "new", "new")
    new = contents_below(tmp_path / "new")
    for n in range(1, 100):
        folder = tmp_path / str(n)
        folder.mkdir()
        if old:
            write(folder, old)
        before = contents_below(folder)
        with failing_at(n, error) as fault, contextlib.suppress(OSError):
            write(folder, "new")
        after = contents_below(folder)
        if not fault.happened:
            break
        found.add(fault.happened)
        assert after in (before, new, {"f": b"new\n"})  # where no link can be made, a file
    assert after == new
    assert {"rename", "sync"} <= found


# --- each system's way


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """As on Windows; how long it waited."""
    waited: list[float] = []
    monkeypatch.setattr(files, "_IS_WINDOWS", True)
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


@pytest.mark.parametrize("times", [0, 2, 99])
def test_windows_tries_again_where_a_scanner_has_opened_the_file(
    times: int, windows: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace
    tried: list[str] = []

    def busy(source: Path, target: Path) -> None:
        tried.append(source.name)
        if len(tried) <= times:
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    (tmp_path / "a").write_text("x")
    if times == 99:
        with pytest.raises(PermissionError):
            rename(tmp_path / "a", tmp_path / "b")
        assert len(tried) == len(windows) + 1 == 6
    else:
        rename(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_text() == "x"
        assert len(windows) == times


def test_windows_syncs_files_and_no_folders(windows: list[float], tmp_path: Path) -> None:
    with failing_at(10**9) as fault:
        write_text(tmp_path / "a", "x")
    assert fault.counted == ["write_all", "sync", "rename"]


def test_macos_empties_the_drives_cache_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    asked: list[int] = []
    synced: list[int] = []
    monkeypatch.setattr(files, "_FULL_SYNC", 51)
    monkeypatch.setattr(fcntl, "fcntl", lambda handle, command: asked.append(command))
    monkeypatch.setattr(os, "fsync", synced.append)
    write_text(tmp_path / "a", "x")
    assert (asked, synced) == ([51, 51], [])

    def not_there(*_: object) -> NoReturn:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "fcntl", not_there)
    write_text(tmp_path / "a", "x")
    assert len(synced) == 2


@pytest.mark.parametrize(
    ("error", "passed_over"),
    [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EBADF, True), (errno.EIO, False)],
)
def test_a_drive_that_syncs_no_folders(
    error: int, passed_over: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(_: int) -> NoReturn:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", answers)
    if passed_over:
        sync_folder(tmp_path)
    else:
        with pytest.raises(OSError, match="error"):
            sync_folder(tmp_path)


def test_the_names_of_new_folders_are_on_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    make_folder(tmp_path / "a/b/c")
    make_folder(tmp_path / "a/b/c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a/b"]


# --- records that anyone may have written


def test_a_record_is_read_from_utf8_with_or_without_a_mark(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"가": [1, None]})
    assert read_json(tmp_path / "a.json") == {"가": [1, None]}
    (tmp_path / "b.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "b.json") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 60 + b"]" * 60, "nested too deeply"),
        (b'{"a": ["\\ud800"]}', "surrogates not allowed"),
        (b'{"\\ud800": 1}', "surrogates not allowed"),
        (b"[1, 2", "Expecting"),
        (b"\xff\xfe\xff", "codec can't decode"),
        (b" " * 1001, "larger than 1,000 bytes"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_small_record_is_a_value_error(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "a.json", 10**6 if b"[" in content else 1000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_or_a_device_is_no_record(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    os.symlink("/dev/zero", tmp_path / "b.json")
    for name in ("a.json", "b.json"):
        with pytest.raises(ValueError, match=r"^no file$"):
            read_json(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "c.json")
