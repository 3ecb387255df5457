"""The work on one image: its failures are rows, and what is temporary is tried again."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segclip import batch, exporters, loading
from segclip.batch import work
from tests import batch_script
from tests.exports import draw, export_with, failures, run, run_all, tree


def test_each_is_a_row_and_stops_nothing(hostile: Path, tmp_path: Path) -> None:
    summary = run_all(hostile, tmp_path / "out")
    assert summary.states == {"matched": 6, "empty": 1, "failed": 6}
    rows = [
        json.loads(line)
        for line in (tmp_path / "out" / "failures.jsonl").read_text("utf-8").splitlines()
    ]
    assert {row["image"] for row in rows} == {
        "cut.png",
        "empty.jpg",
        "words.jpg",
        "gone.png",
        "loop.png",
        "bomb.png",
    }
    assert all(row["reason"] and str(hostile) in row["path"] for row in rows)


def test_a_bug_is_a_row_with_its_traceback(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(result: Any, path: Path) -> list[Path]:
        raise ZeroDivisionError("in the writer")

    monkeypatch.setitem(exporters.WRITERS, "png", broken)
    summary = run_all(photos, tmp_path / "out")
    assert summary.states["failed"] == 7
    row = json.loads((tmp_path / "out" / "failures.jsonl").read_text("utf-8").splitlines()[0])
    assert row["reason"] == "ZeroDivisionError: in the writer"
    assert "Traceback" in row["traceback"]


def test_fault_17_5_temporary_failures_are_retried(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(batch_script.DeadlyProposer):
        def encode(self, image: Any) -> Any:
            raise MemoryError("no memory")

    def load(*names: Any, **options: Any) -> Any:
        return replace(batch_script.fake_load(), proposer=Short())

    with monkeypatch.context() as patch:
        patch.setattr(loading, "load", load)
        assert run(folder, tmp_path / "out").states["failed"] == 5
    assert run(folder, tmp_path / "out").progress.now == 5
    run(folder, tmp_path / "clean")
    assert tree(tmp_path / "out") == tree(tmp_path / "clean")


def test_fault_17_5_an_unresponsive_server_is_a_temporary_failure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.read_bytes

    def stale(path: Path) -> bytes:
        if path.name == "a.png":
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", stale)
        run(folder, tmp_path / "out")
    assert "Stale file handle" in failures(tmp_path / "out")["a.png"]
    assert run(folder, tmp_path / "out").progress.now == 1
    assert not (tmp_path / "out" / "failures.jsonl").exists()


def test_a_templates_file_that_changed_is_another_question(folder: Path, tmp_path: Path) -> None:
    """Export fault 6; the same sentences under another name are not."""
    file, out = tmp_path / "templates.txt", tmp_path / "out"
    file.write_text("a photo of a {}.\n")
    export_with(folder, out, templates=str(file))
    assert export_with(folder, out, templates=str(file)).progress.now == 0
    assert export_with(folder, out, templates="photo").progress.now == 0
    file.write_text("a painting of a {}.\n")
    assert export_with(folder, out, templates=str(file)).progress.now == 5


def test_a_templates_file_is_read_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export fault 6: it may be edited while the export runs."""
    file = tmp_path / "templates.txt"
    file.write_text("a photo of a {}.\n")
    real = Path.read_bytes

    def edited(path: Path) -> bytes:
        file.write_text("none any more\n")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", edited)
    assert export_with(folder, tmp_path / "out", templates=str(file)).states["failed"] == 0


def test_fault_17_8_bytes_are_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without change times and inodes."""
    for module in (batch, work):
        monkeypatch.setattr(
            module, "stamp_of", lambda path: (1, 2, 3, 4) if path.exists() else (0, 0, 0, 0)
        )
    out = tmp_path / "out"
    run(folder, out)
    draw(folder / "b.png", "red")
    assert run(folder, out).progress.now == 0
    assert run(folder, out, verify=True).progress.now == 1
    run(folder, tmp_path / "clean")
    assert tree(out) == tree(tmp_path / "clean")
