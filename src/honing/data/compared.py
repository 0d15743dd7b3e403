"""What of each row is compared with other rows: worked out once, for split, audit and report."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path

import numpy as np

from honing.data.example import Example
from honing.data.minhash import MAX_CHARS, Hashes, Ints, normalise
from honing.data.stored import PiecesWriter, StoredTexts, taken

LONG_RESPONSE_CHARS = 20  # as written; a shorter one is a class label or a phrase, and repeats


@dataclass(frozen=True)
class Compared:
    """For each row hashes of what may equal another row's; 0 where there is nothing to compare.

    64 bits each: a false match in a million rows has a probability of 3e-8.
    rows: prompt and response. responses: normalised, long ones only.
    first, second: instruction and input, normalised and cut to MAX_CHARS; of a chat all turns but
    the last answer, and nothing. first_texts, second_texts: those texts.
    both: the two together.
    """

    prompts: Hashes
    rows: Hashes
    normalised_prompts: Hashes
    responses: Hashes
    groups: Hashes
    first: Hashes
    second: Hashes
    both: Hashes
    first_texts: Sequence[str]
    second_texts: Sequence[str]

    def take(self, places: Sequence[int] | Ints) -> Compared:
        """What is compared of the rows at some places, in their order."""
        at = np.asarray(places, np.int64)
        return Compared(
            **{name: getattr(self, name)[at] for name in _HASHES},
            first_texts=taken(self.first_texts, at),
            second_texts=taken(self.second_texts, at),
        )


_HASHES = tuple(field.name for field in fields(Compared) if not field.name.endswith("_texts"))


def compare(examples: Iterable[Example], folder: Path | None = None) -> Compared:
    """Work it out for some examples. folder: where the texts lie; None keeps them in memory."""
    hashes = {name: array("Q") for name in _HASHES}
    texts: list[list[str]] = [[], []]
    files = [PiecesWriter(folder / f"compared-{n}.txt") for n in (1, 2)] if folder else []
    for example in examples:
        keys, parts = _of_one(example)
        for values, key in zip(hashes.values(), keys, strict=True):
            values.append(key)
        for part, file in zip(parts, files, strict=False):
            file.append(part.encode("utf-8", "surrogatepass"))
        if folder is None:
            texts[0].append(parts[0])
            texts[1].append(parts[1])
    for file in files:
        file.close()
    stored: list[Sequence[str]] = [tuple(part) for part in texts]
    if folder:
        stored = [StoredTexts(file.pieces, *file.places()) for file in files]
    return Compared(
        **{name: np.array(values, np.uint64) for name, values in hashes.items()},
        first_texts=stored[0],
        second_texts=stored[1],
    )


def _of_one(example: Example) -> tuple[tuple[int, ...], tuple[str, str]]:
    """The hashes of one example, in the order of the fields, and its two texts."""
    prompt, response = example.prompt_text, example.response_text
    normalised = normalise(prompt)
    exchange = example.exchanges[0]
    if len(example.exchanges) > 1:
        turns = [text for e in example.exchanges for text in (e.instruction, e.input, e.output)]
        first, second = normalise("\n".join(turns[:-1]))[:MAX_CHARS], ""
    else:
        plain = normalised if exchange.instruction == prompt else normalise(exchange.instruction)
        first, second = plain[:MAX_CHARS], normalise(exchange.input)[:MAX_CHARS]
    is_long = len(response.strip()) >= LONG_RESPONSE_CHARS
    keys = (
        text_key(prompt),
        text_key(f"{prompt}\x1f{response}"),
        text_key(normalised),
        text_key(normalise(response) if is_long else ""),
        text_key(example.group or ""),
        text_key(first),
        text_key(second),
        text_key(f"{first}\x1f{second}" if first or second else ""),
    )
    return keys, (first, second)


def text_keys(texts: Iterable[str]) -> Hashes:
    """A hash of each text, the same in every process; 0 for an empty one."""
    return np.fromiter((text_key(text) for text in texts), np.uint64)


def text_key(text: str) -> int:
    if not text:
        return 0
    encoded = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")
