"""The stage behind `honing demo`: all of honing in minutes, on the embedded model.

Train on the bundled sample set, evaluate base and tuned on held-out rows, ask the first draft's
prompts, write the page, merge. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from honing.config import Config
from honing.config_file import load_config
from honing.errors import UserError
from honing.evaluation.evaluate import evaluate
from honing.generation.generate import generate
from honing.generation.questions import question_from_text
from honing.merging.merge import merge
from honing.report.comparison import Comparison
from honing.report.table import format_terminal
from honing.report.write import compare_runs, write_comparison
from honing.training.summary import format_terminal as format_training
from honing.training.train import train

# The prompts that the first draft of this system was tried with.
FIRST_DRAFT_PROMPTS = ("한국의 수도는 어디인가요?", "김치의 효능에 대해 설명해주세요.")
NUM_HELD_OUT = 3
DEFAULT_OUTPUT = "outputs/demo"
# A short run: a slice of the rows, once, at a rate that learns in some twenty steps.
SETTINGS = (
    "data.source=sample",
    "data.max_rows=320",
    "data.max_length=256",
    "train.epochs=1",
    "train.learning_rate=1.0e-3",
    "train.max_val_rows=48",
    "train.log_every=5",
    "generate.max_new_tokens=64",
    "evaluate.num_samples=48",
    "evaluate.max_new_tokens=64",
)

Say = Callable[[str], None]


def demo(
    output: str = DEFAULT_OUTPUT, overrides: Sequence[str] = (), say: Say = print
) -> dict[str, Any]:
    """Run the demo into a folder; an earlier demo there is replaced. Returns its record."""
    config = load_config(None, [*SETTINGS, f"output_dir={output}", *overrides])
    _prepare_folder(config)
    root = config.output_dir
    say("1/4  Train: a base model learns from sample rows, and how its loss falls\n")
    trained = train(config, overwrite=True, say=say)
    if trained.report is None:
        raise KeyboardInterrupt
    say(f"\n{format_training(trained.report)}")
    say("\n2/4  Evaluate: base and tuned on rows of kinds that training never saw\n")
    evaluate(root, say=say, show_progress=True)
    comparison = compare_runs([root], num_resamples=config.evaluate.num_resamples, seed=config.seed)
    say(format_terminal(comparison))
    say("")
    for line in (*_first_draft(root, config), *_held_out(comparison)):
        say(line)
    say("\n3/4  Compare: the page")
    written = write_comparison(comparison, None)
    say(f"Open {written.page} in a browser")
    say("\n4/4  Merge: one model that needs no adapter, read back from disk and compared\n")
    merged = merge(root, overwrite=True, say=say)
    say(f"Merged and verified: {merged.folder}")
    say(f"\nTalk with it: honing chat {root}")
    say(f"Curves: tensorboard --logdir {trained.run.logs}")
    say(f"The page: {written.page}")
    say("Your own rows: honing init YOUR_FILE")
    return {
        "training": trained.report.to_record(),
        "comparison": comparison.to_record(),
        "merge": merged.to_record(),
        "page": str(written.page),
    }


def _prepare_folder(config: Config) -> None:
    folder = Path(config.output_dir).expanduser()
    marker = folder / ".demo"
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise UserError(f"{folder}: is not empty and no demo's; choose --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); choose --output") from None


def _first_draft(root: str, config: Config) -> list[str]:
    """The first draft's prompts, answered by the base and by the tuned model."""
    asking = Config(generate=config.generate, device=config.device)
    questions = [question_from_text(text) for text in FIRST_DRAFT_PROMPTS]
    base = generate(root, questions, asking, base_only=True).answers
    tuned = generate(root, questions, asking).answers
    lines = []
    for question, before, after in zip(FIRST_DRAFT_PROMPTS, base, tuned, strict=True):
        lines += _side_by_side(
            question,
            "the first draft's",
            (before.text, before.stopped),
            (after.text, after.stopped),
        )
    return lines


def _held_out(comparison: Comparison) -> list[str]:
    """A few held-out rows of the evaluation, whether they went well or not: its seeded draw."""
    lines = []
    run = comparison.tables[0].run.name
    drawn = [sample for sample in comparison.samples if "random" in sample.tags]
    for sample in drawn[:NUM_HELD_OUT]:
        before, after = sample.answers["base"], sample.answers[run]
        lines += _side_by_side(
            sample.prompt, "held out", (before.text, before.stopped), (after.text, after.stopped)
        )
    return lines


def _side_by_side(
    prompt: str, kind: str, base: tuple[str, str], tuned: tuple[str, str]
) -> list[str]:
    """Two answers, each with why it stopped."""
    lines = [f"▸ {' / '.join(prompt.splitlines())}   ({kind})"]
    for name, (text, stopped) in (("base ", base), ("tuned", tuned)):
        end = "" if stopped == "end" else " … (did not stop)"
        lines.append(f"    {name}  {' ⏎ '.join(text.strip().splitlines())}{end}")
    return lines
