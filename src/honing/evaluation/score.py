"""Predictions → Evaluation: every metric, its interval, and the floors beside it. No torch."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from honing.evaluation.behaviour import behaviour_figures, behaviour_metrics, data_figures
from honing.evaluation.bootstrap import estimate
from honing.evaluation.floors import (
    copy_floor,
    floor_scores,
    nearest_row_floor,
    random_other_floor,
)
from honing.evaluation.forgetting import general_figures
from honing.evaluation.metric import Metric
from honing.evaluation.overlap import (
    check_references_score_full,
    overlap_metrics,
    overlap_notes,
)
from honing.evaluation.record import (
    Estimate,
    Evaluation,
    Figure,
    GeneralText,
    MetricRecord,
    Prediction,
)
from honing.evaluation.scores import SCORES
from honing.evaluation.segmentation import Segmenter, choose_segmenter
from honing.version import VERSION

FEW_ROWS = 100


@dataclass(frozen=True)
class Surroundings:
    """What stands beside any model's scores on the same rows: floors, figures of the data."""

    segmenter: Segmenter
    floors: Mapping[str, Mapping[str, float]]
    figures: Mapping[str, Figure]
    warnings: tuple[str, ...]


def look_around(
    references: Sequence[str],
    *,
    inputs: Sequence[str],
    prompts: Sequence[str],
    train_prompts: Sequence[str],
    train_responses: Sequence[str],
    num_groups: int,
    seed: int,
) -> Surroundings:
    """Score the floors, describe the data, and check that the metrics can measure these rows.

    Raises UserError where references do not score full marks against themselves.
    """
    segmenter = choose_segmenter(references)
    check_references_score_full(references, segmenter)
    guesses: dict[str, Sequence[str]] = {}
    if inputs:
        guesses["copy the input"] = copy_floor(inputs)
    if len(references) > 1:
        guesses["a random other reference"] = random_other_floor(references, seed)
    if train_prompts:
        guesses["nearest training row"] = nearest_row_floor(prompts, train_prompts, train_responses)
    figures = data_figures(references, "references")
    if train_responses:
        figures |= data_figures(train_responses, "training")
    warnings = list(overlap_notes(references, segmenter))
    if num_groups < FEW_ROWS:
        warnings.append(
            f"{len(references)} rows in {num_groups} groups that do not resemble each other: with "
            f"fewer than {FEW_ROWS} groups only large differences can show"
        )
    return Surroundings(
        segmenter, floor_scores(references, guesses, segmenter), figures, tuple(warnings)
    )


def score_predictions(
    kind: str,
    predictions: Sequence[Prediction],
    around: Surroundings,
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    general: GeneralText | None = None,
    num_resamples: int,
    seed: int,
) -> Evaluation:
    """The evaluation of one model: predictions in the order of the rows."""
    metrics = [
        *loss_metrics(predictions),
        *overlap_metrics(
            [row.reference for row in predictions],
            [row.prediction for row in predictions],
            around.segmenter,
        ),
        *behaviour_metrics(predictions),
    ]
    records = [_record(metric, predictions, num_resamples, seed) for metric in metrics]
    return Evaluation(
        kind=kind,
        model=model,
        data=data,
        settings=settings,
        metrics={record.name: record for record in records},
        figures={
            **around.figures,
            **behaviour_figures(predictions),
            **general_figures(general),
        },
        floors=around.floors,
        warnings=around.warnings,
        predictions=tuple(predictions),
        general=general,
    )


def loss_metrics(predictions: Sequence[Prediction]) -> list[Metric]:
    """Perplexity and bits per character of the references; none where no losses are known."""
    known = [(row.sum_nats, row) for row in predictions if row.sum_nats is not None]
    if not known or len(known) < len(predictions):
        return []
    nats = [value for value, _ in known]
    tokens = [row.num_tokens for _, row in known]
    characters = [len(unicodedata.normalize("NFC", row.reference)) for _, row in known]
    return [
        _loss_metric("perplexity", "exp of nats a token", nats, tokens),
        _loss_metric("bits_per_character", "bits over NFC characters", nats, characters),
    ]


def _loss_metric(name: str, how: str, nats: Sequence[float], units: Sequence[int]) -> Metric:
    return Metric(
        name=name,
        signature=f"{how}|response and its end token|token-weighted|honing:{VERSION}",
        better="lower",
        unit=name.replace("_", " "),
        statistics=np.column_stack([nats, units]).astype(np.float64),
        score=SCORES[name],
    )


def _record(
    metric: Metric, predictions: Sequence[Prediction], num_resamples: int, seed: int
) -> MetricRecord:
    groups = np.array([row.group for row in predictions], np.int64)
    clean = np.array([not row.leaked for row in predictions], bool)

    def over(rows: Any) -> Estimate:
        return estimate(
            metric.statistics[rows],
            groups[rows],
            metric.score,
            num_resamples=num_resamples,
            seed=seed,
        )

    return MetricRecord(
        name=metric.name,
        signature=metric.signature,
        better=metric.better,
        unit=metric.unit,
        estimate=over(slice(None)),
        clean=None if clean.all() else over(clean) if clean.any() else Estimate(math.nan, None),
        statistics=tuple(tuple(row) for row in metric.statistics.tolist()),
    )
