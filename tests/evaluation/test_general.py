"""Perplexity of a plain text outside the task."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from honing.errors import UserError
from honing.evaluation.forgetting import general_figures
from honing.evaluation.general import measure_general, read_plain_text
from honing.evaluation.record import GeneralText
from honing.generation.open_model import OpenModel
from tests.runs import tiny_text
from tests.tiny import tiny_model

TEXT = "대한민국의 수도는 서울입니다. The quick brown fox jumps over the lazy dog.\n" * 12


def opened() -> OpenModel:
    return OpenModel(tiny_model("llama", torch.float64), tiny_text(), "cpu", None)


def measured(model: OpenModel, file: Path) -> GeneralText:
    return measure_general(model, read_plain_text(file))


def test_it_equals_a_plain_loop_over_windows(tmp_path: Path) -> None:
    file = tmp_path / "wiki.txt"
    file.write_text(TEXT, encoding="utf-8")
    model = opened()
    (ids,) = model.text.encoder.encode([TEXT], True)
    windows = [ids[start : start + 256] for start in range(0, len(ids), 256)]
    assert len(windows) > 2
    nats, tokens = 0.0, 0
    pieces = []
    for window in windows:
        line = torch.tensor([window])
        with torch.no_grad():
            logits = model.model(input_ids=line).logits[0, :-1]
        loss = float(cross_entropy(logits, line[0, 1:], reduction="sum"))
        pieces.append((loss, len(window) - 1, len(model.text.decode(window[1:]))))
        nats += loss
        tokens += len(window) - 1
    general = measured(model, file)
    found = general_figures(general)
    assert [piece[1:] for piece in general.pieces] == [piece[1:] for piece in pieces]
    assert [piece[0] for piece in general.pieces] == pytest.approx(
        [piece[0] for piece in pieces], rel=1e-9
    )
    assert found["general_perplexity"].value == pytest.approx(math.exp(nats / tokens), rel=1e-9)
    assert f"tokens:{tokens}" in found["general_perplexity"].signature
    characters = sum(len(model.text.decode(window[1:])) for window in windows)
    assert found["general_bits_per_character"].value == pytest.approx(
        nats / math.log(2) / characters, rel=1e-9
    )


def test_decomposed_letters_are_the_same_text(tmp_path: Path) -> None:
    import unicodedata

    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "b.txt").write_text(unicodedata.normalize("NFD", TEXT), encoding="utf-8")
    values = {
        (general.sha256, general.pieces)
        for general in (measured(opened(), tmp_path / name) for name in ("a.txt", "b.txt"))
    }
    assert len(values) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "holds no text"),
        (b" \n", "holds no text"),
        (b"a", "holds a single token"),
        (b"\xb0\xa1", "is not UTF-8 \\(byte 0\\)"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        measured(opened(), file)
