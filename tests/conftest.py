"""Fixtures every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# workers share the cores: with a thread for each core in each of them they would mostly wait for
# one another
if (
    workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
) > 1:  # set before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

from segclip import loading
from segclip.types import Image

from . import batch_script
from .fakes import FakeEncoder, FakeProposer, paint

ROOT = Path(__file__).parent.parent


@pytest.fixture
def sample_image() -> Image:
    """Paint a red, a green and a blue box on white."""
    return paint(
        ("red", (10, 10, 50, 50)), ("green", (60, 20, 100, 80)), ("blue", (110, 60, 150, 110))
    )


@pytest.fixture
def proposer() -> FakeProposer:
    """Give a proposer that sees flat colours."""
    return FakeProposer()


@pytest.fixture
def encoder() -> FakeEncoder:
    """Give an encoder that sees flat colours."""
    return FakeEncoder()


@pytest.fixture
def fake_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every segmenter that is loaded be a fake one."""
    monkeypatch.setattr(loading, "load", batch_script.fake_load)
    monkeypatch.setattr(loading, "fingerprint", batch_script.fake_fingerprint)


@pytest.fixture
def shared_data() -> Path:
    """Give the folder of data sets beside the repository, or skip."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}")
    return folder
