"""The end of a run: what happened, in numbers, as the first draft's author wrote it by hand."""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from honing.config import Config
from honing.config_file import dump_config
from honing.data.prepare import PreparedData
from honing.model.device import peak_memory_bytes, total_memory_bytes
from honing.model.lora import count_parameters
from honing.run import RunFolder, write_json, write_text
from honing.training.progress import perplexity
from honing.training.state import EpochRecord, Totals
from honing.training.trainer import Trainer


@dataclass(frozen=True)
class EpochSummary:
    """One epoch. Losses in nats a supervised token; changes in % against the epoch before, the
    first validation loss against the base's."""

    epoch: int
    train_loss: float
    train_change: float | None
    val_loss: float | None
    val_change: float | None
    seconds: float
    micro_batches_per_s: float
    tokens_per_s: float


@dataclass(frozen=True)
class TrainingReport:
    """All figures of a finished run. seconds: wall time of this call; training_seconds: steps
    alone, those before a resume too."""

    epochs: tuple[EpochSummary, ...]
    base_val_loss: float | None
    final_val_loss: float | None
    best_val_loss: float | None
    best_step: int | None
    stopped_early: bool
    num_steps: int
    num_tokens: int
    num_supervised: int
    seconds: float
    training_seconds: float
    seconds_per_epoch: float
    micro_batches_per_s: float
    tokens_per_s: float
    trainable_parameters: int
    total_parameters: int
    peak_memory_bytes: int
    total_memory_bytes: int
    memory_headroom_percent: float
    adapter_bytes: int
    checkpoint_bytes: int
    base_bytes: int | None
    saved_percent: float | None
    checkpoint: str
    next_command: str
    files: tuple[str, ...]
    data_fingerprint: str
    config: dict[str, Any]

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


def make_report(
    run: RunFolder,
    config: Config,
    data: PreparedData,
    trainer: Trainer,
    base_location: str,
    seconds: float,
) -> TrainingReport:
    state = trainer.state
    totals = [epoch.totals for epoch in state.history]
    whole = sum(totals, Totals())
    count = count_parameters(trainer.model)
    peak, memory = peak_memory_bytes(trainer.device), total_memory_bytes(trainer.device)
    sizes = trainer.checkpoint_sizes
    assert sizes is not None
    base_bytes = weights_bytes(base_location)
    best = run.checkpoints / "best"
    chosen = best if best.is_dir() else run.checkpoint_to_use()  # no link, a file that names it
    return TrainingReport(
        epochs=summarise(state.history, state.base_loss),
        base_val_loss=state.base_loss,
        final_val_loss=state.val_loss,
        best_val_loss=state.best_loss,
        best_step=state.best_step,
        stopped_early=state.stopped_early,
        num_steps=state.step,
        num_tokens=whole.num_tokens,
        num_supervised=whole.num_supervised,
        seconds=seconds,
        training_seconds=whole.seconds,
        seconds_per_epoch=whole.seconds / len(totals),
        micro_batches_per_s=whole.num_micro_batches / whole.seconds,
        tokens_per_s=whole.num_tokens / whole.seconds,
        trainable_parameters=count.trainable,
        total_parameters=count.total,
        peak_memory_bytes=peak,
        total_memory_bytes=memory,
        memory_headroom_percent=100.0 * (1.0 - peak / memory),
        adapter_bytes=sizes.adapter,
        checkpoint_bytes=sizes.whole,
        base_bytes=base_bytes,
        saved_percent=100.0 * (1.0 - sizes.adapter / base_bytes) if base_bytes else None,
        checkpoint=str(chosen),
        next_command=f"honing generate {shlex.quote(str(run.root))} --prompt '…'",
        files=_files(run),
        data_fingerprint=data.report.fingerprint,
        config=config.model_dump(mode="json"),
    )


def change_percent(before: float | None, after: float | None) -> float | None:
    """(after - before) / before in %: negative where a loss fell."""
    if before is None or after is None or before == 0 or not math.isfinite(before):
        return None
    return 100.0 * (after - before) / before


def summarise(history: list[EpochRecord], base_loss: float | None) -> tuple[EpochSummary, ...]:
    summaries: list[EpochSummary] = []
    train_before, val_before = None, base_loss
    for epoch in history:
        totals = epoch.totals
        summaries.append(
            EpochSummary(
                epoch=epoch.epoch + 1,
                train_loss=totals.mean_loss,
                train_change=change_percent(train_before, totals.mean_loss),
                val_loss=epoch.val_loss,
                val_change=change_percent(val_before, epoch.val_loss),
                seconds=totals.seconds,
                micro_batches_per_s=totals.num_micro_batches / totals.seconds,
                tokens_per_s=totals.num_tokens / totals.seconds,
            )
        )
        train_before = totals.mean_loss
        val_before = epoch.val_loss if epoch.val_loss is not None else val_before
    return tuple(summaries)


def weights_bytes(location: str) -> int | None:
    """Size of a base's weights, in its folder or in the Hub's cache; None where they are not."""
    folder = Path(location)
    if not folder.is_dir():
        cached = try_to_load_from_cache(location, "config.json")
        if not isinstance(cached, str):
            return None
        folder = Path(cached).parent
    files = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    return sum(file.stat().st_size for file in files) or None


def _files(run: RunFolder) -> tuple[str, ...]:
    there = [
        run.config,
        run.data_report,
        run.splits,
        run.final,
        run.checkpoints / "best",
        run.checkpoints / "last",
        run.logs,
        run.metrics,
    ]
    written = [path for path in there if path.exists()]
    return tuple(str(path) for path in [*written, run.report_markdown, run.report_json])


def write_report(run: RunFolder, report: TrainingReport) -> None:
    """training_report.md and .json. The JSON comes last: it marks the run as finished."""
    write_text(run.report_markdown, format_markdown(report))
    write_json(run.report_json, report.to_record())


def format_table(report: TrainingReport) -> list[str]:
    """The table of epochs as Markdown, aligned for a terminal too."""
    rows = [("epoch", "train loss", "change", "validation", "change", "s", "batches/s", "tokens/s")]
    if report.base_val_loss is not None:
        rows.append(("base", "", "", f"{report.base_val_loss:.4f}", "", "", "", ""))
    for e in report.epochs:
        rows.append(
            (
                str(e.epoch),
                f"{e.train_loss:.4f}",
                _percent(e.train_change),
                "–" if e.val_loss is None else f"{e.val_loss:.4f}",
                _percent(e.val_change),
                f"{e.seconds:.1f}",
                f"{e.micro_batches_per_s:.2f}",
                f"{e.tokens_per_s:.0f}",
            )
        )
    if len(report.epochs) > 1:
        seconds, batches = f"{report.training_seconds:.1f}", f"{report.micro_batches_per_s:.2f}"
        rows.append(("all", "", "", "", "", seconds, batches, f"{report.tokens_per_s:.0f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return lines


def format_summary(report: TrainingReport) -> list[str]:
    """The figures below the table, a line each."""
    lines = []
    change = change_percent(report.base_val_loss, report.best_val_loss)
    if report.best_val_loss is not None and report.base_val_loss is not None:
        lines.append(
            f"Validation loss {report.base_val_loss:.4f} (base) → {report.best_val_loss:.4f} "
            f"(best, step {report.best_step}): {_percent(change)}; perplexity "
            f"{perplexity(report.base_val_loss):.2f} → {perplexity(report.best_val_loss):.2f}"
        )
    early = ", stopped early" if report.stopped_early else ""
    lines += [
        f"{report.num_steps:,} steps{early}, {report.num_tokens:,} tokens "
        f"({report.num_supervised:,} learnt from) in {report.training_seconds:.0f} s of training, "
        f"{report.seconds_per_epoch:.1f} s an epoch; {report.seconds:.0f} s "
        f"{_counted_from(report)}",
        f"Peak memory {report.peak_memory_bytes / 1e9:.2f} of "
        f"{report.total_memory_bytes / 1e9:.1f} GB ({report.memory_headroom_percent:.0f} % free)",
        f"Trained {report.trainable_parameters:,} of {report.total_parameters:,} parameters "
        f"({100 * report.trainable_parameters / report.total_parameters:.2f} %)",
        f"Adapter {_bytes(report.adapter_bytes)}, checkpoint with optimizer state "
        f"{_bytes(report.checkpoint_bytes)}{_saved(report)}",
    ]
    return lines


def _counted_from(report: TrainingReport) -> str:
    """A resumed run has trained for longer than this call."""
    resumed = report.seconds < report.training_seconds
    return "since it was resumed" if resumed else "with validation and saving"


def _saved(report: TrainingReport) -> str:
    if report.base_bytes is None or report.saved_percent is None:
        return ""
    return f"; the base has {_bytes(report.base_bytes)}, so {report.saved_percent:.1f} % is saved"


def format_terminal(report: TrainingReport) -> str:
    """The summary that a training ends with."""
    lines = [*format_table(report), *format_summary(report), _settings(report)]
    lines += [f"Written {file}" for file in report.files]
    lines += [f"Use {report.checkpoint}", f"Next: {report.next_command}"]
    return "\n".join(lines)


def _settings(report: TrainingReport) -> str:
    """The settings that matter most; config.yaml and the Markdown have them all."""
    config = Config.model_validate(report.config)
    lora, train = config.lora, config.train
    return (
        f"Settings: rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}, "
        f"{train.epochs} epochs of {train.global_batch_size} examples a step, rate "
        f"{train.learning_rate:g} ({train.scheduler}), {config.model.dtype}, seed {config.seed}"
    )


def format_markdown(report: TrainingReport) -> str:
    parts = ["# Training report", "", *format_table(report), ""]
    parts += [f"- {line}" for line in format_summary(report)]
    parts += ["", f"Use `{report.checkpoint}`. Next: `{report.next_command}`", "", "## Files", ""]
    parts += [f"- `{file}`" for file in report.files]
    parts += ["", "## Settings", "", "```yaml"]
    parts += [dump_config(Config.model_validate(report.config)).rstrip(), "```", ""]
    return "\n".join(parts)


def _bytes(number: int) -> str:
    return f"{number / 1e6:,.1f} MB" if number >= 1e5 else f"{number / 1e3:,.1f} kB"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f} %"
