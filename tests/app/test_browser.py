"""The real app in real Chromium, with the shipped models."""

from __future__ import annotations

import io
import json
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import segclip
from tests.app.browsing import CHROMIUM, FLAGS, ROOT, Studio, serving

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("app") / "log", "--api") as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    yield context.new_page()
    context.close()


@pytest.fixture
def studio(page: Page, address: str) -> Iterator[Studio]:
    """Open the app; afterwards nothing may have been asked of another machine, and nothing have gone wrong."""
    studio = Studio(page, address).go().ready()
    yield studio
    assert studio.elsewhere == []
    assert studio.complaints == []


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a photo of 12 megapixels."""
    path = tmp_path_factory.mktemp("photos") / "large.jpg"
    with PIL.Image.open(ROOT / "samples" / "zoo.png") as sample:
        sample.convert("RGB").resize((4000, 3000)).save(path, quality=80)
    return path


def test_it_opens_on_a_sample_with_a_text_already_answered(studio: Studio) -> None:
    assert "found" in studio.headline
    assert studio.page.get_by_label("What to cut out").input_value() == "red apple"
    assert "desk.png" in (studio.page.locator("canvas.view").get_attribute("aria-label") or "")
    assert studio.page.locator(".card").count() >= 1


def test_clicks_right_clicks_drags_undo_and_escape(studio: Studio) -> None:
    words = studio.headline
    studio.click(200, 370)
    assert studio.headline == "The object at the click"
    studio.click(420, 380, button="right")
    studio.page.keyboard.down("Shift")
    studio.click(600, 200)
    studio.page.keyboard.up("Shift")
    points, _ = studio.places()
    assert [label for _, _, label in points] == [1, 0, 0]
    with studio.answered():
        studio.page.keyboard.press("Control+z")
    assert len(studio.places()[0]) == 2
    studio.drag((430, 350), (630, 550))
    assert studio.headline == "The object in the box"
    assert studio.places()[0] == []
    with studio.answered():
        studio.page.keyboard.press("Escape")
    assert studio.places() == ([], [])
    assert studio.headline == words


def test_places_are_exact_on_a_photo_of_12_megapixels_at_every_zoom(studio: Studio, photo: Path) -> None:
    studio.open(photo)
    for steps in (0, 2, 3):
        for _ in range(steps):
            studio.page.get_by_label("Zoom in").click()
        studio.click(333, 222)
        x, y, _ = studio.places()[0][-1]
        wanted = studio.expected(333, 222, (4000, 3000))
        assert abs(x - wanted[0]) < 1
        assert abs(y - wanted[1]) < 1
        studio.drag((50, 60), (400, 300))
        (box,) = studio.places()[1]
        corners = (*studio.expected(50, 60, (4000, 3000)), *studio.expected(400, 300, (4000, 3000)))
        assert np.abs(np.subtract(box, corners)).max() < 1
    assert float((studio.root.get_attribute("data-view") or "").strip("]").split(",")[2]) > 5


def test_upload_text_and_the_mask_file_is_the_librarys_own_answer(studio: Studio, tmp_path: Path) -> None:
    studio.open(ROOT / "samples" / "zoo.png")
    studio.say("elephant", "1 found")
    studio.page.get_by_role("button", name="Masks").click()
    with studio.page.expect_download() as coming:
        studio.page.get_by_role("button", name="Download masks").click()
    coming.value.save_as(tmp_path / "masks.zip")
    with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
        (name,) = archive.namelist()
        mask = np.array(PIL.Image.open(io.BytesIO(archive.read(name))))
    result = segclip.load("mini")(ROOT / "samples" / "zoo.png", "elephant")
    assert len(result) == 1
    assert np.array_equal(mask > 0, result.masks.full(0))


def test_undo_brings_the_former_words_back(studio: Studio) -> None:
    studio.say("coffee", "1 found")
    with studio.answered():
        studio.page.get_by_role("button", name="Undo").click()
    assert studio.page.get_by_label("What to cut out").input_value() == "red apple"


def test_what_is_not_there_is_said_with_the_nearest_misses(studio: Studio) -> None:
    studio.say("a submarine", "Nothing here matches “a submarine”")
    assert "is asked for" in studio.page.locator(".notes").inner_text()
    misses = studio.page.locator(".card.miss")
    assert misses.count() >= 1
    with studio.answered():
        misses.first.click()
    assert misses.first.get_attribute("aria-pressed") == "true"


def test_the_slider_asks_again_at_once_and_a_candidate_is_taken_by_a_click(studio: Studio) -> None:
    slide = "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }"
    with studio.answered():
        studio.page.locator(".threshold").evaluate(slide, 1)
    assert "Nothing" in studio.headline
    with studio.answered():
        studio.page.get_by_text("Back to the model's own threshold").click()
    assert "found" in studio.headline
    with studio.answered():
        studio.page.locator(".card").first.click()
    assert studio.page.locator(".card").first.get_attribute("aria-pressed") == "true"


def test_a_bad_upload_is_told_and_the_picture_stays(studio: Studio, tmp_path: Path) -> None:
    bad = tmp_path / "broken.png"
    bad.write_bytes((ROOT / "samples" / "zoo.png").read_bytes()[:5000])
    studio.upload(bad)
    error = studio.page.locator(".error:not([hidden])")
    error.wait_for()
    assert "broken.png" in error.inner_text()
    assert studio.root.get_attribute("data-picture") == "desk.png"


def test_a_reload_keeps_the_work_and_two_people_never_meet(studio: Studio, browser: Browser, address: str) -> None:
    studio.open(ROOT / "samples" / "pond.png")
    studio.say("turtle", "found")
    studio.page.reload()
    studio.ready()
    assert studio.root.get_attribute("data-picture") == "pond.png"
    assert studio.page.get_by_label("What to cut out").input_value() == "turtle"
    other = Studio(browser.new_context().new_page(), address).go().ready()
    assert other.root.get_attribute("data-picture") == "desk.png"
    other.click(100, 100)
    assert studio.places() == ([], [])
    other.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Browser, address: str, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, color_scheme=scheme)
    studio = Studio(context.new_page(), address).go().ready()
    assert studio.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    box = studio.canvas()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    with studio.answered():
        studio.page.touchscreen.tap(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert studio.headline == "The object at the click"
    context.close()


def test_the_api_answers_beside_the_pages(address: str) -> None:
    with urllib.request.urlopen(f"{address}/api/health") as answer:
        assert json.load(answer)["ok"] is True
    sample = (ROOT / "samples" / "zoo.png").read_bytes()
    body = b"\r\n".join(
        (b"--cut", b'content-disposition: form-data; name="image"; filename="zoo.png"', b"", sample, b"--cut--", b"")
    )
    name = send(f"{address}/api/images", body, "multipart/form-data; boundary=cut")["image"]
    ask = {"image": name, "prompts": [{"texts": ["elephant"]}]}
    told = send(f"{address}/api/segment", json.dumps(ask).encode(), "application/json")
    (row,) = told["answers"][0]["rows"]
    wanted = segclip.load("mini")(ROOT / "samples" / "zoo.png", "elephant")
    assert row["mask"] == segclip.to_record(wanted)["rows"][0]["rle"]


def send(address: str, body: bytes, kind: str) -> Any:
    request = urllib.request.Request(address, body, {"content-type": kind})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)
