"""Take the documentation's screenshots of the real app: python -m tests.app.screenshots FOLDER."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import PIL.Image
from playwright.sync_api import Browser, Page, sync_playwright

from app.samples import FIRST, TEXTS
from tests.app.browsing import CHROMIUM, FLAGS, Person, serving
from train import shapes

WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
VARIANTS: dict[str, tuple[Any, Any]] = {
    "light": ("light", WIDE),
    "dark": ("dark", WIDE),
    "phone": ("light", PHONE),
}
COLOURS = 256  # enough for a page, and a third of the bytes
EPOCHS, LONG = 12, 900_000  # ms
TABS = {  # with a text that appears once the page is ready
    "Export": "as on the Segment page",
    "Classify": "Classification",
    "Search": "Find images of",
    "Train": "Recall@1",
    "Models": "sam-vit-b",
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        shapes.write(Path(place) / "shapes", 300, held_out=60)
        with serving(Path(place) / "log", "--runs", f"{place}/runs") as address:
            _prepare(browser, address, Path(place) / "shapes")
            for name, (scheme, size) in VARIANTS.items():
                context = browser.new_context(
                    viewport=size, color_scheme=scheme, has_touch=name == "phone"
                )
                _pages(Person(context.new_page(), address), folder, name)
                context.close()
        browser.close()


def _prepare(browser: Browser, address: str, data: Path) -> None:
    """Index the samples and train a little, so that no page is empty."""
    person = Person(browser.new_page(), address)
    person.page.set_default_timeout(LONG)
    page = person.go().ready().turn("Search")
    page.get_by_role("button", name="Make index").click()
    page.get_by_text("regions").wait_for()
    person.turn("Train")
    page.get_by_text("My own", exact=True).click()
    person.fill("Folder or file", str(data))
    person.fill("Epochs", str(EPOCHS), "spinbutton")
    person.fill("Learning rate", "2e-3")
    person.fill("More options", "--size 32 --augment none")
    page.get_by_role("button", name="Start").click()
    page.get_by_text("done: epoch").wait_for()
    page.close()


def _pages(person: Person, folder: Path, name: str) -> None:
    person.page.set_default_timeout(LONG)
    page = person.go().ready().page
    person.enter_text(f"{TEXTS[FIRST]}, a submarine", "submarine")
    _take(page, folder / f"segment-{name}.png")
    person.click(person.canvas()["width"] / 2, person.canvas()["height"] / 3)  # the cup
    _take(page, folder / f"click-{name}.png")
    for tab, text in TABS.items():
        page.goto(f"{person.address}/{tab.lower()}?{page.url.partition('?')[2]}")
        page.get_by_text(text).first.wait_for()
        if tab == "Search":
            person.fill("Find images of", "a dog")
            page.get_by_role("button", name="Open in Segment").first.wait_for()
        if tab == "Classify":
            page.get_by_text("Each object").click()
            page.get_by_test_id("stProgress").first.wait_for()
        page.locator("[data-stale=true]").first.wait_for(state="detached")
        _take(page, folder / f"{tab.lower()}-{name}.png")


def _take(page: Page, path: Path) -> None:
    page.wait_for_timeout(1500)  # for images and fonts to be drawn
    page.screenshot(path=path)
    with PIL.Image.open(path) as shot:
        shot.convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
