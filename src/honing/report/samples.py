"""Which answers are shown: best gains, worst losses and a random draw, not the good ones alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import numpy as np

from honing.evaluation.metric import Floats
from honing.evaluation.record import Evaluation, Prediction
from honing.evaluation.scores import SCORES
from honing.report.comparison import Answer, Sample
from honing.report.runs import RunEvaluations, row_keys

NUM_EACH = 8
"""Best gains, worst losses, and rows of the draw."""
MOST_SAMPLES = 500
"""Up to so many rows all are shown; of more, those that were chosen."""
LOOPING_REPETITION = 50.0


def make_samples(runs: Sequence[RunEvaluations], seed: int) -> tuple[Sample, ...]:
    """Rows of the last run in their order, with the answers of all runs that have the row.

    Chosen by the gain in chrF of the last run's answer over its base's. Tags speak of the last
    run's answer.
    """
    last = runs[-1]
    gains = sentence_scores(last.tuned) - sentence_scores(last.base)
    chosen = choose(gains, seed)
    places = list(range(len(gains)))
    if len(places) > MOST_SAMPLES:
        places = sorted({place for found in chosen.values() for place in found})
    others = {"base": _Answers(runs[0].base)} | {run.info.name: _Answers(run.tuned) for run in runs}
    keys = row_keys(last.tuned.predictions)
    looping = _looping(last.tuned)
    samples = []
    for place in places:
        row = last.tuned.predictions[place]
        tags = [name for name, found in chosen.items() if place in found]
        samples.append(
            Sample(
                id=row.id,
                prompt=row.prompt,
                reference=row.reference,
                answers=_answers_to(keys[place], row, others),
                gain=float(gains[place]),
                tags=(*tags, *_tags(row, bool(looping[place]))),
            )
        )
    return tuple(samples)


def choose(gains: Floats, seed: int) -> dict[str, set[int]]:
    """best: the largest gains; worst: the largest losses; random: drawn without looking."""
    order = sorted(range(len(gains)), key=lambda place: (-gains[place], place))
    best = [place for place in order if gains[place] > 0.0][:NUM_EACH]
    worst = [place for place in reversed(order) if gains[place] < 0.0][:NUM_EACH]
    drawn = Random(seed).sample(range(len(gains)), min(NUM_EACH, len(gains)))
    return {"best": set(best), "worst": set(worst), "random": set(drawn)}


def sentence_scores(evaluation: Evaluation) -> Floats:
    """chrF of each answer alone, from what was counted; not a number where it was not."""
    metric = evaluation.metrics.get("chrf")
    if metric is None:
        return np.full(len(evaluation.predictions), np.nan)
    return SCORES["chrf"](np.array(metric.statistics, np.float64))


def _looping(evaluation: Evaluation) -> Sequence[bool]:
    metric = evaluation.metrics.get("looping")
    if metric is None:
        return [row.repetition >= LOOPING_REPETITION for row in evaluation.predictions]
    return [hit > 0.0 for hit, _ in metric.statistics]


def _tags(row: Prediction, looping: bool) -> list[str]:
    holds = {
        "stopped": row.stopped in ("end", "stop text"),
        "not-stopped": row.stopped == "length",
        "looping": looping,
        "leaked": row.leaked,
        "empty": not row.prediction.strip(),
    }
    return [tag for tag, true in holds.items() if true]


class _Answers:
    """The answers of one model, by the key of their row."""

    def __init__(self, evaluation: Evaluation) -> None:
        scores = sentence_scores(evaluation)
        keys = row_keys(evaluation.predictions)
        self.rows = {
            key: (row, float(score))
            for key, row, score in zip(keys, evaluation.predictions, scores, strict=True)
        }


def _answers_to(
    key: tuple[str, int], asked: Prediction, models: Mapping[str, _Answers]
) -> dict[str, Answer]:
    answers = {}
    for name, model in models.items():
        row, score = model.rows.get(key, (None, 0.0))
        if row is not None and row.reference == asked.reference:
            answers[name] = Answer(row.prediction, score, row.stopped, row.repetition)
    return answers
