"""Recognising columns: which of them hold the question and the answer.

A shape is recognised by the columns and by what the first rows hold, never by a file's ending:

    alpaca             instruction, output, perhaps input
    messages           messages or conversations (or prompt and completion as lists of messages)
    prompt-completion  prompt and completion (or response)
    question-answer    question and answer, Q and A, 질문 and 답변
    koalpaca-text      one text column with "### 질문:" and "### 답변:", or Instruction and Response
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from honing.data.reading.names import did_you_mean, listed, shown
from honing.errors import UserError

FIELDS = (
    "instruction",
    "input",
    "output",
    "prompt",
    "completion",
    "messages",
    "text",
    "system",
    "group",
)
"""What `data.columns` may map."""

# The names under which a field is found without `data.columns`, best first, in lower case.
ALIASES = {field: (field,) for field in FIELDS} | {
    "completion": ("completion", "response"),
    "messages": ("messages", "conversations"),
    "question": ("question", "q", "질문"),
    "answer": ("answer", "a", "답변"),
}

# What a shape cannot do without. Where several fit, the first is taken.
REQUIRED = {
    "alpaca": ("instruction", "output"),
    "messages": ("messages",),
    "prompt-completion": ("prompt", "completion"),
    "question-answer": ("question", "answer"),
    "koalpaca-text": ("text",),
}

HEADER = re.compile(
    r"(?<!#)###[ \t]*(?:"
    r"(?P<question>질문|Instruction(?:\(명령어\))?)|"
    r"(?P<input>맥락|Input(?:\(입력\))?)|"
    r"(?P<answer>답변|Response(?:\(응답\))?)"
    r")[ \t]*:"
)

NO_MAPPING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Layout:
    """How to read one file's rows: the shape, and for each field the file's own column."""

    shape: str
    columns: dict[str, str]


def suggested_template(shape: str) -> str:
    """The template that fits rows of this shape best."""
    return {"messages": "chat", "koalpaca-text": "koalpaca-v1.1"}.get(shape, "instruction")


def folded(name: str) -> str:
    """Column names are compared without case and surrounding blanks, in composed Hangul."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def find_fields(columns: Iterable[str], mapping: Mapping[str, str] = NO_MAPPING) -> dict[str, str]:
    """Field -> the file's column, by `data.columns` first and by the usual names after that."""
    columns = list(columns)
    # A column named exactly like the field wins over one that differs in case.
    by_name = {folded(name): name for name in reversed(columns)} | {n: n for n in columns}
    fields = {}
    for field, aliases in ALIASES.items():
        column = next((by_name[alias] for alias in aliases if alias in by_name), None)
        if column is not None:
            fields[field] = column
    return fields | dict(mapping)


def find_column(columns: Collection[str], wanted: str) -> str | None:
    """The column of exactly this name; decomposed Hangul in the file counts as the same."""
    if wanted in columns:
        return wanted
    plain = unicodedata.normalize("NFC", wanted)
    return next((name for name in columns if unicodedata.normalize("NFC", name) == plain), None)


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Refuse `data.columns` keys that are no field."""
    for field, column in mapping.items():
        if field not in FIELDS:
            raise UserError(
                f'data.columns: "{shown(field)}" is none of its keys ({", ".join(FIELDS)})'
                f"{did_you_mean(str(field), FIELDS)}"
            )
        if not isinstance(column, str):
            raise UserError(
                f"data.columns.{field}: {shown(column)} is not the name of a column; give one"
            )


def map_columns(columns: Collection[str], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    """`data.columns` in the file's own spelling; a column that is not there is refused."""
    mapped = {}
    for field, wanted in mapping.items():
        column = find_column(columns, wanted)
        if column is None:
            raise _no_column(f"data.columns.{field}", wanted, columns, where)
        mapped[field] = column
    return mapped


def _no_column(key: str, wanted: str, columns: Collection[str], where: str) -> UserError:
    hint = did_you_mean(wanted, columns) or "; give one of those it has"
    return UserError(
        f'{key}: {where} has no column "{shown(wanted)}" (found: {listed(columns)}){hint}'
    )


def understood(columns: Iterable[str], mapping: Mapping[str, str] = NO_MAPPING) -> str | None:
    """The shape that these columns make, or None. What the rows hold is not looked at."""
    fields = find_fields(columns, mapping)
    mapped = {field for needed in REQUIRED.values() for field in needed if field in mapping}
    for shape, needed in REQUIRED.items():
        # A column that the user named must be one that is used.
        meant = not mapped or any(field in mapped for field in needed)
        if meant and all(field in fields for field in needed):
            return shape
    return None


def recognise(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, object]],
    mapping: Mapping[str, str] = NO_MAPPING,
    *,
    where: str = "data.source",
) -> str:
    """The shape of a file, by its columns and first rows. `where` names it in an error."""
    shape = understood(columns, mapping)
    fields = find_fields(columns, mapping)
    if shape is None:
        raise _missing_columns(columns, rows, where)
    if shape == "prompt-completion" and any(_both_lists(row, fields) for row in rows):
        return "messages"  # TRL's conversational form
    if shape == "koalpaca-text":
        texts = [row[fields["text"]] for row in rows if isinstance(row.get(fields["text"]), str)]
        marked = [text for text in texts if split_sections(plain_text(str(text))) is not None]
        if 2 * len(marked) <= len(texts):
            raise UserError(
                f"{where}: question and answer cannot be told apart in column "
                f'"{shown(fields["text"])}" ({len(marked)} of the first {len(texts)} rows are '
                'marked); "### 질문:" with "### 답변:" and "### Instruction:" with '
                '"### Response:" are understood: mark the rows so, or give two columns'
            )
    return shape


def find_layout(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, object]],
    mapping: Mapping[str, str],
    group_by: str | None,
    where: str,
) -> Layout:
    """Shape and columns of one file. A name from the configuration that it lacks is refused."""
    mapped = map_columns(columns, mapping, where)
    shape = recognise(columns, rows, mapped, where=where)
    if group_by is not None:
        group = find_column(columns, group_by)
        if group is None:
            raise _no_column("data.group_by", group_by, columns, where)
        mapped["group"] = group
    return Layout(shape, _fields_used(columns, mapped, shape))


def widen(layout: Layout, new_columns: Iterable[str]) -> Layout:
    """The layout after a later row brought columns that the first rows lacked."""
    more = _fields_used(new_columns, NO_MAPPING, layout.shape)
    optional = {name: more[name] for name in ("input", "system", "group") if name in more}
    return Layout(layout.shape, optional | layout.columns)


def _fields_used(columns: Iterable[str], mapping: Mapping[str, str], shape: str) -> dict[str, str]:
    fields = find_fields(columns, mapping)
    if shape != "alpaca" and "input" not in mapping:
        fields.pop("input", None)  # a column of that name means something else there
    return fields


def _both_lists(row: Mapping[str, object], fields: Mapping[str, str]) -> bool:
    return all(isinstance(row.get(fields[name]), list) for name in ("prompt", "completion"))


def _missing_columns(
    columns: Sequence[str], rows: Sequence[Mapping[str, object]], where: str
) -> UserError:
    texts = [c for c in columns if c.strip() and any(isinstance(row.get(c), str) for row in rows)]
    likely = _likely_pair(texts)
    example = "columns: {instruction: …, output: …}"
    if likely:
        example = "columns: {{instruction: {}, output: {}}}".format(*map(_yaml_name, likely))
    return UserError(
        f"{where}: question and answer not found among its columns (found: {listed(columns)}); "
        "expected instruction and output, prompt and completion, question and answer, messages, "
        f"or text: name yours under data with {example}"
    )


def _likely_pair(columns: Sequence[str]) -> tuple[str, str] | None:
    """A guess at the question's and the answer's column, for advice only."""
    questions = ("instruction", "question", "질문", "query", "prompt", "input", "user", "문제")
    answers = ("output", "answer", "답", "response", "completion", "reply", "target", "응답")
    ask = _best_match(columns, (*questions, "q")) or (columns[0] if columns else None)
    rest = [column for column in columns if column != ask]
    reply = _best_match(rest, (*answers, "a")) or (rest[0] if rest else None)
    return (ask, reply) if ask and reply else None


def _best_match(columns: Sequence[str], hints: Sequence[str]) -> str | None:
    for hint in hints:
        for column in columns:
            name = folded(column)
            if hint == name or (len(hint) > 1 and hint in name) or name.startswith(hint + "_"):
                return column
    return None


def _yaml_name(name: str) -> str:
    plain = re.fullmatch(r"[^\W\d][\w-]*", name) and name.lower() not in (
        *("yes", "no", "on", "off", "true", "false", "null"),
    )
    return shown(name) if plain else json.dumps(shown(name), ensure_ascii=False)


# ------------------------------------------------------------------ texts with headers


def plain_text(text: str) -> str:
    """One kind of line end, composed Hangul."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Sections:
    """The parts of a rendered text. `before` is what stands above its first header."""

    before: str
    question: str
    input: str
    answer: str


def split_sections(text: str) -> Sections | None:
    """A rendered text cut at its headers: one question, perhaps an input, then the answer."""
    headers = list(HEADER.finditer(text))
    kinds = [header.lastgroup for header in headers]
    if "answer" not in kinds:
        return None
    answer = kinds.index("answer")
    if sorted(map(str, kinds[:answer])) not in (["question"], ["input", "question"]):
        return None
    parts = {"input": ""}
    for header, after in pairwise(headers[: answer + 1]):
        parts[str(header.lastgroup)] = text[header.end() : after.start()].strip()
    before = text[: headers[0].start()]
    return Sections(before, parts["question"], parts["input"], text[headers[answer].end() :])
