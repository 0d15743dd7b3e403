"""Run folders from strangers: no link in one leads honing out, and no pipe makes it wait."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from honing.cli import main
from honing.errors import UserError
from honing.evaluation.files import write_evaluation
from honing.generation.open_model import find_adapter
from honing.run import RunFolder
from tests.report.made_up import made_up_runs
from tests.runs import contents_below
from tests.tiny_run import TinyRun

Captured = pytest.CaptureFixture[str]

COMMANDS = {
    "resume": ["train", "CONFIG", "output_dir=RUN", "--resume"],
    "prepare": ["prepare", "CONFIG", "output_dir=RUN"],
    "generate": ["generate", "RUN", "--prompt", "hi"],
    "evaluate": ["evaluate", "RUN"],
    "of a checkpoint": ["evaluate", "RUN/checkpoints/final"],
    "compare": ["compare", "RUN"],
    "merge": ["merge", "RUN"],
    "check": ["check", "RUN"],
}


class Stranger:
    """A copy of a finished run, what lies outside it, and honing run on the copy."""

    def __init__(self, tiny_run: TinyRun, folder: Path, capsys: Captured) -> None:
        self.run, self.outside, self.capsys = RunFolder(folder / "run"), folder / "outside", capsys
        self.config = tiny_run.config
        shutil.copytree(tiny_run.folder, self.run.root, symlinks=True)
        self.run.report_json.unlink()  # so that it can be resumed
        self.outside.mkdir()
        (self.outside / "precious.txt").write_text("precious\n")
        for name in ("checkpoints", "logs", "splits"):
            shutil.copytree(self.run.root / name, self.outside / name, symlinks=True)
        (self.outside / "evaluation").mkdir()

    def replace(self, name: str, target: Path) -> None:
        path = self.run.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        os.symlink(target, path)

    def refusal(self, command: str) -> str:
        """The one line that a command says; nothing outside has changed."""
        if command == "prepare":
            for path in (self.run.config, self.run.metrics):
                path.unlink(missing_ok=True)
            shutil.rmtree(self.run.checkpoints)
        if command == "compare":
            for name in ("base.json", "tuned.json"):
                self.run.evaluation.mkdir(exist_ok=True)
                (self.run.evaluation / name).touch()
        arguments = [
            part.replace("RUN", str(self.run.root)).replace("CONFIG", str(self.config))
            for part in COMMANDS[command]
        ]
        before = contents_below(self.outside)
        status = main(arguments)
        printed = self.capsys.readouterr()
        assert (status, printed.out) == (2, "")
        assert contents_below(self.outside) == before
        (line,) = printed.err.splitlines()
        return line.removeprefix("honing: ")


@pytest.fixture
def stranger(tiny_run: TinyRun, tmp_path: Path, capsys: Captured) -> Stranger:
    return Stranger(tiny_run, tmp_path, capsys)


LINKS = [
    ("resume", "metrics.jsonl", "precious.txt"),  # which was written anew through the link
    ("resume", "logs", "logs"),
    ("resume", "checkpoints", "checkpoints"),
    ("resume", "checkpoints/step-000009", "checkpoints/step-000006"),
    ("prepare", "splits", "splits"),
    ("evaluate", "evaluation", "evaluation"),
    ("evaluate", "evaluation/.base.part.jsonl", "precious.txt"),
    ("of a checkpoint", "evaluation", "evaluation"),
    ("compare", "checkpoints/step-000004", "checkpoints/step-000006"),
    ("compare", "training_report.json", "precious.txt"),
    ("merge", "checkpoints/final", "checkpoints/final"),
    ("check", "config.yaml", "precious.txt"),
    ("generate", "checkpoints/best", "checkpoints/final"),
]


@pytest.mark.parametrize(("command", "name", "target"), LINKS)
def test_no_link_leads_out(command: str, name: str, target: str, stranger: Stranger) -> None:
    stranger.replace(name, stranger.outside / target)
    assert stranger.refusal(command) == (
        f"{stranger.run.root / name}: is a link that leads out of the run's folder, and is not "
        "followed; put a copy of what it leads to in its place"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("compare", "metrics.jsonl"),
        ("check", "data_report.json"),
        ("resume", "config.yaml"),
        ("merge", "checkpoints/step-000006/manifest.json"),
    ],
)
def test_no_pipe_is_waited_for(command: str, name: str, stranger: Stranger) -> None:
    path = stranger.run.root / name
    path.unlink()
    os.mkfifo(path)
    assert stranger.refusal(command) == (
        f"{path}: is a pipe or a device, and no file; take it out of the run's folder"
    )


def test_a_new_run_takes_links_away_and_leaves_what_they_lead_to(stranger: Stranger) -> None:
    before = contents_below(stranger.outside)
    for name in ("splits", "logs", "metrics.jsonl"):
        target = name if name != "metrics.jsonl" else "precious.txt"
        stranger.replace(name, stranger.outside / target)
    arguments = ["train", str(stranger.config), f"output_dir={stranger.run.root}"]
    assert main([*arguments, "train.max_steps=1", "--overwrite"]) == 0
    assert contents_below(stranger.outside) == before
    assert stranger.run.split_file("train").is_file()
    stranger.run.check_files()


def test_a_checkpoint_is_no_way_out_for_a_model_card(tmp_path: Path, capsys: Captured) -> None:
    """The card went beside whatever the evaluation called its checkpoint."""
    (made,) = made_up_runs(1, 12)
    run, outside = RunFolder(tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    model = {**made.tuned.model, "checkpoint": "../../outside"}
    write_evaluation(run.evaluation_base, made.base)
    write_evaluation(run.evaluation_tuned, replace(made.tuned, model=model))
    assert main(["compare", str(run.root)]) == 2
    assert capsys.readouterr().err == (
        f"honing: {run.evaluation_tuned}: is damaged (its checkpoint is no name of a folder); "
        "evaluate again\n"
    )
    assert list(outside.iterdir()) == []


def test_links_that_stay_inside_are_followed(stranger: Stranger) -> None:
    run = stranger.run
    (run.checkpoints / "final").rename(run.checkpoints / "mine")
    os.symlink("mine", run.checkpoints / "final")
    run.check_files()
    assert run.checkpoint_to_use() == run.linked("best")
    (run.checkpoints / "best").unlink()
    assert run.checkpoint_to_use() == run.checkpoints / "mine"


def test_a_caller_in_python_is_protected_too(
    tiny_run: TinyRun, tmp_path: Path, capsys: Captured
) -> None:
    stranger = Stranger(tiny_run, tmp_path, capsys)
    assert find_adapter(str(stranger.run.root), None) is not None
    stranger.replace("checkpoints", stranger.outside / "checkpoints")
    with pytest.raises(UserError, match="is a link that leads out of the run's folder"):
        find_adapter(str(stranger.run.root), None)
