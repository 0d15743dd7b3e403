"""What scoring without a model gives: copies, random answers, and looking the question up."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from honing.evaluation import floors
from honing.evaluation.floors import (
    copy_floor,
    floor_scores,
    nearest_row_floor,
    random_other_floor,
)
from honing.evaluation.segmentation import WORDS, choose_segmenter
from tests.evaluation.test_segmentation import needs_mecab

# --- a random other reference


@pytest.mark.parametrize("number", [2, 3, 50])
def test_each_row_gets_another_rows_reference(number: int) -> None:
    references = [f"answer {row}" for row in range(number)]
    for seed in range(20):
        answers = random_other_floor(references, seed)
        assert sorted(answers) == sorted(references)
        assert all(answer != own for answer, own in zip(answers, references, strict=True))


def test_the_seed_decides_which() -> None:
    references = [f"answer {row}" for row in range(50)]
    assert random_other_floor(references, 1) == random_other_floor(references, 1)
    assert random_other_floor(references, 1) != random_other_floor(references, 2)


def test_one_row_has_no_other() -> None:
    assert random_other_floor(["alone"], 42) == []
    assert random_other_floor([], 42) == []


# --- the nearest training row


def plain_tf_idf(prompts: Sequence[str], train: Sequence[str]) -> list[int]:
    """The formula as it is written, over dictionaries."""

    def grams(text: str) -> Counter[str]:
        padded = f" {' '.join(text.casefold().split())} "
        return Counter(padded[i : i + n] for n in (2, 3, 4) for i in range(len(padded) - n + 1))

    rows = [grams(text) for text in train]
    frequency = Counter(gram for row in rows for gram in row)

    def vector(counts: Counter[str]) -> dict[str, float]:
        idf = {gram: math.log((1 + len(rows)) / (1 + frequency[gram])) + 1 for gram in counts}
        length = math.sqrt(sum((counts[gram] * idf[gram]) ** 2 for gram in counts))
        return {gram: counts[gram] * idf[gram] / length for gram in counts}

    vectors = [vector(row) for row in rows]
    nearest = []
    for prompt in prompts:
        own = vector(grams(prompt))
        alike = [round(sum(own[g] * row.get(g, 0.0) for g in own), 5) for row in vectors]
        nearest.append(alike.index(max(alike)))
    return nearest


def made_up_prompts(number: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    words = ["오늘", "내일", "서울", "부산", "날씨", "기차", "시간", "몇", "시에", "알려줘", "어때"]
    words += ["Train", "TIME", "when", "회의", "취소해", "예약해"]
    return [" ".join(draw.choices(words, k=draw.randint(1, 14))) for _ in range(number)]


def test_the_nearest_row_is_that_of_the_plain_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    train, prompts = made_up_prompts(150, seed=1), made_up_prompts(80, seed=2)
    expected = [str(row) for row in plain_tf_idf(prompts, train)]
    responses = [str(row) for row in range(150)]
    assert nearest_row_floor(prompts, train, responses) == expected
    assert len(set(expected)) > 30
    monkeypatch.setattr(floors, "_BLOCK_CHARACTERS", 40)
    assert nearest_row_floor(prompts, train, responses) == expected


def test_of_equally_near_rows_the_first_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    train = ["기차 시간", "서울 날씨 알려줘", "서울 날씨 알려줘", "서울  날씨 알려줘"]
    for block in (floors._BLOCK_CHARACTERS, 1):
        monkeypatch.setattr(floors, "_BLOCK_CHARACTERS", block)
        assert nearest_row_floor(["서울 날씨 알려줘"], train, ["a", "b", "c", "d"]) == ["b"]
        assert nearest_row_floor(["xyz", ""], train, ["a", "b", "c", "d"]) == ["a", "a"]


def test_decomposed_and_upper_case_prompts_find_their_like() -> None:
    train = ["other", "when does the shop open", "언제 문을 열어요"]
    prompts = [unicodedata.normalize("NFD", "언제 문을 열어요"), "WHEN DOES THE SHOP OPEN"]
    assert nearest_row_floor(prompts, train, ["none", "ten", "열 시"]) == ["열 시", "ten"]


def test_without_training_rows_nothing_is_looked_up() -> None:
    assert nearest_row_floor(["a"], [], []) == []
    with pytest.raises(ValueError, match="2 prompts and 1 responses"):
        nearest_row_floor(["a"], ["b", "c"], ["d"])


def test_ten_thousand_rows_need_little_memory() -> None:
    train, prompts = made_up_prompts(10_000, seed=3), made_up_prompts(500, seed=4)
    tracemalloc.start()
    nearest_row_floor(prompts, train, train)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6


# --- scores


def test_floors_are_scored_by_every_metric() -> None:
    references = ["close the window now", "open the door please"]
    scores = floor_scores(
        references,
        {"copy the input": copy_floor(references), "nearest training row": []},
        WORDS,
    )
    assert list(scores) == ["copy the input"]
    names = ["bleu", "chrf", "chrf++", "rouge1", "rouge2", "rougeL"]
    assert scores["copy the input"] == pytest.approx(dict.fromkeys(names, 100.0))


def real_floors(folder: Path) -> dict[str, dict[str, float]]:
    test, train = (
        [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        for name in ("test.jsonl", "train.jsonl")
    )
    references = [row["output"] for row in test]
    inputs, train_inputs = (
        [row["input"] or row["instruction"] for row in rows] for rows in (test, train)
    )
    guesses = {
        "copy the input": copy_floor(inputs),
        "a random other reference": random_other_floor(references, 42),
        "nearest training row": nearest_row_floor(
            inputs, train_inputs, [row["output"] for row in train]
        ),
    }
    return floor_scores(references, guesses, choose_segmenter(references))


@needs_mecab
@pytest.mark.shared
def test_copying_already_scores_on_sae4k(shared: Path) -> None:
    """Measured apart from this project, with another similarity and draw: ROUGE-L, BLEU and chrF
    60.6 / 34.5 / 58.9 for copying, 54.1 / 31.4 / 36.1 for looking up (here 53.2 / 30.1 / 35.4), and
    5.1 / 1.8 / 2.8 for random answers (here 3.9 to 5.6 in ROUGE-L over 20 seeds)."""
    scores = real_floors(shared / "data" / "sae4k")
    copied = scores["copy the input"]
    assert [round(copied[name], 1) for name in ("rougeL", "bleu", "chrf")] == [60.6, 34.5, 58.9]
    looked_up = scores["nearest training row"]
    assert looked_up["rougeL"] == pytest.approx(54.1, abs=1.5)
    assert looked_up["bleu"] == pytest.approx(31.4, abs=1.5)
    assert looked_up["chrf"] == pytest.approx(36.1, abs=1.5)
    assert scores["a random other reference"]["rougeL"] == pytest.approx(5.1, abs=1.5)


@needs_mecab
@pytest.mark.shared
def test_chit_chat_cannot_be_looked_up(shared: Path) -> None:
    """Measured apart, in ROUGE-L: 8.1 for looking up with another similarity (here 9.3), and 5.0
    for random answers (here 3.6 to 5.8 over 20 seeds)."""
    scores = real_floors(shared / "data" / "songys_chatbot")
    assert scores["nearest training row"]["rougeL"] == pytest.approx(8.1, abs=1.5)
    assert scores["a random other reference"]["rougeL"] == pytest.approx(5.0, abs=0.5)
