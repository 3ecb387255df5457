"""The server's routes, and what it removes when it ends."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import anyio
import pytest
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from app import serving, state
from app.jobs.scratch import Scratch
from app.settings import Settings
from app.state import Studio
from tests.app import browsing
from tests.app.browsing import ROOT
from tests.app.test_server import status
from tests.app.zips import zip_of_images


@pytest.mark.slow
def test_without_the_api_its_paths_are_404(tmp_path: Path) -> None:
    """Fault 17.12."""
    with browsing.serving(tmp_path / "log") as address:
        for path in ("/api/health", "/api", "/api/", "/api/openapi.json", "/api/nothing"):
            assert status(address, {}, path) == 404, path
        assert status(address, {}, "/") == 200


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_stopped_server_leaves_no_images(tmp_path: Path) -> None:
    """Fault 17.8: unpacked files are removed with the server, or by the next one after a kill."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", (ROOT / "samples" / "desk.png").read_bytes())
    studio = Studio(Settings(scratch=str(scratch)))
    _, work = studio.begin()
    work.take_batch(studio.unpack(file.getvalue()))
    assert list(scratch.rglob("*.png"))
    left = next(scratch.iterdir())
    Scratch(scratch).sweep()
    assert list(scratch.rglob("*.png")), "the folder of a running server is kept"
    studio.close()
    assert list(scratch.iterdir()) == []
    left.mkdir()  # as a server that was killed leaves it
    (left / "a.png").touch()
    os.utime(left, (0, 0))
    with browsing.serving(tmp_path / "log", environment={"SEGCLIP_APP_SCRATCH": str(scratch)}):
        assert list(scratch.iterdir()) == []


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


def test_uploads_kept_by_streamlit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serving.held() == 0

    class Running:
        uploaded_file_mgr = MemoryUploadedFileManager("/upload")

    monkeypatch.setattr(runtime, "exists", lambda: True)
    monkeypatch.setattr(runtime, "get_instance", Running)
    assert serving.held() == 0
    Running.uploaded_file_mgr.add_file(
        "somebody", UploadedFileRec("1", "a.png", "image/png", b"x" * 1000)
    )
    assert serving.held() == 1000


def test_a_server_may_end_while_its_first_page_is_still_loading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torch takes a while; until then the module of the studio is there, but empty."""
    monkeypatch.setitem(sys.modules, "app.state", ModuleType("app.state"))

    async def serve() -> None:
        async with serving.lifespan(None):
            pass

    anyio.run(serve)
