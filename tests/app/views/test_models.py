"""The Models page."""

from __future__ import annotations

import re
from dataclasses import replace

import streamlit
from playwright.sync_api import expect

import segclip
from app.models import Models
from app.samples import FIRST, TEXTS
from app.state import Studio
from app.views.models import use_model
from tests import batch_script
from tests.app.browsing import ROOT, Person, in_browser
from tests.app.pages import show, work_of


def test_models_are_chosen_and_a_missing_one_is_reported(
    shared_studio: Studio,
) -> None:
    page = show("models")
    assert not page.exception
    page.selectbox[0].set_value("photo").run()
    assert work_of(page, shared_studio).words == "photo"

    def missing(*names: str | None) -> segclip.Segmenter:
        raise segclip.WeightsMissing("it is not on this machine")

    shared_studio.models = Models(missing)
    page.selectbox[0].set_value("photo-large").run()
    assert not page.exception
    assert "not on this machine" in page.error[0].value
    assert work_of(page, shared_studio).words == "photo"


def test_a_model_that_fails_to_load_is_reported_and_the_former_stays(
    shared_studio: Studio,
) -> None:
    """Fault 17.11: such as ViT-B-32/file: a text file."""
    page = show("models")

    def broken(*names: str | None) -> segclip.Segmenter:
        raise AssertionError("unpickling stack underflow")

    shared_studio.models = Models(broken)
    page.selectbox[0].set_value("photo").run()
    assert not page.exception
    assert "cannot be loaded" in page.error[0].value
    assert work_of(page, shared_studio).words == "mini"
    assert not show("segment").exception
    assert not show("classify").exception


def test_remote_users_choose_only_installed_models(
    shared_studio: Studio,
) -> None:
    """Fault 17.12a: no other name that a browser sends is loaded."""
    loaded: list[tuple[str | None, ...]] = []

    def load(*names: str | None) -> segclip.Segmenter:
        loaded.append(names)
        return batch_script.fake_load()

    shared_studio.models = Models(load)
    shared_studio.settings = replace(shared_studio.settings, alone=False)
    _, work = shared_studio.begin()
    forged = (
        "mini-fastsam + file:/etc/x",
        "file:/etc/x",
        "mini + hf-hub:a/b",
        "",
        None,
        7,
        ["mini"],
        "photo-large",
    )
    for name in forged:
        for kind in ("words", "clicks"):
            assert not use_model(shared_studio, work, kind, name)  # type: ignore[arg-type]
            assert streamlit.session_state.pop("model-error")
    assert use_model(shared_studio, work, "words", "mini")
    assert (work.words, work.clicks) == ("mini", "mini-sam")
    assert loaded == [("mini", None)]


@in_browser
def test_models_are_switched_a_missing_one_is_reported_a_custom_one_used(
    person: Person, mini: segclip.Segmenter
) -> None:
    page = person.turn("Models")

    def choose(title: str, name: str) -> None:
        page.get_by_role("combobox", name=title).click()
        page.get_by_role("option", name=name).click()

    choose("Model for texts", "photo (")
    page.get_by_test_id("stAlert").filter(has_text="fastsam-s").wait_for()
    choose("Model for clicks and boxes", "mini (")
    expect(page.get_by_test_id("stAlert")).to_have_count(0)
    page.get_by_text("Custom models").click()
    person.fill("Encoder", f"file:{ROOT / 'weights' / 'mini' / 'clip'}")
    page.get_by_role("button", name="Use for texts").click()
    expect(page.get_by_role("combobox", name="Model for texts")).to_have_value(
        re.compile("mini-fastsam . file:.*clip$")
    )
    person.turn("Segment")
    person.ready()
    assert person.headline == f"{len(mini(ROOT / 'samples' / FIRST, TEXTS[FIRST]))} found"
    person.click(200, 370)
    assert person.headline == "The object at the click"
