"""Bad labelled images: one line on stderr and exit code 2 from every subcommand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from typer.testing import CliRunner

from segclip import loading
from segclip.cli import output
from segclip.cli.main import app
from tests import batch_script
from tests.commands import run
from tests.fakes import FakeEncoder, FakeProposer, paint

THING = {
    "id": 1,
    "image_id": 1,
    "category_id": 1,
    "bbox": [10, 10, 40, 40],
    "segmentation": [[10, 10, 50, 10, 50, 50]],
}
IMAGE = {"id": 1, "file_name": "a.png", "height": 120, "width": 160}
NAMES = [{"id": 1, "name": "red"}]
RLE = {"size": [120, 160], "counts": "zzzz"}


def table(
    thing: dict[str, Any] | None = None, image: dict[str, Any] | None = None, **parts: Any
) -> str:
    """Return a COCO-format table with some parts replaced; None leaves a part out."""
    annotation = {
        key: value for key, value in {**THING, **(thing or {})}.items() if value != "gone"
    }
    whole = {
        "images": [{**IMAGE, **(image or {})}],
        "annotations": [annotation],
        "categories": NAMES,
        **parts,
    }
    return json.dumps({key: value for key, value in whole.items() if value is not None})


BROKEN = {
    "empty": "",
    "a list": "[]",
    "cut": table()[:50],
    "deep": "[" * 100_000,
    "no images": table(images=[]),
    "no categories": table(categories=None),
    "no category of that id": table({"category_id": 9}),
    "no image of that id": table({"image_id": 9}),
    "no box": table({"bbox": "gone"}),
    "a wrong box": table({"bbox": 5}),
    "no outline": table({"segmentation": "gone"}),
    "a null outline": table({"segmentation": None}),
    "an empty outline": table({"segmentation": []}),
    "a lying code": table({"segmentation": RLE}),
    "another code": table({"segmentation": {"size": [120, 160], "counts": [2**31, 2**31]}}),
    "an outline far away": table({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}),
    "a height in words": table(image={"height": "120"}),
    "a height that lies": table(image={"height": 1_000_000}),
    "a height of another image": table(image={"height": 121}),
    "an image elsewhere": table(image={"file_name": "../x"}),
    "an image that is gone": table(image={"file_name": "b.png"}),
}
COMMANDS = ("text", "proposals", "clicks", "regions", "search")


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Draw one image, and replace the models by fakes."""
    monkeypatch.setenv("SEGCLIP_OFFLINE", "")
    (tmp_path / "images").mkdir()
    PIL.Image.fromarray(paint(("red", (10, 10, 50, 50))).pixels).save(tmp_path / "images" / "a.png")
    monkeypatch.setattr(loading, "load", batch_script.fake_load)
    monkeypatch.setattr(loading, "load_proposer", lambda name, **options: FakeProposer())
    monkeypatch.setattr(loading, "load_encoder", lambda name, **options: FakeEncoder())
    return tmp_path


def evaluate(command: str, folder: Path) -> Any:
    return CliRunner().invoke(app, ["evaluate", command, str(folder)])


@pytest.mark.parametrize("command", ["text", "proposals", "clicks", "regions"])
def test_a_valid_folder_is_measured(command: str, labelled: Path) -> None:
    (labelled / "instances.json").write_text(table())
    outcome = evaluate(command, labelled)
    assert outcome.exit_code == 0, outcome.output


BROKEN_CASES = [
    (broken, command)
    for broken in BROKEN
    for command in COMMANDS
    if command != "search"
    or broken not in ("a height of another image", "an image that is gone")  # search opens none
]


@pytest.mark.parametrize(("broken", "command"), BROKEN_CASES)
def test_a_broken_folder_is_one_error_line(broken: str, command: str, labelled: Path) -> None:
    """Fault 17.17c: tracebacks, and a process ended by signal 11."""
    (labelled / "instances.json").write_text(BROKEN[broken])
    outcome = evaluate(command, labelled)
    assert outcome.exit_code == 2, outcome.output
    assert outcome.stderr.startswith("segclip: ")
    assert len(outcome.stderr.splitlines()) == 1


def label(folder: Path, *absent: str) -> None:
    """Write a COCO-format table of the image's red box, plus absent categories."""
    (folder / "images").mkdir()
    (folder / "desk.png").rename(folder / "images" / "desk.png")
    thing = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [10, 10, 40, 40]}
    thing["segmentation"] = [[10, 10, 50, 10, 50, 50, 10, 50]]
    table = {
        "images": [{"id": 1, "file_name": "desk.png", "height": 120, "width": 160}],
        "categories": [{"id": at, "name": name} for at, name in enumerate(("red", *absent), 1)],
        "annotations": [thing],
    }
    (folder / "instances.json").write_text(json.dumps(table))


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    ("verb", "line"), [("proposals", "AR@10, medium"), ("clicks", "mean IoU after 1 click")]
)
def test_evaluate_prints_its_table(verb: str, line: str, folder: Path) -> None:
    label(folder)
    outcome = run("evaluate", verb, ".")
    assert outcome.exit_code == 0, outcome.output
    assert f"{line:48} 1.000" in outcome.stdout.splitlines()
    assert not outcome.stderr
    (folder / "instances.json").unlink()
    assert run("evaluate", verb, ".").exit_code == 2


@pytest.mark.usefixtures("loads")
def test_evaluate_prints_progress_lines_without_a_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(folder)
    monkeypatch.setattr(output, "EVERY", 0.0)
    printed = run("evaluate", "proposals", ".").stderr
    assert re.fullmatch(r"1 of 1, [\d.]+/s, 0 min left\n", printed)


@pytest.mark.usefixtures("loads")
def test_evaluate_text_stores_the_fitted_threshold_in_the_run(folder: Path) -> None:
    label(folder, "a zebra")
    outcome = run("evaluate", "text", ".", "--calibrate")
    assert outcome.exit_code == 2
    assert "give --encoder file:RUN" in outcome.stderr
    (folder / "run").mkdir()
    config = {"model_cfg": {"embed_dim": 4}, "serving": {"threshold": 0.99}}
    (folder / "run" / "config.json").write_text(json.dumps(config))
    outcome = run("evaluate", "text", ".", "--encoder", "file:run", "--calibrate")
    assert outcome.exit_code == 0, outcome.output
    stored = json.loads((folder / "run" / "config.json").read_text())
    assert stored["model_cfg"] == config["model_cfg"]
    assert stored["serving"]["calibrated"] is True
    assert stored["serving"]["threshold"] == 0.9999  # not 1, which nothing would reach
    assert f"stored threshold {stored['serving']['threshold']} in run/config.json" in outcome.stdout


@pytest.mark.usefixtures("loads")
def test_no_threshold_is_fitted_without_absent_names(folder: Path) -> None:
    label(folder)
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text("{}")
    assert (
        "threshold that fits best here                    -" in run("evaluate", "text", ".").stdout
    )
    outcome = run("evaluate", "text", ".", "--encoder", "file:run", "--calibrate")
    assert outcome.exit_code == 2
    assert "one kind is missing" in outcome.stderr
    assert (folder / "run" / "config.json").read_text() == "{}"


@pytest.mark.usefixtures("search_models")
@pytest.mark.parametrize("verb", ["zeroshot", "text", "proposals", "clicks", "retrieval", "search"])
def test_a_missing_folder_is_reported_in_plain_words(tmp_path: Path, verb: str) -> None:
    outcome = run("evaluate", verb, tmp_path / "absent")
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("segclip: ")
    assert "absent" in outcome.stderr
    assert "Errno" not in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_evaluate_zeroshot_writes_the_confusion_matrix(photos: Path, tmp_path: Path) -> None:
    for name, label in (("a", "red"), ("b", "blue")):
        (tmp_path / "tree" / label).mkdir(parents=True)
        (photos / f"{name}.png").rename(tmp_path / "tree" / label / "1.png")
    outcome = run("evaluate", "zeroshot", tmp_path / "tree", "--out", tmp_path / "confusion.csv")
    assert outcome.exit_code == 0, outcome.output
    assert "top-1 accuracy" in outcome.stdout
    assert (tmp_path / "confusion.csv").read_text() == ",blue,red\nblue,1,0\nred,0,1\n"
