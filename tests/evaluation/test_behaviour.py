"""Behaviour: exact numbers for answers made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from honing.evaluation import particles
from honing.evaluation.behaviour import (
    behaviour_figures,
    behaviour_metrics,
    data_figures,
    ends_in_loop,
    is_echo,
    main_level,
    repetition_of_characters,
)
from honing.evaluation.metric import Metric
from honing.evaluation.record import Prediction
from honing.version import VERSION


def row(
    prediction: str, reference: str = "네, 좋아요.", prompt: str = "같이 갈까?", **more: Any
) -> Prediction:
    defaults = {"sum_nats": None, "num_tokens": 0, "stopped": "end", "num_new_tokens": 4}
    return Prediction("a", prompt, reference, prediction, **{**defaults, **more})


def metrics(*rows: Prediction) -> dict[str, Metric]:
    return {metric.name: metric for metric in behaviour_metrics(rows)}


def parts(name: str, *rows: Prediction) -> list[list[float]]:
    found: list[list[float]] = metrics(*rows)[name].statistics.tolist()
    return found


def test_names_directions_and_units() -> None:
    pytest.importorskip("mecab_ko")
    found = behaviour_metrics([row("네.")])
    assert {metric.name: (metric.better, metric.unit) for metric in found} == {
        "ended": ("higher", "0–100"),
        "repetition": ("lower", "0–100"),
        "looping": ("lower", "0–100"),
        "empty": ("lower", "0–100"),
        "echo": ("lower", "0–100"),
        "length_ratio": ("neither", "ratio"),
        "other_scripts": ("lower", "0–100"),
        "exact_match": ("higher", "0–100"),
        "hangul": ("neither", "0–100"),
        "one_speech_level": ("higher", "0–100"),
        "speech_level_match": ("higher", "0–100"),
        "particle_errors": ("lower", "0–100"),
    }
    assert all(metric.signature.endswith(f"|honing:{VERSION}") for metric in found)
    assert all(metric.statistics.shape == (1, 2) for metric in found)


def test_ended_counts_only_rows_that_are_known() -> None:
    rows = [row("a", stopped=how) for how in ("end", "length", "stop text", "unknown")]
    assert parts("ended", *rows) == [[1, 1], [0, 1], [0, 1], [0, 0]]
    assert metrics(*rows)["ended"].value == pytest.approx(100 / 3)


def test_ended_is_left_out_where_no_row_is_known() -> None:
    assert "ended" not in metrics(row("a", stopped="unknown"), row("b", stopped="unknown"))


def test_repetition_of_a_model_is_its_tokens() -> None:
    found = metrics(row("a", repetition=25.0), row("b", repetition=75.0))["repetition"]
    assert found.statistics.tolist() == [[0.25, 1], [0.75, 1]]
    assert found.value == 50.0
    assert found.signature == f"8-token runs seen before|mean|honing:{VERSION}"


def test_repetition_of_a_file_is_counted_in_characters() -> None:
    found = metrics(row("0123456789" * 4, num_new_tokens=0))["repetition"]
    assert found.value == pytest.approx(100 * 15 / 25)  # of 25 runs, 10 differ
    assert found.signature == f"16-character runs seen before|mean|honing:{VERSION}"


def test_repetition_of_characters() -> None:
    assert repetition_of_characters("짧은 답") == 0.0
    assert repetition_of_characters("0123456789abcdef") == 0.0
    assert repetition_of_characters("a" * 17) == 50.0


def test_looping() -> None:
    rows = [
        row("the end. the end. the end."),
        row("a, b, c", repetition=50.0),
        row("a, b, c", repetition=49.9),
        row("끝."),
    ]
    assert parts("looping", *rows) == [[1, 1], [1, 1], [0, 1], [0, 1]]
    assert metrics(*rows)["looping"].value == 50.0


@pytest.mark.parametrize(
    ("text", "is_loop"),
    [
        ("", False),
        ("좋아요. 좋아요. 좋아요.", True),
        ("좋아요. 좋아요. 좋아요. 좋아", True),
        ("좋아요.\n좋아요.  좋아요.\n", True),
        ("먼저 이것. 좋아요. 좋아요. 좋아요.", True),
        ("좋아요. 좋아요. 좋아요. 끝.", False),
        ("좋아요. 좋아요.", False),
        ("네. 네. 네.", False),
        ("네. 네. 네. 네.", True),
        ("와! 좋아!!! 좋아!!! 좋아!!!", True),
        ("ㅋ" * 19, False),
        ("ㅋ" * 20, True),
        ("정말 정말 정말 좋아요", False),
        ("1234512345123", False),
        ("123451234512345", True),
    ],
)
def test_loops_at_the_end(text: str, is_loop: bool) -> None:
    assert ends_in_loop(text) == is_loop


def test_empty() -> None:
    assert parts("empty", row(""), row(" \n"), row(".")) == [[1, 1], [1, 1], [0, 1]]


PROMPT = "다음 문장을 요약하세요.\n내일 오후에 서울에서 회의가 열립니다."


@pytest.mark.parametrize(
    ("answer", "reference", "echoes"),
    [
        (PROMPT, "서울 회의", True),
        ("다음 문장을 요약하세요", "서울 회의", True),
        ("내일 오후에 서울에서 회의가", "서울 회의", True),
        ("오후 회의", "서울 회의", False),
        ("서울에서", "서울 회의", False),
        ("회의는 내일 서울에서 오후에 열려요.", "서울 회의", False),
        ("", "서울 회의", False),
        ("내일 오후에 서울에서 회의가", "내일 오후에 서울에서 회의가", False),
        ("내일 오후에 서울에서 회의가", "오후에 서울에서 회의가 열립", False),
    ],
)
def test_echo(answer: str, reference: str, echoes: bool) -> None:
    assert is_echo(row(answer, reference, PROMPT)) == echoes


def test_a_short_prompt_is_echoed_as_a_whole_only() -> None:
    assert is_echo(row("심심해", "놀러 가요.", "심심해!"))
    assert not is_echo(row("심심해요?", "놀러 가요.", "심심해!"))
    assert not is_echo(row("네", "놀러 가요.", ""))


def test_an_echo_needs_four_fifths_of_the_runs() -> None:
    """10 letters of the prompt and n others: 6 known runs of 6 + n."""
    prompt = "abcdefghij"
    assert is_echo(row(prompt + "1", "x", prompt))
    assert not is_echo(row(prompt + "12", "x", prompt))


def test_length_ratio_is_that_of_the_sums() -> None:
    found = metrics(row("가나다", "가나"), row("\u1100\u1161", "가나다라"))["length_ratio"]
    assert found.statistics.tolist() == [[3, 2], [1, 4]]
    assert found.value == pytest.approx(4 / 6)


def test_other_scripts() -> None:
    rows = [
        row("네 좋아요 123 😀"),
        row("네 好아요"),
        row("好", prompt="漢字는?"),
        row("TV 봐요"),
        row("TV 봐요", reference="PC 해요"),
        row("нет", reference="no", prompt="yes"),
    ]
    assert [part for part, _ in parts("other_scripts", *rows)] == [0, 1, 0, 1, 0, 1]


def test_exact_match() -> None:
    rows = [
        row(" 네,  좋아요.\n"),
        row("네, 좋아요"),
        row("\u1102\u1166, 좋아요."),
    ]
    assert parts("exact_match", *rows) == [[1, 1], [0, 1], [1, 1]]


def test_hangul_is_the_share_of_letters() -> None:
    found = metrics(row("가나 ab 漢 12"), row(""))["hangul"]
    assert found.statistics.tolist() == [[2, 5], [0, 0]]
    assert found.value == 40.0


def test_korean_metrics_need_korean_references() -> None:
    found = metrics(row("네", reference="yes"), row("네", reference=""))
    assert {"hangul", "one_speech_level", "speech_level_match", "particle_errors"}.isdisjoint(found)


def test_one_speech_level() -> None:
    rows = [
        row("좋아요. 가요. 오늘의 날씨"),
        row("좋아요. 갑니다."),
        row("봤어. 가자!"),
        row("봤어. 가요."),
        row("오늘의 날씨"),
    ]
    assert parts("one_speech_level", *rows) == [[1, 1], [0, 1], [1, 1], [0, 1], [0, 0]]
    assert metrics(*rows)["one_speech_level"].value == 50.0


def test_speech_level_match() -> None:
    rows = [
        row("좋습니다.", "갑니다."),
        row("좋아요.", "갑니다."),
        row("", "갑니다."),
        row("좋아요.", "오늘의 날씨"),
    ]
    assert parts("speech_level_match", *rows) == [[1, 1], [0, 1], [0, 1], [0, 0]]


def test_no_match_is_measured_where_no_reference_has_a_level() -> None:
    found = metrics(row("좋아요.", "오늘의 날씨"))
    assert "speech_level_match" not in found
    assert found["one_speech_level"].value == 100.0


def test_main_level() -> None:
    assert main_level("좋아요. 가요. 갑니다. 제목\n제목\n제목") == "haeyo"
    assert main_level("좋아요. 갑니다.") == "hapsyo"
    assert main_level("갑니다. 좋아요.") == "haeyo"
    assert main_level("제목") is None


def test_particle_errors() -> None:
    pytest.importorskip("mecab_ko")
    found = metrics(row("책를 샀고 사과는 없다."), row("네."), row("물이 차다. 산은 높다."))
    assert found["particle_errors"].statistics.tolist() == [[1, 2], [0, 0], [0, 2]]
    assert found["particle_errors"].value == 25.0
    assert found["particle_errors"].signature == (
        f"per 100 checked|mecab-0.996/ko-0.9.2|honing:{VERSION}"
    )


def test_without_mecab_particles_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(particles, "_tagger", lambda: None)
    assert "particle_errors" not in metrics(row("책를"))
    assert "references_particle_errors" not in data_figures(["책를 샀다."], "references")


def test_no_rows_are_no_error() -> None:
    assert math.isnan(metrics()["repetition"].value)
    assert behaviour_figures([]) == {}
    assert data_figures([], "training") == {}


def test_distinct_n_grams() -> None:
    """6 words, 4 different; 4 pairs, 3 different: none crosses from one answer to the next."""
    rows = [row("a b a", "x y"), row("A b c", "x y"), row("a  b a", "x y")]
    figures = behaviour_figures(rows[:2])
    assert figures["distinct_1"].value == 50.0
    assert figures["distinct_2"].value == 75.0
    assert figures["distinct_1"].signature == (
        f"different of all 1-grams|tokens:words|honing:{VERSION}"
    )
    assert behaviour_figures(rows)["distinct_answers"].value == pytest.approx(100 * 2 / 3)


def test_mix_of_the_answers() -> None:
    figures = behaviour_figures([row("좋아요. 갑니다. 가요."), row("제목")])
    mix = {name: figure.value for name, figure in figures.items() if "level" in name}
    assert mix == {
        "speech_level_hapsyo": 25.0,
        "speech_level_haeyo": 50.0,
        "speech_level_hae": 0.0,
        "speech_level_haera": 0.0,
        "speech_level_none": 25.0,
    }


def test_figures_of_the_data() -> None:
    pytest.importorskip("mecab_ko")
    figures = data_figures(["책를 샀어요.", "물이 차다."], "training")
    assert {name: figure.value for name, figure in figures.items()} == {
        "training_speech_level_hapsyo": 0.0,
        "training_speech_level_haeyo": 50.0,
        "training_speech_level_hae": 0.0,
        "training_speech_level_haera": 50.0,
        "training_speech_level_none": 0.0,
        "training_particle_errors": 50.0,
    }
    assert data_figures(["yes."], "references") == {}


def test_many_texts_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("honing.evaluation.behaviour.MOST_TEXTS", 2)
    figures = data_figures(["좋아요.", "간다.", "가요.", "간다.", "좋습니다."], "training")
    assert figures["training_speech_level_haeyo"].value == 50.0
    assert figures["training_speech_level_haera"].value == 50.0
    assert "|1 text in 3|" in figures["training_speech_level_haeyo"].signature
