"""A small random segmentation network, and the folder it is saved in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segclip.proposers.fastsam import save
from tests.networks import random_network


@pytest.fixture(scope="session")
def network() -> Any:
    return random_network("yolo11n-seg.yaml", candidates=150, size=192)


@pytest.fixture(scope="session")
def folder(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("proposer")
    save(network, path, {"image_size": 192, "confidence": 0.41})
    return path
