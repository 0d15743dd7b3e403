"""Made-up evaluations and a made-up comparison: plausible numbers, no model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np

from honing.evaluation.bootstrap import estimate
from honing.evaluation.record import Estimate, Evaluation, Figure, MetricRecord, Prediction
from honing.evaluation.scores import SCORES
from honing.report.comparison import (
    Answer,
    Comparison,
    Difference,
    MetricLine,
    PairTable,
    RunInfo,
    RunTable,
    Sample,
    SeedSpread,
)
from honing.report.runs import RunEvaluations

HOSTILE = '<script>alert("x")</script> <img src=x onerror=alert(1)> [누르기](javascript:alert(1))'
LOOP = "네, 맞아요. " * 12

_TOPICS = (
    *("비빔밥", "지하철", "한강", "도서관", "김치찌개"),
    *("제주도", "날씨", "자전거", "한글", "커피"),
)
_QUESTIONS = (
    "{}에 대해 짧게 설명해 주세요.",
    "{} 하면 무엇이 떠오르나요?",
    "{}의 좋은 점을 하나만 말해 주세요.",
    "친구에게 {} 이야기를 어떻게 꺼내면 좋을까요?",
)
_ANSWERS = (
    "{} 이야기라면 누구나 한마디씩 하고 싶어 해요.",
    "{} 하면 가족과 보낸 주말이 떠오릅니다.",
    "{}의 가장 좋은 점은 언제나 새롭다는 것이에요.",
    "먼저 {} 사진을 보여 주면 이야기를 꺼내기 쉬워요.",
)
_WORDS = ("오늘", "아마", "정말", "그리고", "the", "천천히", "다시", "모두")
_UNITS = {
    "perplexity": ("lower", "perplexity"),
    "bits_per_character": ("lower", "bits per character"),
    "bleu": ("higher", "0–100"),
    "chrf": ("higher", "0–100"),
    "rougeL": ("higher", "0–100"),
    "exact_match": ("higher", "0–100"),
}


def made_up_predictions(
    num_rows: int, seed: int, skill: float, *, leaked: bool = False
) -> tuple[Prediction, ...]:
    """Answers that keep each word of the reference with the probability `skill`.

    Two rows in ten share a group with the row before. The first rows hold what a page must
    survive: a hostile answer, a loop, an empty one.
    """
    random = Random(f"{seed} {skill}")
    rows = []
    for place in range(num_rows):
        topic = _TOPICS[place % len(_TOPICS)]
        kind = place // len(_TOPICS) % len(_QUESTIONS)
        reference = _ANSWERS[kind].format(topic)
        words = [w if random.random() < skill else random.choice(_WORDS) for w in reference.split()]
        answer, stopped, repetition = " ".join(words), "end", 0.0
        if place == 1 or random.random() < 0.2 * (1.0 - skill):
            answer, stopped, repetition = LOOP, "length", 91.7
        if place == 0:
            answer = HOSTILE
        elif place == 2:
            answer, stopped = "", "end"
        num_tokens = len(reference) + 1
        rows.append(
            Prediction(
                id=f"made-up:{place + 1}",
                prompt=_QUESTIONS[kind].format(topic) + f" ({place + 1})",
                reference=reference,
                prediction=answer,
                sum_nats=num_tokens * random.lognormvariate(0.8 - skill, 0.3),
                num_tokens=num_tokens,
                stopped=stopped,
                num_new_tokens=len(answer) // 2,
                repetition=repetition,
                group=place - place // 5 - (place % 5 == 4),
                leaked=leaked and place % 10 == 0,
            )
        )
    return tuple(rows)


def made_up_comparison(
    num_runs: int = 2, num_rows: int = 120, seed: int = 0, leaked: bool = False
) -> Comparison:
    """Records without a computation behind them, shaped as compare_evaluations makes them."""
    random = Random(seed)
    names = [f"run-{number + 1}" for number in range(num_runs)]
    tables = tuple(
        RunTable(
            _info(name, number, num_rows, leaked),
            tuple(_line(metric, random, leaked) for metric in _UNITS),
        )
        for number, name in enumerate(names)
    )
    pairs = tuple(
        PairTable(before, after, num_rows, 96, tuple(_line(m, random, leaked) for m in _UNITS))
        for place, before in enumerate(names)
        for after in names[place + 1 :]
    )
    return Comparison(
        tables=tables,
        pairs=pairs,
        seed_spreads=(
            (SeedSpread(tuple(names), {name: (1.0, 1.5, 2.0) for name in _UNITS}),)
            if num_runs > 1
            else ()
        ),
        samples=_samples(names, num_rows, seed, leaked),
        config_differences=(
            {"seed": {name: number for number, name in enumerate(names)}} if num_runs > 1 else {}
        ),
        notes=("One seed judges this adapter, not the recipe: another seed gives another adapter",),
        num_tests=len(_UNITS) * (len(tables) + len(pairs)),
        made_with={"honing": "0", "num_resamples": 2000, "seed": 42},
    )


def _info(name: str, number: int, num_rows: int, leaked: bool) -> RunInfo:
    steps = [float(step) for step in range(10, 101, 10)]
    return RunInfo(
        name=name,
        folder=f"outputs/{name}",
        checkpoint="step-000100",
        base="made/up-base",
        split="test",
        num_rows=num_rows,
        num_groups=num_rows * 4 // 5,
        num_leaked=num_rows // 10 if leaked else 0,
        settings={"generate": {"max_new_tokens": 64}, "seed": number},
        curves={
            "train loss": tuple((step, 2.0 * math.exp(-step / 60) + 1.0) for step in steps),
            "validation loss": tuple((step, 2.0 * math.exp(-step / 60) + 1.2) for step in steps),
            "learning rate": tuple((step, 2e-4 * (1 - step / 100)) for step in steps),
        },
        figures_base={"distinct_2": 61.5},
        figures_tuned={"distinct_2": 70.25},
        figure_signatures={"distinct_2": "different bigrams / bigrams"},
        data_report={"source": "made-up.jsonl", "kept": {"train": 900, "test": num_rows}},
        training={"num_steps": 100, "seconds": 61.0},
        config={"seed": number, "lora": {"rank": 8}},
        warnings=("characters instead of morphemes: honing[ko] is not installed",),
    )


def _difference(random: Random, better: str) -> Difference:
    before, step = 10 + 10 * random.random(), 4 * random.random() - 1
    shown = step - 0.8 > 0 or step + 0.8 < 0
    good = (step > 0) == (better == "higher")
    return Difference(
        before=Estimate(before, (before - 1, before + 1.2)),
        after=Estimate(before + step, (before + step - 1, before + step + 1.2)),
        difference=step,
        interval=(step - 0.8, step + 0.8),
        p_value=0.001 if shown else 0.4,
        p_holm=0.012 if shown else 1.0,
        smallest_detectable=1.14,
        verdict="not distinguishable" if not shown else "better" if good else "worse",
    )


def _line(name: str, random: Random, leaked: bool) -> MetricLine:
    better, unit = _UNITS[name]
    return MetricLine(
        name=name,
        signature=f"{name}|made up|tok:mecab|version:0",
        better=better,
        unit=unit,
        all_rows=_difference(random, better),
        clean=_difference(random, better) if leaked else None,
        floors={} if unit != "0–100" else {"copy the input": 3.2, "nearest training row": 12.9},
    )


def _samples(names: Sequence[str], num_rows: int, seed: int, leaked: bool) -> tuple[Sample, ...]:
    base = made_up_predictions(num_rows, seed, 0.3, leaked=leaked)
    tuned = [
        made_up_predictions(num_rows, seed + number, 0.7, leaked=leaked)
        for number in range(len(names))
    ]
    samples = []
    for place, row in enumerate(base):
        rows = {"base": row, **{name: made[place] for name, made in zip(names, tuned, strict=True)}}
        answers = {
            name: Answer(p.prediction, _score(p), p.stopped, p.repetition)
            for name, p in rows.items()
        }
        last = rows[names[-1]]
        tags = {
            "best": place in range(10, 18),
            "worst": place in range(20, 28),
            "random": place % 15 == 0,
            "stopped": last.stopped == "end",
            "not-stopped": last.stopped != "end",
            "looping": last.repetition > 50,
            "empty": not last.prediction,
            "leaked": row.leaked,
        }
        gain = answers[names[-1]].score - answers["base"].score
        told = tuple(name for name, holds in tags.items() if holds)
        samples.append(Sample(row.id, row.prompt, row.reference, answers, gain, told))
    return tuple(samples)


def _score(row: Prediction) -> float:
    right = set(row.reference.split())
    return 100.0 * len(right & set(row.prediction.split())) / len(right)


# --- evaluations, from which compare_evaluations computes


def made_up_runs(
    num_runs: int = 2, num_rows: int = 120, seed: int = 0, leaked: bool = False
) -> list[RunEvaluations]:
    """run-1, run-2 … on the same rows, each better than its base; the later the better."""
    base = made_up_evaluation("base", made_up_predictions(num_rows, seed, 0.3, leaked=leaked))
    return [
        RunEvaluations(
            replace(
                _info(f"run-{number + 1}", number, num_rows, leaked),
                num_groups=len({row.group for row in base.predictions}),
            ),
            base,
            made_up_evaluation(
                "tuned",
                made_up_predictions(num_rows, seed + 1, 0.6 + 0.1 * number, leaked=leaked),
            ),
        )
        for number in range(num_runs)
    ]


def made_up_evaluation(kind: str, predictions: Sequence[Prediction]) -> Evaluation:
    """Scores of seven metrics, two of them of tools, counted here without these."""
    metrics = {name: _record(name, predictions) for name in _COUNTS}
    return Evaluation(
        kind=kind,
        model={"base": "made/up-base"} | ({"checkpoint": "step-000100"} if kind == "tuned" else {}),
        data={"split": "test", "num_rows": len(predictions), "notes": []},
        settings={"generate": {"max_new_tokens": 64}, "seed": 0},
        metrics=metrics,
        figures={"distinct_2": Figure(61.5, "different bigrams / bigrams")},
        floors={
            "copy the input": {"chrf": 3.2, "rougeL": 1.5},
            "nearest training row": {"chrf": 12.9},
        },
        warnings=("characters instead of morphemes: honing[ko] is not installed",),
        predictions=tuple(predictions),
    )


def _record(name: str, predictions: Sequence[Prediction]) -> MetricRecord:
    count, better, unit = _COUNTS[name]
    statistics = np.array([count(row) for row in predictions], np.float64)
    groups = np.array([row.group for row in predictions])
    clean = np.array([not row.leaked for row in predictions])
    return MetricRecord(
        name=name,
        signature=f"{name}|made up|tok:mecab-0.1|version:0",
        better=better,
        unit=unit,
        estimate=estimate(statistics, groups, SCORES[name], num_resamples=1000),
        clean=None
        if clean.all()
        else estimate(statistics[clean], groups[clean], SCORES[name], num_resamples=1000),
        statistics=tuple(tuple(row) for row in statistics.tolist()),
    )


def _count_chrf(row: Prediction) -> list[float]:
    """Of answer, reference and both, the runs of 1 to 6 characters without spaces."""
    answer, reference = ("".join(text.split()) for text in (row.prediction, row.reference))
    counts = []
    for order in range(1, 7):
        own, wanted = (
            Counter(text[i : i + order] for i in range(len(text) - order + 1))
            for text in (answer, reference)
        )
        counts += [own.total(), wanted.total(), (own & wanted).total()]
    return [float(count) for count in counts]


_COUNTS: Mapping[str, tuple[Callable[[Prediction], Sequence[float]], str, str]] = {
    "perplexity": (lambda row: (row.sum_nats or 0.0, row.num_tokens), "lower", "perplexity"),
    "bits_per_character": (
        lambda row: (row.sum_nats or 0.0, len(row.reference)),
        "lower",
        "bits per character",
    ),
    "chrf": (_count_chrf, "higher", "0–100"),
    "rougeL": (lambda row: (_score(row), 1.0), "higher", "0–100"),
    "ended": (lambda row: (row.stopped == "end", 1.0), "higher", "0–100"),
    "looping": (lambda row: (row.repetition >= 50.0, 1.0), "lower", "0–100"),
    "length_ratio": (lambda row: (len(row.prediction), len(row.reference)), "neither", "ratio"),
}
