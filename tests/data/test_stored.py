"""Rows on disk are the rows in memory: the same data, splits, audits and files, byte by byte."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from honing.config import DataConfig, SplitFiles
from honing.data.audit import audit_compared, audit_leaks
from honing.data.compared import compare
from honing.data.encode import IGNORE, Tokens
from honing.data.example import Example, Exchange
from honing.data.groups import SignatureTable, group_rows, groups_of
from honing.data.prepare import PreparedData, prepare_data
from honing.data.stored import (
    ExampleWriter,
    PiecesWriter,
    StoredExamples,
    StoredTokens,
    TokenWriter,
    counts_of,
    shortest,
    split_lines,
    taken,
    with_ids_from,
)
from tests.data.test_minhash import sentences
from tests.data.test_prepare_splits import MIXED
from tests.runs import qa_rows, save_rows, tiny_text


def both_ways(source: Any, folder: Path, **settings: Any) -> tuple[PreparedData, PreparedData]:
    """The same data prepared in memory and on disk."""
    data = DataConfig(source=source, **{"max_length": 128, **settings})
    text = tiny_text()
    folder.mkdir()
    return prepare_data(data, 42, text), prepare_data(data, 42, text, folder)


def assert_same(in_memory: PreparedData, on_disk: PreparedData) -> None:
    assert on_disk.report == in_memory.report
    for name, expected in in_memory.splits.items():
        found = on_disk.splits[name]
        for mine, theirs in (
            (found.examples, expected.examples),
            (found.tokens, expected.tokens),
        ):
            numbers = range(len(theirs))
            assert tuple(mine) == tuple(theirs) == tuple(mine[number] for number in numbers)
            assert tuple(mine[1:3]) == tuple(theirs[1:3])
            assert tuple(taken(mine, numbers[::-1])) == tuple(theirs[::-1])
        assert [*split_lines(found.examples)] == [*split_lines(expected.examples)]


@pytest.mark.parametrize("kind", MIXED)
def test_every_shape_of_rows(kind: str, tmp_path: Path) -> None:
    source = save_rows(tmp_path / "rows.jsonl", MIXED[kind])
    settings = {"val_fraction": 0.25, "test_fraction": 0.25}
    in_memory, on_disk = both_ways(source, tmp_path / "rows", **settings)
    assert isinstance(on_disk.train.examples, StoredExamples)
    assert isinstance(on_disk.train.tokens, StoredTokens)
    assert_same(in_memory, on_disk)


@pytest.mark.parametrize("settings", [{}, {"on_leak": "drop"}, {"max_rows": 5}])
def test_the_users_own_splits_over_several_files(settings: dict[str, Any], tmp_path: Path) -> None:
    rows = qa_rows()
    shared = {"instruction": rows[0]["instruction"], "output": "서울"}
    long = {"instruction": "길다", "output": "가나다라마바사" * 20}
    names: dict[str, Any] = {
        "train": [
            save_rows(tmp_path / "a.jsonl", rows[:5]),
            save_rows(tmp_path / "b.jsonl", [*MIXED["chats"][:3], *MIXED["chats"][4:7]]),
        ],
        "val": save_rows(tmp_path / "c.jsonl", [shared, *rows[5:8], long]),
        "test": save_rows(tmp_path / "d.jsonl", [*rows[8:], {"instruction": "?", "output": ""}]),
    }
    in_memory, on_disk = both_ways(SplitFiles(**names), tmp_path / "rows", **settings)
    assert in_memory.report.leaks["val"].num_leaked == 3
    assert len(in_memory.report.dropped) == 2
    assert_same(in_memory, on_disk)


def test_rows_can_be_sent_to_another_process(tmp_path: Path) -> None:
    source = save_rows(tmp_path / "rows.jsonl", qa_rows())
    _, on_disk = both_ways(source, tmp_path / "rows")
    assert on_disk.train.tokens[0].ids  # mapped by now
    again = pickle.loads(pickle.dumps(on_disk))
    assert tuple(again.train.tokens) == tuple(on_disk.train.tokens)
    assert tuple(again.train.examples) == tuple(on_disk.train.examples)


# --- groups and audits


def random_examples(seed: int, number: int) -> list[Example]:
    """Sentences that resemble each other, with inputs, groups and equal answers here and there."""
    rng = random.Random(seed)
    texts = sentences(number, seed=seed)
    return [
        Example(
            f"r:{row}",
            (
                Exchange(
                    rng.choice([text, texts[rng.randrange(number)]]),
                    rng.choice(
                        ["네", f"이것은 스무 글자보다 긴 대답입니다. {rng.randrange(number)}"]
                    ),
                    rng.choice(["", "", text[: rng.randrange(1, 30)]]),
                ),
            ),
            group=rng.choice([None, None, None, f"g{rng.randrange(number)}"]),
            row=row,
        )
        for row, text in enumerate(texts, start=1)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_groups_of_stored_rows_are_those_of_rows_in_memory(seed: int, tmp_path: Path) -> None:
    examples = random_examples(seed, 400)
    expected = group_rows(examples)
    found = groups_of(compare(examples, tmp_path), SignatureTable(tmp_path))
    assert np.array_equal(found.heads, expected.heads)
    assert 40 < len(np.unique(expected.heads)) < 390
    assert found.num_cut_back_rows == expected.num_cut_back_rows
    assert found.num_label_rows == expected.num_label_rows


@pytest.mark.parametrize("seed", range(3))
def test_an_audit_with_the_signatures_of_the_split_is_one_of_its_own(
    seed: int, tmp_path: Path
) -> None:
    examples = random_examples(seed, 400)
    compared, table = compare(examples, tmp_path), SignatureTable(tmp_path)
    groups_of(compared, table)
    order = np.random.default_rng(seed).permutation(400)
    train, held_out = ([examples[row] for row in rows] for rows in (order[:300], order[300:350]))
    found = audit_compared(train, held_out, compared.take(order[:350]), table)
    assert found == audit_leaks(train, held_out)
    assert {"same prompt", "near-equal prompt", "same response"} <= found.num_by_kind.keys()


# --- tokens


def written(rows: Sequence[Tokens], folder: Path) -> StoredTokens:
    writer = TokenWriter(folder)
    for row in rows:
        writer.append(row)
    return writer.finish()


ROWS = (
    Tokens("a:1", (0, 0, 7), (IGNORE, 0, 7), num_cut=2),
    Tokens("a:2", (5,), (IGNORE,)),
    Tokens("b:1", (9, 3, 2**31 - 1), (IGNORE, IGNORE, 2**31 - 1)),
    Tokens("b:2", (1, 2), (IGNORE, IGNORE)),
)


def test_tokens_come_back_as_they_were(tmp_path: Path) -> None:
    stored = written(ROWS, tmp_path)
    assert tuple(stored) == ROWS == tuple(stored[place] for place in range(4))
    assert stored[-1] == ROWS[-1]
    with pytest.raises(IndexError):
        stored[4]
    assert (tmp_path / "tokens.int32").stat().st_size == 4 * 9
    more = written(ROWS[:1], tmp_path)  # another split behind it
    assert (tuple(more), tuple(stored)) == (ROWS[:1], ROWS)


def test_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    in_memory, stored = counts_of(ROWS), counts_of(written(ROWS, tmp_path))
    assert stored.lengths.tolist() == in_memory.lengths.tolist() == [3, 1, 3, 2]
    assert stored.num_supervised.tolist() == in_memory.num_supervised.tolist() == [2, 0, 1, 0]
    assert stored.num_cut.tolist() == in_memory.num_cut.tolist() == [2, 0, 0, 0]
    assert stored.last_labels.tolist() == in_memory.last_labels.tolist()
    assert stored.largest_ids.tolist() == in_memory.largest_ids.tolist() == [7, 5, 2**31 - 1, 2]
    assert len(counts_of(()).lengths) == 0


def test_rows_are_found_by_length_and_by_id(tmp_path: Path) -> None:
    stored = written(ROWS, tmp_path)
    for number in (1, 3, 9):
        expected = sorted(ROWS, key=lambda row: len(row.ids))[:number]
        assert [*shortest(stored, number)] == [*shortest(ROWS, number)] == expected
    for first_id, expected in ((7, [ROWS[0], ROWS[2]]), (0, [*ROWS]), (2**31, [])):
        assert [*with_ids_from(stored, first_id)] == expected
        assert [*with_ids_from(ROWS, first_id)] == expected


# --- files


def test_pieces_in_any_order_and_of_any_size(tmp_path: Path) -> None:
    rng = random.Random(0)
    sizes = [0, 3_000_000, *(rng.randrange(60_000) for _ in range(50)), *([3] * 3_000)]
    pieces = [rng.randbytes(size) for size in sizes]
    writer = PiecesWriter(tmp_path / "pieces")
    for piece in pieces:
        writer.append(piece)
    writer.close()
    starts, lengths = writer.places()
    for order in (range(len(pieces)), rng.sample(range(len(pieces)), 500), [0], [7, 7, 0], []):
        at = np.asarray(order, np.int64)
        assert [*writer.pieces.each(starts[at], lengths[at])] == [pieces[place] for place in order]


def test_a_chat_keeps_its_system_text_and_its_group(tmp_path: Path) -> None:
    chat = Example("a:1", (Exchange("q", "r"), Exchange("s", "t")), "be kind", "g", 1)
    plain = Example("a:2", (Exchange("", 'r\n\u2028"', "i"),), "", None, 2)
    writer = ExampleWriter(tmp_path)
    for example in (chat, plain):
        writer.append(example)
    assert tuple(writer.finish()) == (chat, plain)
