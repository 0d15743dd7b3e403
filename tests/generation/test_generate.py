"""The stage behind `honing generate`, from Python: rows in, rows out, and what is printed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import honing
from honing.config import Config
from honing.errors import UserError
from honing.generation.answer import Answer, Statistics
from honing.generation.generate import (
    Generated,
    generate,
    print_answers,
    statistics_line,
    write_answers,
)
from honing.generation.questions import question_from_text, read_question_lines
from honing.model.lora import load_adapter
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_run import TinyRun

STATISTICS = Statistics(
    num_prompts=2,
    num_answers=2,
    num_tokens=30,
    num_cut_prompts=0,
    seconds=2.5,
    tokens_per_s=12.0,
    seconds_to_first=0.125,
    share_ended=50.0,
    repetition=3.7,
)
ROWS = (
    '{"id": 7, "instruction": "가", "input": "나"}\n'
    '{"question": "다", "answer": "라"}\n'
    '{"messages": [{"role": "user", "content": "마"}]}\n'
)


def made(rows: str = ROWS, notes: tuple[str, ...] = (), per_question: int = 1) -> Generated:
    """Answers that were written beforehand."""
    questions = tuple(read_question_lines(rows, "q.jsonl"))
    answers = tuple(
        Answer(question.example.id, number, f"답 {place}.{number}", 4, "end", 0.0)
        for place, question in enumerate(questions, start=1)
        for number in range(per_question)
    )
    return Generated("MODEL", "RUN/final", questions, answers, STATISTICS, notes)


# --- records and files


def test_a_row_out_is_the_row_in_with_the_answer() -> None:
    rest = {"num_tokens": 4, "stopped": "end"}
    assert made().rows() == [
        {"id": 7, "instruction": "가", "input": "나", "answer": "답 1.0", **rest},
        {"question": "다", "reference": "라", "answer": "답 2.0", **rest},
        {"messages": [{"role": "user", "content": "마"}], "answer": "답 3.0", **rest},
    ]


def test_several_answers_are_several_rows() -> None:
    rows = made(per_question=2).rows()
    assert [row["answer"] for row in rows] == [
        *("답 1.0", "답 1.1"),
        *("답 2.0", "답 2.1"),
        *("답 3.0", "답 3.1"),
    ]
    assert [row.get("id") for row in rows] == [7, 7, None, None, None, None]


def test_the_record_holds_everything() -> None:
    generated = made(notes=("a note",))
    assert generated.to_record() == {
        "model": "MODEL",
        "checkpoint": "RUN/final",
        "answers": generated.rows(),
        "statistics": STATISTICS.to_record(),
        "notes": ["a note"],
    }


def test_rows_are_written_as_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "새 폴더" / "답.jsonl"
    write_answers(path, made())
    text = path.read_bytes().decode()
    assert "가" in text
    assert "\r" not in text
    assert [json.loads(line) for line in text.splitlines()] == made().rows()


# --- what is printed


def test_one_answer_is_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    print_answers(made('{"prompt": "가"}', notes=("short", "long")))
    out, err = capsys.readouterr()
    assert out == "답 1.0\n"
    assert err == (
        "note: short\n"
        "note: long\n"
        "2 prompts, 2 answers, 30 tokens in 2.5 s: 12.0 tokens/s, first token after 0.12 s; "
        "50 % ended by themselves, repetition 4 %\n"
        "MODEL: checkpoint RUN/final\n"
    )


def test_several_answers_stand_below_their_questions(capsys: pytest.CaptureFixture[str]) -> None:
    print_answers(made())
    assert capsys.readouterr().out == "▸ 가\n답 1.0\n\n▸ 다\n답 2.0\n\n▸ 마\n답 3.0\n\n"


def test_answers_that_were_written_to_a_file_are_not_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = Generated("MODEL", None, made().questions, made().answers, STATISTICS, ())
    print_answers(base, answers=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "MODEL: the base, no adapter"


def test_one_is_not_many() -> None:
    one = Statistics(1, 1, 1, 0, 0.5, 2.0, 0.25, 100.0, 0.0)
    assert statistics_line(one) == (
        "1 prompt, 1 answer, 1 token in 0.5 s: 2.0 tokens/s, first token after 0.25 s; "
        "100 % ended by themselves, repetition 0 %"
    )


# --- with a model


def test_prompts_of_one_name_keep_their_own_rows(tiny_run: TinyRun) -> None:
    """question_from_text gives each the same name."""
    questions = [question_from_text("물은?"), question_from_text("hi")]
    generated = honing.generate(str(tiny_run.folder), questions)
    assert [row["instruction"] for row in generated.rows()] == ["물은?", "hi"]


def test_the_runs_own_settings_and_checkpoint_are_used(tiny_run: TinyRun) -> None:
    generated = generate(str(tiny_run.folder), [question_from_text("물은?")])
    (answer,) = generated.answers
    assert answer.num_tokens <= 9
    assert generated.model == str(tiny_run.folder)
    assert generated.checkpoint == str((tiny_run.checkpoints / "best").resolve())
    final = generate(str(tiny_run.folder), [question_from_text("물은?")], checkpoint="final")
    assert final.checkpoint == str(tiny_run.checkpoints / "final")
    assert generated.notes == final.notes == ()


def test_base_only_is_the_base_alone(tiny_run: TinyRun) -> None:
    config = Config.model_validate({"generate": {"max_new_tokens": 9}})
    asked = [question_from_text("물은?"), question_from_text("2 + 3")]
    base = generate(str(tiny_run.folder), asked, config, base_only=True)
    template = {"data": {"template": "koalpaca-v1.1"}, "generate": {"max_new_tokens": 9}}
    plain = generate(str(tiny_run.base), asked, Config.model_validate(template))
    assert base.checkpoint is plain.checkpoint is None
    assert base.answers == plain.answers
    assert generate(str(tiny_run.folder), asked, config).answers != base.answers


def test_a_merged_folder_answers_as_the_adapter_does(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = (tiny_run.checkpoints / "best").resolve()
    merged = load_adapter(tiny_model("llama"), folder).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    tiny_tokenizer().save_pretrained(tmp_path / "merged")
    shutil.copy(folder / "honing.json", tmp_path / "merged")
    asked = [question_from_text("물은?"), question_from_text("2 + 3")]
    config = Config.model_validate({"generate": {"max_new_tokens": 9}})
    plain = generate(str(tmp_path / "merged"), asked, config)
    tuned = generate(str(tiny_run.folder), asked, config)
    assert plain.checkpoint is None
    assert [a.text for a in plain.answers] == [a.text for a in tuned.answers]


def test_prompts_that_were_cut_are_noted(tiny_run: TinyRun) -> None:
    asked = [question_from_text("가나다라마바사" * 40), question_from_text("hi")]
    generated = generate(str(tiny_run.folder), asked)
    assert generated.statistics.num_cut_prompts == 1
    assert generated.notes == ("prompts longer than the context, cut on the left: 1",)


def test_progress_is_shown_where_it_is_asked_for(
    tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [question_from_text("물은?"), question_from_text("hi")]
    generate(str(tiny_run.folder), asked)
    assert capsys.readouterr() == ("", "")
    generate(str(tiny_run.folder), asked, show_progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    generate(str(tiny_run.folder), asked[:1], show_progress=True)
    assert "1/1" not in capsys.readouterr().err


def test_an_error_is_one_of_the_users(tiny_run: TinyRun) -> None:
    with pytest.raises(UserError):
        generate(str(tiny_run.folder), [question_from_text("a")], checkpoint="no")
