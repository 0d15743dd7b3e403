"""What each shape's rows become, and why some are dropped."""

from __future__ import annotations

import unicodedata

import pytest

from honing.data.example import Example, Exchange
from honing.data.reading.rows import read_row, remarks
from honing.data.reading.shapes import Layout, find_layout
from honing.errors import UserError
from tests.data.reading.test_shapes import Row, layout_of


def read(row: Row, columns: dict[str, str] | None = None) -> tuple[Example | str, set[str]]:
    return read_row(row, layout_of(row, columns), "a.jsonl:7", 7)


def exchange_of(row: Row, columns: dict[str, str] | None = None) -> Exchange:
    outcome, _ = read(row, columns)
    assert isinstance(outcome, Example), outcome
    assert (outcome.id, outcome.row) == ("a.jsonl:7", 7)
    (exchange,) = outcome.exchanges
    return exchange


def reason_of(row: Row, like: Row) -> str:
    outcome, _ = read_row(row, layout_of(like), "a.jsonl:7", 7)
    assert isinstance(outcome, str), outcome
    return outcome


def test_data_columns_decide_over_usual_names() -> None:
    row = {"instruction": "x", "output": "y", "Frage": "물은?", "Antwort": "H2O", "mehr": "식"}
    columns = {"instruction": "Frage", "output": "Antwort", "input": "mehr"}
    assert exchange_of(row, columns) == Exchange("물은?", "H2O", "식")
    chat = {"instruction": "x", "output": "y", "dialog": [{"role": "user", "content": "물은?"}]}
    assert layout_of(chat, {"messages": "dialog"}).shape == "messages"
    # One half of a pair, where the usual name gives the other.
    assert exchange_of({"instruction": "a", "reply": "b"}, {"output": "reply"}) == Exchange(
        "a", "b"
    )
    with pytest.raises(UserError, match="question and answer not found"):
        layout_of({"Q": "a", "A": "b"}, {"instruction": "Q"})


def test_alpaca() -> None:
    row = {"instruction": "더해라", "input": "1, 2", "output": "3"}
    assert exchange_of(row) == Exchange("더해라", "3", "1, 2")
    assert exchange_of(row | {"input": None}) == Exchange("더해라", "3")
    assert exchange_of({"Instruction": "a", "Output": "b"}) == Exchange("a", "b")
    assert exchange_of({"instruction": "", "input": "1", "output": "b"}) == Exchange("", "b", "1")
    # The exact name wins over the one that differs in case.
    row = {"OUTPUT": "no", "instruction": "a", "output": "yes"}
    assert exchange_of(row) == Exchange("a", "yes")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"output": ""}, "empty output"),
        ({"output": " \n\t"}, "empty output"),
        ({"output": None}, "no output"),
        ({"output": float("nan")}, "no output"),
        ({"output": 3}, "output is not text (int)"),
        ({"output": ["3"]}, "output is not text (list)"),
        ({"instruction": " ", "input": ""}, "empty instruction"),
        ({"instruction": None}, "no instruction"),
        ({"instruction": True}, "instruction is not text (bool)"),
        ({"input": {"a": 1}}, "input is not text (dict)"),
        ({"output": "a\0b"}, "U+0000 in output"),
        ({"input": "\ud800"}, "half a character (lone surrogate) in input"),
        ({"group": ["a"]}, "group is not a name (list)"),
    ],
)
def test_reasons_to_drop_a_row(changed: Row, reason: str) -> None:
    row = {"instruction": "더해라", "input": "1, 2", "output": "3", "group": "g"}
    assert reason_of({**row, **changed}, like=row) == reason


def test_rows_that_are_no_objects() -> None:
    row = {"instruction": "a", "output": "b"}
    assert read_row(None, layout_of(row), "a:1", 1) == ("row is not an object (NoneType)", set())
    assert read_row([row], layout_of(row), "a:1", 1) == ("row is not an object (list)", set())
    assert read_row({"input": "a"}, layout_of(row), "a:1", 1) == ("no instruction", set())


def test_line_ends_and_decomposed_hangul_are_repaired_and_noticed() -> None:
    nfd = unicodedata.normalize("NFD", "한국의 수도")
    outcome, marks = read({"instruction": nfd, "input": "a\r\nb\rc", "output": "서울\r\n"})
    assert isinstance(outcome, Example)
    assert outcome.exchanges == (Exchange("한국의 수도", "서울\n", "a\nb\nc"),)
    assert marks == {"NFD", "CRLF"}


def test_groups_and_system_texts() -> None:
    row = {"instruction": "a", "output": "b", "group": 3, "system": "짧게", "topic": "t"}
    assert read(row)[0] == Example("a.jsonl:7", (Exchange("a", "b"),), "짧게", "3", 7)
    named = find_layout(list(row), [row], {}, "topic", "a.jsonl")
    assert read_row(row, named, "x:1", 1)[0] == Example(
        "x:1", (Exchange("a", "b"),), "짧게", "t", 1
    )
    mapped = read(row, {"group": "topic", "system": "topic"})[0]
    assert isinstance(mapped, Example)
    assert (mapped.group, mapped.system) == ("t", "t")
    for empty in (None, "", float("nan")):
        outcome, _ = read(row | {"group": empty})
        assert isinstance(outcome, Example)
        assert outcome.group is None


def test_question_and_answer() -> None:
    assert exchange_of({"Q": "물은?", "A": "H2O", "label": "0"}) == Exchange("물은?", "H2O")
    assert exchange_of({"질문": "물은?", "답변": "H2O"}) == Exchange("물은?", "H2O")
    # Another shape's word for something else.
    assert exchange_of({"question": "a", "answer": "b", "input": 3}) == Exchange("a", "b")


def test_prompt_and_completion() -> None:
    assert exchange_of({"prompt": "물은?", "completion": "H2O"}) == Exchange("물은?", "H2O")
    assert exchange_of({"prompt": "물은?", "response": "H2O"}) == Exchange("물은?", "H2O")


def test_a_rendered_koalpaca_prompt_is_split_back() -> None:
    prompt = (
        "아래는 작업을 설명하는 명령어입니다.\n\n### Instruction(명령어):\n더해라\n\n"
        "### Input(입력):\n1, 2\n\n### Response(응답):"
    )
    row = {"prompt": prompt, "completion": "3"}
    assert exchange_of(row) == Exchange("더해라", "3", "1, 2")
    assert read(row)[1] == {"split back"}
    without_input = {"prompt": "### Instruction(명령어):\n더해라\n\n### Response(응답):\n"}
    assert exchange_of(without_input | {"completion": "3"}) == Exchange("더해라", "3")
    assert remarks({"split back": 2}, 9, "a.jsonl") == (
        "a.jsonl: 2 of 9 prompts were rendered KoAlpaca ones: split back into instruction and "
        "input",
    )


@pytest.mark.parametrize("mark", ["### Response:", "### 답변:", "<|im_start|>assistant\n"])
def test_prompts_that_went_through_a_template_before(mark: str) -> None:
    row = {"prompt": f"물은?\n\n{mark}", "completion": "H2O"}
    assert read(row)[1] == {"rendered"}
    assert exchange_of(row).instruction == row["prompt"]
    assert remarks({"rendered": 5}, 10, "a.jsonl") == ()
    assert remarks({"rendered": 6}, 10, "a.jsonl") == (
        'a.jsonl: 6 of 10 prompts hold a response mark ("### Response:", "<|im_start|>" …) '
        "already, so the template would be applied twice: set data.template to "
        '{prompt: "{instruction}"}',
    )


@pytest.mark.parametrize(
    ("text", "exchange"),
    [
        ("### 질문: 물은?\n\n### 답변: H2O<|endoftext|>", Exchange("물은?", "H2O")),
        ("### 질문: 뭐야?\n\n### 맥락: 물\n\n### 답변: H2O\n</s>", Exchange("뭐야?", "H2O", "물")),
        ("### 맥락: 물\n\n### 질문: 뭐야?\n\n### 답변: H2O", Exchange("뭐야?", "H2O", "물")),
        (
            "### Instruction(명령어):\n더해라\n\n### Input(입력):\n1, 2\n\n"
            "### Response(응답):3 [EOS]",
            Exchange("더해라", "3", "1, 2"),
        ),
        ("### Instruction:\nAdd\n\n### Response:\n3\n#### 3", Exchange("Add", "3\n#### 3")),
        (
            "### Instruction:\nAdd\n\n### Input:\n1\n2\n\n### Response:\n3</s><|endoftext|>",
            Exchange("Add", "3", "1\n2"),
        ),
        ("### 질문: 물은?\r\n\r\n### 답변: H2O", Exchange("물은?", "H2O")),
        (
            unicodedata.normalize("NFD", "### 질문: 물은?\n\n### 답변: 물\n\n### 예\n말"),
            Exchange("물은?", "물\n\n### 예\n말"),
        ),
    ],
)
def test_koalpaca_texts(text: str, exchange: Exchange) -> None:
    assert layout_of({"text": text}).shape == "koalpaca-text"
    assert exchange_of({"text": text}) == exchange


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("그냥 글", "text without question and answer headers"),
        ("### 답변: 물", "text without question and answer headers"),
        ("### 질문: a\n\n### 질문: b\n\n### 답변: c", "text without question and answer headers"),
        ("### 질문: a\n### 답변: b\n### 질문: c\n### 답변: d", "several questions in one text"),
        ("### 질문: \n\n### 답변: b", "empty instruction"),
        ("### 질문: a\n\n### 답변: </s>", "empty output"),
        (None, "no text"),
        (7, "text is not text (int)"),
    ],
)
def test_texts_that_cannot_be_split(text: object, reason: str) -> None:
    assert reason_of({"text": text}, like={"text": "### 질문: a\n\n### 답변: b"}) == reason


def test_words_before_the_first_header_are_left_out_and_said() -> None:
    row = {"text": "Below is a task.\n\n### Instruction:\na\n\n### Response:\nb"}
    assert exchange_of(row) == Exchange("a", "b")
    assert read(row)[1] == {"preamble"}
    assert remarks({"preamble": 1}, 1, "a.jsonl") == (
        "a.jsonl: 1 of 1 texts began with words before the first header: left out",
    )


def said(*turns: str) -> list[dict[str, str]]:
    """`said("user a", "assistant b")` as messages."""
    return [{"role": turn.split()[0], "content": turn.partition(" ")[2]} for turn in turns]


def chat(messages: object) -> tuple[Example | str, set[str]]:
    return read_row({"messages": messages}, Layout("messages", {"messages": "messages"}), "c:1", 1)


def test_chats() -> None:
    two = (Exchange("a", "b"), Exchange("c", "d"))
    turns = ("user a", "assistant b", "user c", "assistant d")
    assert chat(said(*turns)) == (Example("c:1", two, row=1), set())
    assert chat(said("system 짧게", *turns)) == (Example("c:1", two, "짧게", row=1), set())
    assert chat(said(*turns, "user e")) == (Example("c:1", two, row=1), {"open turn"})
    assert remarks({"open turn": 1}, 3, "a.jsonl") == (
        "a.jsonl: 1 of 3 chats ended with a question that nobody answers: it was left out",
    )


def test_chats_in_other_words() -> None:
    conversations = [
        {"from": "system", "value": "짧게"},
        {"from": "human", "value": unicodedata.normalize("NFD", "물은?")},
        {"from": "gpt", "value": "H2O\r\n"},
    ]
    outcome, marks = read({"conversations": conversations})
    assert outcome == Example("a.jsonl:7", (Exchange("물은?", "H2O\n"),), "짧게", row=7)
    assert marks == {"NFD", "CRLF"}
    trl = {"prompt": said("system s", "user a"), "completion": said("assistant b")}
    assert layout_of(trl).shape == "messages"
    assert read(trl)[0] == Example("a.jsonl:7", (Exchange("a", "b"),), "s", row=7)
    beside = {"system": "옆", "messages": said("user a", "assistant b")}
    assert read(beside)[0] == Example("a.jsonl:7", (Exchange("a", "b"),), "옆", row=7)


NOT_ALTERNATING = "turns do not alternate between user and assistant"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "no messages"),
        ("[]", "messages is not a list (str)"),
        ([], "no assistant turn"),
        (said("user a"), "no assistant turn"),
        (said("system s"), "no assistant turn"),
        (said("assistant a"), NOT_ALTERNATING),
        (said("user a", "user b", "assistant c"), NOT_ALTERNATING),
        (said("user a", "assistant b", "user c", "user d"), NOT_ALTERNATING),
        (said("user a", "system s", "assistant b"), NOT_ALTERNATING),
        (said("user a", "assistant  "), "empty assistant turn"),
        (said("user  ", "assistant a"), "empty user turn"),
        (said("user a", "tool 3", "assistant b"), "tool turn"),
        (said("user a", "bing b"), "unknown role (bing)"),
        ([{"content": "a"}], "unknown role (None)"),
        (["a"], "turn is not an object (str)"),
        ([{"role": "user"}], "user turn without content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "content is not text (list)"),
        ([{"role": "user", "content": "a\0"}], "U+0000 in content"),
    ],
)
def test_chats_that_cannot_be_learnt_from(messages: object, reason: str) -> None:
    assert chat(messages)[0] == reason
