"""Large sets are prepared once: a hit is what a fresh preparation gives, and damage is noticed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from honing.config import Config
from honing.data.prepare import PreparedData
from honing.data.prepared_cache import clear_oldest, content_key
from honing.data.reading.source import find_files
from honing.data.report import format_report
from honing.data.stored import StoredTokens
from honing.errors import UserError
from honing.preparation import prepare
from tests.runs import names_below, qa_rows, save_rows, small_config, tiny_text

FRACTIONS = ("data.val_fraction=0.25", "data.test_fraction=0.25")


@pytest.fixture
def config(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Rows that count as large, and a cache of the test's own."""
    monkeypatch.setenv("HONING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("honing.preparation.LARGE_BYTES", 1)
    rows = [{**row, "group": f"g{n // 2}"} for n, row in enumerate(qa_rows())]
    rows += [{"instruction": "길다", "output": "가나다라" * 200}, rows[0]]
    source = save_rows(tmp_path / "rows.jsonl", rows)
    return small_config(tiny_base, source, tmp_path / "out", *FRACTIONS)


def folders(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache/data").iterdir())


def never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> PreparedData:
        raise AssertionError("prepared anew")

    monkeypatch.setattr("honing.preparation.prepare_data", refuse)


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in sorted(names_below(out))}


def test_a_second_run_has_the_same_data_report_and_files(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(config)
    written = contents(tmp_path / "out")
    assert isinstance(first.train.tokens, StoredTokens)
    never_again(monkeypatch)
    second = prepare(config)
    assert (second.report, format_report(second.report)) == (
        first.report,
        format_report(first.report),
    )
    for name, split in first.splits.items():
        assert tuple(second.splits[name].tokens) == tuple(split.tokens)
        assert tuple(second.splits[name].examples) == tuple(split.examples)
    assert contents(tmp_path / "out") == written


def test_the_cache_gives_what_memory_does(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = prepare(config)
    written = contents(tmp_path / "out")
    monkeypatch.setattr("honing.preparation.LARGE_BYTES", 1 << 30)
    plain = prepare(config)
    assert cached.report == plain.report
    for name, split in plain.splits.items():
        assert tuple(cached.splits[name].tokens) == split.tokens
        assert tuple(cached.splits[name].examples) == split.examples
    assert contents(tmp_path / "out") == written
    assert len(folders(tmp_path)) == 1


def test_nothing_but_what_is_needed_stays(config: Config, tmp_path: Path) -> None:
    prepare(config)
    (folder,) = folders(tmp_path)
    assert names_below(folder) == {
        *("rows.jsonl", "tokens.int32", "ids.txt", "report.json", "prepared.json"),
        *("train.npz", "val.npz", "test.npz"),
    }


def test_small_sets_leave_no_cache(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = Path(str(config.data.source)).stat().st_size
    monkeypatch.setattr("honing.preparation.LARGE_BYTES", size + 1)
    assert isinstance(prepare(config).train.tokens, tuple)
    assert not (tmp_path / "cache").exists()


# --- damage


@pytest.mark.parametrize(
    "name",
    ["rows.jsonl", "tokens.int32", "ids.txt", "report.json", "train.npz", "prepared.json"],
)
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_damage_is_noticed_and_made_good(
    name: str, damage: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(config)
    (folder,) = folders(tmp_path)
    content = (folder / name).read_bytes()
    if damage == "gone":
        (folder / name).unlink()
    else:
        rest = bytes([content[5] ^ 1]) + content[6:] if damage == "changed" else b""
        (folder / name).write_bytes(content[:5] + rest)
    again = prepare(config)
    assert again.report == first.report
    assert tuple(again.train.tokens) == tuple(first.train.tokens)
    assert folders(tmp_path) == [folder]
    never_again(monkeypatch)
    assert prepare(config).report == first.report


def test_a_set_under_a_foreign_name_is_none(
    config: Config, tmp_path: Path, tiny_base: Path
) -> None:
    prepare(config)
    (mine,) = folders(tmp_path)
    other = small_config(tiny_base, str(config.data.source), tmp_path / "out", *FRACTIONS, "seed=7")
    expected = prepare(other)
    (theirs,) = set(folders(tmp_path)) - {mine}
    for path in mine.iterdir():
        (theirs / path.name).write_bytes(path.read_bytes())
    assert prepare(other).report == expected.report


def test_rows_that_cannot_be_prepared_leave_nothing(config: Config, tmp_path: Path) -> None:
    broken = config.model_copy(
        update={"data": config.data.model_copy(update={"group_by": "nowhere"})}
    )
    with pytest.raises(UserError, match=r"data.group_by: rows.jsonl has no column"):
        prepare(broken)
    assert folders(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_said(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HONING_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"prepared rows cannot be kept there .*set HONING_CACHE"):
        prepare(config)


# --- the key


def test_the_key_changes_with_all_that_the_data_depend_on(config: Config) -> None:
    source = Path(str(config.data.source))
    text = tiny_text()

    def key(data: dict[str, Any] | None = None, seed: int = 42, **more: Any) -> str:
        settings = config.data.model_copy(update=data or {})
        model = replace(text, **{"name": "tiny", **more.pop("text", {})})
        files = find_files(str(source))
        return content_key(files, settings, seed, model, more.pop("tokenizer", "t"))

    assert key() == key()
    keys = [
        key(),
        key(seed=1),
        key(tokenizer="other"),
        key(text={"encoder": replace(text.encoder, bos_id=1)}),
        key(text={"template": tiny_text("chat").template}),
        key(text={"context_length": 99}),
        *(
            key({name: value})
            for name, value in {
                "max_length": 50,
                "supervise": "everything",
                "split": "random",
                "group_by": "group",
                "val_fraction": 0.2,
                "test_fraction": 0.2,
                "max_rows": 3,
                "on_leak": "drop",
                "encoding": "utf-8",
            }.items()
        ),
    ]
    source.write_bytes(source.read_bytes().replace(b"hi there", b"hi thers"))
    keys.append(key())
    assert len(set(keys)) == len(keys)


# --- its size


def test_the_sets_used_longest_ago_go_first(tmp_path: Path) -> None:
    for when, name in ((1_000, "oldest"), (1_002, "newest"), (1_001, "middle")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prepared.json").write_bytes(b"x" * 10)
        os.utime(tmp_path / name / "prepared.json", (when, when))
    clear_oldest(tmp_path, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle", "newest"]
    clear_oldest(tmp_path, 5)  # what was made just now stays, however large
    assert [path.name for path in tmp_path.iterdir()] == ["newest"]


def test_what_a_killed_process_left_goes_after_a_day(tmp_path: Path) -> None:
    for name in (".preparing-old", ".preparing-new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ".preparing-old", (1_000, 1_000))
    clear_oldest(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".preparing-new"]
