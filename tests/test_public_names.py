"""What `import honing` gives, and what it does not cost."""

from __future__ import annotations

import importlib
import typing
from pathlib import Path

import pytest

import honing
from honing.version import VERSION

HOMES = {
    "Config": "honing.config",
    "Trainer": "honing.training.trainer",
    "chat": "honing.generation.chat",
    "generate": "honing.generation.generate",
    "load_config": "honing.config_file",
    "prepare": "honing.preparation",
    "train": "honing.training.train",
}


def test_the_public_names_are_these() -> None:
    assert sorted(honing.__all__) == sorted([*HOMES, "__version__"])
    assert set(honing.__all__) <= set(dir(honing))
    assert honing.__version__ == VERSION


@pytest.mark.parametrize("name", HOMES)
def test_each_is_what_its_module_holds(name: str) -> None:
    found = getattr(honing, name)
    assert found is getattr(importlib.import_module(HOMES[name]), name)
    assert found.__module__ == HOMES[name]


def test_they_can_all_be_imported_at_once() -> None:
    names: dict[str, object] = {}
    exec("from honing import *", names)
    assert set(names) - {"__builtins__"} == set(honing.__all__)


def test_any_other_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'honing' has no attribute 'trian'$"):
        _ = honing.trian
    with pytest.raises(ImportError):
        exec("from honing import trian")


def test_type_checkers_and_readers_see_the_same_names() -> None:
    text = Path(honing.__file__).read_text(encoding="utf-8")
    for name, home in HOMES.items():
        assert f"    from {home} import {name} as {name}\n" in text
    assert (Path(honing.__file__).parent / "py.typed").is_file()
    assert typing.get_type_hints(honing.prepare)["config"] is honing.Config
