"""Notes and warnings that records hold in English, said in Korean where the page is Korean.

A record is made once and shown in any language, so its sentences are recognised here by their
wording. One that is not known is shown as it is; a test holds the wording of each against the code
that writes it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from honing.report.names import Language

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
    "{run} and its base": "{run} 실행과 그 원본",
    "only one of them has it": "한쪽에만 있음",
    "this version of honing does not know it": "이 버전의 honing이 모르는 지표",
    "it was counted in two ways ({one} and {other})": "서로 다르게 셌음({one}, {other})",
    "their tokens are not the same; bits per character are": (
        "토큰이 서로 다름. 글자당 비트는 견줄 수 있음"
    ),
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
    "learning from {part} of {whole} training rows (data.max_rows)": (
        "학습 행 {whole}개 가운데 {part}개로 학습합니다(data.max_rows)"
    ),
    "{number} {split} rows with a twin in train were dropped (data.on_leak)": (
        "학습 행에 쌍둥이가 있는 {split} 행 {number}개를 뺐습니다(data.on_leak)"
    ),
    "{leaked} of {rows} {split} rows have a twin in train, so their loss measures memory, not "
    "learning. For example {held_out} and {train} ({kind}): {texts}": (
        "{split} 행 {rows}개 가운데 {leaked}개는 학습 행에 쌍둥이가 있어서, 손실이 배운 것이 "
        "아니라 외운 것을 잽니다. 예: {held_out}, {train} ({kind}): {texts}"
    ),
    "{base} needs {tokens} tokens for a Hangul syllable: training and answers take that much "
    "longer, and {whole} about {room} syllables. A base that knows Korean needs under 1 (see "
    "{config})": (
        "{base}: 한글 음절 하나에 토큰이 {tokens}개 듭니다. 학습도 답도 그만큼 오래 걸리고, 한 "
        "번에 다룰 수 있는 글은 약 {room}음절입니다. 한국어를 아는 모델은 1개가 안 됩니다({config})"
    ),
    "answer does not fit into {number} tokens": "답이 {number}토큰 안에 들어가지 않음",
}
"""Wording of a record → the same in Korean."""


def say_remark(remark: str, language: Language) -> str:
    """A note or warning of a record in the language of the page; a reason within it, too."""
    if language == "en":
        return remark
    for pattern, korean in _patterns():
        if found := pattern.fullmatch(remark):
            values = {name: say_remark(text, language) for name, text in found.groupdict().items()}
            return korean.format(**values)
    return remark


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    return [(_pattern(english), korean) for english, korean in KOREAN.items()]


def _pattern(english: str) -> re.Pattern[str]:
    """{name} in a wording stands for any text."""
    parts = re.split(r"\{(\w+)\}", english)
    named = [
        f"(?P<{part}>.+?)" if place % 2 else re.escape(part) for place, part in enumerate(parts)
    ]
    return re.compile("".join(named), re.DOTALL)
