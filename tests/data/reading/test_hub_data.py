"""Data sets on the Hub, served by a stand-in."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable
from typing import Any

import pyarrow
import pytest

from tests.data.reading.files import (
    error_of,
    ids,
    read,
    read_all,
)


class HubSplit:
    """As much of datasets.Dataset as is read."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.column_names = list(rows[0]) if rows else ["instruction", "output"]

    def with_format(self, kind: str) -> HubSplit:
        assert kind == "arrow"
        return self

    def iter(self, batch_size: int) -> Iterable[Any]:
        for start in range(0, len(self.rows), batch_size):
            yield pyarrow.Table.from_pylist(self.rows[start : start + batch_size])


def serve(monkeypatch: pytest.MonkeyPatch, answer: dict[str, HubSplit] | Exception) -> list[object]:
    """Put a stand-in in the Hub's place; the list fills with what it is asked for."""
    asked: list[object] = []

    def load_dataset(*names: object) -> dict[str, HubSplit]:
        asked.append(names)
        if isinstance(answer, Exception):
            raise answer
        return answer

    module = types.ModuleType("datasets")
    module.__dict__["load_dataset"] = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_hub_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = HubSplit([{"instruction": "a", "output": "b", "url": "u"}] * 1001)
    asked = serve(monkeypatch, {"train": rows})
    read_rows = read("beomi/KoAlpaca-v1.1a")
    assert asked == [("beomi/KoAlpaca-v1.1a", None)]
    assert (len(read_rows.examples), read_rows.columns) == (1001, ("instruction", "output", "url"))
    assert ids(read_rows)[-1] == "beomi/KoAlpaca-v1.1a/train:1001"
    asked = serve(monkeypatch, {"test": rows, "validation": rows, "train": rows, "other": rows})
    splits = read_all("owner/name:config")
    assert asked == [("owner/name", "config")]
    assert list(splits) == ["train", "val", "test"]
    assert ids(splits["val"])[0] == "owner/name/validation:1"
    serve(monkeypatch, {"train": rows, "extra": rows})
    assert list(read_all("owner/name")) == ["all"]
    serve(monkeypatch, {"a": rows, "b": rows})
    assert error_of("owner/name") == (
        "data.source: owner/name has no train split (found: a, b); "
        "save the one you mean as a file and give that"
    )
    serve(monkeypatch, {"train": HubSplit([])})
    assert error_of("owner/name") == "owner/name/train holds no rows; give a file with rows"


class DatasetNotFoundError(FileNotFoundError):
    """Named as the Hub's own."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Couldn't reach"),
            "data.source: owner/name: no such file here, and the Hub cannot be reached"
            " (HF_HUB_OFFLINE is set); with a network it would be fetched, without one "
            "give a file (JSON, JSONL, CSV, Parquet), or `sample`",
        ),
        (
            DatasetNotFoundError("doesn't exist"),
            "data.source: owner/name: no such file here, and no such data set on the Hub that is "
            "open to you; check its name, log in with `hf auth login` if it is private, or give a "
            "file (JSON, JSONL, CSV, Parquet), or `sample`",
        ),
        (
            ValueError("Config name is missing.\nPlease pick one among: ['ko', 'en']"),
            "data.source: owner/name: the Hub data set cannot be read (Config name is missing. "
            "Please pick one among: ['ko', 'en']); give a file (JSON, JSONL, CSV, Parquet), or "
            "`sample`",
        ),
    ],
)
def test_hub_failures(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    serve(monkeypatch, error)
    assert error_of("owner/name") == message


def test_a_hub_data_set_that_fails_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = HubSplit([{"instruction": "a", "output": "b"}] * 1000 + [{"instruction": object()}])
    serve(monkeypatch, {"train": rows})
    assert error_of("owner/name").startswith(
        "data.source: owner/name: the Hub data set cannot be read ("
    )
