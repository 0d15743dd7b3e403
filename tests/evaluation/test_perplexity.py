"""Losses of rows: the same for any batch size, and those of a plain loop over transformers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import log_softmax

from honing.data.encode import IGNORE, Tokens
from honing.evaluation.perplexity import CHUNK_TOKENS, RowLoss, row_losses
from tests.tiny import ARCHITECTURES, PAIRS, adapted_model, encoded, tiny_model

ROWS = encoded(PAIRS)


def plain_loop(model: torch.nn.Module, rows: list[Tokens]) -> list[RowLoss]:
    """The reference: one row at a time, full logits, float64 throughout."""
    found = []
    for row in rows:
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0].double()
        nats = -log_softmax(logits[:-1], dim=-1)
        places = [p for p, label in enumerate(row.labels[1:]) if label != IGNORE]
        found.append(RowLoss(sum(float(nats[p, row.labels[p + 1]]) for p in places), len(places)))
    return found


def perplexity(losses: list[RowLoss]) -> float:
    return math.exp(sum(x.sum_nats for x in losses) / sum(x.num_tokens for x in losses))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_float64_model_equals_the_plain_loop(architecture: str) -> None:
    model = tiny_model(architecture, torch.float64)
    ours, plain = row_losses(model, ROWS, batch_size=3), plain_loop(model, ROWS)
    assert [x.num_tokens for x in ours] == [x.num_tokens for x in plain]
    assert [x.sum_nats for x in ours] == pytest.approx([x.sum_nats for x in plain], rel=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_float32_model_is_near_the_float64_loop(architecture: str) -> None:
    ours = perplexity(row_losses(tiny_model(architecture), ROWS, batch_size=4))
    plain = perplexity(plain_loop(tiny_model(architecture, torch.float64), ROWS))
    assert ours == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batch_sizes_give_the_same_perplexity(architecture: str) -> None:
    model = adapted_model(architecture).eval()
    found = [perplexity(row_losses(model, ROWS * 3, batch_size=size)) for size in (1, 4, 16)]
    assert found[1:] == pytest.approx(found[:1] * 2, rel=1e-6)


def test_the_adapter_can_be_switched_off() -> None:
    model = adapted_model("llama", torch.float64).eval()
    with model.disable_adapter():
        off = row_losses(model, ROWS, batch_size=4)
    base = row_losses(tiny_model("llama", torch.float64), ROWS, batch_size=4)
    tuned = row_losses(model, ROWS, batch_size=4)
    assert [x.sum_nats for x in off] == pytest.approx([x.sum_nats for x in base], rel=1e-12)
    assert abs(perplexity(tuned) / perplexity(base) - 1) > 1e-3


def test_the_packaged_model_equals_the_plain_loop(packaged_model: str) -> None:
    from honing.config import ModelConfig
    from honing.model.load import find_base, load_model

    model = load_model(find_base(ModelConfig(base=packaged_model)), "float32", "cpu")
    ours = perplexity(row_losses(model, ROWS[:3], batch_size=3))
    plain = perplexity(plain_loop(model.double(), ROWS[:3]))
    assert ours == pytest.approx(plain, rel=1e-5)


def test_more_tokens_than_a_chunk() -> None:
    ids = tuple(range(4, 104))
    row = Tokens("long", ids, (IGNORE, *ids[1:]))
    model = tiny_model("llama", torch.float64)
    rows = [row] * 4
    assert sum(r.num_supervised for r in rows) > CHUNK_TOKENS
    ours, plain = row_losses(model, rows, batch_size=4), plain_loop(model, [row])[0]
    assert [x.sum_nats for x in ours] == pytest.approx([plain.sum_nats] * 4, rel=1e-9)


def test_rows_are_counted_as_they_are_done_and_a_row_may_teach_nothing() -> None:
    seen: list[int] = []
    silent = Tokens("silent", (5, 6, 7), (IGNORE,) * 3)
    found = row_losses(
        tiny_model("gpt2"), [silent, ROWS[0]], batch_size=1, on_row=lambda: seen.append(1)
    )
    assert found[0] == RowLoss(0.0, 0)
    assert found[1].num_tokens == ROWS[0].num_supervised
    assert len(seen) == 2
