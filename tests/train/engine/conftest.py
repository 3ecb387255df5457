"""A run of the training loop, for tests of its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.train.engine.test_checkpoint import loop_in
from train.engine.loop import LoopSettings, start


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run of one epoch."""
    folder = tmp_path_factory.mktemp("once")
    start(loop_in(folder, LoopSettings(epochs=1, batch=2, warm_up=0, lr=0.1)), resume=False)
    return folder


@pytest.fixture
def folder(once: Path, tmp_path: Path) -> Path:
    """Copy that run."""
    return shutil.copytree(once, tmp_path / "run")
