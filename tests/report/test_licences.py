"""What is known of licences by name, what a folder states, and what a tuned model inherits."""

from __future__ import annotations

from pathlib import Path

import pytest

from honing.config import EMBEDDED_BASE
from honing.report.licences import inherit, known_licences


@pytest.mark.parametrize(
    ("base", "licence"),
    [
        (EMBEDDED_BASE, "apache-2.0"),
        ("gpt2", "mit"),
        ("openai-community/gpt2", "mit"),
        ("gpt2-medium", "mit"),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", "apache-2.0"),
        ("Qwen/Qwen3-0.6B", "apache-2.0"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "apache-2.0"),
        ("Qwen/Qwen2.5-1.5B", "apache-2.0"),
        ("Qwen/Qwen2.5-3B", None),
        ("google/gemma-3-270m", "gemma"),
        ("skt/kogpt2-base-v2", "cc-by-nc-sa-4.0"),
        ("EleutherAI/polyglot-ko-1.3b", "apache-2.0"),
        ("someone/gpt2", None),
        ("outputs/merged", None),
        ("", None),
    ],
)
def test_bases_are_known_by_name(base: str, licence: str | None) -> None:
    assert known_licences(base, "nothing")[0] == licence


@pytest.mark.parametrize(
    ("source", "licence"),
    [
        ("sample", "mit"),
        ("sample-10", "mit"),
        ("beomi/KoAlpaca-v1.1a", "cc-by-nc-4.0"),
        ("data/ko_alpaca_data.json", "cc-by-nc-4.0"),
        ("KoAlpaca_v1.1.jsonl", "cc-by-nc-4.0"),
        ("ChatbotData.csv", "mit"),
        ("/data/songys_chatbot", "mit"),
        ("C:\\data\\songys_chatbot\\train.jsonl", "mit"),
        ("data/sae4k/train.jsonl", "cc-by-sa-4.0"),
        ("samples.jsonl", None),
        ("rows.csv", None),
        ("", None),
    ],
)
def test_data_is_known_by_name(source: str, licence: str | None) -> None:
    assert known_licences("nothing", source)[1] == licence


def test_what_a_folder_says_of_itself_comes_first(tmp_path: Path) -> None:
    base = tmp_path / "gpt2"
    base.mkdir()
    (base / "model.gguf").touch()
    card = base / "README.md"
    for text, stated in (
        ("---\nlicense: CC-BY-NC-4.0\ntags: [a]\n---\n# Model\n", "cc-by-nc-4.0"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", None),
        ("---\nlicense: {\n---\n", None),
        ("---\n- a\n---\n", None),
        ("# Model\nlicense: mit\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
    ):
        card.write_bytes(text.encode())
        assert known_licences(str(base), str(base / "model.gguf")) == (stated, stated)
    card.write_bytes(b"---\nlicense: \xff\n---\n")
    assert known_licences(str(base), "sample") == (None, "mit")
    assert known_licences("\0", "\0") == (None, None)


@pytest.mark.parametrize(
    ("base", "data", "identifier", "obligations"),
    [
        ("apache-2.0", "mit", "apache-2.0", ()),
        ("mit", "apache-2.0", "mit", ()),
        ("apache-2.0", "cc-by-nc-4.0", "cc-by-nc-4.0", ("non_commercial",)),
        ("cc-by-nc-sa-4.0", "mit", "cc-by-nc-sa-4.0", ("non_commercial", "share_alike")),
        ("cc-by-nc-4.0", "cc-by-sa-4.0", "cc-by-nc-sa-4.0", ("non_commercial", "share_alike")),
        ("apache-2.0", "cc-by-sa-4.0", "cc-by-sa-4.0", ("share_alike",)),
        ("apache-2.0", "cc-by-nd-4.0", "cc-by-nd-4.0", ("no_derivatives",)),
        ("gemma", "mit", "gemma", ("gemma",)),
        ("gemma", None, "gemma", ("gemma", "unknown_data")),
        ("apache-2.0", None, "unknown", ("unknown_data",)),
        (None, "mit", "unknown", ("unknown_base",)),
        (None, None, "unknown", ("unknown_base", "unknown_data")),
        (None, "cc-by-nc-4.0", "cc-by-nc-4.0", ("non_commercial", "unknown_base")),
        ("Apache-2.0", "MIT", "apache-2.0", ()),
        ("qwen-research", "mit", "qwen-research", ("non_commercial",)),
    ],
)
def test_the_strictest_part_is_inherited(
    base: str | None, data: str | None, identifier: str, obligations: tuple[str, ...]
) -> None:
    inherited = inherit(base, data)
    assert (inherited.identifier, inherited.name) == (identifier, None)
    assert inherited.obligations == obligations
    assert inherited.is_non_commercial == ("non_commercial" in obligations)


def test_licences_that_do_not_join_are_named_together() -> None:
    inherited = inherit("gemma", "cc-by-nc-4.0")
    assert (inherited.identifier, inherited.name) == ("other", "gemma and cc-by-nc-4.0")
    assert inherited.obligations == ("non_commercial", "gemma")
