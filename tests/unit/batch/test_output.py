"""The export's output folder: full disks, long names, changed and missing files."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from segclip import batch
from segclip.batch import ExportOptions, export
from segclip.errors import NotWritable
from segclip.files import atomic, outputs
from segclip.files.outputs import folded
from tests.exports import FORMATS, TEXTS, draw, failures, run, run_all, tree


@pytest.mark.parametrize("call", ["sync_file", "replacing", "sync_folder"])
@pytest.mark.parametrize("after", [0, 3, 9])
def test_fault_17_5_it_ends_the_run_and_nothing_stays_failed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: int
) -> None:
    left, real = [after], getattr(atomic, call)

    def full(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            error = OSError(errno.ENOSPC, "No space left on device")
            if call == "replacing":
                raise NotWritable("no room: No space left on device") from error
            raise error
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, call, full)
        with pytest.raises(NotWritable, match="No space left"):
            run(folder, tmp_path / "out")
    assert run(folder, tmp_path / "out").states["failed"] == 0
    run(folder, tmp_path / "clean")
    assert tree(tmp_path / "out") == tree(tmp_path / "clean")


def test_a_name_that_is_too_long_is_that_images_failure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems allow only shorter names."""
    monkeypatch.setattr(outputs, "LONGEST", 300)
    long = "x" * 245 + ".png"
    draw(folder / long, "red")
    assert run(folder, tmp_path / "out").states == {"matched": 4, "empty": 1, "failed": 1}
    assert "name too long" in failures(tmp_path / "out")[long]


def test_the_reason_of_a_too_long_name_does_not_depend_on_the_process(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "LONGEST", 300)  # as on file systems with shorter names
    draw(folder / ("x" * 245 + ".png"), "red")
    run(folder, tmp_path / "out", formats=("png",))
    (reason,) = failures(tmp_path / "out").values()
    assert reason.startswith("png/")


def test_fault_17_8_outputs_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segclip.batch import output

    monkeypatch.setattr(output, "stamp_of_link", lambda path: (path.lstat().st_size, 2, 3, 4))
    out = tmp_path / "out"
    run(folder, out)
    wanted = tree(out)
    place = out / "png" / "a.png.mask.00.png"
    place.write_bytes(bytes(len(place.read_bytes())))
    assert run(folder, out).progress.now == 0
    assert run(folder, out, verify=True).progress.now == 1
    assert tree(out) == wanted


def test_fault_17_8_both_are_exported(folder: Path, tmp_path: Path) -> None:
    draw(folder / "A.PNG", "blue", "blue")
    run(folder, tmp_path / "out")
    found = [folded(name) for name in tree(tmp_path / "out")]
    assert len(found) == len(set(found))
    named = {
        image["file_name"]
        for image in json.loads((tmp_path / "out" / "coco.json").read_text())["images"]
    }
    assert {"a.png", "A.PNG"} <= named


def test_fault_17_3_outcomes_are_entered_after_their_files(folder: Path, tmp_path: Path) -> None:
    options = ExportOptions(formats=FORMATS)
    states = []

    def check(progress: batch.Progress) -> None:
        with sqlite3.connect(tmp_path / "out" / ".segclip" / "journal.sqlite") as table:
            names = [
                os.fsdecode(name)
                for (name,) in table.execute("SELECT name FROM outcomes WHERE state = 'matched'")
            ]
        states.append(len(names))
        assert all((tmp_path / "out" / "npz" / f"{name}.npz").stat().st_size for name in names)

    export(folder, tmp_path / "out", TEXTS, options=options, report=check)
    assert states


def test_masks_that_were_removed_are_made_again(photos: Path, tmp_path: Path) -> None:
    run_all(photos, tmp_path / "out")
    before = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "png")
    assert run_all(photos, tmp_path / "out").progress.now > 0
    assert tree(tmp_path / "out") == before
