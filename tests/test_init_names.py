"""`honing init` on several files, on folders, and on names that mean something elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from honing.cli import main
from honing.config import Config, SplitFiles
from honing.config_file import load_config
from honing.init import init
from tests.data.reading.files import save
from tests.runs import qa_rows
from tests.tiny_run import TinyRun

Captured = pytest.CaptureFixture[str]
CONTEXT = 256  # positions of the tiny base


@pytest.fixture(autouse=True)
def base(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The override that names the tiny base; written is into an empty folder."""
    monkeypatch.chdir(tmp_path)
    return f"model.base={tiny_run.base}"


def lines_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def expected(base: str, name: str, **data: Any) -> Config:
    """What a written file is to hold: the defaults, but for what init found."""
    settings = {"source": f"{name}.jsonl", "max_length": CONTEXT, **data}
    config = Config.model_validate({"output_dir": f"outputs/{name}", "data": settings})
    model = config.model.model_copy(update={"base": base.partition("=")[2]})
    return config.model_copy(update={"model": model})


# --- several files, folders


def test_files_named_train_and_val_are_the_users_splits(base: str, capsys: Captured) -> None:
    rows = qa_rows()
    save(Path("d/train.jsonl"), lines_of(rows[:8]))
    save(Path("d/dev.jsonl"), lines_of(rows[8:10]))
    save(Path("d/test.jsonl"), lines_of(rows[10:]))
    assert main(["init", "d/train.jsonl", "d/dev.jsonl", "d/test.jsonl", base]) == 0
    splits = SplitFiles(train="d/train.jsonl", val="d/dev.jsonl", test="d/test.jsonl")
    assert load_config(Path("train.yaml")) == expected(base, "train", source=splits)
    assert capsys.readouterr().out.startswith(
        "d/train.jsonl, d/dev.jsonl, d/test.jsonl: 12 rows, 12 usable (alpaca)\n"
    )
    assert main(["train", "train.yaml", "train.max_steps=1"]) == 0
    assert main(["init", "d", base]) == 0
    assert load_config(Path("d.yaml")) == expected(base, "d", source="d")


def test_other_files_are_one_source(base: str) -> None:
    rows = qa_rows()
    save(Path("a.jsonl"), lines_of(rows[:6]))
    save(Path("b.jsonl"), lines_of(rows[6:]))
    written = init(["a.jsonl", "b.jsonl"], [base])
    assert written.num_rows == 12
    assert load_config(Path("a.yaml")) == expected(base, "a", source=["a.jsonl", "b.jsonl"])


def test_the_folder_here_has_the_name_of_the_folder(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(Path("my data/train.jsonl"), lines_of(qa_rows()))
    monkeypatch.chdir("my data")
    init(["."], [base])
    assert load_config(Path("my_data.yaml")) == expected(base, "my_data", source=".")


def test_a_file_named_as_the_sample_set_is_the_file(base: str) -> None:
    save(Path("sample"), lines_of(qa_rows()))
    assert init(["sample"], [base]).num_rows == 12
    assert load_config(Path("sample.yaml")).data.source == "./sample"


def test_the_sample_set_can_be_looked_at_too(base: str) -> None:
    written = init(["sample"], [base])
    assert (written.num_rows, written.shape) == (1000, "the bundled sample set")
    assert load_config(Path("sample.yaml")) == expected(base, "sample", source="sample")


# --- names that mean something to YAML, to a shell or to this program


STRANGE = [
    "my data.jsonl",
    "한국어 자료.jsonl",
    "it's.jsonl",
    'a "quote".jsonl',
    "a: b.jsonl",
    "#1 file.jsonl",
    "a #b.jsonl",
    "-x.jsonl",
    "--json.jsonl",
    "{a}.jsonl",
    "[a, b].jsonl",
    "&a.jsonl",
    "*.jsonl",
    "!x.jsonl",
    "%a.jsonl",
    "@a.jsonl",
    "a\\b.jsonl",
    "a\nb: c.jsonl",
    "a\tb.jsonl",
    "a\x85b.jsonl",
    "a\u2028b.jsonl",
    "🙂.jsonl",
    "1e5",
    "null",
    "true",
    "2024-01-01",
    "0x1f",
    "1_000",
    " padded ",
    "a=b.jsonl",
    "긴" * 60 + ".jsonl",
    ".jsonl",
]


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_comes_back_as_it_was(base: str, name: str) -> None:
    Path(name).write_text(lines_of(qa_rows()), encoding="utf-8")
    written = init([name], [base])
    path = Path(written.config)
    config = load_config(path)
    assert config.data.source == name
    assert path.parent == Path()
    assert path.stem == Path(config.output_dir).name
    assert not path.name.startswith(("-", "."))
    assert all(c.isalnum() or c in "_.-" for c in path.stem)
    assert load_config(None, [f"model.base={config.model.base}"]).train == config.train


def test_a_name_with_a_dash_trains_after_two_dashes(base: str, capsys: Captured) -> None:
    Path("-x.jsonl").write_text(lines_of(qa_rows()))
    assert main(["init", base, "--", "-x.jsonl"]) == 0
    assert load_config(Path("x.yaml")).data.source == "-x.jsonl"
    assert main(["train", "x.yaml", "train.max_steps=1"]) == 0


def test_a_file_with_an_equals_sign_is_a_file(base: str) -> None:
    Path("train.epochs=2").write_text(lines_of(qa_rows()))
    assert main(["init", "train.epochs=2", base, "--output", "c.yaml"]) == 0
    config = load_config(Path("c.yaml"))
    assert config.data.source == "train.epochs=2"
    assert config.train.epochs == Config().train.epochs
    Path("train.epochs=2").rename("rows.jsonl")
    assert main(["init", "train.epochs=2", "rows.jsonl", base]) == 0
    assert load_config(Path("rows.yaml")).train.epochs == 2


def test_an_output_that_needs_quotes_gets_them(base: str) -> None:
    save(Path("rows.jsonl"), lines_of(qa_rows()))
    said: list[str] = []
    init(["rows.jsonl"], [base], Path("my own.yaml"), say=said.append)
    assert said[-1] == "Next: honing train 'my own.yaml'"
    init(["rows.jsonl"], [base], Path("-o.yaml"), say=said.append)
    assert said[-1] == "Next: honing train ./-o.yaml"
