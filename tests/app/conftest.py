from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import segclip
from app import state
from app.samples import TEXTS
from app.settings import Settings
from app.state import CachedImage, Draft, Studio, Work
from segclip.types import Image
from tests import batch_script
from tests.app.browsing import CHROMIUM, FLAGS, ROOT, Person, serving
from tests.fakes import paint


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Studio:
    """Return a studio with fake models that recognise flat colours."""
    monkeypatch.setattr(segclip, "load", batch_script.fake_load)
    return Studio(Settings())


@pytest.fixture
def work(sample_image: Image) -> Work:
    """Return a work on a red, a green and a blue box, with a text for the red one."""
    return Work(CachedImage(sample_image), Draft(("a red box",)))


@pytest.fixture
def shared_studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    """Make the pages of this process use fake models."""
    monkeypatch.setattr(segclip, "load", batch_script.fake_load)
    state.studio.cache_clear()
    studio = state.studio()
    for name in TEXTS:
        studio._samples[name] = CachedImage(Image(paint(("red", (10, 10, 50, 50))).pixels, name))
    yield studio
    state.studio.cache_clear()


@pytest.fixture
def upload(sample_image: Image) -> bytes:
    """Return the bytes of a PNG."""
    file = io.BytesIO()
    PIL.Image.fromarray(sample_image.pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two images for the Search page."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("zoo.png", "coffee.jpg"):
        (folder / name).write_bytes((ROOT / "samples" / name).read_bytes())
    return folder


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Iterator[str]:
    """Serve the real app, once for all browser tests."""
    place = tmp_path_factory.mktemp("app")
    with serving(
        place / "log", "--api", "--photos", str(photos), "--runs", str(place / "runs")
    ) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium, per module, because no other event loop can run meanwhile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open an empty browser page."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    yield context.new_page()
    context.close()


@pytest.fixture
def person(page: Page, address: str) -> Iterator[Person]:
    """Open the app; afterwards check for requests to other machines and for errors."""
    person = Person(page, address).go().ready()
    yield person
    assert person.elsewhere == []
    assert person.complaints == []
