"""The loop: how many steps, when it validates and logs, what it keeps of an epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import Lfm2Config, Lfm2ForCausalLM

from honing.config import LoraConfig
from honing.data.encode import Tokens
from honing.data.pack import epoch_order
from honing.errors import UserError
from honing.model.lora import attach_lora
from honing.run import RunFolder
from honing.training.progress import LoggedEvaluation, LoggedSteps, Progress
from honing.training.trainer import Trainer
from tests.tiny import ARCHITECTURES, PAIRS, adapted_model, encoded, tiny_model, train_settings

ROWS = encoded(PAIRS)
VAL = encoded([("물은 몇 도에서 끓나요?", "서울입니다."), ("hi", "5"), ("2 + 3", "좋네요.")])


class Recorder(Progress):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__(None, 0, show=False)
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.logs: list[LoggedSteps] = []
        self.evaluations: list[tuple[LoggedEvaluation, str]] = []

    def stepped(self, loss: float, rate: float) -> None:
        self.losses.append(loss)
        self.rates.append(rate)

    def logged(self, steps: LoggedSteps) -> None:
        self.logs.append(steps)

    def evaluated(self, evaluation: LoggedEvaluation, note: str) -> None:
        self.evaluations.append((evaluation, note))

    @property
    def evaluated_steps(self) -> list[int]:
        return [evaluation.step for evaluation, _ in self.evaluations]


def trainer(
    model: Any = None,
    rows: list[Tokens] = ROWS,
    val: list[Tokens] = VAL,
    *,
    run: RunFolder | None = None,
    progress: Progress | None = None,
    sample: Any = None,
    **settings: Any,
) -> Trainer:
    model = model or adapted_model("llama")
    resolved = train_settings(**{"epochs": 2, "global_batch_size": 3, **settings})
    return Trainer(model, rows, val, resolved, seed=1, run=run, progress=progress, sample=sample)


def trained(**options: Any) -> tuple[Trainer, Recorder]:
    recorder = Recorder()
    made = trainer(progress=recorder, **options)
    made.train()
    return made, recorder


# Steps


@pytest.mark.parametrize(
    ("settings", "num_steps"),
    [
        ({}, 6),  # 8 rows by 3: the last, short group of an epoch is a step
        ({"global_batch_size": 8}, 2),
        ({"global_batch_size": 100}, 2),
        ({"epochs": 1, "global_batch_size": 1}, 8),
        ({"max_steps": 4}, 4),
        ({"max_steps": 100}, 6),
    ],
)
def test_number_of_steps(settings: dict[str, Any], num_steps: int) -> None:
    made, recorder = trained(val=[], **settings)
    assert made.num_steps == made.state.step == len(recorder.losses) == num_steps


def test_every_row_is_learnt_from_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(val=[])
    seen: list[list[str]] = []
    plan = made.batches

    def watch(rows: Any, lengths: Any, members: Any) -> Any:
        seen.append([ROWS[index].example_id for index in members])
        return plan(rows, lengths, members)

    monkeypatch.setattr(made, "batches", watch)
    made.train()
    ids = [row.example_id for row in ROWS]
    for epoch in (0, 1):
        of_epoch = seen[3 * epoch : 3 * epoch + 3]
        assert [len(group) for group in of_epoch] == [3, 3, 2]
        order = epoch_order(8, seed=1, epoch=epoch)
        assert [name for group in of_epoch for name in group] == [ids[index] for index in order]
    assert seen[:3] != seen[3:]


def test_what_is_kept_of_an_epoch() -> None:
    made, recorder = trained(epochs=2, micro_batch_size=2)
    assert [record.epoch for record in made.state.history] == [0, 1]
    for number, record in enumerate(made.state.history):
        totals = record.totals
        assert totals.num_steps == 3
        assert totals.num_micro_batches == 2 + 2 + 1
        assert totals.num_tokens == sum(len(row.ids) for row in ROWS)
        assert totals.num_supervised == sum(row.num_supervised for row in ROWS)
        assert record.val_loss == recorder.evaluations[number + 1][0].val_loss
    assert made.state.epoch == 2
    assert made.state.step_in_epoch == 0
    assert made.state.epoch_totals.num_steps == 0


def test_an_epoch_that_max_steps_cuts_short_is_kept_too() -> None:
    made, _ = trained(max_steps=4)
    assert [record.totals.num_steps for record in made.state.history] == [3, 1]
    assert made.state.history[1].val_loss == made.state.val_loss


def test_packed_rows_hold_as_many_tokens_as_were_set() -> None:
    assert sum(len(row.ids) for row in ROWS) == 422
    twice = [*ROWS, *ROWS]
    for row_tokens, num_rows in ((512, 2), (1024, 1)):
        made = trainer(
            rows=twice,
            val=[],
            packing=True,
            packed_row_tokens=row_tokens,
            global_batch_size=16,
            micro_batch_size=16,
            epochs=1,
        )
        assert made.row_tokens == row_tokens
        made.train()
        assert made.state.history[0].totals.num_micro_batches == num_rows


def test_a_filled_row_teaches_what_it_teaches_without() -> None:
    """Without dropout, whose draws depend on a row's length."""
    gradients = []
    for fast_forms in (True, False):
        model = adapted_model("llama", torch.float64)
        made = trainer(model, packing=True, micro_batch_size=8, fast_forms=fast_forms)
        made.model.train()
        batches = made.batches(ROWS, made.lengths, range(8))
        made.add_gradients(batches, 1)
        gradients.append(
            torch.cat([p.grad.flatten() for p in made.parameters if p.grad is not None])
        )
    filled, bare = gradients
    assert float((filled - bare).norm() / bare.norm()) < 1e-10
    assert float(bare.norm()) > 1.0


@pytest.mark.parametrize("again", [True, False])
def test_memory_is_given_back_before_each_micro_batch_that_is_computed_again(
    again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    made = trainer(packing=False, micro_batch_size=1, gradient_checkpointing=again)
    own = made._loss

    def loss(batch: Any) -> Any:
        events.append("loss")
        return own(batch)

    monkeypatch.setattr(made, "_loss", loss)
    monkeypatch.setattr(
        "honing.training.trainer.give_back_memory", lambda: events.append("given back")
    )
    made.add_gradients(made.batches(ROWS, made.lengths, range(3)), 1)
    assert events == (["given back", "loss"] if again else ["loss"]) * 3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_architecture_learns(architecture: str) -> None:
    model = attach_lora(tiny_model(architecture), LoraConfig(dropout=0.0), 0)
    made, recorder = trained(
        model=model,
        val=ROWS,
        packing=True,
        epochs=20,
        global_batch_size=8,
        learning_rate=2e-2,
        eval_every="never",
    )
    base = made.state.base_loss
    assert base is not None
    assert recorder.evaluated_steps == [0, 20]
    assert recorder.evaluations[1][0].val_loss < base * 2 / 3


# Validation


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"eval_every": "epoch"}, [0, 3, 6]),
        ({"eval_every": 2}, [0, 2, 4, 6]),
        ({"eval_every": 4}, [0, 4, 6]),  # the last step always
        ({"eval_every": "never"}, [0, 6]),
        ({"eval_every": "epoch", "max_steps": 4}, [0, 3, 4]),
    ],
)
def test_when_it_validates(settings: dict[str, Any], steps: list[int]) -> None:
    made, recorder = trained(**settings)
    assert recorder.evaluated_steps == steps
    assert [evaluation.epoch for evaluation, _ in recorder.evaluations] == [s / 3 for s in steps]
    assert made.state.val_step == steps[-1]


def test_without_validation_rows_nothing_is_measured() -> None:
    made, recorder = trained(val=[])
    assert recorder.evaluations == []
    assert (made.state.base_loss, made.state.val_loss, made.state.best_loss) == (None, None, None)


def reference_loss(model: Any, rows: list[Tokens]) -> float:
    """Mean loss a supervised token, by transformers' own forward, one row at a time."""
    total, num_tokens = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.tensor([row.ids])).logits[0, :-1]
        labels = torch.tensor(row.labels)[1:]
        total += cross_entropy(logits, labels, ignore_index=-100, reduction="sum").item()
        num_tokens += row.num_supervised
    return total / num_tokens


def test_the_bases_own_loss_is_measured_before_the_first_step() -> None:
    expected = reference_loss(tiny_model("llama", torch.float64), VAL)
    model = attach_lora(tiny_model("llama", torch.float64), LoraConfig(), 0)
    made, recorder = trained(model=model, epochs=1)
    assert made.state.base_loss == pytest.approx(expected, rel=1e-12)
    first, note = recorder.evaluations[0]
    assert (first.step, first.epoch, first.val_loss) == (0, 0.0, made.state.base_loss)
    assert note == " (the base model)"
    assert recorder.evaluations[1][1] == ""


@pytest.mark.parametrize("architecture", ["gpt2", "gemma"])
def test_the_validation_loss_is_the_same_for_any_batch_size(architecture: str) -> None:
    model = adapted_model(architecture, torch.float64, dropout=0.2)
    expected = reference_loss(model, ROWS)
    for packing in (False, True):
        for micro_batch_size in (1, 2, 8):
            made = trainer(model, val=ROWS, packing=packing, micro_batch_size=micro_batch_size)
            total, num_tokens = made.evaluate()
            assert num_tokens == sum(row.num_supervised for row in ROWS)
            assert total / num_tokens == pytest.approx(expected, rel=1e-12)


def test_validation_draws_no_random_number() -> None:
    made = trainer(adapted_model("llama", dropout=0.5))
    state = torch.get_rng_state()
    first = made.evaluate()
    assert made.evaluate() == first
    assert torch.equal(torch.get_rng_state(), state)


def test_the_first_so_many_validation_rows() -> None:
    made = trainer(adapted_model("llama", torch.float64), max_val_rows=2)
    total, num_tokens = made.evaluate()
    assert num_tokens == sum(row.num_supervised for row in VAL[:2])
    assert total / num_tokens == pytest.approx(reference_loss(made.model, VAL[:2]), rel=1e-12)


def test_sample_answers_go_with_each_validation() -> None:
    answers = iter([(("q", "base"),), (("q", "later"),), (("q", "last"),)])
    _, recorder = trained(sample=lambda: next(answers))
    assert [evaluation.samples for evaluation, _ in recorder.evaluations] == [
        (("q", "base"),),
        (("q", "later"),),
        (("q", "last"),),
    ]


# Logs


@pytest.mark.parametrize(
    ("log_every", "steps"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (4, [4, 6]), (10, [6])]
)
def test_when_it_logs(log_every: int, steps: list[int]) -> None:
    made, recorder = trained(log_every=log_every, val=[])
    assert [line.step for line in recorder.logs] == steps
    assert [line.epoch for line in recorder.logs] == [step / 3 for step in steps]
    assert [line.learning_rate for line in recorder.logs] == [
        recorder.rates[step - 1] for step in steps
    ]
    assert made.state.unlogged.num_steps == 0


def test_a_line_is_the_mean_over_its_tokens() -> None:
    every, each = trained(log_every=1, val=[])
    _, pairs = trained(log_every=2, val=[])
    num_supervised = []
    for epoch in (0, 1):
        order = epoch_order(8, seed=1, epoch=epoch)
        for group in (order[:3], order[3:6], order[6:]):
            num_supervised.append(sum(ROWS[index].num_supervised for index in group))
    assert every.num_steps == len(num_supervised) == 6
    for line, first in zip(pairs.logs, (0, 2, 4), strict=True):
        n, m = num_supervised[first : first + 2]
        a, b = each.logs[first : first + 2]
        mean = (a.train_loss * n + b.train_loss * m) / (n + m)
        assert line.train_loss == pytest.approx(mean, rel=1e-6)
        assert line.grad_norm == pytest.approx((a.grad_norm + b.grad_norm) / 2, rel=1e-6)


def test_lines_of_the_metrics_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    made = trainer(run=run, progress=Progress(run, 6, show=False), log_every=3)
    made.train()
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("validation", 0),
        ("train", 3),
        ("validation", 3),
        ("train", 6),
        ("validation", 6),
    ]
    assert list(lines[1]) == [
        "kind",
        "step",
        "epoch",
        "train_loss",
        "learning_rate",
        "grad_norm",
        "tokens_per_s",
        "memory_bytes",
    ]
    assert list(lines[0]) == ["kind", "step", "epoch", "val_loss", "val_perplexity", "samples"]


# What it refuses


def test_packing_where_examples_would_see_each_other() -> None:
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        initializer_range=0.2,
    )
    names = ["q_proj", "v_proj"]
    model = attach_lora(Lfm2ForCausalLM(config), LoraConfig(target_modules=names), 0)
    with pytest.raises(UserError) as caught:
        trainer(model, packing=True)
    assert str(caught.value) == (
        "train.packing: examples in one row would see each other in this kind of model (lfm2); "
        "use train.packing=false"
    )
    made = trainer(model, packing=False, max_steps=1)
    made.train()
    assert made.state.step == 1
