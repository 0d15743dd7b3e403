"""The adapter: which layers, attach, load, count, and whether it learns at all. Through PEFT."""

from __future__ import annotations

import copy
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from honing.config import LoraConfig
from honing.errors import CheckFailed, UserError
from honing.model.adapter_settings import Unfit, adapter_settings
from honing.model.forward import plain_model
from honing.model.four_bit import num_values
from honing.model.load import Model

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class ParameterCount:
    """Trainable parameters, and all of them, tied ones counted once."""

    trainable: int
    total: int

    def __str__(self) -> str:
        share = 100 * self.trainable / self.total
        return f"{self.trainable:,} of {self.total:,} parameters ({share:.2f} %)"


def layers_to_adapt(model: Model) -> list[str]:
    """Names for `target_modules: auto`: every Linear and Conv1D inside the blocks.

    GPT-2's layers are Conv1D, which a search for Linear alone misses. Short names where they mean
    the same layers, so that the adapter's configuration stays readable.
    """
    blocks_name, blocks = _blocks(model)
    inside = [name for name, module in blocks.named_modules() if _is_adaptable(module)]
    short = sorted({name.rsplit(".", 1)[-1] for name in inside})
    everywhere = {name for name, module in model.named_modules() if _is_adaptable(module)}
    full = {f"{blocks_name}.{name}" for name in inside}
    if any(name.rsplit(".", 1)[-1] in short for name in everywhere - full):
        return sorted(full)
    return short


def _is_adaptable(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _blocks(model: Model) -> tuple[str, nn.ModuleList]:
    """The list of transformer blocks: the module list with the most parameters in it."""
    lists = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    if not lists:
        raise UserError(
            "lora.target_modules: auto finds no blocks in this model; name the layers to adapt"
        )
    return max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))


def attach_lora(model: Model, config: LoraConfig, seed: int) -> Model:
    """The model with fresh adapters in float32; their start is a function of the seed.

    Raises UserError where no layer has one of the names in lora.target_modules, or one of them
    names the output layer.
    """
    auto = config.target_modules == "auto"
    targets = layers_to_adapt(model) if auto else list(config.target_modules)
    modules = dict(model.named_modules())
    missing = [t for t in targets if not any(_matches(name, t) for name in modules)]
    if missing or not targets:
        raise UserError(
            f"lora.target_modules: no layer is named {', '.join(missing) or '(nothing)'}; "
            f"this model has {', '.join(layers_to_adapt(model))}"
        )
    named = [m for name, m in modules.items() if any(_matches(name, t) for t in targets)]
    _refuse_output_layer(model, targets)
    if config.init == "olora" and any(isinstance(module, Conv1D) for module in named):
        raise UserError(
            "lora.init: olora, but PEFT computes it wrongly for the Conv1D layers of this model; "
            "use lora.init=pissa, or default"
        )
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        init_lora_weights=True if config.init == "default" else config.init,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in named),
    )
    torch.manual_seed(seed)
    try:
        adapted = _with_adapters(model, settings)
    except (ValueError, NotImplementedError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"lora: PEFT cannot adapt this model so ({reason})") from None
    if config.init in _TAKEN_FROM_THE_BASE:
        adapted.honing_start = {
            name: tensor.detach().clone() for name, tensor in adapter_weights(adapted).items()
        }
    return adapted


def _refuse_output_layer(model: Model, targets: Sequence[str]) -> None:
    """The loss takes the output layer's weight as it is, a piece of the rows at a time."""
    head = plain_model(model).get_output_embeddings()
    names = [name for name, module in model.named_modules() if module is head]
    found = [t for t in targets if any(_matches(name, t) for name in names)]
    if found:
        raise UserError(
            f"lora.target_modules: {', '.join(found)} names the model's output layer "
            f"({', '.join(names)}), to which honing fits no adapter; take it out of the list, or "
            "use lora.target_modules=auto"
        )


_TAKEN_FROM_THE_BASE = frozenset({"pissa", "olora"})
"""Initialisations that take the adapter's start out of the base's weights: see adapter_to_save."""


def _with_adapters(model: Model, settings: Any) -> Model:
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 by a name that will be gone in version 6.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")  # PEFT sets it for each layer
        # Folding and merging give such a layer a weight of its own: see untie_adapted.
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True` and a tied layer")
        return peft.get_peft_model(model, settings)


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def load_adapter(model: Model, folder: Path) -> Model:
    """The model with an adapter from a folder in PEFT's format, ours or PEFT's own.

    Raises UserError where the adapter's tensors are not exactly those that this model takes.
    """
    if not (folder / ADAPTER_WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
        raise UserError(
            f"{folder}: keeps its weights in adapter_model.bin, a format that can run code when it "
            f"is read; save them as {ADAPTER_WEIGHTS}"
        )
    try:
        weights = load_file(folder / ADAPTER_WEIGHTS)
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        settings = adapter_settings(folder / ADAPTER_CONFIG, shapes)
    except Unfit as error:
        raise UserError(f"{folder}: {error}") from None
    # Both raise what their parsers raise.
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{folder}: holds no adapter that can be read ({reason})") from None
    try:
        adapted = _with_adapters(model, settings)
    # A file made by hand can hold anything.
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{folder}: this adapter does not fit the base model ({reason})") from None
    set_adapter_weights(adapted, weights, str(folder))
    return adapted


def set_adapter_weights(model: Model, weights: Mapping[str, Tensor], where: str) -> None:
    """Write an adapter's tensors into a model that has that adapter's shape."""
    expected = adapter_weights(model)
    wrong = sorted(set(expected) ^ set(weights)) or sorted(
        name for name, tensor in weights.items() if tensor.shape != expected[name].shape
    )
    if wrong:
        raise UserError(
            f"{where}: this adapter does not fit the base model: {len(wrong)} of "
            f"{len(expected)} tensors differ, the first is {wrong[0]}; is it for another base?"
        )
    with warnings.catch_warnings():
        # PEFT warns of every base weight that an adapter file does not hold, as it should not.
        warnings.simplefilter("ignore")
        peft.set_peft_model_state_dict(model, dict(weights))


def adapter_weights(model: Model) -> dict[str, Tensor]:
    """The adapter's tensors under the names that PEFT writes."""
    weights: dict[str, Tensor] = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    return weights


def adapter_to_save(model: Model) -> tuple[Any, dict[str, Tensor]]:
    """PEFT's configuration and tensors of an adapter that fits the base as it was published.

    PiSSA and OLoRA take the adapter's start B₀·A₀ out of the base's weights, so B·A alone would
    fit no base. What was learnt is B·A - B₀·A₀ = [B, -B₀]·[A; A₀]: an adapter of twice the rank.
    """
    settings = copy.copy(model.peft_config[model.active_adapter])
    settings.inference_mode = True  # as PEFT writes it: whoever loads the file does not train it
    weights = adapter_weights(model)
    start: dict[str, Tensor] | None = getattr(model, "honing_start", None)
    if start is None:
        return settings, weights
    settings.init_lora_weights = True
    settings.r *= 2
    settings.lora_alpha *= math.sqrt(2) if settings.use_rslora else 2
    for name, tensor in weights.items():
        if _is_first(name):
            weights[name] = torch.cat([tensor, start[name]], dim=0)
        elif _is_second(name):
            weights[name] = torch.cat([tensor, -start[name]], dim=1)
    return settings, weights


def _is_first(name: str) -> bool:
    """A of the product B·A: (rank, in), of an embedding (rank, tokens)."""
    return "lora_A" in name or "lora_embedding_A" in name


def _is_second(name: str) -> bool:
    """B of the product B·A: (out, rank)."""
    return "lora_B" in name or "lora_embedding_B" in name


def restore_adapter(model: Model, saved: Mapping[str, Tensor], where: str) -> None:
    """Write what adapter_to_save gave back into a model to which attach_lora gave the same start.

    Raises UserError where the tensors are not exactly those that this model takes.
    """
    weights = dict(saved)
    if hasattr(model, "honing_start"):
        rank = model.peft_config[model.active_adapter].r
        for name, tensor in saved.items():
            if _is_first(name):
                weights[name] = tensor[:rank]
            elif _is_second(name):
                weights[name] = tensor[:, :rank]
    set_adapter_weights(model, weights, where)


def untie_adapted(model: Model) -> None:
    """Give an adapted layer that shares its weight a weight of its own, before it is merged.

    Unmerged, an adapter on the input embedding leaves the output layer alone, or the other way
    round; merged into the weight that both share, it would not.
    """
    causal_model = plain_model(model)
    holders = Counter(
        id(parameter)
        for module in causal_model.modules()
        for parameter in module.parameters(recurse=False)
    )
    for layer in (module for module in causal_model.modules() if isinstance(module, LoraLayer)):
        base = layer.get_base_layer()
        weight = base.weight
        if holders[id(weight)] > 1:
            holders[id(weight)] -= 1
            base.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            for config in (causal_model.config, causal_model.config.get_text_config()):
                config.tie_word_embeddings = False


def trainable_parameters(model: Model) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def count_parameters(model: Model) -> ParameterCount:
    parameters = list(model.parameters())
    return ParameterCount(
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        total=sum(num_values(p) for p in parameters),
    )


def check_adapters_learn(model: Model) -> None:
    """After the first backward pass: every lora_B has a gradient that is not zero.

    lora_B starts at zero and lora_A does not (of an embedding it is the other way round), so a
    zero gradient means that the layer is cut off from the loss, as gradient checkpointing has done
    to users of other tools (peft#1142).
    """
    dead = [name for name, gradient in _first_gradients(model) if gradient is None or not gradient]
    if dead:
        total = sum(1 for _ in _first_gradients(model))
        raise CheckFailed(
            f"after the first step {len(dead)} of {total} adapters have no gradient and would "
            f"never learn, the first is {dead[0]}; please report this with your configuration"
        )


def _first_gradients(model: Model) -> Iterator[tuple[str, float | None]]:
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:
            gradient = parameter.grad
            yield name, None if gradient is None else float(gradient.abs().max())
