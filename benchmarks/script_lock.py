"""What the script lock costs: the same answers to the same questions, with it and without.

    OMP_NUM_THREADS=1 python benchmarks/script_lock.py [--rounds 15] [--tokens 16]

Locked and free answers take turns in short rounds, so that other work on the machine meets both
alike; processor seconds are compared, of which other processes take none. Nothing ends an answer,
so both compute the same number of tokens. Ratios still scatter by some percent where caches are
shared; the share of the time that is spent inside the lock does not. What the first masks take
stands apart: it is spent once for a model.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from honing.config import Config, GenerateConfig
from honing.data.example import Example, Exchange
from honing.generation.answer import encode_for_answering, stops
from honing.generation.decode import Ends, decode_batch
from honing.generation.open_model import OpenModel, open_model
from honing.generation.scripts import ScriptLock, script_lock

QUESTION = "건강을 유지하는 세 가지 방법을 알려 주세요."
BATCH_SIZES = (1, 16)


def processor_seconds(compute: Callable[[], Any]) -> float:
    started = time.process_time()
    compute()
    return time.process_time() - started


def share_inside(lock: ScriptLock, compute: Callable[[], Any]) -> float:
    """Share in % of the time that mask and follow, all that decoding asks of a lock, take."""
    inside = 0.0

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal inside
            started = time.process_time()
            found = method(*arguments)
            inside += time.process_time() - started
            return found

        return call

    lock.mask, lock.follow = timed(lock.mask), timed(lock.follow)  # type: ignore[method-assign]
    seconds = processor_seconds(compute)
    del lock.mask, lock.follow
    return 100 * inside / seconds


def compare(opened: OpenModel, settings: GenerateConfig, rounds: int) -> str:
    """One line of the table."""
    (question,) = encode_for_answering(opened, [Example("q", (Exchange(QUESTION, ""),))], settings)
    rows, seeds = [question.ids] * settings.batch_size, range(settings.batch_size)
    lock = script_lock(opened.text, settings, stops(opened, settings).ids)
    assert lock is not None
    ways = {
        "free": lambda: decode_batch(opened.model, rows, settings, Ends(()), seeds),
        "locked": lambda: decode_batch(opened.model, rows, settings, Ends(()), seeds, lock=lock),
    }
    masks = processor_seconds(ways["locked"]) - processor_seconds(ways["locked"])
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        # Who comes first changes, for the second finds the caches warm.
        for way in list(ways)[:: 1 if number % 2 else -1]:
            seconds[way].append(processor_seconds(ways[way]))
    middle = {way: statistics.median(found) for way, found in seconds.items()}
    least = {way: min(found) for way, found in seconds.items()}
    pairs = [b / a for a, b in zip(seconds["free"], seconds["locked"], strict=True)]
    return (
        f"| {settings.batch_size} | {middle['free']:.3f} | {middle['locked']:.3f} "
        f"| {_more(middle['locked'] / middle['free'])} | {_more(least['locked'] / least['free'])} "
        f"| {_more(statistics.median(pairs))} | {share_inside(lock, ways['locked']):.2f} % "
        f"| {max(0.0, masks):.1f} |"
    )


def _more(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=16)
    options = parser.parse_args()
    config = Config()
    opened = open_model(config.model.base, config)
    print(
        "| batch | free s | locked s | medians | minima | median of pairs "
        "| inside the lock | first masks s |\n|---|---|---|---|---|---|---|---|"
    )
    for temperature in (0.0, 1.0):
        for batch_size in BATCH_SIZES:
            settings = GenerateConfig(
                scripts=["hangul", "latin"],
                max_new_tokens=options.tokens,
                batch_size=batch_size,
                temperature=temperature,
            )
            print(compare(opened, settings, options.rounds), flush=True)


if __name__ == "__main__":
    main()
