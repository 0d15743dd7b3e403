"""The lines of splits/*.jsonl: examples as records that honing can read again as a source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from honing.data.example import Example, Exchange


def as_columns(example: Example) -> dict[str, Any]:
    exchange = example.exchanges[0]
    return _names(example) | {
        **({"system": example.system} if example.system else {}),
        "instruction": exchange.instruction,
        "input": exchange.input,
        "output": exchange.output,
    }


def as_chat(example: Example) -> dict[str, Any]:
    messages = [{"role": "system", "content": example.system}] if example.system else []
    for exchange in example.exchanges:
        question = "\n\n".join(part for part in (exchange.instruction, exchange.input) if part)
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": exchange.output})
    return _names(example) | {"messages": messages}


def _names(example: Example) -> dict[str, Any]:
    group = {} if example.group is None else {"group": example.group}
    return {"id": example.id, **group}


def as_line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()


def line_of(example: Example) -> bytes:
    """An example's own line: columns, or messages where it has several exchanges."""
    if len(example.exchanges) == 1:
        return as_line(as_columns(example))
    assert not any(exchange.input for exchange in example.exchanges), "chats have no inputs"
    return as_line(as_chat(example))


def example_of(line: bytes, row: int) -> Example:
    """The example that line_of has written. row: what the line does not say."""
    record = json.loads(line)
    system, group = record.get("system", ""), record.get("group")
    if "messages" not in record:
        only = Exchange(record["instruction"], record["output"], record["input"])
        return Example(record["id"], (only,), system, group, row)
    turns = [turn["content"] for turn in record["messages"]]
    if record["messages"][0]["role"] == "system":
        system = turns.pop(0)
    return Example(record["id"], tuple(map(Exchange, turns[::2], turns[1::2])), system, group, row)
