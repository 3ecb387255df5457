"""Folders of images to export, with fake models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests import exports
from tests.fakes import paint


@pytest.fixture(autouse=True)
def fakes(fake_models: None) -> None:
    """Let every export run with fake models."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Draw seven images, in a folder and below it, with names of all kinds."""
    folder = tmp_path / "photos"
    (folder / "sub dir").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(7):
        x, y = (int(v) for v in rng.integers(0, 60, 2))
        colour = ("red", "green", "blue", "yellow")[number % 4]
        image = paint(
            (colour, (x, y, x + 40, y + 30)),
            ("red", (100, 70, 130, 110)) if number % 3 else ("black", (0, 0, 9, 9)),
        )
        name = (
            "a.png",
            "a.jpg",
            "b é🦁.png",
            "sub dir/c.png",
            "sub dir/d\nnew.png",
            "e.bmp",
            "f.png",
        )[number]
        PIL.Image.fromarray(image.pixels).save(folder / name, quality=95)
    return folder


@pytest.fixture
def hostile(photos: Path) -> Path:
    """Add six files that cannot be read as images."""
    whole = (photos / "f.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.jpg").touch()
    (photos / "words.jpg").write_text("not an image")
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    (photos / "loop.png").symlink_to(photos / "loop.png")
    (photos / "loop").symlink_to(photos, target_is_directory=True)
    PIL.Image.new("1", (12000, 12000)).save(photos / "bomb.png")
    return photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make the five images of ``exports.photos``."""
    return exports.photos(tmp_path / "photos")
