"""Values → places: scales, round ticks and their labels, and how wide a text will be."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

TEXT = 12.0
"""Height of a chart's text in its own units."""


def nice_ticks(low: float, high: float, wanted: int) -> list[float]:
    """About so many round numbers from low to high, at steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return [low]
    rough = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)] or [low]


def outer_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Ticks as nice_ticks gives them, the first at or below low, the last at or above high."""
    ticks = nice_ticks(low, high, wanted)
    if len(ticks) < 2:
        return [low, low + (abs(low) or 1.0)] if high <= low else [low, high]
    step = ticks[1] - ticks[0]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def tick_label(tick: float, ticks: Sequence[float]) -> str:
    """A tick with as many decimals as the steps need; powers of ten where it is tiny."""
    step = min((b - a for a, b in pairwise(ticks)), default=abs(tick) or 1.0)
    if 0 < step < 1e-3:
        return "0" if tick == 0 else f"{tick:.1e}".replace("e-0", "e-").replace(".0e", "e")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{tick:,.{decimals}f}".replace("-", "−")


def text_width(text: str) -> float:
    """Roughly, in units: CJK characters are as wide as high, others half."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return TEXT * (wide + 0.56 * (len(text) - wide))


@dataclass(frozen=True)
class Scale:
    """A linear map from low–high to start–end; low and high differ."""

    low: float
    high: float
    start: float
    end: float

    def clamp(self, value: float) -> float:
        return max(self.low, min(self.high, value))

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def shorten(text: str, room: float) -> str:
    """A text cut with an ellipsis where it is wider than so many units."""
    if text_width(text) <= room:
        return text
    kept = text
    while kept and text_width(kept + "…") > room:
        kept = kept[:-1]
    return kept.rstrip() + "…"
