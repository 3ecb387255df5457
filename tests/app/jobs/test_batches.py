"""Batches in the background: progress, cancelling and resuming."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import pytest

import segclip
from app.jobs.batches import Batch
from tests.app.zips import wait, zip_of_images

pytestmark = pytest.mark.usefixtures("fake_models")


def test_a_batch_gives_exports_results_and_removes_its_files(tmp_path: Path) -> None:
    batch = Batch.unpacked(zip_of_images(3))
    batch.start(["a red box"], ["png", "coco"], "mini")
    assert wait(batch) == "done", batch.message
    assert (batch.images, batch.done) == (3, 3)
    segclip.export(
        batch.folder / "in",
        tmp_path,
        "a red box",
        options=segclip.ExportOptions(formats=("png", "coco")),
    )
    with zipfile.ZipFile(io.BytesIO(batch.result())) as archive:
        masks = [name for name in archive.namelist() if name.endswith(".png")]
        assert len([name for name in masks if "mask" in name]) == 3
        for name in masks:
            assert archive.read(name) == (tmp_path / name).read_bytes()
    batch.remove()
    assert not batch.folder.exists()


def test_a_cancelled_batch_resumes() -> None:
    batch = Batch.unpacked(zip_of_images(30))
    batch.start(["a red box"], ["png"], "mini")
    while batch.done < 3 and batch.busy:
        time.sleep(0.002)
    batch.cancel()
    assert wait(batch) == "cancelled"
    done = batch.done
    assert 3 <= done < 30
    batch.start(["a red box"], ["png"], "mini")
    assert wait(batch) == "done", batch.message
    assert batch.done == 30
    batch.remove()


def test_a_batch_without_texts_segments_everything(tmp_path: Path) -> None:
    batch = Batch.unpacked(zip_of_images(2))
    batch.start([], ["coco"], "mini")
    assert wait(batch) == "done", batch.message
    every = segclip.ExportOptions(formats=("coco",), ask=segclip.Ask(everything=True))
    segclip.export(batch.folder / "in", tmp_path, options=every)
    with zipfile.ZipFile(io.BytesIO(batch.result())) as archive:
        assert archive.read("coco.json") == (tmp_path / "coco.json").read_bytes()
    batch.remove()


def test_a_batch_with_a_bad_format_reports_it() -> None:
    batch = Batch.unpacked(zip_of_images(1))
    batch.start(["a red box"], ["bmp"], "mini")
    assert wait(batch) == "failed"
    assert "bmp" in batch.message
    batch.remove()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="a system without a folder in memory")
def test_a_bad_text_is_the_batchs_error_message(tmp_path: Path) -> None:
    """Export fault 4: it is refused before any work, so that the page can show the error."""
    batch = Batch(1, tmp_path)
    (tmp_path / "in").mkdir()
    batch.start(["x" * 2000], ("png",), "mini")
    assert wait(batch) == "failed"
    assert "2000 characters" in batch.message


def test_a_zip_without_images_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(segclip.BadImage):
        Batch.unpacked(b"no zip")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_zip_is_reported_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(range(256)) * 40)
    damaged = bytearray(file.getvalue())
    damaged[40:60] = b"\xff" * 20  # inside the compressed bytes
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(segclip.BadImage, match="the zip cannot be read"):
        Batch.unpacked(bytes(damaged))
    assert list(tmp_path.iterdir()) == []
