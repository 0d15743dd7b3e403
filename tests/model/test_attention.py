"""Isolated attention against transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from honing.model.attention import NAME, isolated_attention, no_mask
from honing.model.forward import hidden_states
from tests.tiny import ARCHITECTURES, tiny_model

LENGTHS = (5, 1, 12, 9)
POSITIONS = torch.tensor([[p for n in LENGTHS for p in range(n)]])
T = sum(LENGTHS)


class Layer(nn.Module):
    is_causal = True
    num_key_value_groups = 1


def layer(groups: int) -> nn.Module:
    module = Layer()
    module.num_key_value_groups = groups
    return module.eval()


def random_heads(num_heads: int, num_kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(heads: int) -> Tensor:
        return torch.randn(1, heads, T, 8, generator=generator, dtype=torch.float64)

    return draw(num_heads), draw(num_kv_heads), draw(num_kv_heads)


def library_mask(window: int | None) -> Tensor:
    """transformers' mask for a packed row, which it makes from positions that start again."""
    config = tiny_model("gemma").config
    config.sliding_window = window
    make = create_sliding_window_causal_mask if window else create_causal_mask
    mask = make(
        config=config,
        inputs_embeds=torch.zeros(1, T, 32, dtype=torch.float64),
        attention_mask=None,
        past_key_values=None,
        position_ids=POSITIONS,
    )
    assert isinstance(mask, Tensor)
    return mask


def test_the_librarys_mask_is_one_block_an_example() -> None:
    mask, start = library_mask(None)[0, 0].clone(), 0
    for n in LENGTHS:
        block = mask[start : start + n, start : start + n]
        assert torch.equal(block, torch.ones(n, n).tril().bool())
        block.fill_(False)
        start += n
    assert not bool(mask.any())


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 1, 3, 9, 40])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_segments_equal_the_packed_mask(
    groups: int, window: int | None, scaling: float | None
) -> None:
    query, key, value = random_heads(4, 4 // groups)
    module = layer(groups)
    expected, _ = sdpa_attention_forward(
        module, query, key, value, library_mask(window), scaling=scaling
    )
    found, weights = isolated_attention(
        module,
        query,
        key,
        value,
        None,
        segment_lengths=LENGTHS,
        sliding_window=window,
        scaling=scaling,
        dropout=0.0,
    )
    assert weights is None
    assert found.shape == (1, T, 4, 8)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_in_bfloat16_on_a_cpu_the_way_back_is_as_exact_as_torchs(groups: int) -> None:
    """Beside the same numbers in float64: no further away than torch's own bfloat16."""
    narrow = [t.bfloat16().requires_grad_() for t in random_heads(4, 4 // groups)]
    wide = [t.detach().double().requires_grad_() for t in narrow]
    upstream = random_heads(4, 4)[0].transpose(1, 2).bfloat16()

    def results(inputs: list[Tensor], upstream: Tensor) -> list[Tensor]:
        query, key, value = inputs
        found, _ = isolated_attention(
            layer(groups), query, key, value, None, segment_lengths=LENGTHS
        )
        return [found, *torch.autograd.grad(found, inputs, upstream)]

    exact = results(wide, upstream.double())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("honing.model.attention._has_flash", lambda device: False)
        torchs = results(narrow, upstream)
    found = results(narrow, upstream)
    assert found[0].grad_fn is not None
    assert torch.equal(found[0], torchs[0])
    for own, theirs, expected in zip(found[1:], torchs[1:], exact[1:], strict=True):
        assert own.dtype == torch.bfloat16
        assert (own - expected).norm() < 1.05 * (theirs - expected).norm()
        assert (own - expected).norm() < 3 * 2.0**-9 * expected.norm()


@pytest.mark.parametrize("window", [None, 3])
def test_without_lengths_it_is_the_librarys(window: int | None) -> None:
    query, key, value = random_heads(4, 2)
    module, mask = layer(2), library_mask(window)
    expected, _ = sdpa_attention_forward(
        module, query, key, value, mask, scaling=0.4, sliding_window=window
    )
    found, _ = isolated_attention(
        module, query, key, value, mask, scaling=0.4, sliding_window=window
    )
    assert torch.equal(found, expected)


def test_without_lengths_and_mask_it_is_causal() -> None:
    query, key, value = random_heads(4, 4)
    expected, _ = sdpa_attention_forward(layer(1), query, key, value, None)
    found, _ = isolated_attention(layer(1), query, key, value, None)
    assert torch.equal(found, expected)
    alone, _ = isolated_attention(layer(1), query[:, :, :3], key[:, :, :3], value[:, :, :3], None)
    torch.testing.assert_close(found[:, :3], alone)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_packed_row_equals_the_librarys_in_a_whole_model(architecture: str) -> None:
    model = tiny_model(architecture, torch.float64)
    ids = torch.randint(0, 320, (1, T), generator=torch.Generator().manual_seed(2))
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        expected = hidden_states(model, ids, POSITIONS, None, None)
        model.set_attn_implementation(NAME)
        found = hidden_states(model, ids, POSITIONS, None, LENGTHS)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_mask_is_built_for_a_packed_row(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A (T, T) mask would be most of what long rows cost."""
    built: list[Tensor | None] = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def watch(*arguments: Any, **options: Any) -> Tensor:
        built.append(options.get("attn_mask"))
        return plain(*arguments, **options)

    monkeypatch.setattr("honing.model.attention.scaled_dot_product_attention", watch)
    monkeypatch.setattr(
        "honing.model.attention.sdpa_mask", lambda *_, **__: pytest.fail("a mask was built")
    )
    model = tiny_model(architecture)
    model.set_attn_implementation(NAME)
    with torch.no_grad():
        hidden_states(model, torch.zeros(1, T, dtype=torch.int64), POSITIONS, None, LENGTHS)
    assert len(built) == 2 * len(LENGTHS)
    windows = [mask for mask in built if mask is not None]
    # Gemma's sliding layer, for the two examples that are longer than its window of 8.
    assert len(windows) == (2 if architecture == "gemma" else 0)


def test_no_mask_ends_with_its_block_even_after_an_error() -> None:
    model = tiny_model("llama")
    model.set_attn_implementation(NAME)
    ids = torch.arange(12).view(2, 6)
    mask = torch.tensor([[1] * 6, [1] * 3 + [0] * 3])
    before = model(input_ids=ids, attention_mask=mask).logits
    with pytest.raises(ZeroDivisionError), no_mask():
        raise ZeroDivisionError
    assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, before)


# Gemma 2 squashes its scores, which neither the library's fast function nor torch's can do.


def gemma2() -> Any:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=64,
        sliding_window=4,
        initializer_range=0.5,
        attn_logit_softcapping=1.0,
        final_logit_softcapping=3.0,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return Gemma2ForCausalLM(config).eval()


def test_softcap_in_a_packed_row_and_in_padded_ones_equals_the_librarys() -> None:
    model = gemma2()
    assert model.config._attn_implementation == "eager"
    ids = torch.randint(0, 320, (1, T), generator=torch.Generator().manual_seed(2))
    rows = ids.view(3, 9)
    mask = torch.tensor([[1] * 9, [1] * 7 + [0] * 2, [1] * 2 + [0] * 7])
    positions = torch.arange(9).expand(3, 9)
    with torch.no_grad():
        packed = hidden_states(model, ids, POSITIONS, None, None)
        padded = hidden_states(model, rows, positions, mask, None)
        whole = hidden_states(model, rows, positions, torch.ones_like(mask), None)
        model.set_attn_implementation(NAME)
        found = [
            hidden_states(model, ids, POSITIONS, None, LENGTHS),
            hidden_states(model, rows, positions, mask, None)[mask.bool()],
            hidden_states(model, rows, positions, torch.ones_like(mask), None),
        ]
    for a, b in zip(found, [packed, padded[mask.bool()], whole], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    # The cap does something here.
    model.config.attn_logit_softcapping = None
    for decoder_layer in model.model.layers:
        decoder_layer.self_attn.attn_logit_softcapping = None
    with torch.no_grad():
        uncapped = hidden_states(model, ids, POSITIONS, None, LENGTHS)
    assert float((uncapped - packed).norm() / packed.norm()) > 0.05


def test_softcap_without_a_mask_is_causal_and_the_last_query_sees_every_key() -> None:
    query, key, value = random_heads(4, 2)
    options: Any = {"softcap": 2.0, "scaling": 0.3}
    causal = torch.ones(T, T, dtype=torch.bool).tril()[None, None]
    masked, _ = isolated_attention(layer(2), query, key, value, causal, **options)
    whole, _ = isolated_attention(layer(2), query, key, value, None, **options)
    assert torch.equal(whole, masked)
    last, _ = isolated_attention(layer(2), query[:, :, -2:], key, value, None, **options)
    torch.testing.assert_close(last, whole[:, -2:])


def test_softcap_while_generating_with_a_cache() -> None:
    model = gemma2()
    ids = torch.tensor([[5, 9, 3, 7, 11, 4]])
    options = {"max_new_tokens": 8, "do_sample": False}
    expected = model.generate(ids, **options)
    model.set_attn_implementation(NAME)
    assert torch.equal(model.generate(ids, **options), expected)


def turned(x: Tensor) -> Tensor:
    """The same numbers, the last dimension not side by side in memory."""
    return x.transpose(2, 3).contiguous().transpose(2, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "values of another size", "turned"])
def test_gradients_where_heads_share_keys(dtype: torch.dtype, groups: int, kind: str) -> None:
    """Also where torch's fast functions would fail, or read other numbers than they were given."""
    query, key, value = (x.to(dtype) for x in random_heads(4, 4 // groups))
    if kind == "values of another size":
        value = value[..., :6].contiguous()
    if kind == "turned":
        query, key, value = map(turned, (query, key, value))
    inputs = [x.detach().requires_grad_() for x in (query, key, value)]
    query, key, value = inputs
    found, _ = isolated_attention(layer(groups), query, key, value, None, segment_lengths=LENGTHS)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    query, key, value = exact
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) / 8**0.5
    weights = scores.masked_fill(~library_mask(None), float("-inf")).softmax(-1)
    expected = (weights @ value).transpose(1, 2)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    gradients = torch.autograd.grad(found, inputs, upstream)
    of_exact = torch.autograd.grad(expected, exact, upstream.double())
    most = 2.0**-6 if dtype == torch.bfloat16 else 1e-6
    for one, other in zip((found, *gradients), (expected, *of_exact), strict=True):
        assert float(((one.double() - other).norm() / other.norm()).detach()) < most
