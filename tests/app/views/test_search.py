"""The Search page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import expect

from app.state import Studio
from tests.app.browsing import PATIENCE, Person, in_browser
from tests.app.pages import show


def test_search_without_an_index_is_an_error(shared_studio: Studio, tmp_path: Path) -> None:
    shared_studio.settings = replace(shared_studio.settings, indexes=tmp_path)
    page = show("search")
    assert not page.exception
    page.text_input[0].set_value("a red box").run()
    assert not page.exception
    assert page.error


@in_browser
def test_search_indexes_a_folder_finds_by_text_and_opens_matches(person: Person) -> None:
    page = person.turn("Search")
    page.get_by_text("has no index yet").wait_for()
    person.fill("Find images of", "pencil")
    page.get_by_text("index").and_(page.locator("[data-testid=stAlert] *")).first.wait_for()
    page.get_by_role("button", name="Make index").click()
    page.get_by_text("2 images,").wait_for()
    person.fill("Find images of", "a pencil")
    page.get_by_role("button", name="Open in Segment").first.wait_for()
    assert page.get_by_test_id("stImageCaption").first.inner_text().startswith("desk.png: ")
    page.get_by_role("button", name="Open in Segment").first.click()
    page.locator(".studio[data-image='desk.png'][data-waiting=no]").wait_for()
    assert page.get_by_label("What to cut out").input_value() == "a pencil"
    assert "found" in person.headline
    person.turn("Search")
    page.get_by_text("Similar to my image").click()
    # the matches of the text stay on the page until those of the image replace them
    first = page.get_by_test_id("stImageCaption").first
    expect(first).to_have_text(re.compile(r"^desk\.png: 1\.0"), timeout=PATIENCE)
