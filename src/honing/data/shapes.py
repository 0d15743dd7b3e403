"""Raw rows -> Examples: which columns hold the question and the answer, and what they say.

A shape is recognised by the columns and by what the first rows hold, never by a file's ending:

    alpaca             instruction, output, perhaps input
    messages           messages or conversations (or prompt and completion as lists of messages)
    prompt-completion  prompt and completion (or response)
    question-answer    question and answer, Q and A, 질문 and 답변
    koalpaca-text      one text column with "### 질문:" and "### 답변:", or Instruction and Response
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from types import MappingProxyType

from honing.data.example import Example, Exchange
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

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
TOOL_ROLES = ("tool", "function", "ipython", "observation", "function_call", "tool_call")

HEADER = re.compile(
    r"(?<!#)###[ \t]*(?:"
    r"(?P<question>질문|Instruction(?:\(명령어\))?)|"
    r"(?P<input>맥락|Input(?:\(입력\))?)|"
    r"(?P<answer>답변|Response(?:\(응답\))?)"
    r")[ \t]*:"
)
END_MARKS = re.compile(r"(?:\s|<\|endoftext\|>|</s>|\[EOS\])*\Z")
RENDERED = ("### Response:", "### 답변:", "<|im_start|>", "<start_of_turn>", "[/INST]")
"""Marks of a prompt that has been through a template already."""

NO_MAPPING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Layout:
    """How to read one file's rows: the shape, and for each field the file's own column."""

    shape: str
    columns: dict[str, str]


class Unusable(Exception):
    """A row that nothing can be learnt from; the message is the reason that is counted."""


def suggested_template(shape: str) -> str:
    """The template that fits rows of this shape best."""
    return {"messages": "chat", "koalpaca-text": "koalpaca-v1.1"}.get(shape, "instruction")


# ------------------------------------------------------------------ columns


def shown(name: object, limit: int = 40) -> str:
    """Foreign text made fit for a one-line message."""
    text = " ".join(str(name).encode("utf-8", "backslashreplace").decode().split())
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(names: Collection[str], limit: int = 12) -> str:
    """`Q, A, label`, cut after `limit` names."""
    parts = [shown(name) for name in list(names)[:limit] if name.strip()]
    more = [f"and {len(names) - limit} more"] if len(names) > limit else []
    return ", ".join(parts + more) or "none"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean "Q"?`, or nothing where no name is near."""
    near = get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f'; did you mean "{shown(near[0])}"?' if near else ""


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
        marked = [text for text in texts if _sections(_plain(str(text))) is not None]
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
    return name if plain else json.dumps(shown(name), ensure_ascii=False)


# ------------------------------------------------------------------ rows


def read_row(
    value: object, layout: Layout, example_id: str, number: int
) -> tuple[Example | str, set[str]]:
    """One raw row -> its Example, or the reason why there is none; and what was noticed.

    Noticed are the repairs `CRLF` and `NFD`, and the keys of REMARKS.
    """
    marks: set[str] = set()
    try:
        if isinstance(value, Unusable):
            raise value
        if not isinstance(value, dict):
            raise Unusable(f"row is not an object ({type(value).__name__})")
        system = _text(value, layout, "system", marks) or ""
        if layout.shape == "messages":
            exchanges, own_system = _chat(value, layout, marks)
            system = own_system or system
        elif layout.shape == "koalpaca-text":
            exchanges = (_marked_exchange(value, layout, marks),)
        else:
            exchanges = (_exchange(value, layout, marks),)
        group = _group(value, layout)
    except Unusable as reason:
        return str(reason), marks
    return Example(example_id, exchanges, system, group, number), marks


REMARKS = {
    "open turn": "chats ended with a question that nobody answers: it was left out",
    "split back": "prompts were rendered KoAlpaca ones: split back into instruction and input",
    "preamble": "texts began with words before the first header: left out",
    "rendered": 'prompts hold a response mark ("### Response:", "<|im_start|>" …) already, so the '
    'template would be applied twice: set data.template to {prompt: "{instruction}"}',
}
"""What is said about a file when rows of it were noticed."""


def remarks(marks: Mapping[str, int], num_rows: int, where: str) -> tuple[str, ...]:
    """The notes on one file, from how often each thing was noticed."""
    said = []
    for mark, text in REMARKS.items():
        # Now and then a question quotes such a mark; only most of them make a habit.
        least = num_rows // 2 if mark == "rendered" else 0
        if marks.get(mark, 0) > least:
            said.append(f"{where}: {marks[mark]:,} of {num_rows:,} {text}")
    return tuple(said)


def _plain(text: str) -> str:
    """One kind of line end, composed Hangul."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text)


def _tidy(text: str, name: str, marks: set[str]) -> str:
    """The text as it is learnt from; repairs are noted in `marks`."""
    if "\0" in text:
        raise Unusable(f"U+0000 in {name}")
    if "\r" in text:
        marks.add("CRLF")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unusable(f"half a character (lone surrogate) in {name}") from None
        if not unicodedata.is_normalized("NFC", text):
            marks.add("NFD")
    return _plain(text)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(
    row: Mapping[str, object], layout: Layout, field: str, marks: set[str], name: str = ""
) -> str | None:
    """The text of a field, or None where the row has none."""
    column = layout.columns.get(field)
    value = row.get(column) if column is not None else None
    if _is_missing(value):
        return None
    if not isinstance(value, str):
        raise Unusable(f"{name or field} is not text ({type(value).__name__})")
    return _tidy(value, name or field, marks)


def _group(row: Mapping[str, object], layout: Layout) -> str | None:
    column = layout.columns.get("group")
    value = row.get(column) if column is not None else None
    if _is_missing(value) or value == "":
        return None
    if not isinstance(value, str | int | float):
        raise Unusable(f"group is not a name ({type(value).__name__})")
    return _tidy(str(value), "group", set())


def _exchange(row: Mapping[str, object], layout: Layout, marks: set[str]) -> Exchange:
    """Question and answer from columns of their own, under whatever names."""
    ask, reply = REQUIRED[layout.shape]
    instruction = _text(row, layout, ask, marks, "instruction")
    extra = _text(row, layout, "input", marks) or ""
    output = _text(row, layout, reply, marks, "output")
    if instruction is None:
        raise Unusable("no instruction")
    if layout.shape == "prompt-completion" and "### Instruction(명령어)" in instruction:
        parts = _sections(instruction)
        if parts is not None and not parts.answer.strip():
            marks.add("split back")
            instruction, extra = parts.question, parts.input
    if any(mark in instruction for mark in RENDERED):
        marks.add("rendered")
    return _checked(instruction, extra, output)


def _checked(instruction: str, extra: str, output: str | None) -> Exchange:
    if not instruction.strip() and not extra.strip():
        raise Unusable("empty instruction")
    if output is None:
        raise Unusable("no output")
    if not output.strip():
        raise Unusable("empty output")
    return Exchange(instruction, output, extra)


@dataclass(frozen=True)
class _Sections:
    before: str
    question: str
    input: str
    answer: str


def _sections(text: str) -> _Sections | None:
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
    return _Sections(before, parts["question"], parts["input"], text[headers[answer].end() :])


def _marked_exchange(row: Mapping[str, object], layout: Layout, marks: set[str]) -> Exchange:
    text = _text(row, layout, "text", marks)
    if text is None:
        raise Unusable("no text")
    parts = _sections(text)
    if parts is None:
        raise Unusable("text without question and answer headers")
    if any(header.lastgroup == "question" for header in HEADER.finditer(parts.answer)):
        raise Unusable("several questions in one text")
    if parts.before.strip():
        marks.add("preamble")
    return _checked(parts.question, parts.input, END_MARKS.sub("", parts.answer).lstrip())


def _chat(
    row: Mapping[str, object], layout: Layout, marks: set[str]
) -> tuple[tuple[Exchange, ...], str]:
    """The exchanges of a chat, and its system text."""
    if "messages" in layout.columns:
        turns = _turns(row.get(layout.columns["messages"]), "messages", marks)
    else:
        turns = [
            turn
            for field in ("prompt", "completion")
            for turn in _turns(row.get(layout.columns[field]), field, marks)
        ]
    system = ""
    if turns and turns[0][0] == "system":
        system = turns[0][1]
        turns = turns[1:]
    if turns and turns[-1][0] == "user":
        marks.add("open turn")
        turns = turns[:-1]
    if not turns:
        raise Unusable("no assistant turn")
    if [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise Unusable("turns do not alternate between user and assistant")
    for role, content in turns:
        if not content.strip():
            raise Unusable(f"empty {role} turn")
    pairs = zip(turns[::2], turns[1::2], strict=True)
    return tuple(Exchange(ask[1], reply[1]) for ask, reply in pairs), system


def _turns(value: object, field: str, marks: set[str]) -> list[tuple[str, str]]:
    """(role, content) of each message, whether written as role/content or as from/value."""
    if _is_missing(value):
        raise Unusable(f"no {field}")
    if not isinstance(value, list):
        raise Unusable(f"{field} is not a list ({type(value).__name__})")
    turns = []
    for item in value:
        if not isinstance(item, dict):
            raise Unusable(f"turn is not an object ({type(item).__name__})")
        name = item["role"] if item.get("role") is not None else item.get("from")
        content = item["content"] if item.get("content") is not None else item.get("value")
        role = ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            is_tool = isinstance(name, str) and name.lower() in TOOL_ROLES
            raise Unusable("tool turn" if is_tool else f"unknown role ({shown(name, 20)})")
        if content is None:
            raise Unusable(f"{role} turn without content")
        if not isinstance(content, str):
            raise Unusable(f"content is not text ({type(content).__name__})")
        turns.append((role, _tidy(content, "content", marks)))
    return turns
