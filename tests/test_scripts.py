"""scripts/*.py: the first draft's names for honing's commands."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from honing.config_file import load_config
from tests.tiny_run import TinyRun

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
FIRST_DRAFT = str(SCRIPTS.parent / "configs" / "first_draft.yaml")


def run_script(monkeypatch: pytest.MonkeyPatch, name: str, arguments: Sequence[str]) -> object:
    """Its exit status. In this process: a process of its own would cost seconds of imports."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")
    return stop.value.code


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("train.py", [], ["train", FIRST_DRAFT]),
        ("train.py", ["--resume"], ["train", FIRST_DRAFT, "--resume"]),
        ("train.py", ["train.epochs=1"], ["train", FIRST_DRAFT, "train.epochs=1"]),
        ("train.py", ["my.yaml"], ["train", "my.yaml"]),
        ("train.py", ["my.yaml", "seed=1", "--overwrite"], None),
        ("inference.py", [], ["generate", "outputs"]),
        ("inference.py", ["--prompt", "가"], ["generate", "outputs", "--prompt", "가"]),
        ("inference.py", ["generate.top_k=5"], ["generate", "outputs", "generate.top_k=5"]),
        ("inference.py", ["outputs/a", "--prompt", "a=b"], None),
        ("evaluate.py", [], ["evaluate", "outputs"]),
        ("evaluate.py", ["evaluate.split=val"], ["evaluate", "outputs", "evaluate.split=val"]),
        ("evaluate.py", ["--predictions", "a.jsonl"], None),
        ("evaluate.py", ["outputs/a", "--checkpoint", "last"], None),
        ("compare_results.py", [], ["compare", "outputs"]),
        ("compare_results.py", ["--language", "ko"], ["compare", "outputs", "--language", "ko"]),
        ("compare_results.py", ["outputs/a", "outputs/b"], None),
        ("merge_lora.py", [], ["merge", "outputs"]),
        ("merge_lora.py", ["--gguf", "f16"], ["merge", "outputs", "--gguf", "f16"]),
        ("merge_lora.py", ["outputs/a", "--output", "b"], None),
    ],
)
def test_what_is_left_out_is_the_first_drafts(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arguments: list[str],
    expected: list[str] | None,
) -> None:
    called: list[Sequence[str]] = []

    def main(arguments: Sequence[str]) -> int:
        called.append(arguments)
        return 7

    monkeypatch.setattr("honing.cli.main", main)
    assert run_script(monkeypatch, name, arguments) == 7
    command = {
        "train.py": "train",
        "inference.py": "generate",
        "evaluate.py": "evaluate",
        "compare_results.py": "compare",
        "merge_lora.py": "merge",
    }[name]
    assert called == [expected or [command, *arguments]]


def test_the_first_drafts_configuration_is_there() -> None:
    assert load_config(Path(FIRST_DRAFT)).output_dir == "outputs"


def test_training_and_asking_as_in_the_first_draft(
    tiny_run: TinyRun,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["output_dir=outputs", "train.max_steps=2"]
    assert run_script(monkeypatch, "train.py", [str(tiny_run.config), *settings]) == 0
    assert {path.name for path in Path("outputs/checkpoints/final").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "trainer_state.pt",
    }
    assert list(Path("outputs/logs").glob("events.out.tfevents.*"))
    capsys.readouterr()
    assert run_script(monkeypatch, "inference.py", ["--prompt", "물은?", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["model"] == "outputs"
    assert record["answers"][0]["instruction"] == "물은?"


@pytest.mark.parametrize("name", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_a_script_explains_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run_script(monkeypatch, name, ["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: honing ")
    assert "error" not in capsys.readouterr().err
