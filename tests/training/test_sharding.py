"""A divided base: what it needs. tests/integration/test_several_processes.py divides one."""

from __future__ import annotations

import sys

import pytest
import torch

from honing.errors import UserError
from honing.training.processes import Processes
from honing.training.sharding import shard_base
from tests.tiny import tiny_model


def without_ignored_params(module: object, *, mesh: object = None) -> None:
    """fully_shard as torch 2.6 has it."""
    raise AssertionError("called")


@pytest.mark.parametrize("has_the_older_one", [True, False])
def test_an_older_torch_is_said_in_one_line(
    has_the_older_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_the_older_one:
        monkeypatch.setattr("torch.distributed.fsdp.fully_shard", without_ignored_params)
    else:
        monkeypatch.setitem(sys.modules, "torch.distributed.fsdp", None)
    with pytest.raises(UserError) as caught:
        shard_base(tiny_model("llama"), Processes(number=2), "cpu")
    assert str(caught.value) == (
        f"train.shard_base: true needs torch 2.7 or newer, and this is {torch.__version__}; "
        "install a newer one, or use train.shard_base=false"
    )


def test_blocks_that_nobody_names_are_said() -> None:
    model = tiny_model("llama")
    model._no_split_modules = []
    with pytest.raises(UserError) as caught:
        shard_base(model, Processes(number=2), "cpu")
    assert str(caught.value) == (
        "train.shard_base: the blocks of models of type llama are not known; use "
        "train.shard_base=false"
    )
