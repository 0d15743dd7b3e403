"""The bundled sample data: small Korean instruction sets that need no file and no network.

`sample` is 1,000 different rows of sixty templates. `sample-10` is what the first draft had:
1,000 rows of ten templates, of which only 70 differ.
"""

from __future__ import annotations

from itertools import cycle, islice
from random import Random

from honing.data.example import Example, Exchange
from honing.data.sample_rows.first_draft import FIRST_DRAFT_PATTERNS
from honing.data.sample_rows.knowledge import KNOWLEDGE_PATTERNS
from honing.data.sample_rows.numbers import NUMBER_PATTERNS
from honing.data.sample_rows.texts import TEXT_PATTERNS
from honing.data.sample_rows.words import WORD_PATTERNS
from honing.errors import UserError

PATTERNS_OF = {
    "sample": KNOWLEDGE_PATTERNS + TEXT_PATTERNS + WORD_PATTERNS + NUMBER_PATTERNS,
    "sample-10": FIRST_DRAFT_PATTERNS,
}
SAMPLE_SOURCES = tuple(PATTERNS_OF)
NUM_ROWS = 1_000
ORDER_SEED = 20


def sample_examples(source: str) -> tuple[Example, ...]:
    """The 1,000 rows of a sample source, always the same and in the same shuffled order.

    `group` is the name of the template, so that a grouped split parts templates, not rows.
    """
    if source not in PATTERNS_OF:
        raise UserError(f"no sample named {source!r}; there are {', '.join(SAMPLE_SOURCES)}")
    written = [
        (pattern.name, each) for pattern in PATTERNS_OF[source] for each in pattern.exchanges()
    ]
    # A set of fewer rows than 1,000 goes round again: those are the twins of `sample-10`.
    chosen: list[tuple[str, Exchange]] = list(islice(cycle(written), NUM_ROWS))
    Random(ORDER_SEED).shuffle(chosen)
    return tuple(
        Example(id=f"{source}:{row}", exchanges=(exchange,), group=name, row=row)
        for row, (name, exchange) in enumerate(chosen, start=1)
    )
