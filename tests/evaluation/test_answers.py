"""Losses and answers are saved as they are made, and a killed evaluation goes on from there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from honing.config import GenerateConfig
from honing.errors import UserError
from honing.evaluation import answers as module
from honing.evaluation.answers import Answers, answer_rows
from honing.evaluation.perplexity import row_losses
from honing.generation.answer import answer_each, encode_for_answering
from honing.generation.open_model import OpenModel
from tests.runs import tiny_text
from tests.tiny import PAIRS, encoded, example, tiny_model

SETTINGS = GenerateConfig(max_new_tokens=6, batch_size=3)
ROWS = encoded(PAIRS)


@pytest.fixture(scope="module")
def opened() -> OpenModel:
    return OpenModel(tiny_model("llama"), tiny_text(), "cpu", None)


def run(opened: OpenModel, part: Path, key: str = "k", **settings: Any) -> Answers:
    chosen = SETTINGS.model_copy(update=settings)
    examples = [example(question, "", row=row) for row, (question, _) in enumerate(PAIRS)]
    return answer_rows(
        opened,
        ROWS,
        encode_for_answering(opened, examples, chosen),
        chosen,
        part=part,
        key=key,
        label="base",
        show_progress=False,
    )


def test_each_row_has_its_loss_and_answer(opened: OpenModel, tmp_path: Path) -> None:
    found = run(opened, tmp_path / "new" / "part")
    plain = row_losses(opened.model, ROWS, batch_size=1)
    assert [x.sum_nats for x in found.losses] == pytest.approx(
        [x.sum_nats for x in plain], rel=1e-6
    )
    assert [answer.question_id for answer in found.answers] == [
        f"rows:{row}" for row in range(len(PAIRS))
    ]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_answers_do_not_depend_on_the_batch_size(
    opened: OpenModel, tmp_path: Path, batch_size: int
) -> None:
    found = run(opened, tmp_path / "part", batch_size=batch_size)
    assert found.answers == run(opened, tmp_path / "other").answers


class Killed(BaseException):
    """Whatever ends a process."""


@pytest.mark.parametrize("num_answers", [0, 1, 5])
def test_a_killed_evaluation_goes_on_where_it_stopped(
    opened: OpenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_answers: int
) -> None:
    part = tmp_path / "part"
    whole = run(opened, tmp_path / "whole")
    asked: list[str] = []

    def counting(*arguments: Any) -> Any:
        for done in answer_each(*arguments):
            if len(asked) == num_answers and not part.with_name("second").exists():
                raise Killed
            asked.append(arguments[1][done[0][0]].example_id)
            yield done

    monkeypatch.setattr(module, "answer_each", counting)
    with pytest.raises(Killed):
        run(opened, part)
    with part.open("a", encoding="utf-8") as file:
        file.write('{"answers": {"0": {"text": "half a li')  # a kill inside a write
    part.with_name("second").touch()
    monkeypatch.setattr(module, "row_losses", _never)
    assert run(opened, part) == whole
    assert len(asked) == len(set(asked)) == len(ROWS), "each row is answered once"
    lines = part.read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line) for line in lines)


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\x1c"])
def test_an_answer_that_looks_like_several_lines_is_kept(
    opened: OpenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    part = tmp_path / "part"
    whole = run(opened, part)
    _, *lines = part.read_text(encoding="utf-8").split("\n")
    records = [json.loads(line) for line in lines if line]
    for record in records:
        for answer in record.get("answers", {}).values():
            answer["text"] = f"앞{mark}뒤"
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in [{"key": "k"}, *records])
    # The kill came within a Hangul syllable.
    part.write_bytes(text.encode() + '{"answers": {"0": {"text": "반'.encode()[:-1])
    monkeypatch.setattr(module, "row_losses", _never)
    monkeypatch.setattr(module, "to_answer", _never)
    found = run(opened, part)
    assert [answer.text for answer in found.answers] == [f"앞{mark}뒤"] * len(ROWS)
    assert found.losses == whole.losses
    assert part.read_bytes() == text.encode()


def _never(*_: Any, **__: Any) -> Iterator[None]:
    raise AssertionError("computed again")


ANSWER = (
    '{"key": "k"}\n{"answers": {"0": {"question_id": "a", "number": 0, "text": "b", '
    '"num_tokens": 1, "stopped": "end", "repetition": 0.0}}}\n'
)


@pytest.mark.parametrize(
    "content",
    [
        *('{"key": "other"}\n', "no JSON\n", "[]\n", '{"key": "k"}\n7\n'),
        '{"key": "k"}\n' + "[" * 3000 + "]" * 3000 + "\n",
        '{"key": "k"}\n{"losses": {"0": {"sum_nats": "true", "num_tokens": 3}}}\n',
        '{"key": "k"}\n{"losses": {"0": {"sum_nats": 1.0}}}\n',
        ANSWER.replace("0.0", '"0.0"'),
        ANSWER.replace('"b"', '"\\ud800"'),
        ANSWER.replace(": 1,", f": {10**400},"),
    ],
)
def test_a_part_of_something_else_is_begun_anew(
    opened: OpenModel, tmp_path: Path, content: str
) -> None:
    part = tmp_path / "part"
    part.write_text(content, encoding="utf-8")
    assert run(opened, part) == run(opened, tmp_path / "fresh")


def test_a_folder_that_cannot_be_made_is_named(opened: OpenModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        run(opened, tmp_path / "file" / "part")
