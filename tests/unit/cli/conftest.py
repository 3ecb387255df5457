"""A folder to run commands in, and fakes in place of the models they load."""

from __future__ import annotations

import os
from pathlib import Path

import PIL.Image
import pytest
from PIL import Image as Pillow

from segclip import loading
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from segclip.types import Image
from tests import search_script
from tests.fakes import FakeEncoder, FakeProposer, paint


@pytest.fixture
def folder(tmp_path: Path, sample_image: Image, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with only desk.png; undo what --offline sets afterwards."""
    for name in ("SEGCLIP_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    Pillow.fromarray(sample_image.pixels).save(tmp_path / "desk.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Load fakes instead of models, and return the arguments of each load."""
    calls: list[tuple[object, ...]] = []

    def load(proposer: str, encoder: str, **options: object) -> Segmenter:
        calls.append((proposer, encoder, *options.values()))
        fake = FakeEncoder()
        return Segmenter(FakeProposer(), fake, CropScorer(fake))

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr(loading, "load_proposer", lambda name, **options: FakeProposer())
    return calls


@pytest.fixture
def search_models(fake_models: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Load fakes in place of all models, and write to a folder of the test's own."""
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loading, "load_encoder", search_script.fake_encoder)
    monkeypatch.setattr(loading, "encoder_fingerprint", search_script.fake_hash)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Draw a red and a blue image."""
    (tmp_path / "photos").mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        PIL.Image.fromarray(paint((colour, (20, 20, 130, 110))).pixels).save(
            tmp_path / "photos" / f"{name}.png"
        )
    return tmp_path / "photos"
