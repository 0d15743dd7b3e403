"""The loop: epochs of steps, steps of micro-batches, and plain ifs for all that happens between."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from honing.config import TrainConfig
from honing.data.encode import Tokens
from honing.data.pack import Batch, epoch_order, steps_of_epoch
from honing.data.stored import counts_of
from honing.errors import TrainingDiverged, UserError
from honing.model.device import (
    give_back_memory,
    peak_memory_bytes,
    random_states,
    set_random_states,
    set_seed,
)
from honing.model.dropout import use_cheap_dropout
from honing.model.fast_forms import describe_forms, use_fast_forms
from honing.model.forward import (
    head_of,
    hidden_states,
    plain_model,
    use_isolated_attention,
)
from honing.model.load import Model
from honing.model.lora import check_adapters_learn, trainable_parameters
from honing.run import RunFolder
from honing.training.checkpoint import (
    CheckpointSizes,
    read_state,
    remove_old_checkpoints,
    write_checkpoint,
)
from honing.training.isolation import packing_works
from honing.training.layout import micro_batches
from honing.training.loss import response_loss
from honing.training.processes import Processes
from honing.training.progress import LoggedEvaluation, LoggedSteps, Progress, perplexity
from honing.training.schedule import learning_rate
from honing.training.state import EpochRecord, Totals, TrainState, state_from_record

Samples = tuple[tuple[str, str], ...]
RandomStates = list[list[Tensor]]
"""Of each process, those of its devices."""


class Interrupted(Exception):
    """The training was asked to stop; a checkpoint was saved."""


class Trainer:
    """Trains the adapters of a model on encoded rows.

    model: has adapters attached, all else frozen. train, val: encoded rows; val may be empty.
    settings: without "auto" in it. run: where checkpoints go; None keeps nothing.
    about: what checkpoints say of themselves. sample: answers to a few validation prompts.
    packing_is_checked: packing_works has been asked already. processes: this one among those that
    train together; all are given the same rows, and the first alone a run.
    """

    def __init__(
        self,
        model: Model,
        train: Sequence[Tokens],
        val: Sequence[Tokens],
        settings: TrainConfig,
        *,
        seed: int,
        device: str = "cpu",
        run: RunFolder | None = None,
        about: dict[str, Any] | None = None,
        progress: Progress | None = None,
        sample: Callable[[], Samples] | None = None,
        packing_is_checked: bool = False,
        processes: Processes | None = None,
    ) -> None:
        self.model = model
        self.processes = processes or Processes()
        self.rows = train
        self.val_rows = val[: settings.max_val_rows] if settings.max_val_rows else val
        self.settings = settings
        self.seed = seed
        self.device = device
        self.row_tokens = int(settings.packed_row_tokens) if settings.packing else None
        self.run = run
        self.about = about or {}
        self.steps_per_epoch = math.ceil(len(train) / settings.global_batch_size)
        self.num_steps = settings.epochs * self.steps_per_epoch
        if settings.max_steps is not None:
            self.num_steps = min(self.num_steps, settings.max_steps)
        self.progress = progress or Progress(None, self.num_steps, show=False)
        self.sample = sample or (lambda: ())
        self.state = TrainState()
        self.checkpoint_sizes: CheckpointSizes | None = None
        self.stop_requested = False
        self.stop_after: int | None = None
        counts = counts_of(train)
        self.lengths: list[int] = counts.lengths.tolist()
        self._num_supervised: list[int] = counts.num_supervised.tolist()
        self.val_lengths: list[int] = counts_of(self.val_rows).lengths.tolist()
        self._prepare_model(packing_is_checked)
        if not self.processes.is_first:  # whose dropout goes on from the adapters' random numbers
            set_seed(self.processes.own_seed(seed, step=0))

    def _prepare_model(self, packing_is_checked: bool) -> None:
        plain = plain_model(self.model)
        use_isolated_attention(self.model)
        checked = packing_is_checked or not self.settings.packing
        if not checked and not packing_works(self.model, self.rows, self.device):
            raise UserError(
                "train.packing: examples in one row would see each other in this kind of model "
                f"({plain.config.model_type}); use train.packing=false"
            )
        if self.settings.gradient_checkpointing:
            # Its name from transformers 5.23 on; the old one warns there.
            enable = getattr(plain, "activation_checkpointing_enable", None)
            (enable or plain.gradient_checkpointing_enable)({"use_reentrant": False})
        if self.device == "cpu":
            use_cheap_dropout(self.model)
        if self.device == "cpu" and self.settings.fast_forms:
            self.progress.say(describe_forms(use_fast_forms(self.model)))
        self.head = head_of(self.model)
        self.parameters = [parameter for _, parameter in trainable_parameters(self.model)]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=self.device == "cuda",
        )
        scaled = plain.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device, enabled=scaled)

    # The loop

    def train(self) -> TrainState:
        """All epochs, from where the state stands.

        Raises Interrupted after a requested stop, and TrainingDiverged where a loss or gradient
        is not finite; the last good checkpoint then stands.
        """
        self.processes.send_values(self.parameters)
        try:
            self.progress.start(self.state.step)
            if self.state.step == 0 and self.val_rows:
                self.state.base_loss = self._validate(note=" (the base model)")
            while self.state.step < self.num_steps and not self.state.stopped_early:
                self.train_epoch()
            self._write_on_first(lambda run, states: self._write(run.final, states))
        finally:
            self.progress.close()
        return self.state

    def train_epoch(self) -> None:
        """The steps that are left of the epoch in progress."""
        settings, state = self.settings, self.state
        order = epoch_order(len(self.rows), self.seed, state.epoch)
        steps = steps_of_epoch(order, settings.global_batch_size)
        for members in steps[state.step_in_epoch :]:
            self._train_step(members)
            ends_epoch = state.step_in_epoch == len(steps)
            is_last = state.step == self.num_steps
            is_better = False
            if state.step % settings.log_every == 0 or is_last:
                self._log_steps()
            if self.val_rows and (self._is_due(settings.eval_every, ends_epoch) or is_last):
                is_better = self._validate_and_compare()
            done = is_last or state.stopped_early
            if done and state.unlogged.num_steps:
                self._log_steps()
            if ends_epoch or done:
                self._end_epoch()
            save = self._is_due(settings.save_every, ends_epoch) or is_better or done
            stop = self.processes.any_of(self.stop_requested) or state.step == self.stop_after
            if save or stop:
                self.save_checkpoint()
            if done:
                return
            if stop:
                raise Interrupted

    def _is_due(self, every: int | str, ends_epoch: bool) -> bool:
        if every == "epoch":
            return ends_epoch
        return every != "never" and self.state.step % int(every) == 0

    def _end_epoch(self) -> None:
        state = self.state
        val_loss = state.val_loss if state.val_step == state.step else None
        state.history.append(EpochRecord(state.epoch, state.epoch_totals, val_loss))
        state.epoch += 1
        state.step_in_epoch = 0
        state.epoch_totals = Totals()

    # One step

    def _train_step(self, members: Sequence[int]) -> None:
        """One optimizer step: the sum of losses over the step's supervised tokens, divided by
        their number, however they are laid out in micro-batches and dealt to processes."""
        started = time.perf_counter()
        state = self.state
        rate = learning_rate(state.step, self.num_steps, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        batches = self.batches(self.rows, self.lengths, members)
        num_supervised = sum(self._num_supervised[index] for index in members)
        (loss,) = self.processes.sum_of(self.add_gradients(batches, num_supervised))
        self._check_finite(loss, "loss", members)
        self.processes.sum_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        if state.step == 0:
            check_adapters_learn(self.model)
        norm = self._clip_gradients()
        if not self.scaler.is_enabled():  # with a scaler, a step that overflows is left out
            self._check_finite(norm, "gradient", members)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.step_in_epoch += 1
        totals = Totals(
            loss_nats=loss,
            num_supervised=num_supervised,
            num_tokens=sum(self.lengths[index] for index in members),
            num_micro_batches=len(batches) * self.processes.number,
            num_steps=1,
            grad_norm=norm if math.isfinite(norm) else 0.0,  # a step that was left out
            seconds=time.perf_counter() - started,
        )
        state.epoch_totals += totals
        state.unlogged += totals
        self.progress.stepped(totals.mean_loss, rate)

    def add_gradients(self, batches: Sequence[Batch], num_supervised: int) -> float:
        """Add each micro-batch's share of a step's gradient; the sum of their losses in nats."""
        sums = []
        for batch in batches:
            if self.settings.gradient_checkpointing and self.device == "cpu":
                give_back_memory()  # else what lies between tensors adds a fifth to the peak
            sum_nats, _ = self._loss(batch)
            torch.autograd.backward(self.scaler.scale(sum_nats / num_supervised))
            sums.append(sum_nats.detach())
        return float(torch.stack(sums).cpu().double().sum())  # the one wait for the device

    def batches(
        self, rows: Sequence[Tokens], lengths: Sequence[int], members: Sequence[int]
    ) -> list[Batch]:
        """This process's micro-batches of these examples."""
        return micro_batches(rows, lengths, members, self.settings, self.row_tokens, self.processes)

    def _loss(self, batch: Batch) -> tuple[Tensor, int]:
        """(sum_nats, num_tokens) of a micro-batch."""
        mask = batch.attention_mask
        hidden = hidden_states(
            self.model,
            torch.from_numpy(batch.input_ids).to(self.device),
            torch.from_numpy(batch.position_ids).to(self.device),
            None if mask is None else torch.from_numpy(mask).to(self.device),
            batch.segment_lengths,
        )
        return response_loss(hidden, torch.from_numpy(batch.labels).to(self.device), self.head)

    def _clip_gradients(self) -> float:
        limit = self.settings.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, math.inf if limit is None else limit)
        return float(norm)

    def _check_finite(self, value: float, what: str, members: Sequence[int]) -> None:
        if math.isfinite(value):
            return
        rows = ", ".join(self.rows[index].example_id for index in members)
        raise TrainingDiverged(
            f"the {what} of step {self.state.step + 1} is not a finite number ({value}), "
            f"in rows {rows}; {self._what_stands()}look at these rows, or lower train.learning_rate"
        )

    def _what_stands(self) -> str:
        kept = self.run.linked("last") if self.run else None
        return f"the checkpoint {kept} stands; " if kept else ""

    # Validation

    def evaluate(self, num_rows: int | None = None) -> tuple[float, int]:
        """(sum_nats, num_tokens) over the validation rows; the same for any batch size. num_rows:
        of the first so many."""
        total, num_tokens = 0.0, 0
        self.model.eval()
        with torch.no_grad():
            members = range(len(self.val_rows) if num_rows is None else num_rows)
            for batch in self.batches(self.val_rows, self.val_lengths, members):
                sum_nats, number = self._loss(batch)
                total += float(sum_nats)
                num_tokens += number
        total, num = self.processes.sum_of(total, num_tokens)
        return total, int(num)

    def _validate(self, note: str = "") -> float:
        total, num_tokens = self.evaluate()
        loss = total / num_tokens
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the validation loss after step {self.state.step} is not a finite number "
                f"({loss}); {self._what_stands()}lower train.learning_rate"
            )
        epoch = self.state.step / self.steps_per_epoch
        samples = self.sample()
        logged = LoggedEvaluation(self.state.step, epoch, loss, perplexity(loss), samples)
        self.progress.evaluated(logged, note)
        return loss

    def _validate_and_compare(self) -> bool:
        """Measure the validation loss; whether it is the lowest so far."""
        state = self.state
        state.val_loss, state.val_step = self._validate(), state.step
        is_better = state.best_loss is None or state.val_loss < state.best_loss
        if is_better:
            state.best_loss, state.best_step = state.val_loss, state.step
        state.num_evaluations_without_gain += 1
        if is_better:
            state.num_evaluations_without_gain = 0
        patience = self.settings.early_stopping_patience
        state.stopped_early = bool(patience and state.num_evaluations_without_gain >= patience)
        return is_better

    def _log_steps(self) -> None:
        state = self.state
        sums, state.unlogged = state.unlogged, Totals()
        self.progress.logged(
            LoggedSteps(
                step=state.step,
                epoch=state.step / self.steps_per_epoch,
                train_loss=sums.mean_loss,
                learning_rate=learning_rate(state.step - 1, self.num_steps, self.settings),
                grad_norm=sums.grad_norm / sums.num_steps,
                tokens_per_s=sums.num_tokens / sums.seconds,
                memory_bytes=peak_memory_bytes(self.device),
            )
        )

    # Checkpoints

    def save_checkpoint(self) -> Path | None:
        """Write checkpoints/step-NNNNNN, point `last` at it, and `best` where it is the best."""
        return self._write_on_first(self._save)

    def _write_on_first(
        self, write: Callable[[RunFolder, RandomStates], Path | None]
    ) -> Path | None:
        """The first process writes, if it has a run; the others give their random states."""
        states = self.processes.gathered(random_states(self.device))
        return self.processes.from_first(lambda: write(self.run, states) if self.run else None)

    def _save(self, run: RunFolder, states: RandomStates) -> Path:
        folder = run.step_checkpoint(self.state.step)
        self._write(folder, states)
        self._point_at(folder, run)
        return folder

    def _point_at(self, folder: Path, run: RunFolder) -> None:
        """A checkpoint that is in place becomes the last one; what it makes superfluous goes."""
        run.link("last", folder)
        best = self.state.best_step
        if best and run.step_checkpoint(best).is_dir():
            run.link("best", run.step_checkpoint(best))
        if warning := remove_old_checkpoints(run, self.settings.keep_last):
            self.progress.say(f"WARNING: {warning}")

    def load_checkpoint(self, folder: Path) -> None:
        """Continue from a checkpoint: adapter, optimizer, place in the order, random states."""
        record = self.processes.from_first(lambda: read_state(folder, self.model))
        self.state = state_from_record(record["train_state"])
        self.optimizer.load_state_dict(record["optimizer"])
        self.scaler.load_state_dict(record["scaler"])
        states = [record["random_states"], *record.get("random_states_of_others", [])]
        if self.processes.rank < len(states):
            set_random_states(self.device, states[self.processes.rank])
        else:
            set_seed(self.processes.own_seed(self.seed, self.state.step))
        if self.run is not None and folder == self.run.step_checkpoint(self.state.step):
            # A kill may have come before this, or a later checkpoint been damaged that was better.
            self._point_at(folder, self.run)

    def _write(self, folder: Path, states: RandomStates) -> None:
        record = {
            "train_state": asdict(self.state),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            # Order and layout come from (seed, epoch): torch's are the only random states in use.
            "random_states": states[0],
            "random_states_of_others": states[1:],
        }
        state = self.state
        metrics = {
            "step": state.step,
            "base_val_loss": state.base_loss,
            "val_loss": state.val_loss if state.val_step == state.step else None,
        }
        give_back_memory()
        self.checkpoint_sizes = write_checkpoint(
            folder, self.model, record, {**self.about, "metrics": metrics}
        )
