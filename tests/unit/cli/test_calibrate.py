"""The calibrate command: what it prints, and what it writes beside a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segclip import loading
from tests.commands import run
from tests.fakes import FAKE_SERVING, FakeEncoder
from tests.small_clip import save_small_clip
from tests.unit.evaluation.test_calibration import coco_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_small_clip(tmp_path / "run")
    return tmp_path / "run"


def test_an_encoder_with_random_weights_gets_no_threshold(folder: Path) -> None:
    before = (folder / "config.json").read_bytes()
    done = run("calibrate", f"file:{folder}")
    assert done.exit_code == 1
    assert "tells nothing apart" in done.output
    assert (folder / "config.json").read_bytes() == before


def test_settings_are_printed_and_stored_beside_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_encoder", lambda name, **options: FakeEncoder())
    done = run("calibrate", f"file:{folder}", coco_folder(tmp_path / "data"))
    assert done.exit_code == 0, done.output
    assert "threshold  found  silent" in done.output
    assert f"stored in {folder / 'config.json'}" in done.output
    serving = json.loads((folder / "config.json").read_text())["serving"]
    assert serving["calibrated"]
    assert serving["templates"] == list(FAKE_SERVING.templates)


def test_a_preset_is_measured_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_encoder", lambda name, **options: FakeEncoder())
    done = run("calibrate", "mini", coco_folder(tmp_path / "data"))
    assert done.exit_code == 0, done.output
    assert "stored" not in done.output


def test_a_folder_without_labels_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("calibrate", "mini", tmp_path / "empty")
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
