"""`honing demo` from end to end, on a tiny base in the place of the embedded one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from honing.demo import FIRST_DRAFT_PROMPTS, NUM_HELD_OUT, demo
from honing.errors import UserError
from honing.run import RunFolder


def overrides(base: Path) -> list[str]:
    return [
        f"model.base={base}",
        "data.max_rows=16",
        "train.max_val_rows=4",
        "generate.max_new_tokens=4",
        "evaluate.num_samples=6",
        "evaluate.max_new_tokens=4",
        "evaluate.num_resamples=1000",
    ]


def test_the_demo_goes_from_rows_to_a_page_and_a_merged_model_and_can_be_run_again(
    tiny_base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "outputs" / "demo"
    said: list[str] = []
    record = demo(str(folder), overrides(tiny_base), said.append)
    assert record["training"]["num_steps"] == 1
    (table,) = record["comparison"]["tables"]
    assert table["run"]["num_rows"] == 6
    text = "\n".join(said)
    assert "| epoch | train loss |" in text
    for prompt in FIRST_DRAFT_PROMPTS:
        assert f"▸ {prompt}   (the first draft's)" in said
    shown = len(FIRST_DRAFT_PROMPTS) + NUM_HELD_OUT
    assert sum(line.startswith("    base   ") for line in said) == shown
    assert sum(line.startswith("    tuned  ") for line in said) == shown
    assert sum(line.endswith("   (held out)") for line in said) == NUM_HELD_OUT
    assert f"honing chat {folder}" in text
    assert f"The page: {record['page']}" in said
    assert Path(record["page"]).is_file()
    assert (folder / "merged" / "merge_report.json").is_file()
    again = demo(str(folder), overrides(tiny_base), lambda line: None)
    assert again["training"]["final_val_loss"] == record["training"]["final_val_loss"]


def test_the_folder_may_be_named_by_its_setting(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    demo("outputs/demo", [*overrides(tiny_base), f"output_dir={folder}"], lambda line: None)
    assert (folder / "report.html").is_file()


def test_held_out_questions_are_of_kinds_that_training_never_saw(
    tiny_base: Path, tmp_path: Path
) -> None:
    record = demo(str(tmp_path / "demo"), overrides(tiny_base), lambda line: None)
    run = RunFolder(tmp_path / "demo")
    groups = {
        name: {
            json.loads(line)["group"]
            for line in run.split_file(name).read_text(encoding="utf-8").splitlines()
        }
        for name in ("train", "test")
    }
    assert not groups["train"] & groups["test"]
    assert record["comparison"]["tables"][0]["run"]["split"] == "test"


def test_a_folder_that_holds_something_else_is_left_alone(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty and no demo's; choose --output"):
        demo(str(tmp_path), overrides(tiny_base), lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
