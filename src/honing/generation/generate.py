"""The stage behind `honing generate`: prompts in, answers and their statistics out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from honing.config import Config
from honing.generation.answer import Answer, Statistics, answer_questions, encode_for_answering
from honing.generation.open_model import OpenModel, answering_config, open_model
from honing.generation.questions import Question
from honing.model.packed import packed_products
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
        """One row an answer: what the user gave, the answer, and why it stopped.

        An answer that the user's row has itself is kept as its reference.
        """
        return [
            {
                **{"reference" if k == "answer" else k: v for k, v in question.row.items()},
                "answer": answer.text,
                "num_tokens": answer.num_tokens,
                "stopped": answer.stopped,
            }
            for question, answer in self._pairs()
        ]

    def _pairs(self) -> Iterator[tuple[Question, Answer]]:
        """Answers come in the order of the questions, the same number to each."""
        per_question = len(self.answers) // max(1, len(self.questions))
        for place, answer in enumerate(self.answers):
            yield self.questions[place // per_question], answer

    def printed(self) -> Iterator[str]:
        """Lines for a terminal; where there are several answers, each below its question."""
        for question, answer in self._pairs():
            if len(self.answers) == 1:
                yield answer.text
            else:
                yield f"▸ {question.example.exchanges[-1].instruction}"
                yield f"{answer.text}\n"

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
    bar = tqdm(total=total, unit="answer", disable=hidden, dynamic_ncols=True)
    with bar, packed_products(opened.model):
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
        f"prompts longer than the context, cut on the left: {statistics.num_cut_prompts}",
    )


def write_answers(path: Path, generated: Generated) -> None:
    """JSONL, one answer a line."""
    lines = [json.dumps(row, ensure_ascii=False) for row in generated.rows()]
    write_text(path, "".join(line + "\n" for line in lines))


def print_answers(generated: Generated, *, answers: bool = True) -> None:
    """Answers on standard output; what was used and counted on standard error."""
    for line in generated.printed() if answers else ():
        print(line)
    for note in generated.notes:
        print(f"note: {note}", file=sys.stderr)
    print(statistics_line(generated.statistics), file=sys.stderr)
    used = f"checkpoint {generated.checkpoint}" if generated.checkpoint else "the base, no adapter"
    print(f"{generated.model}: {used}", file=sys.stderr)


def statistics_line(statistics: Statistics) -> str:
    s = statistics
    return (
        f"{_counted(s.num_prompts, 'prompt')}, {_counted(s.num_answers, 'answer')}, "
        f"{_counted(s.num_tokens, 'token')} in "
        f"{s.seconds:.1f} s: {s.tokens_per_s:.1f} tokens/s, first token after "
        f"{s.seconds_to_first:.2f} s; {s.share_ended:.0f} % ended by themselves, "
        f"repetition {s.repetition:.0f} %"
    )


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
