"""Losses and greedy answers of one model, each saved as it is made: a kill costs little."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from honing.config import GenerateConfig
from honing.data.encode import Tokens
from honing.errors import UserError
from honing.evaluation.perplexity import RowLoss, row_losses
from honing.generation.answer import Answer, answer_each, to_answer
from honing.generation.open_model import OpenModel
from honing.model.packed import packed_products
from honing.run import cannot_write
from honing.training.processes import Processes

Made = TypeVar("Made", RowLoss, Answer)


@dataclass(frozen=True)
class Answers:
    """For each row its loss and its answer, in the order of the rows."""

    losses: tuple[RowLoss, ...]
    answers: tuple[Answer, ...]


def answer_rows(
    opened: OpenModel,
    rows: Sequence[Tokens],
    questions: Sequence[Tokens],
    settings: GenerateConfig,
    *,
    part: Path,
    key: str,
    label: str,
    show_progress: bool,
    processes: Processes | None = None,
) -> Answers:
    """Compute what the file `part` does not hold yet.

    rows: questions with their references. key: what the results depend on; a part with another
    key is of another evaluation, and is begun anew. Several processes compute what none of their
    parts holds, each in the batches that one alone would make, and each returns what all found.
    """
    processes = processes or Processes()
    losses, answers = processes.from_first(lambda: _read_all_parts(part, key))
    share = slice(processes.rank, None, processes.number)
    batches = _batches(rows, [p for p in range(len(rows)) if p not in losses], settings)[share]
    left = [place for place in range(len(rows)) if place not in answers]
    left = sorted(left, key=lambda place: (len(questions[place].ids), place))[share]
    own_part = _part_of(part, processes.rank)
    with processes.each(lambda: _open_part(own_part, key)) as file:
        with tqdm(
            total=len(rows), desc=f"{label}: losses", unit="row", disable=not show_progress
        ) as bar:
            bar.update(len(losses))
            for places in batches:
                found = row_losses(opened.model, [rows[p] for p in places], batch_size=len(places))
                losses |= dict(zip(places, found, strict=True))
                _write(file, {"losses": {p: asdict(losses[p]) for p in places}})
                bar.update(len(places))
        with tqdm(
            total=len(rows), desc=f"{label}: answers", unit="row", disable=not show_progress
        ) as bar:
            bar.update(len(answers))
            asked = [questions[place] for place in left]
            with packed_products(opened.model):
                for (number, _), ids in answer_each(opened, asked, settings):
                    place = left[number]
                    name = questions[place].example_id
                    answers[place] = to_answer(opened, name, 0, ids, settings)
                    _write(file, {"answers": {place: asdict(answers[place])}})
                    bar.update(1)
    for more_losses, more_answers in processes.gathered((losses, answers)):
        losses, answers = losses | more_losses, answers | more_answers
    order = range(len(rows))
    return Answers(tuple(losses[p] for p in order), tuple(answers[p] for p in order))


def _batches(
    rows: Sequence[Tokens], places: Sequence[int], settings: GenerateConfig
) -> list[list[int]]:
    """Rows of like length together, the longest first: what needs most memory shows at once."""
    ordered = sorted(places, key=lambda place: (-len(rows[place].ids), place))
    size = settings.batch_size
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def remove_parts(part: Path) -> None:
    """Remove the parts of all processes."""
    for path in _all_parts(part):
        path.unlink(missing_ok=True)


def _part_of(part: Path, rank: int) -> Path:
    return part.with_name(f".{rank}{part.name}") if rank else part


def _all_parts(part: Path) -> list[Path]:
    return [part, *sorted(part.parent.glob(f".[0-9]*{part.name}"))]


def _read_all_parts(part: Path, key: str) -> tuple[dict[int, RowLoss], dict[int, Answer]]:
    losses: dict[int, RowLoss] = {}
    answers: dict[int, Answer] = {}
    for path in _all_parts(part):
        more_losses, more_answers = _read_part(path, key)
        losses, answers = losses | more_losses, answers | more_answers
    return losses, answers


def _read_part(part: Path, key: str) -> tuple[dict[int, RowLoss], dict[int, Answer]]:
    losses: dict[int, RowLoss] = {}
    answers: dict[int, Answer] = {}
    if not part.is_file():
        return losses, answers
    try:
        lines = _whole_lines(part)
        records: list[Any] = [json.loads(line) for line in lines]
        if not records or records[0] != {"key": key}:
            return losses, answers
        for record in records[1:]:
            losses |= {int(p): _made(RowLoss, x) for p, x in record.get("losses", {}).items()}
            answers |= {int(p): _made(Answer, x) for p, x in record.get("answers", {}).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}, {}  # nothing of ours: begun anew
    return losses, answers


def _made(kind: type[Made], values: dict[str, Any]) -> Made:
    """A record of values that have its types, as a file of a stranger's may not. Raises TypeError
    or ValueError."""
    types: dict[str, Any] = {"int": int, "float": int | float, "str": str}
    for field in fields(kind):
        value = values.get(field.name)
        if isinstance(value, bool) or not isinstance(value, types[str(field.type)]):
            raise TypeError(f"{field.name} is of another type")
        if isinstance(value, str):
            value.encode()  # half a character stands in no file
        elif isinstance(value, int) and abs(value) >= 1 << 53:
            raise ValueError(f"{field.name} is too large")
    return kind(**values)


def _whole_lines(part: Path) -> list[bytes]:
    """Lines before the first that is not whole: a kill can cut the last one, within a character
    too. Bytes, since an answer may hold characters at which str.splitlines would part it."""
    lines = []
    for line in part.read_bytes().splitlines():
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            break
        lines.append(line)
    return lines


def _open_part(part: Path, key: str) -> TextIO:
    anew = not any(_read_part(part, key))
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if not anew:
            _drop_cut_line(part)
            return part.open("a", encoding="utf-8")
        file = part.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(cannot_write(part, error)) from None
    _write(file, {"key": key})
    return file


def _drop_cut_line(part: Path) -> None:
    part.write_bytes(b"".join(line + b"\n" for line in _whole_lines(part)))


def _write(file: TextIO, record: Any) -> None:
    try:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()
    except OSError as error:
        raise UserError(cannot_write(Path(file.name), error)) from None
