"""The rows of an evaluation: which split, which draw, which groups, which leaks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from honing.config import Config
from honing.config_file import load_config
from honing.errors import UserError
from honing.evaluation.held_out import load_held_out
from honing.run import RunFolder
from tests.runs import save_rows
from tests.tiny_run import TinyRun

TRAIN = [{"id": f"r:{n}", "instruction": f"질문 {n}번", "output": f"답 {n}"} for n in range(1, 6)]
TEST = [
    {"id": "r:10", "instruction": "바다는 왜 파란가요?", "output": "빛 때문입니다."},
    {"id": "r:11", "instruction": "바다는  왜 파란가요", "output": "물입니다."},
    {"id": "r:12", "instruction": "2 + 3", "input": "셈", "output": "5"},
]


def made_run(folder: Path, **splits: list[dict[str, Any]]) -> RunFolder:
    """A run's folder with the files that evaluating reads."""
    run = RunFolder(folder / "run")
    for name, rows in {"train": TRAIN, **splits}.items():
        save_rows(run.split_file(name), rows)
    leaks = {name: {"leaked_ids": ["r:12"]} for name in splits}
    run.data_report.write_text(json.dumps({"leaks": leaks}), encoding="utf-8")
    return run


def config(**evaluate: Any) -> Config:
    return load_config(None, [f"evaluate.{key}={value}" for key, value in evaluate.items()])


def test_the_test_split_comes_first(tmp_path: Path) -> None:
    rows = load_held_out(made_run(tmp_path, test=TEST, val=TEST[:1]), config())
    assert rows.split == "test"
    assert [example.id for example in rows.examples] == ["r:10", "r:11", "r:12"]
    assert rows.examples[2].exchanges[0].input == "셈"
    assert rows.groups == (0, 0, 1)
    assert rows.num_groups == 2
    assert rows.leaked == (False, False, True)
    assert [example.id for example in rows.train] == [f"r:{n}" for n in range(1, 6)]
    assert rows.notes == ()


def test_without_a_test_split_the_validation_rows_are_used_and_said(tmp_path: Path) -> None:
    rows = load_held_out(made_run(tmp_path, val=TEST), config())
    assert rows.split == "val"
    assert rows.notes == (
        "the validation rows chose the checkpoint, so their scores flatter it a little",
    )


def test_a_draw_is_seeded_and_keeps_the_order(tmp_path: Path) -> None:
    many = [{"id": f"t:{n}", "instruction": f"{'가나다라마바사아자차'[n % 10]}{n * 7919}",
             "output": "a"} for n in range(40)]  # fmt: skip
    run = made_run(tmp_path, test=many)
    first, again = (load_held_out(run, config(num_samples=10)) for _ in range(2))
    assert first == again
    assert first.num_available == 40
    ids = [int(example.id.removeprefix("t:")) for example in first.examples]
    assert len(ids) == 10
    assert ids == sorted(ids)
    assert ids != list(range(10))
    other = load_held_out(run, config(num_samples=10).model_copy(update={"seed": 7}))
    assert other.examples != first.examples
    assert len(load_held_out(run, config(num_samples="null")).examples) == 40


def test_a_file_of_the_users_is_audited_against_the_training_rows(tmp_path: Path) -> None:
    file = save_rows(
        tmp_path / "mine.jsonl",
        [{"instruction": "질문 2번", "output": "x"}, {"instruction": "새 질문", "output": "y"}],
    )
    rows = load_held_out(made_run(tmp_path, test=TEST), config(source=file))
    assert rows.split == "mine.jsonl"
    assert rows.leaked == (True, False)


@pytest.mark.parametrize(
    ("splits", "settings", "message"),
    [
        ({}, {}, "holds neither a test nor a validation split; name a file of held-out rows"),
        ({"val": TEST}, {"split": "test"}, "has no test.jsonl; use evaluate.split=val"),
    ],
)
def test_rows_that_are_not_there(tmp_path: Path, splits: Any, settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_held_out(made_run(tmp_path, **splits), config(**settings))


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    run = made_run(tmp_path, test=TEST)
    run.data_report.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"data_report.json: holds no leak audit of the test rows"):
        load_held_out(run, config())


def test_a_run_without_its_training_rows_is_an_error(tmp_path: Path) -> None:
    run = made_run(tmp_path, test=TEST)
    run.split_file("train").unlink()
    with pytest.raises(UserError, match=r"train.jsonl: is missing"):
        load_held_out(run, config())


def test_the_splits_of_a_real_run_come_back_with_their_ids(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_run.folder, copy.root, symlinks=True)
    rows = load_held_out(copy, load_config(copy.config))
    lines = copy.split_file("test").read_text(encoding="utf-8").splitlines()
    assert [example.id for example in rows.examples] == [json.loads(line)["id"] for line in lines]
    report = json.loads(copy.data_report.read_text(encoding="utf-8"))
    leaked = set(report["leaks"]["test"]["leaked_ids"])
    assert [e.id in leaked for e in rows.examples] == list(rows.leaked)
