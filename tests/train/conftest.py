"""Data that several tests of recipes train on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
