"""Preparing many rows: seconds a stage, peak memory, speed beside the bare tokenizer.

python benchmarks/large_data.py [--rows 10000 100000 1000000] [--folder FOLDER]

Rows are made up from a seed: short Korean chats, Korean instructions with long answers, English
instructions with and without an input, and about 1 % that repeat an earlier prompt with a word
changed. Each number of rows is prepared in a process of its own with an empty cache, then once
more with the cache it left (up to 4 MB are prepared in memory, and again each time). Beside it
stands the tokenizer alone: `encode_batch` of the `tokenizers` library over the same texts, 1,000
rows at a time, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

NEAR_DUPLICATE_SHARE = 0.01
BATCH = 1_000


def words_of(text: str) -> list[str]:
    return text.split()


_NOUNS = words_of(
    "날씨 서울 학교 친구 음악 영화 커피 여행 바다 산책 저녁 아침 점심 운동 건강 시험 공부 회사 "
    "회의 약속 선물 생일 가족 동생 부모님 강아지 고양이 자동차 지하철 버스 공항 비행기 기차 도서관 "
    "책 소설 신문 역사 과학 수학 경제 정치 사회 문화 예술 언어 한국어 영어 번역 문법 단어 문장 "
    "컴퓨터 전화 인터넷 프로그램 데이터 모델 그림 사진 노래 춤 축구 야구 농구 수영 등산 자전거 "
    "김치 비빔밥 불고기 라면 떡볶이 과일 사과 포도 수박 채소 고기 생선 우유 빵 설탕 소금 봄 여름 "
    "가을 겨울 비 눈 바람 구름 하늘 별 달 태양 지구 우주 나무 꽃 숲 강 호수 섬 마을 도시 시장 "
    "가게 병원 약국 은행 우체국 경찰서 소방서 공원 놀이터 극장 박물관 미술관 대학교 교수 학생 "
    "의사 간호사 요리사 기자 작가 배우 가수 화가 선생님 사장 직원 손님 이웃 아이 어른 할머니"
)
_PARTICLES = words_of("은 는 이 가 을 를 에서 에게 으로 와 도 만 까지 부터 의")
_VERBS = words_of(
    "좋아요 싫어요 궁금해요 알려주세요 설명해 주세요 추천해 주세요 어떻게 생각하세요 필요합니다 "
    "중요합니다 시작했습니다 끝났습니다 만들었어요 배웠어요 잊어버렸어 그리워 보고 싶다 힘들어 "
    "재미있었습니다 늘어났습니다 줄어들었습니다 바뀌었습니다 도착했습니다 떠났어요 기다려요"
)
_ENGLISH = words_of(
    "the of and to in a is that for it as was with be by on not he his but at are this have from "
    "or had an they which one you were all her she there would their we him been has when who will "
    "more no if out so said what up its about into than them can only other new some could time "
    "these two may then do first any my now such like our over man me even most made after also "
    "did many before must through back years where much your way well down should because each "
    "just those people how too little state good very make world still own see men work long get "
    "here between both life being under never day same another know while last might us great old "
    "year off come since against go came right used take three describe explain summarise compare "
    "list write translate sentence paragraph story poem recipe climate energy history computer "
    "language model science market animal planet river mountain ocean teacher student doctor "
    "question answer reason result method example problem solution temperature government culture"
)


def korean(random: Random, num_words: int) -> str:
    words = []
    for number in range(num_words):
        if number % 4 == 3 or number == num_words - 1:
            words.append(random.choice(_VERBS))
        else:
            words.append(random.choice(_NOUNS) + random.choice(_PARTICLES))
    return " ".join(words)


def english(random: Random, num_words: int) -> str:
    return " ".join(random.choices(_ENGLISH, k=num_words)).capitalize() + "."


def made_up_rows(num_rows: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Half short Korean, a quarter long Korean, a quarter English; some near-duplicates."""
    random = Random(seed)
    recent: list[dict[str, str]] = []
    for _ in range(num_rows):
        if recent and random.random() < NEAR_DUPLICATE_SHARE:
            twin = random.choice(recent)
            words = twin["instruction"].split()
            words[random.randrange(len(words))] = random.choice(_NOUNS)
            row = {**twin, "instruction": " ".join(words)}
        else:
            row = _made_up_row(random)
        if len(recent) < 5_000:
            recent.append(row)
        else:
            recent[random.randrange(5_000)] = row
        yield row


def _made_up_row(random: Random) -> dict[str, str]:
    kind = random.random()
    if kind < 0.5:
        words = random.randint(4, 8), random.randint(4, 9)
        return dict(zip(("instruction", "output"), (korean(random, n) for n in words), strict=True))
    if kind < 0.75:
        return {
            "instruction": korean(random, random.randint(6, 16)),
            "output": korean(random, random.randint(20, 70)),
        }
    return {
        "instruction": english(random, random.randint(6, 20)),
        "input": english(random, random.randint(10, 40)) if random.random() < 0.4 else "",
        "output": english(random, random.randint(10, 100)),
    }


# --- one measurement, in a process of its own


STAGES = {
    "read_rows": "read",
    "encode_examples": "encode",
    "compare": "compare",
    "_split": "split",
    "_audit": "audit",
    "_report": "report",
    "save_prepared": "keep",
    "content_key": "hash",
    "load_prepared": "open",
    "write_data": "splits/",
}


def measure(source: Path, output: Path) -> dict[str, Any]:
    """Prepare once, with the seconds of each stage."""
    import honing.data.prepare
    import honing.preparation
    from honing.config_file import load_config

    seconds: dict[str, float] = {}
    cpu_seconds: dict[str, float] = {}

    def timed(module: Any, name: str, stage: str) -> None:
        function = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            started, cpu_started = time.perf_counter(), time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                cpu = time.process_time() - cpu_started
                seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
                cpu_seconds[stage] = cpu_seconds.get(stage, 0.0) + cpu

        setattr(module, name, call)

    for name, stage in STAGES.items():
        for module in (honing.data.prepare, honing.preparation):
            if hasattr(module, name):
                timed(module, name, stage)
    config = load_config(None, [f"data.source={source}", f"output_dir={output}"])
    started = time.perf_counter()
    data = honing.preparation.prepare(config)
    return {
        "seconds": time.perf_counter() - started,
        "stages": seconds,
        "cpu_stages": cpu_seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "num_rows": data.report.num_read,
        "num_tokens": sum(split.num_tokens for split in data.report.splits.values()),
        "num_groups": data.report.num_groups,
        "fingerprint": data.report.fingerprint,
    }


def measure_bare(source: Path, num_rows: int) -> dict[str, Any]:
    """Seconds of the library's encode_batch over the texts of the first rows, 1,000 rows a call."""
    from honing.config import ModelConfig
    from honing.model.load import find_base, load_tokenizer

    tokenizer = load_tokenizer(find_base(ModelConfig())).backend_tokenizer
    batches: list[list[str]] = [[]]
    with source.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number == num_rows:
                break
            if number % BATCH == 0:
                batches.append([])
            batches[-1] += [text for text in json.loads(line).values() if text]
    tokenizer.encode_special_tokens = True
    tokenizer.encode_batch(batches[1], add_special_tokens=False)
    started, cpu_started = time.perf_counter(), time.process_time()
    for batch in batches:
        tokenizer.encode_batch(batch, add_special_tokens=False)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "num_rows": num_rows,
    }


# --- the table


def in_a_process(folder: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "HONING_CACHE": str(folder / "cache")},
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(folder: Path, num_rows: int, num_bare: int) -> dict[str, Any]:
    source, output = folder / f"rows-{num_rows}.jsonl", folder / f"run-{num_rows}"
    with source.open("w", encoding="utf-8") as file:
        for row in made_up_rows(num_rows):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    bare_arguments = "--bare", str(source), "--output", str(min(num_rows, num_bare))
    before = in_a_process(folder, *bare_arguments)
    first = in_a_process(folder, "--measure", str(source), "--output", str(output))
    after = in_a_process(folder, *bare_arguments)
    second = in_a_process(folder, "--measure", str(source), "--output", str(output))
    assert second["fingerprint"] == first["fingerprint"]
    bare, bare_cpu = (
        (before[name] / before["num_rows"] + after[name] / after["num_rows"]) / 2 * num_rows
        for name in ("seconds", "cpu_seconds")
    )
    mb = source.stat().st_size / 1e6
    source.unlink()
    return {"first": first, "second": second, "bare_s": bare, "bare_cpu_s": bare_cpu, "mb": mb}


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a column for each number of rows."""
    stages = [
        stage for stage in STAGES.values() if any(stage in r["first"]["stages"] for r in results)
    ]
    rows = {
        "file, MB": [f"{r['mb']:.0f}" for r in results],
        "tokens": [f"{r['first']['num_tokens']:,}" for r in results],
        "groups": [f"{r['first']['num_groups']:,}" for r in results],
        **{f"{s}, s": [f"{r['first']['stages'].get(s, 0):.1f}" for r in results] for s in stages},
        "whole command, s": [f"{r['first']['seconds']:.1f}" for r in results],
        "bare encode_batch, s": [f"{r['bare_s']:.1f}" for r in results],
        "encoding beside it": [
            f"{r['bare_s'] / r['first']['stages']['encode']:.2f}" for r in results
        ],
        "the same in CPU time": [
            f"{r['bare_cpu_s'] / r['first']['cpu_stages']['encode']:.2f}" for r in results
        ],
        "peak RSS, MB": [f"{r['first']['peak_mb']:.0f}" for r in results],
        "second start, s": [f"{r['second']['seconds']:.1f}" for r in results],
        "second peak RSS, MB": [f"{r['second']['peak_mb']:.0f}" for r in results],
    }
    head = ["rows", *(f"{r['first']['num_rows']:,}" for r in results)]
    lines = [
        head,
        ["---", *("---:" for _ in results)],
        *([name, *cells] for name, cells in rows.items()),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--bare-rows", type=int, default=100_000, help="rows of the bare tokenizer")
    parser.add_argument("--folder", type=Path, help="2 GB of space for a million rows")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, Path(options.output))))
        return
    if options.bare:
        print(json.dumps(measure_bare(options.bare, int(options.output))))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        results = []
        for num_rows in options.rows:
            results.append(measure_all(Path(name), num_rows, options.bare_rows))
            print(table(results), flush=True)
    threads = os.environ.get("RAYON_NUM_THREADS", "all")
    print(
        f"\nPython {platform.python_version()}, {os.cpu_count()} cores, {threads} for the tokenizer"
    )


if __name__ == "__main__":
    main()
