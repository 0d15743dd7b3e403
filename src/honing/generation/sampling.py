"""Logits → next token. Pure functions over (B, V) logits; each row has a generator of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from honing.config import GenerateConfig


def penalise_repetition(logits: Tensor, seen: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Make tokens less likely that stand in prompt or answer (Keskar et al. 2019, CTRL).

    logits: (B, V). seen: for each row the ids that it holds, without padding: libraries that look
    at the padded batch punish the padding token too, which is the end-of-text token of GPT-2.
    """
    longest = max(len(ids) for ids in seen)
    # Filled up with an id of the row's own, which is penalised once however often it stands there.
    filled = [[*ids, *[ids[0]] * (longest - len(ids))] for ids in seen]
    places = torch.tensor(filled, device=logits.device)
    values = logits.gather(1, places)
    return logits.scatter(1, places, torch.where(values > 0, values / penalty, values * penalty))


def forbid(logits: Tensor, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
    """Make tokens impossible in some rows."""
    logits = logits.clone()
    logits[torch.tensor(rows)[:, None], list(ids)] = -torch.inf
    return logits


def choose(logits: Tensor, settings: GenerateConfig, generators: Sequence[Generator]) -> Tensor:
    """(B,) next tokens: the most likely ones at temperature 0, else drawn.

    Each row is drawn from its own generator, so that an answer depends on its seed and not on
    the rows beside it.
    """
    if settings.temperature == 0.0:
        return logits.argmax(dim=-1)
    # The best token to 0 first: a low temperature must not make it infinite.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / max(settings.temperature, 1e-6)
    logits = _keep_top_p(_keep_top_k(logits, settings.top_k), settings.top_p)
    # On the CPU, where generators live; the rows' probabilities are small.
    probabilities = torch.softmax(logits, dim=-1).cpu()
    drawn = [
        torch.multinomial(row, 1, generator=generator)
        for row, generator in zip(probabilities, generators, strict=True)
    ]
    return torch.cat(drawn).to(logits.device)


def _keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """The top_k most likely tokens, and those that are as likely as the last of them."""
    if top_k == 0 or top_k >= logits.shape[-1]:
        return logits
    lowest_kept = logits.topk(top_k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < lowest_kept, -torch.inf)


def _keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Nucleus (Holtzman et al. 2020): the fewest most likely tokens that together reach top_p.

    Of equally likely ones the lower id comes first.
    """
    if top_p >= 1.0:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = torch.softmax(ordered, dim=-1)
    reached_before = probabilities.cumsum(dim=-1) - probabilities >= top_p
    dropped = torch.zeros_like(reached_before).scatter(-1, order, reached_before)
    return logits.masked_fill(dropped, -torch.inf)
