"""The segment command: its table, its record, its files, its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from segclip.files import outputs
from segclip.types import Image
from tests.commands import run, written


@pytest.mark.usefixtures("loads")
def test_segment_prints_a_table_and_writes_the_files(folder: Path) -> None:
    outcome = run("segment", "desk.png", "a red box", "blue")
    assert outcome.exit_code == 0, outcome.output
    header, red, blue, *files = outcome.stdout.splitlines()
    assert header.split() == ["text", "probability", "similarity", "quality", "box", "x1,y1,x2,y2"]
    assert red.startswith("a red box  ")
    assert red.endswith("10,10,50,50")
    assert blue.endswith("110,60,150,110")
    names = ["cutout.00.png", "cutout.01.png", "json", "mask.00.png", "mask.01.png", "overlay.png"]
    assert written(folder) == [f"desk.{name}" for name in names]
    assert len(files) == len(names)
    assert all(Path(line.removeprefix("wrote ")).is_file() for line in files)
    mask = np.array(Pillow.open(folder / "segclip-out" / "desk.mask.00.png"))
    assert (mask[10:50, 10:50] == 255).all()
    assert mask.sum() == 255 * 1600


@pytest.mark.usefixtures("loads")
def test_no_match_is_reported_and_is_not_an_error(folder: Path) -> None:
    outcome = run("segment", "desk.png", "a yellow banana", "--threshold", "0.6")
    assert outcome.exit_code == 0
    assert outcome.stdout.startswith("nothing here matches 'a yellow banana' (best 0.")
    assert "threshold 0.60" in outcome.stdout
    assert written(folder) == ["desk.json", "desk.overlay.png"]


@pytest.mark.usefixtures("loads", "folder")
@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a zebra, a lion", "did you mean 2 texts? Write 'a zebra' 'a lion'"),
        ("zebra,lion,bear", "did you mean 3 texts? Write 'zebra' 'lion' 'bear'"),
        ("a zebra", ""),
        ("zebra,", ""),
        ("the zebra, second from the left", ""),
    ],
)
def test_a_comma_in_a_text_that_matches_nothing_is_asked_about(text: str, hint: str) -> None:
    line = run("segment", "desk.png", text, "--threshold", "0.9").stdout.splitlines()[0]
    assert line.startswith(f"nothing here matches {text!r}")
    assert hint in line
    assert ("did you mean" in line) is bool(hint)


@pytest.mark.usefixtures("loads", "folder")
def test_the_record_holds_the_best_probability_of_texts_without_a_match() -> None:
    outcome = run("segment", "desk.png", "red", "a zebra", "--json", "--threshold", "0.9")
    record = json.loads(outcome.stdout)
    assert record["asked"] == ["red", "a zebra"]
    red, zebra = record["nearest"]
    assert red > record["threshold"] == 0.9 > zebra > 0


@pytest.mark.usefixtures("loads", "folder")
def test_a_match_in_the_wrong_position_is_explained() -> None:
    lines = run("segment", "desk.png", "red right of the green box").stdout.splitlines()
    assert lines[0] == "nothing here matches 'red right of the green box'"
    assert (
        lines[1] == "'red right of the green box': none of 1 found for 'red': right of 'green box'"
    )


@pytest.mark.usefixtures("loads", "folder")
def test_require_makes_a_missing_text_exit_with_one() -> None:
    assert run("segment", "desk.png", "red", "yellow", "--require").exit_code == 1
    assert run("segment", "desk.png", "red", "--require").exit_code == 0


@pytest.mark.usefixtures("loads")
def test_json_prints_the_record_alone_and_writes_nothing(folder: Path) -> None:
    outcome = run("segment", "desk.png", "red", "--json")
    record = json.loads(outcome.stdout)
    assert record["asked"] == ["red"]
    assert record["rows"][0]["box"] == [10, 10, 50, 50]
    assert sorted(path.name for path in folder.iterdir()) == ["desk.png"]
    run("segment", "desk.png", "red", "--json", "--out", "mine", "--format", "overlay")
    assert sorted(path.name for path in (folder / "mine").iterdir()) == [
        outputs.STATE,
        "desk.overlay.png",
    ]


@pytest.mark.usefixtures("loads", "folder")
def test_a_duplicate_text_is_reported_and_answered_once() -> None:
    outcome = run("segment", "desk.png", "red", "red", "--json")
    assert len(json.loads(outcome.stdout)["rows"]) == 1
    assert "'red' was given 2 times" in outcome.stderr


@pytest.mark.usefixtures("loads")
def test_files_of_an_earlier_result_are_replaced(folder: Path, sample_image: Image) -> None:
    """Fault 17.7: masks of another image of the same name lay beside "nothing matches"."""
    (folder / "other").mkdir()
    Pillow.fromarray(sample_image.pixels[:, ::-1]).save(folder / "other" / "desk.png")
    (folder / "segclip-out").mkdir()
    mine = folder / "segclip-out" / "desk.mask.07.png"
    mine.write_bytes(b"my own")
    assert run("segment", "desk.png", "--everything").exit_code == 0
    assert len(written(folder)) == 2 + 2 * 3 + 1
    outcome = run("segment", "other/desk.png", "a yellow lion")
    reported = {
        Path(line).name for line in outcome.stdout.splitlines() if line.startswith("wrote ")
    }
    assert (
        set(written(folder))
        == {*reported, mine.name}
        == {"desk.json", "desk.overlay.png", mine.name}
    )
    assert mine.read_bytes() == b"my own"


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize("name", ["desk.json", "desk.overlay.png", "desk.mask.00.png"])
@pytest.mark.parametrize("kind", ["file", "link", "folder", "changed"])
def test_users_files_are_not_overwritten(folder: Path, name: str, kind: str) -> None:
    """Faults 17.7 and 17.1: only unchanged files that segclip wrote are replaced."""
    (folder / "precious").write_bytes(b"precious")
    (folder / "out").mkdir()
    if kind == "changed":
        assert run("segment", "desk.png", "red", "--out", "out").exit_code == 0
    if kind in ("file", "changed"):
        (folder / "out" / name).write_bytes(b"precious")
    elif kind == "link":
        (folder / "out" / name).symlink_to(folder / "precious")
    else:
        (folder / "out" / name).mkdir()
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    outcome = run("segment", "desk.png", "red", "blue", "--out", "out")
    assert outcome.exit_code == 2
    assert f"{name} is there already, and not as segclip wrote it" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert {
        path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    } == before
