"""One optimizer step: its loss, gradient, rate, and what stops it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from honing.config import LoraConfig
from honing.data.pack import epoch_order
from honing.errors import CheckFailed, TrainingDiverged
from honing.model.dropout import CheapDropout
from honing.model.lora import attach_lora, trainable_parameters
from honing.run import RunFolder
from honing.training.checkpoint import newest_valid_checkpoint
from honing.training.schedule import learning_rate
from honing.training.trainer import Trainer
from tests.tiny import adapted_model, tiny_model, train_settings
from tests.training.test_trainer import ROWS, VAL, Recorder, trained, trainer


def before_each_step(made: Trainer, action: Callable[[], None]) -> None:
    made.optimizer.register_step_pre_hook(lambda *_: action())


def gradient_norm(made: Trainer) -> float:
    squares = [float((p.grad**2).sum()) for p in made.parameters if p.grad is not None]
    return math.sqrt(sum(squares))


# A plain loop


class PlainLoop:
    """The same training in a few lines: no batches, no packing, one example at a time."""

    def __init__(self, model: Any, num_steps: int, **settings: Any) -> None:
        self.model = model
        self.num_steps = num_steps
        self.settings = train_settings(**settings)
        self.parameters = [p for _, p in trainable_parameters(model)]
        self.optimizer = torch.optim.AdamW(self.parameters, weight_decay=self.settings.weight_decay)
        self.losses: list[float] = []
        self.norms: list[float] = []

    def step(self, members: list[int]) -> None:
        rows = [ROWS[index] for index in members]
        num_supervised = sum(row.num_supervised for row in rows)
        loss: Tensor = torch.zeros((), dtype=torch.float64)
        for row in rows:
            logits = self.model(input_ids=torch.tensor([row.ids])).logits[0, :-1]
            labels = torch.tensor(row.labels)[1:]
            sum_nats = cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
            loss = loss + sum_nats / num_supervised
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        limit = self.settings.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(len(self.losses), self.num_steps, self.settings)
        self.optimizer.step()
        self.losses.append(loss.item())
        self.norms.append(float(norm))


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("architecture", ["gpt2", "gemma"])
def test_a_training_equals_a_plain_loop(architecture: str, packing: bool) -> None:
    """8 rows by 3 in two epochs: the last group, of 2 rows, is divided by its own tokens."""
    settings = {"learning_rate": 1e-2, "max_grad_norm": 0.5, "warmup_steps": 2}
    plain = PlainLoop(adapted_model(architecture, torch.float64), 6, **settings)
    for epoch in (0, 1):
        order = epoch_order(8, seed=1, epoch=epoch)
        for members in (order[:3], order[3:6], order[6:]):
            plain.step(members)

    made, recorder = trained(
        model=adapted_model(architecture, torch.float64),
        val=[],
        log_every=1,
        packing=packing,
        micro_batch_size=2,
        **settings,
    )
    assert recorder.losses == pytest.approx(plain.losses, rel=1e-10)
    assert [line.grad_norm for line in recorder.logs] == pytest.approx(plain.norms, rel=1e-8)
    assert min(plain.norms) > 0.5  # each step was clipped
    for a, b in zip(made.parameters, plain.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


# Rate, weight decay and norm


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant"])
def test_rate_that_each_step_is_made_with(scheduler: str) -> None:
    recorder = Recorder()
    made = trainer(val=[], progress=recorder, scheduler=scheduler, warmup_steps=2)
    used: list[float] = []
    before_each_step(made, lambda: used.append(made.optimizer.param_groups[0]["lr"]))
    made.train()
    settings = train_settings(scheduler=scheduler, warmup_steps=2)
    assert used == [learning_rate(step, 6, settings) for step in range(6)]
    assert recorder.rates == used
    assert used[:2] == [5e-4, 1e-3]


def test_optimizer_holds_the_adapters_and_its_settings() -> None:
    made = trainer(weight_decay=0.25)
    (group,) = made.optimizer.param_groups
    assert group["weight_decay"] == 0.25
    names = [name for name, p in made.model.named_parameters() if p.requires_grad]
    assert len(group["params"]) == len(names) == 28
    assert all("lora_" in name for name in names)


def test_a_long_gradient_is_scaled_down_and_its_own_norm_logged() -> None:
    recorder = Recorder()
    made = trainer(val=[], progress=recorder, max_grad_norm=0.01, log_every=1)
    used: list[float] = []
    before_each_step(made, lambda: used.append(gradient_norm(made)))
    made.train()
    assert used == pytest.approx([0.01] * 6, rel=1e-3)
    assert all(line.grad_norm > 0.1 for line in recorder.logs)


def test_a_short_gradient_and_one_without_a_limit_stay_as_they_are() -> None:
    for limit in (None, 1000.0):
        recorder = Recorder()
        made = trainer(val=[], progress=recorder, max_grad_norm=limit, log_every=1)
        used: list[float] = []
        before_each_step(made, lambda made=made, used=used: used.append(gradient_norm(made)))  # type: ignore[misc]
        made.train()
        assert used == pytest.approx([line.grad_norm for line in recorder.logs], rel=1e-5)


def test_gradients_do_not_reach_the_next_step() -> None:
    made = trainer(val=[])
    made.train()
    assert all(parameter.grad is None for parameter in made.model.parameters())


def test_the_base_does_not_change() -> None:
    model = adapted_model("llama")
    before = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    trained(model=model, learning_rate=0.1)
    for name, parameter in model.named_parameters():
        if name in before:
            assert torch.equal(parameter, before[name]), name


def test_dropout_on_a_cpu_is_the_cheap_one() -> None:
    made = trainer(adapted_model("llama", dropout=0.3))
    assert made.device == "cpu"
    names = [name for name, m in made.model.named_modules() if isinstance(m, CheapDropout)]
    assert len(names) == 14


def test_the_adapters_own_dropout_acts_in_training() -> None:
    plain, _ = trained(model=adapted_model("llama"), val=[])
    torch.manual_seed(0)
    dropped, _ = trained(model=adapted_model("llama", dropout=0.3), val=[])
    torch.manual_seed(0)
    again, _ = trained(model=adapted_model("llama", dropout=0.3), val=[])
    losses = [made.state.history[0].totals.loss_nats for made in (plain, dropped, again)]
    assert losses[0] != losses[1]
    assert losses[1] == losses[2]


# Number types


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma"])
def test_a_bfloat16_base_learns_as_a_float32_one_does(architecture: str) -> None:
    losses: dict[torch.dtype, list[float]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = attach_lora(tiny_model(architecture, dtype), LoraConfig(dropout=0.0), 0)
        made, recorder = trained(
            model=model, val=ROWS, epochs=10, global_batch_size=8, learning_rate=2e-2, packing=True
        )
        assert {p.dtype for p in made.parameters} == {torch.float32}
        assert not made.scaler.is_enabled()
        losses[dtype] = [evaluation.val_loss for evaluation, _ in recorder.evaluations]
    exact = losses[torch.float32]
    assert losses[torch.bfloat16] == pytest.approx(exact, rel=0.1)
    assert losses[torch.bfloat16][0] == pytest.approx(exact[0], rel=0.02)
    assert exact[-1] < 0.9 * exact[0]


def test_a_float16_base_learns_with_scaled_losses() -> None:
    results = {}
    for dtype in (torch.float32, torch.float16):
        model = attach_lora(tiny_model("llama", dtype), LoraConfig(dropout=0.0), 0)
        recorder = Recorder()
        made = trainer(
            model,
            val=[],
            progress=recorder,
            epochs=10,
            global_batch_size=8,
            learning_rate=2e-2,
            log_every=1,
        )
        assert made.scaler.is_enabled() == (dtype == torch.float16)
        # 65,536 at the start would overflow in the first steps; see the test below.
        if made.scaler.is_enabled():
            made.scaler.load_state_dict({**made.scaler.state_dict(), "scale": 128.0})
        made.train()
        assert {p.dtype for p in made.parameters} == {torch.float32}
        results[dtype] = (recorder.losses, [line.grad_norm for line in recorder.logs])
    losses, norms = results[torch.float16]
    assert losses == pytest.approx(results[torch.float32][0], rel=0.05)
    assert norms == pytest.approx(results[torch.float32][1], rel=0.3)


def test_a_step_that_overflows_is_left_out_and_the_scale_halved() -> None:
    recorder = Recorder()
    model = attach_lora(tiny_model("llama", torch.float16), LoraConfig(dropout=0.0), 0)
    made = trainer(model, val=[], progress=recorder, log_every=1, epochs=1)
    made.scaler.load_state_dict({**made.scaler.state_dict(), "scale": 2.0**40})
    before = [parameter.detach().clone() for parameter in made.parameters]
    made.train()
    assert made.state.step == 3
    assert made.scaler.get_scale() == 2.0**37
    for parameter, value in zip(made.parameters, before, strict=True):
        assert torch.equal(parameter, value)
    assert [line.grad_norm for line in recorder.logs] == [0.0, 0.0, 0.0]
    assert all(math.isfinite(loss) for loss in recorder.losses)


# What stops it


def test_an_adapter_that_cannot_learn_stops_the_first_step() -> None:
    model = attach_lora(tiny_model("llama"), LoraConfig(dropout=0.0), 0)
    model.base_model.model.model.layers[1].self_attn.q_proj.scaling["default"] = 0.0
    made = trainer(model)
    with pytest.raises(CheckFailed) as caught:
        made.train()
    assert str(caught.value) == (
        "after the first step 1 of 14 adapters have no gradient and would never learn, the first "
        "is base_model.model.model.layers.1.self_attn.q_proj.lora_B.default.weight; please report "
        "this with your configuration"
    )
    assert made.state.step == 0


def poison_adapter(model: Any) -> None:
    model.base_model.model.model.layers[0].mlp.up_proj.lora_A["default"].weight.data[0, 0] = (
        math.nan
    )


def poison_base(model: Any) -> None:
    model.base_model.model.model.norm.weight.data[3] = math.inf


@pytest.mark.parametrize("poison", [poison_adapter, poison_base])
def test_a_loss_that_is_not_finite_names_step_and_rows(poison: Any, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    made = trainer(run=run, val=[], save_every=2)

    def at_the_third_step(*_: Any) -> None:
        if made.state.step == 2:
            poison(made.model)

    made.optimizer.register_step_post_hook(at_the_third_step)
    with pytest.raises(TrainingDiverged) as caught:
        made.train()
    # Poisoned at the end of step 3, the first of the next epoch meets it.
    rows = ", ".join(ROWS[index].example_id for index in epoch_order(8, seed=1, epoch=1)[:3])
    message = str(caught.value)
    assert message.startswith("the loss of step 4 is not a finite number (nan), in rows ")
    assert f"in rows {rows}; the checkpoint {run.step_checkpoint(2)} stands; look at" in message
    assert message.endswith("look at these rows, or lower train.learning_rate")
    assert made.state.step == 3
    assert newest_valid_checkpoint(run) == (run.step_checkpoint(2), [])
    assert not run.final.exists()


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    made = trainer(run=RunFolder(tmp_path / "run"), val=[])
    before = [parameter.detach().clone() for parameter in made.parameters]
    before_each_step(made, lambda: pytest.fail("a step was made"))

    def spoil(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.fill_(math.inf)

    made.parameters[0].register_post_accumulate_grad_hook(spoil)  # type: ignore[no-untyped-call]
    with pytest.raises(TrainingDiverged) as caught:
        made.train()
    rows = ", ".join(ROWS[index].example_id for index in epoch_order(8, seed=1, epoch=0)[:3])
    assert str(caught.value) in {
        f"the gradient of step 1 is not a finite number ({value}), in rows {rows}; "
        "look at these rows, or lower train.learning_rate"
        for value in ("inf", "nan")
    }
    for parameter, value in zip(made.parameters, before, strict=True):
        assert torch.equal(parameter, value)


def test_a_validation_loss_that_is_not_finite(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    made = trainer(run=run, val=VAL, save_every=1, eval_every=2)
    made.optimizer.register_step_post_hook(
        lambda *_: poison_adapter(made.model) if made.state.step == 1 else None
    )
    with pytest.raises(TrainingDiverged) as caught:
        made.train()
    assert str(caught.value) == (
        "the validation loss after step 2 is not a finite number (nan); "
        f"the checkpoint {run.step_checkpoint(1)} stands; lower train.learning_rate"
    )
    assert run.linked("last") == run.step_checkpoint(1)
