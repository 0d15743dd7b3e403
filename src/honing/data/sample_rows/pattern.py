"""Pattern: one template of the sample set, and the Korean particles that its words ask for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from honing.data.example import Exchange

Row = tuple[str, ...]
Table = tuple[Row, ...]

# How many of the 28 syllables from 가 on end in which final consonant: none is 0, ㄹ is 8.
FINALS = 28
NO_FINAL = 0
FINAL_RIEUL = 8

# How the last digit of a number is read; 십 serves for 백, 천 and 만, which end in consonants too.
DIGIT_READINGS = dict(zip("0123456789", "십일이삼사오육칠팔구", strict=True))

PARTICLES = re.compile(r"\[(?P<closed>[^/\]]+)/(?P<open>[^/\]]+)\]")
QUOTES = "'\"’”"


@dataclass(frozen=True)
class Pattern:
    """One template: sentences with `{slots}` and `[은/는]` particles, and the rows that fill them.

    `slots` names the columns of `rows`, in order, with spaces between.
    """

    name: str
    slots: str
    instruction: str
    output: str
    rows: Table
    input: str = ""

    def exchanges(self) -> list[Exchange]:
        """Every row of the table, written out."""
        names = self.slots.split()
        return [self._fill(dict(zip(names, row, strict=True))) for row in self.rows]

    def _fill(self, words: dict[str, str]) -> Exchange:
        return Exchange(
            instruction=with_particles(self.instruction.format(**words)),
            output=with_particles(self.output.format(**words)),
            input=with_particles(self.input.format(**words)),
        )


def table(text: str) -> Table:
    """Rows out of a block of text: `|` parts cells, a line end or `;` parts rows."""
    lines = [line for line in re.split(r"[\n;]", text) if line.strip()]
    return tuple(tuple(" ".join(cell.split()) for cell in line.split("|")) for line in lines)


def draw_rows(name: str, count: int, draw: Callable[[Random], Row]) -> Table:
    """`count` different rows. Each template draws from its own seed, so none disturbs another."""
    rng = Random(name)
    rows: dict[Row, None] = {}
    while len(rows) < count:
        rows[draw(rng)] = None
    return tuple(rows)


def with_particles(text: str) -> str:
    """`물[은/는]` becomes `물은`: the first form follows a final consonant, the second a vowel."""
    return PARTICLES.sub(_choose_particle, text)


def _choose_particle(match: re.Match[str]) -> str:
    final = final_consonant(match.string[: match.start()].rstrip(QUOTES)[-1])
    # 으로 is the one particle that takes ㄹ for a vowel: 서울로, 연필로.
    vowel_like = final == NO_FINAL or (final == FINAL_RIEUL and match["open"] == "로")
    return match["open"] if vowel_like else match["closed"]


def final_consonant(character: str) -> int:
    """Number of the final consonant (받침) of a syllable or a digit, 0 for none."""
    syllable = DIGIT_READINGS.get(character, character)
    if not "가" <= syllable <= "힣":
        raise ValueError(f"no particle can follow {character!r}")
    return (ord(syllable) - ord("가")) % FINALS
