"""Start the real app, and use it with mouse and keyboard as a user would."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Locator, Page, expect

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]
# no test needs another machine, and some name servers never answer
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
FLAGS += [
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]  # a camera with a test image
# ms: the first answer waits for the models to load, on a busy machine
PATIENCE = 120_000

expect.set_options(timeout=PATIENCE)

Test = TypeVar("Test", bound=Callable[..., Any])


def in_browser(test: Test) -> Test:
    """Mark a test that drives the real app in Chromium."""
    missing = pytest.mark.skipif(
        CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"
    )
    return pytest.mark.browser(missing(test))


@contextmanager
def serving(log: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[str]:
    """Run ``segclip app`` on a free port and yield its address; its output goes to ``log``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "segclip",
        "app",
        "--no-browser",
        "--offline",
        "--port",
        str(port),
        *options,
    ]
    more = environment or {}
    paths = os.pathsep.join((*filter(None, [more.get("PYTHONPATH")]), str(ROOT)))
    own = {**os.environ, "SEGCLIP_HOME": str(log.parent / "home"), **more, "PYTHONPATH": paths}
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=own, cwd=log.parent, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(address, process, log)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


class Person:
    """A user with one page of the app."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self._note(request.url))
        page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, url: str) -> None:
        if not url.startswith((self.address, self.address.replace("http", "ws"), "data:", "blob:")):
            self.elsewhere.append(url)

    def go(self, path: str = "") -> Person:
        """Open a page."""
        self.page.goto(self.address + path)
        return self

    def turn(self, tab: str) -> Page:
        """Go to another page through the menu."""
        self.page.get_by_role("link", name=tab, exact=True).click()
        self.page.wait_for_url(f"{self.address}/{'' if tab == 'Segment' else tab.lower()}?*")
        return self.page

    def ready(self) -> Person:
        """Wait for the first answer."""
        self.page.locator(".studio[data-done][data-waiting=no]").wait_for()
        return self

    @property
    def root(self) -> Locator:
        """Return the element of the image and candidates."""
        return self.page.locator(".studio")

    @property
    def headline(self) -> str:
        """Return the headline of the answer."""
        return self.page.locator(".headline").inner_text()

    def places(self) -> tuple[list[list[float]], list[list[float]]]:
        """Return points and boxes as stored on the server."""
        points, boxes = json.loads(self.root.get_attribute("data-places") or "[[], []]")
        return points, boxes

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Wait for the answer to one user action."""
        before = int(self.root.get_attribute("data-done") or 0)
        yield
        self.page.locator(f".studio[data-done='{before + 1}'][data-waiting=no]").wait_for(
            state="attached"
        )

    def click(self, x: float, y: float, **how: Any) -> None:
        """Click at screen pixels of the canvas."""
        box = self.canvas()
        with self.answered():
            self.page.mouse.click(box["x"] + x, box["y"] + y, **how)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag from one point to another."""
        box, mouse = self.canvas(), self.page.mouse
        mouse.move(box["x"] + start[0], box["y"] + start[1])
        mouse.down()
        mouse.move(box["x"] + end[0], box["y"] + end[1], steps=4)
        with self.answered():
            mouse.up()

    def canvas(self) -> dict[str, float]:
        """Return the canvas's bounding box on the screen."""
        box = self.page.locator("canvas.view").bounding_box()
        assert box is not None
        return dict(box)  # type: ignore[arg-type]

    def expected(self, x: float, y: float, size: tuple[int, int]) -> tuple[float, float]:
        """Return the pixel of an image of (W, H) under a point of the canvas."""
        left, top, zoom = json.loads(self.root.get_attribute("data-view") or "")
        box = self.canvas()
        return left + x * size[0] / box["width"] / zoom, top + y * size[1] / box["height"] / zoom

    def enter_text(self, text: str, headline: str) -> None:
        """Type a text, and wait for the headline."""
        field = self.page.get_by_label("What to cut out")
        expect(field).to_have_count(1)  # the former image's field disappears once the page is done
        field.fill(text)
        field.press("Enter")
        self.page.locator(".headline", has_text=headline).wait_for()

    def upload(self, path: Path) -> None:
        """Choose a file to upload."""
        self.page.get_by_role("button", name="Image").click()
        self.page.locator("input[type=file]").first.set_input_files(path)

    def save(self, button: str, path: Path) -> Path:
        """Press a download button, and save the file."""
        with self.page.expect_download() as coming:
            self.page.get_by_role("button", name=button).click()
        coming.value.save_as(path)
        return path

    def fill(self, label: str, text: str, role: Any = "textbox") -> None:
        """Type into a field, and press Enter."""
        field = self.page.get_by_role(role, name=label)
        field.fill(text)
        field.press("Enter")

    def open(self, path: Path) -> None:
        """Upload an image, and wait for its answer."""
        self.upload(path)
        self.page.locator(f".studio[data-image='{path.name}'][data-waiting=no]").wait_for()
