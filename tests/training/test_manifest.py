"""manifest.json: any change of a file that it names is found; what it does not say, too."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from honing.training.manifest import damage, manifest_of, sha256_of

CONTENTS = {"b.bin": b"\0" * 3000, "a.json": "{가}".encode()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "manifest.json").write_bytes(manifest_of(CONTENTS))
    return tmp_path


def test_a_manifest_holds_sizes_and_hashes() -> None:
    assert json.loads(manifest_of(CONTENTS)) == {
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in CONTENTS.items()
        }
    }
    assert manifest_of(dict(reversed(CONTENTS.items()))) == manifest_of(CONTENTS)
    assert manifest_of({"b.bin": memoryview(CONTENTS["b.bin"])}) == manifest_of(
        {"b.bin": CONTENTS["b.bin"]}
    )


def test_a_file_is_hashed_in_blocks(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "f").write_bytes(content)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_files_as_they_were_written(folder: Path) -> None:
    assert damage(folder, CONTENTS) is None
    (folder / "README.md").write_text("a model card")
    assert damage(folder, CONTENTS) is None


def test_every_flipped_bit_of_a_small_file_is_found(folder: Path) -> None:
    content = CONTENTS["a.json"]
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        (folder / "a.json").write_bytes(changed)
        assert damage(folder, CONTENTS) == (
            "a.json",
            "is damaged (its SHA-256 is not the one in manifest.json)",
        )


@pytest.mark.parametrize("num_bytes", [0, 2999, 3001])
def test_another_size(num_bytes: int, folder: Path) -> None:
    (folder / "b.bin").write_bytes(b"\0" * num_bytes)
    expected = f"is damaged ({num_bytes:,} bytes of 3,000)"
    assert damage(folder, CONTENTS) == ("b.bin", expected)
    assert damage(folder, ["a.json"]) is None


def test_a_missing_file_and_a_folder_in_its_place(folder: Path) -> None:
    (folder / "b.bin").unlink()
    assert damage(folder, CONTENTS) == ("b.bin", "is missing")
    (folder / "b.bin").mkdir()
    assert damage(folder, CONTENTS) == ("b.bin", "is missing")


def test_without_a_manifest_nothing_is_compared(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "b.bin").unlink()
    assert damage(folder, CONTENTS) is None


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ("{", "cannot be read (Expecting property name"),
        ("\x00", "cannot be read (Expecting value"),
        ("[" * 100_000, "cannot be read (nested too deeply"),
        ("[]", "says nothing of b.bin"),
        ("7", "says nothing of b.bin"),
        ('{"files": []}', "says nothing of b.bin"),
        ('{"files": {"b.bin": 7}}', "says nothing of b.bin"),
        ('{"files": {"b.bin": {"bytes": "3000", "sha256": "x"}}}', "says nothing of b.bin"),
        ('{"files": {"b.bin": {"bytes": 3000, "sha256": 7}}}', "says nothing of b.bin"),
        (" " * (1 << 20) + "{}", "is larger than any manifest"),
    ],
)
def test_a_manifest_that_anyone_may_have_written(record: str, why: str, folder: Path) -> None:
    (folder / "manifest.json").write_text(record)
    found = damage(folder, CONTENTS)
    assert found is not None
    assert found[0] == "manifest.json"
    assert found[1].startswith(why)
    assert "\n" not in found[1]


def test_a_drive_that_cannot_read_any_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("honing.training.manifest.sha256_of", fails)
    assert damage(folder, CONTENTS) == ("b.bin", "cannot be read (Input/output error)")
