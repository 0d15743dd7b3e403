"""Overlap of answers with references: BLEU, chrF, chrF++ and ROUGE, counted by the tools that
define them.

sacrebleu and rouge_score count each row; what is written here is only how sums of these counts
become scores, for many resamples at once. Both are imported when something is counted, so that a
stored evaluation is summed again with numpy alone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from honing.errors import UserError
from honing.evaluation.metric import Floats, Metric, Score, ratio
from honing.evaluation.segmentation import (
    Segmenter,
    bleu_counter,
    choose_segmenter,
    nfc,
    one_line,
)

BLEU_ORDER = 4
ROUGE_ORDERS = {"rouge1": 1, "rouge2": 2, "rougeL": 1}
"""Tokens that a reference needs before the metric can give anything but 0."""

FEW_LONG_REFERENCES = 0.1
"""Below this share of references with four tokens, resamples turn up in which nothing has a
4-gram; the BLEU of such a one is 0 whatever it holds."""

_SELF_TEST_TOKENS = 256
"""rouge_score's table for the longest common subsequence is quadratic, and in Python."""

_EFFECTIVE_BLEU = "bleu (effective order)"


# --- sums → scores


def bleu_score(sums: Floats, *, effective_order: bool = False) -> Floats:
    """(..., 10) → (...) BLEU from 0 to 100 with exponential smoothing, as sacrebleu computes it.

    sums: length of the answers and of the references in tokens, matched n-grams of order 1 to 4,
    n-grams of the answers of order 1 to 4. effective_order: only the orders that occur count.
    Papineni et al. 2002; smoothing 3 of Chen and Cherry 2014.
    """
    answer_length, reference_length = sums[..., 0], sums[..., 1]
    matched, total = sums[..., 2 : 2 + BLEU_ORDER], sums[..., 2 + BLEU_ORDER :]
    occurs = total > 0
    missed = occurs & (matched == 0)
    halved = np.where(missed, 0.5 ** missed.cumsum(axis=-1), matched)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_precisions = np.where(
            occurs, np.log(halved / total), 0.0 if effective_order else -np.inf
        )
        num_orders = occurs.sum(axis=-1) if effective_order else BLEU_ORDER
        log_mean = log_precisions.sum(axis=-1) / num_orders
        brevity = np.minimum(0.0, 1.0 - reference_length / answer_length)
        score = 100.0 * np.exp(log_mean + brevity)
    return np.asarray(np.where(matched.any(axis=-1), score, 0.0))


def chrf_score(sums: Floats) -> Floats:
    """(..., 3 m) → (...) chrF2 from 0 to 100 over m orders of n-grams, as sacrebleu computes it.

    sums: for each order the n-grams of the answers, of the references, and the matched ones.
    Precision and recall are means over the orders that both sides have. Popović 2015, 2017.
    """
    orders = sums.reshape(*sums.shape[:-1], -1, 3)
    answers, references, matched = orders[..., 0], orders[..., 1], orders[..., 2]
    occurs = (answers > 0) & (references > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(occurs, matched / answers, 0.0).sum(axis=-1) / occurs.sum(axis=-1)
        recall = np.where(occurs, matched / references, 0.0).sum(axis=-1) / occurs.sum(axis=-1)
        score = 100.0 * 5.0 * precision * recall / (4.0 * precision + recall)
    return np.asarray(np.where(matched.any(axis=-1), score, 0.0))


OVERLAP_SCORES: Mapping[str, Score] = {
    "bleu": bleu_score,
    _EFFECTIVE_BLEU: functools.partial(bleu_score, effective_order=True),
    "chrf": chrf_score,
    "chrf++": chrf_score,
    **dict.fromkeys(ROUGE_ORDERS, ratio),
}
"""Name of a metric → its score, for statistics that come from a file."""


# --- texts → counts


def overlap_metrics(
    references: Sequence[str], predictions: Sequence[str], segmenter: Segmenter | None = None
) -> list[Metric]:
    """bleu, chrf, chrf++, rouge1, rouge2 and rougeL, all from 0 to 100.

    segmenter: None chooses one by the references. ROUGE is a mean over the references that have an
    n-gram of its order (one token has no bigram, an emoji no token), and is left out where none
    has; overlap_notes says how many. Where hardly a reference has four tokens, "bleu" is "bleu
    (effective order)". Raises ValueError where there are no rows, or not as many answers as
    references.
    """
    return _overlap_metrics(references, predictions, segmenter, None)


def _overlap_metrics(
    references: Sequence[str],
    predictions: Sequence[str],
    segmenter: Segmenter | None,
    most_tokens: int | None,
) -> list[Metric]:
    if len(references) != len(predictions) or not references:
        raise ValueError(f"{len(references)} references and {len(predictions)} predictions")
    segmenter = segmenter or choose_segmenter(references)
    pairs = [
        (one_line(reference), one_line(prediction))
        for reference, prediction in zip(references, predictions, strict=True)
    ]
    effective = _needs_effective_order([reference for reference, _ in pairs], segmenter)
    bleu = bleu_counter(segmenter.sacrebleu_tokenizer, effective)
    return [
        _sacrebleu_metric(_EFFECTIVE_BLEU if effective else "bleu", bleu, pairs),
        _sacrebleu_metric("chrf", _chrf(0), pairs),
        _sacrebleu_metric("chrf++", _chrf(2), pairs),
        *_rouge_metrics(pairs, segmenter, most_tokens),
    ]


def sentence_chrf(reference: str, prediction: str) -> float:
    """chrF2 of one answer, 0 to 100: what samples are ranked by."""
    return float(_chrf(0).sentence_score(nfc(prediction), [nfc(reference)]).score)


@functools.cache
def _chrf(word_order: int) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=word_order)


def _sacrebleu_metric(name: str, counter: Any, pairs: Sequence[tuple[str, str]]) -> Metric:
    references, predictions = zip(*pairs, strict=True)
    statistics = counter._extract_corpus_statistics(predictions, [references])
    return Metric(
        name=name,
        signature=str(counter.get_signature()),
        better="higher",
        unit="0–100",
        statistics=np.array(statistics, np.float64),
        score=OVERLAP_SCORES[name],
    )


def _needs_effective_order(references: Sequence[str], segmenter: Segmenter) -> bool:
    """Whether hardly a reference has the four tokens without which BLEU is 0 for equal texts."""
    tokenizer = bleu_counter(segmenter.sacrebleu_tokenizer).tokenizer
    long = sum(len(tokenizer(text.rstrip()).split()) >= BLEU_ORDER for text in references)
    return long < FEW_LONG_REFERENCES * len(references)


class _AlreadySplit:
    """Stands where RougeScorer wants a tokenizer: BLEU and ROUGE split each text only once."""

    def tokenize(self, tokens: list[str]) -> list[str]:
        return tokens


def _rouge_metrics(
    pairs: Sequence[tuple[str, str]], segmenter: Segmenter, most_tokens: int | None
) -> list[Metric]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE_ORDERS), tokenizer=_AlreadySplit())
    statistics: dict[str, list[tuple[float, float]]] = {name: [] for name in ROUGE_ORDERS}
    for reference, prediction in pairs:
        wanted = segmenter.split(reference)[:most_tokens]
        scores = scorer.score(wanted, segmenter.split(prediction)[:most_tokens])
        for name, order in ROUGE_ORDERS.items():
            counts = len(wanted) >= order
            statistics[name].append((100.0 * scores[name].fmeasure * counts, float(counts)))
    tool = f"rouge-score:{version('rouge-score')}|tok:{segmenter.signature}|case:lc|stem:no"
    return [
        Metric(
            name=name,
            signature=f"{tool}|mean of F1 over references with {order} or more tokens",
            better="higher",
            unit="0–100",
            statistics=np.array(statistics[name], np.float64),
            score=OVERLAP_SCORES[name],
        )
        for name, order in ROUGE_ORDERS.items()
        if any(counts for _, counts in statistics[name])
    ]


# --- what the references allow


def overlap_notes(references: Sequence[str], segmenter: Segmenter) -> tuple[str, ...]:
    """What a reader of these metrics has to know about the rows; nothing for usual ones."""
    notes = [] if segmenter.note is None else [segmenter.note]
    lines = [one_line(reference) for reference in references]
    lengths = [len(segmenter.split(line)) for line in lines]
    without, single = lengths.count(0), lengths.count(1)
    if without:
        notes.append(
            f"{without} of {len(lines)} references have neither a letter nor a digit: "
            "ROUGE is a mean over the others"
        )
    if single:
        notes.append(
            f"{single} of {len(lines)} references are a single token: rouge2 leaves them out"
        )
    if _needs_effective_order(lines, segmenter):
        notes.append(
            f"fewer than {FEW_LONG_REFERENCES:.0%} of the references have four tokens: "
            "BLEU counts only the orders of n-grams that occur (eff:yes)"
        )
    return tuple(notes)


def check_references_score_full(references: Sequence[str], segmenter: Segmenter) -> None:
    """Raise UserError unless each metric gives 100 where the references are also the answers.

    Finds the silent zero: a tokenizer that makes nothing of the script that it is given.
    """
    lost = [
        reference
        for reference in references
        if any(map(str.isalnum, reference)) and not segmenter.split(reference)
    ]
    if lost:
        raise UserError(
            f"references: the tokenizer {segmenter.signature} makes no ROUGE tokens of {len(lost)} "
            f"texts that have letters, the first {lost[0][:30]!r}; reinstall its package"
        )
    for metric in _overlap_metrics(references, references, segmenter, _SELF_TEST_TOKENS):
        if not abs(metric.value - 100.0) < 1e-6:
            raise UserError(
                f"references: {metric.name} ({metric.signature}) of the references against "
                f"themselves is {metric.value:.1f}, not 100; if they hold text, reinstall "
                "sacrebleu, rouge-score and mecab-ko, else look at the column they come from"
            )
