"""Which files make which split, what they are called, and sources that are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.reading.files import (
    answers,
    error_of,
    ids,
    one_row,
    read,
    read_all,
    save,
)


def test_files_of_one_name_get_ids_of_their_own(tmp_path: Path) -> None:
    names = [one_row(tmp_path / folder / "a.jsonl", folder) for folder in ("x", "y")]
    assert ids(read([*names, one_row(tmp_path / "b.jsonl", "b")])) == [
        *("x/a.jsonl:1", "y/a.jsonl:1", "b.jsonl:1")
    ]
    deeper = [one_row(tmp_path / folder / "z" / "a.jsonl", folder) for folder in ("x", "y")]
    assert ids(read(deeper)) == ["x/z/a.jsonl:1", "y/z/a.jsonl:1"]
    same = read_all({"train": names[0], "val": names[0]})
    assert [ids(rows) for rows in same.values()] == [["train/a.jsonl:1"], ["val/a.jsonl:1"]]


def test_splits_that_the_user_made(tmp_path: Path) -> None:
    a, b, c = (one_row(tmp_path / f"{name}.jsonl", name) for name in "abc")
    assert answers(read_all({"test": c, "train": [a, b]})) == {"train": ["a", "b"], "test": ["c"]}
    assert answers(read_all({"train": a, "val": b, "test": c})) == {
        "train": ["a"],
        "val": ["b"],
        "test": ["c"],
    }
    assert answers(read_all({"train": a})) == {"train": ["a"]}
    empty = save(tmp_path / "e.jsonl", '{"instruction": "a", "output": ""}')
    assert error_of({"train": a, "val": empty}).startswith("e.jsonl: no usable row; empty output")


def test_folders(tmp_path: Path) -> None:
    for name in ("train.jsonl", "Dev.json", "test.csv.jsonl", "test.jsonl", "extra.csv"):
        one_row(tmp_path / name, name)
    save(tmp_path / "README.md", "# rows")
    save(tmp_path / "._train.jsonl", b"\0")
    splits = read_all(str(tmp_path))
    assert answers(splits) == {
        "train": ["train.jsonl"],
        "val": ["Dev.json"],
        "test": ["test.jsonl"],
    }


def test_folders_with_little_in_them(tmp_path: Path) -> None:
    one_row(tmp_path / "one" / "rows.jsonl", "1")
    assert answers(read_all(str(tmp_path / "one"))) == {"all": ["1"]}
    one_row(tmp_path / "shards" / "train-00001-of-00002.jsonl", "2")
    one_row(tmp_path / "shards" / "train-00000-of-00002.jsonl", "1")
    assert answers(read_all(str(tmp_path / "shards"))) == {"all": ["1", "2"]}


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    one_row(tmp_path / "blobs" / "0f3a", "1")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").symlink_to(tmp_path / "blobs" / "0f3a")
    assert ids(read(str(tmp_path / "rows"))) == ["train.jsonl:1"]


def test_folders_that_do_not_say_what_to_read(tmp_path: Path) -> None:
    where = f"data.source: {tmp_path}"
    assert (
        error_of(str(tmp_path))
        == f"{where}: no train file among its data files (none); name the file"
    )
    one_row(tmp_path / "val.jsonl", "1")
    assert error_of(str(tmp_path)) == (
        f"{where}: no train file among its data files (val.jsonl); name the files"
    )
    one_row(tmp_path / "train.jsonl", "1")
    one_row(tmp_path / "train.json", "1")
    assert error_of(str(tmp_path)) == (
        f"{where}: more than one train file (train.json, train.jsonl); name one"
    )


def test_sources_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one_row(tmp_path / "data" / "train.jsonl", "1")
    advice = "give an existing file or folder"
    no_hub = " (a data set on the Hub is named OWNER/NAME)"
    assert error_of("rows.jsonl") == f"data.source: no such file: rows.jsonl{no_hub}; {advice}"
    assert error_of("koalpaca") == f"data.source: no such file: koalpaca{no_hub}; {advice}"
    assert error_of("data/trian.jsonl") == (
        'data.source: no such file: data/trian.jsonl; did you mean "train.jsonl"?'
    )
    assert error_of("data/koalpaca") == (
        'data.source: no such file: data/koalpaca (rename the folder "data" if a Hub data set is '
        f"meant); {advice}"
    )
    assert error_of("owner/rows.csv") == f"data.source: no such file: owner/rows.csv; {advice}"
    assert error_of("./a/b") == f"data.source: no such file: a/b; {advice}"
    assert error_of("/a/b") == f"data.source: no such file: /a/b; {advice}"
    assert error_of(["data/train.jsonl", "data"]) == "data.source: data is a folder; give its files"
    assert error_of({"train": "data/x.jsonl"}).startswith(
        "data.source.train: no such file: data/x."
    )
    assert error_of("x" * 300).startswith("data.source: no such file: xxx")
    assert error_of("a\0b").startswith("data.source: no such file: a\\x00b")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "data.source: [] is no file name and no list of file names"),
        ([3], "data.source: [3] is no file name and no list of file names"),
        ({}, "data.source: no train among its splits; give train: FILE"),
        ({"val": "a"}, "data.source: no train among its splits; give train: FILE"),
        (
            {"train": "a", "vla": "b"},
            'data.source: "vla" is none of train, val, test; did you mean "val"?',
        ),
        ({"train": 3}, "data.source.train: 3 is no file name and no list of file names"),
    ],
)
def test_sources_of_the_wrong_form(source: Any, message: str) -> None:
    assert error_of(source) == message


def test_a_file_given_twice(tmp_path: Path) -> None:
    name = one_row(tmp_path / "a.jsonl", "1")
    assert error_of([name, name]) == "data.source: a.jsonl is listed twice; take one out"
