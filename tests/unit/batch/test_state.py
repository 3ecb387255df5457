"""The state folder of an output: one run at a time, or the parts of one."""

from __future__ import annotations

from pathlib import Path

import filelock
import pytest

from segclip.errors import Busy, SegclipError
from tests.exports import run, run_all


@pytest.mark.parametrize(
    ("held", "part"),
    [("all", "1/2"), ("all", None), ("1-of-2", None), ("1-of-2", "1/2"), ("1-of-2", "1/3")],
)
def test_fault_17_5_a_run_beside_another_is_refused(
    folder: Path, tmp_path: Path, held: str, part: str | None
) -> None:
    state = tmp_path / "out" / ".segclip"
    state.mkdir(parents=True)
    with filelock.FileLock(state / f"{held}.lock"), pytest.raises(Busy, match="another run"):
        run(folder, tmp_path / "out", part=part)
    run(folder, tmp_path / "out", part=part)


def test_fault_17_5_parts_of_one_question_run_side_by_side(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(folder, out, part="1/2")
    with filelock.FileLock(out / ".segclip" / "1-of-2.lock"):
        with pytest.raises(Busy):
            run(folder, out, "a green square", part="2/2")
        assert run(folder, out, part="2/2").missing == 0
    run(folder, out, "a green square", part="2/2")


@pytest.mark.parametrize("name", ["journal.sqlite", "begin.lock", "all.lock", "files.jsonl"])
def test_fault_17_5_a_folder_in_place_of_a_file_is_reported(
    folder: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "out" / ".segclip" / name).mkdir(parents=True)
    with pytest.raises(SegclipError, match=name):
        run(folder, tmp_path / "out")


def test_two_runs_on_one_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / ".segclip").mkdir(parents=True)
    with (
        filelock.FileLock(tmp_path / "out" / ".segclip" / "all.lock"),
        pytest.raises(Busy, match="another run"),
    ):
        run_all(photos, tmp_path / "out")
