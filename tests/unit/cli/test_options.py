"""Options become questions, selections and models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image as Pillow

from segclip import exporters, loading, question
from segclip.cli import options
from segclip.files import formats
from segclip.ranking import templates
from segclip.ranking.selection import Selection
from segclip.scoring import crops
from tests.commands import run
from tests.fakes import paint


@pytest.mark.usefixtures("loads")
def test_larger_models_are_suggested_once_for_a_users_photo(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(folder / "home"))
    assert "weights get photo" not in run("segment", "desk.png", "red", "--preset", "photo").stderr
    assert "weights get photo" not in run("segment", "desk.png", "red", "--json").output
    first, second = run("segment", "desk.png", "red"), run("segment", "desk.png", "red")
    assert first.stderr.count("weights get photo") == 1
    assert "weights get photo" not in first.stdout + second.output
    (folder / "home" / "once" / "larger-models").unlink()
    (folder / "samples").mkdir()
    Path("desk.png").rename("samples/desk.png")
    assert "weights get photo" not in run("segment", "samples/desk.png", "red").output


@pytest.mark.usefixtures("loads", "folder")
@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["--point", "20,20"], [("point", [10, 10, 50, 50])]),
        (
            ["--box", "0,0,55,55", "--box", "100,50,160,120"],
            [("box 1", [10, 10, 50, 50]), ("box 2", [110, 60, 150, 110])],
        ),
        (["red", "blue", "--box", "0,0,55,55"], [("red", [10, 10, 50, 50])]),
        (["red", "blue", "--point", "20,20,0"], [("blue", [110, 60, 150, 110])]),
        (["red", "blue", "--point", "120,80"], [("blue", [110, 60, 150, 110])]),
        (["--like", "20,20"], [("like this", [10, 10, 50, 50])]),
        (["--everything", "--top-k", "1"], [("object", [10, 10, 50, 50])]),
        (["--everything", "--box", "55,0,105,120"], [("object", [60, 20, 100, 80])]),
        (
            ["--everything", "--point", "20,20,0", "--box", "0,0,105,120"],
            [("object", [60, 20, 100, 80])],
        ),
        (["--everything", "--box", "0,0,5,5"], []),
        (["--like", "20,20", "--box", "55,0,160,120"], []),
    ],
)
def test_points_and_boxes_work_alone_and_with_texts(
    options: list[str], rows: list[tuple[str, list[int]]], loads: list[tuple[object, ...]]
) -> None:
    outcome = run("segment", "desk.png", *options, "--json")
    assert outcome.exit_code == 0, outcome.output
    # an encoder is loaded only where it is needed
    assert bool(loads) == bool({"red", "--like"} & set(options))
    record = json.loads(outcome.stdout)
    assert [(row["text"], row["box"]) for row in record["rows"]] == rows
    if rows and "red" not in options and "--like" not in options:
        assert {row["probability"] for row in record["rows"]} == {None}


@pytest.mark.usefixtures("loads", "folder")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "neither a text nor a place"),
        (["--point", "500,20"], r"x must lie in \[0, 160\)"),
        (["--point", "nan,20"], "finite"),
        (["--point", "20"], "takes 2 or 3 numbers"),
        (["--point", "20,20,2"], "one 0 or 1"),
        (["--point", "x,y"], "takes 2 or 3 numbers"),
        (["--box", "10,10,500,20"], r"x must lie in \[0, 160\]"),
        (["--box", "50,10,10,20"], "x1 < x2"),
        (["--box", "50,10,10,20"], "if these are x, y, width and height, write 50,10,60,30"),
        (["--box", "1,2,3"], "takes 4 numbers"),
        (["--point", "20,20", "--box", "0,0,9,9", "--box", "20,20,30,30"], "one box"),
        (["--like", "155,5"], "nothing at the example's place"),
        (["--like", "20,20", "--unlike", "155,5"], "nothing at the example"),
        (["--like", "20,20", "--point", "5,5"], "--like takes no --point"),
        (["red", "--everything"], "takes neither texts"),
        (["--everything", "--point", "20,20"], "nor a click on an object"),
        (["--everything", "--like", "20,20"], "nor --like"),
        (["second from the right"], "not what"),
    ],
)
def test_bad_prompts_are_rejected_with_what_is_allowed(options: list[str], message: str) -> None:
    outcome = run("segment", "desk.png", *options)
    assert outcome.exit_code == 2
    assert re.search(message, outcome.stderr)
    assert outcome.stderr.count("\n") == 1


@pytest.mark.usefixtures("loads")
def test_every_selection_option_reaches_the_selection(folder: Path) -> None:
    image = paint(
        ("red", (10, 10, 70, 70)), ("green", (20, 20, 40, 40)), ("blue", (80, 20, 120, 60))
    )
    Pillow.fromarray(image.pixels).save(folder / "desk.png")

    def boxes(*options: str) -> list[list[int]]:
        text = "red, green and blue"
        outcome = run("segment", "desk.png", text, "--json", "--background", "nothing", *options)
        return sorted(row["box"] for row in json.loads(outcome.stdout)["rows"])

    red, green, blue = [10, 10, 70, 70], [20, 20, 40, 40], [80, 20, 120, 60]
    assert boxes("--keep-parts") == [red, green, blue]
    assert boxes("--not", "green") == [red, blue]
    assert boxes("--nms", "0.1") == [red, green, blue]
    assert len(boxes("--keep-parts", "--top-k", "2")) == 2
    assert len(boxes("--best")) == 1
    assert boxes("--threshold", "1") == []
    assert len(boxes("--threshold", "1", "--best")) == 1
    assert boxes("--templates", "plain", "--not", "green") == [red, blue]


@pytest.mark.usefixtures("folder")
def test_models_are_chosen_by_preset_and_by_part(loads: list[tuple[object, ...]]) -> None:
    run(
        "segment",
        "desk.png",
        "red",
        "--preset",
        "photo",
        "--device",
        "cpu",
        "--policy",
        "tight",
        "--offline",
        "--trust",
    )
    run(
        "segment",
        "desk.png",
        "red",
        "--proposer",
        "file:own.pt",
        "--encoder",
        "ViT-B-16/file:own.safetensors",
    )
    run("segment", "desk.png", "red", "--preset", "photo", "--proposer", "fastsam-x")
    assert loads == [
        (*loading.PRESETS["photo"], "cpu", "tight", True, True),
        ("file:own.pt", "ViT-B-16/file:own.safetensors", "auto", None, False, False),
        ("fastsam-x", loading.PRESETS["photo"][1], "auto", None, False, False),
    ]


@pytest.mark.usefixtures("loads", "folder")
def test_texts_may_be_given_by_option_too() -> None:
    def searched(*options: str) -> list[str]:
        outcome = run("segment", *options, "--json")
        texts: list[str] = json.loads(outcome.stdout)["asked"]
        return texts

    assert searched("desk.png", "--text", "red") == ["red"]
    assert searched("--text", "red", "--text", "a blue box", "desk.png") == ["red", "a blue box"]
    assert searched("desk.png", "red", "--text", "blue") == ["red", "blue"]
    outcome = run("segment", "desk.png", "--everything", "--text", "red")
    assert outcome.exit_code == 2
    assert "takes neither texts" in outcome.stderr


@pytest.mark.usefixtures("loads", "folder")
@pytest.mark.parametrize("flag", ["--top-k", "-k", "-n"])
def test_the_number_of_results_has_the_same_flags_everywhere(flag: str) -> None:
    outcome = run("segment", "desk.png", "--everything", flag, "2", "--json")
    assert len(json.loads(outcome.stdout)["rows"]) == 2
    for verb in ("segment", "classify", "search", "export"):
        assert re.search(rf"{flag}\b", run(verb, "--help").stdout), verb


def test_help_lists_the_values_of_closed_options() -> None:
    listed = {verb: run(verb, "--help").stdout for verb in ("segment", "index", "export", "app")}
    for policy in crops.POLICIES:
        assert policy in listed["segment"]
        assert policy in listed["index"]
    for name in (*templates.TEMPLATES, *templates.PROVIDED):
        assert name in listed["segment"]
    for format in formats.PER_IMAGE:
        assert format in listed["segment"]
    for format in formats.PER_RUN:
        assert format in listed["export"]
    for engine in ("auto", "numpy", "lancedb"):
        assert engine in listed["index"]
    assert "local" in listed["export"]
    assert "ray" in listed["export"]
    assert "mini-sam" in listed["app"]


@pytest.mark.usefixtures("loads", "folder")
@pytest.mark.parametrize("texts", [["b.png", "apple"], ["apple", "photos/c d.JPG"], ["b.webp"]])
def test_shell_expanded_files_are_not_taken_for_texts(texts: list[str]) -> None:
    """Fault 17.23: segment photos/*.png "apple" looked for files by their names."""
    outcome = run("segment", "desk.png", *texts)
    assert outcome.exit_code == 2
    assert "is a file, not a text" in outcome.stderr
    assert "segclip export" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_formats_and_defaults_agree_with_the_library() -> None:
    assert set(formats.PER_IMAGE) == set(exporters.WRITERS)
    assert options.RivalOptions.max_pixels == question.MAX_PIXELS
    assert options.SelectionOptions().selection() == Selection()
    assert options.SelectionOptions(nms=0.1, keep_parts=True).selection() == Selection(
        nms=0.1, containment=None
    )
    for preset in loading.PRESETS:
        assert preset in run("segment", "--help").stdout
