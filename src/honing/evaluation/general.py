"""Perplexity of a plain text outside the task: what was forgotten shows there."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path

from honing.data.encode import IGNORE, Tokens
from honing.errors import UserError
from honing.evaluation.perplexity import row_losses
from honing.evaluation.record import Figure
from honing.generation.open_model import OpenModel
from honing.version import VERSION

WINDOW_TOKENS = 512
MOST_TOKENS = 65_536
"""Enough for a stable figure; a whole book would take longer than the evaluation itself."""


def general_figures(opened: OpenModel, path: Path, batch_size: int = 8) -> dict[str, Figure]:
    """general_perplexity and general_bits_per_character of a UTF-8 text file.

    The text is read in windows of WINDOW_TOKENS that do not overlap; the first token of each is
    not predicted. Raises UserError where the file cannot be read or holds too little.
    """
    try:
        text = path.expanduser().read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"evaluate.general_text: {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"evaluate.general_text: {path}: is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    windows = _windows(opened, unicodedata.normalize("NFC", text))
    if not windows:
        raise UserError(f"evaluate.general_text: {path}: holds no text; name a file of some pages")
    losses = row_losses(opened.model, windows, batch_size=batch_size)
    nats = sum(loss.sum_nats for loss in losses)
    num_tokens = sum(loss.num_tokens for loss in losses)
    num_characters = sum(len(opened.text.decode(window.ids[1:])) for window in windows)
    signature = f"{path.name}|windows of {WINDOW_TOKENS}|tokens:{num_tokens}|honing:{VERSION}"
    return {
        "general_perplexity": Figure(math.exp(nats / num_tokens), signature),
        "general_bits_per_character": Figure(nats / math.log(2) / num_characters, signature),
    }


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
