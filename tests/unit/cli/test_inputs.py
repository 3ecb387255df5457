"""Slips of the command line, and images from standard input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segclip.cli import main as cli
from tests.commands import run, written

ADDRESS = "https://example.org/a//desk.png?size=2"


@pytest.fixture
def crowded(folder: Path) -> Path:
    """Add two more images, a folder and notes to the folder."""
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes((folder / "desk.png").read_bytes())
    (folder / "photos").mkdir()
    (folder / "notes.txt").write_text("notes")
    (folder / "apple").write_text("a file that happens to be called so")
    return folder


@pytest.mark.usefixtures("loads", "crowded")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["red apple", "desk.png"], "the image comes first: segclip segment desk.png 'red apple'"),
        (["red", "apple", "desk.png"], "comes first: segclip segment desk.png red apple"),
        (["a.jpg", "b.jpg", "red"], "'b.jpg' is a file, not a text; segment takes one image"),
        (["a.jpg", "b.jpg", "red"], "segclip export"),
        (["desk.png", "notes.txt"], "'notes.txt' is a file, not a text"),
        (["photos", "a red box"], "segclip export photos OUT --text 'a red box'"),
        (["photos"], "segclip export photos OUT --text TEXT"),
        (["*.jpg", "red"], "'*.jpg' is a pattern, and segment takes one image"),
        (["*.jpg", "red"], "segclip export '*.jpg' OUT --text red"),
        (["none*.jpg", "red"], "is a pattern"),
        (["desk[0-9].png", "red"], "is a pattern"),
        (["desk[2.png", "red"], "desk[2.png: no such file"),
        (["absent.png", "red"], "absent.png: no such file"),
        ([ADDRESS, "red"], f"{ADDRESS} is a web address"),
        ([ADDRESS, "red"], "download it first"),
    ],
)
def test_a_slip_is_one_line_with_what_to_type(arguments: list[str], message: str) -> None:
    outcome = run("segment", *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert outcome.stdout == ""


@pytest.mark.usefixtures("loads", "crowded")
@pytest.mark.parametrize(
    "arguments",
    [
        ["export", ADDRESS, "out", "--text", "red"],
        ["classify", "desk.png", ADDRESS, "--labels", "red,blue"],
        ["heat", ADDRESS, "red", "--encoder", "mini"],
        ["index", ADDRESS],
        ["search", ADDRESS, "red"],
        ["search", "photos", "--image", ADDRESS],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_refuses_a_web_address_as_it_was_typed(arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert outcome.exit_code == 2
    assert f"{ADDRESS} is a web address" in outcome.stderr
    assert "download it first" in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.usefixtures("crowded")
def test_heat_recognises_the_same_slips() -> None:
    swapped = run("heat", "red apple", "desk.png", "--encoder", "mini")
    assert "segclip heat desk.png 'red apple'" in swapped.stderr
    assert "heat takes one image" in run("heat", "photos", "red", "--encoder", "mini").stderr


@pytest.mark.usefixtures("loads", "crowded")
def test_texts_that_are_not_evidently_files_are_texts() -> None:
    for text in ("apple", "photos", "a.b", "red/green", "no such.file", "x" * 300 + ".y"):
        assert run("segment", "desk.png", text).exit_code == 0, text


@pytest.mark.usefixtures("loads", "folder")
@pytest.mark.parametrize(
    ("texts", "noted"),
    [
        (["red", "apple"], True),
        (["a", "red", "apple"], True),
        (["left", "mug"], True),
        (["red", "blue"], False),  # two colours are two texts
        (["apple", "mug"], False),
        (["apple", "red"], False),
        (["a red apple", "mug"], False),  # whoever quotes knows how
        (["red apple"], False),
        (["red"], False),
    ],
)
def test_forgotten_quotes_are_noted_and_the_texts_are_searched(
    texts: list[str], noted: bool
) -> None:
    outcome = run("segment", "desk.png", *texts, "--json")
    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout)["asked"] == texts
    assert ("use quotes" in outcome.stderr) is noted
    if noted:
        assert repr(" ".join(texts)) in outcome.stderr
        assert outcome.stderr.count("\n") == 1


@pytest.mark.usefixtures("loads")
def test_an_image_comes_from_standard_input(folder: Path) -> None:
    data = (folder / "desk.png").read_bytes()
    outcome = CliRunner().invoke(cli.app, ["segment", "-", "red"], input=data)
    assert outcome.exit_code == 0, outcome.output
    assert "10,10,50,50" in outcome.stdout
    assert "stdin.overlay.png" in written(folder)
    empty = CliRunner().invoke(cli.app, ["segment", "-", "red"], input=b"")
    assert empty.exit_code == 2
    assert empty.stderr == "segclip: stdin: the file is empty\n"
