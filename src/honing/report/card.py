"""A comparison → the model card of one run: README.md in the Hub's format, with the same numbers.

Whatever a model or the data says stands in code blocks that it cannot close, and names are escaped
for Markdown and HTML. Paths of this machine are cut down to their last part: a card is public.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from honing.config import EMBEDDED_BASE
from honing.data.template import TEMPLATES
from honing.evaluation.forgetting import GENERAL
from honing.report.comparison import Answer, Comparison, RunInfo, RunTable
from honing.report.lead import lead_of_run, name_of_split, say_facts
from honing.report.licences import Inherited, inherit
from honing.report.licences import known_licences as known_licences
from honing.report.markdown import block, cell, escape, inline
from honing.report.metric_tables import MetricRow, Side, metric_table
from honing.report.names import FLOORS, Language, metric_name, name_of
from honing.report.page import show_value
from honing.report.remarks import say_remark
from honing.report.texts import Wording, number
from honing.report.words import show_hidden
from honing.version import VERSION

_EMBEDDED_ON_THE_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE = re.compile(r".*\.(jsonl?|csv|tsv|parquet|txt|gguf)(\.gz)?", re.IGNORECASE)
_MOST_SAMPLES = 3
_LONGEST_SHOWN = 400


def model_card(
    comparison: Comparison,
    run: str | int,
    *,
    base_license: str | None,
    data_license: str | None,
    language: Language = "en",
    library: str = "peft",
) -> str:
    """README.md of one run of a comparison, by its name or its place.

    base_license, data_license: as the Hub spells them; None where they are not known, and then the
    card says so. library: peft for an adapter, transformers for a merged model.
    """
    table = _table_of(comparison, run)
    inherited = inherit(base_license, data_license)
    head = _metadata(comparison, table, inherited, library).to_yaml()
    t = Wording(language)
    body = (
        _environment()
        .get_template(f"card.{language}.md.j2")
        .render(
            **_answer(comparison, table, t),
            **_origin(table.run, library, t),
            samples=_samples(comparison, table.run, t),
            limits=[
                say_remark(remark, language)
                for remark in dict.fromkeys(
                    [*_own_notes(comparison, table.run), *table.run.warnings]
                )
            ],
            inherited=inherited,
            base_license=base_license,
            data_license=data_license,
            version=VERSION,
        )
    )
    return f"---\n{head}\n---\n{body.rstrip()}\n"


def _own_notes(comparison: Comparison, run: RunInfo) -> list[str]:
    """Notes on all runs and on this one against its base; none on others. Leaks are told apart."""
    names = {table.run.name for table in comparison.tables}
    notes = []
    for note in comparison.notes:
        who = note.partition(": ")[0]
        of_runs = set(re.split(", | and ", who)) & names
        if not of_runs or who == f"{run.name} and its base":
            notes.append(note)
    return notes


def _table_of(comparison: Comparison, run: str | int) -> RunTable:
    if isinstance(run, int):
        return comparison.tables[run]
    return next(table for table in comparison.tables if table.run.name == run)


# --- the metadata


def _metadata(
    comparison: Comparison, table: RunTable, inherited: Inherited, library: str
) -> ModelCardData:
    run = table.run
    data = hub_id(_source(run))
    results = _results(table, data)
    if inherited.identifier == "other":
        licence = {"license": "other", "license_name": _slug(inherited.name or "other")}
    else:
        licence = {"license": inherited.identifier}
    return ModelCardData(
        base_model=hub_id(run.base),
        base_model_relation="adapter" if library == "peft" else "merge",
        datasets=[data] if data else None,
        language=_languages(comparison),
        library_name=library,
        pipeline_tag="text-generation",
        tags=["honing", "lora"],
        model_name=show_hidden(run.name),
        eval_results=results or None,
        **licence,
    )


def _results(table: RunTable, data: str | None) -> list[EvalResult]:
    """Every metric of the tuned model on these rows with its interval and its signature."""
    results = []
    for line in table.lines:
        after = line.all_rows.after
        if not math.isfinite(after.score) or line.name in GENERAL:
            continue
        arguments: dict[str, Any] = {"signature": show_hidden(line.signature)}
        if after.interval is not None:
            arguments["interval_95"] = [round(end, 4) for end in after.interval]
        results.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=data or _slug(_source_name(table.run)),
                dataset_name=show_hidden(_source_name(table.run)),
                dataset_split=show_hidden(table.run.split),
                metric_type=line.name,
                metric_name=metric_name(line.name, line.unit).label.en,
                metric_value=round(after.score, 4),
                metric_args=arguments,
            )
        )
    return results


def _languages(comparison: Comparison) -> list[str] | None:
    """ko where Hangul is a third of the references' letters; else nothing is known."""
    letters = [c for sample in comparison.samples for c in sample.reference if c.isalpha()]
    hangul = sum("가" <= letter <= "힣" for letter in letters)
    return ["ko"] if letters and hangul >= len(letters) / 3 else None


def hub_id(name: str) -> str | None:
    """The id on the Hub of a base or of a data set; None for files, folders and samples."""
    if name == EMBEDDED_BASE:
        return _EMBEDDED_ON_THE_HUB
    if not _HUB_ID.fullmatch(name) or _FILE.fullmatch(name) or Path(name).exists():
        return None
    return name


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "unnamed"


def _source(run: RunInfo) -> str:
    """What the data report or the configuration names; several files by the first."""
    source = run.data_report.get("source") or _section(run, "data").get("source") or ""
    return source if isinstance(source, str) else show_value(source)


def _source_name(run: RunInfo) -> str:
    source = _source(run)
    return source if hub_id(source) else last_part(source) or "unknown data"


def last_part(path: str) -> str:
    """The name of a file or folder without where it lies."""
    return PurePosixPath(path.replace("\\", "/")).name


def _section(run: RunInfo, name: str) -> Mapping[str, Any]:
    section = run.config.get(name)
    return section if isinstance(section, Mapping) else {}


# --- the text


def _answer(comparison: Comparison, table: RunTable, t: Wording) -> dict[str, Any]:
    """The numbers, as the page has them."""
    lead = lead_of_run("", "", table.lines, t)
    clean = [line for line in table.lines if line.clean is not None]
    first = max(table.lines, key=lambda line: len(line.floors), default=None)
    floors = [] if first is None else first.floors.items()
    return {
        "sentences": [sentence.text.striptags() for sentence in lead.main] + list(lead.more),
        "rows": _rows(table, t),
        "clean_rows": _clean_rows(table, t) if clean else [],
        "floors": [
            f"{name_of(FLOORS, name, t.language)}: "
            + ", ".join(
                f"{metric_name(line.name, line.unit).label.of(t.language)} "
                + number(line.floors[name])
                for line in table.lines
                if name in line.floors
            )
            for name, _ in floors
        ],
        "facts": say_facts([table.run], t),
        "num_tests": number(comparison.num_tests, 0),
    }


def _rows(table: RunTable, t: Wording) -> list[dict[str, str]]:
    side = Side(table.run.name, "", table.lines)
    families = metric_table([side], caption="", before="", after="", t=t).families
    return [
        _cells(block.label, row)
        for family in families
        for block in family.blocks
        for row in block.rows
    ]


def _clean_rows(table: RunTable, t: Wording) -> list[dict[str, str]]:
    lines = [
        replace(line, all_rows=line.clean, clean=None)
        for line in table.lines
        if line.clean is not None
    ]
    return _rows(replace(table, lines=tuple(lines)), t)


def _cells(label: str, row: MetricRow) -> dict[str, str]:
    return {
        "label": label,
        "before": row.before,
        "after": row.after,
        "difference": row.difference,
        "interval": row.interval,
        "verdict": row.verdict,
    }


def _origin(run: RunInfo, library: str, t: Wording) -> dict[str, Any]:
    """What it was made of, and how it is used."""
    name, text = _template(run)
    base = hub_id(run.base) or last_part(run.base)
    loss = run.training.get("best_val_loss")
    return {
        "name": run.name,
        "run": run,
        "is_adapter": library == "peft",
        "is_embedded": run.base == EMBEDDED_BASE,
        "base": base,
        "best_val_loss": number(loss, 4) if isinstance(loss, float) else "",
        "data": _source_name(run),
        "settings": _settings(run, t),
        "template_name": name,
        "template_text": block(text),
        "usage": block(_usage(base, library, name), "python"),
        "honing_command": inline("honing generate FOLDER --prompt '…'"),
    }


def _template(run: RunInfo) -> tuple[str, str]:
    """The template's name, and the text of a prompt without an input."""
    setting = _section(run, "data").get("template") or run.data_report.get("template") or "?"
    if isinstance(setting, Mapping):
        return "custom", str(setting.get("prompt_without_input") or setting.get("prompt") or "")
    if setting in TEMPLATES:
        return str(setting), TEMPLATES[str(setting)].prompt_without_input
    return str(setting), "tokenizer.apply_chat_template(…)" if setting == "chat" else str(setting)


def _usage(base: str, library: str, template: str) -> str:
    """A few lines of Python. FOLDER is where this card lies, or its id on the Hub."""
    if library == "peft":
        lines = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"tokenizer = AutoTokenizer.from_pretrained({base!r})",
            f"base = AutoModelForCausalLM.from_pretrained({base!r})",
            'model = PeftModel.from_pretrained(base, "FOLDER")',
        ]
    else:
        lines = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
            'model = AutoModelForCausalLM.from_pretrained("FOLDER")',
        ]
    if template == "chat":
        lines += [
            'chat = [{"role": "user", "content": "…"}]',
            "text = tokenizer.apply_chat_template(",
            "    chat, tokenize=False, add_generation_prompt=True",
            ")",
            'ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)',
        ]
    else:
        lines += ['ids = tokenizer("…", return_tensors="pt")  # the prompt in the form above']
    lines += [
        "answer = model.generate(**ids, max_new_tokens=128, do_sample=False)",
        "new_ids = answer[0, ids['input_ids'].shape[1] :]",
        "print(tokenizer.decode(new_ids, skip_special_tokens=True))",
    ]
    return "\n".join(lines)


_SETTINGS = (
    ("data", "max_length"),
    ("data", "split"),
    ("data", "max_rows"),
    ("lora", "rank"),
    ("lora", "alpha"),
    ("lora", "dropout"),
    ("lora", "target_modules"),
    ("lora", "use_rslora"),
    ("lora", "use_dora"),
    ("train", "epochs"),
    ("train", "max_steps"),
    ("train", "global_batch_size"),
    ("train", "learning_rate"),
    ("train", "weight_decay"),
    ("train", "scheduler"),
    ("train", "warmup_ratio"),
    ("train", "warmup_steps"),
    ("model", "dtype"),
)
"""What a reader needs to repeat the training, and nothing that names a place on this machine."""


def _settings(run: RunInfo, t: Wording) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    splits = run.data_report.get("splits")
    if isinstance(splits, Mapping):
        for name, split in splits.items():
            if isinstance(split, Mapping) and isinstance(split.get("num_rows"), int):
                rows.append(
                    (f"{name_of_split(name, t)} ({t('rows')})", number(split["num_rows"], 0))
                )
    for section, key in _SETTINGS:
        values = _section(run, section)
        if values.get(key) not in (None, False):
            rows.append((cell(f"{section}.{key}"), cell(show_value(values[key]))))
    if "seed" in run.config:
        rows.append((cell("seed"), cell(show_value(run.config["seed"]))))
    return rows


def _samples(comparison: Comparison, run: RunInfo, t: Wording) -> list[dict[str, str]]:
    drawn = [sample for sample in comparison.samples if "random" in sample.tags]
    return [
        {
            "prompt": _quoted(sample.prompt, t),
            "reference": _quoted(sample.reference, t),
            "base": _quoted_answer(sample.answers.get("base"), t),
            "tuned": _quoted_answer(sample.answers.get(run.name), t),
        }
        for sample in drawn[:_MOST_SAMPLES]
    ]


def _quoted_answer(answer: Answer | None, t: Wording) -> str:
    return "–" if answer is None else _quoted(answer.text, t)


def _quoted(text: str, t: Wording) -> str:
    if len(text) <= _LONGEST_SHOWN:
        return block(text)
    return block(f"{text[:_LONGEST_SHOWN]}\n{t('more', number=number(len(text), 0))}")


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("honing.report", "."),
        autoescape=False,  # Markdown: `escape` sees every expression instead
        undefined=StrictUndefined,
        finalize=escape,
    )
