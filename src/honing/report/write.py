"""The stage behind `honing compare`: evaluated runs → page, JSON, Markdown and model cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from honing.errors import UserError
from honing.evaluation.files import without_nan
from honing.report.card import known_licences, model_card
from honing.report.compare import compare_evaluations, load_run
from honing.report.comparison import Comparison, RunInfo
from honing.report.html import render_page
from honing.report.push import push_folder
from honing.report.table import format_markdown
from honing.run import RunFolder, write_json, write_text

Language = Literal["en", "ko"]
DEFAULT_OUTPUT = "comparison"
"""Folder of a comparison of several runs; that of one run lies in the run's own."""


@dataclass(frozen=True)
class Written:
    """A comparison and the files that hold it; page: the one to open in a browser."""

    comparison: Comparison
    page: Path
    files: tuple[Path, ...]


def compare_runs(names: Sequence[str], *, num_resamples: int, seed: int) -> Comparison:
    """Each run against its base, and the runs against each other; nothing is written.

    Raises UserError where a run is not evaluated yet, or the same run is named twice.
    """
    folders = [Path(name).expanduser() for name in names]
    resolved = [folder.resolve() for folder in folders]
    for place, folder in enumerate(resolved):
        if folder in resolved[:place]:
            raise UserError(f"{names[place]}: is named twice; name each run once")
    runs = [load_run(folder) for folder in folders]
    return compare_evaluations(runs, num_resamples=num_resamples, seed=seed)


def write_comparison(
    comparison: Comparison, output: str | None, language: Language = "en"
) -> Written:
    """Write a comparison as JSON, Markdown and a page, and a card beside each run's adapter."""
    runs = [table.run for table in comparison.tables]
    own = RunFolder(Path(runs[0].folder))
    target = RunFolder(Path(output or DEFAULT_OUTPUT).expanduser()) if output else own
    if len(runs) > 1 and not output:
        target = RunFolder(Path(DEFAULT_OUTPUT))
    write_json(target.comparison_json, without_nan(comparison.to_record()))
    write_text(target.comparison_markdown, format_markdown(comparison))
    write_text(target.comparison_page, render_page(comparison, language))
    cards = [write_card(comparison, run, language) for run in runs]
    files = (target.comparison_page, target.comparison_markdown, target.comparison_json, *cards)
    return Written(comparison, target.comparison_page, files)


def write_card(comparison: Comparison, run: RunInfo, language: Language) -> Path:
    """README.md beside the adapter that was evaluated."""
    path = RunFolder(Path(run.folder)).checkpoints / run.checkpoint / "README.md"
    write_text(path, card_text(comparison, run, language))
    return path


def merged_card(name: str, checkpoint: str | None) -> str | None:
    """README.md for a merged run, with the numbers of its evaluation; None where this checkpoint
    was not evaluated."""
    run = RunFolder(Path(name).expanduser())
    if not (run.evaluation_base.is_file() and run.evaluation_tuned.is_file()):
        return None
    comparison = compare_runs([name], num_resamples=CARD_RESAMPLES, seed=CARD_SEED)
    info = comparison.tables[0].run
    used = run.linked(checkpoint) if checkpoint else run.checkpoint_to_use()
    if used is None or used.name != info.checkpoint:
        return None
    return card_text(comparison, info, "en", library="transformers")


CARD_RESAMPLES = 2000
CARD_SEED = 42
"""As config.evaluate.num_resamples and config.seed have them where nothing else is said."""


def push_run(comparison: Comparison, repo: str) -> str:
    """Put adapter and card of the first run on the Hub; the address of what was written."""
    run = comparison.tables[0].run
    return push_folder(RunFolder(Path(run.folder)).checkpoints / run.checkpoint, repo, _PUSHED)


_PUSHED = ("README.md", "adapter_config.json", "adapter_model.safetensors", "honing.json")
"""What others need of a checkpoint; the trainer's state is of no use to them."""


def card_text(
    comparison: Comparison, run: RunInfo, language: Language, *, library: str = "peft"
) -> str:
    source = run.data_report.get("source", "")
    base_license, data_license = known_licences(run.base, str(source))
    return model_card(
        comparison,
        run.name,
        base_license=base_license,
        data_license=data_license,
        language=language,
        library=library,
    )
