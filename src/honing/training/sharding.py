"""A base that does not fit one device: the weights of its blocks, divided among the processes."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from honing.errors import UserError
from honing.model.forward import plain_model
from honing.model.load import Model
from honing.training.processes import Processes


def shard_base(model: Model, processes: Processes, device: str) -> Model:
    """Leave each process its part of every block's weights, and move all to the device.

    A block's weights come together while it computes and part again (FSDP2, Zhao et al. 2023), so
    all processes must go through the blocks equally often. Adapters, embeddings and head stay
    whole in each. model: on the CPU, with its adapters attached.
    Raises UserError where transformers does not say what a block of this model is, or torch is too
    old.
    """
    fully_shard = _fully_shard()
    from torch.distributed.device_mesh import init_device_mesh

    plain = plain_model(model)
    names = plain._no_split_modules or ()
    blocks = [module for module in plain.modules() if type(module).__name__ in names]
    if not blocks:
        raise UserError(
            f"train.shard_base: the blocks of models of type {plain.config.model_type} are not "
            "known; use train.shard_base=false"
        )
    adapters = {parameter for parameter in model.parameters() if parameter.requires_grad}
    mesh = init_device_mesh(device, (processes.number,))
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=adapters)
    return model.to(device)


def _fully_shard() -> Any:
    """torch's own, from 2.7 on: before, it could leave no parameter of a block alone.

    Looked for when it is needed: torch is built without it for some small devices.
    """
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        is_there = False
    else:
        is_there = "ignored_params" in inspect.signature(fully_shard).parameters
    if not is_there:
        raise UserError(
            f"train.shard_base: true needs torch 2.7 or newer, and this is {torch.__version__}; "
            "install a newer one, or use train.shard_base=false"
        )
    return fully_shard
