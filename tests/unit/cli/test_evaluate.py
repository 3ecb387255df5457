"""Bad labelled images: one line on stderr and exit code 2 from every subcommand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from typer.testing import CliRunner

from segclip import loading
from segclip.cli.main import app
from tests import batch_script
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
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
def test_a_valid_folder_is_measured(command: str, folder: Path) -> None:
    (folder / "instances.json").write_text(table())
    outcome = evaluate(command, folder)
    assert outcome.exit_code == 0, outcome.output


BROKEN_CASES = [
    (broken, command)
    for broken in BROKEN
    for command in COMMANDS
    if command != "search"
    or broken not in ("a height of another image", "an image that is gone")  # search opens none
]


@pytest.mark.parametrize(("broken", "command"), BROKEN_CASES)
def test_a_broken_folder_is_one_error_line(broken: str, command: str, folder: Path) -> None:
    """Fault 17.17c: tracebacks, and a process ended by signal 11."""
    (folder / "instances.json").write_text(BROKEN[broken])
    outcome = evaluate(command, folder)
    assert outcome.exit_code == 2, outcome.output
    assert outcome.stderr.startswith("segclip: ")
    assert len(outcome.stderr.splitlines()) == 1
