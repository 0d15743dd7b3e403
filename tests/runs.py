"""Small data, small bases and whole runs in the test's own process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from honing.config import Config
from honing.config_file import load_config
from honing.data.template import choose_template
from honing.data.text_model import TextModel
from honing.model.load import chat_renderer, text_encoder
from honing.model.token_bytes import token_bytes
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

# Prompts of which none resembles another, so that each is a group of its own.
QUESTIONS = (
    "대한민국의 수도는 어디인가요?",
    "물은 몇 도에서 끓나요?",
    "hi there",
    "오늘 날씨가 어때요",
    "2 + 3",
    "The quick brown fox",
    "안녕하세요",
    "숫자를 세어 보세요",
    "바다는 왜 파란가요?",
    "lazy dogs and cats",
    "사과를 영어로 하면?",
    "list three colours",
)


def qa_rows(number: int = 12) -> list[dict[str, Any]]:
    """Different questions with short, different answers."""
    return [
        {"instruction": question, "output": f"답 {place}."}
        for place, question in enumerate(QUESTIONS[:number], start=1)
    ]


def save_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """A JSONL file; its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return str(path)


def tiny_text(template: str = "instruction", context_length: int | None = 256) -> TextModel:
    """The tiny tokenizer with a template, as a base model would give it."""
    tokenizer = tiny_tokenizer()

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    return TextModel(
        name="tiny",
        encoder=text_encoder(tokenizer),
        decode=decode,
        template=choose_template(template, CHAT_TEMPLATE),
        chat=chat_renderer(tokenizer, CHAT_TEMPLATE) if template == "chat" else None,
        context_length=context_length,
        token_bytes=partial(token_bytes, tokenizer),
    )


def small_config(base: Path, source: str, output: Path, *overrides: str) -> Config:
    """A run of a few steps on a tiny base."""
    return load_config(None, small_overrides(base, source, output, *overrides))


def small_overrides(base: Path, source: str, output: Path, *overrides: str) -> list[str]:
    return [
        f"output_dir={output}",
        "device=cpu",
        f"model.base={base}",
        "model.dtype=float32",
        "lora.rank=2",
        f"data.source={source}",
        "data.max_length=64",
        "train.epochs=2",
        "train.global_batch_size=4",
        "train.learning_rate=0.01",
        "train.log_every=1",
        *overrides,
    ]


def names_below(folder: Path) -> set[str]:
    """Every file and link below a folder, by its path from there."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def contents_below(folder: Path) -> dict[str, bytes | str]:
    """The bytes of every file below a folder, and where every link leads."""
    return {
        name: os.readlink(folder / name)
        if (folder / name).is_symlink()
        else (folder / name).read_bytes()
        for name in sorted(names_below(folder))
    }


def lines_of_metrics(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
