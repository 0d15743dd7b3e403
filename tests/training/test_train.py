"""The stage behind `honing train`: what a run writes, says, refuses and measures."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from honing.cli import main
from honing.config import Config
from honing.config_file import load_config
from honing.data.prepare import SPLITS, prepare_data
from honing.data.report import format_report
from honing.errors import UserError
from honing.generation.generate import generate
from honing.generation.questions import question_from_text
from honing.preparation import prepare
from honing.training.train import Trained, train
from honing.training.trainer import Trainer
from tests.runs import (
    contents_below,
    lines_of_metrics,
    names_below,
    qa_rows,
    save_rows,
    small_config,
    small_overrides,
    tiny_text,
)

CHECKPOINT = (
    *("adapter_config.json", "adapter_model.safetensors", "honing.json", "manifest.json"),
    "trainer_state.pt",
)
SHORT = ("train.max_steps=1", "train.eval_every=never")


@dataclass(frozen=True)
class Finished:
    """A run of two epochs of three steps, and what it said."""

    folder: Path
    config: Config
    trained: Trained
    said: tuple[str, ...]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", qa_rows())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, rows: str) -> Finished:
    folder = tmp_path_factory.mktemp("finished") / "out"
    config = small_config(tiny_base, rows, folder, "data.val_fraction=0.2", "train.warmup_steps=2")
    said: list[str] = []
    trained = train(config, say=said.append)
    return Finished(folder, config, trained, tuple(said))


# --- what a run writes


def test_a_run_writes_exactly_these_files(finished: Finished) -> None:
    (events,) = (finished.folder / "logs").iterdir()
    assert events.name.startswith("events.out.tfevents.")
    folders = ("step-000003", "step-000006", "final")
    assert names_below(finished.folder) == {
        "config.yaml",
        "data_report.json",
        *(f"splits/{name}.jsonl" for name in SPLITS),
        *(f"checkpoints/{folder}/{name}" for folder in folders for name in CHECKPOINT),
        "checkpoints/last",
        "checkpoints/best",
        f"logs/{events.name}",
        "metrics.jsonl",
        "training_report.md",
        "training_report.json",
    }


def test_the_data_is_what_prepare_writes(
    finished: Finished, tiny_base: Path, rows: str, tmp_path: Path
) -> None:
    prepare(small_config(tiny_base, rows, tmp_path / "out", "data.val_fraction=0.2"))
    prepared = contents_below(tmp_path / "out")
    assert len(prepared) == 4
    assert {name: contents_below(finished.folder)[name] for name in prepared} == prepared


def test_the_configuration_is_written_resolved(finished: Finished) -> None:
    text = (finished.folder / "config.yaml").read_text(encoding="utf-8")
    assert "auto" not in text.partition("\nevaluate:")[0]  # which no training reads
    stored = load_config(finished.folder / "config.yaml")
    assert stored.train.model_dump() == finished.config.train.model_dump() | {
        "micro_batch_size": 4,
        "packing": True,
        "packed_row_tokens": 512,
        "gradient_checkpointing": False,
    }
    linear = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert stored.lora.target_modules == linear
    for section in ("seed", "output_dir", "device", "model", "data", "generate"):
        assert getattr(stored, section) == getattr(finished.config, section)


def test_device_and_number_type_are_resolved_too(
    tiny_base: Path, rows: str, tmp_path: Path
) -> None:
    said: list[str] = []
    autos = ("device=auto", "model.dtype=auto", *SHORT)
    train(small_config(tiny_base, rows, tmp_path / "out", *autos), say=said.append)
    stored = load_config(tmp_path / "out/config.yaml")
    assert stored.device in ("cpu", "cuda", "mps")
    assert stored.model.dtype in ("float32", "bfloat16", "float16")
    start = f"  device: {stored.device} ("
    (line,) = [line for line in said if line.startswith(start)]
    assert f"dtype: {stored.model.dtype} (" in line


def test_a_checkpoint_says_all_that_answering_needs(finished: Finished) -> None:
    about = json.loads((finished.folder / "checkpoints/final/honing.json").read_text("utf-8"))
    data = prepare_data(finished.config.data, 42, tiny_text())
    assert about["base"]["name"] == finished.config.model.base
    assert about["base"]["dtype"] == "float32"
    assert about["template"]["name"] == "instruction"
    assert (about["eos_id"], about["bos_id"], about["end_ids"]) == (0, None, [0])
    assert about["data_fingerprint"] == data.report.fingerprint
    assert (about["supervise"], about["seed"]) == ("response", 42)
    assert about["metrics"]["step"] == 6
    environment = about["environment"]
    assert set(environment) == {
        "torch",
        "transformers",
        "peft",
        "python",
        "machine",
        "cpu_capability",
        "num_threads",
        "num_processes",
    }
    assert environment["torch"] == torch.__version__


# --- what a run says


def test_all_choices_are_said_before_the_first_step(finished: Finished) -> None:
    report = prepare_data(finished.config.data, 42, tiny_text()).report
    base = finished.config.model.base
    shown = format_report(report).replace("tiny needs", f"{base} needs")
    assert finished.said == (
        shown,
        f"Model: {base}",
        "  device: cpu (as configured); dtype: float32 (as configured)",
        "  trainable: 2,048 of 41,120 parameters (4.98 %)",
        "  target_modules: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj, "
        "all linear layers inside the blocks",
        "  packing: on, examples lie end to end",
        "  micro_batch_size: 4",
        finished.said[7],  # names the memory of the machine
        "  6 steps, 3 an epoch, of 4 examples, packed into rows of at most 512 tokens",
        finished.said[9],
    )
    assert re.fullmatch(
        r"  memory: some \d+\.\d of \d+\.\d GB; time: see the bar after the first steps",
        finished.said[9],
    )
    assert finished.said[7].startswith("  gradient_checkpointing: off, activations take about 0.0")


def test_the_data_report_comes_before_any_training(
    tiny_base: Path, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the model is loaded, even: it tells what would be learnt."""
    monkeypatch.setattr("honing.training.parts.load_model", stop_here)
    said: list[str] = []
    with pytest.raises(RuntimeError, match="stopped"):
        train(small_config(tiny_base, rows, tmp_path / "out"), say=said.append)
    assert len(said) == 1
    assert said[0].startswith(f"Data: {rows} (alpaca)\n  read 12 rows, kept 12, dropped 0\n")
    assert not (tmp_path / "out").exists()


def test_one_process_divides_no_base(tiny_base: Path, rows: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        train(small_config(tiny_base, rows, tmp_path / "out", "train.shard_base=true"))
    assert str(caught.value) == (
        "train.shard_base: true, but this is one process; start several with torchrun or "
        "accelerate launch, or use train.shard_base=false"
    )
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_the_summary(
    tiny_base: Path, rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("")
    arguments = ["train", str(tmp_path / "mine.yaml")]
    arguments += small_overrides(tiny_base, rows, tmp_path / "out", *SHORT)
    assert main(arguments) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"Data: {rows} (alpaca)"
    assert shown[-2:] == [
        f"Use {tmp_path / 'out/checkpoints/final'}",
        f"Next: honing generate {tmp_path / 'out'} --prompt '…'",
    ]
    assert main([*arguments, "--overwrite", "--json"]) == 0
    printed = capsys.readouterr()
    record = json.loads((tmp_path / "out/training_report.json").read_text("utf-8"))
    assert json.loads(printed.out) == record
    assert f"Data: {rows} (alpaca)" in printed.err


# --- what a run measures


def test_the_base_is_measured_before_the_first_step_by_transformers_own_loss(
    finished: Finished, tiny_base: Path
) -> None:
    data = prepare_data(finished.config.data, 42, tiny_text())
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_base)
    sum_nats, num_tokens = 0.0, 0
    with torch.no_grad():
        for row in data.val.tokens:
            ids, labels = torch.tensor([row.ids]), torch.tensor([row.labels])
            sum_nats += float(model(input_ids=ids, labels=labels).loss) * row.num_supervised
            num_tokens += row.num_supervised
    assert len(data.val.tokens) == 2
    first = lines_of_metrics(finished.folder)[0]
    assert (first["kind"], first["step"]) == ("validation", 0)
    assert first["val_loss"] == pytest.approx(sum_nats / num_tokens, rel=1e-5)
    report = finished.trained.report
    assert report is not None
    assert report.base_val_loss == first["val_loss"]


def test_losses_and_rates_of_every_step_are_logged(finished: Finished) -> None:
    lines = lines_of_metrics(finished.folder)
    steps = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    rates = [line["learning_rate"] for line in steps]
    cosine = [0.01, 0.0085355, 0.005, 0.0014645]
    assert rates == pytest.approx([0.005, 0.01, *cosine], abs=1e-7)
    validations = [line for line in lines if line["kind"] == "validation"]
    assert [line["step"] for line in validations] == [0, 3, 6]
    assert validations[-1]["val_loss"] < 0.8 * validations[0]["val_loss"]


def test_the_report_is_what_the_metrics_say(finished: Finished) -> None:
    report = finished.trained.report
    assert report is not None
    stored = (finished.folder / "training_report.json").read_text("utf-8")
    assert json.loads(stored) == json.loads(json.dumps(report.to_record()))
    lines = lines_of_metrics(finished.folder)
    val = [line["val_loss"] for line in lines if line["kind"] == "validation"]
    assert [report.base_val_loss, *(epoch.val_loss for epoch in report.epochs)] == val
    assert report.final_val_loss == val[-1]
    assert (report.best_val_loss, report.best_step) == (min(val[1:]), 3 * val.index(min(val)))
    rows = prepare_data(finished.config.data, 42, tiny_text()).train.tokens
    assert report.num_tokens == 2 * sum(len(row.ids) for row in rows)
    assert report.num_supervised == 2 * sum(row.num_supervised for row in rows)
    assert (report.num_steps, report.stopped_early) == (6, False)
    assert (report.trainable_parameters, report.total_parameters) == (2048, 41120)
    final = finished.folder / "checkpoints/final"
    assert report.adapter_bytes == (final / "adapter_model.safetensors").stat().st_size
    assert report.checkpoint_bytes == sum(path.stat().st_size for path in final.iterdir())
    weights = Path(finished.config.model.base, "model.safetensors").stat().st_size
    assert report.base_bytes == weights
    assert report.config == load_config(finished.folder / "config.yaml").model_dump(mode="json")
    assert report.checkpoint == str(finished.folder / "checkpoints/best")
    assert all(Path(file).exists() for file in report.files)
    seconds = [epoch.seconds for epoch in report.epochs]
    assert report.training_seconds == pytest.approx(sum(seconds))
    assert report.seconds_per_epoch == pytest.approx(sum(seconds) / 2)
    assert 0 < report.training_seconds < report.seconds
    assert 0 < report.memory_headroom_percent < 100


def test_sample_answers_are_those_that_generate_gives(finished: Finished, tiny_base: Path) -> None:
    data = prepare_data(finished.config.data, 42, tiny_text())
    prompts = [example.prompt_text for example in data.val.examples]
    lines = [line for line in lines_of_metrics(finished.folder) if line["kind"] == "validation"]
    assert [[s["prompt"] for s in line["samples"]] for line in lines] == [prompts] * 3
    questions = [question_from_text(prompt) for prompt in prompts]
    asking = load_config(None, ["generate.max_new_tokens=48", "device=cpu"])
    for line, model, checkpoint in (
        (lines[0], str(tiny_base), None),
        (lines[1], str(finished.folder), "step-000003"),
        (lines[2], str(finished.folder), "last"),
    ):
        answered = [generate(model, [q], asking, checkpoint=checkpoint) for q in questions]
        texts = [generated.answers[0].text for generated in answered]
        assert [sample["answer"] for sample in line["samples"]] == texts


def test_a_question_that_leaves_no_room_is_no_sample_and_no_obstacle(
    tiny_base: Path, tmp_path: Path
) -> None:
    long = {"instruction": "hi", "output": "답", "system": "abcdefghij " * 19}
    files = {
        "train": save_rows(tmp_path / "train.jsonl", qa_rows(4)),
        "val": save_rows(tmp_path / "val.jsonl", [long, qa_rows()[5]]),
    }
    source = f"{{train: {files['train']}, val: {files['val']}}}"
    out = tmp_path / "out"
    config = small_config(tiny_base, source, out, "data.max_length=256", "train.max_steps=1")
    train(config, say=lambda _: None)
    first = lines_of_metrics(out)[0]
    assert [s["prompt"] for s in first["samples"]] == [qa_rows()[5]["instruction"]]


@pytest.mark.parametrize(
    ("settings", "layout"),
    [
        ("train.packing=false", "in 2 micro-batches of 2"),
        ("train.packing=true", "packed into rows of at most 512 tokens and 2 examples"),
        ("train.micro_batch_size=1", "in 4 micro-batches of 1"),
        ("train.micro_batch_size=9", "packed into rows of at most 512 tokens"),
        ("train.micro_batch_size=3 train.packing=false", "in 2 micro-batches of 3"),
    ],
)
def test_it_says_what_a_step_adds_up(
    settings: str,
    layout: str,
    tiny_base: Path,
    rows: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Trainer, "train", stop_here)
    said: list[str] = []
    given = ("train.micro_batch_size=2", *settings.split())
    with pytest.raises(RuntimeError, match="stopped"):
        train(small_config(tiny_base, rows, tmp_path / "out", *given), say=said.append)
    assert said[-2] == f"  6 steps, 3 an epoch, of 4 examples, {layout}"


def stop_here(*_: Any) -> None:
    raise RuntimeError("stopped")


@pytest.mark.parametrize("setting", ["train.eval_every=never", "data.val_fraction=0"])
def test_without_validation_the_last_state_is_the_one_to_use(
    setting: str, tiny_base: Path, rows: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    config = small_config(tiny_base, rows, out, "train.max_steps=1", setting)
    report = train(config, say=lambda _: None).report
    assert report is not None
    assert report.checkpoint == str(out / "checkpoints/final")
    assert (report.base_val_loss, report.final_val_loss, report.best_step) == (None, None, None)
    assert not (out / "checkpoints/best").exists()
    assert [line["kind"] for line in lines_of_metrics(out)] == ["train"]


def test_where_there_are_no_links_the_report_names_the_folder_itself(
    tiny_base: Path, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("honing.run.os.symlink", no_links)
    config = small_config(tiny_base, rows, tmp_path / "out", "train.max_steps=1")
    report = train(config, say=lambda _: None).report
    assert (tmp_path / "out/checkpoints/best").is_file()
    assert report is not None
    assert report.checkpoint == str(tmp_path / "out/checkpoints/step-000001")


def test_it_trains_in_another_thread_too(tiny_base: Path, rows: str, tmp_path: Path) -> None:
    """Where no signal can be handled, as in a notebook's or a server's."""
    config = small_config(tiny_base, rows, tmp_path / "out", *SHORT)
    found: list[Trained] = []
    thread = threading.Thread(target=lambda: found.append(train(config, say=lambda _: None)))
    thread.start()
    thread.join()
    assert found[0].report is not None


def test_the_settings_reach_the_trainer(
    tiny_base: Path, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Trainer] = []
    own_init = Trainer.__init__

    def watched(self: Trainer, *arguments: Any, **options: Any) -> None:
        own_init(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(Trainer, "__init__", watched)
    settings = ("data.max_length=100", "seed=3", "train.packing=false", *SHORT)
    train(small_config(tiny_base, rows, tmp_path / "out", *settings), say=lambda _: None)
    (trainer,) = made
    stored = load_config(tmp_path / "out/config.yaml")
    assert trainer.settings == stored.train
    assert (trainer.seed, trainer.device, trainer.row_tokens) == (3, "cpu", None)
    assert trainer.val_rows == ()
    assert len(trainer.rows) == 10
