"""Take the pictures of the documentation from the real app: python -m tests.app.screenshots FOLDER"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import PIL.Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.app.browsing import CHROMIUM, FLAGS, Person, serving

WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
COLOURS = 256  # enough for a page, and a third of the bytes


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with serving(Path(place) / "log") as address:
            _index(browser, address)
            for scheme, size, name in (("light", WIDE, "light"), ("dark", WIDE, "dark"), ("light", PHONE, "phone")):
                _pages(browser, address, folder, (scheme, size, name))
        browser.close()


def _pages(browser: Browser, address: str, folder: Path, look: tuple[Any, Any, str]) -> None:
    scheme, size, name = look
    context = browser.new_context(viewport=size, color_scheme=scheme, has_touch=name == "phone")
    page = context.new_page()
    person = Person(page, address).go().ready()
    person.say("an apple, coffee, pencil, a submarine", "submarine")
    _take(page, folder / f"segment-{name}.png")
    person.click(200 * person.canvas()["width"] / 816, 370 * person.canvas()["width"] / 816)
    _take(page, folder / f"click-{name}.png")
    for tab in ("Export", "Classify", "Search", "Models"):
        _go(page, address, tab)
        if tab == "Search":
            page.get_by_label("Find pictures of").fill("a dog")
            page.get_by_label("Find pictures of").press("Enter")
            page.get_by_role("button", name="Open in Segment").first.wait_for()
        if tab == "Classify":
            page.get_by_text("Each thing in it").click()
        page.wait_for_timeout(6000)
        _take(page, folder / f"{tab.lower()}-{name}.png")
    context.close()


def _go(page: Page, address: str, tab: str) -> None:
    work = page.url.partition("?")[2]
    page.goto(f"{address}/{tab.lower()}?{work}")
    page.get_by_role("link", name=tab).first.wait_for(state="attached")
    page.wait_for_timeout(3000)


def _index(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.set_default_timeout(300_000)
    page.goto(f"{address}/search")
    page.get_by_role("button", name="Make index").click()
    page.get_by_role("button", name="Update index").wait_for()
    page.get_by_text("regions").wait_for()
    page.close()


def _take(page: Page, path: Path) -> None:
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    with PIL.Image.open(path) as shot:
        shot.convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
