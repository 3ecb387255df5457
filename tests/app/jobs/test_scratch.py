"""Temporary files of batches: where they are, and when they are removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import segclip
from app.jobs.scratch import Scratch, place
from tests.app.browsing import ROOT


@pytest.mark.skipif(os.name != "posix", reason="processes that end without cleaning up")
def test_the_next_server_removes_the_files_of_a_killed_one(tmp_path: Path) -> None:
    """Fault 17.8."""
    dying = (
        "import os, sys; from pathlib import Path; from app.jobs.scratch import Scratch; "
        "print(Scratch(Path(sys.argv[1])).folder(), flush=True); os._exit(9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", dying, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 9, done.stderr
    alive, left = Scratch(tmp_path), Path(done.stdout.strip())
    kept = alive.folder()
    Scratch(tmp_path).sweep()
    assert left.exists(), "a folder this young may be one of a server that starts"
    for folder in (kept.parent, left.parent):
        os.utime(folder, (0, 0))
    Scratch(tmp_path).sweep()
    assert (kept.exists(), left.exists()) == (True, False)
    alive.close()
    assert list(tmp_path.glob("*/*")) == []


def test_folders_are_private_and_removed_with_the_server(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    first, second = scratch.folder(), scratch.folder()
    assert first.parent == second.parent
    assert first.stat().st_mode & 0o077 == 0
    (first / "a.png").touch()
    scratch.close()
    assert list(tmp_path.iterdir()) == []
    assert scratch.folder().exists(), "it may be used again"
    scratch.close()


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(segclip.NotWritable, match="cannot create a folder there"):
        Scratch(tmp_path / "file").folder()


def test_batches_are_kept_in_memory_where_possible() -> None:
    """Fault 17.12c."""
    assert place() == Path("/dev/shm")
    assert place("/var/tmp") == Path("/var/tmp")
