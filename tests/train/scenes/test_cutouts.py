"""Objects cut out of photographs follow their masks, have names, and are pasted like drawn ones."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from train.scenes.compose import compose
from train.scenes.cutouts import MOST_ACROSS, PHOTOGRAPHIC, cut_out, load_cutouts, photo_cutouts
from train.scenes.photos import Photo


def disc(side: int, radius: int) -> np.ndarray:
    alpha = np.zeros((side, side), np.uint8)
    cv2.circle(alpha, (side // 2, side // 2), radius, 255, -1)
    return alpha


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs of two collections; some masks are soft, nearly full or in pieces."""
    rows = []
    for number in range(12):
        kind = "caltech-101/sea_horse" if number < 11 else "imagenet-sample"
        for root in (tmp_path, tmp_path / "foreground"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        pixels = np.full((120, 120, 3), (0, 0, 200), np.uint8)
        pixels[disc(120, 30) == 0] = (0, 90, 0)
        cv2.imwrite(str(tmp_path / kind / f"{number:02d}.jpg"), pixels)
        cv2.imwrite(str(tmp_path / "foreground" / kind / f"{number:02d}.png"), disc(120, 30))
        columns: dict[str, float] = {"share": 0.2, "pieces": 1, "on_border": 0.0, "soft": 0.1}
        changed: dict[int, dict[str, float]] = {
            2: {"soft": 0.5},
            3: {"share": 0.95},
            4: {"pieces": 6},
        }
        rows.append({"mask": f"{kind}/{number:02d}.png", **columns, **changed.get(number, {})})
    (tmp_path / "imagenet-sample" / "names.csv").write_text("image,wnid,name\n11.jpg,n1,tench\n")
    with (tmp_path / "foreground" / "masks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_unclean_masks_are_left_out_and_every_fifth_is_held_out(folder: Path) -> None:
    learned = load_cutouts(folder / "foreground", folder, held_out=False)
    kept = load_cutouts(folder / "foreground", folder, held_out=True)
    assert (len(learned), len(kept)) == (8, 1)
    assert [cutout.name for cutout in learned] == ["sea horse"] * 7 + ["tench"]
    assert all(cutout.texts == (cutout.name,) for cutout in learned)


def test_a_cutout_contains_the_object_and_no_background(folder: Path) -> None:
    pixels = load_cutouts(folder / "foreground", folder, held_out=False)[0].pixels
    assert pixels.dtype == np.float32
    assert abs(pixels.shape[0] - 61) <= 2
    solid = pixels[..., 3] == 1
    assert solid.mean() > 0.7
    assert pixels[solid][:, 0].mean() > 0.7
    assert (pixels[..., :3] <= pixels[..., 3:] + 1e-6).all()  # premultiplied
    assert np.quantile(pixels[..., 1], 0.95) < 0.3


def test_a_large_cutout_is_reduced() -> None:
    stored = cut_out(np.zeros((800, 800, 3), np.uint8), disc(800, 380))
    assert max(stored.shape[:2]) == MOST_ACROSS


def test_labelled_objects_are_cut_out_unless_the_frame_cuts_them_or_they_are_small() -> None:
    labels = np.zeros((200, 300), np.int16)
    labels[50:120, 50:120], labels[150:, 200:280], labels[10:20, 10:20], labels[60:120, 200:260] = (
        1,
        2,
        3,
        4,
    )
    photo = Photo(
        np.full((200, 300, 3), 90, np.uint8), labels, names=("dog", "cat", "ball", "skin")
    )
    assert [cutout.name for cutout in photo_cutouts([photo])] == ["dog"]


def test_pasted_scenes_are_exact_and_the_same_for_a_seed(folder: Path) -> None:
    cutouts = load_cutouts(folder / "foreground", folder, held_out=False)
    scene, again = (compose(3, cutouts, [], PHOTOGRAPHIC) for _ in range(2))
    assert np.array_equal(scene.pixels, again.pixels)
    assert len(scene.glyphs)
    assert all(cutouts[index].name in ("sea horse", "tench") for index in scene.glyphs)
    for row in range(len(scene.glyphs)):
        assert np.array_equal(scene.masks.full(row), scene.layers == row)
