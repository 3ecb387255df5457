"""Each user's work: its changes, its limits and its key."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

import segclip
from app import events
from app.answers import answer
from app.samples import FIRST
from app.settings import Settings
from app.state import CachedImage, Studio, Work
from tests.app.http.clients import png
from tests.app.questions import RED, encodings
from tests.fakes import paint


def test_uploads_are_limited(studio: Studio, upload: bytes) -> None:
    with pytest.raises(segclip.BadImage, match="at most 20 MB"):
        studio.read(bytes(20_000_001), "big.png")
    with pytest.raises(segclip.BadImage, match="truncated"):
        studio.read(upload[: len(upload) // 2], "cut.png")
    with pytest.raises(segclip.BadImage, match="over the limit"):
        Studio(Settings(max_pixels=1000)).read(upload, "large.png")


def test_works_are_separate_have_long_keys_and_the_oldest_is_evicted(studio: Studio) -> None:
    first, one = studio.begin()
    second, other = studio.begin()
    one.click(10, 10, 1)
    assert other.draft.points == ()
    assert studio.find(first) is one
    assert min(len(first), len(second)) >= 20
    assert studio.find("guess") is None
    for _ in range(studio.settings.works - 1):
        studio.begin()
    assert len(studio) == studio.settings.works
    assert studio.find(first) is one
    assert studio.find(second) is None


def test_a_sample_is_encoded_once_for_all_users(studio: Studio) -> None:
    studio.samples[FIRST] = CachedImage(paint(("red", RED)))
    _, one = studio.begin()
    _, other = studio.begin()
    answer(studio.models, one)
    answer(studio.models, other)
    assert encodings(studio, one) == 1


def test_another_model_encodes_again_and_resets_the_threshold(studio: Studio, work: Work) -> None:
    events.handle(studio, work, {"kind": "tune", "threshold": 0.9})
    work.use(words="photo")
    assert work.draft.threshold is None
    answer(studio.models, work)
    assert studio.models.names == ("photo",)


def test_the_total_size_of_batches_is_limited(tmp_path: Path) -> None:
    """Fault 17.12e."""
    studio = Studio(Settings(scratch=str(tmp_path), batch_mb=1))
    noise = np.random.default_rng(0).integers(0, 256, (370, 370, 3), np.uint8)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("noise.png", png(noise))  # 0.41 MB
    works = [studio.begin()[1] for _ in range(3)]
    for work in works[:2]:
        work.take_batch(studio.unpack(file.getvalue()))
    with pytest.raises(segclip.BadImage, match="split it"):
        studio.unpack(file.getvalue())
    studio.close()
    assert list(tmp_path.iterdir()) == []
