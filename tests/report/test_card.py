"""The model card: the Hub's metadata, the page's numbers, licences, and no way out of Markdown."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from honing.config import EMBEDDED_BASE
from honing.evaluation.forgetting import GENERAL
from honing.report.card import hub_id, model_card
from honing.report.comparison import Comparison
from honing.report.names import METRICS, Language
from tests.report.pages import HOSTILE, full_comparison, poisoned

LANGUAGES: tuple[Language, ...] = ("en", "ko")


OF_THE_ROWS = [name for name in METRICS if name not in GENERAL]
"""Results of the data set, and not of a text outside it."""


def card(
    comparison: Comparison,
    *,
    base: str | None = "apache-2.0",
    data: str | None = "mit",
    language: Language = "en",
    library: str = "peft",
) -> str:
    return model_card(
        comparison, 0, base_license=base, data_license=data, language=language, library=library
    )


def test_the_hub_reads_its_metadata_back() -> None:
    made = full_comparison(2)
    read = ModelCard(card(made)).data
    assert read.base_model == "made/up-base"
    assert read.base_model_relation == "adapter"
    assert (read.library_name, read.license, read.language) == ("peft", "apache-2.0", ["ko"])
    assert read.pipeline_tag == "text-generation"
    assert read.tags == ["honing", "lora"]
    assert read.datasets is None
    assert read.model_name == "run-1"
    lines = [line for line in made.tables[0].lines if line.name in OF_THE_ROWS]
    assert [result.metric_type for result in read.eval_results] == [line.name for line in lines]
    for line, result in zip(lines, read.eval_results, strict=True):
        after = line.all_rows.after
        assert result.metric_value == round(after.score, 4)
        assert after.interval is not None
        assert result.metric_args == {
            "signature": line.signature,
            "interval_95": [round(end, 4) for end in after.interval],
        }
        assert (result.dataset_name, result.dataset_split) == ("rows.jsonl", "test")


def test_a_card_of_a_merged_model_says_so() -> None:
    text = card(full_comparison(1), library="transformers")
    read = ModelCard(text).data
    assert (read.library_name, read.base_model_relation) == ("transformers", "merge")
    assert "with a LoRA adapter merged into it" in text
    assert "peft" not in text
    assert 'AutoModelForCausalLM.from_pretrained("FOLDER")' in text
    assert "PeftModel.from_pretrained(base" in card(full_comparison(1))


def test_the_run_is_named_by_name_or_by_place() -> None:
    made = full_comparison(2)
    texts = [model_card(made, run, base_license=None, data_license=None) for run in (1, "run-2", 0)]
    assert texts[0] == texts[1] != texts[2]
    assert "\n# run-2\n" in texts[0]


def test_numbers_are_those_of_the_comparison() -> None:
    made = full_comparison(1, leaked=True)
    text = card(made)
    difference = next(line for line in made.tables[0].lines if line.name == "chrf").all_rows
    assert difference.interval is not None
    row = next(line for line in text.splitlines() if line.startswith("| chrF |"))
    assert f"| {difference.before.score:.1f} | {difference.after.score:.1f} |" in row
    assert text.count("| chrF |") == 2  # all rows, and those without a twin
    assert "| ended by itself | 40.0 | 42.0 | +2.0 (−1.0 to +5.0) | ≈ not distinguishable |" in text
    assert "6 of these rows have a twin in training" in text
    assert "60 rows in 48 groups" in text
    assert "| `lora.rank` | `8` |" in text
    assert "| best validation loss | 1.2700 |" in text
    assert "### Instruction:\n{instruction}\n\n### Response:\n" in text
    assert "copy the input: " in text
    assert "twin" not in card(full_comparison(1))


@pytest.mark.parametrize("language", LANGUAGES)
def test_both_languages_hold_the_same_parts(language: Language) -> None:
    text = card(full_comparison(1, leaked=True), language=language, base="gemma", data=None)
    body = text.split("\n---\n", 1)[1]
    prose = re.sub(r"```.*?```", "", body, flags=re.DOTALL)
    assert len(re.findall("^#+ ", prose, re.MULTILINE)) == 7
    assert body.count("\n|") == 2 * (2 + len(METRICS)) + 2 + 10
    assert body.count("```") == 2 * (2 + 3 * 4)
    assert not re.search(r"\n{4}|[ \t]\n|\{\{|%\}", body)
    assert bool(re.search("[가-힣]", prose)) == (language == "ko")
    assert "https://ai.google.dev/gemma/terms" in body


@pytest.mark.parametrize(
    ("base", "data", "license", "words"),
    [
        ("apache-2.0", "mit", "apache-2.0", []),
        ("apache-2.0", "cc-by-nc-4.0", "cc-by-nc-4.0", ["**Non-commercial use only.**"]),
        ("cc-by-nc-sa-4.0", "mit", "cc-by-nc-sa-4.0", ["Non-commercial: ", "Share-alike: "]),
        ("apache-2.0", None, "unknown", ["Licence of the data (rows.jsonl): not known to honing."]),
        (None, "mit", "unknown", ["Base model made/up-base: not known to honing."]),
        ("apache-2.0", "cc-by-sa-4.0", "cc-by-sa-4.0", ["Share-alike: "]),
        ("gemma", "cc-by-nc-4.0", "other", ["gemma and cc-by-nc-4.0", "Gemma Terms of Use"]),
    ],
)
def test_licences_are_named_and_inherited(
    base: str | None, data: str | None, license: str, words: list[str]
) -> None:
    text = card(full_comparison(1), base=base, data=data)
    assert ModelCard(text).data.license == license
    for wanted in words:
        assert wanted in text
    assert ("Non-commercial" in text) == ("nc" in f"{base}-{data}".split("-"))
    if license == "other":
        assert ModelCard(text).data.license_name == "gemma-and-cc-by-nc-4.0"


def test_ids_of_the_hub_are_told_from_files_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub_id(EMBEDDED_BASE) == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert hub_id("beomi/KoAlpaca-v1.1a") == "beomi/KoAlpaca-v1.1a"
    for name in ("data/rows.jsonl", "rows.csv", "gpt2", "/a/b", "a/b/c", "sample", "a/b.gguf", ""):
        assert hub_id(name) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beomi" / "KoAlpaca-v1.1a").mkdir(parents=True)
    assert hub_id("beomi/KoAlpaca-v1.1a") is None


def test_no_path_of_this_machine_is_told() -> None:
    made = full_comparison(1)
    run = made.tables[0].run
    data = {**run.data_report, "source": "/home/someone/secret/rows.jsonl"}
    run = replace(run, folder="/home/someone/run", base="/home/someone/base", data_report=data)
    made = replace(made, tables=(replace(made.tables[0], run=run),))
    for library in ("peft", "transformers"):
        text = card(made, library=library)
        assert "someone" not in text
        assert "rows.jsonl" in text
        assert ModelCard(text).data.base_model is None


def test_notes_on_other_runs_stay_out_of_the_card() -> None:
    made = full_comparison(3)
    notes = (
        "One seed judges this adapter, not the recipe: another seed gives another adapter",
        "run-1: 6 of 60 rows have a twin in training; the clean figures leave them out",
        "run-1 and its base: bleu is not compared, for only one of them has it",
        "run-2 and its base: chrf is not compared, for only one of them has it",
        "run-1 and run-2: compared on the 3 rows that both answered",
        "run-2, run-3: their seeds chose different rows",
    )
    text = card(replace(made, notes=notes), language="ko")
    assert "- 시드 하나로는 이 어댑터를 평가할 뿐" in text
    assert "- run-1 실행과 그 원본: BLEU 비교하지 않음(한쪽에만 있음)" in text
    assert "run-2" not in text
    assert "6행" not in text


def test_a_bare_comparison_makes_a_card_too() -> None:
    made = full_comparison(1)
    run = replace(
        made.tables[0].run, data_report={}, training={}, config={}, curves={}, base="base"
    )
    bare = replace(made, tables=(replace(made.tables[0], run=run, lines=()),), samples=())
    text = card(bare, base=None, data=None)
    read = ModelCard(text).data
    assert (read.eval_results, read.language, read.license) == (None, None, "unknown")
    assert "Some answers" not in text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("hostile", [*HOSTILE, "```\n# out\n```\n", "| a |\n\n---\n", "](x)[y]("])
def test_nothing_from_outside_breaks_out(hostile: str, language: Language) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    clean = full_comparison(1, leaked=True)
    texts = [clean, poisoned(clean, lambda text: hostile + text)]
    kinds = []
    for made in texts:
        text = card(made, language=language, base="gemma")
        head, body = text.removeprefix("---\n").split("\n---\n", 1)
        record = yaml.safe_load(head)
        assert record["license"] == "gemma"
        assert len(record["model-index"][0]["results"][0]["metrics"]) == len(OF_THE_ROWS)
        ModelCard(text)
        tokens = parser.parse(body)
        inner = [child for token in tokens for child in token.children or ()]
        assert {token.type for token in [*tokens, *inner]}.isdisjoint(
            {"html_block", "html_inline", "image", "blockquote_open"}
        )
        links = [token.attrs["href"] for token in inner if token.type == "link_open"]
        assert links == ["https://ai.google.dev/gemma/terms"]
        kinds.append([token.type for token in tokens])
        text.encode("utf-8")
    assert kinds[0] == kinds[1]
