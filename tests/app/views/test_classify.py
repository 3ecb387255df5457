"""The Classify page."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

import segclip
from tests.app.browsing import ROOT, Person, in_browser
from tests.app.pages import show


@pytest.mark.usefixtures("shared_studio")
def test_classify_ranks_labels() -> None:
    page = show("classify")
    page.text_area[0].set_value("a red box, a green box").run()
    assert not page.exception
    assert "a red box" in page.get("progress")[0].proto.text
    page.text_area[0].set_value(" , ").run()
    assert "no labels were given" in page.error[0].value


@in_browser
def test_classify_ranks_labels_of_the_image_and_of_each_object(
    person: Person, mini: segclip.Segmenter
) -> None:
    person.open(ROOT / "samples" / "desk.png")
    page = person.turn("Classify")
    bars = page.get_by_test_id("stProgress")
    labels = "an apple, an elephant, a bus"
    wanted = segclip.classify(ROOT / "samples" / "desk.png", labels, encoder=mini.encoder)
    field = page.get_by_role("textbox", name="Labels, separated by commas")
    field.fill(labels)
    field.press("Control+Enter")
    expect(bars).to_have_count(3)
    assert bars.first.inner_text() == f"{wanted[0][0].label} {wanted[0][0].probability:.2f}"
    page.get_by_text("Each object").click()
    bars.filter(has_text="cup of coffee").wait_for()
    assert bars.filter(has_text="pencil").count() == 1
    field = page.get_by_role("textbox", name="Labels, separated by commas")
    field.fill(" , ")
    field.press("Control+Enter")
    page.get_by_text("no labels were given").wait_for()
