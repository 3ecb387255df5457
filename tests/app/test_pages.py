"""The pages without a browser: their widgets, with fake models."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit
from streamlit.testing.v1 import AppTest

import segclip
from app.samples import FIRST, TEXTS
from app.state import CachedImage, Studio, Work
from app.views import models
from segclip.types import Image
from tests import batch_script
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


def test_typed_texts_become_the_question(page: AppTest, shared_studio: Studio) -> None:
    assert not page.exception
    page.text_input[0].set_value(" a red box,  a blue box, ,a red box").run()
    page.text_input[1].set_value("a tomato").run()
    question = work_of(page, shared_studio).draft
    assert (question.texts, question.negatives) == (("a red box", "a blue box"), ("a tomato",))
    assert not page.exception


def test_a_text_that_is_also_excluded_is_undone(page: AppTest, shared_studio: Studio) -> None:
    page.text_input[1].set_value(TEXTS[FIRST]).run()
    assert not page.exception
    assert work_of(page, shared_studio).draft.negatives == ()


def test_a_sample_brings_its_text(page: AppTest, shared_studio: Studio) -> None:
    page.pills[0].set_value("zoo.png").run()
    work = work_of(page, shared_studio)
    assert (work.image.source, work.draft.texts) == ("zoo.png", ("penguin",))


def test_an_upload_is_opened_a_bad_one_is_not(
    page: AppTest, shared_studio: Studio, upload: bytes
) -> None:
    page.file_uploader[0].set_value(("mine.png", upload, "image/png")).run()
    assert work_of(page, shared_studio).image.source == "mine.png"
    page.file_uploader[0].set_value(("bad.png", upload[:90], "image/png")).run()
    assert not page.exception
    assert work_of(page, shared_studio).image.source == "mine.png"


def test_two_sessions_are_separate(page: AppTest, shared_studio: Studio, upload: bytes) -> None:
    other = AppTest.from_file(SCRIPT, default_timeout=30).run()
    page.file_uploader[0].set_value(("mine.png", upload, "image/png")).run()
    assert work_of(other, shared_studio).image.source == FIRST
    assert page.session_state["work"] != other.session_state["work"]


def test_an_evicted_work_starts_again(page: AppTest, shared_studio: Studio) -> None:
    for _ in range(shared_studio.settings.works):
        shared_studio.begin()
    page.run()
    assert not page.exception
    assert page.toast
    assert work_of(page, shared_studio).image.source == FIRST


def show(name: str) -> AppTest:
    """Open a single page: tests cannot switch to a function page of the navigation."""
    source = f"from app.views import {name}\n{name}.show()\n"
    return AppTest.from_string(source, default_timeout=30).run()


@pytest.mark.usefixtures("shared_studio")
def test_classify_ranks_labels() -> None:
    page = show("classify")
    page.text_area[0].set_value("a red box, a green box").run()
    assert not page.exception
    assert "a red box" in page.get("progress")[0].proto.text
    page.text_area[0].set_value(" , ").run()
    assert "no labels were given" in page.error[0].value


def test_export_reports_an_empty_result(shared_studio: Studio) -> None:
    shared_studio._samples[FIRST] = CachedImage(paint())
    page = show("export")
    assert not page.exception
    assert "nothing to export" in page.info[0].value


def test_models_are_chosen_and_a_missing_one_is_reported(
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


def test_search_without_an_index_is_an_error(shared_studio: Studio, tmp_path: Path) -> None:
    object.__setattr__(shared_studio.settings, "indexes", tmp_path)
    page = show("search")
    assert not page.exception
    page.text_input[0].set_value("a red box").run()
    assert not page.exception
    assert page.error


HOSTILE = "![x](https://evil.test/x.png)"


def markdown_of(page: AppTest) -> list[str]:
    """Return every text of a page that Streamlit renders as Markdown."""
    texts = [
        one.value
        for kind in ("markdown", "caption", "error", "info", "success")
        for one in getattr(page, kind)
    ]
    texts += [one.proto.text for one in page.get("progress")]
    return texts + [image.caption for one in page.get("image") for image in one.proto.imgs]


@pytest.mark.parametrize("name", ["classify", "export", "models", "search", "segment", "train"])
def test_no_page_renders_a_users_text_as_markdown(
    shared_studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Fault 17.12: file names, labels, texts, and errors that quote them."""
    object.__setattr__(shared_studio.settings, "indexes", tmp_path)
    shared_studio._samples[FIRST] = CachedImage(
        Image(paint(("red", (10, 10, 50, 50))).pixels, HOSTILE)
    )

    def broken(*_: object, **__: object) -> None:
        raise segclip.BadPrompt(f"{HOSTILE} is none")

    page = show(name)
    texts = markdown_of(page)
    monkeypatch.setattr(segclip, "load", broken)
    monkeypatch.setattr(segclip, "find_matches", broken)
    monkeypatch.setattr(Studio, "index", lambda self: None)
    shared_studio.models._loaded.clear()
    for widget in (*page.text_input, *page.text_area):
        texts += markdown_of(widget.set_value(f"{HOSTILE}, file:{HOSTILE}").run())
    for widget in page.selectbox:
        texts += markdown_of(widget.set_value(widget.options[-1]).run())
    # the search page's fragment reruns, which tests cannot do
    for button in page.button if name != "search" else ():
        if not button.disabled:
            texts += markdown_of(button.click().run())
    quoted = [text for text in texts if "evil.test" in text]
    assert quoted or name in ("models", "train")
    assert not [text for text in quoted if HOSTILE in text or "https://" in text]
    assert not page.exception


def test_remote_users_choose_only_installed_models(
    shared_studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.12a: no other name that a browser sends is loaded."""
    loaded: list[tuple[object, ...]] = []

    def load(*names: object) -> object:
        loaded.append(names)
        return batch_script.fake_load()

    monkeypatch.setattr(segclip, "load", load)
    object.__setattr__(shared_studio.settings, "alone", False)
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
    with monkeypatch.context() as patch:
        state: dict[str, object] = {}
        patch.setattr(streamlit, "session_state", state)
        for name in forged:
            for kind in ("words", "clicks"):
                assert not models.use_model(shared_studio, work, kind, name)  # type: ignore[arg-type]
                assert state.pop("model-error")
        assert models.use_model(shared_studio, work, "words", "mini")
    assert (work.words, work.clicks) == ("mini", "mini-sam")
    assert loaded == [("mini", None)]


def test_a_model_that_fails_to_load_is_reported_and_the_former_stays(
    shared_studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.11: such as ViT-B-32/file: a text file."""
    page = show("models")

    def broken(*_: object) -> None:
        raise AssertionError("unpickling stack underflow")

    monkeypatch.setattr(segclip, "load", broken)
    page.selectbox[0].set_value("photo").run()
    assert not page.exception
    assert "cannot be loaded" in page.error[0].value
    assert work_of(page, shared_studio).words == "mini"
    shared_studio.models._loaded.clear()
    assert not show("segment").exception
    assert not show("classify").exception
