"""Each command with a tiny model: what it prints, what it writes, where, and how it ends."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from honing.cli import main
from honing.run import RunFolder
from honing.training.trainer import Trainer
from tests.tiny_run import STEPS, TinyRun

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written where the tests were started."""
    monkeypatch.chdir(tmp_path)


def pipe_in(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Standard input as a pipe in a locale without Korean letters."""
    stdin = io.TextIOWrapper(io.BytesIO(content), encoding="ascii", errors="surrogateescape")
    monkeypatch.setattr("sys.stdin", stdin)


def answer_of(run: TinyRun, capsys: Captured, *arguments: str) -> dict[str, Any]:
    """The record of `honing generate --json`: standard output holds nothing else."""
    assert main(["generate", str(run.folder), "--json", *arguments]) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    return record


# --- generate


def test_a_prompt_is_answered(tiny_run: TinyRun, capsys: Captured) -> None:
    assert main(["generate", str(tiny_run.folder), "--prompt", "물은?"]) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("1 prompt, 1 answer, ")
    assert lines[1] == f"{tiny_run.folder}: checkpoint {(tiny_run.checkpoints / 'best').resolve()}"
    record = answer_of(tiny_run, capsys, "--prompt", "물은?")
    assert out == record["answers"][0]["answer"] + "\n"


def test_the_record_has_these_keys(tiny_run: TinyRun, capsys: Captured) -> None:
    record = answer_of(tiny_run, capsys, "--prompt", "더해", "--input", "1, 2")
    assert list(record) == ["model", "checkpoint", "answers", "statistics", "notes"]
    (row,) = record["answers"]
    assert list(row) == ["instruction", "input", "answer", "num_tokens", "stopped"]
    assert (row["instruction"], row["input"]) == ("더해", "1, 2")
    assert list(record["statistics"]) == [
        "num_prompts",
        "num_answers",
        "num_tokens",
        "num_cut_prompts",
        "seconds",
        "tokens_per_s",
        "seconds_to_first",
        "share_ended",
        "repetition",
    ]


def test_rows_in_are_rows_out(tiny_run: TinyRun, capsys: Captured) -> None:
    rows = [{"id": n, "prompt": f"질문 {n}"} for n in range(5)]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--file", "in.jsonl", "--output", "out.jsonl", "generate.batch_size=2"]
    assert main(["generate", str(tiny_run.folder), *arguments]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "5 prompts, 5 answers, " in err
    written = [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").splitlines()]
    assert [{key: row[key] for key in ("id", "prompt")} for row in written] == rows
    record = answer_of(tiny_run, capsys, "--file", "in.jsonl")
    assert record["answers"] == written


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("한국의 수도는?\n", [{"instruction": "한국의 수도는?"}]),
        ("\ufeff한국의 수도는?\r\n", [{"instruction": "한국의 수도는?"}]),
        ("하나\n둘\n", [{"instruction": "하나\n둘"}]),
        ('{"prompt": "가"}\n{"prompt": "나"}\n', [{"prompt": "가"}, {"prompt": "나"}]),
        ('\ufeff\n[{"prompt": "가"}]', [{"prompt": "가"}]),
    ],
)
def test_standard_input_is_a_prompt_or_rows(
    tiny_run: TinyRun,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    expected: list[dict[str, str]],
) -> None:
    pipe_in(monkeypatch, content.encode())
    answers = answer_of(tiny_run, capsys)["answers"]
    made = ("answer", "num_tokens", "stopped")
    assert [{k: v for k, v in row.items() if k not in made} for row in answers] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input: is empty; give a text"),
        ("가나".encode("cp949"), "standard input: is not UTF-8 (byte 0); write it as UTF-8"),
        (
            b'{"prompt": "a"}\n{"prompt"}\n',
            'standard input, line 2: is not JSON; write {"instruction": "…"}, one object a line',
        ),
    ],
)
def test_standard_input_that_asks_nothing_is_refused(
    tiny_run: TinyRun,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    message: str,
) -> None:
    pipe_in(monkeypatch, content)
    assert main(["generate", str(tiny_run.folder)]) == 2
    assert capsys.readouterr() == ("", f"honing: {message}\n")


def test_a_terminal_is_told_how_to_end_a_prompt(
    tiny_run: TinyRun, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.StringIO("물은?\n")
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    assert main(["generate", str(tiny_run.folder)]) == 0
    assert capsys.readouterr().err.startswith("Type a prompt; Ctrl-D on a line of its own ends it.")


def test_a_prompt_in_the_place_of_the_model_is_refused_before_another_is_asked_for(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.StringIO("물은?\n")
    monkeypatch.setattr("sys.stdin", stdin)
    prompt = "한국의 수도는 어디인가요? 길게 대답해 주세요."
    assert main(["generate", prompt]) == 2
    assert capsys.readouterr().err == (
        f"honing: model.base: {prompt}: no such folder, and not a Hub id either\n"
    )
    assert stdin.tell() == 0


def test_an_argument_that_the_locale_could_not_read_is_utf_8(
    tiny_run: TinyRun, capsys: Captured
) -> None:
    """As Python gives it under LC_ALL=C."""
    raw = "물은?".encode().decode("ascii", "surrogateescape")
    record = answer_of(tiny_run, capsys, "--prompt", raw, "--input", raw)
    assert record["answers"][0]["instruction"] == record["answers"][0]["input"] == "물은?"
    broken = os.fsdecode(b"\xff\xfe")
    assert main(["generate", str(tiny_run.folder), "--prompt", broken]) == 2
    assert capsys.readouterr().err == (
        "honing: --prompt: holds half a character (lone surrogate); write it as UTF-8\n"
    )


def test_settings_reach_the_answers(tiny_run: TinyRun, capsys: Captured) -> None:
    settings = ["generate.temperature=1", "generate.num_answers=3", "generate.max_new_tokens=5"]
    first = answer_of(tiny_run, capsys, "--prompt", "물은?", *settings, "generate.seed=1")
    assert len(first["answers"]) == 3
    assert all(row["num_tokens"] <= 5 for row in first["answers"])
    again = answer_of(tiny_run, capsys, *settings, "--prompt", "물은?", "generate.seed=1")
    other = answer_of(tiny_run, capsys, "--prompt", "물은?", *settings, "generate.seed=2")
    assert again["answers"] == first["answers"] != other["answers"]


def test_base_and_checkpoint_choose_who_answers(tiny_run: TinyRun, capsys: Captured) -> None:
    names = {
        (): str((tiny_run.checkpoints / "best").resolve()),
        ("--base",): None,
        ("--checkpoint", "final"): str(tiny_run.checkpoints / "final"),
        ("--checkpoint", STEPS[0]): str(tiny_run.checkpoints / STEPS[0]),
    }
    for flags, checkpoint in names.items():
        record = answer_of(tiny_run, capsys, "--prompt", "물은?", *flags)
        assert record["checkpoint"] == checkpoint
    assert main(["generate", str(tiny_run.folder), "--prompt", "a", "--checkpoint", "no"]) == 2
    assert capsys.readouterr().err == (
        f"honing: {tiny_run.folder}: has no checkpoint no; there are best, final, last, "
        f"{', '.join(STEPS)}\n"
    )


def test_an_output_that_cannot_be_written_is_said(tiny_run: TinyRun, capsys: Captured) -> None:
    Path("file").write_text("")
    output = "file/out.jsonl"
    assert main(["generate", str(tiny_run.folder), "--prompt", "a", "--output", output]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"honing: {output}: cannot be ")


# --- chat


def test_a_chat_from_the_command_line(
    tiny_run: TinyRun, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe_in(monkeypatch, "물은?\n/quit\n".encode())
    assert main(["chat", str(tiny_run.folder), "--checkpoint", "last"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("> ")
    assert f"{tiny_run.folder}: {tiny_run.checkpoints / STEPS[1]}. Type a message" in err


# --- prepare


def test_prepare_reports_and_names_the_next_command(tiny_run: TinyRun, capsys: Captured) -> None:
    settings = ["output_dir=my run", "data.template=instruction"]
    assert main(["prepare", str(tiny_run.config), *settings]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == f"Data: {tiny_run.rows} (alpaca)"
    assert lines[-2:] == [
        "Written: my run/data_report.json and splits/",
        f"Next: honing train {tiny_run.config} 'output_dir=my run' data.template=instruction",
    ]
    assert json.loads(Path("my run/data_report.json").read_text("utf-8"))["num_read"] == 32
    assert main(["prepare", str(tiny_run.config), *settings, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads(Path("my run/data_report.json").read_text("utf-8"))


# --- train


def test_a_training_ends_with_its_summary(tiny_run: TinyRun, capsys: Captured) -> None:
    settings = [f"output_dir={Path.cwd()}/run", "train.max_steps=2"]
    assert main(["train", str(tiny_run.config), *settings]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("Data: ")
    lines = out.splitlines()
    assert lines[-2] == f"Use {Path.cwd()}/run/checkpoints/best"
    assert lines[-1] == f"Next: honing generate {Path.cwd()}/run --prompt '…'"
    assert main(["train", str(tiny_run.config), *settings]) == 2
    assert capsys.readouterr().err == (
        f"honing: output_dir: {Path.cwd()}/run holds a run already; continue it with --resume, "
        "replace it with --overwrite, or choose another output_dir\n"
    )


def test_with_json_standard_output_is_the_record_alone(tiny_run: TinyRun, capsys: Captured) -> None:
    settings = [f"output_dir={Path.cwd()}/run", "train.max_steps=2", "--json"]
    assert main(["train", str(tiny_run.config), *settings]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert record["num_steps"] == 2
    assert record == json.loads(Path("run/training_report.json").read_text("utf-8"))
    assert err.startswith("Data: ")
    assert main(["train", str(tiny_run.config), *settings, "--resume"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == record
    assert err.startswith(f"--resume: the run in {Path.cwd()}/run is finished; see ")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_and_resume_goes_on(
    tiny_run: TinyRun,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    status: int,
) -> None:
    step = Trainer._train_step

    def interrupted(trainer: Trainer, members: Any) -> None:
        step(trainer, members)
        if trainer.state.step == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    arguments = ["train", str(tiny_run.config), "output_dir=run"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", interrupted)
        assert main(arguments) == status
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("Stopped after step 3 of 6; all is saved. Go on with ")
    assert out.splitlines()[-1].endswith("--resume")
    assert "Stopping after this step" in err
    assert signal.getsignal(number) is before
    run = RunFolder(Path("run"))
    assert run.linked("last") == run.step_checkpoint(3)
    assert not run.is_finished()
    assert main([*arguments, "--resume"]) == 0
    out, _ = capsys.readouterr()
    assert "Going on from step-000003, step 3 of 6" in out
    # As if nothing had happened.
    for name in ("final", "best"):
        ours, theirs = (
            (folder / "checkpoints" / name / "adapter_model.safetensors").read_bytes()
            for folder in (Path("run"), tiny_run.folder)
        )
        assert ours == theirs


def test_a_second_signal_stops_at_once(
    tiny_run: TinyRun, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still running")

    monkeypatch.setattr(Trainer, "_train_step", interrupted)
    assert main(["train", str(tiny_run.config), "output_dir=run"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "honing: stopped"


def test_a_training_that_diverges_is_1(tiny_run: TinyRun, capsys: Captured) -> None:
    settings = ["output_dir=run", "train.learning_rate=1e30", "train.max_grad_norm=null"]
    assert main(["train", str(tiny_run.config), *settings]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("honing: the ")
    assert "is not a finite number" in last


def test_a_full_disk_in_training_is_2(
    tiny_run: TinyRun, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("honing.files.os.fsync", full)
    assert main(["train", str(tiny_run.config), "output_dir=run"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.splitlines()[-1].endswith(
        "(No space left on device); free some space or choose another folder"
    )
