"""Each `auto` of the training: what is chosen, and the reason that is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from honing.config import Config, LoraConfig
from honing.config_file import load_config
from honing.errors import UserError
from honing.model.lora import attach_lora
from honing.model.plan import Plan, activation_bytes, plan_training
from tests.tiny import tiny_model

GB = 10**9


def plan(*overrides: str, **machine: Any) -> Plan:
    found = {
        "device": "cpu",
        "dtype": "float32",
        "packing_works": True,
        "packed_row_tokens": 512,
        "memory_bytes": 8 * GB,
    }
    return plan_training(load_config(None, overrides), tiny_model("llama"), **{**found, **machine})


def chosen(result: Plan) -> tuple[Any, Any, Any]:
    train = result.config.train
    return train.packing, train.micro_batch_size, train.gradient_checkpointing


def test_the_defaults_on_a_model_that_can_be_packed() -> None:
    result = plan()
    assert chosen(result) == (True, 16, False)
    assert result.reasons == (
        "packing: on, examples lie end to end",
        "micro_batch_size: 16",
        "gradient_checkpointing: off, activations take about 0.0 of 8 GB",
    )
    assert (result.config.device, result.config.model.dtype) == ("cpu", "float32")


def test_the_defaults_on_a_model_that_cannot() -> None:
    result = plan(packing_works=False)
    assert chosen(result) == (False, 2, False)
    assert result.reasons == (
        "packing: off, this architecture cannot keep the examples of a row apart",
        "micro_batch_size: 2",
        "gradient_checkpointing: off, activations take about 0.0 of 8 GB",
    )


@pytest.mark.parametrize(
    ("max_length", "global_batch_size", "micro_batch_size"),
    [(128, 16, 8), (128, 4, 4), (1024, 16, 1), (4096, 16, 1), (600, 16, 1), (512, 1, 1)],
)
def test_a_padded_micro_batch_has_about_1024_tokens(
    max_length: int, global_batch_size: int, micro_batch_size: int
) -> None:
    asked = (f"data.max_length={max_length}", f"train.global_batch_size={global_batch_size}")
    assert chosen(plan(*asked, packing_works=False))[1] == micro_batch_size
    assert chosen(plan(*asked))[1] == global_batch_size


def test_what_the_user_set_is_kept_and_not_explained() -> None:
    asked = (
        "train.packing=false",
        "train.micro_batch_size=3",
        "train.gradient_checkpointing=true",
    )
    result = plan(*asked, device="cuda", dtype="bfloat16")
    assert chosen(result) == (False, 3, True)
    assert result.reasons == ()
    given = load_config(None, [*asked, "model.dtype=bfloat16", "train.packed_row_tokens=512"])
    assert result.config == given.model_copy(update={"device": "cuda"})
    assert chosen(plan("train.packing=true")) == (True, 16, False)


def test_packing_that_was_asked_for_and_does_not_work_is_an_error() -> None:
    with pytest.raises(UserError) as caught:
        plan("train.packing=true", packing_works=False)
    assert str(caught.value) == (
        "train.packing: true, but on this base a packed row does not have the loss of its "
        "examples alone; set train.packing=auto"
    )


def test_activations_are_counted_by_hand() -> None:
    # Two blocks, each 10 vectors of 32 and 2.5 of the inner 64, four bytes a number.
    assert activation_bytes(tiny_model("llama"), 100) == 2 * (10 * 32 + 160) * 100 * 4
    as_it_stands = activation_bytes(tiny_model("llama"), 100, fast_forms=False)
    assert as_it_stands == 2 * (12 * 32 + 4 * 64) * 100 * 4
    other = tiny_model("llama")
    other.config.hidden_act = "relu"
    assert activation_bytes(other, 100) == as_it_stands
    with_lora = attach_lora(tiny_model("llama"), LoraConfig(), seed=1)
    assert activation_bytes(with_lora, 100) == 2 * (10 * 32 + 160) * 100 * 4
    with_dora = attach_lora(tiny_model("llama"), LoraConfig(use_dora=True), seed=1)
    assert activation_bytes(with_dora, 100) == 2 * (30 * 32 + 8 * 64) * 100 * 4
    # GPT-2 leaves n_inner unsaid: four times its width.
    assert activation_bytes(tiny_model("gpt2"), 1) == 2 * (12 * 32 + 4 * 128) * 4
    narrow = tiny_model("gpt2", torch.bfloat16)
    assert activation_bytes(narrow, 1) == 2 * (12 * 32 + 4 * 128) * 2
    assert activation_bytes(narrow, 1, fast_forms=False) == 2 * (12 * 32 + 4 * 128) * 4


def test_activations_are_recomputed_above_half_the_memory() -> None:
    """At max_length 512: no row may be shorter than the longest example."""
    row = activation_bytes(tiny_model("llama"), 512)
    assert chosen(plan(memory_bytes=2 * row))[2] is False
    assert chosen(plan(memory_bytes=2 * row - 1))[2] is True
    # Packed, a row counts and not the micro-batch; padded, all examples at the longest length.
    assert chosen(plan("train.micro_batch_size=4", memory_bytes=2 * row))[2] is False
    padded = ("train.packing=false", "train.micro_batch_size=4")
    assert chosen(plan(*padded, memory_bytes=8 * row))[2] is False
    assert chosen(plan(*padded, memory_bytes=8 * row - 1))[2] is True
    long = ("data.max_length=5000000",)
    assert plan(*long, packed_row_tokens=5_000_000, memory_bytes=20 * GB).reasons[-1] == (
        "gradient_checkpointing: on, activations take about 19.2 of 20 GB"
    )


@pytest.mark.parametrize(
    ("max_length", "halves_that_fit", "row_tokens", "recomputes"),
    [
        (64, 1, 512, False),
        (64, 2, 256, False),
        (256, 2, 256, False),
        (257, 2, 512, True),
        (64, 4, 512, True),
    ],
)
def test_rows_are_shortened_before_anything_is_computed_again(
    max_length: int, halves_that_fit: int, row_tokens: int, recomputes: bool
) -> None:
    room = activation_bytes(tiny_model("llama"), 512 // halves_that_fit)
    asked = (f"data.max_length={max_length}",)
    train = plan(*asked, memory_bytes=2 * room).config.train
    assert (train.packed_row_tokens, train.gradient_checkpointing) == (row_tokens, recomputes)
    # What the user decides is not decided again.
    train = plan(*asked, "train.gradient_checkpointing=true", memory_bytes=2 * room).config.train
    assert (train.packed_row_tokens, train.gradient_checkpointing) == (512, True)
    train = plan(*asked, "train.packed_row_tokens=300", memory_bytes=2 * room).config.train
    assert (train.packed_row_tokens, train.gradient_checkpointing) == (300, halves_that_fit > 1)


def test_shorter_rows_are_said() -> None:
    room = activation_bytes(tiny_model("llama"), 256)
    assert plan("data.max_length=64", memory_bytes=2 * room).reasons == (
        "packing: on, examples lie end to end",
        "micro_batch_size: 16",
        "packed_row_tokens: 256, 512 would not fit",
        "gradient_checkpointing: off, activations take about 0.0 of 0.00197 GB",
    )


def test_no_auto_is_left_and_a_second_plan_changes_nothing() -> None:
    first = plan().config
    again = plan_training(
        first,
        tiny_model("llama"),
        device="cpu",
        dtype="float32",
        packing_works=True,
        packed_row_tokens=512,
        memory_bytes=1,
    )
    assert isinstance(first, Config)
    assert again == Plan(first, ())


def test_a_limit_of_memory_decides_what_is_computed_again() -> None:
    model = tiny_model("llama")
    free = plan("train.memory_limit=0.47")
    assert free.config.train.gradient_checkpointing is False
    assert free.reasons[-1].endswith("of 0.47 GB")
    narrow = plan("train.memory_limit=0.452")
    assert narrow.config.train.gradient_checkpointing is True
    needed = 1.8 * activation_bytes(model, 512)
    weights = 4 * sum(p.numel() for p in model.parameters())
    assert 450_000_000 + weights + needed == pytest.approx(0.453695232e9, rel=1e-9)
