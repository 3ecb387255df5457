"""The site around the pages: menu and footer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playwright.sync_api import expect
from streamlit.testing.v1 import AppTest

from app.state import Studio
from tests.app.browsing import Person, in_browser
from tests.app.pages import SCRIPT


@pytest.mark.usefixtures("shared_studio")
def test_the_footer_offers_the_running_source() -> None:
    page = AppTest.from_file(SCRIPT, default_timeout=30).run()
    assert not page.exception
    assert [one.proto.label for one in page.get("download_button")][-1] == "Source"
    assert "Everything stays on the machine" in page.caption[-1].value


def test_the_footer_links_to_a_source_elsewhere(shared_studio: Studio) -> None:
    source = "https://example.org/segclip"
    shared_studio.settings = replace(shared_studio.settings, source=source)
    page = AppTest.from_file(SCRIPT, default_timeout=30).run()
    assert [one.proto.url for one in page.get("link_button")] == [source]
    assert "Source" not in [one.proto.label for one in page.get("download_button")]


@in_browser
def test_the_menu_leads_to_every_page(person: Person) -> None:
    for tab, text in (
        ("Export", "as on the Segment page"),
        ("Classify", "Classification"),
        ("Search", "Find images of"),
        ("Train", "A new run"),
        ("Models", "Weights"),
        ("Segment", "What to cut out"),
    ):
        expect(person.turn(tab).get_by_text(text).first).to_be_visible()
