"""One step's gradient is the same however its examples are laid out, and as a plain loop has it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AttentionInterface

import honing.model.attention
from honing.data.encode import Tokens
from honing.data.pack import packed_batch
from honing.model.attention import _has_flash
from honing.model.forward import hidden_states, use_isolated_attention
from honing.model.products import _has_onednn
from honing.run import RunFolder
from honing.training.trainer import Trainer
from tests.tiny import ARCHITECTURES, PAIRS, adapted_model, encoded, tiny_model, train_settings

ROWS = encoded(PAIRS)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-6}

LAYOUTS = {
    "1 x 8": {"micro_batch_size": 8, "packing": False},
    "8 x 1": {"micro_batch_size": 1, "packing": False},
    "8 x 1 packed": {"micro_batch_size": 1, "packing": True},
    "1 row": {"micro_batch_size": 8, "packing": True},
}

dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


def gradient(model: Any, **settings: Any) -> Tensor:
    """All adapters' gradient of the first step, as the trainer hands it to the optimizer."""
    trainer = Trainer(
        model, ROWS, [], train_settings(epochs=1, max_grad_norm=None, **settings), seed=1
    )
    seen: list[Tensor] = []
    trainer.optimizer.register_step_pre_hook(lambda *_: seen.append(_flat_gradient(model)))
    trainer.train()
    (only,) = seen
    return only


def _flat_gradient(model: Any) -> Tensor:
    """Every adapter's gradient in one line; a parameter without one fails here."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


@functools.cache
def reference_gradient(architecture: str, dtype: torch.dtype, *settings: tuple[str, Any]) -> Tensor:
    """transformers' own forward, one example at a time, and torch's own loss."""
    model = adapted_model(architecture, dtype, **dict(settings)).train()
    assert model.config._attn_implementation == "sdpa"
    num_supervised = sum(row.num_supervised for row in ROWS)
    for row in ROWS:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0, :-1]
        targets = torch.tensor(row.labels)[1:]
        sum_nats = cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
        torch.autograd.backward(sum_nats / num_supervised)
    return _flat_gradient(model)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_examples_are_longer_than_gemma_looks_back() -> None:
    assert [len(row.ids) for row in ROWS] == [47, 56, 51, 51, 31, 65, 57, 64]
    model = adapted_model("gemma")
    assert model.config.sliding_window == 8
    assert model.config.layer_types == ["sliding_attention", "full_attention"]


@architectures
@dtypes
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_each_layout_has_the_gradient_of_a_plain_loop(
    architecture: str, dtype: torch.dtype, recompute: bool
) -> None:
    """In float32, as exact as that loop: two orders of the same sums differ by what each rounds."""
    exact = reference_gradient(architecture, torch.float64)
    rounded = distance(reference_gradient(architecture, dtype).double(), exact)
    gradients = {
        name: gradient(
            adapted_model(architecture, dtype),
            global_batch_size=8,
            gradient_checkpointing=recompute,
            **layout,
        )
        for name, layout in LAYOUTS.items()
    }
    distances = {name: distance(found.double(), exact) for name, found in gradients.items()}
    assert max(distances.values()) <= max(1e-10, 1.25 * rounded), distances
    assert rounded <= 2e-6
    apart = distance(gradients["1 row"], gradients["1 x 8"])
    assert apart <= TOLERANCE[dtype]


@pytest.mark.parametrize("setting", ["use_dora", "use_rslora"])
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("architecture", ["gpt2", "gemma"])
def test_each_layout_has_the_gradient_of_a_plain_loop_with_other_adapters(
    architecture: str, setting: str, recompute: bool
) -> None:
    reference = reference_gradient(architecture, torch.float64, (setting, True))
    for name in ("8 x 1", "1 row"):
        model = adapted_model(architecture, torch.float64, **{setting: True})
        found = gradient(
            model, global_batch_size=8, gradient_checkpointing=recompute, **LAYOUTS[name]
        )
        assert distance(found, reference) <= 1e-10, name


def test_other_adapters_have_other_gradients() -> None:
    """Or the tests above would show nothing."""
    plain = reference_gradient("gpt2", torch.float64)
    rslora = reference_gradient("gpt2", torch.float64, ("use_rslora", True))
    dora = reference_gradient("gpt2", torch.float64, ("use_dora", True))
    assert distance(rslora, plain) > 0.1
    assert dora.shape != plain.shape  # a magnitude for each output


@architectures
def test_recomputing_on_a_base_in_bfloat16_changes_nothing(architecture: str) -> None:
    """Also in a process that asks for the first time, inside a block, what torch can do."""
    _has_flash.cache_clear()
    _has_onednn.cache_clear()
    found = [
        gradient(
            adapted_model(architecture, torch.bfloat16),
            global_batch_size=8,
            gradient_checkpointing=recompute,
            **LAYOUTS["1 row"],
        )
        for recompute in (True, False)
    ]
    assert torch.equal(*found)


@architectures
def test_recomputing_with_dropout_draws_the_same_mask_again(architecture: str) -> None:
    found = []
    for recompute in (False, True):
        model = adapted_model(architecture, torch.float64, dropout=0.1)
        torch.manual_seed(3)
        found.append(
            gradient(
                model,
                global_batch_size=8,
                gradient_checkpointing=recompute,
                **LAYOUTS["1 row"],
            )
        )
    assert torch.equal(found[0], found[1])
    assert distance(found[0], reference_gradient(architecture, torch.float64)) > 0.01


@architectures
def test_peft_alone_loads_a_checkpoint(architecture: str, tmp_path: Path) -> None:
    model = adapted_model(architecture)
    # Without forms that round otherwise, what PEFT computes is the same to the bit.
    settings = train_settings(
        epochs=1, global_batch_size=4, packing=True, learning_rate=1e-2, fast_forms=False
    )
    Trainer(model, ROWS, [], settings, seed=1, run=RunFolder(tmp_path)).train()
    ids = torch.tensor([ROWS[0].ids])
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
        base = tiny_model(architecture)
        untuned = base(input_ids=ids).logits
        for folder in (tmp_path / "checkpoints" / "final", tmp_path / "checkpoints" / "last"):
            loaded = peft.PeftModel.from_pretrained(tiny_model(architecture), str(folder)).eval()
            assert torch.equal(loaded(input_ids=ids).logits, expected)
    assert distance(untuned, expected) > 0.1


# Isolation


def other_than(row: Tokens) -> Tokens:
    """An example of the same length with other tokens."""
    ids = tuple((token + 7) % 300 for token in row.ids)
    return Tokens(row.example_id, ids, row.labels)


def packed_states(model: Any, rows: list[Tokens]) -> Tensor:
    batch = packed_batch(rows)
    with torch.no_grad():
        return hidden_states(
            model,
            torch.from_numpy(batch.input_ids),
            torch.from_numpy(batch.position_ids),
            None,
            batch.segment_lengths,
        )


@architectures
def test_an_example_sees_nothing_of_those_before_it(architecture: str) -> None:
    model = adapted_model(architecture)
    use_isolated_attention(model)
    first, second, third = ROWS[:3]
    start, end = len(first.ids), len(first.ids) + len(second.ids)
    states = packed_states(model, [first, second, third])
    others = packed_states(model, [other_than(first), second, other_than(third)])
    assert torch.equal(states[:, start:end], others[:, start:end])
    assert not torch.equal(states[:, :start], others[:, :start])
    assert not torch.equal(states[:, end:], others[:, end:])


@architectures
def test_a_broken_isolation_would_be_noticed(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above, and the gradients, with one segment where there are three."""
    isolated = honing.model.attention.isolated_attention

    def broken(*arguments: Any, segment_lengths: Any = None, **options: Any) -> Any:
        whole = None if segment_lengths is None else (sum(segment_lengths),)
        return isolated(*arguments, segment_lengths=whole, **options)

    monkeypatch.setitem(AttentionInterface._global_mapping, honing.model.attention.NAME, broken)
    model = adapted_model(architecture)
    use_isolated_attention(model)
    first, second = ROWS[:2]
    states = packed_states(model, [first, second])
    others = packed_states(model, [other_than(first), second])
    assert not torch.equal(states[:, len(first.ids) :], others[:, len(first.ids) :])

    monkeypatch.setattr("honing.training.trainer.packing_works", lambda *_: True)
    found = gradient(
        adapted_model(architecture, torch.float64), global_batch_size=8, **LAYOUTS["1 row"]
    )
    assert distance(found, reference_gradient(architecture, torch.float64)) > 1e-3
