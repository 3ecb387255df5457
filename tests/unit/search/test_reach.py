"""Images that are temporarily unreachable stay in the index; deleted ones go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segclip import IndexOptions, make_index
from segclip.batch import Running
from segclip.search import snapshot
from tests.indexes import (
    DEEP,
    answers,
    embedded,
    place,
)


def _away_empty(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (indexed / "sub").rename(indexed.parent / "disk")
    (indexed / "sub").mkdir()


def _away_stale(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def stale(path: Any = ".") -> Any:
        if Path(os.fspath(path)).name == "sub":
            raise OSError(116, "Stale file handle", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", stale)


def _away_forbidden(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def forbidden(path: Path, *options: Any, **named: Any) -> Any:
        if path.parent.name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *options, **named)

    for path in (indexed / "sub").iterdir():
        # updates the change time
        path.chmod(0o600 if path.stat().st_mode & 0o777 != 0o600 else 0o644)
    monkeypatch.setattr(Path, "open", forbidden)


@pytest.mark.parametrize("away", [_away_empty, _away_stale, _away_forbidden])
def test_fault_17_21_unreachable_images_stay_in_the_index(
    indexed: Path, monkeypatch: pytest.MonkeyPatch, away: Callable[..., None]
) -> None:
    before, files = answers(indexed), snapshot.current(place(indexed))
    with monkeypatch.context() as patch:
        away(indexed, patch)
        for running in (Running(), Running(verify=True)):
            done = make_index(indexed, running=running)
            assert (done.images, done.removed, done.moved, done.failed) == (5, 0, 0, ())
            assert any(line.startswith("sub") for line in done.unreachable)
            assert snapshot.current(place(indexed)) == files
            assert answers(indexed) == before
    if (indexed.parent / "disk").exists():
        (indexed / "sub").rmdir()
        (indexed.parent / "disk").rename(indexed / "sub")
    done = make_index(indexed)
    assert (embedded(done), done.unreachable) == ((0, 5), ())
    assert answers(indexed) == before


def test_fault_17_21_images_moved_out_of_a_folder_are_not_unreachable(indexed: Path) -> None:
    for path in (indexed / "sub").iterdir():
        path.rename(indexed / f"moved {path.name}")
    done = make_index(indexed)
    assert (embedded(done), done.images, done.moved, done.removed, done.unreachable) == (
        (0, 5),
        5,
        2,
        0,
        (),
    )


def test_fault_17_21_deleted_images_go_and_unreachable_ones_can_be_pruned(
    indexed: Path, tmp_path: Path
) -> None:
    make_index(indexed, DEEP, out=tmp_path / "beside")
    shutil.rmtree(indexed / "sub")
    done = make_index(indexed)
    assert (done.images, done.removed, done.unreachable) == (3, 2, ())
    (indexed / "sub").mkdir()
    assert make_index(indexed, out=tmp_path / "beside").images == 5
    done = make_index(indexed, IndexOptions(prune=True), out=tmp_path / "beside")
    assert (done.images, done.removed, done.unreachable) == (3, 2, ())
    shutil.rmtree(place(indexed))
    for path in indexed.glob("*.png"):
        path.unlink()
    (indexed / "sub").rmdir()
    done = make_index(indexed, out=tmp_path / "beside")  # an empty folder: perhaps not mounted
    assert (done.images, len(done.unreachable)) == (3, 1)
