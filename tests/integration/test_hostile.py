"""Folders and files from strangers: nothing in them is executed, followed out, or let out."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from honing.config import ModelConfig
from honing.data.reading.read import read_source
from honing.errors import UserError
from honing.generation.open_model import find_adapter, open_model
from honing.model.load import find_base, load_model, load_tokenizer
from honing.model.lora import load_adapter
from honing.run import RunFolder
from honing.training.checkpoint import newest_valid_checkpoint, remove_old_checkpoints
from honing.training.train import train
from tests.runs import contents_below, qa_rows, save_rows, small_config
from tests.tiny import save_tiny_base, tiny_model
from tests.tiny_run import TinyRun

SOURCE = Path(__file__).resolve().parents[2] / "src" / "honing"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


def code_that_makes(marker: Path, name: str) -> str:
    return (
        f"import os\nos.mkdir({str(marker)!r})\n"
        f"from transformers import LlamaForCausalLM, LlamaConfig, PreTrainedTokenizerFast\n"
        f"class {name}: pass\n"
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny_base(tmp_path / "base")


def changed(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def try_to_open(base: Path) -> str | None:
    """Load a base; the error where it is refused."""
    try:
        found = find_base(ModelConfig(base=str(base)))
        load_tokenizer(found)
        load_model(found, "float32", "cpu")
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("model_type", ["llama", "stranger"])
def test_a_models_own_code_is_not_run(model_type: str, base: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (base / "modeling.py").write_text(code_that_makes(marker, "Model"))
    auto_map = {"AutoConfig": "modeling.Model", "AutoModelForCausalLM": "modeling.Model"}
    changed(base / "config.json", model_type=model_type, auto_map=auto_map)
    error = try_to_open(base)
    assert not marker.exists()
    assert (error is None) == (model_type == "llama")  # a known architecture needs no code
    if error is not None:
        assert "comes with Python code of its own" in error
        assert "model.trust_remote_code=true" in error


def test_a_tokenizers_own_code_is_not_run(base: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (base / "tokenization.py").write_text(code_that_makes(marker, "Mine"))
    auto_map = {"AutoTokenizer": ["tokenization.Mine", "tokenization.Mine"]}
    changed(base / "tokenizer_config.json", tokenizer_class="Mine", auto_map=auto_map)
    try_to_open(base)
    assert not marker.exists()


def test_a_tokenizers_keys_steer_no_terminal(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    token = {"content": "<|end|>", "special": True, "\x1b[31mred": 1}
    changed(base / "tokenizer_config.json", added_tokens_decoder={"0": token})
    try_to_open(base)
    assert "red" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernels_from_the_hub_are_not_fetched(key: str, base: Path) -> None:
    changed(base / "config.json", **{key: "somebody/kernels"})
    error = try_to_open(base)
    assert error == (
        f"model.base: {base}: its {key} names code to be fetched and run; "
        "take it out of config.json"
    )


def test_a_model_of_pickles_is_refused(base: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    assert try_to_open(base) == (
        f"model.base: {base}: its weights are in pytorch_model.bin, a format that can run code "
        "when it is read; save them as safetensors"
    )
    assert not marker.exists()


def test_an_adapter_of_pickles_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder, marker = tmp_path / "adapter", tmp_path / "executed"
    shutil.copytree(tiny_run.checkpoints / "final", folder)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(UserError) as caught:
        load_adapter(tiny_model("llama"), folder)
    assert str(caught.value) == (
        f"{folder}: keeps its weights in adapter_model.bin, a format that can run code when it is "
        "read; save them as adapter_model.safetensors"
    )
    assert not marker.exists()


def test_an_adapter_imports_no_module_that_it_names(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, marker = tmp_path / "adapter", tmp_path / "executed"
    shutil.copytree(tiny_run.checkpoints / "final", folder)
    (tmp_path / "strange_core.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    changed(folder / "adapter_config.json", megatron_config={"a": 1}, megatron_core="strange_core")
    with pytest.raises(UserError, match="sets megatron_config, which honing does not load"):
        load_adapter(tiny_model("llama"), folder)
    assert not marker.exists()


def test_a_state_that_is_code_is_passed_over(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = copy_of(tiny_run, tmp_path)
    newest = run.step_checkpoints()[-1]
    (newest / "manifest.json").unlink()
    torch.save({"step": Payload(tmp_path / "executed")}, newest / "trainer_state.pt")
    found, skipped = newest_valid_checkpoint(run)
    assert found == run.step_checkpoints()[-2]
    assert skipped[0].startswith(f"{newest.name} skipped: trainer_state.pt cannot be read (")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", ["zeros that are packed", "a view of one number", "a text"])
def test_a_state_that_unpacks_to_more_than_its_file_is_passed_over(
    kind: str, tiny_run: TinyRun, tmp_path: Path
) -> None:
    run = copy_of(tiny_run, tmp_path)
    newest = run.step_checkpoints()[-1]
    (newest / "manifest.json").unlink()
    path = newest / "trainer_state.pt"
    if kind == "a text":
        path.write_text("no archive")
    elif kind == "a view of one number":
        torch.save({"x": [torch.zeros(1).expand(10**12)]}, path)
    else:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as plain:
            parts = {name: plain.read(name) for name in plain.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, part in parts.items():
                packed.writestr(name, part + bytes(10**7))
    found, (skipped,) = newest_valid_checkpoint(run)
    assert found == run.step_checkpoints()[-2]
    problem = {
        "zeros that are packed": "holds more than its bytes can",
        "a view of one number": "holds tensors that are larger than the file",
        "a text": "File is not a zip file",
    }[kind]
    assert skipped == f"{newest.name} skipped: trainer_state.pt cannot be read ({problem})"


def test_scripts_beside_rows_are_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "owner" / "name"
    save_rows(folder / "train.jsonl", qa_rows())
    (folder / "name.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'executed')!r})\n")
    read = read_source(str(folder), columns=None, encoding=None, group_by=None)
    assert len(read["all"].examples) == 12
    assert not (tmp_path / "executed").exists()


# --- paths


def copy_of(tiny_run: TinyRun, folder: Path) -> RunFolder:
    shutil.copytree(tiny_run.folder, folder / "run", symlinks=True)
    return RunFolder(folder / "run")


@pytest.mark.parametrize("target", ["../../outside", "/outside", "..", "."])
def test_pointers_lead_nowhere_else(target: str, tiny_run: TinyRun, tmp_path: Path) -> None:
    run = copy_of(tiny_run, tmp_path)
    shutil.copytree(run.final, tmp_path / "outside")
    for name in ("best", "last"):
        (run.checkpoints / name).unlink()
        os.symlink(target.replace("/outside", f"{tmp_path}/outside"), run.checkpoints / name)
        assert run.linked(name) is None
    if "outside" in target:
        with pytest.raises(
            UserError, match=r"checkpoints/(best|last): is a link that leads out of"
        ):
            find_adapter(str(run.root), None)
        return
    assert find_adapter(str(run.root), None) == run.final
    for name in ("../outside", "../../../outside", "best"):
        with pytest.raises(UserError, match="has no checkpoint"):
            find_adapter(str(run.root), name)


def test_a_manifest_names_no_file_outside(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = copy_of(tiny_run, tmp_path)
    newest = run.step_checkpoints()[-1]
    secret = tmp_path / "secret"
    secret.write_text("x")
    record = json.loads((newest / "manifest.json").read_text())
    record["files"]["../../../secret"] = {"bytes": 0, "sha256": ""}
    (newest / "manifest.json").write_text(json.dumps(record))
    found, skipped = newest_valid_checkpoint(run)
    assert (found, skipped) == (newest, [])
    assert secret.read_text() == "x"


def test_retention_removes_a_link_and_not_what_it_leads_to(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    run = copy_of(tiny_run, tmp_path)
    outside = tmp_path / "outside"
    shutil.copytree(run.final, outside)
    before = contents_below(outside)
    os.symlink(outside, run.step_checkpoint(1))
    assert remove_old_checkpoints(run, 1) is None
    assert not os.path.lexists(run.step_checkpoint(1))
    assert contents_below(outside) == before


@pytest.mark.parametrize("name", ["checkpoints", "logs", "evaluation"])
def test_overwriting_follows_no_link_out(name: str, tiny_run: TinyRun, tmp_path: Path) -> None:
    run = copy_of(tiny_run, tmp_path)
    other = tmp_path / "another-run"
    shutil.copytree(tiny_run.folder, other, symlinks=True)
    (other / "evaluation").mkdir()
    (other / "evaluation" / "base.json").write_text("{}")
    before = contents_below(other)
    shutil.rmtree(run.root / name, ignore_errors=True)
    os.symlink(other / name, run.root / name)
    run.clear()
    assert not os.path.lexists(run.root / name)
    assert contents_below(other) == before


# --- secrets


def test_a_hub_token_is_in_no_file(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_averySecretMarker123456789"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, secret)
    rows = save_rows(tmp_path / "rows.jsonl", qa_rows())
    config = small_config(base, rows, tmp_path / "run", "train.max_steps=2")
    said: list[str] = []
    train(config, say=said.append)
    opened = open_model(str(tmp_path / "run"), config)
    assert opened.adapter is not None
    assert len(contents_below(tmp_path / "run")) > 10
    held = [
        name
        for name, content in contents_below(tmp_path / "run").items()
        if isinstance(content, bytes) and secret.encode() in content
    ]
    assert held == []
    assert secret not in "\n".join(said)


# --- what the sources may not do


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", node


FORBIDDEN = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "compile"}
FORBIDDEN |= {"marshal.loads", "yaml.unsafe_load", "yaml.full_load", "joblib.load", "numpy.load"}


def test_nothing_in_the_sources_executes_what_it_reads() -> None:
    found = [where for where, call in calls() if ast.unparse(call.func) in FORBIDDEN]
    assert found == []


def test_torch_loads_weights_only_yaml_safely_and_no_shell_is_asked() -> None:
    seen = set()
    for where, call in calls():
        name, options = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
        if name == "torch.load":
            assert options.get("weights_only") == "True", where
        elif name in ("yaml.load", "yaml.compose", "yaml.parse"):
            assert options.get("Loader") == "_Loader", where
        elif name.startswith("subprocess."):
            assert options.get("shell", "False") == "False", where
        assert options.get("trust_remote_code", "") != "True", where
        seen.add(name)
    assert {"torch.load", "yaml.load"} <= seen


def test_a_checkpoint_that_was_loaded_is_the_one_on_the_disk(tiny_run: TinyRun) -> None:
    """The guards change nothing for honest files."""
    folder = tiny_run.checkpoints / "final"
    model = load_adapter(tiny_model("llama"), folder)
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        own = name.replace(".weight", ".default.weight")
        assert torch.equal(dict(model.named_parameters())[own], tensor)
