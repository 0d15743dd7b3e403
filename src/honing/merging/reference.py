"""What a merge is compared with: base and adapter, unmerged, in float32, on the run's own rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from honing.config import GenerateConfig, ModelConfig
from honing.data.encode import Tokens, encode_prompts
from honing.data.example import Example, Exchange
from honing.data.reading.read import read_source
from honing.data.reading.source import SourceSpec
from honing.errors import CheckFailed, UserError
from honing.generation.answer import encode_for_answering, stops
from honing.generation.decode import AnswerIds, Ends, decode_batch
from honing.generation.open_model import OpenModel
from honing.merging.difference import Difference, difference, logits_of, round_weights
from honing.model.forward import plain_model
from honing.model.four_bit import expand
from honing.model.load import Model, find_base, load_model
from honing.model.lora import load_adapter
from honing.run import RunFolder

NUM_ROWS = 8
NUM_ANSWERS = 3
ANSWER_TOKENS = 24
LOGIT_BYTES = 256 << 20
"""Most memory for the logits that are kept; where rows need more, their ends are left out."""

# For an adapter that came without rows.
_QUESTIONS = (
    "대한민국의 수도는 어디인가요?",
    "What is the capital of France?",
    "1부터 5까지 세어 보세요.",
)


@dataclass(frozen=True)
class CheckRows:
    """Rows to compare on. split: where they come from. questions: those that get an answer."""

    split: str
    examples: tuple[Example, ...]
    rows: tuple[tuple[int, ...], ...]
    questions: tuple[Tokens, ...]


@dataclass(frozen=True)
class Reference:
    """What base and adapter compute. rows: ids, the answers' own rows behind those of the split.

    logits: (T, V) of each row. effect: of the base alone from base and adapter. rounding: of base
    and adapter with the base's weights moved by their rounding error in the type of storage.
    largest_logit: by absolute value.
    """

    split: str
    examples: tuple[Example, ...]
    rows: tuple[tuple[int, ...], ...]
    logits: tuple[Tensor, ...]
    largest_logit: float
    effect: Difference
    rounding: Difference
    questions: tuple[Tokens, ...]
    answers: tuple[AnswerIds, ...]
    ends: Ends


def choose_rows(run: RunFolder | None, opened: OpenModel) -> CheckRows:
    """The first rows of the test split, else of validation, else of training, as ids."""
    split, examples = _examples(run)
    prompts = [opened.text.to_prompt(example, "response") for example in examples]
    encoded = encode_prompts(prompts, opened.text.encoder, 1 << 30)
    rows = [row.ids for row in encoded if isinstance(row, Tokens)] if split != _NO_SPLIT else []
    settings = GenerateConfig(max_new_tokens=ANSWER_TOKENS)
    questions = encode_for_answering(opened, examples[:NUM_ANSWERS], settings)
    return CheckRows(split, tuple(examples), tuple(rows), tuple(questions))


_NO_SPLIT = "built-in questions"


def _examples(run: RunFolder | None) -> tuple[str, list[Example]]:
    for name in ("test", "val", "train") if run is not None else ():
        assert run is not None
        path: Path = run.split_file(name)
        if path.is_file():
            source: SourceSpec = {"train": str(path)}
            read = read_source(source, columns=None, encoding=None, group_by=None)["train"]
            if read.examples:
                return name, list(read.examples[:NUM_ROWS])
    return _NO_SPLIT, [
        Example(f"question:{number}", (Exchange(question, ""),))
        for number, question in enumerate(_QUESTIONS, start=1)
    ]


def measure_reference(opened: OpenModel, chosen: CheckRows, dtype: torch.dtype) -> Reference:
    """Compute what the merged model must compute too. The model that is given is used up.

    Raises CheckFailed where the adapter changes nothing, or what it computes is not finite.
    """
    model = opened.model
    ends = stops(opened, GenerateConfig())
    answers = answer(model, chosen.questions, ends)
    rows = [
        *chosen.rows,
        *(question.ids + a.ids for question, a in zip(chosen.questions, answers, strict=True)),
    ]
    rows = _shortened(rows, model, opened.text.context_length)
    logits = tuple(logits_of(model, rows))
    largest = max(float(row.abs().max()) for row in logits)
    with model.disable_adapter():
        effect = difference(logits, logits_of(model, rows))
    if not effect.is_finite:
        raise CheckFailed(
            "merge: reference_finite: what base and adapter compute is not finite; the adapter's "
            "training diverged: use another checkpoint"
        )
    if effect.max_abs_logit == 0.0:
        raise CheckFailed(
            "merge: differs_from_base: the adapter changes nothing: with and without it the "
            "logits are the same; is it trained?"
        )
    expand(model, as_stored=False)
    round_weights(model, dtype)
    rounding = difference(logits, logits_of(model, rows))
    return Reference(
        split=chosen.split,
        examples=chosen.examples,
        rows=tuple(rows),
        logits=logits,
        largest_logit=largest,
        effect=effect,
        rounding=rounding,
        questions=chosen.questions,
        answers=tuple(answers),
        ends=ends,
    )


def in_published_base(base: ModelConfig, adapter: Path, reference: Reference) -> Difference:
    """What an adapter that was trained on a base in 4 bits is in the base as it was published."""
    model = load_model(find_base(base.model_copy(update={"load_in_4bit": False})), "float32", "cpu")
    tuned = load_adapter(model, adapter).eval()
    return difference(reference.logits, logits_of(tuned, reference.rows))


def answer(model: Model, questions: Sequence[Tokens], ends: Ends) -> list[AnswerIds]:
    """Greedy answers, one question at a time, so that no padding comes in."""
    settings = GenerateConfig(max_new_tokens=ANSWER_TOKENS)
    try:
        return [decode_batch(model, [q.ids], settings, ends, [0])[0] for q in questions]
    except UserError as error:  # logits that are no numbers
        raise CheckFailed(f"merge: answers: {error}") from None


def _shortened(
    rows: Sequence[tuple[int, ...]], model: Model, context_length: int | None
) -> list[tuple[int, ...]]:
    """Rows cut at their ends, where their logits would need more memory than LOGIT_BYTES."""
    vocabulary = plain_model(model).config.get_text_config().vocab_size
    longest = max(16, LOGIT_BYTES // (4 * vocabulary * len(rows)))
    longest = min(longest, context_length or longest)
    return [row[:longest] for row in rows]
