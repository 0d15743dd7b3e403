"""A GGUF file in llama.cpp itself, where a package of it is installed, against the reference."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from honing.errors import CheckFailed
from honing.merging.reference import Reference

MOST_NATS = 0.1
"""Largest mean difference in log-probability from torch on the same values: llama.cpp rounds what
flows between quantised layers to 8 bits. A wrong conversion is off by whole nats."""

Likely = tuple[int, float] | None
"""The most likely next token, and its log-probability in nats; None where it is not told."""


@dataclass(frozen=True)
class LlamaCppCheck:
    """llama.cpp along the reference's greedy answers.

    mean_nats: |difference| in log-probability from torch with the same values, of the token that
    llama.cpp finds most likely. num_agreeing: positions where that token is the reference's too;
    same_answers: answers where all are.
    num_untold: positions about which the package says nothing.
    """

    package: str
    num_positions: int
    num_agreeing: int
    num_untold: int
    num_answers: int
    same_answers: int
    mean_nats: float

    def to_record(self) -> dict[str, Any]:
        return {
            "package": self.package,
            "positions": {
                "agreeing": self.num_agreeing,
                "of": self.num_positions,
                "untold": self.num_untold,
            },
            "greedy_answers": {"same": self.same_answers, "of": self.num_answers},
            "mean_nats": self.mean_nats,
        }


def package_installed() -> str | None:
    """llama_cpp (llama-cpp-python) or xllamacpp, where one is installed."""
    return next((name for name in _RUNNERS if importlib.util.find_spec(name)), None)


def check_in_llama_cpp(
    path: Path, logits: Sequence[Tensor], reference: Reference, package: str
) -> LlamaCppCheck:
    """Run a GGUF file along the reference's answers. logits: torch's with the file's values, (T, V)
    of each of the reference's rows.

    Raises CheckFailed where llama.cpp cannot load the file, or computes another model.
    """
    first = len(reference.rows) - len(reference.answers)
    rows, starts = reference.rows[first:], [len(q.ids) for q in reference.questions]
    try:
        found = _RUNNERS[package](path, rows, starts)
    except (ValueError, RuntimeError) as error:
        raise _failed("loads", f"it does not run ({' '.join(str(error).split())})", path) from None
    agreeing: list[list[bool]] = []
    nats: list[float] = []
    for likely, start, own, wanted in zip(
        found, starts, logits[first:], reference.logits[first:], strict=True
    ):
        expected = own[start - 1 :].double().log_softmax(-1)
        places = [place for place, one in enumerate(likely) if one is not None]
        told = [one for one in likely if one is not None]
        best = wanted[start - 1 :].argmax(-1)[places].tolist()
        agreeing.append([token == b for (token, _), b in zip(told, best, strict=True)])
        nats += [
            abs(value - float(expected[place, token]))
            for place, (token, value) in zip(places, told, strict=True)
        ]
    check = LlamaCppCheck(
        package=package,
        num_positions=len(nats),
        num_agreeing=sum(map(sum, agreeing)),
        num_untold=sum(map(len, found)) - len(nats),
        num_answers=len(agreeing),
        same_answers=sum(map(all, agreeing)),
        mean_nats=sum(nats) / max(1, len(nats)),
    )
    if not check.mean_nats <= MOST_NATS:
        raise _failed(
            "close",
            f"log-probabilities are {check.mean_nats:.2e} nats off (at most {MOST_NATS})",
            path,
        )
    return check


def _failed(check: str, reason: str, path: Path) -> CheckFailed:
    return CheckFailed(
        f"merge: llama_cpp_{check}: {path.name} in llama.cpp: {reason}; no model was kept"
    )


def _run_llama_cpp(
    path: Path, rows: Sequence[Sequence[int]], starts: Sequence[int]
) -> list[list[Likely]]:
    """Through llama-cpp-python: each row at once. From the last token of the question on."""
    import llama_cpp

    longest = max(map(len, rows))
    threads = torch.get_num_threads()
    model = llama_cpp.Llama(
        str(path),
        n_ctx=longest + 8,
        n_threads=threads,
        logits_all=True,
        verbose=False,
        # Keys and values in float32, where 16 bits are its default.
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
    )
    found: list[list[Likely]] = []
    try:
        for ids, start in zip(rows, starts, strict=True):
            model.reset()
            model.eval(list(ids))
            logits = torch.tensor(model.scores[start - 1 : len(ids)]).double().log_softmax(-1)
            found.append([(int(row.argmax()), float(row.max())) for row in logits])
    finally:
        model.close()
    return found


def _run_xllamacpp(
    path: Path, rows: Sequence[Sequence[int]], starts: Sequence[int]
) -> list[list[Likely]]:
    """Through xllamacpp, which has wheels: one next token at a time. It says nothing of a token
    that is the beginning of a character."""
    import xllamacpp  # type: ignore[import-not-found,unused-ignore]

    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx = max(map(len, rows)) + 8
    settings.n_parallel = 1
    settings.n_gpu_layers = 0
    settings.cpuparams.n_threads = torch.get_num_threads()
    settings.warmup = False
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    settings.verbosity = -1
    server = xllamacpp.Server(settings)
    found: list[list[Likely]] = []
    for ids, start in zip(rows, starts, strict=True):
        likely: list[Likely] = []
        for length in range(start, len(ids) + 1):
            request = {"prompt": list(ids[:length]), "max_tokens": 1, "temperature": 0}
            answer = server.handle_completions({**request, "logprobs": 1})
            told = answer["choices"][0]["logprobs"]
            token = told["content"][0] if told else None
            likely.append(token and (int(token["id"]), float(token["logprob"])))
        found.append(likely)
    return found


Runner = Callable[[Path, Sequence[Sequence[int]], Sequence[int]], list[list[Likely]]]

_RUNNERS: Mapping[str, Runner] = {"llama_cpp": _run_llama_cpp, "xllamacpp": _run_xllamacpp}
