"""MinHash candidates against all pairs compared one by one; normalising; joining into groups."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest

from honing.data.compared import text_keys
from honing.data.groups import join, join_equal
from honing.data.minhash import (
    ESTIMATE_MARGIN,
    NEIGHBOURS,
    NUM_BANDS,
    NUM_PLACES,
    THRESHOLD,
    common_ngrams,
    cross_neighbours,
    estimates,
    jaccard,
    neighbours,
    ngrams,
    normalise,
    signatures,
)

NO_NGRAMS: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "helloworld"),
        ("이불 밖은\n위험해...", "이불밖은위험해"),
        ("STRASSE straße", "strassestrasse"),
        ("\u1100\u1161\u11a8 각", "각각"),  # NFD Hangul
        ("snake_case", "snakecase"),
        ("3박 4일", "3박4일"),
        ("12 - 7은?", "12-7은"),
        ("12 + 7", "12+7"),
        ("1  2", "1 2"),
        ("1,000원!", "1,000원"),
        ("?!...", ""),
        ("", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected
    assert normalise(expected) == expected


def test_ngrams_have_marked_ends_and_short_texts_have_some() -> None:
    assert ngrams("가나다라") == {"\x02가나", "가나다", "나다라", "다라\x03"}
    assert ngrams("가나") == {"\x02가나", "가나\x03"}
    assert ngrams("가") == {"\x02가\x03"}
    assert ngrams("") == NO_NGRAMS


def test_jaccard_is_exact() -> None:
    # 10 and 12 n-grams, 8 of them shared
    assert jaccard("3박4일놀러가고싶다", "3박4일정도놀러가고싶다") == 8 / 14
    assert jaccard("가", "나") == 0
    assert jaccard("가나", "가나") == 1
    assert jaccard("", "") == 0
    assert jaccard("가나", "가다", common=frozenset(["\x02가나"])) == 0


def sentences(num: int, seed: int = 0) -> list[str]:
    """Texts of few words, and after them twins of some: one word put in, taken out or changed."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("가나다라마바사아자차카타파하", k=3)) for _ in range(60)]
    texts = ["".join(rng.choices(words, k=rng.randint(2, 12))) for _ in range(num // 2)]
    for text in texts[: num - len(texts)]:
        at, change = rng.randrange(len(text)), rng.randrange(3)
        texts.append(text[:at] + rng.choice(words) * (change < 2) + text[at + 2 * (change > 0) :])
    return texts


def near_pairs(texts: list[str]) -> dict[tuple[int, int], float]:
    """Every pair compared: those that reach the threshold."""
    found = {(i, j): jaccard(texts[i], texts[j]) for i, j in combinations(range(len(texts)), 2)}
    return {pair: similarity for pair, similarity in found.items() if similarity >= THRESHOLD}


def test_candidates_have_nearly_all_near_pairs_and_verification_leaves_no_other() -> None:
    texts = sentences(600)
    expected = near_pairs(texts)
    places, has_ngrams = signatures(texts)
    assert has_ngrams.all()
    found: set[tuple[int, int]] = set()
    num_candidates = 0
    for a, b in neighbours(places, np.arange(len(texts))):
        num_candidates += len(a)
        found |= {
            (min(i, j), max(i, j))
            for i, j in zip(a.tolist(), b.tolist(), strict=True)
            if jaccard(texts[i], texts[j]) >= THRESHOLD
        }
    assert len(expected) > 200
    assert found <= set(expected)
    assert len(found) >= 0.95 * len(expected)
    at_threshold = {pair for pair in expected if expected[pair] < 0.6}
    assert len(found & at_threshold) >= 0.95 * len(at_threshold) > 20
    assert num_candidates < 0.2 * len(texts) ** 2 / 2


def test_cross_candidates_pair_left_with_right_only() -> None:
    texts = sentences(600, seed=1)
    left, right = np.arange(0, 300), np.arange(300, 600)
    places, _ = signatures(texts)
    found: set[tuple[int, int]] = set()
    for a, b in cross_neighbours(places, left, right):
        assert a.max() < 300 <= b.min()
        assert len(np.unique(b)) == len(b)
        found |= set(zip(a.tolist(), b.tolist(), strict=True))
    expected = {(i, j) for i, j in near_pairs(texts) if i < 300 <= j}
    assert len(expected) > 100
    assert len(found & expected) >= 0.95 * len(expected)


def test_estimates_are_close_to_the_exact_similarity() -> None:
    texts = sentences(600)
    exact = near_pairs(texts)
    pairs = np.array(list(exact))
    places, _ = signatures(texts)
    off = estimates(places, pairs[:, 0], pairs[:, 1]) - np.array(list(exact.values()))
    assert abs(off.mean()) < 0.005
    assert off.std() < 0.04
    assert (off > -ESTIMATE_MARGIN).mean() > 0.99


def test_a_huge_bucket_costs_no_square() -> None:
    texts = ["똑같은질문입니다"] * 1000
    places, _ = signatures(texts)
    num_pairs = sum(len(a) for a, _ in neighbours(places, np.arange(1000)))
    assert num_pairs == NUM_BANDS * sum(1000 - step for step in range(1, NEIGHBOURS + 1))
    left, right = np.arange(500), np.arange(500, 1000)
    assert sum(len(a) for a, _ in cross_neighbours(places, left, right)) <= NUM_BANDS * 500 * 8


def test_signatures_do_not_depend_on_what_stands_beside_a_text() -> None:
    texts = sentences(600)
    whole, _ = signatures(texts)
    assert whole.shape == (600, NUM_PLACES)
    reversed_, _ = signatures(texts[::-1])
    assert np.array_equal(whole, reversed_[::-1])


def test_signatures_and_keys_are_the_same_in_every_process_and_version() -> None:
    # Another value here means other borderline pairs, hence other splits: say so in the changelog.
    assert signatures(["가나다라"])[0][0, :8].tolist() == [96, 75, 193, 7, 220, 183, 14, 214]
    assert text_keys(["가나다", "", "a"]).tolist() == [17012595535781052296, 0, 3405396810240292928]


def test_texts_without_ngrams_are_marked() -> None:
    _, has_ngrams = signatures(["", "가", "\ud800"])
    assert has_ngrams.tolist() == [False, True, True]
    _, has_ngrams = signatures(["가나", "다라"], common=frozenset(["\x02가나", "가나\x03"]))
    assert has_ngrams.tolist() == [False, True]
    places, has_ngrams = signatures([])
    assert places.shape == (0, NUM_PLACES)
    assert list(neighbours(places, np.flatnonzero(has_ngrams))) == []


def test_common_ngrams_are_those_of_the_form() -> None:
    texts = sentences(200)
    assert common_ngrams(texts, text_keys(texts)) == NO_NGRAMS
    form = [f"다음물음에답하라{text}" for text in texts]
    keys = text_keys(form)
    assert common_ngrams(form, keys) == ngrams("다음물음에답하라") - {"하라\x03"}
    order = np.random.default_rng(0).permutation(len(form))
    shuffled = [form[row] for row in order]
    assert common_ngrams(shuffled, keys[order]) == common_ngrams(form, keys)
    assert common_ngrams(form[:50], keys[:50]) == NO_NGRAMS  # too few to be a form


def test_join_names_a_component_by_its_first_row() -> None:
    rows = np.arange(8)
    heads = join(rows, np.array([6, 4, 2, 7]), np.array([4, 2, 3, 1]))
    assert heads.tolist() == [0, 1, 2, 2, 2, 5, 2, 1]
    assert rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert join(heads, np.array([1]), np.array([6])).tolist() == [0, 1, 1, 1, 1, 5, 1, 1]


def test_join_agrees_with_a_search_through_the_graph() -> None:
    rng = np.random.default_rng(0)
    for num_links in (10, 100, 190, 400):
        a, b = rng.integers(0, 200, (2, num_links))
        expected = np.arange(200)
        for _ in range(200):
            for i, j in zip(a, b, strict=True):
                expected[i] = expected[j] = min(expected[i], expected[j])
        assert np.array_equal(join(np.arange(200), a, b), expected)


def test_join_equal_skips_rows_without_a_key() -> None:
    keys = np.array([5, 0, 7, 5, 0, 5], np.uint64)
    assert join_equal(np.arange(6), keys).tolist() == [0, 1, 2, 0, 4, 0]
    assert join_equal(np.arange(0), keys[:0]).tolist() == []
