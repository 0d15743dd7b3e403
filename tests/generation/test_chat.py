"""A conversation on the terminal."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from honing.errors import UserError
from honing.generation import chat as chat_module
from honing.generation.answer import answer_seed
from honing.generation.chat import HELP, Turn, chat, reply
from honing.generation.decode import AnswerIds, Stopped
from honing.generation.open_model import OpenModel, answering_config
from tests.generation.asking import decode, ids_of, script, settings, tiny_opened
from tests.tiny_run import TinyRun

EOS = 0
Asked = list[tuple[str, int]]


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str, end: str = "") -> None:
    text = "".join(line + "\n" for line in lines) + end
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def answer_with(monkeypatch: pytest.MonkeyPatch, *texts: str, stopped: Stopped = "end") -> Asked:
    """Let the model give these answers; what it was asked, and with which seeds."""
    asked: Asked = []

    def decode_batch(
        _: Any,
        rows: Sequence[Sequence[int]],
        __: Any,
        ___: Any,
        seeds: Sequence[int],
        *,
        context_length: int | None,
        on_token: Callable[[int, int], None],
        lock: None,
    ) -> list[AnswerIds]:
        ids = ids_of(texts[len(asked)])
        asked.append((decode(rows[0]), seeds[0]))
        assert context_length == 256
        for token in ids:
            on_token(0, token)
        return [AnswerIds(tuple(ids), stopped, 0.1)]

    monkeypatch.setattr(chat_module, "decode_batch", decode_batch)
    return asked


def say(run: TinyRun, **options: Any) -> None:
    chat(str(run.folder), answering_config(str(run.folder)), **options)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return str(capsys.readouterr().out)


# --- one answer


def test_an_answer_is_printed_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, pieces = tiny_opened(), list[str]()

    def note(*words: str, end: str = "\n", flush: bool = False, file: Any = None) -> None:
        pieces.append("".join(words) + end)

    script(monkeypatch, [*ids_of("서울입니다. 뷁!"), EOS])
    monkeypatch.setattr("builtins.print", note)
    turn = reply(opened, settings(max_new_tokens=40), [], "수도는?")
    assert turn == Turn("수도는?", "서울입니다. 뷁!")
    assert "".join(pieces) == "서울입니다. 뷁!\n"
    assert len([piece for piece in pieces if piece.strip()]) > 5
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize(
    ("template", "made", "expected"),
    [
        ("instruction", "서울 뷁", "서울 "),  # cut off inside the last syllable
        ("koalpaca-v1.1", " 서울 뷁", "서울 "),
        ("koalpaca-v1.1", "  서울 뷁", " 서울 "),
    ],
)
def test_what_is_printed_is_the_answer(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    template: str,
    made: str,
    expected: str,
) -> None:
    ids = ids_of(made)[:-1]
    script(monkeypatch, ids)
    wanted = settings(max_new_tokens=len(ids))
    turn = reply(tiny_opened(template=template), wanted, [], "?")
    assert turn.answer == expected
    assert printed(capsys) == expected + "\n"


def test_a_stop_text_and_what_follows_are_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(monkeypatch, ids_of("좋아요 ## 네 ### 끝"))
    wanted = settings(max_new_tokens=60, stop=["###"])
    assert reply(tiny_opened(), wanted, [], "?").answer == "좋아요 ## 네 "
    assert printed(capsys) == "좋아요 ## 네 \n"


def test_what_might_have_become_a_stop_text_is_printed_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(monkeypatch, [*ids_of("끝 ##"), EOS])
    wanted = settings(max_new_tokens=60, stop=["###"])
    assert reply(tiny_opened(), wanted, [], "?").answer == "끝 ##"
    assert printed(capsys) == "끝 ##\n"


def test_ctrl_c_ends_the_answer_and_keeps_what_was_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, on_token: Callable[[int, int], None], **__: Any) -> None:
        for token in ids_of("서울입"):
            on_token(0, token)
        raise KeyboardInterrupt

    monkeypatch.setattr(chat_module, "decode_batch", interrupted)
    assert reply(tiny_opened(), settings(), [], "?") == Turn("?", "서울입")
    assert printed(capsys) == "서울입 …\n"


# --- the turns before


@pytest.mark.parametrize("template", ["instruction", "koalpaca-v1.1", "chat"])
def test_the_second_question_sees_the_first_and_its_answer(
    monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    asked = answer_with(monkeypatch, "둘", "넷")
    opened, wanted = tiny_opened(template=template), settings()
    first = reply(opened, wanted, [], "하나?")
    reply(opened, wanted, [first], "셋?")
    question = {
        "instruction": "### Instruction:\n{}\n\n### Response:\n",
        "koalpaca-v1.1": "### 질문: {}\n\n### 답변:",
        "chat": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    }[template]
    between = {
        "instruction": "둘<|end|>\n\n",
        "koalpaca-v1.1": " 둘<|end|>\n\n",
        "chat": "둘<|im_end|>\n",
    }[template]
    assert [text for text, _ in asked] == [
        question.format("하나?"),
        question.format("하나?") + between + question.format("셋?"),
    ]
    assert [seed for _, seed in asked] == [answer_seed(42, turn, 0) for turn in (0, 1)]


def test_a_question_is_remembered_as_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer_with(monkeypatch, "네", "네")
    opened = tiny_opened()
    first = reply(opened, settings(), [], unicodedata.normalize("NFD", "한국"))
    assert first.question == "한국"
    reply(opened, settings(), [first], "?")
    assert asked[1][0].startswith(asked[0][0])


def long_chat(opened: OpenModel, number: int) -> list[Turn]:
    return [Turn(f"질문 {n}", f"대답 {n} {'가나다라마' * 4}") for n in range(number)]


def test_the_oldest_turns_are_left_out_where_the_context_is_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answer_with(monkeypatch, "네")
    opened = tiny_opened()
    reply(opened, settings(), long_chat(opened, 9), "지금은?")
    ((text, _),) = asked
    assert "질문 8" in text
    assert "질문 0" not in text
    assert text.startswith("### Instruction:\n질문 ")
    assert text.endswith("### Instruction:\n지금은?\n\n### Response:\n")
    assert len(ids_of(text)) <= 256 - 12
    assert capsys.readouterr().err == (
        "note: the oldest part of this chat no longer fits the context\n"
    )


def test_a_chat_that_fits_is_whole_and_without_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answer_with(monkeypatch, "네")
    opened = tiny_opened()
    reply(opened, settings(), long_chat(opened, 2), "지금은?")
    assert asked[0][0].count("### Instruction:") == 3
    assert capsys.readouterr().err == ""


# --- the conversation


def test_a_chat_goes_on_until_quit(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answer_with(monkeypatch, " 하나", " 둘")
    type_in(monkeypatch, "첫째", "", "   ", "둘째", "/quit", "셋째")
    say(tiny_run)
    out, err = capsys.readouterr()
    assert out == "> 하나\n> > > 둘\n> "
    best = (tiny_run.checkpoints / "best").resolve()
    assert err == f"{tiny_run.folder}: {best}. {HELP}\n"
    assert [text.count("### 질문:") for text, _ in asked] == [1, 2]


def test_the_end_of_the_input_ends_the_chat(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answer_with(monkeypatch, " 하나")
    type_in(monkeypatch, end="첫째")
    say(tiny_run)
    assert printed(capsys) == "> 하나\n> \n"
    assert len(asked) == 1


def test_new_forgets_what_was_said(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answer_with(monkeypatch, " 하나", " 둘")
    type_in(monkeypatch, "첫째", " /new ", "첫째")
    say(tiny_run)
    assert asked[0] == asked[1]


@pytest.mark.parametrize("command", ["/help", "/exit", "/", "/New"])
def test_an_unknown_command_gets_the_help(
    tiny_run: TinyRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    asked = answer_with(monkeypatch)
    type_in(monkeypatch, command, "/quit")
    say(tiny_run)
    assert printed(capsys) == f"> {HELP}\n> "
    assert asked == []


def test_the_base_of_a_run_can_be_talked_with(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "물은?", "/quit")
    say(tiny_run, base_only=True)
    out, err = capsys.readouterr()
    assert err == f"{tiny_run.folder}: the base, no adapter. {HELP}\n"
    assert out.startswith("> ")
    assert out.endswith("\n> ")


def test_a_model_can_be_talked_with_by_its_name_alone(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "물은?", "/quit")
    chat(str(tiny_run.folder), checkpoint="final")
    assert str(tiny_run.checkpoints / "final") in capsys.readouterr().err


def test_bytes_that_are_no_text_are_asked_for_again(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def read(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) == 1:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")
        return "/quit"

    monkeypatch.setattr("builtins.input", read)
    say(tiny_run)
    assert capsys.readouterr().err.endswith("That was not UTF-8 text; try again.\n")


def test_what_peft_alone_wrote_is_noted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = tiny_opened()
    noted = OpenModel(opened.model, opened.text, "cpu", None, ("a note",))
    monkeypatch.setattr(chat_module, "open_model", lambda *_, **__: noted)
    type_in(monkeypatch, "/quit")
    chat("MODEL")
    assert capsys.readouterr().err == f"note: a note\nMODEL: the base, no adapter. {HELP}\n"


def test_an_empty_stop_text_ends_the_chat_in_one_line(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "물은?")
    name = str(tiny_run.folder)
    with pytest.raises(UserError, match=r"^generate\.stop: an empty text"):
        chat(name, answering_config(name, ["generate.stop=['']"]))
