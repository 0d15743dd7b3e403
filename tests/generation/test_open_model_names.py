"""Which checkpoint a name stands for, and which settings answers depend on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from honing.config import Config, GenerateConfig
from honing.errors import UserError
from honing.generation.open_model import OpenModel, answering_config, find_adapter, open_model
from tests.tiny_run import STEPS, TinyRun


def opened(name: object) -> OpenModel:
    return open_model(str(name), answering_config(str(name)))


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def copy_of(run: TinyRun, folder: Path) -> Path:
    """The run in another place, its links kept."""
    return Path(shutil.copytree(run.folder, folder / "run", symlinks=True))


# --- which checkpoint


def test_a_run_means_its_best_checkpoint(tiny_run: TinyRun) -> None:
    best = os.readlink(tiny_run.checkpoints / "best")
    assert best in STEPS
    assert find_adapter(str(tiny_run.folder), None) == tiny_run.checkpoints / best
    assert opened(tiny_run.folder).adapter == tiny_run.checkpoints / best


def test_without_a_best_one_a_run_means_its_final_then_its_last(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    run = copy_of(tiny_run, tmp_path)
    (run / "checkpoints" / "best").unlink()
    assert find_adapter(str(run), None) == run / "checkpoints" / "final"
    shutil.rmtree(run / "checkpoints" / "final")
    assert find_adapter(str(run), None) == run / "checkpoints" / STEPS[1]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("last", STEPS[1]),
        ("final", "final"),
        (STEPS[0], STEPS[0]),
        (STEPS[1], STEPS[1]),
        (f"outputs/checkpoints/{STEPS[0]}", STEPS[0]),  # as a shell completes it
        (f"{STEPS[0]}/", STEPS[0]),
    ],
)
def test_another_checkpoint_can_be_named(tiny_run: TinyRun, asked: str, found: str) -> None:
    assert find_adapter(str(tiny_run.folder), asked) == tiny_run.checkpoints / found


@pytest.mark.parametrize(
    "asked", ["nonsense", "step-000001", "", "..", ".", "../..", "../../config.yaml", "logs"]
)
def test_a_checkpoint_that_is_not_there_is_refused(tiny_run: TinyRun, asked: str) -> None:
    assert error_of(lambda: find_adapter(str(tiny_run.folder), asked)) == (
        f"{tiny_run.folder}: has no checkpoint {asked}; there are best, final, last, "
        f"{STEPS[0]}, {STEPS[1]}"
    )


def test_no_name_leads_out_of_the_run(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Neither a path, nor a pointer inside the run that someone made."""
    run = copy_of(tiny_run, tmp_path)
    shutil.copytree(tiny_run.checkpoints / "final", tmp_path / "other")
    (run / "checkpoints" / "pointer").write_text("../../other")
    for asked in ("../../other", str(tmp_path / "other"), "pointer"):
        message = error_of(partial(find_adapter, str(run), asked))
        assert f"has no checkpoint {asked};" in message
    (run / "checkpoints" / "link").symlink_to("../../other")
    for wanted in ("link", "final", None):
        message = error_of(partial(find_adapter, str(run), wanted))
        assert "checkpoints/link: is a link that leads out of the run's folder" in message


@pytest.mark.parametrize("name", ["best", "last", "final", *STEPS])
def test_a_checkpoints_folder_names_itself(tiny_run: TinyRun, name: str) -> None:
    folder = tiny_run.checkpoints / name
    assert find_adapter(str(folder), None) == folder
    assert opened(folder).adapter == folder
    assert error_of(lambda: find_adapter(str(folder), "last")) == (
        f"{folder}: is a checkpoint itself; --checkpoint goes with a run's folder"
    )


@pytest.mark.parametrize("name", ["no such thing", "gpt2", "x" * 5000, "a\0b", "~nobody/x", ""])
def test_what_is_no_run_has_no_checkpoint(name: str) -> None:
    assert find_adapter(name, None) is None
    assert error_of(lambda: find_adapter(name, "last")).endswith(
        ": is no run's folder, so it has no checkpoint last"
    )


def test_a_run_before_its_first_checkpoint_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    shutil.copy(tiny_run.folder / "config.yaml", tmp_path)
    assert error_of(lambda: opened(tmp_path)) == (
        f"{tmp_path}: holds no finished checkpoint yet; train, or wait for one"
    )
    assert error_of(lambda: find_adapter(str(tmp_path), "last")) == (
        f"{tmp_path}: has no checkpoint last; there are none yet"
    )


# --- settings


def test_a_runs_own_way_of_answering_is_kept(tiny_run: TinyRun) -> None:
    for name in (tiny_run.folder, tiny_run.checkpoints / "best", tiny_run.checkpoints / STEPS[0]):
        config = answering_config(str(name), ["generate.temperature=0.5"])
        assert (config.generate.max_new_tokens, config.generate.temperature) == (9, 0.5)
        assert config.device == "auto"
        assert config.data == Config().data
    assert answering_config(str(tiny_run.base)).generate == Config().generate
    override = ["generate.max_new_tokens=3"]
    assert answering_config(str(tiny_run.folder), override).generate.max_new_tokens == 3


def merged_folder(folder: Path, generate: Any) -> Path:
    """What `honing merge` leaves, as far as answering_config reads it."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "honing.json").write_text(json.dumps({"generate": generate}))
    return folder


def test_a_merged_folders_own_way_of_answering_is_kept(tmp_path: Path) -> None:
    stored = GenerateConfig(max_new_tokens=9, stop=["###"], scripts=["hangul"])
    folder = merged_folder(tmp_path / "merged", stored.model_dump())
    config = answering_config(str(folder))
    assert config.generate == stored
    assert (config.device, config.data) == ("auto", Config().data)
    changed = answering_config(str(folder), ["generate.max_new_tokens=256", "generate.stop=[]"])
    assert changed.generate == GenerateConfig(scripts=["hangul"])  # a default that is set counts
    (folder / "honing.json").unlink()
    assert answering_config(str(folder)).generate == Config().generate


@pytest.mark.parametrize(
    ("stored", "where"),
    [
        ({"max_new_tokens": 0}, "generate.max_new_tokens"),
        ({"beams": 4}, "generate.beams"),
        ([1], "generate"),
        (None, "generate"),
    ],
)
def test_a_way_of_answering_that_cannot_be_read_is_one_line(
    stored: Any, where: str, tmp_path: Path
) -> None:
    folder = merged_folder(tmp_path / "merged", stored)
    assert error_of(lambda: answering_config(str(folder))) == (
        f"{folder / 'honing.json'}: {where}: is no setting that this version of honing knows; mend "
        "it, or merge again"
    )


def test_a_run_around_the_working_folder_does_not_count(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_run.folder / "logs")
    assert answering_config("gpt2").generate == Config().generate
    monkeypatch.chdir(tiny_run.checkpoints)
    assert answering_config("final").generate.max_new_tokens == 9


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.epochs=3", ""),
        ("data.source=sample", ""),
        ("data={template: alpaca}", ""),
        ("output_dir=x", ""),
        ("lora.rank=4", ""),
        ("seed=1", "; did you mean generate.seed?"),
    ],
)
def test_a_setting_that_answers_do_not_depend_on_is_refused(
    tiny_run: TinyRun, override: str, hint: str
) -> None:
    key = override.split("=")[0]
    for name in (tiny_run.folder, tiny_run.base, "gpt2"):
        assert error_of(partial(answering_config, str(name), [override])) == (
            f"command line, {key}: does nothing to answers, which depend on generate.*, device, "
            f"model.* and data.template{hint}"
        )


def test_a_wrong_setting_is_said_as_everywhere() -> None:
    message = error_of(lambda: answering_config("gpt2", ["generate.temprature=1"]))
    assert "did you mean generate.temperature?" in message
