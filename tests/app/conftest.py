from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import segclip
from app import state
from app.jobs.training import Training
from app.models import Models
from app.samples import TEXTS
from app.settings import Settings
from app.state import CachedImage, Draft, Studio, Work
from segclip import loading
from segclip.types import Image
from tests import batch_script, search_script
from tests.app.browsing import CHROMIUM, FLAGS, ROOT, Person, serving
from tests.fakes import paint

RECIPE = """
import json, sys, time
from pathlib import Path
if sys.argv[1].endswith("broken"):
    sys.exit("error: it holds no images with captions")
folder = Path(sys.argv[sys.argv.index("--out") + 1])
epochs = int(sys.argv[sys.argv.index("--epochs") + 1])
done = json.loads((folder / "last.pt").read_text()) if "--resume" in sys.argv else 0
(folder / "last").mkdir(exist_ok=True)
(folder / "recipe.json").write_text(json.dumps({"epochs": epochs}))
(folder / "environment.json").write_text(json.dumps({"command": sys.argv}))
for epoch in range(done + 1, epochs + 1):
    line = f"epoch {epoch}/{epochs}  loss 2.000  9 images/s  {epoch / epochs:.0%}, 0:01 left"
    print(line, flush=True)
    progress = {"line": line, "share": epoch / epochs}
    (folder / "progress.json").write_text(json.dumps(progress))
    for place in (folder / "last", folder):
        for file in ("model.safetensors", "config.json"):
            part = place / (file + ".part")
            part.write_text(f"{file} {epoch}")
            part.replace(place / file)
    found = 0.1 * epoch
    row = {"epoch": epoch, "loss": 2.0 / epoch, "R@1": found, "image to text R@1": found}
    (folder / "metrics.json").write_text(json.dumps(row))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\\n")
    (folder / "last.pt").write_text(str(epoch))
    time.sleep(0.02)
"""


@pytest.fixture
def studio() -> Studio:
    """Return a studio with fake models that recognise flat colours."""
    return Studio(Settings(), Models(batch_script.fake_load))


@pytest.fixture(scope="session")
def mini() -> segclip.Segmenter:
    """Return the shipped models that answer texts, to compare the app with."""
    return segclip.load("mini")


@pytest.fixture
def work(sample_image: Image) -> Work:
    """Return a work on a red, a green and a blue box, with a text for the red one."""
    return Work(CachedImage(sample_image), Draft(("a red box",)))


@pytest.fixture
def shared_studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    """Make the pages of this process use fake models, and download nothing."""
    monkeypatch.setenv("SEGCLIP_OFFLINE", "1")
    state.studio.cache_clear()
    studio = state.studio()
    studio.models = Models(batch_script.fake_load)
    for name in TEXTS:
        studio.samples[name] = CachedImage(Image(paint(("red", (10, 10, 50, 50))).pixels, name))
    yield studio
    state.studio.cache_clear()


@pytest.fixture
def fake_search(monkeypatch: pytest.MonkeyPatch, fake_models: None) -> None:
    """Let every index be made and searched with fake models."""
    monkeypatch.setattr(loading, "load_encoder", search_script.fake_encoder)
    monkeypatch.setattr(loading, "encoder_fingerprint", search_script.fake_hash)


@pytest.fixture
def runs(tmp_path: Path) -> Training:
    """Return an empty folder of runs, with a fake recipe that writes the files of the real one."""
    recipes = tmp_path / "clone" / "train"
    recipes.mkdir(parents=True)
    (recipes / "__init__.py").touch()
    (recipes / "contrastive.py").write_text(RECIPE)
    shapes = (
        "import pathlib, sys\nplace = pathlib.Path(sys.argv[1])\nplace.mkdir()\n(place / "
        "'captions.jsonl').touch()\n"
    )
    (recipes / "shapes.py").write_text(shapes)
    (recipes / "engine").mkdir()
    (recipes / "engine" / "__init__.py").touch()
    (recipes / "engine" / "data.py").write_text(
        "import sys\nprint('images 3')\nprint('! broken', file=sys.stderr)\nsys.exit(1)\n"
    )
    return Training(tmp_path / "runs", clone=recipes.parent)


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
    for name in ("desk.png", "coffee.jpg"):
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
