"""A merged model is the one that was measured, or there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from honing.config_file import load_config
from honing.errors import CheckFailed, HoningError, UserError
from honing.generation.answer import encode_for_answering, stops
from honing.generation.decode import decode_batch
from honing.generation.generate import generate
from honing.generation.open_model import answering_config, open_model
from honing.generation.questions import question_from_text
from honing.merging.merge import merge
from honing.merging.verify import verify_merged
from honing.run import RunFolder
from honing.training.train import train
from tests.runs import qa_rows, save_rows, small_overrides
from tests.tiny import ARCHITECTURES, save_tiny_base
from tests.tiny_run import TinyRun

PROMPTS = ("대한민국의 수도는 어디인가요?", "hi there", "물은 몇 도에서 끓나요?")


def quiet(_: str) -> None:
    pass


def trained(folder: Path, architecture: str, *overrides: str) -> RunFolder:
    """A short training on a tiny base of this shape."""
    return trained_on(save_tiny_base(folder / "base", architecture), *overrides)


def trained_on(base: Path, *overrides: str) -> RunFolder:
    """A short training, beside its base."""
    folder = base.parent
    rows = save_rows(folder / "rows.jsonl", qa_rows())
    settings = small_overrides(base, rows, folder / "run", "train.max_steps=3", *overrides)
    train(load_config(None, settings), say=quiet)
    return RunFolder(folder / "run")


def answers(name: str) -> list[str]:
    found = generate(name, [question_from_text(prompt) for prompt in PROMPTS])
    return [answer.text for answer in found.answers]


def logits_apart(run: RunFolder, merged: Path) -> float:
    """Largest difference between plain transformers on the folder, and base and adapter here."""
    opened = open_model(str(run.root), load_config(None, ["device=cpu"]), fold=False)
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    ids = torch.arange(3, 60)[None, :]
    with torch.no_grad():
        difference = plain(input_ids=ids).logits - opened.model(input_ids=ids).logits
    return float(difference.abs().max())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_shape_merges_within_rounding(architecture: str, tmp_path: Path) -> None:
    run = trained(tmp_path, architecture)
    done = merge(str(run.root), say=quiet)
    assert done.folder == run.root / "merged"
    assert not list(done.folder.glob("adapter_*"))
    report = json.loads((done.folder / "merge_report.json").read_text(encoding="utf-8"))
    assert report["difference"]["max_abs_logit"] < 1e-5
    assert report["dtype"] == report["base_dtype"] == "float32"
    assert logits_apart(run, done.folder) < 1e-5
    assert answers(str(done.folder)) == answers(str(run.root))


@pytest.mark.parametrize(
    "setting", ["lora.use_rslora=true", "lora.use_dora=true", "lora.init=pissa"]
)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_every_kind_of_adapter_merges_within_rounding(
    architecture: str, setting: str, tmp_path: Path
) -> None:
    run = trained(tmp_path, architecture, setting)
    done = merge(str(run.root), say=quiet)
    assert logits_apart(run, done.folder) < 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_is_stored_as_asked_and_rounded_once(
    tiny_run: TinyRun, dtype: str, tmp_path: Path
) -> None:
    whole = merge(str(tiny_run.folder), str(tmp_path / "whole"), say=quiet)
    half = merge(str(tiny_run.folder), str(tmp_path / "half"), dtype=dtype, say=quiet)
    kind = getattr(torch, dtype)
    a, b = (load_file(done.folder / "model.safetensors") for done in (whole, half))
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert b[name].dtype == kind
        assert torch.equal(tensor.to(kind), b[name]), name
    loaded = AutoModelForCausalLM.from_pretrained(half.folder, dtype="auto")
    assert loaded.dtype == kind


def test_plain_transformers_asks_and_stops_as_honing_does(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    """Where a tokenizer joins no words across the template's edge, the ids are honing's own."""
    done = merge(str(tiny_run.folder), str(tmp_path / "merged"), say=quiet)
    tokenizer: Any = AutoTokenizer.from_pretrained(done.folder)
    model: Any = AutoModelForCausalLM.from_pretrained(done.folder)
    config = answering_config(str(tiny_run.folder))
    assert answering_config(str(done.folder)).generate == config.generate
    opened = open_model(str(tiny_run.folder), config)
    num_same = 0
    for prompt in PROMPTS:
        chat = [{"role": "user", "content": prompt}]
        question = question_from_text(prompt)
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        asked_for = opened.text.to_prompt(question.example, "response").asked
        assert text == "".join(segment.text for segment in asked_for)
        ids = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        (asked,) = encode_for_answering(opened, [question.example], config.generate)
        if ids["input_ids"][0].tolist() == list(asked.ids):
            made = model.generate(**ids, max_new_tokens=9, do_sample=False)
            ours = decode_batch(
                opened.model, [asked.ids], config.generate, stops(opened, config.generate), [0]
            )[0]
            assert made[0, len(asked.ids) :].tolist() == list(ours.ids)
            num_same += 1
    assert num_same >= 1


# --- what must fail, and leave nothing


def damaged(tiny_run: TinyRun, folder: Path, change: Any) -> RunFolder:
    """A copy of the run whose adapter was changed, its manifest with it."""
    run = RunFolder(folder / "run")
    shutil.copytree(tiny_run.folder, run.root, symlinks=True)
    checkpoint = run.checkpoint_to_use()
    assert checkpoint is not None
    path = checkpoint / "adapter_model.safetensors"
    weights = change(load_file(path))
    save_file(weights, path, metadata={"format": "pt"})
    (checkpoint / "manifest.json").unlink(missing_ok=True)
    return run


def with_nan(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = sorted(weights)[0]
    return {**weights, name: torch.full_like(weights[name], float("nan"))}


def without_one(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(sorted(weights.items())[1:])


def untrained(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: torch.zeros_like(w) if "lora_B" in n else w for n, w in weights.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_nan, "adapter_finite"),
        (without_one, "does not fit the base model"),
        (untrained, "differs_from_base"),
    ],
)
def test_a_damaged_adapter_fails_with_its_reason(
    tiny_run: TinyRun, tmp_path: Path, change: Any, message: str
) -> None:
    run = damaged(tiny_run, tmp_path, change)
    before = sorted(path.name for path in run.root.iterdir())
    with pytest.raises(HoningError, match=message):
        merge(str(run.root), say=quiet)
    assert sorted(path.name for path in run.root.iterdir()) == before


def test_a_flipped_bit_in_the_adapter_is_found(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_run.folder, run.root, symlinks=True)
    checkpoint = run.checkpoint_to_use()
    assert checkpoint is not None
    path = checkpoint / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"adapter_model.safetensors"):
        merge(str(run.root), say=quiet)


def test_an_adapter_on_another_base_fails(tiny_run: TinyRun, tmp_path: Path) -> None:
    other = save_tiny_base(tmp_path / "other", seed=7)
    with pytest.raises(UserError, match="was trained on another base"):
        merge(
            str(tiny_run.folder),
            str(tmp_path / "merged"),
            overrides=[f"model.base={other}"],
            say=quiet,
        )
    assert not (tmp_path / "merged").exists()


def test_a_tensor_changed_after_the_merge_fails(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = verify_merged

    def changed(folder: Path, expected: Any) -> Any:
        path = folder / "model.safetensors"
        weights = load_file(path)
        name = sorted(weights)[1]
        weights[name].view(-1)[0] += 1e-3
        save_file(weights, path, metadata={"format": "pt"})
        return own(folder, expected)

    monkeypatch.setattr("honing.merging.merge.verify_merged", changed)
    with pytest.raises(CheckFailed, match="merge: "):
        merge(str(tiny_run.folder), str(tmp_path / "merged"), say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_replaced_unasked(tiny_run: TinyRun, tmp_path: Path) -> None:
    output = tmp_path / "merged"
    merge(str(tiny_run.folder), str(output), say=quiet)
    with pytest.raises(UserError, match="--overwrite"):
        merge(str(tiny_run.folder), str(output), say=quiet)
    merge(str(tiny_run.folder), str(output), overwrite=True, say=quiet)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="mine"):
        merge(str(tiny_run.folder), str(tmp_path / "mine"), overwrite=True, say=quiet)
    assert (tmp_path / "mine" / "thesis.txt").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "--dtype: int8"),
        ({"gguf": "q9"}, "--gguf: q9 is not one of f32, f16"),
        ({"overrides": ["model.dtype=float16"]}, "does nothing to a merge"),
    ],
)
def test_what_cannot_be_asked_for(
    tiny_run: TinyRun, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        merge(str(tiny_run.folder), str(tmp_path / "merged"), say=quiet, **options)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run(tiny_run: TinyRun) -> None:
    with pytest.raises(UserError, match="is no run and holds no adapter"):
        merge(str(tiny_run.base), say=quiet)
