"""A browser's work, found by the key in its address."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser
from streamlit.testing.v1 import AppTest

from app.samples import FIRST
from app.state import Studio
from tests.app.browsing import ROOT, Person, in_browser
from tests.app.pages import SCRIPT, work_of


@pytest.fixture
def app_page(shared_studio: Studio) -> AppTest:
    """Open the first page."""
    return AppTest.from_file(SCRIPT, default_timeout=30).run()


def test_two_sessions_are_separate(app_page: AppTest, shared_studio: Studio, upload: bytes) -> None:
    other = AppTest.from_file(SCRIPT, default_timeout=30).run()
    app_page.file_uploader[0].set_value(("mine.png", upload, "image/png")).run()
    assert work_of(other, shared_studio).image.source == FIRST
    assert app_page.session_state["work"] != other.session_state["work"]


def test_an_evicted_work_starts_again(app_page: AppTest, shared_studio: Studio) -> None:
    for _ in range(shared_studio.settings.works):
        shared_studio.begin()
    app_page.run()
    assert not app_page.exception
    assert app_page.toast
    assert work_of(app_page, shared_studio).image.source == FIRST


def test_the_address_keeps_the_work(
    app_page: AppTest, shared_studio: Studio, upload: bytes
) -> None:
    app_page.file_uploader[0].set_value(("mine.png", upload, "image/png")).run()
    again = AppTest.from_file(SCRIPT, default_timeout=30)
    again.query_params["work"] = app_page.session_state["work"]
    assert work_of(again.run(), shared_studio).image.source == "mine.png"
    assert not again.toast
    stranger = AppTest.from_file(SCRIPT, default_timeout=30)
    stranger.query_params["work"] = "guessed"
    assert work_of(stranger.run(), shared_studio).image.source == FIRST


@in_browser
def test_a_reload_keeps_the_work_and_users_are_separate(
    person: Person, browser: Browser, address: str
) -> None:
    person.open(ROOT / "samples" / "desk.png")
    person.enter_text("pencil", "found")
    person.page.reload()
    person.ready()
    assert person.root.get_attribute("data-image") == "desk.png"
    assert person.page.get_by_label("What to cut out").input_value() == "pencil"
    other = Person(browser.new_context().new_page(), address).go().ready()
    assert other.root.get_attribute("data-image") == FIRST
    other.click(100, 100)
    assert person.places() == ([], [])
    other.page.context.close()
