"""Batches and indexing beside the pages: progress, cancelled, taken up again."""

from __future__ import annotations

import errno
import io
import time
import zipfile
from pathlib import Path

import PIL.Image
import pytest

import segclip
from app.batches import Batch
from app.indexing import Indexing
from tests.fakes import paint

pytestmark = pytest.mark.usefixtures("fake_models")


def pictures(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(count):
            picture = io.BytesIO()
            PIL.Image.fromarray(paint(("red", (number + 1, 5, 40, 40))).pixels).save(picture, "PNG")
            archive.writestr(f"p{number:02d}.png", picture.getvalue())
    return file.getvalue()


def wait(job: Batch | Indexing) -> str:
    for _ in range(600):
        if not job.busy:
            return job.state
        time.sleep(0.05)
    raise AssertionError(f"still {job.state} at {job.done}")


def test_a_batch_gives_what_export_gives_and_its_files_go_in_the_end(tmp_path: Path) -> None:
    batch = Batch.unpacked(pictures(3))
    batch.start(["a red box"], ["png", "coco"], "mini")
    assert wait(batch) == "done", batch.message
    assert (batch.pictures, batch.done) == (3, 3)
    segclip.export(batch.folder / "in", tmp_path, "a red box", options=segclip.ExportOptions(formats=("png", "coco")))
    with zipfile.ZipFile(io.BytesIO(batch.result())) as archive:
        masks = [name for name in archive.namelist() if name.endswith(".png")]
        assert len([name for name in masks if "mask" in name]) == 3
        for name in masks:
            assert archive.read(name) == (tmp_path / name).read_bytes()
    batch.remove()
    assert not batch.folder.exists()


def test_a_cancelled_batch_goes_on_where_it_stopped() -> None:
    batch = Batch.unpacked(pictures(30))
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


def test_a_batch_without_words_cuts_out_everything(tmp_path: Path) -> None:
    batch = Batch.unpacked(pictures(2))
    batch.start([], ["coco"], "mini")
    assert wait(batch) == "done", batch.message
    every = segclip.ExportOptions(formats=("coco",), ask=segclip.Ask(everything=True))
    segclip.export(batch.folder / "in", tmp_path, options=every)
    with zipfile.ZipFile(io.BytesIO(batch.result())) as archive:
        assert archive.read("coco.json") == (tmp_path / "coco.json").read_bytes()
    batch.remove()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(errno.ENOSPC, "No space left on device"), "No space left"), (RuntimeError("!"), "the server's log")],
)
def test_what_breaks_a_batch_or_an_index_is_told(
    error: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    batch, indexing = Batch.unpacked(pictures(1)), Indexing()
    monkeypatch.setattr(segclip, "export", broken)
    monkeypatch.setattr(segclip, "make_index", broken)
    batch.start(["a red box"], ["png"], "mini")
    indexing.start(tmp_path, tmp_path / "index", "mini")
    for job in (batch, indexing):
        assert wait(job) == "failed"
        assert told in job.message
    batch.remove()


def test_a_batch_that_cannot_run_says_why() -> None:
    batch = Batch.unpacked(pictures(1))
    batch.start(["a red box"], ["bmp"], "mini")
    assert wait(batch) == "failed"
    assert "bmp" in batch.message
    batch.remove()


def test_a_zip_without_pictures_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(segclip.BadImage):
        Batch.unpacked(b"no zip")
    assert list(tmp_path.iterdir()) == []


def test_indexing_tells_why_it_cannot(tmp_path: Path) -> None:
    indexing = Indexing()
    indexing.start(tmp_path / "nowhere", tmp_path / "index", "mini")
    assert wait(indexing) == "failed"
    assert "no such folder" in indexing.message


def test_a_damaged_zip_is_told_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(range(256)) * 40)
    damaged = bytearray(file.getvalue())
    damaged[40:60] = b"\xff" * 20  # inside the compressed bytes
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(segclip.BadImage, match="the zip cannot be read"):
        Batch.unpacked(bytes(damaged))
    assert list(tmp_path.iterdir()) == []
