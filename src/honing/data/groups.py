"""Which rows belong together, so that none is tested on what another one taught.

Rows are joined by equal prompt, by prompt equal up to case, spaces and punctuation, by near-equal
prompt, by equal long response, and by equal `group`.

A prompt is compared in two parts, since a long instruction that many rows share would hide what
they ask: `거실 불 켜줘` and `내일 날씨 알려줘` under one fixed instruction are no twins. The
subject is the part that fewer rows have, instruction or input; the other part is its context.
Prompts are near-equal when both parts are. A number is a word like any other: `12 더하기 7은?` and
`12 더하기 8은?` (similarity 0.40) are two questions, one long story told with other numbers is a
twin (19 pairs of gsm8k are above 0.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np

from honing.data.compared import Compared, compare
from honing.data.example import Example
from honing.data.minhash import (
    ESTIMATE_MARGIN,
    NUM_PLACES,
    THRESHOLD,
    Bools,
    Bytes,
    Floats,
    Hashes,
    Ints,
    common_ngrams,
    estimates,
    fill_signatures,
    jaccard,
    neighbours,
)

# A long response of more rows than this is a label or a stock phrase too (a refusal, a verdict
# written out), and joins nothing.
LABEL_SHARE = 0.05
LABEL_ROWS = 10

# A component above this is cut back: near-equality is no equivalence, and chains of it can grow
# through a whole data set. In a small set a handful of twins is no chain.
CUT_BACK_SHARE = 0.05
CUT_BACK_ROWS = 5


@dataclass(frozen=True)
class RowKeys:
    """For each row a hash of what may equal another row's; 0 where there is nothing to compare."""

    prompts: Hashes
    normalised_prompts: Hashes
    responses: Hashes
    groups: Hashes
    num_label_rows: int


@dataclass(frozen=True)
class Questions:
    """For each row what near-equality compares: normalised, cut to MAX_CHARS.

    `keys` hashes subject and context together, `subject_keys` the subject alone. `common` holds the
    n-grams that do not count.
    """

    subjects: Sequence[str]
    contexts: Sequence[str]
    keys: Hashes
    subject_keys: Hashes
    common: frozenset[str]


@dataclass(frozen=True)
class Groups:
    """`heads` gives each row the first row of its group.

    The counts: components that were cut back, rows in them, rows whose long response is a label.
    """

    heads: Ints
    num_cut_back_components: int
    num_cut_back_rows: int
    num_label_rows: int


def group_rows(examples: Sequence[Example]) -> Groups:
    """The groups that a split must not part."""
    return groups_of(compare(examples), SignatureTable())


def groups_of(rows: Compared, table: SignatureTable) -> Groups:
    """As group_rows, of what is compared of the rows. Their signatures go into the table."""
    keys = row_keys(rows)
    equal = np.arange(len(rows.prompts))
    for same in (keys.prompts, keys.normalised_prompts, keys.responses, keys.groups):
        equal = join_equal(equal, same)
    near = join_near(equal, questions(rows), table)
    cut = too_large(near, equal)
    return Groups(
        heads=np.where(cut, equal, near),
        num_cut_back_components=len(np.unique(near[cut])),
        num_cut_back_rows=int(cut.sum()),
        num_label_rows=keys.num_label_rows,
    )


def too_large(near: Ints, equal: Ints) -> Bools:
    """The rows in components of `near` that must fall back to their groups in `equal`.

    What stays above the limit then (one prompt asked over and over, a `group` that the user gave)
    is kept whole: that is equality, not a chain.
    """
    sizes = np.bincount(near, minlength=len(near))
    limit = max(CUT_BACK_ROWS, CUT_BACK_SHARE * len(near))
    # A component that equality alone holds together has nothing to cut.
    return np.asarray((sizes[near] > limit) & np.isin(near, near[near != equal]))


def row_keys(rows: Compared) -> RowKeys:
    """What exact equality compares, where long responses that are labels join nothing."""
    label = is_label(rows.responses)
    return RowKeys(
        prompts=rows.prompts,
        normalised_prompts=rows.normalised_prompts,
        responses=np.where(label, np.uint64(0), rows.responses),
        groups=rows.groups,
        num_label_rows=int(label.sum()),
    )


def is_label(responses: Hashes) -> Bools:
    """Which rows share a long response with so many others that it is a label."""
    _, inverse, counts = np.unique(responses, return_inverse=True, return_counts=True)
    many = counts[inverse] > max(LABEL_ROWS, LABEL_SHARE * len(responses))
    return np.asarray(many & (responses != 0))


def questions(rows: Compared) -> Questions:
    """Subject and context of each row's prompt."""
    first, second = rows.first, rows.second
    second_is_subject = (second != 0) & (_num_with_key(second) <= _num_with_key(first))
    subjects = _Either(rows.first_texts, rows.second_texts, second_is_subject)
    subject_keys = np.where(second_is_subject, second, first)
    return Questions(
        subjects=subjects,
        contexts=_Either(rows.second_texts, rows.first_texts, second_is_subject),
        keys=rows.both,
        subject_keys=subject_keys,
        common=common_ngrams(subjects, subject_keys),
    )


class _Either(Sequence[str]):
    """For each row one of two texts."""

    def __init__(self, usual: Sequence[str], other: Sequence[str], is_other: Bools) -> None:
        self._usual, self._other, self._is_other = usual, other, is_other

    def __len__(self) -> int:
        return len(self._usual)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...
    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        if isinstance(row, slice):
            return [self[place] for place in range(len(self))[row]]
        return (self._other if self._is_other[row] else self._usual)[row]


def _num_with_key(keys: Hashes) -> Ints:
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse])


def similarity(questions: Questions, a: int, b: int) -> float:
    """Jaccard similarity of two rows' subjects; 0 where they, or the contexts, are not near."""
    found = jaccard(questions.subjects[a], questions.subjects[b], questions.common)
    if found < THRESHOLD:
        return 0.0
    same_context = questions.contexts[a] == questions.contexts[b]
    if same_context or jaccard(questions.contexts[a], questions.contexts[b]) >= THRESHOLD:
        return found
    return 0.0


class SignatureTable:
    """Signatures of distinct subjects, kept from the split for the audit, which needs them again.

    folder: where they lie; None keeps them in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._common: frozenset[str] | None = None
        self._keys: Hashes = np.empty(0, np.uint64)  # ascending
        self._places: Bytes | Path = np.empty((0, NUM_PLACES), np.uint8)
        self._has_ngrams: Bools = np.empty(0, np.bool_)

    def signatures_of(self, questions: Questions, rows: Ints) -> tuple[Bytes, Bools]:
        """As minhash.signatures, of the subjects of some rows."""
        keys = questions.subject_keys[rows]
        if self._common != questions.common or not np.isin(keys, self._keys).all():
            self._make(questions, rows)
        at = np.searchsorted(self._keys, keys)
        places = self._places
        if isinstance(places, Path):
            # Mapped for this line alone: what is mapped and touched counts as memory.
            return _mapped(places, len(self._keys), "r")[at], self._has_ngrams[at]
        return places[at], self._has_ngrams[at]

    def _make(self, questions: Questions, rows: Ints) -> None:
        self._keys, first = np.unique(questions.subject_keys[rows], return_index=True)
        self._common = questions.common
        subjects = (questions.subjects[row] for row in rows[first].tolist())
        if self._folder is None:
            places = self._places = np.empty((len(first), NUM_PLACES), np.uint8)
        else:
            self._places = self._folder / "signatures"
            places = _mapped(self._places, len(first), "w+")
        self._has_ngrams = fill_signatures(places, subjects, self._common)


def _mapped(path: Path, num_rows: int, mode: Literal["r", "w+"]) -> Bytes:
    return np.memmap(path, np.uint8, mode, shape=(num_rows, NUM_PLACES))


def join_near(heads: Ints, questions: Questions, table: SignatureTable) -> Ints:
    """Heads after rows with near-equal prompts were joined."""
    heads = join_equal(heads, questions.keys)
    # Near-equality is looked for among distinct prompts only.
    distinct = np.sort(np.unique(questions.keys, return_index=True)[1])
    places, has_ngrams = table.signatures_of(questions, distinct)
    for i, j in neighbours(places, np.flatnonzero(has_ngrams)):
        apart = heads[distinct[i]] != heads[distinct[j]]
        i, j = i[apart], j[apart]
        likely = estimates(places, i, j) >= THRESHOLD - ESTIMATE_MARGIN
        a, b = distinct[i[likely]], distinct[j[likely]]
        near = pair_similarities(questions, a, b) > 0
        heads = join(heads, a[near], b[near])
    return heads


def pair_similarities(questions: Questions, a: Ints, b: Ints) -> Floats:
    """`similarity` of each pair (a[k], b[k])."""
    pairs = zip(a.tolist(), b.tolist(), strict=True)
    return np.fromiter((similarity(questions, i, j) for i, j in pairs), np.float64, len(a))


def join_equal(heads: Ints, keys: Hashes) -> Ints:
    """Heads after rows with an equal key, other than 0, were joined."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    same = (keys[1:] == keys[:-1]) & (keys[1:] != 0)
    return join(heads, order[:-1][same], order[1:][same])


def join(heads: Ints, a: Ints, b: Ints) -> Ints:
    """Heads after each a[k] and b[k] were joined: a component is named by its first row.

    Union-find without a loop over rows: every root hooks onto the smallest root it is linked to,
    then all paths are cut short, until no link is left between two components.
    """
    apart = heads[a] != heads[b]
    while apart.any():
        a, b = a[apart], b[apart]
        low, high = np.minimum(heads[a], heads[b]), np.maximum(heads[a], heads[b])
        heads = heads.copy()
        np.minimum.at(heads, high, low)
        while not np.array_equal(heads, shorter := heads[heads]):
            heads = shorter
        apart = heads[a] != heads[b]
    return heads
