"""The summed loss of supervised tokens equals torch's over all logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Gemma2Config, Gemma2ForCausalLM

import honing.training.loss
from honing.data.encode import IGNORE
from honing.model.forward import head_of
from honing.training.loss import response_loss

H, V = 8, 50


def random_batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, nn.Linear]:
    """Hidden states (3, 7, H), labels of which 9 count, and a frozen head."""
    torch.manual_seed(0)
    hidden = torch.randn(3, 7, H).to(dtype).requires_grad_()
    labels = torch.randint(0, V, (3, 7))
    labels[:, 0] = IGNORE
    labels[0, :4] = IGNORE  # learns at 4, 5, 6
    labels[1, 1:] = IGNORE  # learns nothing
    head = nn.Linear(H, V).to(dtype).requires_grad_(False)
    return hidden, labels, head


def reference(hidden: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
    logits = head(hidden)[:, :-1].reshape(-1, V)
    return cross_entropy(logits, labels[:, 1:].reshape(-1), ignore_index=-100, reduction="sum")


@pytest.mark.parametrize("chunk_tokens", [1, 3, 9, 512])
def test_sum_and_gradient_equal_torchs(chunk_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honing.training.loss, "CHUNK_TOKENS", chunk_tokens)
    hidden, labels, head = random_batch()
    expected = reference(hidden, labels, head)
    (expected_gradient,) = torch.autograd.grad(expected * 0.25, hidden)
    sum_nats, num_tokens = response_loss(hidden, labels, head)
    assert num_tokens == 9
    assert sum_nats.dtype == torch.float64
    assert sum_nats.item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(sum_nats * 0.25, hidden)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk_tokens", [3, 512])
def test_logits_exist_only_at_supervised_positions(
    chunk_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(honing.training.loss, "CHUNK_TOKENS", chunk_tokens)
    hidden, labels, head = random_batch()
    seen: list[Tensor] = []

    def watched(states: Tensor) -> Tensor:
        seen.append(states.detach().clone())
        logits: Tensor = head(states)
        return logits

    sum_nats, _ = response_loss(hidden, labels, watched)
    torch.autograd.backward(sum_nats)  # and none are computed again on the way back
    assert [len(states) for states in seen] == ([9] if chunk_tokens == 512 else [3, 3, 3])
    # The state that predicts a token is that of the token before it.
    where = [(0, 3), (0, 4), (0, 5)] + [(2, t) for t in range(6)]
    expected = torch.stack([hidden.detach()[b, t] for b, t in where])
    assert torch.equal(torch.cat(seen), expected)


def test_nothing_supervised() -> None:
    hidden, labels, head = random_batch()
    sum_nats, num_tokens = response_loss(hidden, torch.full_like(labels, IGNORE), head)
    assert (sum_nats.item(), num_tokens) == (0.0, 0)
    torch.autograd.backward(sum_nats)
    assert torch.equal(hidden.grad, torch.zeros_like(hidden))  # type: ignore[arg-type]


def test_the_first_label_of_a_row_is_never_learnt() -> None:
    """Nothing predicts it. In a packed row every example's first label is IGNORE anyway."""
    hidden, labels, head = random_batch()
    with_first = labels.clone()
    with_first[:, 0] = 1
    expected, num = response_loss(hidden, labels, head)
    found, same_num = response_loss(hidden, with_first, head)
    assert torch.equal(found, expected)
    assert same_num == num


def test_without_gradients_nothing_is_kept_for_a_way_back() -> None:
    hidden, labels, head = random_batch()
    with torch.no_grad():
        sum_nats, num_tokens = response_loss(hidden, labels, head)
    assert not sum_nats.requires_grad
    assert num_tokens == 9
    assert sum_nats.item() == pytest.approx(reference(hidden, labels, head).item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_losses_of_a_16_bit_head_are_summed_in_float32(dtype: torch.dtype) -> None:
    hidden, labels, head = random_batch(dtype)
    sum_nats, _ = response_loss(hidden, labels, head)
    assert sum_nats.dtype == torch.float32
    logits = head(hidden)[:, :-1].reshape(-1, V).float()
    expected = cross_entropy(logits, labels[:, 1:].reshape(-1), reduction="sum")
    assert sum_nats.item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(sum_nats, hidden)
    assert gradient.dtype == dtype


def test_head_with_squashed_logits() -> None:
    """Gemma 2: the loss is that of the model's own logits."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=V,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.5,
        initializer_range=0.5,
        pad_token_id=0,
    )
    model = Gemma2ForCausalLM(config).double().eval().requires_grad_(False)
    ids = torch.randint(1, V, (2, 9))
    labels = ids.clone()
    labels[:, :4] = IGNORE
    hidden = model.model(input_ids=ids).last_hidden_state.requires_grad_()
    sum_nats, num_tokens = response_loss(hidden, labels, head_of(model))
    own = model(input_ids=ids).logits[:, :-1].reshape(-1, V)
    expected = cross_entropy(own, labels[:, 1:].reshape(-1), ignore_index=-100, reduction="sum")
    assert num_tokens == 10
    assert sum_nats.item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(sum_nats, hidden)
    squashed = torch.tanh(model.lm_head(hidden) / 0.5)[:, :-1].reshape(-1, V) * 0.5
    plain = cross_entropy(squashed, labels[:, 1:].reshape(-1), ignore_index=-100, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(plain, hidden)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)
