"""RMSNorm equals the libraries', and its gradient finite differences."""

from __future__ import annotations

import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from honing.model.norm import rms_norm


def test_rms_norm_of_two_families() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 5, 16), torch.randn(16)
    llama, gemma = LlamaRMSNorm(16, 1e-5), GemmaRMSNorm(16, 1e-5)
    for norm in (llama, gemma):
        norm.weight.data.copy_(weight)
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), llama(x))
    torch.testing.assert_close(rms_norm(x, 1.0 + weight, 1e-5), gemma(x))


def test_gradient_of_rms_norm() -> None:
    torch.manual_seed(1)
    x = torch.randn(3, 2, 8, dtype=torch.float64, requires_grad=True)
    factor = torch.randn(8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, factor, 1e-3), (x,))


def test_rms_norm_in_bfloat16_rounds_once() -> None:
    torch.manual_seed(3)
    x, upstream = (torch.randn(4, 5, 64).bfloat16() for _ in range(2))
    factor = torch.randn(64).bfloat16()
    narrow, wide = x.clone().requires_grad_(), x.float().requires_grad_()
    found, exact = rms_norm(narrow, factor, 1e-5), rms_norm(wide, factor.float(), 1e-5)
    assert torch.equal(found, exact.bfloat16())
    (gradient,) = torch.autograd.grad(found, narrow, upstream)
    (expected,) = torch.autograd.grad(exact, wide, upstream.float())
    assert torch.equal(gradient, expected.bfloat16())
