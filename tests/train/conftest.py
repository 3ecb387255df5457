"""Data that several tests of recipes train on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from segclip.proposers import yolo
from tests.train.scenes.test_compose import shape
from tests.train.test_contrastive import TINY
from train import shapes
from train.scenes.glyphs import Glyph


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Paint a few scenes, and write the smallest model's config beside them."""
    folder = tmp_path_factory.mktemp("scenes")
    shapes.write(folder, 60, held_out=12)
    (folder / "tiny.json").write_text(json.dumps(TINY))
    return folder


@pytest.fixture
def glyphs() -> list[Glyph]:
    return [
        Glyph("a", "red disc", ("red disc", "disc", "ball"), "red", shape("disc", (1, 0, 0))),
        Glyph("b", "blue disc", ("blue disc", "disc"), "blue", shape("disc", (0, 0, 1))),
        Glyph("c", "green slab", ("green slab", "slab"), "green", shape("slab", (0, 1, 0))),
        Glyph("d", "white slab", ("white slab", "slab"), "", shape("slab", (1, 1, 1))),
    ]


@pytest.fixture(scope="session")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store an untrained proposer, whose trunk mini-sam takes."""
    folder = tmp_path_factory.mktemp("proposer")
    with yolo.quiet():
        from ultralytics.nn.tasks import SegmentationModel

        torch.manual_seed(0)
        network = SegmentationModel("yolov8n-seg.yaml", nc=1, verbose=False)
    safetensors.torch.save_file(network.state_dict(), folder / "model.safetensors")
    return folder
