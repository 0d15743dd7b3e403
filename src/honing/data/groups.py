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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from honing.data.example import Example
from honing.data.minhash import (
    ESTIMATE_MARGIN,
    MAX_CHARS,
    THRESHOLD,
    Bools,
    Floats,
    Hashes,
    Ints,
    common_ngrams,
    estimates,
    jaccard,
    neighbours,
    normalise,
    signatures,
)

LONG_RESPONSE_CHARS = 20  # as written; a shorter one is a class label or a phrase, and repeats

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

    `keys` hashes subject and context together. `common` holds the n-grams that do not count.
    """

    subjects: tuple[str, ...]
    contexts: tuple[str, ...]
    keys: Hashes
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
    keys = row_keys(examples)
    equal = np.arange(len(examples))
    for same in (keys.prompts, keys.normalised_prompts, keys.responses, keys.groups):
        equal = join_equal(equal, same)
    near = join_near(equal, questions(examples))
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


def row_keys(examples: Sequence[Example]) -> RowKeys:
    """What exact equality compares, a hash of 64 bits each (a false match in a million: 3e-8)."""
    responses = text_keys(
        normalise(example.response_text)
        if len(example.response_text.strip()) >= LONG_RESPONSE_CHARS
        else ""
        for example in examples
    )
    label = is_label(responses)
    return RowKeys(
        prompts=text_keys(example.prompt_text for example in examples),
        normalised_prompts=text_keys(normalise(example.prompt_text) for example in examples),
        responses=np.where(label, np.uint64(0), responses),
        groups=text_keys(example.group or "" for example in examples),
        num_label_rows=int(label.sum()),
    )


def is_label(responses: Hashes) -> Bools:
    """Which rows share a long response with so many others that it is a label."""
    _, inverse, counts = np.unique(responses, return_inverse=True, return_counts=True)
    many = counts[inverse] > max(LABEL_ROWS, LABEL_SHARE * len(responses))
    return np.asarray(many & (responses != 0))


def text_keys(texts: Iterable[str]) -> Hashes:
    """A hash of each text, the same in every process; 0 for an empty one."""
    return np.fromiter((_text_key(text) for text in texts), np.uint64)


def _text_key(text: str) -> int:
    if not text:
        return 0
    encoded = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")


def questions(examples: Sequence[Example]) -> Questions:
    """Subject and context of each row's prompt."""
    parts = [_prompt_parts(example) for example in examples]
    first, second = (text_keys(part[k] for part in parts) for k in (0, 1))
    second_is_subject = (second != 0) & (_num_with_key(second) <= _num_with_key(first))
    subjects = tuple(part[int(k)] for part, k in zip(parts, second_is_subject, strict=True))
    contexts = tuple(part[1 - int(k)] for part, k in zip(parts, second_is_subject, strict=True))
    subject_keys = np.where(second_is_subject, second, first)
    return Questions(
        subjects=subjects,
        contexts=contexts,
        keys=text_keys("\x1f".join(part) if any(part) else "" for part in parts),
        common=common_ngrams(subjects, subject_keys),
    )


def _prompt_parts(example: Example) -> tuple[str, str]:
    """Instruction and input; of a chat all turns and nothing. The system text is left out."""
    if len(example.exchanges) == 1:
        exchange = example.exchanges[0]
        return normalise(exchange.instruction)[:MAX_CHARS], normalise(exchange.input)[:MAX_CHARS]
    turns = [text for e in example.exchanges for text in (e.instruction, e.input, e.output)]
    return normalise("\n".join(turns[:-1]))[:MAX_CHARS], ""


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


def join_near(heads: Ints, questions: Questions) -> Ints:
    """Heads after rows with near-equal prompts were joined."""
    heads = join_equal(heads, questions.keys)
    # Near-equality is looked for among distinct prompts only.
    distinct = np.sort(np.unique(questions.keys, return_index=True)[1])
    texts = [questions.subjects[row] for row in distinct]
    places, has_ngrams = signatures(texts, questions.common)
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
