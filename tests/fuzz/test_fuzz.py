"""A short seeded part of benchmarks/fuzz.py, and every input that once was read wrongly.

Corpus: corpus/KIND/NAME is an input for the target of that kind.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.models import model_targets
from tests.fuzz.targets import Target, light_targets, steers, wrong_with
from tests.tiny_run import TinyRun

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path for path in CORPUS.rglob("*") if path.is_file())
LIGHT = {target.kind: target for target in light_targets()}
MODELS = (
    *("adapter-config", "adapter-weights", "about", "state", "manifest", "base-config"),
    *("base-weights", "tokenizer", "tokenizer-config", "generation-config", "gguf-header", "gguf"),
)
NUM_OF_A_MODEL = 12

seeded = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def models(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    targets = model_targets(tiny_run, tmp_path_factory.mktemp("models"))
    return {target.kind: target for target in targets}


def test_no_kind_is_left_out(models: dict[str, Target]) -> None:
    assert tuple(models) == MODELS
    assert {path.parent.name for path in FOUND} <= {*LIGHT, *MODELS}


@pytest.mark.parametrize("kind", LIGHT)
def test_valid_files_are_read(kind: str, tmp_path: Path) -> None:
    """Else nothing would be fuzzed but the first error."""
    target = LIGHT[kind]
    path = tmp_path / target.file
    path.parent.mkdir(exist_ok=True)
    # A text is no rows, and not every chat template is one that training can use.
    for seed in target.seeds if kind not in ("text", "chat-template") else ():
        path.write_bytes(seed)
        target.read(path)


@pytest.mark.parametrize("kind", MODELS)
def test_valid_models_are_read(kind: str, models: dict[str, Target], tmp_path: Path) -> None:
    target = models[kind]
    for number, seed in enumerate(target.seeds):
        assert wrong_with(target, seed, tmp_path / str(number)) is None
    if kind != "adapter-config":  # the second one is for another adapter
        target.read(tmp_path / "0" / target.file)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_read_wrongly_once(
    path: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    kind = path.parent.name
    target = LIGHT.get(kind) or request.getfixturevalue("models")[kind]
    assert wrong_with(target, path.read_bytes(), tmp_path / "x") is None


@pytest.mark.parametrize("kind", LIGHT)
def test_malformed_files(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = LIGHT[kind]
    folder = tmp_path_factory.mktemp("malformed")

    @seeded
    @given(st.randoms(use_true_random=False))
    def each(draw: random.Random) -> None:
        assert wrong_with(target, target.make(draw), folder) is None

    each()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["instruction", "output", "input", "messages", "text", "role", "content", "reference"]
)


@pytest.mark.parametrize("kind", ["json", "jsonl", "predictions", "evaluation", "config-record"])
def test_records_of_any_shape(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = LIGHT[kind]
    folder = tmp_path_factory.mktemp("records")

    @seeded
    @given(st.lists(st.dictionaries(KEYS | st.text(), VALUES, max_size=4), max_size=3) | VALUES)
    def each(value: Any) -> None:
        content = json.dumps(value).encode()
        assert wrong_with(target, content, folder) is None

    each()


@pytest.mark.parametrize("kind", ["csv", "text", "parquet", "config", "chat-template"])
def test_bytes_of_any_kind(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = LIGHT[kind]
    folder = tmp_path_factory.mktemp("bytes")

    @seeded
    @given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-16")))
    def each(content: bytes) -> None:
        assert wrong_with(target, content, folder) is None

    each()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.filterwarnings("ignore")  # libraries say much about what is malformed
def test_malformed_models(kind: str, models: dict[str, Target], tmp_path: Path) -> None:
    draw = random.Random(7)
    target = models[kind]
    for number in range(NUM_OF_A_MODEL):
        assert wrong_with(target, target.make(draw), tmp_path / str(number)) is None


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31m", "\u202e", "\x85", "\ud800", "\u2028"])
def test_what_steers_a_terminal_is_seen(text: str) -> None:
    assert steers(text)
    assert not steers("plain 한글 🎉 → “”")
