"""The table of labelled regions: cut, written and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segclip.errors import WeightsCorrupt, WeightsMissing
from segclip.scoring.labelled import SIDE, LabelledRegions, known_file, window
from segclip.types import Image, Masks


def some(count: int) -> LabelledRegions:
    rng = np.random.default_rng(0)
    masks = rng.random((count, SIDE, SIDE)) < 0.5
    pixels = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    pixels += np.linspace(20, 230, count).astype(np.uint8)[:, None, None, None]
    names = tuple(f"thing {row}" for row in range(count))
    return LabelledRegions(names, pixels, masks, np.linspace(0.25, 1, count))


@pytest.mark.parametrize("count", [1, 4, 7])
def test_regions_are_read_as_they_were_written(count: int, tmp_path: Path) -> None:
    written = some(count)
    written.save(tmp_path / "set.npz")
    read = LabelledRegions.read(tmp_path / "set.npz")
    assert read.names == written.names
    assert (read.masks == written.masks).all()
    assert read.quality == pytest.approx(written.quality, abs=1e-3)
    assert np.abs(read.pixels.astype(int) - written.pixels).max() <= 4  # a lossy image


def test_windows_lie_where_the_regions_are_in_the_sheet() -> None:
    regions = some(5)
    sheet, masks = regions.tiled(), regions.windows()
    assert masks.size == sheet.shape[:2]
    for row in range(5):
        assert masks.areas[row] == regions.masks[row].sum()
        assert (sheet[masks.full(row)] == regions.pixels[row, 0, 0]).all()


def test_a_window_holds_the_region_and_as_much_around_it() -> None:
    pixels = np.zeros((50, 80, 3), np.uint8)
    pixels[10:30, 40:60] = 200
    masks = Masks.from_windows([(40, 10, np.ones((20, 20), bool))], (50, 80))
    cut, mask = window(Image(pixels, "a.png"), masks, 0)
    assert cut.shape == (SIDE, SIDE, 3)
    assert mask.mean() == pytest.approx(1 / 4, abs=0.02)
    assert (cut[mask] >= 100).all()  # the edge lies half way, in pixels and mask alike
    assert (cut[~mask] <= 100).all()


def test_a_region_at_the_edge_is_cut_with_the_edge_repeated() -> None:
    masks = Masks.from_windows([(0, 0, np.ones((10, 4), bool))], (10, 40))
    cut, mask = window(Image(np.full((10, 40, 3), 7, np.uint8), "a.png"), masks, 0)
    assert (cut == 7).all()
    assert 0 < mask.mean() < 1


def test_a_missing_and_a_damaged_file_are_reported(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="install segclip again"):
        LabelledRegions.read(tmp_path / "none.npz")
    for content in (b"", b"PK\x03\x04", b"no archive"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(WeightsCorrupt, match="is damaged"):
            LabelledRegions.read(tmp_path / "bad.npz")


def test_what_ships_has_many_names_and_as_many_regions_without_one() -> None:
    regions = LabelledRegions.read(known_file())
    named = [name for name in regions.names if name]
    assert len(set(named)) >= 60
    assert len(named) >= 100
    assert len(regions.names) - len(named) >= 100
    assert regions.masks.any(axis=(1, 2)).all()
    assert known_file().stat().st_size < 900_000
