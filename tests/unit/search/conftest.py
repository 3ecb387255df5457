"""Search with fake encoders, in folders of coloured images."""

from __future__ import annotations

from pathlib import Path

import pytest

from segclip import loading, make_index
from tests import search_script
from tests.indexes import (
    DEEP,
    FIVE,
    draw,
    square,
)


@pytest.fixture(autouse=True)
def fake_encoders(monkeypatch: pytest.MonkeyPatch, fake_models: None) -> None:
    monkeypatch.setattr(loading, "load_encoder", search_script.fake_encoder)
    monkeypatch.setattr(loading, "encoder_fingerprint", search_script.fake_hash)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Draw six images, one of them with a small blue object, and a broken one."""
    folder = tmp_path / "photos"
    draw(folder / "red.png", ("red", (10, 10, 110, 100)), taken="2024:05:01 10:00:00")
    draw(folder / "green.png", ("green", (10, 10, 110, 100)), taken="2025:05:01 10:00:00")
    draw(folder / "two.png", ("red", (0, 0, 50, 50)), ("yellow", (60, 0, 150, 110)))
    draw(
        folder / "sub dir" / "é🦁.png", ("green", (0, 0, 140, 110)), ("blue", (146, 100, 156, 110))
    )
    draw(folder / "sub dir" / "black.png", ("black", (0, 0, 120, 110)))
    draw(folder / "white.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    return folder


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """Draw a few images, two of them in a sub-folder, and index them."""
    folder = tmp_path / "photos"
    for colour in FIVE:
        square(folder / ("sub" if colour in ("red", "blue") else ".") / f"{colour}.png", colour)
    make_index(folder, DEEP)
    return folder
