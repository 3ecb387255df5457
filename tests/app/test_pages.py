"""The pages without a browser: what their widgets do, with fakes in place of the models."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import segclip
from app.state import Known, Studio, Work
from tests.fakes import paint

SCRIPT = str(Path(__file__).parent.parent.parent / "app" / "streamlit_app.py")


@pytest.fixture
def page(shared_studio: Studio) -> AppTest:
    """Open the first page."""
    return AppTest.from_file(SCRIPT, default_timeout=30).run()


def work_of(page: AppTest, studio: Studio) -> Work:
    work = studio.find(page.session_state["work"])
    assert work is not None
    return work


def test_words_typed_are_asked(page: AppTest, shared_studio: Studio) -> None:
    assert not page.exception
    page.text_input[0].set_value(" a red box,  a blue box, ,a red box").run()
    page.text_input[1].set_value("a tomato").run()
    question = work_of(page, shared_studio).question
    assert (question.texts, question.negatives) == (("a red box", "a blue box"), ("a tomato",))
    assert not page.exception


def test_a_word_asked_for_and_ruled_out_is_told_and_taken_back(page: AppTest, shared_studio: Studio) -> None:
    page.text_input[1].set_value("red apple").run()
    assert not page.exception
    assert work_of(page, shared_studio).question.negatives == ()


def test_a_sample_brings_its_text(page: AppTest, shared_studio: Studio) -> None:
    page.pills[0].set_value("zoo").run()
    work = work_of(page, shared_studio)
    assert (work.image.source, work.question.texts) == ("zoo.png", ("elephant",))


def test_an_upload_is_opened_a_bad_one_is_not(page: AppTest, shared_studio: Studio, upload: bytes) -> None:
    page.file_uploader[0].set_value(("mine.png", upload, "image/png")).run()
    assert work_of(page, shared_studio).image.source == "mine.png"
    page.file_uploader[0].set_value(("bad.png", upload[:90], "image/png")).run()
    assert not page.exception
    assert work_of(page, shared_studio).image.source == "mine.png"


def test_two_sessions_are_apart(page: AppTest, shared_studio: Studio, upload: bytes) -> None:
    other = AppTest.from_file(SCRIPT, default_timeout=30).run()
    page.file_uploader[0].set_value(("mine.png", upload, "image/png")).run()
    assert work_of(other, shared_studio).image.source == "desk.png"
    assert page.session_state["work"] != other.session_state["work"]


def test_a_work_that_had_to_go_begins_anew(page: AppTest, shared_studio: Studio) -> None:
    for _ in range(shared_studio.settings.works):
        shared_studio.begin()
    page.run()
    assert not page.exception
    assert page.toast
    assert work_of(page, shared_studio).image.source == "desk.png"


def show(name: str) -> AppTest:
    """Open one page alone: a page of navigation that is a function cannot be switched to in a test."""
    source = f"from app.views import {name}\n{name}.show()\n"
    return AppTest.from_string(source, default_timeout=30).run()


@pytest.mark.usefixtures("shared_studio")
def test_classify_ranks_labels_and_names_things() -> None:
    page = show("classify")
    page.text_area[0].set_value("a red box, a green box").run()
    assert not page.exception
    assert "a red box" in page.get("progress")[0].proto.text
    page.text_area[0].set_value(" , ").run()
    assert "no labels were given" in page.error[0].value


def test_export_says_when_there_is_nothing_to_export(shared_studio: Studio) -> None:
    shared_studio._samples["desk"] = Known(paint())
    page = show("export")
    assert not page.exception
    assert "nothing to export" in page.info[0].value


def test_models_are_chosen_and_one_that_is_missing_is_told(
    shared_studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = show("models")
    assert not page.exception
    page.selectbox[0].set_value("photo").run()
    assert work_of(page, shared_studio).words == "photo"

    def missing(*names: str) -> None:
        raise segclip.WeightsMissing("it is not on this machine")

    monkeypatch.setattr(segclip, "load", missing)
    page.selectbox[0].set_value("photo-large").run()
    assert not page.exception
    assert "not on this machine" in page.error[0].value
    assert work_of(page, shared_studio).words == "photo"


def test_search_without_an_index_says_so(shared_studio: Studio, tmp_path: Path) -> None:
    object.__setattr__(shared_studio.settings, "indexes", tmp_path)
    page = show("search")
    assert not page.exception
    page.text_input[0].set_value("a red box").run()
    assert not page.exception
    assert page.error
