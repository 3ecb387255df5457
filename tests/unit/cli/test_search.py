"""The classify, index and search commands: messages, files and rejected options."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner, Result

from segclip import loading
from segclip.cli.main import app
from tests import search_script
from tests.fakes import paint


@pytest.fixture(autouse=True)
def fakes(fake_models: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loading, "load_encoder", search_script.fake_encoder)
    monkeypatch.setattr(loading, "encoder_fingerprint", search_script.fake_hash)
    monkeypatch.setattr("segclip.cli.search.OUT", tmp_path / "default")
    monkeypatch.setattr("segclip.cli.classify.OUT", tmp_path / "default")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        PIL.Image.fromarray(paint((colour, (20, 20, 130, 110))).pixels).save(
            tmp_path / "photos" / f"{name}.png"
        )
    return tmp_path / "photos"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


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
    assert PIL.Image.open(tmp_path / "default" / "search.png").width == 320
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
        (("classify", photos / "a.png"), "--labels-file"),
        (("classify", photos / "a.png", "--labels", " , "), "no labels"),
        (
            ("classify", photos / "a.png", "--labels", "red", "--segments", "--box", "1,2,30,40"),
            "exclude each other",
        ),
        (("classify", photos / "none.png", "--labels", "red"), "no such file"),
    ):
        outcome = run(*arguments)
        assert outcome.exit_code == 2, (arguments, outcome.output)
        assert message in outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1


def test_classify_labels_images_boxes_and_segments(photos: Path, tmp_path: Path) -> None:
    outcome = run(
        "classify", photos / "a.png", photos / "b.png", "--labels", "red,blue,blue", "--top-k", "1"
    )
    assert outcome.exit_code == 0, outcome.output
    assert [line.split()[1] for line in outcome.stdout.splitlines() if line.startswith("  ")] == [
        "red",
        "blue",
    ]
    boxed = run(
        "classify", photos / "a.png", "--labels", "red,blue", "--box", "30,30,90,90", "--json"
    )
    record = json.loads(boxed.stdout)
    assert record["box"] == [30, 30, 90, 90]
    assert record["labels"][0]["label"] == "red"
    named = run("classify", photos / "b.png", "--labels", "red,blue", "--segments")
    assert "b.png: blue" in named.stdout
    assert (tmp_path / "default" / "b.labels.png").is_file()
    piped = CliRunner().invoke(
        app, ["classify", str(photos / "b.png"), "--labels-file", "-"], input="red\nblue\n"
    )
    assert piped.stdout.splitlines()[1].split()[1] == "blue"
    mixed = run("classify", photos / "a.png", photos / "none.png", "--labels", "red")
    assert mixed.exit_code == 1


def test_evaluate_zeroshot_writes_the_confusion_matrix(photos: Path, tmp_path: Path) -> None:
    for name, label in (("a", "red"), ("b", "blue")):
        (tmp_path / "tree" / label).mkdir(parents=True)
        (photos / f"{name}.png").rename(tmp_path / "tree" / label / "1.png")
    outcome = run("evaluate", "zeroshot", tmp_path / "tree", "--out", tmp_path / "confusion.csv")
    assert outcome.exit_code == 0, outcome.output
    assert "top-1 accuracy" in outcome.stdout
    assert (tmp_path / "confusion.csv").read_text() == ",blue,red\nblue,1,0\nred,0,1\n"
