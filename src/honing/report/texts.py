"""What the page says, in English and Korean side by side, and how it writes numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from honing.report.names import Language, Text

TEXTS: Mapping[str, Text] = {
    # --- frame
    "skip": Text("Skip to the numbers", "숫자로 건너뛰기"),
    "contents": Text("Contents", "차례"),
    "to_dark": Text("Dark", "어둡게"),
    "to_light": Text("Light", "밝게"),
    "footer": Text(
        "Written by honing {version}. This page is one file and asks for nothing from a network.",
        "honing {version}이 썼습니다. 이 페이지는 파일 하나이며 네트워크에서 아무것도 가져오지 "
        "않습니다.",
    ),
    "title": Text("{names}: did it get better?", "{names}: 나아졌습니까?"),
    "title_many": Text("{names}: did they get better?", "{names}: 어느 쪽이 나아졌습니까?"),
    # --- the answer
    "question": Text("Did it get better?", "나아졌습니까?"),
    "question_many": Text("Did they get better?", "어느 쪽이 나아졌습니까?"),
    "facts": Text(
        "{rows} held-out rows ({split}) in {groups} groups of near-duplicates",
        "학습에 쓰지 않은 {rows}행({split}), 서로 비슷한 행끼리 묶으면 {groups}묶음",
    ),
    "facts_leaked": Text(
        "; {leaked} of them have a twin in training",
        ", 학습 행에 쌍둥이가 있는 {leaked}행 포함",
    ),
    "base": Text("base", "원본"),
    "tuned": Text("tuned", "학습한 모델"),
    "notes": Text("Before you trust this", "믿기 전에 알아 둘 것"),
    "rose": Text(
        "{name} rose by {amount}, from {before} to {after}",
        "{name} {before}에서 {after} {amount} 올라",
    ),
    "fell": Text(
        "{name} fell by {amount}, from {before} to {after}",
        "{name} {before}에서 {after} {amount} 내려",
    ),
    "interval": Text(" (95 % interval {low} to {high})", "(95 % 신뢰구간 {low} ~ {high})"),
    "is_better": Text(
        "{change}{interval}: <b>better</b>.", "{change}{interval} <b>나아졌습니다</b>."
    ),
    "is_worse": Text(
        "{change}{interval}: <b>worse</b>.", "{change}{interval} <b>나빠졌습니다</b>."
    ),
    "is_different": Text(
        "{change}{interval}: <b>different</b>.", "{change}{interval} <b>달라졌습니다</b>."
    ),
    "is_open": Text(
        "{name} is <b>not distinguishable</b>: {before} before, {after} after (95 % interval of "
        "the difference {low} to {high}).",
        "{topic} <b>구별되지 않습니다</b>. {before}에서 {after} 되었지만, 차이의 95 % 신뢰구간이 "
        "{low} ~ {high}입니다.",
    ),
    "is_untested": Text(
        "{name}: {before} before, {after} after; nothing could be resampled, so there is no "
        "verdict.",
        "{topic} {before}에서 {after} 되었습니다. 다시 뽑아 볼 것이 없어서 판정하지 않았습니다.",
    ),
    "would_show": Text(
        "So few rows would have shown a difference of {smallest} or more.",
        "이만한 행 수에서는 차이가 {smallest} 이상이어야 드러납니다.",
    ),
    "points": Text("{number} points", "{number}점"),
    "percentage_points": Text("{number} percentage points", "{number} %p"),
    "split_test": Text("test", "테스트"),
    "split_val": Text("validation", "검증"),
    "split_train": Text("training", "학습"),
    "also_better": Text("Also better: {names}.", "그 밖에 나아진 것: {names}."),
    "also_worse": Text("Worse: {names}.", "나빠진 것: {names}."),
    "also_different": Text("Different: {names}.", "달라진 것: {names}."),
    "rest_open": Text(
        "Nothing else is distinguishable from the base.", "나머지는 원본과 구별되지 않습니다."
    ),
    "floor_above": Text(
        "That is more than the best floor, {floor} ({score}).",
        "모델 없이 얻는 가장 높은 점수({floor}, {score})보다 높습니다.",
    ),
    "floor_below": Text(
        "That is still less than a floor without any model, {floor} ({score}).",
        "그래도 모델 없이 얻는 점수({floor}, {score})보다 낮습니다.",
    ),
    "floor_open": Text(
        "It is not distinguishable from a floor without any model, {floor} ({score}).",
        "모델 없이 얻는 점수({floor}, {score})와는 구별되지 않습니다.",
    ),
    "many_better": Text(
        "By {metric}, <b>better</b> than the base: {names}.",
        "{metric}로 보아 원본보다 <b>나아진</b> 실행: {names}.",
    ),
    "many_worse": Text(
        "By {metric}, <b>worse</b> than the base: {names}.",
        "{metric}로 보아 원본보다 <b>나빠진</b> 실행: {names}.",
    ),
    "many_open": Text(
        "By {metric}, <b>not distinguishable</b> from the base: {names}.",
        "{metric}로 보아 원본과 <b>구별되지 않는</b> 실행: {names}.",
    ),
    "pair_better": Text(
        "{after} is <b>better</b> than {before}{interval}.",
        "{before}보다 {after} <b>낫습니다</b>{interval}.",
    ),
    "pair_worse": Text(
        "{after} is <b>worse</b> than {before}{interval}.",
        "{before}보다 {after} <b>못합니다</b>{interval}.",
    ),
    "pairs_open": Text(
        "No two runs are distinguishable from each other.",
        "실행끼리는 서로 구별되지 않습니다.",
    ),
    "pairs_rest_open": Text(
        "No other two runs are distinguishable.", "나머지 실행끼리는 서로 구별되지 않습니다."
    ),
    "hero": Text("{metric}, with 95 % intervals", "{metric}, 95 % 신뢰구간"),
    "hero_caption": Text(
        "Ticks are floors: what an answer scores that no model had to write.",
        "세로 눈금은 바닥 점수입니다. 모델이 쓰지 않아도 얻는 점수입니다.",
    ),
    # --- the numbers
    "metrics": Text("The numbers", "숫자"),
    "metrics_intro": Text(
        "In each picture, better lies to the right of the line at zero; where neither direction is "
        "better, more does. The shaded band is what so few rows cannot show, a small triangle is a "
        "floor. Verdicts are corrected for all tests together (Holm).",
        "그림마다 0을 나타내는 선의 오른쪽이 나아진 쪽입니다. 나아졌다고 할 방향이 없으면 오른쪽이 "
        "늘어난 쪽입니다. 옅은 띠는 이만한 행 수로는 볼 수 없는 차이이고, 작은 세모는 바닥 "
        "점수입니다. 판정은 모든 검정을 함께 보정한 것입니다(Holm).",
    ),
    "metrics_caption": Text("Each run against its base.", "원본과 학습한 모델의 비교입니다."),
    "pair_caption": Text(
        "{rows} rows that both were evaluated on, in {groups} groups.",
        "둘 다 평가한 {rows}행, {groups}묶음에서 쟀습니다.",
    ),
    "metric": Text("metric", "지표"),
    "run": Text("run", "실행"),
    "difference": Text("difference (95 %)", "차이 (95 %)"),
    "picture": Text("worse · better", "나빠짐 · 나아짐"),
    "verdict": Text("verdict", "판정"),
    "up_is_better": Text("more is better", "높을수록 좋음"),
    "down_is_better": Text("less is better", "낮을수록 좋음"),
    "picture_of": Text(
        "{metric}: difference {difference}, interval {interval}, {verdict}",
        "{metric}: 차이 {difference}, 구간 {interval}, {verdict}",
    ),
    "range": Text("{low} to {high}", "{low} ~ {high}"),
    "detail_p": Text("p {p} corrected", "보정한 p {p}"),
    "detail_smallest": Text("{smallest} would have shown", "{smallest}부터 드러남"),
    "clean_rows": Text(
        "clean rows: {before} → {after}, {verdict}", "쌍둥이 없는 행: {before} → {after}, {verdict}"
    ),
    "no_clean_rows": Text("no row is clean", "쌍둥이 없는 행이 없음"),
    "floors": Text("What needs no model", "모델이 없어도 얻는 점수"),
    "floors_intro": Text(
        "A model is of use where it beats these: the input copied, another row's reference, the "
        "answer of the training row that resembles the question most.",
        "모델은 이 점수들을 넘어야 쓸모가 있습니다. 입력을 그대로 옮긴 답, 다른 행의 참조 답, "
        "질문이 가장 비슷한 학습 행의 답입니다.",
    ),
    "beats": Text("beats {number} of {all}", "{all}개 가운데 {number}개 넘음"),
    "who": Text("whose answers", "누구의 답"),
    "pairs": Text("Runs against each other", "실행끼리 비교"),
    "pairs_intro": Text(
        "The second run minus the first, on the same rows.",
        "같은 행에서 둘째 실행에서 첫째 실행을 뺀 값입니다.",
    ),
    "seeds": Text("Seeds", "시드"),
    "seeds_intro": Text(
        "These runs differ in nothing but the seed. What lies between lowest and highest is luck.",
        "이 실행들은 시드만 다릅니다. 가장 낮은 값과 가장 높은 값의 차이는 운입니다.",
    ),
    "lowest": Text("lowest", "최저"),
    "mean": Text("mean", "평균"),
    "highest": Text("highest", "최고"),
    # --- pictures
    "training": Text("Training", "학습"),
    "training_intro": Text(
        "Dashed is the loss of training, with points that of validation.",
        "점선은 학습 손실, 점이 찍힌 선은 검증 손실입니다.",
    ),
    "loss": Text("Loss", "손실"),
    "loss_axis": Text("nats a token", "토큰당 nat"),
    "step_axis": Text("optimizer steps", "옵티마이저 스텝"),
    "loss_caption": Text("Lowest validation loss: {lowest}.", "가장 낮은 검증 손실: {lowest}."),
    "no_validation": Text("No validation loss was measured.", "검증 손실을 재지 않았습니다."),
    "curve_train": Text("training", "학습"),
    "curve_validation": Text("validation", "검증"),
    "rate": Text("Learning rate", "학습률"),
    "rate_caption": Text("As it was in each logged step.", "기록한 스텝마다의 값입니다."),
    "behaviour": Text("Behaviour", "답하는 모습"),
    "behaviour_intro": Text(
        "How the answers look, whatever they say.",
        "무슨 말을 하는지와 관계없이, 답이 어떤 모습인지 봅니다.",
    ),
    "lengths": Text("Length of the answers", "답의 길이"),
    "lengths_axis": Text("characters", "글자 수"),
    "median": Text("median {median}", "중앙값 {median}"),
    "scores": Text("Score of each answer", "답 하나하나의 점수"),
    "scores_axis": Text("chrF of one answer", "답 하나의 chrF"),
    "over_rows": Text("Over the {rows} rows of this page.", "이 페이지에 실린 {rows}행입니다."),
    "endings": Text("How answers end, %", "답이 어떻게 끝나는가, %"),
    "levels": Text("Speech levels, %", "말투, %"),
    "levels_caption": Text(
        "By the ending of each sentence; none: a sentence without such an ending.",
        "문장마다 끝맺는 어미를 보았습니다. 없음은 그런 어미로 끝나지 않은 문장입니다.",
    ),
    "shares": Text("Shares of the answers, %", "답에서 차지하는 비율, %"),
    "shares_caption": Text(
        "Points with 95 % intervals; the numbers are those of base and runs in this order.",
        "점은 값, 선은 95 % 신뢰구간입니다. 숫자는 원본과 실행의 순서대로입니다.",
    ),
    "references": Text("references", "참조 답"),
    "training_rows": Text("training rows", "학습 행"),
    "figures": Text("Other figures", "그 밖의 수치"),
    "figures_intro": Text(
        "Numbers of the whole set, without an interval.",
        "전체를 한꺼번에 센 값이라 신뢰구간이 없습니다.",
    ),
    "figure": Text("figure", "수치"),
    # --- samples
    "samples": Text("Side by side", "나란히 보기"),
    "samples_intro": Text(
        "The best gains, the worst losses and a random draw; the buttons show the rest. "
        "Highlighted are a run's words that the base did not say; struck through are those of the "
        "base that a run dropped.",
        "가장 나아진 답, 가장 나빠진 답, 무작위로 뽑은 답입니다. 나머지는 단추를 눌러 볼 수 "
        "있습니다. 칠한 낱말은 원본에 없던 말이고, 줄을 그은 낱말은 원본에만 있던 말입니다.",
    ),
    "filters": Text("Choose what is shown", "보일 것 고르기"),
    "filter_selection": Text("selection", "추린 것"),
    "filter_all": Text("all", "모두"),
    "search": Text("Search", "찾기"),
    "marks": Text("Highlight against", "견줄 대상"),
    "marks_base": Text("base", "원본"),
    "marks_reference": Text("reference", "참조 답"),
    "marks_none": Text("nothing", "없음"),
    "shown": Text("{shown} of {all} rows", "{all}행 가운데 {shown}행"),
    "reference": Text("reference", "참조 답"),
    "all_new": Text("shares no word with the base", "원본과 겹치는 말 없음"),
    "nothing_said": Text("(an empty answer)", "(빈 답)"),
    "more": Text("… all {number} characters", "… 모두 {number}자"),
    "reply_score": Text("chrF {score}", "chrF {score}"),
    "reply_repetition": Text("repeats itself: {share} %", "되풀이 {share} %"),
    # --- data
    "data": Text("Data and leaks", "데이터와 누출"),
    "no_data_report": Text("This run has no data report.", "이 실행에는 데이터 보고서가 없습니다."),
    "source": Text("source", "출처"),
    "template": Text("template", "템플릿"),
    "max_length": Text("longest row", "가장 긴 행"),
    "tokens": Text("{number} tokens", "{number}토큰"),
    "kept": Text("rows kept", "쓴 행"),
    "of": Text("{part} of {whole}", "{whole} 가운데 {part}"),
    "dropped": Text("left out", "뺀 행"),
    "tokens_per_syllable": Text("tokens a Hangul syllable", "한글 음절당 토큰"),
    "fingerprint": Text("fingerprint", "지문"),
    "splits": Text("Splits", "데이터 나눔"),
    "splits_caption": Text("Lengths in tokens.", "길이의 단위는 토큰입니다."),
    "split": Text("split", "나눔"),
    "rows": Text("rows", "행"),
    "learnt": Text("learnt from", "학습하는 몫"),
    "end_in_eos": Text("end in EOS", "EOS로 끝남"),
    "cut": Text("rows cut", "잘린 행"),
    "median_length": Text("median", "중앙값"),
    "length_95": Text("95 % up to", "95 %의 상한"),
    "longest": Text("longest", "최대"),
    "leaks": Text("Leak audit", "누출 감사"),
    "leak_none": Text(
        "{split}: none of {rows} rows has a twin in training.",
        "{split}: {rows}행 가운데 학습 행에 쌍둥이가 있는 행은 없습니다.",
    ),
    "leak_some": Text(
        "{split}: {leaked} of {rows} rows have a twin in training, so they measure memory, not "
        "learning ({kinds}).",
        "{split}: {rows}행 가운데 {leaked}행은 학습 행에 쌍둥이가 있습니다. 그런 행은 배운 것이 "
        "아니라 외운 것을 잽니다({kinds}).",
    ),
    "held_out_row": Text("held-out row", "평가 행"),
    "training_row": Text("training row", "학습 행"),
    "kind": Text("kind", "종류"),
    "shown_rows": Text("Rows as the model saw them", "모델이 본 그대로의 행"),
    "shown_rows_intro": Text(
        "Only what stands in ⟦ ⟧ is learnt.", "⟦ ⟧ 안에 있는 것만 학습합니다."
    ),
    "data_remarks": Text("Notes and warnings of the data", "데이터에 대한 알림과 경고"),
    # --- how it was made
    "method": Text("How this was made", "어떻게 만들었나"),
    "config_differences": Text("What differs between the runs", "실행끼리 다른 설정"),
    "config_differences_intro": Text(
        "All other settings are the same.", "나머지 설정은 모두 같습니다."
    ),
    "setting": Text("setting", "설정"),
    "value": Text("value", "값"),
    "how_made": Text("How each number was made", "숫자마다 어떻게 만들었나"),
    "method_bootstrap": Text(
        "Intervals and p-values come from a paired bootstrap with {resamples} resamples (seed "
        "{seed}). What is resampled is the group of near-duplicate rows, not the row.",
        "신뢰구간과 p값은 짝지은 부트스트랩을 {resamples}번 해서 얻었습니다(시드 {seed}). 다시 "
        "뽑는 단위는 행이 아니라 서로 비슷한 행의 묶음입니다.",
    ),
    "method_tests": Text(
        "{tests} p-values were corrected together (Holm 1979). “Not distinguishable” does not mean "
        "“equal”: it means that so many rows could not tell.",
        "p값 {tests}개를 함께 보정했습니다(Holm 1979). ‘구별되지 않음’은 ‘같음’이 아닙니다. 이만한 "
        "행 수로는 알 수 없다는 뜻입니다.",
    ),
    "signatures": Text("Signatures", "서명"),
    "signatures_intro": Text(
        "Everything that a number depends on, in the form that its reference tool prints.",
        "숫자가 무엇에 달려 있는지를 기준이 되는 도구와 같은 꼴로 적었습니다.",
    ),
    "made_with": Text("Versions and seeds of this comparison", "이 비교의 버전과 시드"),
    "settings_of": Text("All settings of", "모든 설정:"),
    "folder": Text("folder", "폴더"),
    "checkpoint": Text("checkpoint", "체크포인트"),
    "base_model": Text("base model", "원본 모델"),
    "trained": Text("trained", "학습량"),
    "trained_value": Text(
        "{steps} steps, {tokens} tokens, {minutes} minutes",
        "{steps}스텝, {tokens}토큰, {minutes}분",
    ),
    "parameters": Text("trained parameters", "학습한 파라미터"),
    "answer_settings": Text("How it was evaluated", "평가 설정"),
    "run_config": Text("How it was trained", "학습 설정"),
}


@dataclass(frozen=True)
class Wording:
    """The page's words in one language: call it with the key of a text and its values."""

    language: Language

    def __call__(self, key: str, **values: object) -> str:
        return self._pattern(key).format(**values)

    def markup(self, key: str, **values: object) -> Markup:
        """A text with tags of its own; the values are escaped."""
        return Markup(self._pattern(key)).format(**values)

    def _pattern(self, key: str) -> str:
        """The text, without a line break between a number and its %."""
        return TEXTS[key].of(self.language).replace(" %", "\u00a0%")

    def with_particle(self, word: str, particle: str) -> str:
        """Korean only: a word with the particle that its last sound asks for; else the word."""
        return word + choose_particle(word, particle) if self.language == "ko" else word


_FINAL_RIEUL = "lLrR178"
_FINAL_OTHER = "mnMN036"


def choose_particle(word: str, particle: str) -> str:
    """Of a pair such as 이/가, 은/는, 으로/로, the one that fits the word's last sound.

    Letters and digits sound as Koreans name them: L is 엘, 3 is 삼. After ㄹ it is 로.
    """
    after_consonant, after_vowel = particle.split("/")
    last = next((c for c in reversed(word) if c.isalnum()), "")
    if "가" <= last <= "힣":
        final = (ord(last) - ord("가")) % 28
        has_final, is_rieul = final != 0, final == 8
    else:
        is_rieul = last != "" and last in _FINAL_RIEUL
        has_final = is_rieul or (last != "" and last in _FINAL_OTHER)
    if is_rieul and after_vowel == "로":
        return after_vowel
    return after_consonant if has_final else after_vowel


def number(value: float, decimals: int = 1, *, signed: bool = False) -> str:
    """A number for people: a true minus, thousands apart, – where there is none."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 1000:
        decimals = 0
    text = f"{value:+,.{decimals}f}" if signed else f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def p_value(p: float) -> str:
    """A p-value with three decimals, never as 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
