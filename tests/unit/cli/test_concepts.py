"""``segclip concepts``, and concepts wherever a command takes a text."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from segclip.ranking import concepts
from tests.commands import run
from tests.fakes import paint


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGCLIP_HOME", str(folder / "home"))
    image = paint(("red", (60, 60, 90, 100)), ("blue", (5, 5, 25, 25)))
    Pillow.fromarray(image.pixels).save(folder / "other.png")
    mask = np.zeros((120, 160), np.uint8)
    mask[60:100, 60:90] = 255
    Pillow.fromarray(mask).save(folder / "mask.png")
    return folder / "home"


def rows(*options: str) -> list[tuple[str, list[int]]]:
    outcome = run("segment", "desk.png", *options, "--json")
    assert outcome.exit_code == 0, outcome.output
    return [(row["text"], row["box"]) for row in json.loads(outcome.stdout)["rows"]]


RED, BLUE = [10, 10, 50, 50], [110, 60, 150, 110]


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--like", "other.png@70,70"], [("@like-this", RED)]),
        (["--like", "other.png@58,58,92,102"], [("@like-this", RED)]),
        (["--like", "other.png@mask.png"], [("@like-this", RED)]),
        (["--like", "20,20", "--unlike", "other.png@10,10"], [("@like-this", RED)]),
        (["--like", "20,20", "blue"], [("blue", BLUE), ("@like-this", RED)]),
        (["--like", "105,55,155,115"], [("@like-this", BLUE)]),
        (["--like", "other.png@10,10", "--box", "0,0,60,60"], []),
    ],
)
def test_examples_in_other_images_are_found(
    options: list[str], found: list[tuple[str, list[int]]]
) -> None:
    assert rows(*options) == found


@pytest.mark.usefixtures("loads")
def test_a_concept_is_added_listed_shown_used_and_removed(home: Path, folder: Path) -> None:
    added = run("concepts", "add", "bolt", "--like", "other.png@70,70", "--unlike", "other.png@9,9")
    assert added.exit_code == 0, added.output
    path = home / "concepts" / "bolt.concept"
    assert f"wrote {path}" in added.stdout
    assert rows("@bolt", "the left @bolt") == [("@bolt", RED), ("the left @bolt", RED)]
    path.rename(folder / "mine.concept")
    assert rows("@mine.concept") == [("@mine.concept", RED)]
    (folder / "mine.concept").rename(path)
    listed = run("concepts", "list").stdout.splitlines()
    assert [line.split() for line in listed] == [
        ["text", "like", "unlike", "encoder"],
        ["@bolt", "1", "1", "fake"],
    ]
    shown = run("concepts", "show", "@bolt", "--out", "sheet.png")
    assert f"--like    {folder}/other.png@70,70" in shown.stdout
    assert f"--unlike  {folder}/other.png@9,9" in shown.stdout
    with Pillow.open("sheet.png") as sheet:
        assert sheet.width == 320
    assert run("concepts", "show", "bolt", "--out", "sheet.png").exit_code == 2
    assert run("concepts", "remove", "bolt").exit_code == 0
    assert run("concepts", "list").stdout.split() == listed[0].split()
    assert "unknown concept 'bolt'" in run("segment", "desk.png", "@bolt").stderr


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["concepts", "add", "../bolt", "--like", "other.png@70,70"], "cannot name a concept"),
        (["concepts", "add", "bolt"], "give an example of 'bolt'"),
        (["concepts", "add", "bolt", "--unlike", "other.png@70,70"], "give an example of 'bolt'"),
        (["concepts", "add", "bolt", "--like", "none.png@70,70"], "no image 'none.png'"),
        (["concepts", "add", "bolt", "--like", "other.png@155,115"], "nothing at the example"),
        (["concepts", "add", "bolt", "--like", "other.png@900,5"], "outside the image"),
        (["concepts", "add", "bolt", "--like", "mask.png@desk.txt"], "no place after the @"),
        (["concepts", "show", "bolt"], "unknown concept 'bolt'; there are none yet"),
        (["concepts", "show", "../bolt"], "cannot name a concept"),
        (["concepts", "show", "bolt", "--out", "x.jpg"], ".png file"),
        (["concepts", "remove", "bolt"], "unknown concept 'bolt'"),
        (["concepts", "remove", "../../other.concept"], "cannot name a concept"),
        (["segment", "desk.png", "@bolt"], "unknown concept 'bolt'"),
        (["segment", "desk.png", "@/etc/passwd"], "cannot name a concept"),
        (["segment", "desk.png", "--unlike", "other.png@9,9"], "--unlike takes an example"),
        (["segment", "desk.png", "--like", "other.png@9,9", "--point", "1,1"], "no --point"),
        (["segment", "desk.png", "--like", "none.png"], "no image 'none.png'"),
    ],
)
def test_misuse_is_one_line(arguments: list[str], message: str) -> None:
    outcome = run(*arguments)
    assert outcome.exit_code == 2, outcome.output
    assert re.search(message, outcome.stderr)
    assert outcome.stderr.count("\n") == 1


@pytest.mark.usefixtures("loads")
def test_a_damaged_concept_is_one_line_and_listed_as_such(home: Path) -> None:
    assert run("concepts", "add", "bolt", "--like", "other.png@70,70").exit_code == 0
    path = home / "concepts" / "bolt.concept"
    path.write_bytes(path.read_bytes()[:-9])
    for arguments in (["concepts", "show", "bolt"], ["segment", "desk.png", "@bolt"]):
        outcome = run(*arguments)
        assert outcome.exit_code == 2
        assert "is damaged" in outcome.stderr
        assert outcome.stderr.count("\n") == 1
    assert run("concepts", "list").stdout.splitlines()[1].split() == ["@bolt", "-", "-", "damaged"]
    assert run("concepts", "remove", "bolt").exit_code == 0


@pytest.mark.usefixtures("loads")
def test_a_killed_write_leaves_the_former_concept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("concepts", "add", "bolt", "--like", "other.png@70,70").exit_code == 0
    path = home / "concepts" / "bolt.concept"
    former = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    outcome = run("concepts", "add", "bolt", "--like", "other.png@10,10")
    assert outcome.exit_code == 2
    assert "No space left" in outcome.stderr
    assert path.read_bytes() == former
    assert [file.name for file in path.parent.iterdir()] == ["bolt.concept"]


@pytest.mark.usefixtures("fake_models")
def test_an_export_is_redone_where_its_concept_has_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segclip import loading

    monkeypatch.setattr(loading, "encoder_fingerprint", lambda name, **options: "")
    monkeypatch.setattr(loading.ModelSpec, "names", property(lambda self: ("fake", "fake")))
    (folder / "photos").mkdir()
    (folder / "desk.png").rename(folder / "photos" / "desk.png")

    def add(place: str) -> None:
        outcome = run("concepts", "add", "bolt", "--like", f"other.png@{place}")
        assert outcome.exit_code == 0, outcome.output

    def export(text: str = "@bolt") -> str:
        outcome = run("export", "photos", "out", "--text", text, "--format", "json")
        assert outcome.exit_code == 0, outcome.output
        return outcome.stdout

    add("70,70")
    assert "1 images processed" in export()
    assert "1 already done" in export()
    add("10,10")
    assert "1 images processed" in export()
    (record,) = (folder / "out").rglob("desk*.json")
    assert json.loads(record.read_text("utf-8"))["rows"][0]["box"] == BLUE
    concepts.remove("bolt")
    outcome = run("export", "photos", "out", "--text", "@bolt")
    assert outcome.exit_code == 2
    assert "unknown concept" in outcome.stderr


@pytest.mark.usefixtures("loads")
def test_a_concept_is_a_label_of_classify(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert run("concepts", "add", "bolt", "--like", "other.png@70,70").exit_code == 0
    outcome = run("classify", "desk.png", "--labels", "@bolt,blue", "--segments", "--json")
    assert outcome.exit_code == 0, outcome.output
    found = {row["text"]: row["box"] for row in json.loads(outcome.stdout)["rows"]}
    assert found == {"@bolt": RED, "blue": BLUE}
