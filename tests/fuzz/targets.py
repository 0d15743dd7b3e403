"""What is fuzzed: for each kind of file, valid ones and the way in which honing reads it.

Each file is one that a stranger may have made: rows, configurations, templates, predictions,
evaluations, checkpoints and whole models. Reading it either works or raises UserError, in one line
that steers no terminal.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from honing.config import EvaluateConfig
from honing.config_file import dump_config, load_config
from honing.data.chat_sandbox import render_chat_template
from honing.data.chat_template import ChatRenderer, render_chat
from honing.data.example import Example, Exchange
from honing.data.reading.read import read_source
from honing.data.template import choose_template, render
from honing.errors import HoningError
from honing.evaluation import answers as answering
from honing.evaluation.files import read_evaluation, write_evaluation
from honing.evaluation.foreign import evaluate_file
from honing.report.charts import Series, training_charts
from honing.report.runs import load_run
from honing.report.texts import Wording
from honing.run import RunFolder
from tests.fuzz.mutate import dump, mutated, mutated_record
from tests.report.made_up import made_up_runs
from tests.runs import qa_rows
from tests.tiny import CHAT_TEMPLATE

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Target:
    """file: the name under which an input is saved, in an empty folder or in a copy of `around`.
    read: what honing does with that file. records: seeds are JSON, and are changed as such too."""

    kind: str
    file: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    records: bool = False
    around: Path | None = None

    def make(self, draw: random.Random) -> bytes:
        """A malformed input."""
        seed = draw.choice(self.seeds)
        if self.records and draw.random() < 0.7:
            lines = [json.loads(line) for line in seed.splitlines()] if self.lines else None
            if lines is None:
                return dump(mutated_record(json.loads(seed), draw), draw)
            place = draw.randrange(len(lines))
            lines[place] = mutated_record(lines[place], draw)
            return b"\n".join(dump(line, draw) for line in lines)
        return mutated(seed, draw, self.seeds)

    @property
    def lines(self) -> bool:
        return self.file.endswith("jsonl")


def tried(target: Target, content: bytes, folder: Path) -> str:
    """What honing does with an input: "read", "refused", or what it does wrong."""
    path = folder / target.file
    if target.around is not None and not path.parent.exists():
        shutil.copytree(target.around, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        target.read(path)
    except HoningError as error:
        message = str(error)
        if steers(message) or len(message) > 2000:
            return f"a message that is not one line: {message[:200]!r}"
        return "refused"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]!r}"
    return "read"


def wrong_with(target: Target, content: bytes, folder: Path) -> str | None:
    """What honing does wrong with an input; None where it reads or refuses it as it should."""
    outcome = tried(target, content, folder)
    return None if outcome in ("read", "refused") else outcome


def steers(message: str) -> bool:
    """Whether a text has lines, or characters that a terminal obeys or cannot show."""
    return any(
        unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(c) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "PDI")
        for c in message
    )


# --- rows, configurations, templates, evaluations


def light_targets() -> list[Target]:
    """All that needs no model."""
    rows = [dict(row, input="", system="시스템", group="g") for row in qa_rows(4)]
    chat = [{"messages": _turns(row["instruction"], row["output"])} for row in rows]
    texts = [{"text": "### 질문: 하나\n\n### 답변: 둘"}, {"text": "### 질문: 셋\n\n### 답변: 넷"}]
    tables = [rows, chat, texts, [{"prompt": "a", "completion": "b"}]]
    whole = tuple(_json(table) for table in (*tables, {"data": rows}))
    return [
        Target("json", "rows.json", whole, _read_rows, records=True),
        Target("jsonl", "rows.jsonl", tuple(map(_lines, tables)), _read_rows, records=True),
        Target("csv", "rows.csv", _CSV, _read_rows),
        Target("parquet", "rows.parquet", tuple(map(_parquet, (rows, chat, _odd()))), _read_rows),
        Target("text", "rows.txt", (*_CSV, *whole), _read_rows),
        Target("config", "config.yaml", _configs(), load_config),
        Target("config-record", "config.json", _config_records(), load_config, records=True),
        Target("override", "override", _OVERRIDES, _read_override),
        Target("template", "template.json", _TEMPLATES, _render_text, records=True),
        Target("chat-template", "template.jinja", _CHAT_TEMPLATES, _render_chat),
        Target("predictions", "answers.jsonl", _PREDICTIONS, _score, records=True),
        Target("evaluation", "base.json", _evaluations(), read_evaluation, records=True),
        Target("metrics", "run/metrics.jsonl", _METRICS, _draw_curves, records=True),
        Target("part", "run/.base.part.jsonl", _PARTS, _go_on, records=True),
    ]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _lines(rows: Sequence[Any]) -> bytes:
    return b"\n".join(map(_json, rows)) + b"\n"


def _turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


_CSV = (
    "instruction,output\n하나,둘\n셋,넷\n".encode(),
    b'question;answer;group\n"a;b\nc";"""d""";1\ne;f;2\n',
    "질문\t답변\r\n하나\t둘\r\n".encode("cp949"),
    "\ufeffQ,A\n1,2\n".encode(),
)


def _parquet(rows: Sequence[Any]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


def _odd() -> list[dict[str, Any]]:
    """Values that other formats cannot hold."""
    return [{"instruction": "a", "output": "b", "n": 10**18, "at": None, "raw": b"\0", "list": [1]}]


def _read_rows(path: Path) -> object:
    return read_source(str(path), columns=None, encoding=None, group_by=None)


def _configs() -> tuple[bytes, ...]:
    files = sorted((ROOT / "configs").glob("*.yaml"))
    return (*(file.read_bytes() for file in files), dump_config(load_config(None)).encode())


def _config_records() -> tuple[bytes, ...]:
    template = {"prompt": "{instruction}", "prompt_without_input": "x {instruction}"}
    data = {"source": {"train": ["a", "b"]}, "template": template, "columns": {"output": "A"}}
    return (
        _json(load_config(None).model_dump(mode="json")),
        _json({"data": data, "lora": {"target_modules": ["q"]}, "generate": {"stop": ["a"]}}),
    )


_OVERRIDES = tuple(
    text.encode()
    for text in (
        "train.epochs=1",
        "data.columns={instruction: Q, output: A}",
        "generate.stop=['a', 'b']",
        'data.template={prompt: "{instruction}"}',
        "lora.target_modules=[q, k]",
        "data.source={train: a, val: [b, c]}",
    )
)


def _read_override(path: Path) -> object:
    return load_config(None, [path.read_bytes().decode("utf-8", "surrogateescape")])


_EXAMPLE = Example("rows:1", (Exchange("질문?", "답."), Exchange("a", "b", "c")), system="s")
_TEMPLATES = (
    _json({"prompt": "{instruction}\n{input}\n", "prompt_without_input": "{instruction}"}),
    _json({"prompt": "### 질문: {instruction}\n\n### 답변:"}),
)


def _render_text(path: Path) -> object:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    config = load_config(None, [f"data.template={text}"])
    template = choose_template(config.data.template, None)
    return None if template.name == "chat" else render(_EXAMPLE, template, "all_turns")


_CHAT_TEMPLATES = (
    CHAT_TEMPLATE.encode(),
    b"{%- for m in messages %}{{ '<|' + m.role + '|>' ~ m['content'] | trim }}{% endfor -%}",
    b"{% set ns = namespace(x='') %}{% for m in messages %}{% set ns.x = ns.x ~ m.content %}"
    b"{% if loop.last and m.role != 'user' %}{{ raise_exception('no') }}{% endif %}{% endfor %}",
    b"{% macro say(m) %}[{{ m.content.strip() | replace('a', 'b') }}]{% endmacro %}"
    b"{{ bos_token }}{% for m in messages[1:] if m.content %}{{ say(m) * 2 }}{% endfor %}",
)


def _render_chat(path: Path) -> object:
    source = path.read_bytes().decode("utf-8", "replace")
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    renderer = ChatRenderer(
        lambda messages: render_chat_template(source, messages, tokens), ("<s>", "</s>")
    )
    return render_chat(_EXAMPLE, renderer, "response")


_PREDICTIONS = (
    _lines(
        [
            {"reference": "서울입니다.", "prediction": "서울이에요.", "prompt": "수도는?", "id": 1},
            {"reference": "100도", "answer": "백 도", "instruction": "물", "input": "열"},
            {"reference": "b", "prediction": "", "stopped": "length"},
        ]
    ),
)


def _score(path: Path) -> object:
    return evaluate_file(path, EvaluateConfig(num_resamples=1000), seed=1)


def _evaluations() -> tuple[bytes, ...]:
    estimate = {"score": 1.5, "interval": [1, 2]}
    metric = {**estimate, "clean": estimate, "better": "higher", "unit": "", "signature": "s"}
    answer = {
        **{"id": "a", "prompt": "p", "reference": "r", "prediction": "x", "sum_nats": 1.0},
        **{"num_tokens": 3, "stopped": "end", "num_new_tokens": 2, "repetition": 0.0},
        **{"group": 0, "leaked": False, "statistics": {"bleu": [1, 2.5]}},
    }
    record = {
        **{"format": 1, "kind": "base", "model": {"base": "b"}, "data": {"split": "test"}},
        **{"settings": {"seed": 1}, "metrics": {"bleu": metric}, "floors": {"copy": {"bleu": 1}}},
        **{"figures": {"d": {"value": 1, "signature": "s"}}, "warnings": ["w"]},
        "predictions": [answer, {**answer, "sum_nats": None}],
    }
    return (_json(record),)


_METRICS = (
    _lines(
        [
            {"kind": "validation", "step": 0, "val_loss": 3.5, "samples": [{"prompt": "가"}]},
            {"kind": "train", "step": 1, "train_loss": 3.0, "learning_rate": 1e-3},
            {"kind": "train", "step": 2, "train_loss": 2.5, "learning_rate": 5e-4},
        ]
    ),
)


def _draw_curves(path: Path) -> object:
    """As honing compare does, of a run that is evaluated."""
    run = RunFolder(path.parent)
    if not run.evaluation.exists():
        (made,) = made_up_runs(1, 6)
        write_evaluation(run.evaluation_base, made.base)
        write_evaluation(run.evaluation_tuned, made.tuned)
    return training_charts([Series(load_run(run.root).info, "run-1", ())], Wording("en"))


_PARTS = (
    _lines(
        [
            {"key": "k"},
            {"losses": {"0": {"sum_nats": 1.5, "num_tokens": 3}}},
            {
                "answers": {
                    "0": {"question_id": "a", "number": 0, "text": "답", "num_tokens": 2}
                    | {"stopped": "end", "repetition": 0.0}
                }
            },
        ]
    ),
)


def _go_on(path: Path) -> object:
    """What a stopped evaluation left is counted and written, or is nothing of ours."""
    losses, answers = answering._read_part(path, "k")
    sum(loss.sum_nats / loss.num_tokens for loss in losses.values() if loss.num_tokens)
    return [f"{a.text} {a.question_id} {a.stopped}".encode() for a in answers.values()]
