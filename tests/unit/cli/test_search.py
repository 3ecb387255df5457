"""The index and search commands: messages, files and rejected options."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest

from tests.commands import run

pytestmark = pytest.mark.usefixtures("search_models")


def test_a_folder_is_indexed_and_searched(photos: Path, tmp_path: Path) -> None:
    outcome = run("index", photos, "--regions")
    assert outcome.exit_code == 0, outcome.output
    assert "2 images and 2 regions in the index: 2 embedded, 0 unchanged" in outcome.stdout
    assert f"wrote {photos / '.segclip-index'}" in outcome.stdout
    found = run("search", photos, "a blue square", "--regions", "-n", "1")
    assert found.exit_code == 0, found.output
    assert "20,20,130,110" in found.stdout
    assert "b.png" in found.stdout
    assert "a.png" not in found.stdout
    assert PIL.Image.open(tmp_path / "segclip-out" / "search.png").width == 320
    for flag in ("--top-k", "-k", "-n", "--count"):
        one = run("search", photos, "red", "--json", flag, "1")
        assert len(json.loads(one.stdout)) == 1, flag
    printed = run(
        "search", photos, "--image", photos / "a.png", "--json", "--copy", tmp_path / "copies"
    )
    assert [Path(row["path"]).name for row in json.loads(printed.stdout)] == ["a.png", "b.png"]
    assert (tmp_path / "copies" / "1 a.png").is_file()
    none = run("search", photos, "red", "--before", "1999-01-01")
    assert (none.exit_code, "no matches" in none.stdout) == (0, True)


def test_unreadable_images_are_reported(photos: Path, tmp_path: Path) -> None:
    (photos / "c.jpg").write_text("words")
    outcome = run("index", photos)
    assert outcome.exit_code == 0
    assert "failed: " in outcome.stderr
    assert "c.jpg" in outcome.stderr
    for name in ("a.png", "b.png"):
        (photos / name).unlink()
    assert run("index", photos).exit_code == 1
    (photos / "c.jpg").unlink()
    assert run("index", photos).exit_code == 0
    assert "the index holds 0 images, index some first" in run("search", photos, "red").stdout


def test_misuse_is_one_error_line_and_exit_code_2(photos: Path) -> None:
    run("index", photos)
    for arguments, message in (
        (("search", photos, ""), "an empty text"),
        (("search", photos), "no text or image was given"),
        (("search", photos, "red", "--after", "yesterday"), "--after takes a date"),
        (("search", photos, "red", "--regions"), "--regions"),
        (("search", photos, "red", "--encoder", "other"), "--encoder other --rebuild"),
        (("index", photos, "--encoder", "other"), "--encoder other --rebuild"),
        (("index", photos / "a.png"), "no such folder"),
    ):
        outcome = run(*arguments)
        assert outcome.exit_code == 2, (arguments, outcome.output)
        assert message in outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1
