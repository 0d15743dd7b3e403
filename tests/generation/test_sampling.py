"""Logits → next token, against references written out by hand and transformers' own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from honing.config import GenerateConfig
from honing.generation.sampling import choose, forbid, penalise_repetition

V = 12


def random_logits(rows: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(rows, V, generator=Generator().manual_seed(seed)) * 2


def seeded(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


def probabilities(monkeypatch: pytest.MonkeyPatch, logits: Tensor, **wanted: Any) -> Tensor:
    """What is drawn from, (B, V)."""
    seen: list[Tensor] = []

    def draw(row: Tensor, *_: object, **__: object) -> Tensor:
        seen.append(row)
        return row.argmax(dim=-1, keepdim=True)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "multinomial", draw)
        choose(logits, GenerateConfig(**wanted), seeded(*range(len(logits))))
    return torch.stack(seen)


def by_hand(
    logits: list[float], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> list[float]:
    """Probabilities of one row: temperature, then top-k, then top-p of what that leaves."""
    weights = [math.exp((value - max(logits)) / temperature) for value in logits]
    order = sorted(range(len(logits)), key=lambda place: (-logits[place], place))
    if 0 < top_k < len(logits):
        least = logits[order[top_k - 1]]
        order = [place for place in order if logits[place] >= least]
    total = math.fsum(weights[place] for place in order)
    kept, reached = [], 0.0
    for place in order:
        kept.append(place)
        reached += weights[place] / total
        if reached >= top_p:
            break
    total = math.fsum(weights[place] for place in kept)
    return [weights[place] / total if place in kept else 0.0 for place in range(len(logits))]


def kept(probabilities: Tensor) -> list[set[int]]:
    return [set(row.nonzero().flatten().tolist()) for row in probabilities]


# --- greedy


def test_temperature_zero_takes_the_most_likely_token_whatever_else_is_set() -> None:
    logits = random_logits()
    wanted = GenerateConfig(temperature=0.0, top_k=3, top_p=0.1)
    assert choose(logits, wanted, []).tolist() == [max(range(V), key=r.__getitem__) for r in logits]


# --- what is drawn from


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 3.0])
def test_temperature_divides_the_logits(
    monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    logits = random_logits()
    found = probabilities(monkeypatch, logits, temperature=temperature)
    expected = torch.tensor([by_hand(row, temperature) for row in logits.tolist()])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1e-3, 1e-6, 1e-40, 5e-324])
def test_a_temperature_near_zero_is_greedy_and_not_an_error(temperature: float) -> None:
    logits = random_logits() * 100
    wanted = GenerateConfig(temperature=temperature)
    assert choose(logits, wanted, seeded(1, 2, 3, 4)).tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("top_k", [0, 1, 2, 5, V - 1, V, V + 5])
def test_top_k_keeps_the_most_likely_tokens(monkeypatch: pytest.MonkeyPatch, top_k: int) -> None:
    logits = random_logits()
    found = probabilities(monkeypatch, logits, temperature=1.0, top_k=top_k)
    expected = torch.tensor([by_hand(row, top_k=top_k) for row in logits.tolist()])
    assert kept(found) == kept(expected)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert {len(places) for places in kept(found)} == {min(top_k or V, V)}


def test_top_k_keeps_what_is_as_likely_as_the_last_that_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0, 2.0]])
    found = probabilities(monkeypatch, logits, temperature=1.0, top_k=2)
    assert kept(found) == [{1, 2, 3, 5}]


@pytest.mark.parametrize("top_p", [1e-9, 0.1, 0.35, 0.5, 0.77, 0.9, 0.99, 1.0])
def test_top_p_keeps_the_fewest_tokens_that_reach_it(
    monkeypatch: pytest.MonkeyPatch, top_p: float
) -> None:
    logits = random_logits(rows=16)
    found = probabilities(monkeypatch, logits, temperature=1.0, top_p=top_p)
    expected = torch.tensor([by_hand(row, top_p=top_p) for row in logits.tolist()])
    assert kept(found) == kept(expected)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.3, {2}),
        (0.49, {2}),
        (0.51, {2, 0}),  # the token that crosses 0.51 is kept
        (0.79, {2, 0}),
        (0.81, {2, 0, 3}),
        (0.96, {2, 0, 3, 1}),
        (1.0, {2, 0, 3, 1}),
    ],
)
def test_the_token_that_crosses_top_p_is_kept(
    monkeypatch: pytest.MonkeyPatch, top_p: float, expected: set[int]
) -> None:
    logits = torch.tensor([[0.30, 0.05, 0.50, 0.15]]).log()
    found = probabilities(monkeypatch, logits, temperature=1.0, top_p=top_p)
    assert kept(found) == [expected]


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(0.2, {0}), (0.25, {0}), (0.3, {0, 1}), (0.5, {0, 1}), (0.76, {0, 1, 2, 3})],
)
def test_of_equally_likely_tokens_top_p_keeps_the_lowest_ids(
    monkeypatch: pytest.MonkeyPatch, top_p: float, expected: set[int]
) -> None:
    logits = torch.full((1, 4), 0.7)
    assert kept(probabilities(monkeypatch, logits, temperature=1.0, top_p=top_p)) == [expected]


def test_in_a_large_vocabulary_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a sort that is not stable would mix them."""
    logits = torch.zeros(1, 2048)
    found = kept(probabilities(monkeypatch, logits, temperature=1.0, top_p=0.25))
    assert found == [set(range(512))]


def test_top_p_is_a_share_of_what_temperature_and_top_k_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = random_logits(rows=32, seed=3)
    wanted = {"temperature": 1.7, "top_k": 4, "top_p": 0.8}
    found = probabilities(monkeypatch, logits, **wanted)
    expected = torch.tensor([by_hand(row, 1.7, 4, 0.8) for row in logits.tolist()])
    assert kept(found) == kept(expected)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert kept(found) != kept(probabilities(monkeypatch, logits, temperature=1.7, top_p=0.8))


def test_transformers_draws_from_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = random_logits(rows=32, seed=5)
    theirs = TopPLogitsWarper(top_p=0.6)(None, TopKLogitsWarper(top_k=6)(None, logits / 1.3))
    found = probabilities(monkeypatch, logits, temperature=1.3, top_k=6, top_p=0.6)
    torch.testing.assert_close(found, theirs.softmax(-1), atol=1e-6, rtol=1e-5)


# --- drawing


def test_a_row_is_drawn_from_its_own_generator_alone() -> None:
    logits = random_logits(rows=5, seed=1)
    wanted = GenerateConfig(temperature=1.5)
    together = choose(logits, wanted, seeded(7, 8, 9, 10, 11)).tolist()
    alone = [choose(logits[[row]], wanted, seeded(7 + row)).item() for row in range(5)]
    assert together == alone
    turned = choose(logits.flip(0), wanted, seeded(11, 10, 9, 8, 7)).tolist()
    assert turned == together[::-1]


def test_draws_have_the_frequencies_that_they_should() -> None:
    shares = torch.tensor([0.5, 0.3, 0.2])
    (generator,) = seeded(3)
    number = 10_000
    logits = shares.log().expand(number, 3)
    drawn = choose(logits, GenerateConfig(temperature=1.0), [generator] * number)
    found = torch.bincount(drawn, minlength=3) / number
    assert (found - shares).abs().max() < 0.015  # three standard deviations


# --- the repetition penalty


def test_the_penalty_divides_positive_logits_and_multiplies_negative_ones() -> None:
    logits = torch.tensor([[2.0, -2.0, 0.0, 3.0], [1.0, -1.0, 4.0, -0.5]])
    seen = [[0, 1, 2], [3, 2]]
    found = penalise_repetition(logits, seen, 2.0)
    assert found.tolist() == [[1.0, -4.0, 0.0, 3.0], [1.0, -1.0, 2.0, -1.0]]


def test_a_token_that_stands_often_is_penalised_once() -> None:
    logits = torch.tensor([[3.0, -1.0]])
    seen = [[0, 0, 0, 1, 1]]
    assert penalise_repetition(logits, seen, 1.5).tolist() == [[2.0, -1.5]]


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
def test_transformers_has_the_same_penalty(penalty: float) -> None:
    logits = random_logits(rows=3)
    ids = torch.tensor([[1, 5, 5, 2], [0, 0, 3, 11], [7, 8, 9, 10]])
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    assert torch.equal(penalise_repetition(logits, ids.tolist(), penalty), theirs)


def test_the_given_logits_stay_as_they_are() -> None:
    logits = random_logits()
    before = logits.clone()
    penalise_repetition(logits, [list(range(V))] * 4, 1.7)
    forbid(logits, (0, 1, 2, 3), (0, 1))
    choose(logits, GenerateConfig(temperature=0.5, top_k=2, top_p=0.5), seeded(1, 2, 3, 4))
    assert torch.equal(logits, before)


def test_forbidden_tokens_are_impossible_in_the_rows_that_are_meant() -> None:
    found = forbid(random_logits(), (0, 1, 2, 3), (2, 5))
    assert torch.isinf(found).nonzero()[:, 1].tolist() == [2, 5] * 4
    some = forbid(random_logits(), (1, 3), (2,))
    assert torch.isinf(some).nonzero().tolist() == [[1, 2], [3, 2]]
    assert forbid(random_logits(), (0,), ()).equal(random_logits())
