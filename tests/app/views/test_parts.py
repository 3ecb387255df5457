"""What several pages share: downloads, and text of users that no page renders."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import expect

import segclip
from app.models import Models
from app.samples import FIRST
from app.settings import Settings
from app.state import CachedImage, Studio
from app.views import parts
from segclip.types import Image
from tests.app.browsing import ROOT, Person, in_browser
from tests.app.pages import HOSTILE, markdown_of, show
from tests.fakes import paint


@pytest.mark.parametrize("name", ["classify", "export", "models", "search", "segment", "train"])
def test_no_page_renders_a_users_text_as_markdown(
    shared_studio: Studio, tmp_path: Path, name: str
) -> None:
    """Fault 17.12: file names, labels, texts, and errors that quote them."""
    place = tmp_path / HOSTILE  # which the error about a missing index quotes
    shared_studio.settings = replace(shared_studio.settings, indexes=place)
    shared_studio.samples[FIRST] = CachedImage(
        Image(paint(("red", (10, 10, 50, 50))).pixels, HOSTILE)
    )

    def broken(*names: str | None) -> segclip.Segmenter:
        raise segclip.BadPrompt(f"{HOSTILE} is none")

    page = show(name)
    texts = markdown_of(page)
    shared_studio.models = Models(broken)
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
    assert not [text for text in quoted if "![x](" in text or "https:/" in text]
    assert not page.exception


def test_only_what_a_widget_offers_is_taken_from_it() -> None:
    assert parts.allowed(["png", "exe", "coco", "../x"], parts.KINDS) == ["png", "coco"]
    assert parts.allowed(None, parts.KINDS) == []


def test_every_format_of_an_image_is_described() -> None:
    assert set(parts.KINDS) == set(segclip.PER_IMAGE)


def test_only_the_local_user_sees_the_servers_folders(tmp_path: Path) -> None:
    studio = Studio(Settings(indexes=tmp_path / "very secret", alone=True))
    message = f"{studio.index_place()}: damaged"
    assert "secret" in parts.problem(studio, message)
    studio.settings = replace(studio.settings, alone=False)
    assert "secret" not in parts.problem(studio, message)
    assert "damaged" in parts.problem(studio, message)


@in_browser
def test_the_mask_of_an_upload_is_the_librarys_own(
    person: Person, mini: segclip.Segmenter, tmp_path: Path
) -> None:
    person.open(ROOT / "samples" / "desk.png")
    person.enter_text("pencil", "1 found")
    person.page.get_by_role("button", name="Masks").click()
    with zipfile.ZipFile(person.save("Download masks", tmp_path / "masks.zip")) as archive:
        (name,) = archive.namelist()
        mask = np.array(PIL.Image.open(io.BytesIO(archive.read(name))))
    result = mini(ROOT / "samples" / "desk.png", "pencil")
    assert len(result) == 1
    assert np.array_equal(mask > 0, result.masks.full(0))


@in_browser
def test_no_text_is_read_as_markdown(person: Person, upload: bytes) -> None:
    """Fault 17.12: no file name, text or error makes the browser fetch anything external."""
    hostile = "![x](https:evil.test) <b>b :red[r] www.evil.test.png"
    page = person.page
    page.get_by_role("button", name="Image").click()
    given = {
        "name": hostile,
        "mimeType": "image/png",
        "buffer": upload,
    }
    page.locator("input[type=file]").first.set_input_files(given)  # type: ignore[arg-type]
    page.locator(".studio[data-image*='evil.test'][data-waiting=no]").wait_for()
    page.get_by_role("button", name="Image").click()
    expect(page.get_by_text(re.compile(r"!\[x\]\(https:.?evil\.test\)")).first).to_be_visible()
    person.turn("Classify")
    labels = page.get_by_role("textbox", name="Labels, separated by commas")
    labels.fill("![x](https://evil.test/x.png), https://evil.test, [l](https://evil.test)")
    labels.press("Control+Enter")
    page.get_by_test_id("stProgress").filter(has_text="![x](").first.wait_for()
    for tag in ("img[src*='evil']", "a[href*='evil']"):
        assert page.locator(tag).count() == 0
    person.turn("Export")
    page.get_by_text("as on the Segment page").wait_for()
    for tag in ("img[src*='evil']", "a[href*='evil']"):
        assert page.locator(tag).count() == 0
