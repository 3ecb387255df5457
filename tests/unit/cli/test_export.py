"""The export command: messages, exit codes and rejected options."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner, Result

from segclip import exporters, loading
from segclip.cli import export
from segclip.cli.main import app
from segclip.files.formats import PER_IMAGE, PER_RUN
from segclip.types import Result as SegmentationResult
from tests.fakes import paint

pytestmark = pytest.mark.usefixtures("fake_models")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        PIL.Image.fromarray(paint((colour, (20, 20, 80, 80))).pixels).save(
            tmp_path / "photos" / f"{name}.png"
        )
    return tmp_path / "photos"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_export_reports_a_summary_and_resumes(photos: Path, tmp_path: Path) -> None:
    outcome = run(photos, tmp_path / "out", "--text", "a red square", "--format", "png,coco")
    assert outcome.exit_code == 0, outcome.output
    assert "2 images processed" in outcome.stdout
    assert "1 matched, 1 empty, 0 failed" in outcome.stdout
    assert f"wrote {tmp_path / 'out' / 'coco.json'}" in outcome.stdout
    again = run(photos, tmp_path / "out", "--text", "a red square", "--format", "png,coco")
    assert "0 images processed" in again.stdout
    assert "2 already done" in again.stdout


def test_a_failure_is_reported_with_exit_code_1(photos: Path, tmp_path: Path) -> None:
    (photos / "c.jpg").write_text("words")
    outcome = run(photos, tmp_path / "out", "--text", "red")
    assert outcome.exit_code == 1
    assert "1 failed" in outcome.stdout
    assert "c.jpg" in outcome.stderr
    assert run(photos, tmp_path / "other", "--text", "red", "--max-failures", "0").exit_code == 1


def test_texts_can_come_from_a_file(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a red square\n\na blue square\n", "utf-8")
    outcome = run(
        photos, tmp_path / "out", "--texts-file", tmp_path / "texts.txt", "--text", "a red square"
    )
    assert outcome.exit_code == 0, outcome.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert list(summary["texts"]) == ["a red square", "a blue square"]


def test_a_shard_waits_for_the_others(photos: Path, tmp_path: Path) -> None:
    outcome = run(photos, tmp_path / "out", "--text", "red", "--shard", "1/2")
    assert outcome.exit_code == 0
    assert "1 of 2 images remain" in outcome.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "x", "--format", "tiff"], "unknown format"),
        ([], "no text, box or point was given"),
        (["--text", "x", "--shard", "3/2"], "i/n"),
        (["--text", "x", "--runner", "slurm"], "unknown runner"),
        (["--box", "1,2,3"], "--box"),
        (["--text", "x", "--texts-file", "nowhere.txt"], "nowhere.txt"),
        (["--text", "x", "--boxes-file", "nowhere.csv"], "nowhere.csv"),
        (["--text", "x", "--preset", "minni"], "did you mean"),
        (["--text", "x", "--templates", "clip80"], "clip-80"),
        (["--text", "\u00a0"], "an empty text"),
        (["--text", "x", "--not", " "], "an empty text"),
        (["--text", "x", "--not", " x "], "ruled out"),
        (["--text", "x", "--background", "\t"], "an empty text"),
        (["--box", "10,10,5,5"], "x1 < x2"),
    ],
)
def test_misuse_gives_exit_code_2_and_one_line(
    photos: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    outcome = run(photos, tmp_path / "out", *arguments)
    assert outcome.exit_code == 2, outcome.output
    assert message in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert "Traceback" not in outcome.output
    assert not (tmp_path / "out" / "png").exists()


def test_ctrl_c_reports_how_to_resume(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "load", interrupt)
    outcome = run(photos, tmp_path / "out", "--text", "x")
    assert outcome.exit_code == 130
    assert "run the same command again" in outcome.stderr


def test_an_incomplete_unsharded_run_gives_exit_code_1(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export fault 5: an image that changes during the export remains to be done."""

    def edit(result: SegmentationResult, path: Path) -> list[Path]:
        (photos / "a.png").write_bytes((photos / "b.png").read_bytes())
        return exporters.WRITERS["npz"](result, path)

    monkeypatch.setitem(exporters.WRITERS, "png", edit)
    outcome = run(photos, tmp_path / "out", "--text", "red")
    assert outcome.exit_code == 1
    assert "images remain" in outcome.output


def test_every_format_is_offered() -> None:
    assert set(export.FORMATS) == {*PER_IMAGE, *PER_RUN}


def test_fault_17_21_an_input_without_images_gives_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    outcome = run(tmp_path / "photos", tmp_path / "out", "--text", "red")
    assert outcome.exit_code == 1
    assert "no image was found" in outcome.stderr


def test_fault_17_1_a_file_in_the_way_gives_exit_code_2_and_one_line(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "coco.json").write_text("mine")
    outcome = run(photos, tmp_path / "out", "--text", "a red square")
    assert outcome.exit_code == 2
    assert "move or delete it" in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert (tmp_path / "out" / "coco.json").read_text() == "mine"


def test_fault_17_8_verify_reads_everything_again(photos: Path, tmp_path: Path) -> None:
    assert run(photos, tmp_path / "out", "--text", "a red square").exit_code == 0
    outcome = run(photos, tmp_path / "out", "--text", "a red square", "--verify")
    assert outcome.exit_code == 0, outcome.output
    assert "0 images processed" in outcome.stdout
