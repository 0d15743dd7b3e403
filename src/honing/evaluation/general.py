"""The loss on a plain text outside the task: what was forgotten shows there."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from honing.data.encode import IGNORE, Tokens
from honing.errors import UserError
from honing.evaluation.perplexity import row_losses
from honing.evaluation.record import GeneralText
from honing.generation.open_model import OpenModel
from honing.version import VERSION

WINDOW_TOKENS = 512
MOST_TOKENS = 65_536
"""Enough for a stable figure; a whole book would take longer than the evaluation itself."""


@dataclass(frozen=True)
class PlainText:
    """A text file. text: in NFC. sha256: of that."""

    name: str
    text: str
    sha256: str


def read_plain_text(path: Path) -> PlainText:
    """Raises UserError where the file cannot be read, is not UTF-8, or holds no text."""
    try:
        text = path.expanduser().read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"evaluate.general_text: {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"evaluate.general_text: {path}: is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    if not text.strip():
        raise UserError(f"evaluate.general_text: {path}: holds no text; name a file of some pages")
    text = unicodedata.normalize("NFC", text)
    return PlainText(path.name, text, hashlib.sha256(text.encode()).hexdigest())


def measure_general(opened: OpenModel, text: PlainText, batch_size: int = 8) -> GeneralText:
    """The loss of each piece of a text.

    The text is read in windows of WINDOW_TOKENS that do not overlap; the first token of each is
    not predicted. Raises UserError where it is a single token.
    """
    windows = _windows(opened, text.text)
    if not windows:
        raise UserError(
            f"evaluate.general_text: {text.name}: holds a single token; name a file of some pages"
        )
    losses = row_losses(opened.model, windows, batch_size=batch_size)
    num_tokens = sum(loss.num_tokens for loss in losses)
    return GeneralText(
        signature=f"{text.name}|windows of {WINDOW_TOKENS}|tokens:{num_tokens}|honing:{VERSION}",
        sha256=text.sha256,
        pieces=tuple(
            (loss.sum_nats, loss.num_tokens, len(opened.text.decode(window.ids[1:])))
            for window, loss in zip(windows, losses, strict=True)
        ),
    )


def _windows(opened: OpenModel, text: str) -> list[Tokens]:
    (ids,) = opened.text.encoder.encode([text], True)
    ids = ids[:MOST_TOKENS]
    size = min(WINDOW_TOKENS, opened.text.context_length or WINDOW_TOKENS)
    pieces = [tuple(ids[start : start + size]) for start in range(0, len(ids), size)]
    return [
        Tokens(f"window {number}", piece, (IGNORE, *piece[1:]))
        for number, piece in enumerate(pieces, start=1)
        if len(piece) > 1
    ]
