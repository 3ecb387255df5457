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
from app.state import Draft, Known, Studio, Work
from segclip.types import Image
from tests import batch_script
from tests.app.browsing import CHROMIUM, FLAGS, ROOT, Person, serving
from tests.fakes import paint


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Studio:
    """Give a studio whose models are fakes that see flat colours."""
    monkeypatch.setattr(segclip, "load", batch_script.fake_load)
    return Studio(Settings())


@pytest.fixture
def work(picture: Image) -> Work:
    """Stand at a red, a green and a blue box, asked for the red one."""
    return Work(Known(picture), Draft(("a red box",)))


@pytest.fixture
def shared_studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    """Let the pages of this process work with fakes."""
    monkeypatch.setattr(segclip, "load", batch_script.fake_load)
    state.studio.cache_clear()
    studio = state.studio()
    for name in TEXTS:
        studio._samples[name] = Known(Image(paint(("red", (10, 10, 50, 50))).pixels, name))
    yield studio
    state.studio.cache_clear()


@pytest.fixture
def upload(picture: Image) -> bytes:
    """Give the bytes of a PNG."""
    file = io.BytesIO()
    PIL.Image.fromarray(picture.pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of two pictures for the Search page."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("zoo.png", "coffee.jpg"):
        (folder / name).write_bytes((ROOT / "samples" / name).read_bytes())
    return folder


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Iterator[str]:
    """Serve the real app: one for all tests in browsers."""
    place = tmp_path_factory.mktemp("app")
    with serving(
        place / "log", "--api", "--photos", str(photos), "--runs", str(place / "runs")
    ) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium: per module, for while it runs no other event loop can."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open an empty window."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    yield context.new_page()
    context.close()


@pytest.fixture
def person(page: Page, address: str) -> Iterator[Person]:
    """Open the app; afterwards nothing may have been asked of another machine, and nothing have
    gone wrong.
    """
    person = Person(page, address).go().ready()
    yield person
    assert person.elsewhere == []
    assert person.complaints == []
