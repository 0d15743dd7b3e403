"""The merged folder: whole, loadable by anyone, or not there."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from transformers import AutoTokenizer, GenerationConfig

from honing.errors import CheckFailed, HoningError, UserError
from honing.merging.merge import merge
from honing.merging.verify import verify_merged
from honing.run import RunFolder
from tests.merging.test_merge import quiet
from tests.runs import names_below
from tests.tiny_run import TinyRun


@pytest.fixture(scope="module")
def merged(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("merged") / "merged"
    return merge(str(tiny_run.folder), str(output), say=quiet).folder


def test_what_is_in_it(merged: Path) -> None:
    assert names_below(merged) == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "honing.json",
        "merge_report.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    # As readable as any other file, which safetensors alone does not make it.
    modes = {path.stat().st_mode for path in merged.iterdir()}
    assert len(modes) == 1


def test_its_defaults_end_answers_as_the_run_did(tiny_run: TinyRun, merged: Path) -> None:
    about = json.loads((merged / "honing.json").read_text(encoding="utf-8"))
    trained = tiny_run.checkpoints / "best" / "honing.json"
    end_ids = json.loads(trained.read_text(encoding="utf-8"))["end_ids"]
    defaults = GenerationConfig.from_pretrained(merged)
    assert about["end_ids"] == end_ids == [defaults.eos_token_id]
    assert defaults.pad_token_id == end_ids[0]
    assert not defaults.do_sample
    assert defaults.temperature is None
    settings = json.loads((merged / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"is_local", "local_files_only"} & set(settings)
    assert AutoTokenizer.from_pretrained(merged).eos_token_id == end_ids[0]


def test_sampling_defaults_that_contradict_the_base_are_dropped(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    """Such as Llama 2 came with; transformers refuses to save them."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_run.folder, run.root, symlinks=True)
    base = tmp_path / "base"
    shutil.copytree(tiny_run.base, base)
    odd = {"eos_token_id": 0, "do_sample": False, "temperature": 0.9, "top_p": 0.6}
    (base / "generation_config.json").write_text(json.dumps(odd), encoding="utf-8")
    done = merge(str(run.root), overrides=[f"model.base={base}"], say=quiet)
    stored = json.loads((done.folder / "generation_config.json").read_text(encoding="utf-8"))
    assert "temperature" not in stored
    assert "top_p" not in stored


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(UserError, match=r"merged: cannot be written .*No space left on device"):
        merge(str(tiny_run.folder), str(tmp_path / "merged"), say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_known_beforehand(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"needs 0\.07 GB and 0\.00 GB are free"):
        merge(str(tiny_run.folder), str(tmp_path / "new" / "merged"), say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_merge_leaves_the_older_one(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "merged"
    merge(str(tiny_run.folder), str(output), say=quiet)
    before = (output / "model.safetensors").read_bytes()

    def failing(*_: object) -> None:
        raise CheckFailed("merge: made up")

    monkeypatch.setattr("honing.merging.merge.verify_merged", failing)
    with pytest.raises(CheckFailed, match="made up"):
        merge(str(tiny_run.folder), str(output), overwrite=True, dtype="float16", say=quiet)
    assert (output / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.mark.parametrize("name", [".merged.new", ".merged.old"])
def test_a_link_beside_it_is_no_way_out_and_not_in_the_way(
    name: str, tiny_run: TinyRun, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").touch()
    output = tmp_path / "merged"
    output.mkdir()
    os.symlink(outside, tmp_path / name)
    assert merge(str(tiny_run.folder), str(output), say=quiet).folder == output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "outside"]
    assert [path.name for path in outside.iterdir()] == ["precious.txt"]


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def other_ends(folder: Path) -> None:
    _rewrite(folder / "generation_config.json", eos_token_id=3)


def other_ties(folder: Path) -> None:
    _rewrite(folder / "config.json", tie_word_embeddings=True)


def other_words(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["merges"] = content["model"]["merges"][:1]
    path.write_text(json.dumps(content), encoding="utf-8")


def _rewrite(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_short, "merge: loads: "),
        (other_ends, "merge: ends: "),
        (other_ties, r"merge: (tied_as_merged|tensors_\w+): "),
        (other_words, "merge: tokenizer: "),
    ],
)
def test_what_was_damaged_after_writing_fails_with_its_reason(
    tiny_run: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Any,
    reason: str,
) -> None:
    own = verify_merged

    def damaged(folder: Path, expected: Any) -> Any:
        damage(folder)
        return own(folder, expected)

    monkeypatch.setattr("honing.merging.merge.verify_merged", damaged)
    with pytest.raises(HoningError, match=reason):
        merge(str(tiny_run.folder), str(tmp_path / "merged"), say=quiet)
    assert list(tmp_path.iterdir()) == []
