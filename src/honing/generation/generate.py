"""The stage behind `honing generate`: prompts in, answers and their statistics out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from honing.config import Config
from honing.generation.answer import Answer, Statistics, answer_questions, encode_for_answering
from honing.generation.open_model import OpenModel, answering_config, open_model
from honing.generation.questions import Question
from honing.run import write_text


@dataclass(frozen=True)
class Generated:
    """What a call of generate made. checkpoint: the adapter in use, None for a base alone."""

    model: str
    checkpoint: str | None
    questions: tuple[Question, ...]
    answers: tuple[Answer, ...]
    statistics: Statistics
    notes: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row an answer: what the user gave, the answer, and why it stopped."""
        row_of = {question.example.id: question.row for question in self.questions}
        return [
            {
                **row_of[answer.question_id],
                "answer": answer.text,
                "num_tokens": answer.num_tokens,
                "stopped": answer.stopped,
            }
            for answer in self.answers
        ]

    def to_record(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "checkpoint": self.checkpoint,
            "answers": self.rows(),
            "statistics": self.statistics.to_record(),
            "notes": list(self.notes),
        }


def generate(
    model: str,
    questions: Sequence[Question],
    config: Config | None = None,
    *,
    base_only: bool = False,
    checkpoint: str | None = None,
    show_progress: bool = False,
) -> Generated:
    """Answer questions with a base, a run, or a checkpoint.

    config: the run's own way of answering, where none is given (see answering_config).
    """
    config = config or answering_config(model)
    settings = config.generate
    opened = open_model(model, config, base_only=base_only, checkpoint=checkpoint)
    encoded = encode_for_answering(opened, [q.example for q in questions], settings)
    total = len(questions) * settings.num_answers
    hidden = not show_progress or total == 1
    with tqdm(total=total, unit="answer", disable=hidden, dynamic_ncols=True) as bar:
        answers, statistics = answer_questions(opened, encoded, settings, lambda: bar.update(1))
    adapter = None if opened.adapter is None else str(opened.adapter)
    return Generated(
        model, adapter, tuple(questions), tuple(answers), statistics, _notes(opened, statistics)
    )


def _notes(opened: OpenModel, statistics: Statistics) -> tuple[str, ...]:
    if not statistics.num_cut_prompts:
        return opened.notes
    return (
        *opened.notes,
        f"{statistics.num_cut_prompts} prompts were longer than the context and cut on the left",
    )


def write_answers(path: Path, generated: Generated) -> None:
    """JSONL, one answer a line."""
    lines = [json.dumps(row, ensure_ascii=False) for row in generated.rows()]
    write_text(path, "".join(line + "\n" for line in lines))


def print_answers(generated: Generated, *, answers: bool = True) -> None:
    """Answers on standard output; what was used and counted on standard error."""
    several = len(generated.answers) > 1
    for row in generated.rows() if answers else []:
        if several:
            question = row.get("instruction") or row.get("prompt") or row.get("question") or "chat"
            print(f"▸ {question}")
        print(row["answer"])
        if several:
            print()
    for note in generated.notes:
        print(f"note: {note}", file=sys.stderr)
    print(statistics_line(generated.statistics), file=sys.stderr)
    used = f"checkpoint {generated.checkpoint}" if generated.checkpoint else "the base, no adapter"
    print(f"{generated.model}: {used}", file=sys.stderr)


def statistics_line(statistics: Statistics) -> str:
    s = statistics
    return (
        f"{s.num_prompts} prompts, {s.num_answers} answers, {s.num_tokens} tokens in "
        f"{s.seconds:.1f} s: {s.tokens_per_s:.1f} tokens/s, first token after "
        f"{s.seconds_to_first:.2f} s; {s.share_ended:.0f} % ended by themselves, "
        f"repetition {s.repetition:.0f} %"
    )
