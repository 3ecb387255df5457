"""The Segment page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import Browser
from streamlit.testing.v1 import AppTest

import segclip
from app.samples import FIRST, TEXTS
from app.state import Studio
from tests.app.browsing import ROOT, Person, in_browser
from tests.app.pages import SCRIPT, work_of
from tests.fakes import paint


@pytest.fixture
def app_page(shared_studio: Studio) -> AppTest:
    """Open the page."""
    return AppTest.from_file(SCRIPT, default_timeout=30).run()


def test_typed_texts_become_the_question(app_page: AppTest, shared_studio: Studio) -> None:
    assert not app_page.exception
    app_page.text_input[0].set_value(" a red box,  a blue box, ,a red box").run()
    app_page.text_input[1].set_value("a tomato").run()
    question = work_of(app_page, shared_studio).draft
    assert (question.texts, question.negatives) == (("a red box", "a blue box"), ("a tomato",))
    assert not app_page.exception


def test_a_text_that_is_also_excluded_is_undone(app_page: AppTest, shared_studio: Studio) -> None:
    app_page.text_input[1].set_value(TEXTS[FIRST]).run()
    assert not app_page.exception
    assert work_of(app_page, shared_studio).draft.negatives == ()


def test_a_sample_brings_its_text(app_page: AppTest, shared_studio: Studio) -> None:
    app_page.pills[0].set_value("zoo.png").run()
    work = work_of(app_page, shared_studio)
    assert (work.image.source, work.draft.texts) == ("zoo.png", ("penguin",))


def test_an_upload_is_opened_a_bad_one_is_not(
    app_page: AppTest, shared_studio: Studio, upload: bytes
) -> None:
    app_page.file_uploader[0].set_value(("mine.png", upload, "image/png")).run()
    assert work_of(app_page, shared_studio).image.source == "mine.png"
    app_page.file_uploader[0].set_value(("bad.png", upload[:90], "image/png")).run()
    assert not app_page.exception
    assert work_of(app_page, shared_studio).image.source == "mine.png"


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an image of 12 megapixels with two objects: those of a photo take long to embed."""
    path = tmp_path_factory.mktemp("photos") / "large.jpg"
    shapes = ("red", (300, 300, 1700, 1500)), ("blue", (2500, 900, 3600, 2600))
    drawn = paint(*shapes, size=(3000, 4000))
    PIL.Image.fromarray(drawn.pixels).save(path, quality=80)
    return path


@in_browser
def test_the_app_opens_with_an_answered_sample(person: Person) -> None:
    assert "found" in person.headline
    assert person.page.get_by_label("What to cut out").input_value() == TEXTS[FIRST]
    assert FIRST in (person.page.locator("canvas.view").get_attribute("aria-label") or "")
    assert person.page.locator(".card").count() >= 1


@in_browser
def test_clicks_right_clicks_drags_undo_and_escape(person: Person) -> None:
    headline = person.headline
    person.click(200, 370)
    assert person.headline == "The object at the click"
    person.click(420, 380, button="right")
    person.page.keyboard.down("Shift")
    person.click(600, 200)
    person.page.keyboard.up("Shift")
    points, _ = person.places()
    assert [label for _, _, label in points] == [1, 0, 0]
    with person.answered():
        person.page.keyboard.press("Control+z")
    assert len(person.places()[0]) == 2
    person.drag((430, 350), (630, 550))
    assert person.headline == "The object in the box"
    assert person.places()[0] == []
    with person.answered():
        person.page.keyboard.press("Escape")
    assert person.places() == ([], [])
    assert person.headline == headline


@in_browser
def test_clicks_and_boxes_are_exact_on_12_megapixels_at_every_zoom(
    person: Person, photo: Path
) -> None:
    person.open(photo)
    for steps in (0, 2, 3):
        for _ in range(steps):
            person.page.get_by_label("Zoom in").click()
        person.click(333, 222)
        x, y, _ = person.places()[0][-1]
        wanted = person.expected(333, 222, (4000, 3000))
        assert abs(x - wanted[0]) < 1
        assert abs(y - wanted[1]) < 1
        person.drag((50, 60), (400, 300))
        (box,) = person.places()[1]
        corners = (*person.expected(50, 60, (4000, 3000)), *person.expected(400, 300, (4000, 3000)))
        assert np.abs(np.subtract(box, corners)).max() < 1
    assert float((person.root.get_attribute("data-view") or "").strip("]").split(",")[2]) > 5


@in_browser
def test_an_image_is_pasted_dropped_and_taken_by_the_camera(person: Person, upload: bytes) -> None:
    data = base64.b64encode(upload).decode()
    transfer = """(at, [data, name]) => {
        const held = new DataTransfer();
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        held.items.add(new File([bytes], name, { type: "image/png" }));
        const drop = { dataTransfer: held, bubbles: true };
        at.dispatchEvent(name === "dropped.png" ? new DragEvent("drop", drop)
            : new ClipboardEvent("paste", { clipboardData: held, bubbles: true, composed: true }));
    }"""
    for name in ("pasted.png", "dropped.png"):
        with person.answered():
            person.page.locator(".frame").evaluate(transfer, [data, name])
        assert person.root.get_attribute("data-image") == name
    person.page.get_by_role("button", name="Image").click()
    person.page.get_by_text("Camera", exact=True).click()
    person.page.wait_for_function("() => document.querySelector('video')?.readyState >= 2")
    person.page.get_by_role("button", name="Take Photo").click()
    person.page.locator(".studio[data-image^='camera'][data-waiting=no]").wait_for()


@in_browser
def test_undo_restores_the_former_text(person: Person, mini: segclip.Segmenter) -> None:
    found = len(mini(ROOT / "samples" / FIRST, ["a cup", TEXTS[FIRST]]))
    person.enter_text(f"a cup, {TEXTS[FIRST]}", f"{found} found")
    with person.answered():
        person.page.get_by_role("button", name="Undo").click()
    assert person.page.get_by_label("What to cut out").input_value() == TEXTS[FIRST]


@in_browser
def test_an_absent_object_is_reported_with_near_misses(person: Person) -> None:
    person.enter_text("a submarine", "Nothing here matches “a submarine”")
    assert "below the threshold" in person.page.locator(".notes").inner_text()
    misses = person.page.locator(".card.miss")
    assert misses.count() >= 1
    with person.answered():
        misses.first.click()
    assert misses.first.get_attribute("aria-pressed") == "true"


@in_browser
def test_the_slider_updates_at_once_and_a_click_selects_a_candidate(person: Person) -> None:
    slide = (
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', "
        "{bubbles: true})); }"
    )
    with person.answered():
        person.page.locator(".threshold").evaluate(slide, 1)
    assert "Nothing" in person.headline
    with person.answered():
        person.page.get_by_text("Back to the model's own threshold").click()
    assert "found" in person.headline
    with person.answered():
        person.page.locator(".card").first.click()
    assert person.page.locator(".card").first.get_attribute("aria-pressed") == "true"


@in_browser
def test_a_bad_upload_is_reported_and_the_image_stays(person: Person, tmp_path: Path) -> None:
    bad = tmp_path / "broken.png"
    bad.write_bytes((ROOT / "samples" / "desk.png").read_bytes()[:5000])
    person.upload(bad)
    error = person.page.locator(".error:not([hidden])")
    error.wait_for()
    assert "broken.png" in error.inner_text()
    assert person.root.get_attribute("data-image") == FIRST


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Browser, address: str, scheme: Any) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, color_scheme=scheme
    )
    person = Person(context.new_page(), address).go().ready()
    assert person.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    box = person.canvas()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    with person.answered():
        person.page.touchscreen.tap(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert person.headline == "The object at the click"
    context.close()
