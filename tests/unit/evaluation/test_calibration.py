"""Labelled regions of one's own: COCO folders and class folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from segclip.errors import BadPrompt
from segclip.evaluation import calibration
from segclip.evaluation.calibration import read_labelled
from segclip.scoring.labelled import LabelledRegions, known_file
from tests.fakes import COLOURS

NAMES = ("red", "green", "blue")


def coco_folder(folder: Path, images: int = 2) -> Path:
    """Write images of one square of each name."""
    (folder / "images").mkdir(parents=True)
    annotations: list[dict[str, Any]] = []
    for number in range(images):
        pixels = np.full((100, 200, 3), 255, np.uint8)
        for place, name in enumerate(NAMES):
            x = 10 + 60 * place
            pixels[20:60, x : x + 40] = COLOURS[name]
            outline = [x, 20, x + 40, 20, x + 40, 60, x, 60]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": place + 1,
                    "bbox": [x, 20, 40, 40],
                    "segmentation": [outline],
                }
            )
        PIL.Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    table = {
        "images": [
            {"id": number + 1, "file_name": f"{number}.png", "height": 100, "width": 200}
            for number in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": place + 1, "name": name} for place, name in enumerate(NAMES)],
    }
    (folder / "instances.json").write_text(json.dumps(table))
    return folder


def test_objects_of_a_table_are_cut_with_their_names(tmp_path: Path) -> None:
    regions = read_labelled(coco_folder(tmp_path / "data"))
    named = [row for row, name in enumerate(regions.names) if name]
    assert [regions.names[row] for row in named] == [*NAMES, *NAMES]
    for row in named:
        inside = regions.pixels[row][regions.masks[row]]
        assert (
            np.abs(inside.astype(int) - COLOURS[regions.names[row]]).max(axis=1) < 9
        ).mean() > 0.9


def test_regions_without_a_name_are_those_that_ship(tmp_path: Path) -> None:
    regions = read_labelled(coco_folder(tmp_path / "data"))
    kept = LabelledRegions.read(known_file())
    assert regions.names.count("") == kept.names.count("")


def test_a_name_gives_only_so_many_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "EACH", 3)
    regions = read_labelled(coco_folder(tmp_path / "data", images=5))
    assert [regions.names.count(name) for name in NAMES] == [3, 3, 3]


def test_images_of_class_folders_are_whole_regions(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / "data" / f"{name}_thing").mkdir(parents=True)
        pixels = np.full((40, 60, 3), COLOURS[name], np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / "data" / f"{name}_thing" / "a.png")
    reports: list[tuple[int, int]] = []
    regions = read_labelled(tmp_path / "data", lambda done, total: reports.append((done, total)))
    named = {name for name in regions.names if name}
    assert named == {"blue thing", "green thing", "red thing"}
    assert reports[-1] == (3, 3)


def test_too_few_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data" / "red").mkdir(parents=True)
    PIL.Image.new("RGB", (20, 20)).save(tmp_path / "data" / "red" / "a.png")
    with pytest.raises(BadPrompt, match="regions of 1 names; calibrating takes 3 or more"):
        read_labelled(tmp_path / "data")
