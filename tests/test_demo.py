"""`honing demo` from end to end, on a tiny base in the place of the embedded one."""

from __future__ import annotations

from pathlib import Path

import pytest

from honing.demo import FIRST_DRAFT_PROMPTS, NUM_HELD_OUT, demo
from honing.errors import UserError


def overrides(base: Path) -> list[str]:
    return [
        f"model.base={base}",
        "data.max_rows=16",
        "train.max_val_rows=4",
        "generate.max_new_tokens=4",
    ]


def test_the_demo_shows_answers_before_and_after_and_can_be_run_again(
    tiny_base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "outputs" / "demo"
    said: list[str] = []
    record = demo(str(folder), overrides(tiny_base), said.append)
    questions = [row["instruction"] for row in record["after"]["answers"]]
    assert tuple(questions[:2]) == FIRST_DRAFT_PROMPTS
    assert len(questions) == len(FIRST_DRAFT_PROMPTS) + NUM_HELD_OUT
    assert [row["instruction"] for row in record["before"]["answers"]] == questions
    assert record["before"]["checkpoint"] is None
    assert record["after"]["checkpoint"] is not None
    assert record["training"]["num_steps"] == 1
    text = "\n".join(said)
    assert text.count("    base   ") == text.count("    tuned  ") == len(questions)
    assert "| epoch | train loss |" in text
    assert f"honing chat {folder}" in text
    again = demo(str(folder), overrides(tiny_base), lambda line: None)
    assert again["training"]["final_val_loss"] == record["training"]["final_val_loss"]


def test_held_out_questions_are_of_kinds_that_training_never_saw(
    tiny_base: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    demo(str(tmp_path / "demo"), overrides(tiny_base), said.append)
    assert sum("(held out, of a kind that training never saw)" in line for line in said) == (
        NUM_HELD_OUT
    )


def test_a_folder_that_holds_something_else_is_left_alone(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty and no demo's; choose --output"):
        demo(str(tmp_path), overrides(tiny_base), lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
