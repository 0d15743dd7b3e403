"""Every shipped configuration is read, and runs with stand-ins for what it would download."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from honing.cli import main
from honing.config import EMBEDDED_BASE, ColumnNames, Config
from honing.config_file import load_config, schema_text
from honing.data.prepare import prepare_data
from honing.data.template import TEMPLATES
from tests.runs import QUESTIONS, lines_of_metrics, tiny_text
from tests.tiny import save_tiny_base

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
# The tiny bases know 256 positions.
SHORT = (
    "data.max_length=256",
    "train.max_steps=2",
    "train.max_val_rows=8",
    "train.log_every=1",
    "device=cpu",
)


def config_of(name: str) -> Config:
    return load_config(CONFIGS / f"{name}.yaml")


def run(name: str, base: Path, out: Path, *overrides: str) -> dict[str, Any]:
    """Train as the configuration says, for two steps; the report."""
    settings = [f"model.base={base}", f"output_dir={out}", *SHORT, *overrides]
    assert main(["train", str(CONFIGS / f"{name}.yaml"), *settings]) == 0
    steps = [line["step"] for line in lines_of_metrics(out) if line["kind"] == "train"]
    assert steps == [1, 2]
    report: dict[str, Any] = json.loads((out / "training_report.json").read_text("utf-8"))
    return report


# --- all of them


def test_these_are_shipped() -> None:
    assert {"first_draft", "koalpaca", "quickstart", "songys"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_read_and_says_how_it_is_run(name: str) -> None:
    config_of(name)
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=honing.schema.json\n")
    assert f"#   honing train configs/{name}.yaml" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_runs_do_not_share_a_folder(name: str) -> None:
    folder = "outputs" if name == "first_draft" else f"outputs/{name}"
    assert config_of(name).output_dir == folder


def test_the_schema_is_up_to_date() -> None:
    """`make schema` writes it anew."""
    assert (CONFIGS / "honing.schema.json").read_text(encoding="utf-8") == schema_text()


# --- each by itself


def test_the_first_draft_is_as_it_was() -> None:
    config = config_of("first_draft")
    lora, data, train = config.lora, config.data, config.train
    assert config.model.base == "gpt2"
    assert (lora.rank, lora.alpha, lora.dropout) == (8, 16, 0.05)
    assert lora.target_modules == ["c_attn", "c_proj"]
    assert (lora.use_rslora, lora.use_dora, lora.init) == (False, False, "default")
    assert (data.source, data.split, data.template) == ("sample-10", "random", "instruction")
    assert (data.max_length, data.val_fraction, data.test_fraction) == (512, 0.1, 0.1)
    assert (train.epochs, train.micro_batch_size, train.global_batch_size) == (3, 1, 16)
    assert (train.learning_rate, train.weight_decay) == (2e-4, 0.01)
    assert (train.warmup_steps, train.scheduler) == (100, "cosine")
    assert (train.max_grad_norm, train.gradient_checkpointing) == (1.0, True)
    assert (train.max_steps, data.max_rows) == (None, None)
    prepared = prepare_data(config.data, config.seed, tiny_text(context_length=None))
    assert [len(split.tokens) for split in prepared.splits.values()] == [800, 100, 100]
    assert prepared.report.leaks["val"].num_leaked == 100


def test_only_the_first_draft_keeps_the_old_recipe() -> None:
    for name in ("quickstart", "songys"):
        config = config_of(name)
        assert config.model.base == EMBEDDED_BASE
        assert config.train.learning_rate == 1e-3
        assert (config.train.warmup_steps, config.lora.target_modules) == (None, "auto")


def test_the_quickstart_runs(tiny_base: Path, tmp_path: Path) -> None:
    report = run("quickstart", tiny_base, tmp_path / "out", "data.max_rows=32")
    assert report["num_steps"] == 2
    assert config_of("quickstart").data.source == "sample"


def test_the_first_draft_runs_on_its_architecture(tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path / "base", "gpt2")
    report = run("first_draft", base, tmp_path / "out", "data.max_rows=40")
    assert report["config"]["lora"]["target_modules"] == ["c_attn", "c_proj"]
    # Rank 8 on two blocks of width 32: c_attn 32 → 96, c_proj 32 → 32 and 128 → 32.
    assert report["trainable_parameters"] == 2 * 8 * ((32 + 96) + (32 + 32) + (128 + 32))
    # One example a micro-batch: packed as it is, a row holds one.
    (epoch,) = report["epochs"]
    assert round(epoch["micro_batches_per_s"] * epoch["seconds"]) == 32
    first, second = (x for x in lines_of_metrics(tmp_path / "out") if x["kind"] == "train")
    assert 0 < first["learning_rate"] < second["learning_rate"] <= 2e-4


def test_songys_reads_the_file_as_its_author_publishes_it(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "ChatbotData.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["Q", "A", "label"])
        for number, question in enumerate(QUESTIONS * 2):
            writer.writerow([f"{question} {number}", f'"{number}", 좋네요.', number % 3])
    monkeypatch.chdir(tmp_path)
    report = run("songys", tiny_base, tmp_path / "out")
    assert report["config"]["data"]["source"] == "ChatbotData.csv"
    rows = (tmp_path / "out/splits/train.jsonl").read_text("utf-8").splitlines()
    record = json.loads(rows[0])
    number = int(record["id"].removeprefix("ChatbotData.csv:")) - 2
    assert record == {
        "id": f"ChatbotData.csv:{number + 2}",
        "instruction": f"{(QUESTIONS * 2)[number]} {number}",
        "input": "",
        "output": f'"{number}", 좋네요.',
    }
    columns = config_of("songys").data.columns
    assert columns == ColumnNames(instruction="Q", output="A")


def test_koalpaca_runs_on_what_the_hub_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Qwen3 shape under the data set's own columns and its one split."""
    import datasets

    rows = [
        {"instruction": f"{question} {n}", "output": f"{n}입니다.", "url": "https://example.com"}
        for n, question in enumerate(QUESTIONS * 3)
    ]
    asked: list[Any] = []

    def load_dataset(*names: Any) -> Any:
        asked.append(names)
        return datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    base = save_tiny_base(tmp_path / "base", "qwen")
    report = run("koalpaca", base, tmp_path / "out", "train.eval_every=2")
    assert asked == [("beomi/KoAlpaca-v1.1a", None)]
    config = config_of("koalpaca")
    assert (config.model.base, config.data.source) == (
        "Qwen/Qwen3-0.6B-Base",
        "beomi/KoAlpaca-v1.1a",
    )
    assert report["config"]["lora"]["rank"] == 16
    shown = json.loads((tmp_path / "out/data_report.json").read_text("utf-8"))["shown_rows"][0]
    assert shown["id"].startswith("beomi/KoAlpaca-v1.1a/train:")
    template = TEMPLATES["koalpaca-v1.1"]
    head, tail = template.prompt_without_input.split("{instruction}")
    assert shown["text"].startswith(head)
    assert f"{tail}⟦ " in shown["text"]
    text = (CONFIGS / "koalpaca.yaml").read_text(encoding="utf-8")
    assert "Apache-2.0" in text
    assert "CC BY-NC 4.0" in text
