"""Floors: what answers score that no model made. A tuned model should lie above all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
from scipy import sparse

from honing.evaluation.overlap import overlap_metrics
from honing.evaluation.segmentation import Segmenter, nfc

GRAM_ORDERS = (2, 3, 4)
"""Lengths in characters of the n-grams by which prompts are compared."""

_BUCKET_BITS = 21
"""N-grams are counted in so many hash buckets: memory that does not grow with the rows."""

_BLOCK_CHARACTERS = 200_000
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_DECIMALS = 5
"""Similarities that agree in so many are equal: the sums of float32 differ in the seventh."""


def copy_floor(inputs: Sequence[str]) -> list[str]:
    """The row's input as its answer; the caller gives the instruction of a row without one."""
    return list(inputs)


def random_other_floor(references: Sequence[str], seed: int) -> list[str]:
    """For each row the reference of another one, all used once; none where there is one row."""
    if len(references) < 2:
        return []
    order = list(range(len(references)))
    Random(seed).shuffle(order)
    answers = [""] * len(references)
    for row, other in zip(order, [*order[1:], order[0]], strict=True):
        answers[row] = references[other]
    return answers


def nearest_row_floor(
    prompts: Sequence[str], train_prompts: Sequence[str], train_responses: Sequence[str]
) -> list[str]:
    """For each prompt the response of the training row with the nearest prompt: looking it up.

    Nearest by the cosine of TF-IDF over characters' 2- to 4-grams, with idf = ln((1 + rows) /
    (1 + rows that have it)) + 1 over the training rows; of equally near rows the first. No
    answers where there are no training rows.
    """
    if len(train_prompts) != len(train_responses):
        raise ValueError(f"{len(train_prompts)} prompts and {len(train_responses)} responses")
    if not train_prompts:
        return []
    weights = _inverse_frequencies(train_prompts)
    questions = _weighted(_gram_counts(prompts), weights)
    nearest = np.zeros(len(prompts), np.int64)
    most = np.full(len(prompts), -1.0)
    for start, block in _blocks(train_prompts):
        similarity = (questions @ _weighted(_gram_counts(block), weights).T).toarray()
        similarity = similarity.round(_DECIMALS)
        best = similarity.argmax(axis=1)
        value = similarity[np.arange(len(prompts)), best]
        nearest = np.where(value > most, start + best, nearest)
        most = np.maximum(value, most)
    return [train_responses[row] for row in nearest.tolist()]


def floor_scores(
    references: Sequence[str], floors: Mapping[str, Sequence[str]], segmenter: Segmenter
) -> dict[str, dict[str, float]]:
    """Name of a floor → name of a metric → what the floor's answers score; none of no answers."""
    return {
        name: {
            metric.name: metric.value
            for metric in overlap_metrics(references, predictions, segmenter)
        }
        for name, predictions in floors.items()
        if predictions
    }


def _blocks(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """(number of the first, texts) in pieces of about _BLOCK_CHARACTERS, at least one text."""
    start, size = 0, 0
    for place, text in enumerate(texts):
        if size and size + len(text) > _BLOCK_CHARACTERS:
            yield start, texts[start:place]
            start, size = place, 0
        size += len(text)
    yield start, texts[start:]


def _inverse_frequencies(texts: Sequence[str]) -> Any:
    """(buckets,) idf of each bucket, float32."""
    frequency = np.zeros(1 << _BUCKET_BITS, np.int64)
    for _, block in _blocks(texts):
        frequency += np.bincount(_gram_counts(block).indices, minlength=len(frequency))
    return (math.log(1 + len(texts)) - np.log1p(frequency) + 1.0).astype(np.float32)


def _gram_counts(texts: Sequence[str]) -> Any:
    """(texts, buckets) how often each n-gram stands in each text, as a sparse matrix."""
    plain = [f" {' '.join(nfc(text).casefold().split())} " for text in texts]
    lengths = [len(text) for text in plain]
    characters = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), np.uint32)
    rows = np.repeat(np.arange(len(plain), dtype=np.int32), lengths)
    all_rows, all_buckets = [], []
    for order in GRAM_ORDERS:
        hashes = np.full(max(0, len(rows) - order + 1), order, np.uint64)
        for place in range(order):
            hashes = hashes * _MULTIPLIER + characters[place : place + len(hashes)]
            hashes ^= hashes >> np.uint64(32)
        whole = rows[: len(hashes)] == rows[order - 1 :]
        all_rows.append(rows[: len(hashes)][whole])
        all_buckets.append((hashes * _MULTIPLIER)[whole] >> np.uint64(64 - _BUCKET_BITS))
    places = (np.concatenate(all_rows), np.concatenate(all_buckets).astype(np.int32))
    ones = np.ones(len(places[0]), np.float32)
    return sparse.coo_array((ones, places), (len(plain), 1 << _BUCKET_BITS)).tocsr()


def _weighted(counts: Any, weights: Any) -> Any:
    """Counts times idf, each row of length 1; a row without n-grams stays 0."""
    counts.data *= weights[counts.indices]
    lengths = np.sqrt(counts.multiply(counts).sum(axis=1))
    counts.data /= np.repeat(lengths, np.diff(counts.indptr))
    return counts
