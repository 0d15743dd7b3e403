"""Rows to splits of tokens: who goes where, what is dropped, cut and refused, and what leaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from honing.config import ColumnNames, DataConfig, SplitFiles
from honing.data.encode import IGNORE, Tokens, join_pieces
from honing.data.example import Example, Exchange
from honing.data.prepare import (
    EncodedSplit,
    PreparedData,
    encode_examples,
    fingerprint,
    prepare_data,
)
from honing.data.reading.read import DroppedRow
from honing.data.text_model import TextModel
from honing.errors import UserError
from tests.runs import qa_rows, save_rows, tiny_text
from tests.tiny import tiny_encoder, tiny_tokenizer


def prepared(
    source: Any, *, seed: int = 42, text: TextModel | None = None, **settings: Any
) -> PreparedData:
    data = DataConfig(source=source, **{"max_length": 64, **settings})
    return prepare_data(data, seed, text or tiny_text())


def error_of(source: Any, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        prepared(source, **settings)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def rows_of(data: PreparedData) -> dict[str, list[int]]:
    return {name: [e.row for e in split.examples] for name, split in data.splits.items()}


def row(instruction: str, output: str, **more: Any) -> dict[str, Any]:
    return {"instruction": instruction, "output": output, **more}


@pytest.fixture
def twelve(tmp_path: Path) -> str:
    return save_rows(tmp_path / "rows.jsonl", qa_rows())


# --- what a row becomes


def test_ids_and_labels_of_a_row_exactly(tmp_path: Path) -> None:
    source = save_rows(tmp_path / "a.jsonl", [row("hi", "Hello")])
    data = prepared(source, val_fraction=0.0, test_fraction=0.0)
    (tokens,) = data.train.tokens
    encode, eos = tiny_encoder().encode, tiny_tokenizer().eos_token_id
    before, asked, after, answer = encode(
        ["### Instruction:\n", "hi", "\n\n### Response:\n", "Hello"], True
    )
    ids = (*before, *asked, *after, *answer, eos)
    num_asked = len(before) + len(asked) + len(after)
    assert tokens == Tokens("a.jsonl:1", ids, (IGNORE,) * num_asked + ids[num_asked:])
    assert (data.val, data.test) == (EncodedSplit((), ()), EncodedSplit((), ()))
    assert (data.report.num_read, data.report.num_kept, data.report.dropped) == (1, 1, {})


# --- splits


@pytest.mark.parametrize("split", ["grouped", "random"])
def test_splits_of_rows_that_do_not_resemble_each_other(twelve: str, split: str) -> None:
    data = prepared(twelve, split=split, val_fraction=0.25, test_fraction=0.25)
    assert rows_of(data) == {"train": [2, 3, 5, 6, 9, 11], "val": [4, 10, 12], "test": [1, 7, 8]}
    for part in data.splits.values():
        assert [tokens.example_id for tokens in part.tokens] == [e.id for e in part.examples]
    report = data.report
    assert [shown.id for shown in report.shown_rows] == [
        "rows.jsonl:2",
        "rows.jsonl:3",
        "rows.jsonl:5",
    ]
    assert report.num_groups == (12 if split == "grouped" else None)
    assert {name: part.num_rows for name, part in report.splits.items()} == {
        "train": 6,
        "val": 3,
        "test": 3,
    }
    assert {name: (leak.num_rows, leak.num_leaked) for name, leak in report.leaks.items()} == {
        "val": (3, 0),
        "test": (3, 0),
    }


def test_the_split_is_a_function_of_the_seed(twelve: str) -> None:
    assert rows_of(prepared(twelve, seed=1)) == rows_of(prepared(twelve, seed=1))
    assert rows_of(prepared(twelve, seed=1)) != rows_of(prepared(twelve, seed=2))


def test_rows_of_one_group_stay_together(tmp_path: Path) -> None:
    rows = [{**each, "topic": f"t{place // 3}"} for place, each in enumerate(qa_rows())]
    source = save_rows(tmp_path / "rows.jsonl", rows)
    data = prepared(source, group_by="topic", val_fraction=0.25, test_fraction=0.25)
    groups = [{e.group for e in split.examples} for split in data.splits.values()]
    assert [len(part) for part in groups] == [2, 1, 1]
    assert len(set.union(*groups)) == 4
    assert data.report.num_groups == 4


def test_a_split_that_was_asked_for_is_not_empty(tmp_path: Path) -> None:
    source = save_rows(tmp_path / "a.jsonl", qa_rows(3))
    assert error_of(source).startswith("data.val_fraction: 0.1 of 3 rows is less than one row")
    assert rows_of(prepared(source, val_fraction=0.0, test_fraction=0.0))["train"] == [1, 2, 3]


def test_max_rows_takes_a_seeded_slice_of_the_training_rows(twelve: str) -> None:
    def sliced(seed: int, max_rows: int | None) -> PreparedData:
        return prepared(twelve, seed=seed, max_rows=max_rows, split="random")

    whole, part = sliced(42, None), sliced(42, 4)
    assert rows_of(part) == {"train": [2, 3, 6, 12], "val": rows_of(whole)["val"], "test": [1]}
    assert rows_of(sliced(42, 4)) == rows_of(part)
    assert rows_of(sliced(43, 4))["train"] != rows_of(part)["train"]
    assert set(rows_of(part)["train"]) < set(rows_of(whole)["train"])
    assert part.report.notes == ("learning from 4 of 10 training rows (data.max_rows)",)
    assert sliced(42, 10).report.notes == ()
    assert part.report.num_kept == 12


# --- the bundled samples


@pytest.mark.parametrize("source", ["sample", "sample-10"])
def test_a_random_split_of_a_sample_leaks_and_the_warning_says_so(source: str) -> None:
    text = tiny_text(context_length=1024)
    data = prepared(source, text=text, split="random", max_length=512)
    assert [len(split.tokens) for split in data.splits.values()] == [800, 100, 100]
    leak = data.report.leaks["val"]
    assert (leak.num_rows, leak.num_leaked, len(leak.leaked_ids)) == (100, 100, 100)
    warning = data.report.warnings[0]
    assert warning.startswith("100 of 100 val rows have a twin in train, so their loss measures")
    assert warning.endswith("use data.split=grouped, or data.on_leak=drop")
    if source == "sample-10":
        assert leak.num_by_kind == {"same prompt": 100}


def test_a_grouped_split_of_a_sample_does_not_leak() -> None:
    text = tiny_text(context_length=1024)
    data = prepared("sample", text=text, max_length=512)
    assert [len(split.tokens) for split in data.splits.values()] == [800, 100, 100]
    assert {name: leak.num_leaked for name, leak in data.report.leaks.items()} == {
        "val": 0,
        "test": 0,
    }
    assert data.report.num_groups == 60
    assert (data.report.shape, data.report.num_read) == ("the bundled sample set", 1000)
    ten = prepared("sample-10", text=text, max_length=512)
    assert [len(split.tokens) for split in ten.splits.values()] == [804, 98, 98]
    assert all(leak.num_leaked == 0 for leak in ten.report.leaks.values())


# --- splits that the user made, and what leaks from one to the other


@pytest.fixture
def leaking(tmp_path: Path) -> SplitFiles:
    """Three validation rows: one asks what training asks, one gives its long answer."""
    answer = "물은 섭씨 100도에서 끓기 시작하고 김이 됩니다."
    train = [row("수도는?", "서울"), row("물은 언제 끓나요?", answer), row("hi", "Hello")]
    val = [row("2 + 3", "5"), row("수도는?", "서울입니다"), row("끓는 물", answer)]
    return SplitFiles(
        train=save_rows(tmp_path / "train.jsonl", train),
        val=save_rows(tmp_path / "val.jsonl", val),
    )


def test_a_leak_between_the_users_own_splits_is_reported(leaking: SplitFiles) -> None:
    data = prepared(leaking, max_length=128)
    assert rows_of(data) == {"train": [1, 2, 3], "val": [1, 2, 3], "test": []}
    assert set(data.report.splits) == {"train", "val"}
    leak = data.report.leaks["val"]
    assert (leak.num_rows, leak.num_leaked) == (3, 2)
    assert leak.num_by_kind == {"same prompt": 1, "same response": 1}
    assert leak.leaked_ids == ("val.jsonl:2", "val.jsonl:3")
    first = leak.examples[0]
    assert (first["held_out_id"], first["train_id"]) == ("val.jsonl:2", "train.jsonl:1")
    assert data.report.warnings[0] == (
        "2 of 3 val rows have a twin in train, so their loss measures memory, not learning. For "
        "example val.jsonl:2 and train.jsonl:1 (same prompt): '수도는?' / '수도는?'. "
        "use data.on_leak=drop"
    )
    assert data.report.num_groups is None


def test_rows_that_leak_can_be_dropped(leaking: SplitFiles) -> None:
    data = prepared(leaking, max_length=128, on_leak="drop")
    assert rows_of(data)["val"] == [1]
    assert data.report.leaks["val"].num_leaked == 2
    assert data.report.notes == ("2 val rows with a twin in train were dropped (data.on_leak)",)
    assert not any("twin" in warning for warning in data.report.warnings)
    assert data.report.splits["val"].num_rows == 1


def test_a_leak_can_be_an_error(leaking: SplitFiles, twelve: str) -> None:
    assert error_of(leaking, max_length=128, on_leak="error") == (
        "data.on_leak: 2 of 3 val rows have a twin in train (val.jsonl:2 and train.jsonl:1: "
        "same prompt); use data.on_leak=drop"
    )
    assert prepared(twelve, on_leak="error").report.warnings == prepared(twelve).report.warnings


def test_dropping_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    rows = qa_rows(2)
    files = {name: save_rows(tmp_path / f"{name}.jsonl", rows) for name in ("train", "test")}
    assert error_of(SplitFiles(**files), on_leak="drop") == (
        "data.on_leak: drop would leave no test row: all of 2 have a twin in train; use other "
        "held-out rows, or data.split=grouped over all rows together"
    )


# --- too long


def test_an_answer_that_does_not_fit_is_dropped_with_its_row(tmp_path: Path) -> None:
    rows = [*qa_rows(2), row("long", "가나다라마바사아자차카타파하 " * 5), *qa_rows(4)[2:]]
    source = save_rows(tmp_path / "a.jsonl", rows)
    data = prepared(source, val_fraction=0.0, test_fraction=0.0)
    assert rows_of(data)["train"] == [1, 2, 4, 5]
    reason = "answer does not fit into 64 tokens"
    assert data.report.dropped == {reason: {"num_rows": 1, "rows": ["a.jsonl:3"]}}
    assert (data.report.num_read, data.report.num_kept) == (5, 4)


def test_no_answer_that_fits_is_an_error(tmp_path: Path) -> None:
    long = [row(f"q{n}", "아주 긴 답 " * 40) for n in range(3)]
    where = "none of 3 rows can be used, since no answer fits into 64 tokens; raise data.max_length"
    files = {
        "train": save_rows(tmp_path / "train.jsonl", qa_rows()),
        "val": save_rows(tmp_path / "val.jsonl", long),
    }
    assert error_of(files["val"]) == f"data.source: {where}"
    assert error_of(SplitFiles(**files)) == f"data.source (val): {where}"


def test_a_long_prompt_is_cut_from_the_left_of_its_input(tmp_path: Path) -> None:
    source = save_rows(tmp_path / "a.jsonl", [row("hi", "Hello", input="0123456789" * 9)])
    text = tiny_text()
    data = prepared(source, text=text, val_fraction=0.0, test_fraction=0.0)
    (tokens,) = data.train.tokens
    assert len(tokens.ids) == 64
    whole = prepared(source, max_length=200, val_fraction=0.0, test_fraction=0.0).train.tokens[0]
    assert tokens.num_cut == len(whole.ids) - 64 > 0
    split = data.report.splits["train"]
    assert (split.num_cut_rows, split.cut_rows) == (1, ("a.jsonl:1",))
    assert split.num_cut_tokens == tokens.num_cut
    assert text.decode(tokens.ids).endswith("789\n\n### Response:\nHello<|end|>")


@pytest.mark.parametrize("template", ["instruction", "chat"])
def test_a_long_chat_loses_its_oldest_turns(template: str) -> None:
    text = tiny_text(template)
    chat = Example(
        "chat:1",
        tuple(Exchange(f"question {n} {'0123456789' * 3}", f"answer {n}") for n in range(4)),
        row=1,
    )

    def encoded(example: Example, max_length: int) -> Tokens:
        split, dropped = encode_examples([example], DataConfig(max_length=max_length), text)
        assert (split.examples, dropped) == ((example,), [])
        return split.tokens[0]

    whole = encoded(chat, 1000)
    assert whole.num_cut == 0
    for num_lost in (1, 2, 3):
        newer = encoded(replace(chat, exchanges=chat.exchanges[num_lost:]), 1000)
        for room in (0, 5):
            kept = encoded(chat, len(newer.ids) + room)
            assert (kept.ids, kept.labels) == (newer.ids, newer.labels)
            assert kept.num_cut == len(whole.ids) - len(newer.ids)
    # The last question alone is still too long: cut from its left, like any other.
    shorter = encoded(chat, len(newer.ids) - 5)
    assert len(shorter.ids) == len(newer.ids) - 5
    assert shorter.ids[-20:] == newer.ids[-20:]
    assert shorter.num_cut == len(whole.ids) - len(shorter.ids)


def test_rows_stay_in_order_whichever_were_cut() -> None:
    long = Example("a:1", (Exchange("0123456789" * 3, "b"), Exchange("c", "d")), row=1)
    short = Example("a:2", (Exchange("a", "b"),), row=2)
    last = replace(long, id="a:3", row=3)
    split, _ = encode_examples([long, short, last], DataConfig(max_length=50), tiny_text())
    assert split.examples == (long, short, last)
    assert [tokens.num_cut > 0 for tokens in split.tokens] == [True, False, True]


def test_a_chat_whose_last_answer_does_not_fit_is_dropped() -> None:
    chat = Example("chat:1", (Exchange("a", "b"), Exchange("c", "길다 " * 40)), row=1)
    fits = Example("chat:2", (Exchange("a", "b"),), row=2)
    split, dropped = encode_examples([chat, fits], DataConfig(max_length=40), tiny_text())
    assert split.examples == (fits,)
    assert dropped == [DroppedRow("chat:1", 1, "answer does not fit into 40 tokens")]


def test_max_length_above_the_context_is_an_error(twelve: str) -> None:
    assert error_of(twelve, max_length=257) == (
        "data.max_length: 257, but tiny knows only 256 positions; set data.max_length=256 or less"
    )
    assert prepared(twelve, text=tiny_text(context_length=None), max_length=9999)


# --- nothing to learn


def test_no_end_token_is_an_error(twelve: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextModel, "end_ids", lambda self: (1,))
    assert error_of(twelve) == (
        "data: no training row ends in an end token that is learnt, so answers would never stop; "
        "use another data.template"
    )


def test_no_supervised_token_is_an_error(twelve: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlearnt(*arguments: Any) -> list[Tokens]:
        rows = join_pieces(*arguments)
        return [replace(r, labels=(IGNORE,) * len(r.ids)) for r in rows if isinstance(r, Tokens)]

    monkeypatch.setattr("honing.data.encode_batches.join_pieces", unlearnt)
    assert error_of(twelve) == (
        "data: no token of any training row would be learnt; check data.supervise"
    )


# --- fingerprint


def test_the_fingerprint_changes_with_every_id_and_label() -> None:
    def of(train: Tokens, val: tuple[Tokens, ...] = (), test: tuple[Tokens, ...] = ()) -> str:
        split = {"train": (train,), "val": val, "test": test}
        return fingerprint({name: EncodedSplit((), rows) for name, rows in split.items()})

    tokens = Tokens("a", (5, 6, 7), (IGNORE, 6, 7))
    same = Tokens("b", (5, 6, 7), (IGNORE, 6, 7), num_cut=3)
    assert of(tokens) == of(same)
    others = [
        of(replace(tokens, ids=(5, 6, 8))),
        of(replace(tokens, ids=(4, 6, 7))),
        of(replace(tokens, labels=(IGNORE, IGNORE, 7))),
        of(replace(tokens, ids=(5, 6), labels=(IGNORE, 6))),
        of(tokens, val=(tokens,)),
        of(tokens, test=(tokens,)),
    ]
    assert len({of(tokens), *others}) == 7


# --- settings that are handed on to the reader


def test_columns_encoding_and_group_are_the_configurations(tmp_path: Path) -> None:
    table = "질의,대답,주제\n물은?,H2O,화학\n수도는?,서울,지리\n".encode("cp949")
    (tmp_path / "a.csv").write_bytes(table)
    data = prepared(
        str(tmp_path / "a.csv"),
        columns=ColumnNames(instruction="질의", output="대답"),
        encoding="cp949",
        group_by="주제",
        val_fraction=0.0,
        test_fraction=0.0,
    )
    exchanges = [e.exchanges[0] for e in data.train.examples]
    assert exchanges == [Exchange("물은?", "H2O"), Exchange("수도는?", "서울")]
    assert [e.group for e in data.train.examples] == ["화학", "지리"]
    assert data.report.repaired == {}


def test_repairs_of_all_files_are_added_up(tmp_path: Path) -> None:
    for name in ("a", "b"):
        text = "".join(json.dumps(each) + "\r\n" for each in qa_rows(3))
        (tmp_path / f"{name}.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    names = SplitFiles(train=str(tmp_path / "a.jsonl"), test=str(tmp_path / "b.jsonl"))
    data = prepared(names)
    assert data.report.repaired == {"BOM": 2, "CRLF": 2}
    assert json.loads(data.report.source) == {"train": names.train, "test": names.test}
    assert data.report.shape == "alpaca"
