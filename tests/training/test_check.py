"""honing check RUN: each thing that can be wrong with a run is found, by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from honing.errors import UserError
from honing.training.check import RunChecks, check_run
from honing.training.train import train
from tests.runs import qa_rows, save_rows, small_config
from tests.tiny import save_tiny_base, tiny_tokenizer
from tests.tiny_run import STEPS, TinyRun

NAMES = [
    *("finished", "last", "final", "best", "ends"),
    *(f"{kind} of {f}" for f in (*STEPS, "final") for kind in ("files", "numbers", "lora_B")),
    *("base", "tokenizer", "vocabulary", "keys", "effect"),
]


@pytest.fixture
def run(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    shutil.copytree(tiny_run.folder, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def checked(run: Path, *overrides: str) -> RunChecks:
    return check_run(str(run), overrides, say=lambda _: None)


def detail(checks: RunChecks, name: str) -> str:
    (found,) = [check.detail for check in checks.checks if check.name == name]
    return found


def test_a_run_in_which_nothing_is_wrong(tiny_run: TinyRun) -> None:
    said: list[str] = []
    checks = check_run(str(tiny_run.folder), say=said.append)
    assert [check.name for check in checks.checks] == NAMES
    assert {check.verdict for check in checks.checks} == {"ok"}
    assert checks.failed == ()
    assert said == [str(check) for check in checks.checks]
    assert said[0] == "ok            finished: training_report.json is there"
    assert detail(checks, "lora_B of final") == "all 14 have moved"
    assert detail(checks, "ends") == "100 % of the training rows end in one"
    record = checks.to_record()
    assert record["passed"] is True
    assert record["checks"][0] == {
        "name": "finished",
        "verdict": "ok",
        "detail": "training_report.json is there",
    }
    json.dumps(record)


# --- what can be wrong


def change_weights(change: Callable[[dict[str, Tensor]], None]) -> Callable[[Path], None]:
    """In the best checkpoint, and as an old version without a manifest would have written it."""

    def broken(run: Path) -> None:
        path = (run / "checkpoints" / "best").resolve() / "adapter_model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})
        (path.parent / "manifest.json").unlink()

    return broken


def a_nan(weights: dict[str, Tensor]) -> None:
    sorted(weights.items())[0][1].view(-1)[3] = torch.nan


def one_still(weights: dict[str, Tensor]) -> None:
    next(w for name, w in sorted(weights.items()) if "lora_B" in name).zero_()


def all_still(weights: dict[str, Tensor]) -> None:
    for name, weight in weights.items():
        if "lora_B" in name:
            weight.zero_()


def other_keys(weights: dict[str, Tensor]) -> None:
    name = sorted(weights)[0]
    weights[name.replace("down_proj", "inner_proj")] = weights.pop(name)


def change_about(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def broken(run: Path) -> None:
        folder = (run / "checkpoints" / "best").resolve()
        (folder / "manifest.json").unlink()
        change(folder / "honing.json")

    return broken


def other_base(path: Path) -> None:
    about = json.loads(path.read_text("utf-8"))
    about["base"]["fingerprint"] = "f" * 64
    path.write_text(json.dumps(about), encoding="utf-8")


def other_tokenizer(path: Path) -> None:
    about = json.loads(path.read_text("utf-8"))
    about["tokenizer"] = {"fingerprint": "f" * 64, "num_embeddings": 322}
    path.write_text(json.dumps(about), encoding="utf-8")


def no_record(path: Path) -> None:
    path.write_bytes(b"[")


def a_flipped_bit(run: Path) -> None:
    path = run / "checkpoints" / STEPS[0] / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 2
    path.write_bytes(content)


def no_ends(run: Path) -> None:
    report = json.loads((run / "data_report.json").read_text("utf-8"))
    report["splits"]["train"]["share_ending_in_eos"] = 0.0
    (run / "data_report.json").write_text(json.dumps(report), encoding="utf-8")


def other_best(run: Path) -> None:
    path = run / "training_report.json"
    report = json.loads(path.read_text("utf-8"))
    report["best_step"] = 1
    path.write_text(json.dumps(report), encoding="utf-8")


def no_last(run: Path) -> None:
    (run / "checkpoints/last").unlink()


BROKEN: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "not finished": (lambda run: (run / "training_report.json").unlink(), ["finished"]),
    "no last": (no_last, ["last"]),
    "no final": (lambda run: shutil.rmtree(run / "checkpoints/final"), ["final"]),
    "another best": (other_best, ["best"]),
    "no ends": (no_ends, ["ends"]),
    "a flipped bit": (a_flipped_bit, [f"files of {STEPS[0]}"]),
    "a missing file": (
        lambda run: (run / "checkpoints/final/trainer_state.pt").unlink(),
        ["files of final"],
    ),
    "NaN": (change_weights(a_nan), ["numbers of BEST", "effect"]),
    "one still": (change_weights(one_still), ["lora_B of BEST"]),
    "all still": (change_weights(all_still), ["lora_B of BEST", "effect"]),
    "other keys": (change_weights(other_keys), ["keys"]),
    "other base": (change_about(other_base), ["base"]),
    "other tokenizer": (change_about(other_tokenizer), ["tokenizer", "vocabulary"]),
    "no record": (change_about(no_record), ["files of BEST", "base"]),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_wrong_is_named_and_nothing_else(broken: str, run: Path) -> None:
    best = (run / "checkpoints" / "best").resolve().name
    breaks, expected = BROKEN[broken]
    breaks(run)
    checks = checked(run)
    assert list(checks.failed) == [name.replace("BEST", best) for name in expected]
    assert checks.to_record()["passed"] is False


def test_details_of_what_is_wrong(run: Path) -> None:
    best = (run / "checkpoints" / "best").resolve().name
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"
    BROKEN["one still"][0](run)
    checks = checked(run)
    assert detail(checks, f"lora_B of {best}") == (f"1 of 14 have not moved, the first is {name}")
    assert detail(checks, f"files of {best}") == (
        "can be read; an older version wrote no manifest.json to compare with"
    )
    assert [c.verdict for c in checks.checks if c.name == f"files of {best}"] == ["not recorded"]
    shutil.rmtree(run / "checkpoints" / "final")
    (run / "checkpoints/last").unlink()
    checks = checked(run)
    assert detail(checks, "last") == f"is nothing, the newest is {STEPS[1]}"


def test_a_run_of_an_older_version(run: Path) -> None:
    for folder in (run / "checkpoints").iterdir():
        if not folder.is_symlink():
            (folder / "manifest.json").unlink()
            about = json.loads((folder / "honing.json").read_text("utf-8"))
            del about["tokenizer"]
            (folder / "honing.json").write_text(json.dumps(about), encoding="utf-8")
    checks = checked(run)
    assert checks.failed == ()
    assert [check.name for check in checks.checks if check.verdict == "not recorded"] == [
        *(f"files of {folder}" for folder in (*STEPS, "final")),
        *("tokenizer", "vocabulary"),
    ]


def test_a_base_that_has_changed_and_one_that_is_gone(tiny_run: TinyRun, tmp_path: Path) -> None:
    other = save_tiny_base(tmp_path / "other", seed=1)
    checks = checked(tiny_run.folder, f"model.base={other}")
    assert checks.failed == ("base",)
    assert detail(checks, "base").startswith(
        f"{other} is not the one that was trained on, or has changed (fingerprint "
    )
    checks = checked(tiny_run.folder, f"model.base={tmp_path}/none")
    assert checks.failed == ("base",)
    assert detail(checks, "base") == (
        f"model.base: {tmp_path}/none: no such folder, and not a Hub id either"
    )
    tokenizer = json.loads((other / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["merges"].pop()
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert checked(tiny_run.folder, f"model.base={other}").failed == ("base", "tokenizer")
    assert len(tiny_tokenizer()) == 320


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_adapters_that_do_not_start_at_zero(init: str, tiny_base: Path, tmp_path: Path) -> None:
    """What is saved is [B, -B₀]: never zero, and still moved or not."""
    rows = save_rows(tmp_path / "rows.jsonl", qa_rows())
    out = tmp_path / "out"
    settings = (f"lora.init={init}", "train.max_steps=1", "train.eval_every=never")
    train(small_config(tiny_base, rows, out, *settings), say=lambda _: None)
    checks = checked(out)
    assert checks.failed == ()
    assert detail(checks, "best") == "there was no validation"
    path = out / "checkpoints/final/adapter_model.safetensors"
    weights = load_file(path)
    for name, weight in weights.items():
        if "lora_B" in name:
            rank = weight.shape[1] // 2
            weight[:, :rank] = -weight[:, rank:]
    save_file(weights, path, metadata={"format": "pt"})
    (path.parent / "manifest.json").unlink()
    assert checked(out).failed[0] == "lora_B of final"


def test_what_is_no_run(tmp_path: Path, tiny_run: TinyRun) -> None:
    for name in (tmp_path, tmp_path / "none", tiny_run.base):
        with pytest.raises(UserError) as caught:
            checked(name)
        assert str(caught.value) == (f"{name}: holds no run; name a folder that honing train wrote")


def test_another_checkpoint(tiny_run: TinyRun) -> None:
    checks = check_run(str(tiny_run.folder), checkpoint=STEPS[0], say=lambda _: None)
    assert checks.checkpoint == str(tiny_run.checkpoints / STEPS[0])
    assert checks.failed == ()
