"""BLEU, chrF and ROUGE against the tools that define them: figure for figure."""

from __future__ import annotations

import ast
import json
import random
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from honing.errors import UserError
from honing.evaluation import overlap, segmentation
from honing.evaluation.metric import Metric
from honing.evaluation.overlap import (
    OVERLAP_SCORES,
    bleu_score,
    check_references_score_full,
    overlap_metrics,
    overlap_notes,
    sentence_chrf,
)
from honing.evaluation.segmentation import CHARACTERS, WORDS, Segmenter, choose_segmenter
from tests.evaluation.test_segmentation import needs_mecab

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["bleu", "chrf", "chrf++", "rouge1", "rouge2", "rougeL"]
ROUGE = ["rouge1", "rouge2", "rougeL"]

REFERENCES = [
    "대한민국의 수도는 서울입니다.",
    "물을 충분히 마시고 규칙적으로 운동하면 건강을 유지할 수 있습니다.",
    "비행기는 양력을 이용해 하늘을 납니다.",
]
PREDICTIONS = [
    "대한민국의 수도는 서울이다.",
    "건강을 유지하려면 규칙적인 운동을 하고 물을 충분히 마셔야 합니다.",
    "저는 오늘 점심으로 김치찌개를 먹었어요.",
]


def by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def values(metrics: Sequence[Metric]) -> dict[str, float]:
    return {metric.name: metric.value for metric in metrics}


# --- the figures of the reference tools' own command lines


def golden_pairs(language: str) -> tuple[list[str], list[str]]:
    lines = (GOLDEN / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["language"] == language]
    assert len(rows) >= 12
    return [row["reference"] for row in rows], [row["prediction"] for row in rows]


GOLDEN_SCORES: dict[str, Any] = json.loads((GOLDEN / "scores.json").read_text(encoding="utf-8"))


def check_golden(language: str, metrics: dict[str, Metric], tokenizer: str) -> None:
    expected = GOLDEN_SCORES[language]
    for name, printed in (
        ("bleu", expected["bleu"][tokenizer]),
        ("chrf", expected["chrf"]),
        ("chrf++", expected["chrf++"]),
    ):
        assert round(metrics[name].value, 12) == pytest.approx(printed["score"], abs=2e-12)
        assert metrics[name].signature == printed["signature"]


@needs_mecab
def test_korean_golden_figures() -> None:
    metrics = by_name(overlap_metrics(*golden_pairs("Korean")))
    check_golden("Korean", metrics, "ko-mecab")
    for name, mean in GOLDEN_SCORES["Korean"]["rouge"].items():
        assert metrics[name].value == pytest.approx(mean, abs=1e-9)


def test_korean_golden_figures_over_characters() -> None:
    check_golden("Korean", by_name(overlap_metrics(*golden_pairs("Korean"), CHARACTERS)), "char")


def test_english_golden_figures() -> None:
    metrics = by_name(overlap_metrics(*golden_pairs("English")))
    check_golden("English", metrics, "13a")
    for name, mean in GOLDEN_SCORES["English"]["rouge"].items():
        assert metrics[name].value == pytest.approx(mean, abs=1e-9)


# --- hand-made Korean pairs: near, paraphrased, unrelated


@needs_mecab
@pytest.mark.parametrize(
    ("segmenter", "rows"),
    [
        (None, [(0.769, 0.727, 0.769), (0.629, 0.303, 0.343), (0.105, 0.0, 0.105)]),
        (CHARACTERS, [(0.880, 0.783, 0.880), (0.750, 0.481, 0.357), (0.121, 0.0, 0.121)]),
        (WORDS, [(0.667, 0.5, 0.667), (0.333, 0.125, 0.222), (0.0, 0.0, 0.0)]),
    ],
)
def test_rouge_of_the_three_pairs(
    segmenter: Segmenter | None, rows: list[tuple[float, float, float]]
) -> None:
    metrics = by_name(overlap_metrics(REFERENCES, PREDICTIONS, segmenter))
    for name, column in zip(ROUGE, zip(*rows, strict=True), strict=True):
        assert [round(score / 100, 3) for score in metrics[name].statistics[:, 0]] == list(column)


@needs_mecab
def test_bleu_and_chrf_of_the_three_pairs() -> None:
    figures = values(overlap_metrics(REFERENCES, PREDICTIONS))
    assert list(figures) == NAMES
    assert [round(figures[name], 2) for name in NAMES[:3]] == [20.15, 31.81, 30.33]
    characters = values(overlap_metrics(REFERENCES, PREDICTIONS, CHARACTERS))
    assert round(characters["bleu"], 2) == 37.24
    alone = [
        round(sentence_chrf(reference, prediction), 1)
        for reference, prediction in zip(REFERENCES, PREDICTIONS, strict=True)
    ]
    assert alone == [69.3, 32.4, 2.9]


@needs_mecab
def test_signatures_say_how_to_count_again() -> None:
    metrics = by_name(overlap_metrics(REFERENCES, PREDICTIONS))
    assert metrics["rouge2"].signature == (
        "rouge-score:0.1.2|tok:ko-mecab-0.996/ko-0.9.2-KO|case:lc|stem:no"
        "|mean of F1 over references with 2 or more tokens"
    )
    assert {(metric.better, metric.unit) for metric in metrics.values()} == {("higher", "0–100")}


# --- sums → scores, against sacrebleu on texts


def random_texts(draw: random.Random, number: int) -> list[str]:
    words = ["the", "cat", "sat", "on", "a", "mat", ".", "서울", "물을", "마셔요", "안녕!", "3.5%"]
    texts = [" ".join(draw.choices(words, k=draw.randrange(12))) for _ in range(number)]
    return [draw.choice([text, text, text[: draw.randrange(len(text) + 1)]]) for text in texts]


@pytest.mark.parametrize("segmenter", [WORDS, CHARACTERS], ids=["13a", "char"])
def test_any_resample_scores_as_sacrebleu_does(segmenter: Segmenter) -> None:
    draw = random.Random(3)
    generator = np.random.default_rng(3)
    counters: dict[str, Any] = {
        "bleu": BLEU(tokenize=segmenter.sacrebleu_tokenizer),
        "bleu (effective order)": BLEU(
            tokenize=segmenter.sacrebleu_tokenizer, effective_order=True
        ),
        "chrf": CHRF(),
        "chrf++": CHRF(word_order=2),
    }
    for _ in range(20):
        size = draw.randint(2, 14)
        references = ["one reference with five tokens", *random_texts(draw, size - 1)]
        predictions = random_texts(draw, size)
        metrics = by_name(overlap_metrics(references, predictions, segmenter))
        rows = generator.integers(size, size=(10, size))
        for name, counter in counters.items():
            statistics = metrics[name.partition(" ")[0]].statistics
            scores = OVERLAP_SCORES[name](statistics[rows].sum(axis=1))
            expected = [
                counter.corpus_score(
                    [predictions[i] for i in drawn], [[references[i] for i in drawn]]
                )
                for drawn in rows.tolist()
            ]
            assert scores == pytest.approx([each.score for each in expected], abs=1e-9)


@needs_mecab
@pytest.mark.parametrize(
    ("reference", "prediction"),
    [
        ("오늘은 하루 종일 비가 내립니다.", ""),
        ("오늘은 하루 종일 비가 내립니다.", "고양이"),
        ("오늘은 하루 종일 비가 내립니다.", "오늘은 비"),
        (
            "오늘은 하루 종일 비가 내립니다.",
            "오늘은 하루 종일 눈이 오고 비가 내리고 바람이 붑니다.",
        ),
        ("오늘은 하루 종일 비가 내립니다.", "내립니다 비가 종일 하루 오늘은"),
    ],
    ids=["empty", "no match", "short", "long", "no long match"],
)
def test_edges_score_as_sacrebleu_does(reference: str, prediction: str) -> None:
    figures = values(overlap_metrics([reference], [prediction]))
    bleu = BLEU(tokenize="ko-mecab").corpus_score([prediction], [[reference]]).score
    assert figures["bleu"] == pytest.approx(bleu, abs=1e-9)
    chrf = CHRF(word_order=2).corpus_score([prediction], [[reference]]).score
    assert figures["chrf++"] == pytest.approx(chrf, abs=1e-9)
    alone = CHRF().sentence_score(prediction, [reference]).score
    assert sentence_chrf(reference, prediction) == alone
    assert figures["chrf"] == pytest.approx(alone, abs=1e-9)


@needs_mecab
@pytest.mark.shared
def test_real_answers_score_as_the_reference_tools_do(shared: Path) -> None:
    path = shared / "data" / "sae4k" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    references, predictions = [row["output"] for row in rows], [row["input"] for row in rows]
    metrics = by_name(overlap_metrics(references, predictions))
    bleu: Any = BLEU(tokenize="ko-mecab")
    for name, counter in (("bleu", bleu), ("chrf", CHRF()), ("chrf++", CHRF(word_order=2))):
        expected = counter.corpus_score(predictions, [references]).score
        assert metrics[name].value == pytest.approx(expected, abs=1e-9)
        assert metrics[name].signature == str(counter.get_signature())


def test_scores_keep_leading_axes() -> None:
    metrics = overlap_metrics(REFERENCES, PREDICTIONS, CHARACTERS)
    for metric in metrics:
        sums = np.stack([metric.statistics[:1], metric.statistics[1:2], metric.statistics[2:]])
        assert metric.score(sums).shape == (3, 1)
        assert metric.score(sums)[2, 0] == pytest.approx(float(metric.score(sums[2, 0])))
        assert OVERLAP_SCORES[metric.name](sums) == pytest.approx(metric.score(sums))


# --- what short and wordless references allow


def test_where_references_are_short_only_orders_that_occur_count() -> None:
    references, predictions = ["a b", "c", "d e f"], ["a b", "x", "d e f"]
    metrics = by_name(overlap_metrics(references, predictions))
    assert "bleu" not in metrics
    metric = metrics["bleu (effective order)"]
    counter = BLEU(effective_order=True)
    expected = counter.corpus_score(predictions, [references]).score
    assert metric.value == pytest.approx(expected, abs=1e-9)
    assert expected == pytest.approx(100 * (5 / 6 * 1 * 1) ** (1 / 3))
    assert bleu_score(metric.statistics.sum(axis=0)) == 0
    assert metric.signature == str(counter.get_signature())
    assert "|eff:yes|" in metric.signature
    check_references_score_full(references, WORDS)
    assert overlap_notes(references, WORDS)[-1] == (
        "fewer than 10% of the references have four tokens: "
        "BLEU counts only the orders of n-grams that occur (eff:yes)"
    )


def test_one_reference_in_ten_with_four_tokens_is_enough_for_plain_bleu() -> None:
    references = ["yes"] * 9 + ["no it is not"]
    assert overlap_metrics(references, references)[0].name == "bleu"
    references = ["yes"] * 10 + ["no it is not"]
    assert overlap_metrics(references, references)[0].name == "bleu (effective order)"


def test_references_without_tokens_do_not_count_for_rouge() -> None:
    references = ["the door is open", "👍", "Yes"]
    predictions = ["the door is", "👍", "No"]
    metrics = by_name(overlap_metrics(references, predictions))
    scorer = RougeScorer(ROUGE, tokenizer=DefaultTokenizer())
    first = scorer.score(references[0], predictions[0])
    for name, counted in (("rouge1", [1, 1, 1]), ("rouge2", [1, 0, 0]), ("rougeL", [1, 0, 1])):
        expected = [1, 0, 1] if name == "rouge1" else counted
        assert metrics[name].statistics[:, 1].tolist() == expected
        mean = 100 * first[name].fmeasure / sum(expected)
        assert metrics[name].value == pytest.approx(mean, abs=1e-9)
    assert overlap_notes(references, WORDS) == (
        "1 of 3 references have neither a letter nor a digit: ROUGE is a mean over the others",
        "1 of 3 references are a single token: rouge2 leaves them out",
    )
    check_references_score_full(references, WORDS)


def test_wordless_references_have_no_rouge() -> None:
    references = ["👍", "👎", "❤️ ❤️ ❤️ ❤️"]
    check_references_score_full(references, WORDS)
    figures = values(overlap_metrics(references, references))
    assert figures == pytest.approx({"bleu": 100.0, "chrf": 100.0, "chrf++": 100.0})


def test_usual_references_need_no_note() -> None:
    assert overlap_notes(["The door is open.", "Close it again."], WORDS) == ()
    fallback = replace(CHARACTERS, note="no mecab")
    assert overlap_notes(["문이 열려 있어요."], fallback) == ("no mecab",)


# --- the self-test


@needs_mecab
def test_references_score_full_against_themselves() -> None:
    segmenter = choose_segmenter(REFERENCES)
    check_references_score_full([*REFERENCES, "네.", "ㅋㅋㅋ", "😀", "물" * 2000], segmenter)
    figures = values(overlap_metrics(REFERENCES, REFERENCES, segmenter))
    assert figures == pytest.approx(dict.fromkeys(NAMES, 100.0))


def test_rouge_scores_default_tokenizer_is_caught_on_hangul() -> None:
    broken = replace(WORDS, signature="rouge default", split=DefaultTokenizer().tokenize)
    with pytest.raises(UserError, match=r"^references: the tokenizer rouge default makes no"):
        check_references_score_full(REFERENCES, broken)
    mixed = ["GPU 두 개", *REFERENCES]
    with pytest.raises(
        UserError, match=r"tokens of 3 texts that have letters, the first '대한민국"
    ):
        check_references_score_full(mixed, broken)


def test_empty_references_are_caught() -> None:
    with pytest.raises(UserError, match=r"^references: bleu .*themselves is 0\.0, not 100; if "):
        check_references_score_full([" ", ""], WORDS)


# --- texts


@needs_mecab
def test_decomposed_texts_count_as_composed_ones() -> None:
    decomposed = [unicodedata.normalize("NFD", text) for text in PREDICTIONS]
    expected = overlap_metrics(REFERENCES, PREDICTIONS)
    found = overlap_metrics([unicodedata.normalize("NFD", r) for r in REFERENCES], decomposed)
    for one, other in zip(expected, found, strict=True):
        assert (one.statistics == other.statistics).all()
    assert sentence_chrf(REFERENCES[0], decomposed[0]) == sentence_chrf(
        unicodedata.normalize("NFD", REFERENCES[0]), PREDICTIONS[0]
    )


def test_texts_that_look_tokenized_raise_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    overlap_metrics(["it is so ."] * 200, ["it is so ."] * 200)
    assert caplog.records == []


def test_there_must_be_as_many_predictions_as_references() -> None:
    with pytest.raises(ValueError, match="2 references and 1 predictions"):
        overlap_metrics(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="0 references"):
        overlap_metrics([], [])


@pytest.mark.parametrize("module", [overlap, segmentation])
def test_stored_counts_are_summed_without_the_tools(module: ModuleType) -> None:
    """`honing compare` needs numpy alone, so the tools are imported where something is counted."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {
        name.partition(".")[0]
        for node in imports
        for name in ([str(node.module)] if isinstance(node, ast.ImportFrom) else _names(node))
    }
    assert "dataclasses" in found or "numpy" in found
    assert found.isdisjoint({"torch", "sacrebleu", "rouge_score", "nltk", "mecab_ko"})


def _names(node: ast.Import) -> list[str]:
    return [alias.name for alias in node.names]
