"""A run on a base in 4 bits is asked, evaluated, checked and merged on that base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from honing.config_file import load_config
from honing.errors import CheckFailed, UserError
from honing.evaluation.evaluate import evaluate
from honing.generation.generate import generate
from honing.generation.open_model import answering_config, open_model
from honing.generation.questions import question_from_text
from honing.merging.merge import format_terminal, merge
from honing.model.four_bit import expand, is_in_4bit
from honing.run import RunFolder
from honing.training.check import check_run
from honing.training.train import train
from tests.runs import qa_rows, save_rows, small_overrides
from tests.tiny import ARCHITECTURES, save_tiny_base, tiny_model

pytest.importorskip("bitsandbytes")

IDS = torch.arange(3, 60)[None, :]


def quiet(_: str) -> None:
    pass


def trained(folder: Path, architecture: str = "llama", *overrides: str) -> RunFolder:
    """A short training on a tiny base in 4 bits."""
    base = save_tiny_base(folder / "base", architecture)
    rows = save_rows(folder / "rows.jsonl", qa_rows())
    settings = ("model.load_in_4bit=true", "train.max_steps=3", *overrides)
    train(load_config(None, small_overrides(base, rows, folder / "run", *settings)), say=quiet)
    return RunFolder(folder / "run")


def opened(run: RunFolder, *overrides: str, base_only: bool = False) -> Any:
    config = load_config(None, ["device=cpu", *overrides])
    return open_model(str(run.root), config, base_only=base_only).model


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS).logits
    return found


def largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def record_of(folder: Path, name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return record


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_merged_is_the_base_that_training_saw(architecture: str, tmp_path: Path) -> None:
    run = trained(tmp_path, architecture)
    trained_on = opened(run)
    assert is_in_4bit(trained_on)
    done = merge(str(run.root), say=quiet)
    plain = AutoModelForCausalLM.from_pretrained(done.folder, dtype=torch.float32).eval()
    assert type(plain) is type(tiny_model(architecture))
    assert largest(logits(plain), logits(trained_on)) < 1e-5
    # The merge into the published base, which is not made, is another model.
    report = record_of(done.folder, "merge_report.json")
    other = report["base_in_4bit"]["in_published_base"]
    assert report["difference"]["max_abs_logit"] < 1e-5 < 0.1 < other["max_abs_logit"]
    assert report["difference"]["mean_kl_nats"] < 1e-9 < 1e-4 < other["mean_kl_nats"]
    config = record_of(done.folder, "config.json")
    assert not [key for key in config if "quant" in key]
    assert record_of(done.folder, "honing.json")["base"]["expanded_from_4bit"] is True
    assert ", its 4-bit weights (NF4) expanded\n" in (done.folder / "README.md").read_text("utf-8")


def test_what_the_command_says(tmp_path: Path) -> None:
    done = merge(str(trained(tmp_path).root), say=quiet)
    other = done.record["base_in_4bit"]["in_published_base"]["mean_kl_nats"]
    assert format_terminal(done).splitlines()[4] == (
        "  the base is the one that was trained on, its 4-bit weights expanded; merged into it as "
        f"published, the model would be off by a mean KL of {other:.1e} nats"
    )


@pytest.mark.parametrize("setting", ["lora.use_rslora=true", "lora.use_dora=true"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_every_kind_of_adapter(architecture: str, setting: str, tmp_path: Path) -> None:
    run = trained(tmp_path, architecture, setting)
    done = merge(str(run.root), say=quiet)
    plain = AutoModelForCausalLM.from_pretrained(done.folder, dtype=torch.float32).eval()
    assert largest(logits(plain), logits(opened(run))) < 1e-5


def test_a_merge_into_the_published_base_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path)
    published = AutoModelForCausalLM.from_pretrained(tmp_path / "base").state_dict()

    def expand_wrongly(model: Any) -> None:
        expand(model)
        model.load_state_dict(published)

    monkeypatch.setattr("honing.generation.open_model.expand", expand_wrongly)
    with pytest.raises(CheckFailed, match=r"^merge: close_to_adapter: logits differ by up to"):
        merge(str(run.root), say=quiet)
    assert not (run.root / "merged").exists()


def test_the_run_is_asked_on_the_base_in_4_bits(tmp_path: Path) -> None:
    run = trained(tmp_path)
    about = record_of(run.root / "checkpoints" / "final", "honing.json")
    assert about["base"]["load_in_4bit"] is True
    base = opened(run, base_only=True)
    assert is_in_4bit(base)
    published = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    assert largest(logits(base), logits(published)) > 0.1
    (answer,) = generate(str(run.root), [question_from_text("hi there")]).answers
    merge(str(run.root), say=quiet)
    (again,) = generate(str(run.root / "merged"), [question_from_text("hi there")]).answers
    assert answer.text == again.text


def test_it_is_checked_and_evaluated_so(tmp_path: Path) -> None:
    run = trained(tmp_path)
    assert check_run(str(run.root), say=quiet).failed == ()
    found = evaluate(str(run.root), ["device=cpu", "evaluate.num_resamples=1000"], say=quiet)
    assert {one.settings["load_in_4bit"] for one in (found.base, found.tuned)} == {True}


def test_another_base_than_the_trained_one_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path)
    with pytest.raises(UserError) as error:
        opened(run, "model.load_in_4bit=false")
    assert str(error.value) == (
        f"model.load_in_4bit: {run.checkpoint_to_use()} was trained "
        "with true, and answers on another base would not be its own; leave it out"
    )


def test_a_base_alone_is_asked_in_4_bits(tmp_path: Path) -> None:
    base = str(save_tiny_base(tmp_path))
    config = answering_config(base, ["device=cpu", "model.load_in_4bit=true"])
    assert is_in_4bit(open_model(base, config).model)
