"""A GGUF file of a merged run: what is in it, read back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from honing.errors import UserError
from honing.merging.merge import merge
from tests.merging.test_merge import quiet, trained
from tests.tiny_run import TinyRun

pytest.importorskip("gguf")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_transformers_reads_the_merged_model_back(architecture: str, tmp_path: Path) -> None:
    run = trained(tmp_path, architecture)
    done = merge(str(run.root), gguf="f32", say=quiet)
    assert done.gguf is not None
    assert done.record["gguf"]["worst_tensor_error"] == 0.0
    assert done.record["gguf"]["difference"]["max_abs_logit"] < 1e-5
    plain = AutoModelForCausalLM.from_pretrained(done.folder).eval()
    # transformers 5.23 does not read the number of positions of a GPT-2 in a GGUF file.
    options = {"config": plain.config} if architecture == "gpt2" else {}
    read = AutoModelForCausalLM.from_pretrained(
        done.folder, gguf_file=done.gguf.name, dtype=torch.float32, **options
    ).eval()
    ids = torch.arange(3, 60)[None, :]
    with torch.no_grad():
        difference = (plain(input_ids=ids).logits - read(input_ids=ids).logits).abs().max()
    assert float(difference) < 1e-4


@pytest.mark.parametrize(("type", "most"), [("f16", 1e-3), ("q8_0", 1e-2)])
def test_rounding_is_measured_and_stays_what_the_type_explains(
    tiny_run: TinyRun, tmp_path: Path, type: str, most: float
) -> None:
    done = merge(str(tiny_run.folder), str(tmp_path / "merged"), gguf=type, say=quiet)
    record = done.record["gguf"]
    assert record["type"] == type
    assert 0.0 < record["worst_tensor_error"] < most
    modelfile = (done.folder / "Modelfile").read_text(encoding="utf-8")
    assert f"FROM ./{record['name']}" in modelfile
    assert "### 질문: " in modelfile
    assert "PARAMETER stop" in modelfile


@pytest.mark.parametrize("architecture", ["gemma", "gpt_neox"])
def test_what_llama_cpp_would_not_compute_rightly_is_refused(
    architecture: str, tmp_path: Path
) -> None:
    run = trained(tmp_path, architecture)
    with pytest.raises(UserError, match="--gguf"):
        merge(str(run.root), gguf="f16", say=quiet)
    assert not (run.root / "merged").exists()
