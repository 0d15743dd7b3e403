"""Near-duplicate texts, found without comparing every text with every other.

Two texts are near-equal when the Jaccard similarity of their sets of character n-grams reaches
THRESHOLD. MinHash (Broder 1997, "On the resemblance and containment of documents") turns a set into
a short signature whose share of equal places estimates that similarity; only the low byte of each
place is kept (b-bit MinHash, Li and König 2010). Texts that agree in a whole band of places land in
one bucket (LSH banding: Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4). Members of
a bucket are only candidates: every pair is verified on the n-grams themselves.

The work grows with n log n: a band is one sort, and each member of a bucket is compared with its
nearest few, however large the bucket. Nothing depends on Python's hashes of strings.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice

import numpy as np
import rensa
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]
Pairs = tuple[Ints, Ints]

# Chosen on 11,600 distinct Korean prompts (songys), 28,659 (sae4k) and 7,473 English ones (gsm8k),
# every pair compared. Ends are marked, so a text of L characters has L n-grams: with the marks, the
# 400 most similar pairs of songys share their answer in 39 % of cases, without them in 33 %.
# n = 2 is a little better on Korean, but two unrelated English texts of 1,800 characters then have
# 0.54 in common (n = 3: 0.24). At 0.5 the pairs of songys still read as one question asked twice
# (`결국 헤어졌네.` / `결국 헤어졌어`; 39 % share an answer, as many as higher up), and the largest
# component holds 1.5 % of sae4k; at 0.45 it holds 6.8 %, at 0.4 26 %.
NGRAM_CHARS = 3
THRESHOLD = 0.5

# P(candidate) = 1 - (1 - s^4)^48 at similarity s: 0.955 at 0.5, 0.999 at 0.6, 0.07 at 0.2.
BAND_PLACES = 4  # four bytes: a band is read as one uint32
NUM_BANDS = 48
NUM_PLACES = NUM_BANDS * BAND_PLACES
SEED = 20260101  # of the permutations: decides which of the borderline pairs are missed

# The estimate from 192 places has a standard deviation of 0.036 at 0.5: a pair that it puts 0.1
# below the threshold is not worth an exact comparison.
ESTIMATE_MARGIN = 0.1
NEIGHBOURS = 8  # compared with each member of a bucket, so that a huge bucket costs no square
MAX_CHARS = 4096  # a longer text is compared by its head: the trigrams of long texts are all alike

# An n-gram in more texts than this is the form they are written on (a preamble, a fixed instruction
# in the same column), not what they say: one preamble put before songys' prompts joined all 11,750
# rows, the two instructions of sae4k put before its inputs still joined 7,050 at a share of 0.5. A
# lower share costs twins: at 0.2 gsm8k keeps 90 of 122 rows in pairs, at 0.3 100. Ten templates,
# each a tenth of the rows, are no form.
COMMON_SHARE = 0.3
COMMON_TEXTS = 50  # fewer texts than this make no form
COMMON_SAMPLE = 2048

_ROWS_A_CHUNK = 256  # rensa hands over Python ints: 9 µs a row from small chunks, 30 from large
_PAIRS_A_CHUNK = 65_536
_NOISE = re.compile(r"(?<![\d\W_])[\W_]+|(?<![\W_])[\W_]++(?!\d)")
_BETWEEN_DIGITS = re.compile(r"[\W_]+")  # all that _NOISE leaves


def normalise(text: str) -> str:
    """The text without case, spaces and punctuation: equal results mean the same words.

    Digits stay, and what stands between two digits stays without its spaces: `12 - 7` is neither
    `12 + 7` nor `127`. A text of nothing but signs becomes empty.
    """
    text = _NOISE.sub("", unicodedata.normalize("NFC", text).casefold())
    if text.isalnum():
        return text
    return _BETWEEN_DIGITS.sub(lambda signs: "".join(signs[0].split()) or " ", text)


@lru_cache(maxsize=256)  # pairs come bucket by bucket, so that a text soon comes again
def ngrams(text: str) -> frozenset[str]:
    """The character n-grams of a text with marked ends; those of an empty text are none."""
    marked = f"\x02{text}\x03"
    return frozenset([marked[at : at + NGRAM_CHARS] for at in range(len(text))])


def jaccard(a: str, b: str, common: frozenset[str] = frozenset()) -> float:
    """Shared n-grams over all n-grams of two texts, those in `common` not counted."""
    grams_a, grams_b = ngrams(a), ngrams(b)
    if common:
        grams_a, grams_b = grams_a - common, grams_b - common
    num_shared = len(grams_a & grams_b)
    return num_shared / max(1, len(grams_a) + len(grams_b) - num_shared)


def common_ngrams(texts: Sequence[str], keys: Hashes) -> frozenset[str]:
    """The n-grams of a form that many of the texts are written on.

    `keys`: a hash of each text. Counted on the texts with the smallest keys, so that the sample is
    the same in whatever order the texts come.
    """
    sample = np.argsort(keys, kind="stable")[:COMMON_SAMPLE]
    counts = Counter(chain.from_iterable(ngrams(texts[row]) for row in sample))
    # COMMON_TEXTS of all the texts are so many of the sample.
    floor = max(COMMON_SHARE * len(sample), COMMON_TEXTS * len(sample) / max(1, len(texts)))
    return frozenset(gram for gram, count in counts.items() if count > floor)


def signatures(texts: Sequence[str], common: frozenset[str] = frozenset()) -> tuple[Bytes, Bools]:
    """MinHash signatures, (N, NUM_PLACES) bytes, and which texts have an n-gram to be found by."""
    places = np.empty((len(texts), NUM_PLACES), np.uint8)
    return places, fill_signatures(places, texts, common)


def fill_signatures(
    places: Bytes, texts: Iterable[str], common: frozenset[str] = frozenset()
) -> Bools:
    """As signatures, into an array of the right size, which may lie on disk."""
    has_ngrams = np.empty(len(places), np.bool_)
    codes = np.array([[ord(char) for char in gram] for gram in common], np.uint64).reshape(-1, 3)
    ignored = np.sort(_pack(codes[:, 0], codes[:, 1], codes[:, 2]))
    following = iter(texts)
    for start in range(0, len(places), _ROWS_A_CHUNK):
        chunk = slice(start, start + _ROWS_A_CHUNK)
        grams, lengths = _packed_ngrams(list(islice(following, _ROWS_A_CHUNK)), ignored)
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.uint64)
        digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            _mix(grams), offsets, NUM_PLACES, SEED
        )  # a text without n-grams gets a row too
        values = np.fromiter(chain.from_iterable(digests.to_rows()), np.uint32)
        places[chunk] = values.astype(np.uint8).reshape(-1, NUM_PLACES)
        has_ngrams[chunk] = lengths > 0
    return has_ngrams


def neighbours(places: Bytes, rows: Ints) -> Iterator[Pairs]:
    """Pairs of `rows` that share a bucket, band by band: each row and the few that follow it."""
    for ordered, keys in _buckets(places, rows):
        for step in range(1, NEIGHBOURS + 1):
            same = keys[step:] == keys[:-step]
            if not same.any():
                break
            yield ordered[:-step][same], ordered[step:][same]


def cross_neighbours(places: Bytes, left: Ints, right: Ints) -> Iterator[Pairs]:
    """Pairs (one of `left`, one of `right`) that share a bucket, band by band.

    Each row of `right` meets the few rows of `left` before and behind it in its bucket.
    """
    is_left = np.zeros(len(places), np.bool_)
    is_left[left] = True
    for ordered, keys in _buckets(places, np.concatenate((left, right))):
        left_at = np.flatnonzero(is_left[ordered])
        right_at = np.flatnonzero(~is_left[ordered])
        following = np.searchsorted(left_at, right_at)
        for step in range(-(NEIGHBOURS // 2), NEIGHBOURS // 2):
            there = (following + step >= 0) & (following + step < len(left_at))
            a, b = left_at[(following + step)[there]], right_at[there]
            same = keys[a] == keys[b]
            if same.any():
                yield ordered[a[same]], ordered[b[same]]


def estimates(places: Bytes, a: Ints, b: Ints) -> Floats:
    """Similarity of each pair (a[k], b[k]) as their signatures tell it."""
    agreement = np.empty(len(a))
    for start in range(0, len(a), _PAIRS_A_CHUNK):
        chunk = slice(start, start + _PAIRS_A_CHUNK)
        agreement[chunk] = (places[a[chunk]] == places[b[chunk]]).mean(axis=1)
    by_chance = 1 / 256  # two different places agree in their low byte
    return (agreement - by_chance) / (1 - by_chance)


def _buckets(places: Bytes, rows: Ints) -> Iterator[tuple[Ints, NDArray[np.uint32]]]:
    """For each band, the rows that share their bucket with another, bucket by bucket, and its key.

    Inside a bucket rows that agree in the next band as well stand together.
    """
    bands = places.view(np.uint32)  # (N, NUM_BANDS)
    for band in range(NUM_BANDS):
        keys = bands[rows, band]
        ties = bands[rows, (band + 1) % NUM_BANDS]
        order = np.argsort(keys.astype(np.uint64) << np.uint64(32) | ties, kind="stable")
        keys = keys[order]
        like_next = keys[1:] == keys[:-1]
        shared = np.zeros(len(rows), np.bool_)
        shared[:-1] |= like_next
        shared[1:] |= like_next
        yield rows[order[shared]], keys[shared]


def _packed_ngrams(texts: Sequence[str], ignored: Hashes) -> tuple[Hashes, Ints]:
    """The n-grams of all texts in one array, each packed without loss, and their number a text."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    marked = "".join(f"\x02{text}\x03" for text in texts)
    # surrogatepass: half a surrogate pair, as broken JSON holds it, is a character like any other
    codes = np.frombuffer(marked.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    text_of = np.repeat(np.arange(len(texts)), lengths)
    at = np.arange(len(text_of)) + 2 * text_of  # two marks a text
    grams = _pack(codes[at], codes[at + 1], codes[at + 2])
    if len(ignored):
        kept = ignored[np.searchsorted(ignored, grams).clip(max=len(ignored) - 1)] != grams
        grams, lengths = grams[kept], np.bincount(text_of[kept], minlength=len(texts))
    return grams, lengths


def _pack(first: Hashes, second: Hashes, third: Hashes) -> Hashes:
    """Three code points of at most 21 bits in one number of 64 bits."""
    packed: Hashes = first | second << np.uint64(21) | third << np.uint64(42)
    return packed


def _mix(values: Hashes) -> Hashes:
    """splitmix64's finisher: rensa multiplies and adds only, and packed code points are regular."""
    mixed = values.copy()
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
