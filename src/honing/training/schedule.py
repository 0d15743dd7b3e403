"""Step → learning rate."""

from __future__ import annotations

import math

from honing.config import TrainConfig


def num_warmup_steps(train: TrainConfig, num_steps: int) -> int:
    """Steps of the warm-up: warmup_steps where given, else a share of all steps."""
    steps = train.warmup_steps
    if steps is None:
        steps = round(train.warmup_ratio * num_steps)
    return min(steps, num_steps)


def learning_rate(step: int, num_steps: int, train: TrainConfig) -> float:
    """Learning rate of a step, which counts from 0.

    Linear warm-up whose first step is already above zero (peers waste it at a rate of 0), then a
    half cosine or a straight line that would reach zero one step after the last, or a constant.
    """
    warmup = num_warmup_steps(train, num_steps)
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    if train.scheduler == "cosine":
        return train.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
    if train.scheduler == "linear":
        return train.learning_rate * (1.0 - progress)
    return train.learning_rate
