"""Masks, cut-outs, label maps and arrays hold every pixel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw

from segclip import exporters
from segclip.exporters import raster
from segclip.types import Result
from tests.results import (
    CANVAS,
    MASKS,
    SIZE,
    result_of,
)


class TestW8MasksLeavePixelExact:
    """FastSAM saved what matplotlib had resampled."""

    def test_png(self, result: Result, tmp_path: Path) -> None:
        files = exporters.save(result, tmp_path / "desk.png", format="png")
        assert [file.name for file in files] == ["desk.00.png", "desk.01.png", "desk.02.png"]
        for row, file in enumerate(files):
            pixels = np.asarray(PIL.Image.open(file))
            assert pixels.shape == SIZE
            assert np.array_equal(pixels, result.masks.full(row) * 255)

    def test_cutout(self, result: Result, tmp_path: Path) -> None:
        for row, file in enumerate(exporters.save(result, tmp_path / "desk.png", format="cutout")):
            cutout = PIL.Image.open(file)
            assert cutout.mode == "RGBA"
            pixels = np.asarray(cutout)
            (x1, y1, x2, y2), bitmap = result.masks.boxes[row], result.masks.bitmaps[row]
            assert np.array_equal(pixels[..., 3], bitmap * 255)
            assert np.array_equal(
                pixels[..., :3][bitmap], result.image.pixels[y1:y2, x1:x2][bitmap]
            )
            assert not pixels[
                ~bitmap
            ].any()  # pixels outside the mask are not hidden under the alpha


def test_npz_brings_every_mask_back(tmp_path: Path) -> None:
    given = result_of(*MASKS.values(), np.zeros(CANVAS, bool))
    (file,) = exporters.save(given, tmp_path / "a.npz")
    masks, texts = raster.read_arrays(file)
    assert np.array_equal(masks.to_dense(), given.masks.to_dense())
    assert texts == given.texts
    again = exporters.save(given, tmp_path / "b.npz")[0]
    assert again.read_bytes() == file.read_bytes()


def test_a_label_map_has_the_better_row_on_top_and_a_legend(tmp_path: Path) -> None:
    given = result_of(MASKS["a disc"], MASKS["a ring with a hole"])
    image, legend = exporters.save(given, tmp_path / "a.labelmap.png", format="labelmap")
    labels = np.asarray(PIL.Image.open(image))
    assert labels.max() == 2
    assert np.array_equal(labels == 1, MASKS["a disc"])
    assert np.array_equal(labels == 2, MASKS["a ring with a hole"] & ~MASKS["a disc"])
    assert json.loads(legend.read_text("utf-8"))["2"]["text"] == given.texts[1]


def test_a_feathered_cutout_fades_and_is_empty_far_outside(tmp_path: Path) -> None:
    given = result_of(MASKS["a disc"])
    (file,) = raster.write_cutouts(given, tmp_path / "a.png", feather=6)
    pixels = np.asarray(PIL.Image.open(file))
    assert len(np.unique(pixels[..., 3])) > 20
    assert pixels[pixels.shape[0] // 2, pixels.shape[1] // 2, 3] == 255
    assert not pixels[pixels[..., 3] == 0].any()
