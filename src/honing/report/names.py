"""What metrics, figures, floors and verdicts are called, in English and Korean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Language = Literal["en", "ko"]


class Text(NamedTuple):
    """One thing to say, in each language."""

    en: str
    ko: str

    def of(self, language: Language) -> str:
        return self.ko if language == "ko" else self.en


@dataclass(frozen=True)
class MetricName:
    """How a metric is spoken of. unit: what a difference of it is counted in."""

    label: Text
    meaning: Text
    family: Literal["likeness", "prediction", "behaviour", "korean"]
    unit: Literal["points", "%", ""]
    decimals: int = 1


def _likeness(label: str, en: str, ko: str) -> MetricName:
    return MetricName(Text(label, label), Text(en, ko), "likeness", "points")


def _share(
    family: Literal["behaviour", "korean"], label: tuple[str, str], meaning: tuple[str, str]
) -> MetricName:
    return MetricName(Text(*label), Text(*meaning), family, "%")


METRICS: Mapping[str, MetricName] = {
    "chrf": _likeness(
        "chrF",
        "runs of characters shared with the reference",
        "참조 답과 겹치는 글자 묶음",
    ),
    "chrf++": _likeness(
        "chrF++",
        "the same, with words and pairs of words",
        "chrF에 낱말과 낱말 쌍을 더한 것",
    ),
    "bleu": _likeness(
        "BLEU",
        "runs of words shared with the reference",
        "참조 답과 겹치는 낱말 묶음",
    ),
    "bleu (effective order)": MetricName(
        Text("BLEU (effective order)", "BLEU(유효 차수)"),
        Text("BLEU of the orders that occur", "실제로 나오는 차수만 센 BLEU"),
        "likeness",
        "points",
    ),
    "rouge1": _likeness(
        "ROUGE-1",
        "words shared with the reference",
        "참조 답과 겹치는 낱말",
    ),
    "rouge2": _likeness(
        "ROUGE-2",
        "pairs of words shared with the reference",
        "참조 답과 겹치는 낱말 쌍",
    ),
    "rougeL": _likeness(
        "ROUGE-L",
        "longest row of words in the reference's order",
        "참조 답과 순서까지 같은 가장 긴 낱말 열",
    ),
    "exact_match": MetricName(
        Text("exact match", "완전 일치"),
        Text("answers equal to the reference", "참조 답과 똑같은 답"),
        "likeness",
        "%",
    ),
    "perplexity": MetricName(
        Text("perplexity", "혼란도(perplexity)"),
        Text("how surprised it is by a token of the reference", "참조 답의 토큰에 놀라는 정도"),
        "prediction",
        "",
        2,
    ),
    "bits_per_character": MetricName(
        Text("bits per character", "글자당 비트"),
        Text("the same for a character, so tokenizers compare", "토크나이저가 달라도 견줄 수 있음"),
        "prediction",
        "",
        3,
    ),
    "general_perplexity": MetricName(
        Text("perplexity of general text", "일반 글의 혼란도"),
        Text("text outside the task: what was forgotten", "과제 밖의 글: 얼마나 잊었는지"),
        "prediction",
        "",
        2,
    ),
    "general_bits_per_character": MetricName(
        Text("bits per character of general text", "일반 글의 글자당 비트"),
        Text("the same for a character", "같은 것을 글자 하나로 따진 값"),
        "prediction",
        "",
        3,
    ),
    "ended": _share(
        "behaviour",
        ("ended by itself", "스스로 끝맺은 답"),
        ("answers that the model ended", "길이 제한에 걸리지 않은 답"),
    ),
    "repetition": _share(
        "behaviour",
        ("repetition", "되풀이"),
        ("of an answer's tokens, those said before", "답에서 이미 한 말이 차지하는 몫"),
    ),
    "looping": _share(
        "behaviour",
        ("looping answers", "맴도는 답"),
        ("answers caught in a loop", "같은 말에서 빠져나오지 못한 답"),
    ),
    "empty": _share(
        "behaviour",
        ("empty answers", "빈 답"),
        ("answers without a text", "글이 없는 답"),
    ),
    "echo": _share(
        "behaviour",
        ("echo of the prompt", "질문을 되뇐 답"),
        ("answers that say the prompt again", "질문을 그대로 옮긴 답"),
    ),
    "length_ratio": MetricName(
        Text("length ratio", "길이 비율"),
        Text("length of the answers over the references'", "답의 길이 ÷ 참조 답의 길이"),
        "behaviour",
        "",
        2,
    ),
    "other_scripts": _share(
        "behaviour",
        ("other scripts", "다른 문자가 섞인 답"),
        (
            "answers with a script of neither question nor reference",
            "질문에도 참조 답에도 없는 문자",
        ),
    ),
    "hangul": _share(
        "korean",
        ("Hangul", "한글"),
        ("share of the letters", "글자 가운데 한글의 몫"),
    ),
    "one_speech_level": _share(
        "korean",
        ("one speech level", "한결같은 말투"),
        ("answers that keep to one speech level", "한 가지 말투로만 쓴 답"),
    ),
    "speech_level_match": _share(
        "korean",
        ("speech level of the reference", "참조 답과 같은 말투"),
        ("answers in the reference's speech level", "참조 답과 말투가 같은 답"),
    ),
    "particle_errors": _share(
        "korean",
        ("particle errors", "조사 오류"),
        ("particles that do not fit the final consonant", "받침에 맞지 않는 조사"),
    ),
}
"""Known metrics in the order in which the page shows them."""

FAMILIES: Mapping[str, Text] = {
    "likeness": Text("Likeness to the reference", "참조 답과 닮은 정도"),
    "prediction": Text("Prediction of the reference", "참조 답을 예측하는 정도"),
    "behaviour": Text("Behaviour", "답하는 모습"),
    "korean": Text("Korean", "한국어"),
}

VERDICTS: Mapping[str, Text] = {
    "better": Text("better", "나아짐"),
    "worse": Text("worse", "나빠짐"),
    "different": Text("different", "달라짐"),
    "not distinguishable": Text("not distinguishable", "구별되지 않음"),
    "no test": Text("no test", "검정할 수 없음"),
}

FLOORS: Mapping[str, Text] = {
    "copy the input": Text("copy the input", "입력을 그대로 옮기기"),
    "a random other reference": Text("a random other reference", "아무 참조 답이나 말하기"),
    "nearest training row": Text("nearest training row", "가장 비슷한 학습 행의 답 말하기"),
}

LEVELS: Mapping[str, Text] = {
    "hapsyo": Text("합쇼체 hapsyo", "합쇼체"),
    "haeyo": Text("해요체 haeyo", "해요체"),
    "hae": Text("해체 hae", "해체(반말)"),
    "haera": Text("해라체 haera", "해라체"),
    "none": Text("none", "없음"),
}
"""Speech levels, as figures name them: speech_level_hapsyo and so on."""

STOPPED: Mapping[str, Text] = {
    "end": Text("ended by itself", "스스로 끝맺음"),
    "stop text": Text("met a stop text", "멈춤 문자열을 만남"),
    "length": Text("cut off at the longest length", "길이 제한에 걸림"),
    "unknown": Text("end not known", "어떻게 끝났는지 모름"),
}

TWINS: Mapping[str, Text] = {
    "same prompt": Text("same prompt", "같은 질문"),
    "same prompt up to case, spaces and punctuation": Text(
        "same prompt up to case, spaces and punctuation",
        "대소문자, 띄어쓰기, 문장 부호만 다른 질문",
    ),
    "near-equal prompt": Text("near-equal prompt", "거의 같은 질문"),
    "same response": Text("same response", "같은 답"),
    "same group": Text("same group", "같은 묶음"),
}
"""How a held-out row resembles a training row, as the leak audit names it."""

TAGS: Mapping[str, Text] = {
    "best": Text("best gains", "가장 나아진 답"),
    "worst": Text("worst losses", "가장 나빠진 답"),
    "random": Text("random draw", "무작위로 뽑은 답"),
    "stopped": Text("stopped", "끝맺은 답"),
    "not-stopped": Text("not stopped", "끝맺지 못한 답"),
    "looping": Text("looping", "맴도는 답"),
    "leaked": Text("leaked", "학습 행에 쌍둥이가 있음"),
    "empty": Text("empty", "빈 답"),
}

FIGURES: Mapping[str, Text] = {
    "distinct_1": Text("distinct words, % of all", "서로 다른 낱말, %"),
    "distinct_2": Text("distinct pairs of words, % of all", "서로 다른 낱말 쌍, %"),
    "distinct_answers": Text("distinct answers, % of all", "서로 다른 답, %"),
}


def name_of(names: Mapping[str, Text], key: str, language: Language) -> str:
    """What a thing is called; one that is not known is called what it calls itself."""
    return names[key].of(language) if key in names else key.replace("_", " ")


def metric_name(key: str, unit: str) -> MetricName:
    """How a metric is spoken of, a new one too. unit: as its record has it."""
    if key in METRICS:
        return METRICS[key]
    label = key.replace("_", " ")
    points: Literal["points", ""] = "points" if unit == "0–100" else ""
    return MetricName(Text(label, label), Text("", ""), "behaviour", points, 1 if points else 3)
