"""Batches and indexing in the background: progress, cancelling and resuming."""

from __future__ import annotations

import errno
import io
import os
import time
import zipfile
from pathlib import Path

import anyio
import PIL.Image
import pytest

import segclip
from app import serving, state
from app.jobs.batches import Batch
from app.jobs.indexing import Indexing
from app.jobs.scratch import Scratch, place
from app.settings import Settings
from app.state import Studio
from tests.fakes import paint

pytestmark = pytest.mark.usefixtures("fake_models")


def zip_of_images(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(count):
            image = io.BytesIO()
            PIL.Image.fromarray(paint(("red", (number + 1, 5, 40, 40))).pixels).save(image, "PNG")
            archive.writestr(f"p{number:02d}.png", image.getvalue())
    return file.getvalue()


def wait(job: Batch | Indexing) -> str:
    for _ in range(600):
        if not job.busy:
            return job.state
        time.sleep(0.05)
    raise AssertionError(f"still {job.state} at {job.done}")


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
        (RuntimeError("!"), "the server's log"),
    ],
)
def test_errors_of_batches_and_indexing_are_reported(
    error: Exception, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    batch, indexing = Batch.unpacked(zip_of_images(1)), Indexing()
    monkeypatch.setattr(segclip, "export", broken)
    monkeypatch.setattr(segclip, "make_index", broken)
    batch.start(["a red box"], ["png"], "mini")
    indexing.start(tmp_path, tmp_path / "index", "mini")
    for job in (batch, indexing):
        assert wait(job) == "failed"
        assert message in job.message
    batch.remove()


def test_a_batch_with_a_bad_format_reports_it() -> None:
    batch = Batch.unpacked(zip_of_images(1))
    batch.start(["a red box"], ["bmp"], "mini")
    assert wait(batch) == "failed"
    assert "bmp" in batch.message
    batch.remove()


def test_a_zip_without_images_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(segclip.BadImage):
        Batch.unpacked(b"no zip")
    assert list(tmp_path.iterdir()) == []


def test_indexing_reports_a_missing_folder(tmp_path: Path) -> None:
    indexing = Indexing()
    indexing.start(tmp_path / "nowhere", tmp_path / "index", "mini")
    assert wait(indexing) == "failed"
    assert "no such folder" in indexing.message


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


def test_a_server_removes_its_batches_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.8."""
    monkeypatch.setenv("SEGCLIP_APP_SCRATCH", str(tmp_path))
    state.studio.cache_clear()

    async def serve() -> None:
        async with serving.lifespan(None):
            studio = state.studio()
            _, work = studio.begin()
            work.take_batch(studio.unpack(zip_of_images(30)))
            assert work.batch is not None
            work.batch.start(["a red box"], ["png"], "mini")
            while work.batch.done < 1 and work.batch.busy:
                await anyio.sleep(0.01)
            assert list(tmp_path.rglob("*.png"))

    try:
        anyio.run(serve)
    finally:
        state.studio.cache_clear()
    assert list(tmp_path.iterdir()) == []


def test_the_next_server_removes_the_files_of_a_killed_one(tmp_path: Path) -> None:
    """Fault 17.8."""
    alive, dead = Scratch(tmp_path), Scratch(tmp_path)
    kept, left = alive.folder(), dead.folder()
    assert dead._lock is not None
    dead._lock.release()  # as the system does when a process dies
    for folder in (kept.parent, left.parent):
        os.utime(folder, (0, 0))
    Scratch(tmp_path).sweep()
    assert (kept.exists(), left.exists()) == (True, False)
    alive.close()
    assert list(tmp_path.glob("*/*")) == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="a system without a folder in memory")
def test_a_bad_text_is_the_batchs_error_message(tmp_path: Path) -> None:
    """Export fault 4: it is refused before any work, so that the page can show the error."""
    batch = Batch(1, tmp_path)
    (tmp_path / "in").mkdir()
    batch.start(["x" * 2000], ("png",), "mini")
    assert batch._thread is not None
    batch._thread.join(20)
    assert batch.state == "failed"
    assert "2000 characters" in batch.message


def test_batches_are_kept_in_memory_where_possible() -> None:
    """Fault 17.12c."""
    assert place() == Path("/dev/shm")
    assert place("/var/tmp") == Path("/var/tmp")


def test_the_total_size_of_batches_is_limited(tmp_path: Path) -> None:
    """Fault 17.12e."""
    studio = Studio(Settings(scratch=str(tmp_path), batch_mb=1))
    size = Batch.unpacked(zip_of_images(1)).size
    object.__setattr__(studio.settings, "batch_mb", 2.5 * size / 1e6)
    works = [studio.begin()[1] for _ in range(3)]
    for work in works[:2]:
        work.take_batch(studio.unpack(zip_of_images(1)))
    with pytest.raises(segclip.BadImage, match="split it"):
        studio.unpack(zip_of_images(1))
    studio.close()
    assert list(tmp_path.iterdir()) == []
