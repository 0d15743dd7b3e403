"""Rows → train, validation and test. A grouped split never parts rows that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from honing.data.example import Example
from honing.data.groups import CUT_BACK_SHARE, LABEL_SHARE, Groups, group_rows
from honing.data.minhash import Ints
from honing.errors import UserError

# Of at most this many seeded orders of the groups, the one that comes closest to the asked sizes.
NUM_ORDERS = 16
SIZE_TOLERANCE = 0.1  # of the asked size, or one row: what differs by more is said


@dataclass(frozen=True)
class Split:
    """Indices into the examples, each tuple ascending; together every row once.

    `num_cut_back_components` components of near-equal prompts were above 5 % of the rows and fell
    back to their groups of equal prompts, long responses and `group` fields; they held
    `num_cut_back_rows` rows. `notes` are sentences for the user.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    num_groups: int
    num_cut_back_components: int
    num_cut_back_rows: int
    notes: tuple[str, ...]


def split_examples(
    examples: Sequence[Example],
    *,
    how: Literal["grouped", "random"],
    val_fraction: float,
    test_fraction: float,
    seed: int,
    groups: Groups | None = None,
) -> Split:
    """Split the rows, as a function of the examples and the seed alone.

    `grouped` keeps rows together that are near enough to give each other's answers away (groups.py
    says which); `random` deals single rows. groups: those that were found
    already. Raises UserError where a part that was asked for, or
    train, would be empty.
    """
    asked = {
        "val": round(len(examples) * val_fraction),
        "test": round(len(examples) * test_fraction),
    }
    for part, fraction in (("val", val_fraction), ("test", test_fraction)):
        if fraction > 0 and asked[part] == 0:
            raise UserError(
                f"data.{part}_fraction: {fraction:g} of {len(examples)} rows is less than one row; "
                f"raise it, add rows, or set it to 0"
            )
    if sum(asked.values()) >= len(examples):
        raise UserError(
            f"data.val_fraction, data.test_fraction: {val_fraction:g} and {test_fraction:g} of "
            f"{len(examples)} rows leave none to train on; lower them"
        )
    if how == "random":
        return _random_split(len(examples), asked, seed)
    return _grouped_split(groups or group_rows(examples), asked, seed)


def _random_split(num_rows: int, asked: dict[str, int], seed: int) -> Split:
    order = np.random.default_rng(seed).permutation(num_rows)
    test, val, train = np.split(order, np.cumsum([asked["test"], asked["val"]]))
    return Split(_ascending(train), _ascending(val), _ascending(test), num_rows, 0, 0, ())


def _grouped_split(groups: Groups, asked: dict[str, int], seed: int) -> Split:
    _, group_of, sizes = np.unique(groups.heads, return_inverse=True, return_counts=True)
    _refuse_too_few_groups(len(sizes), len(groups.heads), asked)
    part_of = _deal(sizes.tolist(), asked, seed)[group_of]
    train, val, test = (_ascending(np.flatnonzero(part_of == part)) for part in (0, 1, 2))
    got = {"val": len(val), "test": len(test)}
    return Split(
        train,
        val,
        test,
        len(sizes),
        groups.num_cut_back_components,
        groups.num_cut_back_rows,
        (*_group_notes(groups), *_size_notes(asked, got, int(sizes.max()))),
    )


def _ascending(rows: Ints) -> tuple[int, ...]:
    return tuple(np.sort(rows).tolist())


def _refuse_too_few_groups(num_groups: int, num_rows: int, asked: dict[str, int]) -> None:
    parts = [part for part in asked if asked[part]]
    if num_groups > len(parts):
        return
    raise UserError(
        f"{', '.join(f'data.{part}_fraction' for part in parts)}: the {num_rows:,} rows make only "
        f"{_counted(num_groups, 'group')} of rows that belong together, too few for train and "
        f"{' and '.join(parts)}; add rows that differ, set it to 0, or use data.split=random"
    )


def _deal(sizes: list[int], asked: dict[str, int], seed: int) -> Ints:
    """The part of each group, 0 train, 1 val, 2 test: of some seeded orders the best fit."""
    rng = np.random.default_rng(seed)
    best, fewest_off = np.zeros(len(sizes), np.int64), None
    for _ in range(NUM_ORDERS):
        order = rng.permutation(len(sizes)).tolist()
        test = _pick(order, sizes, asked["test"], len(order) - 1 - (asked["val"] > 0))
        taken = set(test)
        order = [group for group in order if group not in taken]
        val = _pick(order, sizes, asked["val"], len(order) - 1)
        off = abs(sum(sizes[group] for group in test) - asked["test"])
        off += abs(sum(sizes[group] for group in val) - asked["val"])
        if fewest_off is None or off < fewest_off:
            best, fewest_off = np.zeros(len(sizes), np.int64), off
            best[val], best[test] = 1, 2
        if off == 0:
            break
    return best


def _pick(order: list[int], sizes: list[int], asked: int, most: int) -> list[int]:
    """At most `most` groups whose sizes come close to `asked`: each in turn that still fits.

    The smallest of the others is added where that comes closer, or where nothing fitted.
    """
    picked: list[int] = []
    missing = asked
    for group in order:
        if missing == 0 or len(picked) == most:
            return picked
        if sizes[group] <= missing:
            picked.append(group)
            missing -= sizes[group]
    if missing and len(picked) < most:
        taken = set(picked)
        smallest = min((group for group in order if group not in taken), key=sizes.__getitem__)
        if not picked or sizes[smallest] - missing < missing:
            picked.append(smallest)
    return picked


def _group_notes(groups: Groups) -> list[str]:
    num_rows = len(groups.heads)
    notes = []
    if groups.num_cut_back_components:
        notes.append(
            f"{groups.num_cut_back_rows:,} of {num_rows:,} rows hang together by near-equal "
            f"prompts in {_counted(groups.num_cut_back_components, 'component')} above "
            f"{CUT_BACK_SHARE:.0%} of the rows: there, only equal prompts, equal long responses "
            "and groups were kept together"
        )
    if groups.num_label_rows:
        notes.append(
            f"{groups.num_label_rows:,} of {num_rows:,} rows share their long response with more "
            f"than {LABEL_SHARE:.0%} of the rows: it was taken for a label and joins no rows"
        )
    return notes


def _size_notes(asked: dict[str, int], got: dict[str, int], largest: int) -> list[str]:
    return [
        f"{part} has {_counted(got[part], 'row')} where {asked[part]:,} were asked for: rows that "
        f"belong together were not parted, and the largest group has {_counted(largest, 'row')}"
        for part in asked
        if abs(got[part] - asked[part]) > max(1, SIZE_TOLERANCE * asked[part])
    ]


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
