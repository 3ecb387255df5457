"""Formats and folders of a command's files, and progress without a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from segclip.cli import output
from segclip.cli.output import EVERY, OUT, OutputOptions, ProgressLines
from segclip.errors import BadPrompt, UnknownName
from tests.commands import run, written


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    "options",
    [
        ["--format", "overlay,json"],
        ["--format", "overlay", "--format", "json"],
        ["--format", "overlay,,json "],
    ],
)
def test_formats_may_be_comma_separated_or_repeated(folder: Path, options: list[str]) -> None:
    """Fault 17.23: only the last of repeated --format was used."""
    assert run("segment", "desk.png", "red", *options).exit_code == 0
    assert written(folder) == ["desk.json", "desk.overlay.png"]


def test_formats_are_checked_before_any_work(tmp_path: Path) -> None:
    image = Path("photos/desk.png")
    assert OutputOptions(formats=["svg,json"]).targets(image) == {
        "svg": "desk.svg",
        "json": "desk.json",
    }
    with pytest.raises(UnknownName, match="unknown format 'tga'"):
        OutputOptions(formats=["tga"]).targets(image)
    with pytest.raises(BadPrompt, match="--format is empty"):
        OutputOptions(formats=[" , "]).targets(image)
    (tmp_path / "file").touch()
    with pytest.raises(BadPrompt, match="is a file; give a folder"):
        OutputOptions(out=tmp_path / "file").targets(image)


def test_a_record_is_printed_without_files_unless_a_folder_is_named() -> None:
    assert OutputOptions().folder == OUT
    assert OutputOptions(record=True).folder is None
    assert OutputOptions(record=True, out=Path("mine")).folder == Path("mine")


def test_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter((0.0, EVERY - 1, EVERY + 1, EVERY + 1, EVERY + 2))
    monkeypatch.setattr(output, "monotonic", lambda: next(clock))
    report = ProgressLines()
    report(1, 100, 0.5, "0.50/s")
    report(40, 100, 0.5, "0.50/s")
    report(41, 100, 0.5, "0.50/s")
    assert capsys.readouterr().err.splitlines() == ["40 of 100, 0.50/s, 2 min left"]
