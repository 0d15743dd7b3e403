"""What only a process of its own can show: imports, locale, signals."""

from __future__ import annotations

import json
import locale
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from honing.cli import main
from honing.run import RunFolder
from tests.tiny_run import TinyRun

TIMEOUT_S = 300


@pytest.mark.process
def test_help_imports_nothing_that_is_slow() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "honing", "--help"],
        capture_output=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    assert done.stdout.decode().startswith("usage: honing ")
    lines = done.stderr.decode().splitlines()
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert {"argparse", "honing"} <= imported
    slow = {"torch", "transformers", "peft", "pydantic", "numpy", "yaml", "datasets", "tqdm"}
    assert not imported & slow


IN_ANOTHER_LOCALE = r"""
import locale, sys
from honing.cli import main

config, prompts, prompt = sys.argv[1:]
locale.setlocale(locale.LC_ALL, "")
print(locale.getencoding(), flush=True)
assert main(["train", config, "output_dir=run", "train.max_steps=1"]) == 0
assert main(["generate", "run", "--file", prompts, "--output", "out.jsonl", "--json"]) == 0
assert main(["generate", "run", "--prompt", prompt]) == 0
assert main(["train", config, "data.template=" + prompt]) == 2
"""


def a_locale_that_is_not_utf_8() -> str:
    """Korean Unix's old one where the machine has it; else that of a bare container."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "ko_KR.euckr")
        return "ko_KR.euckr"
    except locale.Error:
        return "C"
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


@pytest.mark.process
def test_files_and_pipes_are_utf_8_in_another_locale(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "물은? 뷁🙂"}\n{"prompt": "하나"}\n', encoding="utf-8")
    name = a_locale_that_is_not_utf_8()
    settings = {"LC_ALL": name, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = [sys.executable, "-c", IN_ANOTHER_LOCALE, str(tiny_run.config), str(prompts), "물은?"]
    done = subprocess.run(
        code, cwd=tmp_path, env=os.environ | settings, capture_output=True, timeout=TIMEOUT_S
    )
    out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert done.returncode == 0, err
    encoding, _, rest = out.partition("\n")
    assert encoding.lower().replace("-", "") not in ("utf8", "cp65001")
    report, _, rest = rest.partition("\n{\n")
    assert "대한민국의 수도는 어디인가요?" in report
    record, _, answer = ("{\n" + rest).partition("\n}\n")
    assert err.splitlines()[-1].startswith("honing: command line, data.template=")
    # The same as here, where the locale is another.
    run = str(tmp_path / "run")
    assert main(["generate", run, "--file", str(prompts), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["answers"]
    assert json.loads(record + "}")["answers"] == expected
    written = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in written] == expected
    assert expected[0]["prompt"] == "물은? 뷁🙂"
    assert main(["generate", run, "--prompt", "물은?"]) == 0
    assert capsys.readouterr().out == answer


WAITS_FOR_A_SIGNAL = r"""
import sys, time
from pathlib import Path
from honing.cli import main
from honing.training.trainer import Trainer

step = Trainer._train_step

def train_step(trainer, members):
    step(trainer, members)
    if trainer.state.step == 3:
        Path("ready").touch()
        while not trainer.stop_requested:
            time.sleep(0.05)

Trainer._train_step = train_step
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.mark.process
def test_a_terminated_training_saves_says_how_to_go_on_and_can_go_on(
    tiny_run: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(tiny_run.config), "output_dir=run"]
    child = subprocess.Popen(
        [sys.executable, "-c", WAITS_FOR_A_SIGNAL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        started = time.monotonic()
        while not Path("ready").exists():
            assert child.poll() is None, child.communicate()
            assert time.monotonic() - started < TIMEOUT_S
            time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=TIMEOUT_S)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 143
    last = out.decode().splitlines()[-1]
    assert last.startswith("Stopped after step 3 of 6; all is saved. Go on with ")
    assert last.endswith("--resume")
    assert "Traceback" not in err.decode()
    run = RunFolder(Path("run"))
    assert run.linked("last") == run.step_checkpoint(3)
    assert main(["train", *arguments, "--resume"]) == 0
    assert "Going on from step-000003, step 3 of 6" in capsys.readouterr().out
    # As if it had never been stopped, though another process began it.
    for name in ("final", "best"):
        ours, theirs = (
            (folder / name / "adapter_model.safetensors").read_bytes()
            for folder in (run.checkpoints, tiny_run.checkpoints)
        )
        assert ours == theirs
