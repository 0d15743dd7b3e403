"""Names from the user's files in messages and commands."""

from __future__ import annotations

import shlex

import pytest

from honing.data.reading.names import as_argument, listed, shown


def test_foreign_names_stay_on_one_line() -> None:
    assert shown("a\nb\x1b[0m\ud800") == "a b\\x1b[0m\\ud800"
    assert shown("가" * 50) == "가" * 39 + "…"
    assert listed([str(n) for n in range(14)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, and 2 more"
    assert listed([]) == "none"


def test_long_lists_of_names_are_cut() -> None:
    assert listed(["a" * 50, "b" * 37, "c"]) == f"{'a' * 39}…, {'b' * 37}, and 1 more"
    assert listed(["a" * 50, "b" * 50]) == f"{'a' * 39}…, and 1 more"
    assert listed(["a" * 50] * 20) == f"{'a' * 39}…, and 19 more"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("configs/한국어-1.yaml", "configs/한국어-1.yaml"),
        ("train.epochs=3", "train.epochs=3"),
        ("C:/a_b,c@d+e%", "C:/a_b,c@d+e%"),
        ("my file", "'my file'"),
        ("a'b", "'a'\"'\"'b'"),
        ("data.columns={a: b}", "'data.columns={a: b}'"),
        ("~/a", "'~/a'"),
        ("a$b", "'a$b'"),
        ("a\nb", "'a\nb'"),
        ("", "''"),
    ],
)
def test_a_shell_takes_a_word_as_it_is(word: str, expected: str) -> None:
    assert as_argument(word) == expected
    assert shlex.split(expected) == [word]
