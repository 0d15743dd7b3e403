"""A run's folder: all that its evaluation, its training and its data left there."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from honing.config_file import dump_config, load_config
from honing.errors import UserError
from honing.evaluation.files import write_evaluation
from honing.evaluation.record import Evaluation
from honing.report.compare import compare_evaluations
from honing.report.runs import join_rows, load_run, row_keys, same_rows
from honing.run import RunFolder
from honing.training.progress import LoggedEvaluation, LoggedSteps
from tests.report.made_up import made_up_runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What training and evaluation write, without either."""
    run = RunFolder(tmp_path / "my run")
    (made,) = made_up_runs(1, 20, leaked=True)
    data = {**made.tuned.data, "notes": ["the validation rows chose the checkpoint"]}
    write_evaluation(run.evaluation_base, made.base)
    write_evaluation(run.evaluation_tuned, replace(made.tuned, data=data))
    run.config.write_text(dump_config(load_config(None, ["seed=7"])), encoding="utf-8")
    run.data_report.write_text('{"source": "rows.jsonl"}', encoding="utf-8")
    run.report_json.write_text('{"num_steps": 4}', encoding="utf-8")
    lines = [
        {"kind": "validation", **asdict(LoggedEvaluation(0, 0.0, 3.5, 33.1))},
        *({"kind": "train", **asdict(LoggedSteps(s, 0.5, 3.0 - s, 1e-3, 1, 9, 9))} for s in (1, 2)),
        {"kind": "validation", **asdict(LoggedEvaluation(2, 1.0, 2.5, 12.2))},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run.metrics.write_text(text, encoding="utf-8")
    return run.root


def test_everything_of_a_run_is_read(folder: Path) -> None:
    (made,) = made_up_runs(1, 20, leaked=True)
    run = load_run(folder)
    assert (run.base, run.tuned.predictions) == (made.base, made.tuned.predictions)
    info = run.info
    assert (info.name, info.folder) == ("my run", str(folder))
    assert (info.checkpoint, info.base, info.split) == ("step-000100", "made/up-base", "test")
    assert (info.num_rows, info.num_groups, info.num_leaked) == (20, 16, 2)
    assert info.settings == made.tuned.settings
    assert info.curves == {
        "train loss": ((1.0, 2.0), (2.0, 1.0)),
        "validation loss": ((0.0, 3.5), (2.0, 2.5)),
        "learning rate": ((1.0, 1e-3), (2.0, 1e-3)),
    }
    assert info.figures_base == info.figures_tuned == {"distinct_2": 61.5}
    assert info.figure_signatures == {"distinct_2": "different bigrams / bigrams"}
    assert info.data_report == {"source": "rows.jsonl"}
    assert info.training == {"num_steps": 4}
    assert info.config["seed"] == 7
    assert info.config["lora"]["rank"] == load_config(None).lora.rank
    assert info.warnings == (
        "the validation rows chose the checkpoint",
        "characters instead of morphemes: honing[ko] is not installed",
    )
    assert compare_evaluations([run], num_resamples=1000).tables[0].run == info


def test_a_run_with_nothing_but_its_evaluation(folder: Path) -> None:
    for name in ("config.yaml", "data_report.json", "training_report.json", "metrics.jsonl"):
        (folder / name).unlink()
    info = load_run(folder).info
    assert (info.config, info.data_report, info.training, info.curves) == ({}, {}, {}, {})


def test_what_is_damaged_beside_the_evaluation_costs_only_itself(folder: Path) -> None:
    run = RunFolder(folder)
    run.data_report.write_text("{", encoding="utf-8")
    run.report_json.write_text("[1]", encoding="utf-8")
    lines = ['{"kind": "train", "step": 1, "train_loss": 2.0, "learning_rate": 1e-3}', "null"]
    lines += ['{"kind": "train", "step": 2, "train_loss": NaN, "learning_rate": 1e-4}', '{"kind"']
    lines += ['{"kind": "else", "step": 3}', '{"kind": "validation", "step": "x", "val_loss": 1}']
    # Of these the axes of a curve could not be made.
    for step, rate in (("1e400", "1e-4"), ("NaN", "1e-4"), ("9" * 400, "1e-4"), ("3", "1e300")):
        lines.append(
            f'{{"kind": "train", "step": {step}, "train_loss": {rate}, "learning_rate": {rate}}}'
        )
    run.metrics.write_bytes("\n".join(lines).encode() + b"\xff")
    info = load_run(folder).info
    assert (info.data_report, info.training) == ({}, {})
    assert info.curves == {
        "train loss": ((1.0, 2.0),),
        "learning rate": ((1.0, 1e-3), (2.0, 1e-4)),
    }


def test_half_characters_in_a_report_cost_only_the_report(folder: Path) -> None:
    """They stand in no file, so what was written of them ended in a traceback."""
    run = RunFolder(folder)
    run.report_json.write_text('{"checkpoint": "\\ud800"}', encoding="utf-8")
    assert load_run(folder).info.training == {}


@pytest.mark.parametrize("missing", ["base.json", "tuned.json", ""])
def test_a_run_that_is_not_evaluated_names_the_command(folder: Path, missing: str) -> None:
    path = folder / "evaluation" / missing
    path.unlink() if missing else shutil.rmtree(path)
    with pytest.raises(UserError) as caught:
        load_run(folder)
    assert str(caught.value) == (
        f"{folder}: is not evaluated yet; run 'honing evaluate '{folder}''"
    )


def test_no_folder_and_a_damaged_evaluation(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no-such: is no folder of a run; name one that"):
        load_run(tmp_path / "no-such")
    (folder / "evaluation" / "base.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"base\.json: is no evaluation that honing wrote"):
        load_run(folder)


def test_a_damaged_configuration_is_said(folder: Path) -> None:
    (folder / "config.yaml").write_text("lora: {rank: none at all}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.yaml, line 1: lora\.rank should be"):
        load_run(folder)


# --- which rows


def with_ids(evaluation: Evaluation, ids: str) -> Evaluation:
    rows = [replace(row, id=i) for row, i in zip(evaluation.predictions, ids, strict=False)]
    return replace(evaluation, predictions=tuple(rows))


def test_rows_are_joined_by_id_in_the_order_of_the_first() -> None:
    (run,) = made_up_runs(1, 5)
    same = replace(run.tuned, predictions=(run.tuned.predictions[0],) * 5)
    found = join_rows(with_ids(same, "abcd"), with_ids(same, "dxb"))
    assert found is not None
    assert [places.tolist() for places in found] == [[1, 3], [2, 0]]
    nothing = join_rows(with_ids(same, "ab"), with_ids(same, "cd"))
    assert nothing is not None
    assert [places.tolist() for places in nothing] == [[], []]
    assert nothing[0].dtype == np.int64


def test_ids_that_repeat_are_counted() -> None:
    (run,) = made_up_runs(1, 5)
    same = replace(run.tuned, predictions=(run.tuned.predictions[0],) * 5)
    assert row_keys(with_ids(same, "aba").predictions) == [("a", 0), ("b", 0), ("a", 1)]
    found = join_rows(with_ids(same, "aba"), with_ids(same, "aa"))
    assert found is not None
    assert [places.tolist() for places in found] == [[0, 2], [0, 1]]


def test_a_shared_id_with_another_reference_joins_nothing() -> None:
    (run,) = made_up_runs(1, 5)
    assert join_rows(with_ids(run.tuned, "abcde"), with_ids(run.tuned, "bcdea")) is None


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"generate": {"max_new_tokens": 9}}, "generate"),
        ({"seed": 1, "device": "cuda"}, "seed, device"),
    ],
)
def test_models_that_were_asked_in_other_ways_are_not_compared(
    changed: dict[str, object], named: str
) -> None:
    """As an evaluation leaves them that was stopped after the base."""
    (run,) = made_up_runs(1, 5)
    other = replace(run.base, settings={**run.base.settings, **changed, "key": "other"})
    with pytest.raises(UserError) as caught:
        same_rows(replace(run, base=other))
    assert str(caught.value) == (
        f"{run.info.folder}: base and tuned were not evaluated in the same way ({named}); run "
        f"'honing evaluate {run.info.folder}' again"
    )
    same_rows(replace(run, base=replace(run.base, settings={**run.base.settings, "key": "other"})))


def test_a_tuned_model_of_another_base_is_not_compared() -> None:
    (run,) = made_up_runs(1, 5)
    base = replace(run.base, model={**run.base.model, "base_fingerprint": "a"})
    tuned = replace(run.tuned, model={**run.tuned.model, "base_fingerprint": "b"})
    same_rows(replace(run, base=base, tuned=replace(tuned, model=base.model)))
    with pytest.raises(UserError, match=r"in the same way \(base\)"):
        same_rows(replace(run, base=base, tuned=tuned))
