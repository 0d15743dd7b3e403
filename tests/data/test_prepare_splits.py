"""splits/*.jsonl: rows written as they were dealt, which honing reads again as the same data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from honing.config import DataConfig, SplitFiles
from honing.data.example import Example, Exchange
from honing.data.prepare import PreparedData, prepare_data
from honing.data.stored import split_lines
from tests.runs import qa_rows, save_rows, tiny_text

SUM = {"instruction": "더해라", "output": "3", "input": "1, 2"}
MIXED: dict[str, list[dict[str, Any]]] = {
    "columns": [*qa_rows(6), SUM, {"instruction": "", "output": "4", "input": "2 + 2"}],
    "system": [{**SUM, "input": f"{n}, 2", "system": "짧게 답해라."} for n in range(8)],
    "groups": [{**each, "group": f"g{n}"} for n, each in enumerate(qa_rows())],
    "questions": [{"Q": each["instruction"], "A": each["output"]} for each in qa_rows()],
    "chats": [
        {
            "messages": [
                *([{"role": "system", "content": "예의 바르게"}] if n % 3 == 0 else []),
                {"role": "user", "content": question["instruction"]},
                {"role": "assistant", "content": question["output"]},
                *(
                    [{"role": "user", "content": "더"}, {"role": "assistant", "content": f"{n}"}]
                    if n % 2
                    else []
                ),
            ]
        }
        for n, question in enumerate(qa_rows())
    ],
}


def records(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in split_lines(examples)]


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("template", ["instruction", "chat"])
def test_written_splits_can_be_read_again(tmp_path: Path, kind: str, template: str) -> None:
    source = save_rows(tmp_path / "rows.jsonl", MIXED[kind])
    text = tiny_text(template)
    settings: dict[str, Any] = {"max_length": 128, "template": template, "split": "random"}

    def prepared(source: Any, **more: Any) -> PreparedData:
        return prepare_data(DataConfig(source=source, **settings, **more), 42, text)

    data = prepared(source, val_fraction=0.25, test_fraction=0.25)
    files = {
        name: save_rows(tmp_path / "splits" / f"{name}.jsonl", records(split.examples))
        for name, split in data.splits.items()
    }
    again = prepared(SplitFiles(**files))
    for name, split in data.splits.items():
        assert [_words(e) for e in again.splits[name].examples] == [
            _words(e) for e in split.examples
        ]
    assert again.report.fingerprint == data.report.fingerprint
    folder = prepared(str(tmp_path / "splits"))
    assert folder.report.fingerprint == data.report.fingerprint


def _words(example: Example) -> tuple[Any, ...]:
    return example.exchanges, example.system, example.group


def test_a_line_of_a_split_names_the_row_it_came_from() -> None:
    single = Example("a:1", (Exchange("더해라", "3", "1, 2"),), group="sums", row=1)
    chat = Example("a:2", (Exchange("hi", "Hello"), Exchange("더", "안녕")), "짧게", row=2)
    assert records([single]) == [
        {"id": "a:1", "group": "sums", "instruction": "더해라", "input": "1, 2", "output": "3"}
    ]
    messages = [
        {"role": "system", "content": "짧게"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "더"},
        {"role": "assistant", "content": "안녕"},
    ]
    assert records([chat]) == [{"id": "a:2", "messages": messages}]
    assert [set(record) for record in records([single, chat])] == [
        {"id", "group", "messages"},
        {"id", "messages"},
    ]
    json.dumps(records([single, chat]))
