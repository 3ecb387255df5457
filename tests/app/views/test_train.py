"""The Train page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect
from streamlit.testing.v1 import AppTest

from app.jobs.training import Training
from app.state import Studio
from tests.app.browsing import Person, in_browser
from tests.app.jobs.test_training import wait
from tests.app.pages import button
from train import shapes


@pytest.fixture
def app_page(shared_studio: Studio, runs: Training) -> AppTest:
    """Open the page alone, with a folder of runs."""
    shared_studio.training = runs
    return AppTest.from_string("from app.views import train\ntrain.show()\n", default_timeout=30)


def test_the_page_starts_a_run_watches_it_and_uses_it(
    app_page: AppTest, shared_studio: Studio, runs: Training
) -> None:
    app_page.run()
    assert not app_page.exception
    app_page.radio[0].set_value("My own").run()
    assert button(app_page, "Start").disabled  # type: ignore[attr-defined]
    app_page.text_input(key="train-path").set_value("images").run()
    app_page.number_input(key="train-epochs").set_value(2).run()
    app_page.text_input(key="train-more").set_value("--loss 'sig").run()
    button(app_page, "Start").click().run()  # type: ignore[attr-defined]
    assert not app_page.exception
    assert "quotation" in app_page.error[0].value
    app_page.text_input(key="train-more").set_value("").run()
    button(app_page, "Start").click().run()  # type: ignore[attr-defined]
    assert not app_page.exception
    wait(runs)
    app_page.run()
    assert not app_page.exception
    assert [one.value for one in app_page.metric] == ["1.000", "20.0%"]
    button(app_page, "Use best checkpoint").click().run()  # type: ignore[attr-defined]
    work = shared_studio.find(app_page.session_state["work"])
    assert work is not None
    assert work.words == f"mini + file:{runs.folder / 'run-1' / 'used' / 'epoch-002'}"


def test_training_needs_the_local_machine_and_the_recipes(
    app_page: AppTest, shared_studio: Studio, runs: Training
) -> None:
    settings = shared_studio.settings
    shared_studio.settings = replace(settings, alone=False)
    app_page.run()
    assert "only on the machine" in app_page.info[0].value
    assert not app_page.button
    shared_studio.settings = settings
    shared_studio.training = Training(runs.folder, clone=Path("/nowhere"))
    app_page.run()
    assert "from a clone" in app_page.info[0].value
    assert not app_page.button


@in_browser
def test_a_run_is_trained_watched_and_used_for_texts(person: Person, tmp_path: Path) -> None:
    shapes.write(tmp_path / "shapes", 60, held_out=20)
    page = person.turn("Train")
    page.get_by_text("No training runs yet").wait_for()
    page.get_by_text("My own", exact=True).click()
    person.fill("Folder or file", str(tmp_path / "nowhere"))
    person.fill("Name", "tiny")
    page.get_by_role("button", name="Start").click()
    page.get_by_text("no such file or folder").first.wait_for()
    person.fill("Folder or file", str(tmp_path / "shapes"))
    person.fill("Epochs", "2", "spinbutton")
    person.fill("Batch", "20", "spinbutton")
    person.fill("More options", "--size 32")
    person.fill("Name", "tiny")
    page.get_by_role("button", name="Start").click()
    page.get_by_text("being trained").first.wait_for()
    page.reload()
    page.get_by_text("being trained").first.wait_for()
    page.get_by_text("done: epoch 2 of 2").wait_for()
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(2)
    page.get_by_role("button", name="Use best checkpoint").click()
    person.ready()
    page.wait_for_url(lambda url: "/train" not in url)
    assert person.headline
    person.turn("Models")
    expect(page.get_by_role("combobox", name="Model for texts")).to_have_value(
        re.compile("tiny/used/epoch-00[12]$")
    )
    person.complaints.clear()  # a reload below the root requests a health path that is 404
