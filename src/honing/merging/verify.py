"""A merged folder, read back from disk with transformers alone, against base and adapter.

Each check has a name, which stands before the reason where it fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from honing.data.encode import Tokens, encode_questions
from honing.data.example import Example
from honing.data.template import Template
from honing.data.text_model import TextModel
from honing.errors import CheckFailed
from honing.generation.decode import Ends
from honing.merging.difference import Difference, difference, logits_of
from honing.merging.reference import Reference, answer
from honing.merging.weights import are_tied, tensor_hashes
from honing.model.load import (
    Base,
    Model,
    fingerprint_of,
    load_tokenizer,
    text_model,
    unround_scales,
)

ROUNDING_FACTOR = 4.0
"""How many times the effect of rounding alone a merged model may differ, in logits and in KL."""
ARITHMETIC = 1e-5
"""Share of the largest logit that the order of float32 sums may make."""
LEAST_KL = 1e-9
"""Nats: below, a KL of float32 logits says nothing."""


@dataclass(frozen=True)
class Expected:
    """What the folder must hold. hashes: of each tensor in memory, in the type of storage."""

    dtype: str
    hashes: Mapping[str, str]
    tied: bool
    fingerprint: str
    vocabulary_size: int
    num_tokens: int
    eos_id: int
    end_ids: tuple[int, ...]
    template: Template
    reference: Reference
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Verification:
    """The numbers of a merge that passed. same_answers: greedy texts equal to the reference's.

    same_chat_ids: of the questions that a chat template can ask, how many have the ids of honing's
    own encoding.
    """

    difference: Difference
    logit_tolerance: float
    kl_tolerance: float
    num_answers: int
    same_answers: int
    num_chats: int
    same_chat_ids: int
    checks: tuple[str, ...]

    def to_record(self) -> dict[str, Any]:
        return {
            "difference": self.difference.to_record(),
            "tolerance": {"max_abs_logit": self.logit_tolerance, "mean_kl_nats": self.kl_tolerance},
            "greedy_answers": {"same": self.same_answers, "of": self.num_answers},
            "chat_template_ids": {"same": self.same_chat_ids, "of": self.num_chats},
            "checks_passed": list(self.checks),
        }


def verify_merged(folder: Path, expected: Expected) -> Verification:
    """Load the folder and compare. Raises CheckFailed with the first check that fails."""
    base = Base(str(folder), str(folder), True, expected.trust_remote_code)
    model = _load(base)
    _check_tensors(model, expected)
    _check_embeddings(model, expected)
    tokenizer = load_tokenizer(base)
    text = text_model(base, tokenizer, expected.template)
    _check_words(model, tokenizer, expected)
    _check_questions(text, expected.reference)
    for weight in model.parameters():  # as in load_model: compared in float32, whatever is stored
        weight.data = weight.data.float()
    unround_scales(model)
    found = difference(expected.reference.logits, logits_of(model, expected.reference.rows))
    logit_tolerance, kl_tolerance = tolerances(expected.reference)
    _check_difference(found, logit_tolerance, kl_tolerance, expected)
    same_answers = _check_answers(model, expected, logit_tolerance)
    same_chats, num_chats = _count_same_chats(tokenizer, text, expected.reference.examples)
    return Verification(
        difference=found,
        logit_tolerance=logit_tolerance,
        kl_tolerance=kl_tolerance,
        num_answers=len(expected.reference.answers),
        same_answers=same_answers,
        num_chats=num_chats,
        same_chat_ids=same_chats,
        checks=CHECKS,
    )


CHECKS = (
    "adapter_finite",
    "reference_finite",
    "loads",
    "tensors_complete",
    "tensors_finite",
    "tensors_as_merged",
    "tied_as_merged",
    "fingerprint",
    "vocabulary",
    "ends",
    "tokenizer",
    "logits_finite",
    "close_to_adapter",
    "differs_from_base",
    "answers",
)
"""Names of all checks, those on the adapter and on the reference among them."""


def tolerances(reference: Reference) -> tuple[float, float]:
    """Largest difference in logits and in mean KL (nats) that rounding can explain."""
    logit = max(
        ROUNDING_FACTOR * reference.rounding.max_abs_logit, ARITHMETIC * reference.largest_logit
    )
    return logit, max(ROUNDING_FACTOR * reference.rounding.mean_kl_nats, LEAST_KL)


def _load(base: Base) -> Model:
    """The model in the type that it is stored in."""
    with _failures("loads", "transformers cannot load what was written"):
        model, report = AutoModelForCausalLM.from_pretrained(
            **base.arguments, dtype="auto", output_loading_info=True
        )
    wrong = [name for key in report for name in sorted(map(str, report[key]))]
    if wrong:
        raise _failed(
            "tensors_complete",
            f"{len(wrong)} tensors are missing, surplus or of another shape, the first {wrong[0]}",
        )
    return model.eval()


def _check_tensors(model: Model, expected: Expected) -> None:
    state = model.state_dict()
    infinite = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if infinite:
        raise _failed(
            "tensors_finite",
            f"{len(infinite)} tensors hold values that are not finite in {expected.dtype}, the "
            f"first {infinite[0]}; merge with --dtype float32 or bfloat16",
        )
    found = tensor_hashes(model)
    wrong = sorted(set(found) ^ set(expected.hashes)) or [
        name for name, digest in found.items() if digest != expected.hashes[name]
    ]
    if wrong:
        raise _failed(
            "tensors_as_merged",
            f"{len(wrong)} of {len(found)} tensors on disk are not those that were merged, the "
            f"first {wrong[0]}",
        )
    if fingerprint_of(model) != expected.fingerprint:
        raise _failed("fingerprint", "the weights are not those that honing.json names")


def _check_embeddings(model: Model, expected: Expected) -> None:
    said = bool(model.config.get_text_config().tie_word_embeddings)
    if not are_tied(model) == said == expected.tied:
        raise _failed(
            "tied_as_merged",
            f"merged with embeddings {_tied(expected.tied)}, loaded {_tied(are_tied(model))}, "
            f"and config.json says {_tied(said)}",
        )


def _tied(value: bool) -> str:
    return "tied" if value else "untied"


def _check_words(model: Model, tokenizer: PreTrainedTokenizerBase, expected: Expected) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    size = model.config.get_text_config().vocab_size
    if not rows == size == expected.vocabulary_size or len(tokenizer) != expected.num_tokens:
        raise _failed(
            "vocabulary",
            f"{rows} embeddings, vocab_size {size} and {len(tokenizer)} tokens, not "
            f"{expected.vocabulary_size} and {expected.num_tokens} as trained",
        )
    ends = model.generation_config.eos_token_id
    found = tuple(ends) if isinstance(ends, list) else (ends,)
    if tokenizer.eos_token_id != expected.eos_id or found != expected.end_ids:
        raise _failed(
            "ends",
            f"EOS {tokenizer.eos_token_id} and end ids {found}, not {expected.eos_id} and "
            f"{expected.end_ids} as trained",
        )


def _check_questions(text: TextModel, reference: Reference) -> None:
    """The tokenizer as written gives the ids that the reference was asked with."""
    prompts = [text.to_prompt(e, "response") for e in reference.examples]
    questions = encode_questions(prompts, text.encoder, 1 << 30)
    for question, asked in zip(questions, reference.questions, strict=False):
        if not isinstance(question, Tokens) or question.ids[-len(asked.ids) :] != asked.ids:
            raise _failed("tokenizer", f"{asked.example_id}: the same question has other ids")


def _check_difference(
    found: Difference, logit_tolerance: float, kl_tolerance: float, expected: Expected
) -> None:
    if not found.is_finite:
        raise _failed("logits_finite", f"what it computes in {expected.dtype} is not finite")
    if found.max_abs_logit > logit_tolerance or found.mean_kl_nats > kl_tolerance:
        raise _failed(
            "close_to_adapter",
            f"logits differ by up to {found.max_abs_logit:.2e} (tolerance {logit_tolerance:.2e}), "
            f"mean KL {found.mean_kl_nats:.2e} nats (tolerance {kl_tolerance:.2e})",
        )
    effect = expected.reference.effect.mean_kl_nats
    if not found.mean_kl_nats < effect:
        raise _failed(
            "differs_from_base",
            f"rounding to {expected.dtype} moves the model as far (KL {found.mean_kl_nats:.2e} "
            f"nats) as the adapter did ({effect:.2e}); merge with --dtype float32",
        )


def _check_answers(model: Model, expected: Expected, logit_tolerance: float) -> int:
    """How many greedy answers are the reference's. In float32 all are, but for near ties."""
    reference = expected.reference
    same = 0
    answers = answer(model, reference.questions, Ends(expected.end_ids))
    first_row = len(reference.rows) - len(answers)
    for place, (own, wanted) in enumerate(zip(answers, reference.answers, strict=True)):
        if own.ids == wanted.ids:
            same += 1
        elif expected.dtype == "float32":
            start = len(reference.questions[place].ids) - 1
            best = reference.logits[first_row + place][start:].topk(2, dim=-1).values
            if float((best[:, 0] - best[:, 1]).min()) > 2 * logit_tolerance:
                raise _failed("answers", f"question {place + 1} gets another greedy answer")
    return same


def _count_same_chats(
    tokenizer: PreTrainedTokenizerBase, text: TextModel, examples: tuple[Example, ...]
) -> tuple[int, int]:
    """Questions whose ids from apply_chat_template are honing's own, and how many were tried."""
    same = number = 0
    for example in examples:
        last = example.exchanges[-1]
        if len(example.exchanges) > 1 or last.input:
            continue
        messages = [{"role": "system", "content": example.system}] if example.system else []
        messages.append({"role": "user", "content": last.instruction})
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, tokenize=True
        )
        (own,) = encode_questions([text.to_prompt(example, "response")], text.encoder, 1 << 30)
        number += 1
        same += isinstance(own, Tokens) and tuple(ids) == own.ids
    return same, number


@contextmanager
def _failures(check: str, reason: str) -> Iterator[None]:
    """What a damaged folder makes libraries raise, which is of many kinds, as one failed check."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise _failed(check, f"{reason} ({' '.join(str(error).split())[:200]})") from None


def _failed(check: str, reason: str) -> CheckFailed:
    return CheckFailed(f"merge: {check}: {reason}; no model was kept")
