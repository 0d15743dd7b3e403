"""Example → Prompt: the text around instruction, input and answer.

A Prompt is a row of segments. Each is encoded apart, so that the ids of a question are the same
in training and in generation, whatever the answer begins with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from honing.config import TemplateConfig
from honing.data.example import Example, Exchange
from honing.errors import UserError

Supervise = Literal["response", "all_turns", "everything"]


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt.

    literal: the user's own words; names of special tokens in them are plain characters.
    cut_order: where a row is too long, literal text with 1 is cut first, then 2; 0 is never cut.
    ends_answer: the end-of-text id follows, with the label that the segment has.
    """

    text: str
    supervised: bool = False
    literal: bool = False
    cut_order: int = 0
    ends_answer: bool = False


@dataclass(frozen=True)
class Prompt:
    """Segments of one example; the first `num_asked` are what stands before the last answer."""

    example_id: str
    segments: tuple[Segment, ...]
    num_asked: int

    @property
    def asked(self) -> tuple[Segment, ...]:
        """What a model is given when it is to answer."""
        return self.segments[: self.num_asked]

    @property
    def text(self) -> str:
        """All segments joined, without the end-of-text ids."""
        return "".join(segment.text for segment in self.segments)


@dataclass(frozen=True)
class Template:
    """How examples become prompts. Everything a checkpoint stores to ask in the same way again.

    answer_prefix stands between prompt and answer and is learnt with the answer: a space after
    "답변:" belongs to the first word. chat_template is a chat model's own Jinja text, and then
    the other texts are empty.
    """

    name: str
    prompt: str = ""
    prompt_without_input: str = ""
    answer_prefix: str = ""
    chat_template: str | None = None

    def to_record(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> Template:
        return Template(**record)


_INSTRUCTION = "### Instruction:\n{instruction}\n\n### Response:\n"
_INSTRUCTION_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"

# Texts of tatsu-lab/stanford_alpaca (Apache-2.0) and Beomi/KoAlpaca (Apache-2.0), as models
# tuned with them were trained: no line break after "Response:".
_ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
_ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
_ALPACA_KO = (
    "아래는 작업을 설명하는 지시문입니다. 요청을 알맞게 완료하는 응답을 작성하세요.\n\n"
    "### 지시:\n{instruction}\n\n### 응답:\n"
)
_ALPACA_KO_INPUT = (
    "아래는 작업을 설명하는 지시문과 추가 맥락을 담은 입력입니다. "
    "요청을 알맞게 완료하는 응답을 작성하세요.\n\n"
    "### 지시:\n{instruction}\n\n### 입력:\n{input}\n\n### 응답:\n"
)
_KOALPACA_1_0 = (
    "Below is an instruction that describes a task.\n"
    "아래는 작업을 설명하는 명령어입니다.\n\n"
    "Write a response that appropriately completes the request.\n"
    "명령어에 따른 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
    "### Instruction(명령어):\n{instruction}\n\n### Response(응답):"
)
_KOALPACA_1_0_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context.\n"
    "아래는 작업을 설명하는 명령어와 추가적 맥락을 제공하는 입력이 짝을 이루는 예제입니다.\n\n"
    "Write a response that appropriately completes the request.\n"
    "요청을 적절히 완료하는 응답을 작성하세요.\n\n"
    "### Instruction(명령어):\n{instruction}\n\n### Input(입력):\n{input}\n\n### Response(응답):"
)
_KOALPACA_1_1 = "### 질문: {instruction}\n\n### 답변:"
_KOALPACA_1_1_INPUT = "### 질문: {instruction}\n\n### 맥락: {input}\n\n### 답변:"

TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        Template("instruction", _INSTRUCTION_INPUT, _INSTRUCTION),
        Template("alpaca", _ALPACA_INPUT, _ALPACA),
        Template("alpaca-ko", _ALPACA_KO_INPUT, _ALPACA_KO),
        Template("koalpaca-v1.0", _KOALPACA_1_0_INPUT, _KOALPACA_1_0),
        Template("koalpaca-v1.1", _KOALPACA_1_1_INPUT, _KOALPACA_1_1, answer_prefix=" "),
    )
}


def choose_template(setting: str | TemplateConfig, chat_template: str | None) -> Template:
    """The template that a configuration names.

    chat_template: the base model's own, None where it has none. Raises UserError where `chat` is
    asked for and there is none.
    """
    if isinstance(setting, TemplateConfig):
        without_input = setting.prompt.replace("{input}", "").rstrip(" ")
        return Template("custom", setting.prompt, setting.prompt_without_input or without_input)
    if setting != "chat":
        return TEMPLATES[setting]
    if not chat_template:
        raise UserError(
            "data.template: chat, but this base model has no chat template of its own; "
            "use data.template=instruction"
        )
    return Template("chat", chat_template=chat_template)


def render(example: Example, template: Template, supervise: Supervise) -> Prompt:
    """An example in a template of plain text. Chat templates: see chat_template.render_chat.

    The answer follows the prompt directly and ends in the end-of-text id. An earlier answer of a
    chat ends so too, and a blank line parts it from the next question.
    """
    segments: list[Segment] = []
    num_asked = 0
    everything = supervise == "everything"
    if example.system:
        segments += [Segment(example.system, everything, literal=True), Segment("\n\n", everything)]
    last = len(example.exchanges) - 1
    for number, exchange in enumerate(example.exchanges):
        if number > 0:
            segments.append(Segment("\n\n", everything))
        segments += _question(exchange, template, everything)
        num_asked = len(segments)
        learnt = number == last or supervise != "response"
        # One segment with the prefix: encoded apart, a space would not join the first word.
        answer = template.answer_prefix + exchange.output
        segments.append(Segment(answer, learnt, literal=True, ends_answer=True))
    asked = kept_segments(segments[:num_asked])
    return Prompt(example.id, asked + kept_segments(segments[num_asked:]), len(asked))


def kept_segments(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Segments without those that hold nothing: no text and no end-of-text id."""
    return tuple(segment for segment in segments if segment.text or segment.ends_answer)


def _question(exchange: Exchange, template: Template, everything: bool) -> list[Segment]:
    text = template.prompt if exchange.input else template.prompt_without_input
    before, _, rest = text.partition("{instruction}")
    if "{input}" in before:
        before, _, between = before.partition("{input}")
        literals = [(between, exchange.input, 1), (rest, exchange.instruction, 2)]
    elif "{input}" in rest:
        between, _, after = rest.partition("{input}")
        literals = [(between, exchange.instruction, 2), (after, exchange.input, 1)]
    else:
        literals = [(rest, exchange.instruction, 2)]
    segments = [Segment(before, everything)]
    for after, words, cut_order in literals:
        segments += [Segment(words, everything, literal=True, cut_order=cut_order)]
        segments += [Segment(after, everything)]
    return [segment for segment in segments if segment.text]
