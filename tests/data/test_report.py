"""The data report: every figure exact on a tokenizer whose ids can be counted by hand."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from honing.config import DataConfig
from honing.data.audit import LeakAudit, Twin
from honing.data.compared import compare
from honing.data.encode import IGNORE, Tokens
from honing.data.example import Example, Exchange
from honing.data.prepare import prepare_data
from honing.data.reading.read import DroppedRow
from honing.data.report import (
    DataReport,
    LeakReport,
    ShownRow,
    SplitReport,
    format_report,
    percentiles,
    report_dropped,
    report_leaks,
    report_split,
    show_row,
    tokens_per_syllable,
)
from tests.runs import save_rows, tiny_text
from tests.tiny import example, tiny_encoder, tiny_tokenizer

EOS = 0


def tokens(name: str, num_asked: int, num_learnt: int, **more: Any) -> Tokens:
    """num_learnt ids that are learnt, the last of them EOS, after num_asked that are not."""
    ids = (9,) * (num_asked + num_learnt - 1) + (EOS,)
    return Tokens(name, ids, (IGNORE,) * num_asked + ids[num_asked:], **more)


# --- one split


def test_counts_and_shares_of_a_split() -> None:
    unended = Tokens("d", (9, 9, 9, 9), (IGNORE, IGNORE, 9, 9))
    rows = [
        tokens("a", 6, 4),
        tokens("b", 10, 2, num_cut=7),
        tokens("c", 2, 12, num_cut=1),
        unended,
    ]
    examples = [
        example("q", "x"),
        example("q", "y"),
        example("q", "x"),
        Example("d", (Exchange("q", "x"),), system="s"),
    ]
    assert report_split(compare(examples), rows, (EOS, 2)) == SplitReport(
        num_rows=4,
        num_tokens=40,
        num_supervised=20,
        share_supervised=50.0,
        share_ending_in_eos=75.0,
        num_cut_rows=2,
        cut_rows=("b", "c"),
        num_cut_tokens=8,
        length_percentiles={"p5": 4, "p25": 4, "p50": 10, "p75": 12, "p95": 14, "p100": 14},
        response_percentiles={"p5": 2, "p25": 2, "p50": 2, "p75": 4, "p95": 12, "p100": 12},
        num_equal_rows=1,
        num_equal_prompts=2,
    )


def test_the_first_twenty_rows_that_were_cut_are_named() -> None:
    rows = [tokens(f"r{n}", 2, 2, num_cut=1) for n in range(25)]
    report = report_split(compare([example("q", "x")] * 25), rows, (EOS,))
    assert report.num_cut_rows == 25
    assert report.cut_rows == tuple(f"r{n}" for n in range(20))


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], {}),
        ([7], {"p5": 7, "p25": 7, "p50": 7, "p75": 7, "p95": 7, "p100": 7}),
        (range(100, 0, -1), {"p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "p100": 100}),
        (range(1, 21), {"p5": 1, "p25": 5, "p50": 10, "p75": 15, "p95": 19, "p100": 20}),
        (range(1, 22), {"p5": 2, "p25": 6, "p50": 11, "p75": 16, "p95": 20, "p100": 21}),
    ],
)
def test_percentiles_are_lengths_that_occur(lengths: Any, expected: dict[str, int]) -> None:
    assert percentiles(list(lengths)) == expected


def test_dropped_rows_are_counted_by_reason_the_most_frequent_first() -> None:
    dropped = [DroppedRow("a:1", 1, "no output")]
    dropped += [DroppedRow(f"a:{n}", n, "empty output") for n in range(2, 32)]
    assert report_dropped(dropped) == {
        "empty output": {"num_rows": 30, "rows": [f"a:{n}" for n in range(2, 22)]},
        "no output": {"num_rows": 1, "rows": ["a:1"]},
    }
    assert list(report_dropped(dropped)) == ["empty output", "no output"]


def test_leaks_name_every_row_and_show_three() -> None:
    twins = tuple(
        Twin(f"v:{n}", f"t:{n}", "same prompt" if n else "same group", 1.0, "q", "q")
        for n in range(5)
    )
    assert report_leaks(LeakAudit(9, twins)) == LeakReport(
        num_rows=9,
        num_leaked=5,
        num_by_kind={"same prompt": 4, "same group": 1},
        examples=tuple(
            {
                "held_out_id": f"v:{n}",
                "train_id": f"t:{n}",
                "kind": "same prompt" if n else "same group",
                "similarity": 1.0,
                "held_out_text": "q",
                "train_text": "q",
            }
            for n in range(3)
        ),
        leaked_ids=("v:0", "v:1", "v:2", "v:3", "v:4"),
    )


# --- what a syllable costs


def test_tokens_a_syllable_are_those_of_runs_of_hangul_alone() -> None:
    run = "가나다라마바사아자차카타파하"
    (ids,) = tiny_encoder().encode([run], True)
    assert (len(run), len(ids)) == (14, 37)
    rows = [example(f"<|end|> abc {run} 0123", f"ABC {run}!")]
    assert tokens_per_syllable(rows, tiny_encoder()) == 37 / 14


def test_under_twenty_syllables_say_nothing() -> None:
    run = "가나다라마바사아자차"
    assert tokens_per_syllable([example(run, run[1:])], tiny_encoder()) is None
    assert tokens_per_syllable([example(run, run)], tiny_encoder()) is not None
    assert tokens_per_syllable([], tiny_encoder()) is None


def test_above_two_tokens_a_syllable_the_report_warns(tmp_path: Path) -> None:
    def warnings(output: str) -> tuple[str, ...]:
        rows = [{"instruction": "hi", "output": output}]
        source = save_rows(tmp_path / "a.jsonl", rows)
        data = DataConfig(source=source, max_length=128, val_fraction=0.0, test_fraction=0.0)
        return prepare_data(data, 42, tiny_text()).report.warnings

    assert warnings("가나다라마바사아자차카타파하 " * 2) == (
        "tiny needs 2.6 tokens for a Hangul syllable: training and answers take that much longer, "
        "and its whole context holds about 97 syllables. A base that knows Korean needs under 1 "
        "(see configs/koalpaca.yaml)",
    )
    assert warnings("대한민국 " * 5) == ()


# --- rows as the model sees them


def test_what_is_learnt_stands_in_brackets() -> None:
    tokenizer, text = tiny_tokenizer(), tiny_text()
    ids = tuple(tokenizer("안녕 hi 하세요")["input_ids"])
    row = Tokens("a:1", (*ids, EOS), (IGNORE,) * len(ids) + (EOS,))
    assert show_row(row, text) == ShownRow("a:1", "안녕 hi 하세요⟦<|end|>⟧")
    whole = replace(row, labels=row.ids)
    assert show_row(whole, text).text == "⟦안녕 hi 하세요<|end|>⟧"
    nothing = replace(row, labels=(IGNORE,) * len(row.ids))
    assert show_row(nothing, text).text == "안녕 hi 하세요<|end|>"


def test_several_answers_have_brackets_each(tmp_path: Path) -> None:
    turns = [("user", "hi"), ("assistant", "Hello"), ("user", "더"), ("assistant", "안녕")]
    messages = [{"role": role, "content": content} for role, content in turns]
    source = save_rows(tmp_path / "a.jsonl", [{"messages": messages}])
    shown = {}
    for supervise in ("response", "all_turns", "everything"):
        data = DataConfig(
            source=source, supervise=supervise, val_fraction=0.0, test_fraction=0.0, template="chat"
        )
        report = prepare_data(data, 42, tiny_text("chat", context_length=None)).report
        shown[supervise] = report.shown_rows[0].text
    first = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    second = "\n<|im_start|>user\n더<|im_end|>\n<|im_start|>assistant\n"
    assert shown == {
        "response": f"{first}Hello<|im_end|>{second}⟦안녕<|im_end|>⟧",
        "all_turns": f"{first}⟦Hello<|im_end|>⟧{second}⟦안녕<|im_end|>⟧",
        "everything": f"<|im_start|>⟦{first.removeprefix('<|im_start|>')}Hello<|im_end|>{second}"
        "안녕<|im_end|>⟧",
    }


# --- the whole


@pytest.fixture
def report(tmp_path: Path) -> DataReport:
    """Seven rows: two dropped, one cut, one repeated on the other side of the split."""
    rows: list[dict[str, Any]] = [
        {"instruction": "대한민국의 수도는 어디인가요?", "output": "서울입니다."},
        {"instruction": "hi", "input": "0123456789" * 9, "output": "Hello"},
        {"instruction": "", "output": "x"},
        {"instruction": "물", "output": 3},
        {"instruction": "물은 몇 도에서 끓나요?", "output": "물은 섭씨 100도에서 끓습니다."},
        {"instruction": "hi2", "output": "Hello"},
        {"instruction": "물은 몇 도에서 끓나요?", "output": "물은 섭씨 100도에서 끓습니다."},
    ]
    save_rows(tmp_path / "rows.jsonl", rows)
    data = DataConfig(
        source=str(tmp_path / "rows.jsonl"),
        max_length=80,
        val_fraction=0.2,
        test_fraction=0.0,
        split="random",
        max_rows=3,
    )
    found = prepare_data(data, 1, tiny_text()).report
    return replace(found, source="rows.jsonl", repaired={"BOM": 1, "NFD": 1234})


def test_the_report_as_text_exactly(report: DataReport) -> None:
    assert format_report(report) == (
        "Data: rows.jsonl (alpaca)\n"
        "  read 7 rows, kept 5, dropped 2\n"
        "    1 × empty instruction: rows.jsonl:3\n"
        "    1 × output is not text (int): rows.jsonl:4\n"
        "  repaired: BOM 1, NFD 1,234\n"
        "  train: 3 rows, 183 tokens, 18 % learnt from, 100 % end in EOS\n"
        "    length in tokens: median 56, 95 % up to 80, longest 80; "
        "answers: median 10, longest 17\n"
        "    1 rows cut by 6 prompt tokens\n"
        "  val: 1 rows, 56 tokens, 30 % learnt from, 100 % end in EOS\n"
        "    length in tokens: median 56, 95 % up to 56, longest 56; "
        "answers: median 17, longest 17\n"
        "  val: 1 of 1 rows have a twin in train\n"
        "  1.32 tokens a Hangul syllable\n"
        "  note: learning from 3 of 4 training rows (data.max_rows)\n"
        "Rows as the model sees them; ⟦ ⟧ is learnt (template instruction):\n"
        "  rows.jsonl:1\n"
        "  │ ### Instruction:\n"
        "  │ 대한민국의 수도는 어디인가요?\n"
        "  │ \n"
        "  │ ### Response:\n"
        "  │ ⟦서울입니다.<|end|>⟧\n"
        "  rows.jsonl:2\n"
        "  │ ### Instruction:\n"
        "  │ hi\n"
        "  │ \n"
        "  │ ### Input:\n"
        f"  │ {('0123456789' * 9)[12:]}\n"
        "  │ \n"
        "  │ ### Response:\n"
        "  │ ⟦Hello<|end|>⟧\n"
        "  rows.jsonl:5\n"
        "  │ ### Instruction:\n"
        "  │ 물은 몇 도에서 끓나요?\n"
        "  │ \n"
        "  │ ### Response:\n"
        "  │ ⟦물은 섭씨 100도에서 끓습니다.<|end|>⟧\n"
        "WARNING: 1 of 1 val rows have a twin in train, so their loss measures memory, not "
        "learning. For example rows.jsonl:7 and rows.jsonl:5 (same prompt): '물은 몇 도에서 "
        "끓나요?' / '물은 몇 도에서 끓나요?'. use data.split=grouped, or data.on_leak=drop"
    )


def test_groups_repeated_rows_and_long_lists_as_text(report: DataReport) -> None:
    dropped = {"no output": {"num_rows": 9, "rows": [f"a:{n}" for n in range(9)]}}
    train = replace(report.splits["train"], num_cut_rows=0, num_equal_rows=4)
    text = format_report(
        replace(
            report,
            dropped=dropped,
            num_groups=1200,
            splits={"train": train},
            leaks={},
            tokens_per_syllable=None,
            repaired={},
            warnings=(),
            notes=(),
        )
    )
    lines = text.split("\n")
    assert lines[2] == "    9 × no output: a:0, a:1, a:2, a:3, a:4 …"
    assert lines[5:7] == [
        "    4 rows repeat another one exactly",
        "  1,200 groups of rows that resemble each other",
    ]
    assert not any(word in text for word in ("repaired", "cut by", "twin", "syllable", "WARNING"))


def test_the_record_has_the_promised_keys(report: DataReport) -> None:
    record = json.loads(json.dumps(report.to_record()))
    assert set(record) == {
        "source",
        "shape",
        "template",
        "supervise",
        "max_length",
        "tokenizer",
        "num_read",
        "num_kept",
        "dropped",
        "repaired",
        "splits",
        "num_groups",
        "leaks",
        "tokens_per_syllable",
        "shown_rows",
        "notes",
        "warnings",
        "fingerprint",
    }
    assert set(record["splits"]["train"]) == {
        "num_rows",
        "num_tokens",
        "num_supervised",
        "share_supervised",
        "share_ending_in_eos",
        "num_cut_rows",
        "cut_rows",
        "num_cut_tokens",
        "length_percentiles",
        "response_percentiles",
        "num_equal_rows",
        "num_equal_prompts",
    }
    assert set(record["leaks"]["val"]) == {
        "num_rows",
        "num_leaked",
        "num_by_kind",
        "examples",
        "leaked_ids",
    }
    assert set(record["shown_rows"][0]) == {"id", "text"}
    assert set(record["dropped"]["empty instruction"]) == {"num_rows", "rows"}
    assert record["tokenizer"] == "tiny"
    assert record["tokens_per_syllable"] == pytest.approx(25 / 19)
    assert len(record) == len(fields(DataReport))
