"""No setting that nothing reads: every key of a configuration is read by the stages' own code.

A spy notes each attribute of a section that code of honing's asks for, while small runs of prepare,
train and generate go through their variants. What is handed on as a whole, by model_dump, is looked
at by its effect instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from honing.config import (
    ColumnNames,
    Config,
    DataConfig,
    Section,
    SplitFiles,
    TrainConfig,
)
from honing.config_file import load_config, setting_keys
from honing.data.prepare import PreparedData, prepare_data
from honing.evaluation.evaluate import evaluate
from honing.generation.generate import generate
from honing.generation.questions import question_from_text
from honing.preparation import prepare
from honing.training.train import train
from tests.runs import qa_rows, save_rows, small_config, tiny_text

Reads = set[tuple[type, str]]
NOT_A_READER = ("honing.config", "honing.config_file", "honing.init")
"""They go over all fields alike: to check, to write, to document."""
HANDED_ON = (SplitFiles, ColumnNames)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """(section, field) of each setting that code of honing's asks for from now on."""
    found: Reads = set()

    def spy(self: Section, name: str) -> Any:
        module = sys._getframe(1).f_globals.get("__name__", "")
        if module.startswith("honing.") and module not in NOT_A_READER:
            found.add((type(self), name))
        return object.__getattribute__(self, name)

    monkeypatch.setattr(Section, "__getattribute__", spy, raising=False)
    return found


def settings_of(section: type[BaseModel], above: str = "") -> Iterator[tuple[str, type, str]]:
    """(key, section, field) of everything below a section, inner sections too."""
    for name, field in section.model_fields.items():
        yield f"{above}{name}", section, name
        for part in getattr(field.annotation, "__args__", (field.annotation,)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from settings_of(part, f"{above}{name}.")


def unread(reads: Reads, config: type[BaseModel] = Config) -> list[str]:
    return [
        key
        for key, section, field in settings_of(config)
        if section not in HANDED_ON and not any((kind, field) in reads for kind in section.__mro__)
    ]


class WiderTrain(TrainConfig):
    unused: int = 3


class WiderConfig(Config):
    train: WiderTrain = WiderTrain()
    alone: bool | None = None


def test_every_setting_is_read(reads: Reads, tiny_base: Path, tmp_path: Path) -> None:
    rows = save_rows(tmp_path / "rows.jsonl", qa_rows())
    template = "data.template={prompt: 'Q: {instruction}{input}\\nA:'}"
    prepare(small_config(tiny_base, rows, tmp_path / "prepared", template))
    out = tmp_path / "out"
    train(small_config(tiny_base, rows, out, "train.max_steps=2"), say=lambda _: None)
    drawn = ["generate.temperature=1", "generate.max_new_tokens=3", "device=cpu"]
    generate(str(out), [question_from_text("hi")], load_config(None, drawn))
    evaluate(str(out), ["evaluate.num_resamples=1000"], say=lambda _: None)
    assert unread(reads) == []
    # And a setting that was added and forgotten would be seen.
    assert unread(reads, WiderConfig) == ["train.unused", "alone"]


def test_no_key_is_overlooked() -> None:
    keys = [key for key, _, _ in settings_of(Config)]
    assert len(keys) == len(set(keys))
    assert {".".join(path) for path in setting_keys()} <= set(keys)


def test_reading_to_check_or_to_write_does_not_count(reads: Reads, tmp_path: Path) -> None:
    config = load_config(None, ["train.epochs=2"])
    config.model_dump()
    config.model_copy(update={"seed": 1})
    assert config.train.epochs == 2  # by this test
    assert reads == set()


# --- what is handed on as a whole


COLUMNS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "instruction": ({"my_in": "hi", "output": "A"}, {"instruction": "hi"}),
    "input": ({"instruction": "hi", "my_in": "B", "output": "A"}, {"input": "B"}),
    "output": ({"instruction": "hi", "my_in": "A"}, {"output": "A"}),
    "prompt": ({"my_in": "hi", "completion": "A"}, {"instruction": "hi"}),
    "completion": ({"prompt": "hi", "my_in": "A"}, {"output": "A"}),
    "messages": (
        {"my_in": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "A"}]},
        {"instruction": "hi", "output": "A"},
    ),
    "text": ({"my_in": "### 질문: hi\n\n### 답변: A"}, {"instruction": "hi", "output": "A"}),
    "system": ({"instruction": "hi", "output": "A", "my_in": "S"}, {"system": "S"}),
    "group": ({"instruction": "hi", "output": "A", "my_in": "G"}, {"group": "G"}),
}


@pytest.mark.parametrize("field", ColumnNames.model_fields)
def test_every_column_name_has_an_effect(field: str, tmp_path: Path) -> None:
    row, expected = COLUMNS[field]
    source = save_rows(tmp_path / "a.jsonl", [row])
    (example,) = prepared(source, columns=ColumnNames(**{field: "my_in"})).train.examples
    found = {
        **vars(example.exchanges[0]),
        "system": example.system,
        "group": example.group,
    }
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("field", SplitFiles.model_fields)
def test_every_split_of_the_users_own_has_an_effect(field: str, tmp_path: Path) -> None:
    files = {"train": save_rows(tmp_path / "a.jsonl", qa_rows(2))}
    files[field] = save_rows(tmp_path / "b.jsonl", qa_rows(5)[2:])
    data = prepared(SplitFiles(**files))
    assert [e.row for e in data.splits[field].examples] == [1, 2, 3]
    assert data.splits[field].examples[0].id.startswith("b.jsonl")


def prepared(source: Any, **settings: Any) -> PreparedData:
    data = DataConfig(source=source, val_fraction=0.0, test_fraction=0.0, **settings)
    return prepare_data(data, 42, tiny_text(context_length=None))
