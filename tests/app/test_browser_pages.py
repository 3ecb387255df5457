"""The other pages in real Chromium, with the shipped models: the main task of each page."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import expect

import segclip
from app.samples import FIRST, TEXTS
from tests.app.browsing import CHROMIUM, ROOT, Person
from train import shapes

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"
    ),
]
SAMPLES = ROOT / "samples"


def test_export_gives_the_current_masks_as_the_library_writes_them(
    person: Person, tmp_path: Path
) -> None:
    page = person.turn("Export")
    page.get_by_text("as on the Segment page").wait_for()
    page.get_by_role("button", name="png", exact=True).click()
    page.get_by_role("button", name="json", exact=True).click()
    page.get_by_text("json: record").wait_for()
    record = json.loads(person.save("Download masks", tmp_path / "desk.json").read_text())
    wanted = segclip.to_record(segclip.load("mini")(SAMPLES / FIRST, TEXTS[FIRST]))
    assert record["rows"][0]["rle"] == wanted["rows"][0]["rle"]
    assert len(record["rows"]) == len(wanted["rows"])


def test_a_zip_is_exported_cancelled_and_resumed(person: Person, tmp_path: Path) -> None:
    names = ("desk.png", "coffee.jpg", "cat.jpg", "zoo.png")
    count = 16  # enough to press Cancel in time on a fast machine
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for number in range(count):
            name = names[number % len(names)]
            archive.write(SAMPLES / name, f"{number:02d}-{name}")
    page = person.turn("Export")
    page.locator("input[type=file]").set_input_files(tmp_path / "in.zip")
    person.fill("Texts, separated by commas", "penguin")
    page.get_by_role("button", name="Start").click()
    page.get_by_text(re.compile(rf"[1-9]\d* of {count} images, running")).wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("images, cancelled").wait_for()
    page.get_by_role("button", name="Resume").click()
    page.get_by_text(f"{count} of {count} images, done").wait_for()
    with zipfile.ZipFile(person.save("Download zip", tmp_path / "out.zip")) as archive:
        masks = [name for name in archive.namelist() if name.endswith(".png")]
        zoo = [name for name in masks if "zoo" in name]
        assert len(zoo) == count // len(names)
        mask = np.array(PIL.Image.open(io.BytesIO(archive.read(zoo[-1]))))
        assert any(name.endswith(".json") for name in archive.namelist())
    assert np.array_equal(
        mask > 0, segclip.load("mini")(SAMPLES / "zoo.png", "penguin").masks.full(0)
    )


def test_classify_ranks_labels_of_the_image_and_of_each_object(
    person: Person,
) -> None:
    person.open(SAMPLES / "desk.png")
    page = person.turn("Classify")
    bars = page.get_by_test_id("stProgress")
    wanted = segclip.classify(
        SAMPLES / "desk.png", "an apple, an elephant, a bus", encoder=segclip.load("mini").encoder
    )
    field = page.get_by_role("textbox", name="Labels, separated by commas")
    field.fill("an apple, an elephant, a bus")
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


def test_search_indexes_a_folder_finds_by_text_and_opens_matches(person: Person) -> None:
    page = person.turn("Search")
    page.get_by_text("has no index yet").wait_for()
    person.fill("Find images of", "penguin")
    page.get_by_text("index").and_(page.locator("[data-testid=stAlert] *")).first.wait_for()
    page.get_by_role("button", name="Make index").click()
    page.get_by_text("2 images,").wait_for()
    person.fill("Find images of", "a penguin")
    page.get_by_role("button", name="Open in Segment").first.wait_for()
    assert page.get_by_test_id("stImageCaption").first.inner_text().startswith("zoo.png: ")
    page.get_by_role("button", name="Open in Segment").first.click()
    page.locator(".studio[data-image='zoo.png'][data-waiting=no]").wait_for()
    assert page.get_by_label("What to cut out").input_value() == "a penguin"
    assert "found" in person.headline
    person.turn("Search")
    page.get_by_text("Similar to my image").click()
    page.get_by_role("button", name="Open in Segment").first.wait_for()
    assert page.get_by_test_id("stImageCaption").first.inner_text().startswith("zoo.png: ")


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


def test_models_are_switched_a_missing_one_is_reported_a_custom_one_used(
    person: Person,
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
    assert (
        person.headline == f"{len(segclip.load('mini')(SAMPLES / 'desk.png', 'red apple'))} found"
    )
    person.click(200, 370)
    assert person.headline == "The object at the click"


def test_no_text_is_read_as_markdown(person: Person) -> None:
    """Fault 17.12: no file name, text or error makes the browser fetch anything external."""
    hostile = "![x](https:evil.test) <b>b :red[r] www.evil.test.png"
    page = person.page
    page.get_by_role("button", name="Image").click()
    given = {
        "name": hostile,
        "mimeType": "image/png",
        "buffer": (SAMPLES / "desk.png").read_bytes(),
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
