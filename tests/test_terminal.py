"""Foreign text on a terminal: visible, in one line where it is an error, and as it is in a pipe."""

from __future__ import annotations

import io
import os
import sys

import pytest

from honing.cli import main
from honing.errors import CheckFailed, UserError
from honing.terminal import MOST_CHARS, guarded, one_line, silenced, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain 한글 👩‍👩‍👧 → “x”\n\ttab", "plain 한글 👩‍👩‍👧 → “x”\n\ttab"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\rb\x08c\x7fd\x85e\x9b31m", "a\\x0db\\x08c\\x7fd\\x85e\\x9b31m"),
        ("\u202egnp.exe\u2066\u2069", "\\u202egnp.exe\\u2066\\u2069"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\0", "\\x00"),
    ],
)
def test_what_steers_a_terminal_is_written_out(text: str, expected: str) -> None:
    assert visible(text) == expected


def test_one_line() -> None:
    assert one_line("a\n b\t\x1b[0m  c\ud800") == "a b \\x1b[0m c\\ud800"
    assert one_line("가" * 5000 + "나") == "가" * (MOST_CHARS // 2) + "…" + "가" * 998 + "나"
    assert len(one_line("\x1b" * 5000)) == MOST_CHARS


def test_one_line_holds_no_secret() -> None:
    token = "hf_" + "a1B2" * 9
    assert one_line(f"refused: https://me:pw-1@mirror.org/x?a=b@c, {token}!") == (
        "refused: https://…@mirror.org/x?a=b@c, …!"
    )
    assert one_line("mail me@here or hf_auth_login at https://here/@x") == (
        "mail me@here or hf_auth_login at https://here/@x"
    )


@pytest.mark.parametrize("kind", [UserError, CheckFailed])
def test_errors_are_one_line_whatever_is_in_them(kind: type[UserError]) -> None:
    assert str(kind("file\n\x1b[31m: no")) == "file \\x1b[31m: no"
    assert str(kind(ValueError("a\nb"))) == "a b"


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_text_and_progress_bars_alone() -> None:
    below = Terminal()
    plain = io.TextIOWrapper(below, "utf-8")
    stream = guarded(plain)
    print("answer: \x1b[31m빨강\u202e", end="\n\r 50%|##", file=stream, flush=True)
    assert below.getvalue().decode() == "answer: \\x1b[31m빨강\\u202e\n\r 50%|##"
    assert stream.encoding == "utf-8"
    assert stream.isatty()
    assert guarded(stream) is stream
    assert guarded(plain) is not plain
    del stream
    assert not below.closed


def test_what_is_no_terminal_is_left_alone() -> None:
    stream = io.StringIO()
    assert guarded(stream) is stream


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
def test_the_command_line_guards_terminals_and_not_pipes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = os.openpty()
    with open(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        patch.setattr(sys, "stdout", terminal)
        assert main(["generate", "no\x1b[31mmodel", "--prompt", "x"]) == 2
        print("\x1b[2J", "end", flush=True)
        shown = ""
        while "end" not in shown:
            shown += os.read(ours, 10_000).decode()
    os.close(ours)
    assert "no\\x1b[31mmodel" in shown
    assert shown.splitlines()[-1] == "\\x1b[2J end"
    print("\x1b[2J", end="", flush=True)
    assert capfd.readouterr().out == "\x1b[2J"


def fails_from_below() -> None:
    with silenced():
        os.write(1, b"from below")
        os.write(2, b"a panic")
        raise ValueError("inside")


def test_what_is_written_past_python_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with pytest.raises(ValueError, match="inside"):
        fails_from_below()
    os.write(1, b"after")
    os.write(2, b"error")
    assert capfd.readouterr() == ("before\nafter", "error")
