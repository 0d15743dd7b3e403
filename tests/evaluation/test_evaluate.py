"""Base and tuned on the same rows, once, with everything kept that says how it was made."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from honing.errors import UserError
from honing.evaluation import evaluate as module
from honing.evaluation.answers import answer_rows
from honing.evaluation.evaluate import Evaluated, evaluate
from honing.evaluation.files import read_evaluation
from honing.evaluation.general import PlainText, measure_general
from honing.evaluation.record import GeneralText
from honing.generation.generate import generate
from honing.generation.open_model import OpenModel
from honing.generation.questions import question_from_text
from honing.report.comparison import Comparison
from honing.report.write import compare_runs
from honing.run import RunFolder
from tests.runs import save_rows
from tests.tiny_run import TinyRun

QUICK = ("evaluate.num_resamples=1000", "evaluate.max_new_tokens=9", "evaluate.batch_size=3")


@pytest.fixture(scope="module")
def evaluated(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    copy = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(tiny_run.folder, copy, symlinks=True)
    return evaluate(str(copy), QUICK, say=lambda _: None)


@pytest.fixture
def run(evaluated: Evaluated, tmp_path: Path) -> RunFolder:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(evaluated.run.root, copy.root, symlinks=True)
    return copy


def test_both_models_on_the_same_rows(evaluated: Evaluated) -> None:
    base, tuned = evaluated.base, evaluated.tuned
    lines = evaluated.run.split_file("test").read_text(encoding="utf-8").splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    assert [row.id for row in base.predictions] == ids
    assert [row.id for row in tuned.predictions] == ids
    assert [row.reference for row in tuned.predictions] == [
        json.loads(line)["output"] for line in lines
    ]
    assert base.settings["generate"] == tuned.settings["generate"]
    assert "checkpoint" not in base.model
    best = evaluated.run.linked("best")
    assert best is not None
    assert tuned.model["checkpoint"] == best.name
    assert base.metrics["perplexity"].estimate.score > tuned.metrics["perplexity"].estimate.score


def test_the_answers_are_those_of_generate(evaluated: Evaluated) -> None:
    root = str(evaluated.run.root)
    for evaluation, base_only in ((evaluated.base, True), (evaluated.tuned, False)):
        questions = [question_from_text(row.prompt) for row in evaluation.predictions]
        answers = generate(root, questions, base_only=base_only).answers
        assert [row.prediction for row in evaluation.predictions] == [a.text for a in answers]
        assert [row.stopped for row in evaluation.predictions] == [a.stopped for a in answers]


def test_what_was_written_is_what_was_returned(evaluated: Evaluated) -> None:
    run = evaluated.run
    assert read_evaluation(run.evaluation_base) == evaluated.base
    assert read_evaluation(run.evaluation_tuned) == evaluated.tuned
    assert sorted(path.name for path in run.evaluation.iterdir()) == ["base.json", "tuned.json"]


def test_every_metric_that_the_command_promises(run: RunFolder) -> None:
    rows = [
        {
            "id": f"r:{n}",
            "instruction": f"{word} 무엇인가요?",
            "output": f"{word} 좋은 것입니다. 네.",
        }
        for n, word in enumerate(("사과는", "바다는", "구름은", "노래는"))
    ]
    save_rows(run.split_file("test"), rows)
    done = evaluate(str(run.root), QUICK, say=lambda _: None)
    promised = {
        "perplexity", "bits_per_character", "bleu", "chrf", "chrf++", "rouge1", "rouge2", "rougeL",
        "ended", "repetition", "looping", "empty", "echo", "length_ratio", "hangul",
        "other_scripts", "exact_match", "one_speech_level", "speech_level_match",
    }  # fmt: skip
    assert promised <= set(done.tuned.metrics)
    assert {"copy the input", "a random other reference", "nearest training row"} == set(
        done.tuned.floors
    )
    assert all(metric.signature for metric in done.tuned.metrics.values())
    assert "tok:ko-mecab" in done.tuned.metrics["bleu"].signature


def no_answers(*_: Any, **__: Any) -> None:
    raise AssertionError("computed again")


def test_what_is_there_is_kept(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "answer_rows", no_answers)
    said: list[str] = []
    again = evaluate(str(run.root), QUICK, say=said.append)
    assert sum("are kept" in line for line in said) == 2
    assert again.tuned.predictions == read_evaluation(run.evaluation_tuned).predictions
    other = evaluate(str(run.root), [*QUICK, "evaluate.num_resamples=1500"], say=lambda _: None)
    assert other.tuned.predictions == again.tuned.predictions, "intervals only sum again"


@pytest.mark.parametrize("kind", ["base", "tuned"])
def test_only_what_is_missing_is_computed(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, evaluated: Evaluated, kind: str
) -> None:
    (run.evaluation / f"{kind}.json").unlink()
    computed: list[str] = []

    def counting(*arguments: Any, **named: Any) -> Any:
        computed.append(named["label"])
        return answer_rows(*arguments, **named)

    monkeypatch.setattr(module, "answer_rows", counting)
    again = evaluate(str(run.root), QUICK, say=lambda _: None)
    assert computed == [kind]
    before = getattr(evaluated, kind)
    after = getattr(again, kind)
    for old, new in zip(before.predictions, after.predictions, strict=True):
        assert new.sum_nats == pytest.approx(old.sum_nats, rel=1e-6)
        assert replace(new, sum_nats=0.0) == replace(old, sum_nats=0.0)


@pytest.mark.parametrize("change", ["generate.repetition_penalty=1.3", "evaluate.max_new_tokens=4"])
def test_other_settings_are_computed_anew(run: RunFolder, change: str) -> None:
    before = read_evaluation(run.evaluation_tuned)
    after = evaluate(str(run.root), [*QUICK, change], say=lambda _: None).tuned
    assert after.settings["key"] != before.settings["key"]


def test_a_damaged_file_is_computed_anew(run: RunFolder) -> None:
    before = read_evaluation(run.evaluation_tuned)
    run.evaluation_tuned.write_text("{", encoding="utf-8")
    after = evaluate(str(run.root), QUICK, say=lambda _: None).tuned
    assert [row.prediction for row in after.predictions] == [
        row.prediction for row in before.predictions
    ]


def test_another_checkpoint_is_another_model(run: RunFolder) -> None:
    best = read_evaluation(run.evaluation_tuned)
    other = next(path for path in run.step_checkpoints() if path.name != best.model["checkpoint"])
    last = evaluate(str(run.root), QUICK, checkpoint=other.name, say=lambda _: None).tuned
    assert last.model["checkpoint"] == other.name
    assert last.model["adapter_sha256"] != best.model["adapter_sha256"]
    again = evaluate(str(other), QUICK, say=lambda _: None)
    assert again.run.root == run.root
    assert again.tuned.model == last.model


def test_answers_are_greedy_and_as_long_as_training_teaches(run: RunFolder) -> None:
    overrides = ["evaluate.num_resamples=1000", "evaluate.num_samples=2", "generate.temperature=1",
                 "generate.num_answers=3"]  # fmt: skip
    run.evaluation_base.unlink()
    done = evaluate(str(run.root), overrides, say=lambda _: None)
    report = json.loads(run.data_report.read_text(encoding="utf-8"))
    longest = report["splits"]["train"]["response_percentiles"]["p100"]
    answering = done.tuned.settings["generate"]
    assert answering["temperature"] == 0.0
    assert answering["max_new_tokens"] == 2 * longest
    assert len(done.tuned.predictions) == 2
    assert done.tuned.data["num_available"] == len(
        run.split_file("test").read_text(encoding="utf-8").splitlines()
    )


def test_a_text_outside_the_task_shows_what_was_forgotten(run: RunFolder, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("오늘 날씨가 좋네요. " * 30, encoding="utf-8")
    done = evaluate(str(run.root), [*QUICK, f"evaluate.general_text={text}"], say=lambda _: None)
    values = [e.figures["general_perplexity"].value for e in (done.base, done.tuned)]
    assert values[0] != values[1]
    assert min(values) > 1.0
    lines = {line.name: line.all_rows for line in compared(run).tables[0].lines}
    given = lines["general_perplexity"]
    assert [given.before.score, given.after.score] == values
    assert given.difference == values[1] - values[0]


def test_an_evaluation_with_other_settings_that_was_stopped_is_not_compared(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base is answered anew, and the tuned model as it was before."""
    other = [*QUICK, "evaluate.max_new_tokens=3"]
    monkeypatch.setattr(module, "KINDS", ("base",))
    with pytest.raises(KeyError, match="tuned"):
        evaluate(str(run.root), other, say=lambda _: None)
    with pytest.raises(UserError, match=r"were not evaluated in the same way \(generate\); run 'h"):
        compared(run)
    monkeypatch.undo()
    evaluate(str(run.root), other, say=lambda _: None)
    assert compared(run).tables[0].lines


def compared(run: RunFolder) -> Comparison:
    return compare_runs([str(run.root)], num_resamples=1000, seed=1)


def test_a_general_text_is_read_again_only_where_it_is_another(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("오늘 날씨가 좋네요. " * 30, encoding="utf-8")
    settings = [*QUICK, f"evaluate.general_text={text}"]
    first = evaluate(str(run.root), settings, say=lambda _: None)
    measured: list[str] = []
    measure = measure_general

    def watched(opened: OpenModel, text: PlainText) -> GeneralText:
        measured.append(text.text[:2])
        return measure(opened, text)

    monkeypatch.setattr(module, "measure_general", watched)
    again = evaluate(str(run.root), settings, say=lambda _: None)
    assert (again.base, again.tuned, measured) == (first.base, first.tuned, [])
    text.write_text("물은 섭씨 100도에서 끓습니다. " * 30, encoding="utf-8")
    other = evaluate(str(run.root), settings, say=lambda _: None)
    assert measured == ["물은"] * 2
    assert other.base.predictions == first.base.predictions
    assert other.base.figures["general_perplexity"] != first.base.figures["general_perplexity"]


def test_a_general_text_that_cannot_be_read_is_said_before_anything_is_computed(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "answer_rows", pytest.fail)
    settings = [*QUICK, "evaluate.num_samples=1", f"evaluate.general_text={tmp_path / 'x'}"]
    with pytest.raises(UserError, match=r"^evaluate.general_text: .*: No such file"):
        evaluate(str(run.root), settings, say=lambda _: None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.epochs=3"], "command line, train.epochs: is the run's own and stays"),
        (["evaluate.num_sample=3"], "num_samples"),
        (["evaluate.split=val", "evaluate.num_resamples=10"], "num_resamples"),
    ],
)
def test_settings_that_change_nothing_are_refused(
    tiny_run: TinyRun, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(str(tiny_run.folder), overrides, say=lambda _: None)


def test_what_is_no_run(tiny_run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run's folder"):
        evaluate(str(tiny_run.base), say=lambda _: None)
    with pytest.raises(UserError, match="is no run's folder"):
        evaluate(str(tmp_path / "nothing"), say=lambda _: None)
    lone = tmp_path / "a" / "b"
    shutil.copytree(tiny_run.folder / "checkpoints" / "final", lone)
    with pytest.raises(UserError, match="belongs to no run that honing trained"):
        evaluate(str(lone), say=lambda _: None)
