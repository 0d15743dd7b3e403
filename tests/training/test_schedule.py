"""Learning rates, step by step."""

from __future__ import annotations

from typing import Any

import pytest

from honing.config import TrainConfig
from honing.training.schedule import learning_rate, num_warmup_steps


def rates(num_steps: int, **settings: Any) -> list[float]:
    train = TrainConfig(learning_rate=1.0, **settings)
    return [learning_rate(step, num_steps, train) for step in range(num_steps)]


@pytest.mark.parametrize(
    ("settings", "num_steps", "expected"),
    [
        ({}, 100, 5),
        ({"warmup_ratio": 0.0}, 100, 0),
        ({"warmup_ratio": 0.1}, 14, 1),
        ({"warmup_ratio": 0.1}, 16, 2),
        ({"warmup_steps": 7}, 100, 7),
        ({"warmup_steps": 0}, 100, 0),
        ({"warmup_steps": 0, "warmup_ratio": 0.5}, 100, 0),
        ({"warmup_steps": 100, "warmup_ratio": 0.0}, 150, 100),
        ({"warmup_steps": 100}, 30, 30),
    ],
)
def test_steps_of_the_warm_up(settings: dict[str, Any], num_steps: int, expected: int) -> None:
    assert num_warmup_steps(TrainConfig(**settings), num_steps) == expected


def test_cosine() -> None:
    found = rates(6, warmup_steps=2, scheduler="cosine")
    root = 0.5**0.5
    assert found == pytest.approx([0.5, 1.0, 1.0, (1 + root) / 2, 0.5, (1 - root) / 2], rel=1e-12)


def test_linear() -> None:
    found = rates(6, warmup_steps=2, scheduler="linear")
    assert found == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25], rel=1e-12)


def test_constant() -> None:
    assert rates(5, warmup_steps=2, scheduler="constant") == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_a_ratio_of_the_steps() -> None:
    found = rates(20, warmup_ratio=0.2, scheduler="constant")
    assert found == [0.25, 0.5, 0.75] + [1.0] * 17


@pytest.mark.parametrize("scheduler", ["cosine", "linear"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 150])
@pytest.mark.parametrize("warmup_steps", [None, 0, 1, 100])
def test_no_step_is_wasted_and_the_peak_is_reached(
    scheduler: str, num_steps: int, warmup_steps: int | None
) -> None:
    found = rates(num_steps, scheduler=scheduler, warmup_steps=warmup_steps)
    assert min(found) > 0.0
    assert max(found) == 1.0
    peak = found.index(1.0)
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)


def test_a_warm_up_as_long_as_the_training_ends_at_the_peak() -> None:
    for scheduler in ("cosine", "linear", "constant"):
        for warmup_steps in (4, 5, 1000):
            found = rates(4, warmup_steps=warmup_steps, scheduler=scheduler)
            assert found == [0.25, 0.5, 0.75, 1.0]


def test_the_first_drafts_schedule() -> None:
    """150 steps, 100 of them warm-up, as its author set it."""
    train = TrainConfig(warmup_steps=100, learning_rate=2e-4)
    assert learning_rate(0, 150, train) == pytest.approx(2e-6, rel=1e-12)
    assert learning_rate(99, 150, train) == 2e-4
    assert learning_rate(125, 150, train) == pytest.approx(1e-4, rel=1e-12)
    assert learning_rate(149, 150, train) == pytest.approx(1.9732e-7, rel=1e-4)
