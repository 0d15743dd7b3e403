"""A tokenizer or embeddings that are not those of the training are told by what they do."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from honing.data.encode import Tokens
from honing.errors import UserError
from honing.model.vocabulary import (
    check_embeddings,
    check_saved_tokenizer,
    check_tokenizer,
    num_embeddings,
    tokenizer_fingerprint,
)
from tests.tiny import tiny_model, tiny_tokenizer

PRINT = "a" * 64


def test_the_same_tokenizer_has_the_same_fingerprint(tmp_path: Path) -> None:
    first = tokenizer_fingerprint(tiny_tokenizer())
    assert len(first) == 64
    tiny_tokenizer().save_pretrained(tmp_path)
    assert tokenizer_fingerprint(AutoTokenizer.from_pretrained(tmp_path)) == first
    assert tokenizer_fingerprint(copy.deepcopy(tiny_tokenizer())) == first


def other_end(tokenizer: Any) -> None:
    tokenizer.eos_token = "<|im_end|>"


def one_more_token(tokenizer: Any) -> None:
    tokenizer.add_tokens(["한국어"])


CHANGES: dict[str, Callable[[Any], None]] = {
    "another end": other_end,
    "one more token": one_more_token,
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_tokenizer_has_another_fingerprint(change: str) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    CHANGES[change](tokenizer)
    assert tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(tiny_tokenizer())


@pytest.mark.parametrize("part", ["merges", "two ids", "spaces"])
def test_a_changed_file_has_another_fingerprint(part: str, tmp_path: Path) -> None:
    """As many tokens as before, with the same names."""
    tiny_tokenizer().save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    if part == "merges":
        record["model"]["merges"].pop()
    elif part == "two ids":
        ids = record["model"]["vocab"]
        ids["A"], ids["B"] = ids["B"], ids["A"]
    else:
        record["pre_tokenizer"]["add_prefix_space"] = True
    path.write_text(json.dumps(record), encoding="utf-8")
    changed = AutoTokenizer.from_pretrained(tmp_path)
    assert len(changed) == len(tiny_tokenizer())
    assert tokenizer_fingerprint(changed) != tokenizer_fingerprint(tiny_tokenizer())


def test_a_tokenizer_that_changed_since_the_training_is_one_line() -> None:
    with pytest.raises(UserError) as caught:
        check_tokenizer({"tokenizer": {"fingerprint": PRINT}}, "b" * 64, "model.base: mine")
    assert str(caught.value) == (
        "model.base: mine: its tokenizer has changed since the training (fingerprint bbbbbbbbbbbb, "
        "trained with aaaaaaaaaaaa), so the same text has other tokens; restore it"
    )


@pytest.mark.parametrize(
    "about", [{}, {"tokenizer": None}, {"tokenizer": {}}, {"tokenizer": {"fingerprint": PRINT}}]
)
def test_the_same_one_and_checkpoints_that_do_not_say_pass(about: dict[str, Any]) -> None:
    check_tokenizer(about, PRINT, "model.base: mine")


def test_ids_without_an_embedding() -> None:
    model = tiny_model("llama")
    assert num_embeddings(model) == 320
    rows = [Tokens("a:1", (1, 319), (-100, 319)), Tokens("a:2", (1, 320), (-100, 320))]
    check_embeddings(model, rows[:1], "mine")
    with pytest.raises(UserError) as caught:
        check_embeddings(model, rows, "mine")
    assert str(caught.value) == (
        "model.base: mine: its tokenizer gives the id 320 (a:2), and its weights have 320 "
        "embeddings; they do not belong together"
    )


def test_an_adapter_whose_new_embeddings_were_not_saved(tmp_path: Path) -> None:
    model = tiny_model("llama")
    check_saved_tokenizer(tmp_path, model)  # none
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.save_pretrained(tmp_path)
    check_saved_tokenizer(tmp_path, model)
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        check_saved_tokenizer(tmp_path, model)
    assert str(caught.value) == (
        f"{tmp_path}: was trained with 321 tokens, and its base has 320 embeddings; the new ones "
        "were not saved with the adapter, so its answers would not be its own"
    )


def test_a_saved_tokenizer_that_cannot_be_read_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    check_saved_tokenizer(tmp_path, tiny_model("llama"))


def test_a_base_that_was_enlarged_and_not_saved_is_found_before_training(
    tiny_base: Path, tmp_path: Path
) -> None:
    from honing.training.train import train
    from tests.runs import qa_rows, save_rows, small_config

    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["답"])
    tokenizer.save_pretrained(base)
    rows = save_rows(tmp_path / "rows.jsonl", qa_rows())
    with pytest.raises(UserError, match=r"its tokenizer gives the id 320 \(rows.jsonl:\d+\)"):
        train(small_config(base, rows, tmp_path / "out"), say=lambda _: None)
    assert not (tmp_path / "out").exists()
