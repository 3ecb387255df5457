from __future__ import annotations

import io
from collections.abc import Iterator

import PIL.Image
import pytest

import segclip
from app import state
from app.settings import Settings
from app.state import Known, Question, Studio, Work
from app.views.segment import SAMPLES
from segclip.types import Image
from tests import batch_script
from tests.fakes import paint


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Studio:
    """Give a studio whose models are fakes that see flat colours."""
    monkeypatch.setattr(segclip, "load", batch_script.fake_load)
    return Studio(Settings())


@pytest.fixture
def work(picture: Image) -> Work:
    """Stand at a red, a green and a blue box, asked for the red one."""
    return Work(Known(picture), Question(("a red box",)))


@pytest.fixture
def shared_studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    """Let the pages of this process work with fakes."""
    monkeypatch.setattr(segclip, "load", batch_script.fake_load)
    state.studio.cache_clear()
    studio = state.studio()
    for name in SAMPLES:
        studio._samples[name] = Known(Image(paint(("red", (10, 10, 50, 50))).pixels, f"{name}.png"))
    yield studio
    state.studio.cache_clear()


@pytest.fixture
def upload(picture: Image) -> bytes:
    """Give the bytes of a PNG."""
    file = io.BytesIO()
    PIL.Image.fromarray(picture.pixels).save(file, "PNG")
    return file.getvalue()
