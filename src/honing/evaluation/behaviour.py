"""How the answers behave: whether they end, repeat themselves, echo the prompt, keep to one script
and to one Korean speech level.

Each metric holds (part, whole) of every answer. What a resample would distort, because it holds
answers twice, is a figure without an interval: distinct n-grams, the mix of speech levels.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from honing.data.scripts import count_scripts
from honing.evaluation.metric import Better, Metric, Score, ratio, share
from honing.evaluation.particles import particle_errors, particles_signature
from honing.evaluation.record import Figure, Prediction
from honing.evaluation.segmentation import choose_segmenter
from honing.evaluation.speech_level import LEVELS, Level, levels_of
from honing.version import VERSION

REPETITION_TOKENS = 8
"""Length of the runs by which generation.answer counts repetition."""
REPETITION_CHARACTERS = 16
"""The same for answers whose tokens nobody counted."""

LOOPING_REPETITION = 50.0
"""An answer with so much repetition, in %, loops. So does one that ends in a loop, …"""
LOOP_UNITS = 3
"""… which is a unit so many times in a row, …"""
LOOP_CHARACTERS = 12
"""… of so many characters in all, …"""
LOOP_SINGLE_CHARACTERS = 20
"""… or so many where the unit is one character: ㅋㅋㅋㅋ and !!! are none."""

ECHO_RUN = 5
ECHO_SHARE = 0.8
ECHO_CHARACTERS = 10
"""An answer of so many characters echoes a prompt that holds this share of its runs."""

MOST_TEXTS = 20_000
"""Of more texts than this, data_figures looks at evenly spaced ones."""

Part = tuple[float, float]
"""Of one answer: what was found, of how much."""


def behaviour_metrics(predictions: Sequence[Prediction]) -> list[Metric]:
    """All that can be measured on these rows.

    ended is left out where no row tells how its answer ended; hangul, one_speech_level,
    speech_level_match and particle_errors where no reference holds Hangul; speech_level_match
    where none has a level, too, and particle_errors without mecab-ko.
    """
    repetitions, runs = _repetitions(predictions)
    looping = [
        repetition >= LOOPING_REPETITION or ends_in_loop(row.prediction)
        for repetition, row in zip(repetitions, predictions, strict=True)
    ]
    metrics = [
        _metric("ended", "by the end token", "higher", map(_ended, predictions)),
        _metric("repetition", f"{runs} seen before|mean", "lower", _each(repetitions, 0.01)),
        _metric(
            "looping",
            f"repetition ≥{LOOPING_REPETITION:g} % of {runs}, or the end ≥{LOOP_UNITS} times a unit"
            f" and ≥{LOOP_CHARACTERS} characters",
            "lower",
            _each(looping),
        ),
        _metric(
            "empty", "no text", "lower", _each(not row.prediction.strip() for row in predictions)
        ),
        _metric(
            "echo",
            f"the prompt, or ≥{ECHO_CHARACTERS} characters with ≥{ECHO_SHARE:.0%} of {ECHO_RUN}-"
            "character runs from it|unless the reference is an echo",
            "lower",
            _each(map(is_echo, predictions)),
        ),
        _metric(
            "length_ratio",
            "NFC characters of answers over references",
            "neither",
            [(_length(row.prediction), _length(row.reference)) for row in predictions],
            score=ratio,
        ),
        _metric(
            "other_scripts",
            "answers with a script of neither prompt nor reference",
            "lower",
            _each(map(_has_other_script, predictions)),
        ),
        _metric(
            "exact_match", "NFC, spaces collapsed", "higher", _each(map(_is_exact, predictions))
        ),
        *(_korean_metrics(predictions) if _hold_hangul(r.reference for r in predictions) else []),
    ]
    # What these are a share of does not depend on the answers: base and tuned leave out the same.
    needed = ("ended", "speech_level_match")
    return [m for m in metrics if m.name not in needed or m.statistics[:, 1].any()]


def _korean_metrics(predictions: Sequence[Prediction]) -> list[Metric]:
    metrics = [
        _metric("hangul", "Hangul of all letters", "neither", map(_hangul, predictions)),
        _metric(
            "one_speech_level",
            "of answers with a level|hae and haera together are one",
            "higher",
            map(_one_level, predictions),
        ),
        _metric(
            "speech_level_match",
            "most frequent level of the sentences",
            "higher",
            map(_level_match, predictions),
        ),
    ]
    if particles_signature() is not None:
        parts = [_particles(row.prediction) for row in predictions]
        metrics.append(
            _metric("particle_errors", f"per 100 checked|{particles_signature()}", "lower", parts)
        )
    return metrics


def behaviour_figures(predictions: Sequence[Prediction]) -> dict[str, Figure]:
    """distinct_1, distinct_2, distinct_answers (in %), and the mix of the answers' speech levels.

    distinct_n: different n-grams over all n-grams of all answers (Li et al. 2016), in the tokens
    of BLEU and ROUGE.
    """
    answers = [row.prediction for row in predictions]
    references = [row.reference for row in predictions]
    segmenter = choose_segmenter(references)
    figures = {}
    tokens = [segmenter.split(answer) for answer in answers]
    for order in (1, 2):
        grams = [
            tuple(words[i : i + order]) for words in tokens for i in range(len(words) - order + 1)
        ]
        if grams:
            figures[f"distinct_{order}"] = _figure(
                100.0 * len(set(grams)) / len(grams),
                f"different of all {order}-grams|tokens:{segmenter.signature}",
            )
    if answers:
        different = len({_collapsed(answer) for answer in answers})
        figures["distinct_answers"] = _figure(
            100.0 * different / len(answers), "different of all answers|NFC, spaces collapsed"
        )
    return figures | (_level_mix(answers, "") if _hold_hangul(references) else {})


def data_figures(texts: Sequence[str], prefix: str) -> dict[str, Figure]:
    """Speech levels and particle errors of references or training responses, under PREFIX_NAME;
    empty where they hold no Hangul."""
    step = -(-len(texts) // MOST_TEXTS) or 1
    drawn = texts[::step]
    if not _hold_hangul(drawn):
        return {}
    which = "" if step == 1 else f"|1 text in {step}"
    figures = _level_mix(drawn, which)
    signature = particles_signature()
    if signature is not None:
        wrong, checked = np.sum([_particles(text) for text in drawn], axis=0)
        if checked:
            figures["particle_errors"] = _figure(
                100.0 * float(wrong / checked), f"per 100 checked|{signature}{which}"
            )
    return {f"{prefix}_{name}": figure for name, figure in figures.items()}


def _level_mix(texts: Sequence[str], which: str) -> dict[str, Figure]:
    levels = Counter(chain.from_iterable(map(levels_of, texts)))
    number = levels.total()
    return {
        f"speech_level_{level}": _figure(
            100.0 * levels[level] / number, f"of all sentences|by their endings{which}"
        )
        for level in LEVELS
        if number
    }


# --- one answer


def repetition_of_characters(text: str) -> float:
    """Share in % of a text's 16-character runs that stood in it before."""
    runs = _runs(_nfc(text), REPETITION_CHARACTERS)
    return 100.0 * (1.0 - len(set(runs)) / len(runs)) if runs else 0.0


def ends_in_loop(text: str) -> bool:
    """Whether the end is one unit three times in a row or more often, the last one perhaps cut."""
    text = " ".join(_nfc(text).split())
    # With the space that would follow, "네. 네. 네." is three times "네. ".
    return any(_is_loop(end) for end in (text, text + " "))


def _is_loop(text: str) -> bool:
    for period in range(1, len(text) // LOOP_UNITS + 1):
        if period > 1 and len(set(text[-period:])) == 1:
            continue
        length = period
        while length < len(text) and text[-1 - length] == text[-1 - length + period]:
            length += 1
        least = LOOP_SINGLE_CHARACTERS if period == 1 else LOOP_CHARACTERS
        if length >= max(LOOP_UNITS * period, least):
            return True
    return False


def is_echo(row: Prediction) -> bool:
    """Whether the answer says the prompt, or a line or part of it, again.

    Not where copying is right: the answer equals the reference, or the reference is such an echo.
    """
    if _collapsed(row.prediction) == _collapsed(row.reference):
        return False
    return _echoes(row.prediction, row.prompt) and not _echoes(row.reference, row.prompt)


def _echoes(text: str, prompt: str) -> bool:
    answer, asked = _plain(text), _plain(prompt)
    if not answer:
        return False
    if answer in {asked, *map(_plain, prompt.splitlines())}:
        return True
    runs = _runs(answer, ECHO_RUN)
    known = set(_runs(asked, ECHO_RUN))
    found = sum(run in known for run in runs)
    return len(answer) >= ECHO_CHARACTERS and found >= ECHO_SHARE * len(runs)


def _repetitions(predictions: Sequence[Prediction]) -> tuple[list[float], str]:
    """Repetition of each answer in %, and what it is counted in."""
    if any(row.num_new_tokens for row in predictions):
        return [row.repetition for row in predictions], f"{REPETITION_TOKENS}-token runs"
    counted = [repetition_of_characters(row.prediction) for row in predictions]
    return counted, f"{REPETITION_CHARACTERS}-character runs"


def _ended(row: Prediction) -> Part:
    return row.stopped == "end", row.stopped != "unknown"


def _has_other_script(row: Prediction) -> bool:
    expected = count_scripts(row.prompt).keys() | count_scripts(row.reference).keys()
    return bool(count_scripts(row.prediction).keys() - expected)


def _is_exact(row: Prediction) -> bool:
    return _collapsed(row.prediction) == _collapsed(row.reference)


def _hangul(row: Prediction) -> Part:
    scripts = count_scripts(row.prediction)
    return scripts.get("hangul", 0), sum(scripts.values())


def _one_level(row: Prediction) -> Part:
    """반말 moves between hae and haera (봤어. 가자!), so they do not break a level."""
    levels = {"hae" if level == "haera" else level for level in levels_of(row.prediction)}
    levels.discard("none")
    return len(levels) == 1, len(levels) > 0


def _level_match(row: Prediction) -> Part:
    wanted = main_level(row.reference)
    return wanted is not None and main_level(row.prediction) == wanted, wanted is not None


def main_level(text: str) -> Level | None:
    """The level of most sentences that have one, the later level of two as frequent; or None."""
    levels = [level for level in levels_of(text) if level != "none"]
    counts = Counter(reversed(levels))
    return counts.most_common(1)[0][0] if counts else None


def _particles(text: str) -> Part:
    count = particle_errors(text)
    return (count.num_wrong, count.num_checked) if count else (0, 0)


# --- texts and records


def _hold_hangul(texts: Iterable[str]) -> bool:
    return any("hangul" in count_scripts(text) for text in texts)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _length(text: str) -> int:
    return len(_nfc(text))


def _collapsed(text: str) -> str:
    """NFC, without spaces at the ends, with one space for each run of them."""
    return " ".join(_nfc(text).split())


def _plain(text: str) -> str:
    """Letters and digits alone, in lower case: what spaces and punctuation cannot hide."""
    return "".join(filter(str.isalnum, _nfc(text).lower()))


def _runs(text: str, length: int) -> list[str]:
    return [text[i : i + length] for i in range(len(text) - length + 1)]


def _each(parts: Iterable[float], unit: float = 1.0) -> list[Part]:
    """A part of every answer, the answer itself as its whole."""
    return [(part * unit, 1.0) for part in parts]


def _metric(
    name: str, how: str, better: Better, parts: Iterable[Part], *, score: Score = share
) -> Metric:
    return Metric(
        name=name,
        signature=f"{how}|honing:{VERSION}",
        better=better,
        unit="0–100" if score is share else "ratio",
        statistics=np.array(list(parts), np.float64).reshape(-1, 2),
        score=score,
    )


def _figure(value: float, how: str) -> Figure:
    return Figure(value, f"{how}|honing:{VERSION}")
