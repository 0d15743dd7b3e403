"""Whose licences a tuned model carries: what is known of base and data, and what follows.

This names what the publishers state; it is no legal advice, and the card says what is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from honing.config import EMBEDDED_BASE

UNKNOWN = "unknown"
_PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "cc-by-4.0")

_BASES: Sequence[tuple[str, str]] = (
    (re.escape(EMBEDDED_BASE), "apache-2.0"),
    (r"(openai-community/)?(gpt2|distilgpt2)(-medium|-large|-xl)?", "mit"),
    (r"HuggingFaceTB/SmolLM2-.+", "apache-2.0"),
    (r"Qwen/Qwen3-.+", "apache-2.0"),
    (r"Qwen/Qwen2\.5-(0\.5B|1\.5B)(-.+)?", "apache-2.0"),
    (r"google/gemma-.+", "gemma"),
    (r"skt/kogpt2-base-v2", "cc-by-nc-sa-4.0"),
    (r"EleutherAI/polyglot-ko-.+", "apache-2.0"),
)
"""Bases by their names, with the licence that their publishers state."""

_SOURCES: Sequence[tuple[str, str]] = (
    (r"sample|sample-10", "mit"),
    (r"beomi/KoAlpaca-.+", "cc-by-nc-4.0"),
    (r"(.*/)?[^/]*ko_?alpaca[^/]*(/.*)?", "cc-by-nc-4.0"),
    (r"(.*/)?songys(_chatbot)?(/.*)?", "mit"),
    (r"(.*/)?(songys[^/]*|ChatbotData\.csv)", "mit"),
    (r"(.*/)?sae4k[^/]*(/.*)?", "cc-by-sa-4.0"),
)
"""Data by their names: where a file or folder is called after a published set."""


@dataclass(frozen=True)
class Inherited:
    """The licence of what was made of a base and data. identifier: as the Hub spells it.

    name: of an "other" licence. obligations: keys of what has to be said besides, among
    non_commercial, share_alike, no_derivatives, gemma, unknown_base, unknown_data.
    """

    identifier: str
    name: str | None
    obligations: tuple[str, ...]

    @property
    def is_non_commercial(self) -> bool:
        return "non_commercial" in self.obligations


def known_licences(base: str, source: str) -> tuple[str | None, str | None]:
    """Licences of a base and of a data source as their publishers state them; None: not known.

    A folder that says so in the front matter of its README.md is believed.
    """
    return (
        _stated(base) or _by_name(base, _BASES),
        _stated(source) or _by_name(source, _SOURCES),
    )


def _by_name(name: str, known: Sequence[tuple[str, str]]) -> str | None:
    plain = name.replace("\\", "/").rstrip("/")
    for pattern, licence in known:
        if re.fullmatch(pattern, plain, re.IGNORECASE):
            return licence
    return None


def _stated(place: str) -> str | None:
    """`license:` of the README.md in a folder, or beside a file."""
    path = Path(place).expanduser()
    try:
        folder = path if path.is_dir() else path.parent if path.is_file() else None
        if folder is None:
            return None
        with (folder / "README.md").open(encoding="utf-8") as file:
            text = file.read(100_000)
        found = re.match(r"---\r?\n(.*?)\r?\n---\s*(\n|$)", text, re.DOTALL)
        record = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, yaml.YAMLError):
        return None
    licence = record.get("license") if isinstance(record, dict) else None
    return licence.strip().lower() if isinstance(licence, str) and licence.strip() else None


def inherit(base: str | None, data: str | None) -> Inherited:
    """What a model tuned from a base on data may be used for, on the cautious side.

    A non-commercial part makes a non-commercial whole, and share-alike is carried on. Where a part
    is not known, the whole is unknown, unless the known part already binds it.
    """
    parts = [part.lower() for part in (base, data) if part is not None]
    obligations: list[str] = []
    if any(_has(part, "nc") or _is_research_only(part) for part in parts):
        obligations.append("non_commercial")
    if any(_has(part, "sa") for part in parts):
        obligations.append("share_alike")
    if any(_has(part, "nd") for part in parts):
        obligations.append("no_derivatives")
    if any(part.startswith("gemma") for part in parts):
        obligations.append("gemma")
    obligations += ["unknown_base"] * (base is None) + ["unknown_data"] * (data is None)
    identifier, name = _identifier(base, data, parts)
    return Inherited(identifier, name, tuple(obligations))


def _identifier(base: str | None, data: str | None, parts: Sequence[str]) -> tuple[str, str | None]:
    binding = list(dict.fromkeys(part for part in parts if part not in _PERMISSIVE))
    creative = [part for part in binding if part.startswith("cc-by-")]
    if not binding:
        is_known = base is not None and data is not None
        return (base.lower(), None) if is_known and base is not None else (UNKNOWN, None)
    if len(creative) == len(binding) and not any(_has(part, "nd") for part in creative):
        return _joined(creative), None
    if len(binding) == 1:
        return binding[0], None
    return "other", " and ".join(binding)


def _joined(licences: Sequence[str]) -> str:
    """Creative Commons licences joined: each condition of any of them holds."""
    if len(set(licences)) == 1:
        return licences[0]
    conditions: list[Literal["nc", "sa"]] = ["nc", "sa"]
    kept = [word for word in conditions if any(_has(part, word) for part in licences)]
    return "-".join(["cc", "by", *kept, "4.0"])


def _has(licence: str, word: str) -> bool:
    return licence.startswith("cc-") and word in licence.split("-")


def _is_research_only(licence: str) -> bool:
    return "research" in licence or "non-commercial" in licence or "noncommercial" in licence
