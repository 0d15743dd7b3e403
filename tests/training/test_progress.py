"""What a training shows: the bar, TensorBoard's events, the lines of metrics.jsonl."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from honing.errors import UserError
from honing.run import RunFolder
from honing.training.progress import LoggedEvaluation, LoggedSteps, Progress, perplexity


def steps(step: int) -> LoggedSteps:
    return LoggedSteps(
        step=step,
        epoch=step / 10,
        train_loss=4.0 - step / 8,
        learning_rate=step / 1024,
        grad_norm=0.5,
        tokens_per_s=1000.0 + step,
        memory_bytes=2_500_000_000,
    )


def evaluation(step: int) -> LoggedEvaluation:
    return LoggedEvaluation(
        step, step / 10, 2.0, math.exp(2.0), (("한국의 수도?", f"서울 {step}"),)
    )


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def events_of(run: RunFolder) -> EventAccumulator:
    accumulator = EventAccumulator(str(run.logs), size_guidance={"tensors": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def scalars_of(run: RunFolder, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events_of(run).Scalars(tag)]


def lines_of(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]


def write(run: RunFolder, start: int, *numbers: int) -> None:
    """A training that starts after a step and logs and validates at these."""
    progress = Progress(run, 100, show=False)
    progress.start(start)
    if start == 0:
        progress.evaluated(evaluation(0), "")
    for step in numbers:
        progress.logged(steps(step))
        progress.evaluated(evaluation(step), "")
    progress.close()


def test_tensorboard_reads_the_events(run: RunFolder) -> None:
    write(run, 0, 10, 20)
    assert set(events_of(run).Tags()["scalars"]) == {
        "train/loss",
        "train/learning_rate",
        "train/grad_norm",
        "train/tokens_per_s",
        "train/memory_GB",
        "validation/loss",
        "validation/perplexity",
    }
    assert scalars_of(run, "train/loss") == [(10, 2.75), (20, 1.5)]
    assert scalars_of(run, "train/learning_rate") == [(10, 10 / 1024), (20, 20 / 1024)]
    assert scalars_of(run, "train/grad_norm") == [(10, 0.5), (20, 0.5)]
    assert scalars_of(run, "train/tokens_per_s") == [(10, 1010.0), (20, 1020.0)]
    assert scalars_of(run, "train/memory_GB") == [(10, 2.5), (20, 2.5)]
    assert scalars_of(run, "validation/loss") == [(0, 2.0), (10, 2.0), (20, 2.0)]
    numbers = [value for _, value in scalars_of(run, "validation/perplexity")]
    assert numbers == pytest.approx([math.exp(2.0)] * 3)
    assert all(path.name.startswith("events.out.tfevents.") for path in run.logs.iterdir())


def test_tensorboard_shows_sample_answers(run: RunFolder) -> None:
    write(run, 0, 10)
    (tag,) = events_of(run).Tags()["tensors"]
    assert tag == "sample/1/text_summary"
    texts = [event.tensor_proto.string_val[0].decode() for event in events_of(run).Tensors(tag)]
    assert texts == ["**한국의 수도?**\n\n서울 0", "**한국의 수도?**\n\n서울 10"]


def test_lines_of_the_metrics_file(run: RunFolder) -> None:
    write(run, 0, 10)
    assert lines_of(run) == [
        {
            "kind": "validation",
            "step": 0,
            "epoch": 0.0,
            "val_loss": 2.0,
            "val_perplexity": math.exp(2.0),
            "samples": [{"prompt": "한국의 수도?", "answer": "서울 0"}],
        },
        {
            "kind": "train",
            "step": 10,
            "epoch": 1.0,
            "train_loss": 2.75,
            "learning_rate": 10 / 1024,
            "grad_norm": 0.5,
            "tokens_per_s": 1010.0,
            "memory_bytes": 2_500_000_000,
        },
        {
            "kind": "validation",
            "step": 10,
            "epoch": 1.0,
            "val_loss": 2.0,
            "val_perplexity": math.exp(2.0),
            "samples": [{"prompt": "한국의 수도?", "answer": "서울 10"}],
        },
    ]
    assert "한국의 수도?" in run.metrics.read_text(encoding="utf-8")


def test_what_came_after_the_step_of_a_resume_is_dropped(run: RunFolder) -> None:
    write(run, 0, 10, 20, 30)
    write(run, 20, 30, 40)
    assert [(line["kind"], line["step"]) for line in lines_of(run)] == [
        ("validation", 0),
        *((kind, step) for step in (10, 20, 30, 40) for kind in ("train", "validation")),
    ]
    assert [step for step, _ in scalars_of(run, "train/loss")] == [10, 20, 30, 40]
    assert [step for step, _ in scalars_of(run, "validation/loss")] == [0, 10, 20, 30, 40]


def test_a_start_from_the_beginning_keeps_nothing(run: RunFolder) -> None:
    """A run that was killed before its first checkpoint measures the base model again."""
    write(run, 0, 10, 20)
    write(run, 0, 10)
    assert [(line["kind"], line["step"]) for line in lines_of(run)] == [
        ("validation", 0),
        ("train", 10),
        ("validation", 10),
    ]
    assert [step for step, _ in scalars_of(run, "validation/loss")] == [0, 10]


@pytest.mark.parametrize("torn", ['{"kind": "train", "step": 1', '{"kind": "tr', "{}", "[1]", "7"])
def test_a_line_that_a_killed_process_left_half_written_is_dropped(
    torn: str, run: RunFolder
) -> None:
    write(run, 0, 10)
    before = run.metrics.read_text(encoding="utf-8")
    with run.metrics.open("a", encoding="utf-8") as file:
        file.write(torn)
    write(run, 10, 20)
    text = run.metrics.read_text(encoding="utf-8")
    assert text.startswith(before)
    assert [line["step"] for line in lines_of(run)] == [0, 10, 10, 20, 20]


def test_a_line_torn_in_the_middle_of_a_character_is_dropped(run: RunFolder) -> None:
    write(run, 0, 10)
    with run.metrics.open("ab") as file:
        file.write('{"step": 11, "samples": "한'.encode()[:-1])
    write(run, 10)
    assert [line["step"] for line in lines_of(run)] == [0, 10, 10]


def test_without_a_run_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    progress = Progress(None, 3, show=False)
    progress.start(0)
    progress.stepped(1.0, 1e-3)
    progress.logged(steps(1))
    progress.evaluated(evaluation(1), "")
    progress.close()
    assert list(tmp_path.iterdir()) == []


def test_the_bar_shows_loss_rate_and_what_remains(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(None, 8, show=True)
    progress.start(2)
    for _ in range(6):
        progress.stepped(1.23456, 2e-4)
    progress.close()
    shown = capsys.readouterr().err
    assert "2/8" in shown.split("\r")[1]
    last = shown.rstrip().split("\r")[-1]
    assert "8/8" in last
    assert "loss 1.235, rate 2.0e-04" in last
    assert "step" in last


def test_a_validation_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(None, 8, show=True)
    progress.evaluated(evaluation(0), " (the base model)")
    said = "step 0: validation loss 2.0000, perplexity 7.39 (the base model)\n"
    assert capsys.readouterr() == ("", said)
    Progress(None, 8, show=False).evaluated(evaluation(0), "")
    assert capsys.readouterr() == ("", "")


def test_closing_twice_or_before_the_start_does_no_harm(run: RunFolder) -> None:
    progress = Progress(run, 8, show=False)
    progress.close()
    progress.start(0)
    progress.close()
    progress.close()


def test_perplexity() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(2.0) == math.exp(2.0)
    assert perplexity(699.0) == math.exp(699.0)
    assert perplexity(1e6) == math.inf


# A full disk


class FullDisk:
    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.closed = False

    def fail(self, *arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    add_scalar = add_text = flush = close = fail


def test_a_full_disk_under_the_events(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", FullDisk)
    progress = Progress(run, 8, show=False)
    progress.start(0)
    with pytest.raises(UserError) as caught:
        progress.logged(steps(1))
    progress.close()  # and this does not hide it
    assert str(caught.value) == (
        f"{run.logs}: cannot be written (No space left on device); "
        "free some space or choose another folder"
    )


def test_a_full_disk_under_the_lines(run: RunFolder) -> None:
    run.metrics.mkdir(parents=True)  # anything that cannot be opened
    with pytest.raises(UserError) as caught:
        Progress(run, 8, show=False).logged(steps(1))
    assert str(caught.value) == (
        f"{run.metrics}: cannot be written (Is a directory); "
        "free some space or choose another folder"
    )
