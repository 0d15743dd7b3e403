"""Tiny models that can be asked, and answers that are written beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from honing.config import GenerateConfig
from honing.data.encode import Tokens
from honing.data.example import Example, Exchange
from honing.generation.answer import encode_for_answering
from honing.generation.open_model import OpenModel
from tests.runs import tiny_text
from tests.tiny import tiny_model, tiny_tokenizer

QUESTIONS = [
    "대한민국의 수도는 어디인가요?",
    "hi",
    "The quick brown fox jumps over the lazy dog, and then?",
    "물은 몇 도에서 끓나요?",
    "2 + 3",
    "오늘 날씨가 어때요? 🙂",
    "숫자를 세어 보세요",
    "안녕하세요",
]
EOS = 0


def settings(**changes: Any) -> GenerateConfig:
    return GenerateConfig(**{"max_new_tokens": 12, **changes})


def decode(ids: Sequence[int]) -> str:
    return str(tiny_tokenizer().decode(list(ids), clean_up_tokenization_spaces=False))


def ids_of(text: str) -> list[int]:
    return list(tiny_tokenizer()(text, add_special_tokens=False)["input_ids"])


def tiny_opened(
    architecture: str = "llama",
    template: str = "instruction",
    context_length: int | None = 256,
    dtype: torch.dtype = torch.float64,
) -> OpenModel:
    model = tiny_model(architecture, dtype)
    return OpenModel(model, tiny_text(template, context_length), "cpu", adapter=None)


def ask(*questions: str) -> list[Example]:
    return [
        Example(f"q:{row}", (Exchange(question, ""),), row=row)
        for row, question in enumerate(questions, start=1)
    ]


def encoded_questions(
    opened: OpenModel, questions: Sequence[str], wanted: GenerateConfig
) -> list[Tokens]:
    return encode_for_answering(opened, ask(*questions), wanted)


def script(monkeypatch: pytest.MonkeyPatch, *answers: Iterable[int]) -> None:
    """Let the model choose these ids, one answer after the other, each a batch of its own."""
    ids: Iterator[int] = (token for answer in answers for token in answer)

    def choose(logits: Tensor, *_: object) -> Tensor:
        assert logits.shape[0] == 1
        return torch.tensor([next(ids)])

    monkeypatch.setattr("honing.generation.decode.choose", choose)
