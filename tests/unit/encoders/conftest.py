"""A small open_clip model in a folder, and crops for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segclip.encoders.openclip import OpenClip
from tests.small_clip import FLOAT32, SERVING, save_small_clip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the small model, to be served with SERVING."""
    path = tmp_path_factory.mktemp("clip")
    save_small_clip(path, serving=SERVING)
    return path


@pytest.fixture(scope="session")
def small(folder: Path) -> OpenClip:
    """Load it in float32."""
    return OpenClip(f"file:{folder}", options=FLOAT32)


@pytest.fixture(scope="session")
def crops() -> np.ndarray:
    """Draw five crops of noise: uint8 (5, 32, 32, 3)."""
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
