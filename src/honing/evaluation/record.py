"""Evaluation: what one model did with the held-out rows, as it lies on disk. Read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["better", "worse", "different", "not distinguishable", "no test"]
"""different: of a metric for which neither direction is better. no test: nothing to resample."""


@dataclass(frozen=True)
class Prediction:
    """One held-out row and the model's answer to it.

    prompt: all that was asked, without the template. sum_nats, num_tokens: loss of the reference's
    tokens, its end token among them; None where no model computed one (--predictions FILE).
    stopped: end (the model ended it), stop text, or length; "unknown" for a foreign file.
    num_new_tokens and repetition (in %, see generation.answer.repetition) are 0 there too.
    group: the number of its near-duplicate group. leaked: it has a twin in training.
    """

    id: str
    prompt: str
    reference: str
    prediction: str
    sum_nats: float | None
    num_tokens: int
    stopped: str
    num_new_tokens: int = 0
    repetition: float = 0.0
    group: int = 0
    leaked: bool = False


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval; None where there is none to be had."""

    score: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class MetricRecord:
    """One metric of one model. clean: over the rows without a twin in training, where some have
    one. statistics: (n, k), a line a prediction, from which all scores can be summed again."""

    name: str
    signature: str
    better: str
    unit: str
    estimate: Estimate
    clean: Estimate | None
    statistics: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A number without an interval, with how it was made: a floor, a mix, a share of the data."""

    value: float
    signature: str


@dataclass(frozen=True)
class GeneralText:
    """A model's loss on a text outside the task. pieces: (nats, tokens, characters) of each piece
    of it; sha256: of the text."""

    signature: str
    sha256: str
    pieces: tuple[tuple[float, int, int], ...]


@dataclass(frozen=True)
class Evaluation:
    """One model on one set of held-out rows.

    model: base, checkpoint, fingerprints. data: split, rows, groups, leaks. settings: everything
    that the answers depend on. floors: name of a floor → metric → what it scores. figures: what is
    not resampled (distinct n-grams, the mix of speech levels of references and answers). general:
    None where no general text was read.
    """

    kind: str  # "base", "tuned" or "predictions"
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    metrics: Mapping[str, MetricRecord]
    figures: Mapping[str, Figure]
    floors: Mapping[str, Mapping[str, float]]
    warnings: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    general: GeneralText | None = None
