"""Names from the user's files in messages."""

from __future__ import annotations

from honing.data.names import listed, shown


def test_foreign_names_stay_on_one_line() -> None:
    assert shown("a\nb\x1b[0m\ud800") == "a b\\x1b[0m\\ud800"
    assert shown("가" * 50) == "가" * 39 + "…"
    assert listed([str(n) for n in range(14)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, and 2 more"
    assert listed([]) == "none"


def test_long_lists_of_names_are_cut() -> None:
    assert listed(["a" * 50, "b" * 37, "c"]) == f"{'a' * 39}…, {'b' * 37}, and 1 more"
    assert listed(["a" * 50, "b" * 50]) == f"{'a' * 39}…, and 1 more"
    assert listed(["a" * 50] * 20) == f"{'a' * 39}…, and 19 more"
