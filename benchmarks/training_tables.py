"""What training_speed.py measured → tables in Markdown.

A result is what a way printed in one round, with `of_sgemm` and `sgemm_flops_per_s` beside it; of a
peer that failed it is `failed` alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from measured_on import PEERS
from training_ways import WAYS

LARGEST_DIFFERENCE = 1e-3
"""Of two ways' losses in nats; the sums of some hundred thousand products differ in rounding."""

Result = dict[str, Any]
Results = dict[str, list[Result]]
"""Of each way, one result a round."""

COLUMNS = (
    "way",
    "tokens/s (lowest to highest)",
    "× plain loop",
    "of sgemm",
    "peak memory GB",
    "padding",
    "largest difference of a step's loss",
)


def speed(result: Result) -> float:
    """Tokens a second; the first step is not counted."""
    return float(sum(result["tokens"][1:]) / sum(result["seconds"][1:]))


def peak(result: Result) -> float:
    return float(result["peak_bytes"])


def finished(way: str, results: Results) -> list[Result]:
    return [result for result in results.get(way, []) if "failed" not in result]


def with_span(values: Sequence[float], digits: int) -> str:
    """Median, lowest and highest."""
    median = statistics.median(values)
    return f"{median:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def line_of(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def shape_section(shape: str, results: Results, default_dtype: str) -> list[str]:
    """All that is said of one shape. default_dtype: the base's, where honing is left to itself."""
    return [
        f"## {shape}",
        "",
        measured(results),
        "",
        *speed_table(results),
        "",
        *ratio_table(results, default_dtype),
        "",
    ]


def measured(results: Results) -> str:
    """How much was counted, the machine's rate meanwhile, and what honing's plan chose."""
    runs = [run for way in results for run in finished(way, results)]
    tokens, rates = runs[0]["tokens"], [run["sgemm_flops_per_s"] / 1e9 for run in runs]
    lines = [
        f"{len(tokens) - 1} steps counted, of {sum(tokens[1:]):,} tokens; sgemm "
        f"{min(rates):.0f} to {max(rates):.0f} GFLOP/s."
    ]
    for way in results:
        chosen = [run["chosen"] for run in finished(way, results) if "chosen" in run]
        lines += [f"{way[0].upper()}{way[1:]}: {'; '.join(chosen[0])}."] if chosen else []
    return "\n\n".join(lines)


def speed_table(results: Results) -> list[str]:
    lines = [line_of(COLUMNS), "|---" * len(COLUMNS) + "|"]
    for way in results:
        runs = finished(way, results)
        if not runs:
            failed = f"failed: {results[way][0]['failed']}"
            lines.append(line_of([way, failed, *[""] * (len(COLUMNS) - 2)]))
            continue
        to_plain = ratios(way, "plain loop", results, speed)
        cells = (
            way,
            with_span([speed(run) for run in runs], 1),
            f"{statistics.median(to_plain):.2f}" if to_plain else "",
            f"{statistics.median(run['of_sgemm'] for run in runs):.2f}",
            f"{max(map(peak, runs)) / 1e9:.2f}",
            f"{runs[0]['padding']:.0%}",
            difference_cell(way, results),
        )
        lines.append(line_of(cells))
    return lines


def difference(way: str, results: Results) -> float | None:
    """The largest of a step's loss from the plain loop's, of its kind. None: not compared."""
    like = finished("plain loop, LitGPT's loss" if "LitGPT" in way else "plain loop", results)
    if not like:
        return None
    gaps = [
        abs(a - b)
        for run in finished(way, results)
        for a, b in zip(run["losses"], like[0]["losses"], strict=True)
    ]
    return max(math.inf if math.isnan(gap) else gap for gap in gaps)


def is_void(way: str, results: Results) -> bool:
    """Whether its losses are not those of the plain loop, and no bfloat16 explains it."""
    apart = difference(way, results)
    return apart is not None and apart > LARGEST_DIFFERENCE and not is_in_bfloat16(way)


def difference_cell(way: str, results: Results) -> str:
    apart = difference(way, results)
    if apart is None:
        return "not compared"
    return f"{apart:.1e}{' **void**' if is_void(way, results) else ''}"


def is_in_bfloat16(way: str) -> bool:
    settings = WAYS[way][1]
    of_litgpt = settings.get("precision") == "bf16-true"
    return settings.get("dtype") == "bfloat16" or bool(settings.get("bf16")) or of_litgpt


def ratios(
    way: str, other: str, results: Results, figure: Callable[[Result], float]
) -> list[float]:
    """Of each round, whose runs share the state of the machine."""
    pairs = zip(results.get(way, []), results.get(other, []), strict=False)
    return [figure(a) / figure(b) for a, b in pairs if "failed" not in a and "failed" not in b]


def ratio_table(results: Results, default_dtype: str) -> list[str]:
    """honing through its peers: medians of the rounds' ratios."""
    lines = [
        line_of(["honing's way", "against", "tokens/s (lowest to highest)", "peak memory"]),
        "|---|---|---|---|",
    ]
    for peer in PEERS:
        for (way, other), roles in comparisons(peer, results, default_dtype).items():
            speeds = ratios(way, other, results, speed)
            if not speeds:
                continue
            if peer == "LitGPT":
                roles = [*roles, "speed only, its loss is its own"]
            void = " **void**" if is_void(way, results) or is_void(other, results) else ""
            lines.append(
                line_of(
                    [
                        f"{way} (its own choice)" if way == own_way(default_dtype) else way,
                        f"{other} ({'; '.join(roles)})",
                        f"× {with_span(speeds, 2)}{void}",
                        f"× {statistics.median(ratios(way, other, results, peak)):.2f}",
                    ]
                )
            )
    return lines if len(lines) > 2 else ["No peer was compared."]


def own_way(default_dtype: str) -> str:
    """honing left to itself."""
    return "honing, bfloat16 base" if default_dtype == "bfloat16" else "honing"


def comparisons(
    peer: str, results: Results, default_dtype: str
) -> dict[tuple[str, str], list[str]]:
    """(honing's way, the peer's way) → what that is among the peer's ways."""
    roles = peer_roles(peer, results)
    limited = own_way(default_dtype).replace("honing", "honing, memory limit")
    wanted = (
        ("honing", "best in float32"),
        ("honing", "best of all"),
        ("honing", "defaults"),
        ("honing, bfloat16 base", "best in bfloat16"),
        (own_way(default_dtype), "best of all"),
        ("honing, memory limit", "best in float32"),
        ("honing, memory limit, bfloat16 base", "best in bfloat16"),
        (limited, "best of all"),
    )
    pairs: dict[tuple[str, str], list[str]] = {}
    for way, role in wanted:
        if role in roles:
            named = pairs.setdefault((way, roles[role]), [])
            named += [role] if role not in named else []
    return pairs


def peer_roles(peer: str, results: Results) -> dict[str, str]:
    """The peer's ways that are compared: best is the one of the highest median speed."""
    ways = [way for way in results if way.startswith(f"{peer},") and finished(way, results)]
    groups = {
        "best in float32": [way for way in ways if not is_in_bfloat16(way)],
        "best in bfloat16": [way for way in ways if is_in_bfloat16(way)],
        "best of all": ways,
        "defaults": [way for way in ways if "its defaults" in way],
    }
    return {
        role: max(group, key=lambda way: statistics.median(map(speed, finished(way, results))))
        for role, group in groups.items()
        if group
    }
