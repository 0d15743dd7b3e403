"""The leak audit: which held-out rows have a twin among the training rows.

It runs over any split, the user's own too. What counts as a twin is what a grouped split keeps
together; groups.py says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from honing.data.compared import Compared, compare
from honing.data.example import Example
from honing.data.groups import (
    Questions,
    SignatureTable,
    pair_similarities,
    questions,
    row_keys,
)
from honing.data.minhash import (
    ESTIMATE_MARGIN,
    THRESHOLD,
    Floats,
    Hashes,
    Ints,
    cross_neighbours,
    estimates,
)

# From the strongest to the weakest.
SAME_PROMPT = "same prompt"
NORMALISED_PROMPT = "same prompt up to case, spaces and punctuation"
NEAR_PROMPT = "near-equal prompt"
SAME_RESPONSE = "same response"
SAME_GROUP = "same group"
KINDS = (SAME_PROMPT, NORMALISED_PROMPT, NEAR_PROMPT, SAME_RESPONSE, SAME_GROUP)


@dataclass(frozen=True)
class Twin:
    """A held-out row and the training row that gives it away.

    `similarity` is the Jaccard similarity of near-equal prompts and 1 for what is equal. The texts
    are the responses where they are what is equal, else the prompts.
    """

    held_out_id: str
    train_id: str
    kind: str
    similarity: float
    held_out_text: str
    train_text: str


@dataclass(frozen=True)
class LeakAudit:
    """`num_rows` held-out rows were looked at; `twins` has the strongest of each, in order."""

    num_rows: int
    twins: tuple[Twin, ...]

    @property
    def num_by_kind(self) -> dict[str, int]:
        """Held-out rows with a twin of each kind that was found, the strongest kind first."""
        counts = Counter(twin.kind for twin in self.twins)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}


def audit_leaks(train: Sequence[Example], held_out: Sequence[Example]) -> LeakAudit:
    """Find for each held-out row its strongest twin among the training rows, if it has one.

    Of several twins of one kind it names the most similar, then the first.
    """
    rows = compare([*train, *held_out])
    return audit_compared(train, held_out, rows, SignatureTable())


def audit_compared(
    train: Sequence[Example], held_out: Sequence[Example], both: Compared, table: SignatureTable
) -> LeakAudit:
    """As audit_leaks, of what is compared of the training rows and then the held-out ones."""
    keys = row_keys(both)
    equalities = {
        SAME_PROMPT: keys.prompts,
        NORMALISED_PROMPT: keys.normalised_prompts,
        SAME_RESPONSE: keys.responses,
        SAME_GROUP: keys.groups,
    }
    twin_of: dict[int, tuple[str, int, float]] = {}  # held-out row → kind, training row, similarity
    for kind in KINDS:
        rows = np.array([row for row in range(len(held_out)) if row not in twin_of], np.int64)
        if kind == NEAR_PROMPT:
            found, similarities = nearest(questions(both), len(train), rows, table)
        else:
            found = first_equal(
                equalities[kind][: len(train)], equalities[kind][len(train) :][rows]
            )
            similarities = np.ones(len(rows))
        hits = zip(rows.tolist(), found.tolist(), similarities.tolist(), strict=True)
        twin_of.update({row: (kind, at, value) for row, at, value in hits if at >= 0})
    twins = (
        _twin(held_out[row], train[at], kind, value)
        for row, (kind, at, value) in sorted(twin_of.items())
    )
    return LeakAudit(len(held_out), tuple(twins))


def _twin(held_out: Example, train: Example, kind: str, similarity: float) -> Twin:
    texts = (
        (held_out.response_text, train.response_text)
        if kind == SAME_RESPONSE
        else (held_out.prompt_text, train.prompt_text)
    )
    return Twin(held_out.id, train.id, kind, similarity, *texts)


def first_equal(train_keys: Hashes, keys: Hashes) -> Ints:
    """For each key the first training row that has it, -1 where none has or where it is 0."""
    values, first = np.unique(train_keys, return_index=True)
    if len(values) == 0:
        return np.full(len(keys), -1)
    at = np.searchsorted(values, keys).clip(max=len(values) - 1)
    return np.where((values[at] == keys) & (keys != 0), first[at], -1)


def nearest(
    questions: Questions, num_train: int, held_out: Ints, table: SignatureTable
) -> tuple[Ints, Floats]:
    """For each held-out row the training row with the nearest prompt, -1 where none is near.

    The first `num_train` of the questions are those of the training rows; `held_out` counts from
    there.
    """
    distinct = np.sort(np.unique(questions.keys[:num_train], return_index=True)[1])
    rows = np.concatenate((distinct, num_train + held_out))
    places, has_ngrams = table.signatures_of(questions, rows)
    left = np.flatnonzero(has_ngrams[: len(distinct)])
    right = len(distinct) + np.flatnonzero(has_ngrams[len(distinct) :])
    found, best = np.full(len(rows), -1), np.zeros(len(rows))
    for a, b in cross_neighbours(places, left, right):  # no b comes twice in one of these batches
        worth = np.maximum(best[b], THRESHOLD) - ESTIMATE_MARGIN
        likely = (estimates(places, a, b) >= worth) & (rows[a] != found[b])
        a, b = rows[a[likely]], b[likely]
        similarities = pair_similarities(questions, a, rows[b])
        closer = (similarities > best[b]) | ((similarities == best[b]) & (a < found[b]))
        found[b[closer]], best[b[closer]] = a[closer], similarities[closer]
    return found[len(distinct) :], best[len(distinct) :]
