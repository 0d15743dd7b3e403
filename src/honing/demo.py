"""The stage behind `honing demo`: prepare, train, and answers before and after, in minutes.

The embedded model and the bundled sample set, so that nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from honing.config import Config
from honing.config_file import load_config
from honing.data.example import Example
from honing.errors import UserError
from honing.generation.generate import Generated, generate
from honing.generation.questions import Question, question_from_text
from honing.training.summary import format_terminal
from honing.training.train import train

# The prompts that the first draft of this system was tried with.
FIRST_DRAFT_PROMPTS = ("한국의 수도는 어디인가요?", "김치의 효능에 대해 설명해주세요.")
NUM_HELD_OUT = 3
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
)

Say = Callable[[str], None]


def demo(output: str, overrides: Sequence[str] = (), say: Say = print) -> dict[str, Any]:
    """Run the demo into a folder; an earlier demo there is replaced. Returns its record."""
    config = load_config(None, [*SETTINGS, f"output_dir={output}", *overrides])
    marker = Path(output).expanduser() / ".demo"
    folder = Path(config.output_dir).expanduser()
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise UserError(f"{folder}: is not empty and no demo's; choose --output")
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    say("1/3  A base model learns from sample rows: what goes in, and how the loss falls\n")
    trained = train(config, overwrite=True, say=say)
    if trained.report is None:
        raise KeyboardInterrupt
    say("")
    say(format_terminal(trained.report))
    say("\n2/3  Answers of the base model …")
    questions, kinds = _questions(config)
    settings = load_config(trained.run.config)
    asking = Config(generate=settings.generate, device=config.device)
    before = generate(config.output_dir, questions, asking, base_only=True)
    say("3/3  … and of the tuned one\n")
    after = generate(config.output_dir, questions, asking)
    for line in _side_by_side(questions, kinds, before, after):
        say(line)
    say(f"\nTalk with it: honing chat {config.output_dir}")
    say(f"Curves: tensorboard --logdir {trained.run.logs}")
    say("Your own rows: honing init YOUR_FILE")
    return {
        "training": trained.report.to_record(),
        "before": before.to_record(),
        "after": after.to_record(),
    }


def _questions(config: Config) -> tuple[list[Question], list[str]]:
    """The first draft's prompts, and a few of the test split's; each with where it stands."""
    from honing.data.reading.read import read_source

    splits = Path(config.output_dir) / "splits"
    files = {name: str(splits / f"{name}.jsonl") for name in ("train", "test")}
    rows = read_source(dict(files), columns=None, encoding=None, group_by=None)
    seen = {example.prompt_text for example in rows["train"].examples}
    questions = [
        question_from_text(text, name=f"first draft {n}")
        for n, text in enumerate(FIRST_DRAFT_PROMPTS, start=1)
    ]
    kinds = [
        "seen in training" if text in seen else "not in training" for text in FIRST_DRAFT_PROMPTS
    ]
    groups: set[str | None] = set()
    held_out: list[Example] = []
    for example in rows["test"].examples:
        if example.group not in groups and len(held_out) < NUM_HELD_OUT:
            groups.add(example.group)
            held_out.append(example)
    for example in held_out:
        asked = example.exchanges[0]
        questions.append(question_from_text(asked.instruction, asked.input, name=example.id))
        kinds.append("held out, of a kind that training never saw")
    return questions, kinds


def _side_by_side(
    questions: Sequence[Question], kinds: Sequence[str], before: Generated, after: Generated
) -> list[str]:
    lines = []
    pairs = zip(questions, kinds, before.answers, after.answers, strict=True)
    for question, kind, base, tuned in pairs:
        lines.append(f"▸ {' / '.join(question.example.prompt_text.splitlines())}   ({kind})")
        for name, answer in (("base ", base), ("tuned", tuned)):
            end = "" if answer.stopped == "end" else " … (did not stop)"
            lines.append(f"    {name}  {' ⏎ '.join(answer.text.strip().splitlines())}{end}")
    lines.append("")
    for name, generated in (("base", before), ("tuned", after)):
        s = generated.statistics
        lines.append(
            f"{name}: {s.share_ended:.0f} % of {s.num_answers} answers ended by themselves, "
            f"repetition {s.repetition:.0f} %"
        )
    return lines
