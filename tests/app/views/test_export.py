"""The Export page."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image

import segclip
from app.samples import FIRST, TEXTS
from app.state import CachedImage, Studio
from tests.app.browsing import ROOT, Person, in_browser
from tests.app.pages import show
from tests.app.zips import zip_of_images
from tests.fakes import paint


def test_export_reports_an_empty_result(shared_studio: Studio) -> None:
    shared_studio.samples[FIRST] = CachedImage(paint())
    page = show("export")
    assert not page.exception
    assert "nothing to export" in page.info[0].value


@in_browser
def test_export_gives_the_current_masks_as_the_library_writes_them(
    person: Person, mini: segclip.Segmenter, tmp_path: Path
) -> None:
    page = person.turn("Export")
    page.get_by_text("as on the Segment page").wait_for()
    page.get_by_role("button", name="png", exact=True).click()
    page.get_by_role("button", name="json", exact=True).click()
    page.get_by_text("json: record").wait_for()
    record = json.loads(person.save("Download masks", tmp_path / "desk.json").read_text())
    wanted = segclip.to_record(mini(ROOT / "samples" / FIRST, TEXTS[FIRST]))
    assert record["rows"][0]["rle"] == wanted["rows"][0]["rle"]
    assert len(record["rows"]) == len(wanted["rows"])


@in_browser
def test_a_zip_is_exported_cancelled_and_resumed(
    person: Person, mini: segclip.Segmenter, tmp_path: Path
) -> None:
    """Export a sample after drawings of one object, which are answered soon, but not at once."""
    drawings = 23  # enough to press Cancel in time on a fast machine
    data = io.BytesIO(zip_of_images(drawings))
    with zipfile.ZipFile(data, "a") as archive:
        archive.write(ROOT / "samples" / "desk.png", "z-desk.png")
    (tmp_path / "in.zip").write_bytes(data.getvalue())
    count = drawings + 1
    page = person.turn("Export")
    page.locator("input[type=file]").set_input_files(tmp_path / "in.zip")
    person.fill("Texts, separated by commas", "pencil")
    page.get_by_role("button", name="Start").click()
    page.get_by_text(re.compile(rf"[1-9]\d* of {count} images, running")).wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("images, cancelled").wait_for()
    page.get_by_role("button", name="Resume").click()
    page.get_by_text(f"{count} of {count} images, done").wait_for()
    with zipfile.ZipFile(person.save("Download zip", tmp_path / "out.zip")) as archive:
        (name,) = (name for name in archive.namelist() if "desk" in name and "mask" in name)
        mask = np.array(PIL.Image.open(io.BytesIO(archive.read(name))))
        assert any(name.endswith(".json") for name in archive.namelist())
    wanted = mini(ROOT / "samples" / "desk.png", "pencil")
    assert np.array_equal(mask > 0, wanted.masks.full(0))
