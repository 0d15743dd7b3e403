"""What all ways to train have in common: rows in steps, learning rate, base with adapter.

Imported in the peers' environments too, which have none of honing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

STEP_EXAMPLES = 16
LEARNING_RATE = 2e-4

Row = dict[str, Any]


def steps_of(rows: list[Row]) -> list[list[Row]]:
    return [rows[i : i + STEP_EXAMPLES] for i in range(0, len(rows), STEP_EXAMPLES)]


def padding_share(rows: list[Row], micro_batch_size: int, multiple: int = 1) -> float:
    """Of all tokens: a micro-batch is as long as its longest row, rounded up to a multiple."""
    lengths = [len(row["input_ids"]) for row in rows]
    batches = [lengths[i : i + micro_batch_size] for i in range(0, len(rows), micro_batch_size)]
    padded = sum(-(-max(batch) // multiple) * multiple * len(batch) for batch in batches)
    return 1.0 - sum(lengths) / padded


def loaded(folder: Path, dtype: str = "float32") -> Any:
    """The base with the adapter on it, all dropout off; dtype: of the base alone."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=getattr(torch, dtype))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.attn_pdrop = 0.0
    for module in model.modules():
        if isinstance(getattr(module, "attn_dropout", None), torch.nn.Dropout):
            module.attn_dropout.p = 0.0
    return peft.PeftModel.from_pretrained(model, str(folder / "adapter"), is_trainable=True)
