from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from segclip.errors import UnknownName
from segclip.scoring import crops
from segclip.scoring.crops import FILLS, POLICIES, CropPolicy, View, cut, cut_boxes
from segclip.types import Array, Image, Masks
from tests.thin import LONGEST, striped

SIZE = (80, 120)


def noise(seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8))


def block(x1: int, y1: int, x2: int, y2: int) -> Masks:
    return Masks.from_windows([(x1, y1, np.ones((y2 - y1, x2 - x1), bool))], SIZE)


def disc(cx: int, cy: int, radius: int) -> Masks:
    ys, xs = np.ogrid[: SIZE[0], : SIZE[1]]
    return Masks.from_dense(((xs - cx) ** 2 + (ys - cy) ** 2 <= radius**2)[None])


def window_of(masks: Masks, x: int, y: int, side: int) -> Array:
    return masks.full(0)[y : y + side, x : x + side]


class TestCut:
    def test_shape_and_dtype(self) -> None:
        crops = cut(noise(), Masks.from_dense(np.ones((3, *SIZE))), View(), 32)
        assert crops.shape == (3, 32, 32, 3)
        assert crops.dtype == np.uint8

    def test_no_masks_give_no_crops(self) -> None:
        assert cut(noise(), Masks.empty(SIZE), View(), 32).shape == (0, 32, 32, 3)
        assert cut_boxes(noise(), Masks.empty(SIZE), "black") == []

    def test_tight_at_its_own_size_is_the_pixels(self) -> None:
        image = noise()
        assert np.array_equal(
            cut(image, block(30, 20, 62, 52), View(1.0, "keep"), 32)[0], image.pixels[20:52, 30:62]
        )

    def test_context_widens_the_window_about_the_centre(self) -> None:
        image = noise()
        assert np.array_equal(
            cut(image, block(40, 30, 60, 50), View(2.0, "keep"), 40)[0], image.pixels[20:60, 30:70]
        )

    @pytest.mark.parametrize(("fill", "value"), [("black", 0), ("white", 255)])
    def test_flat_fills_are_exact_outside_and_pixels_are_exact_inside(
        self, fill: str, value: int
    ) -> None:
        image, masks = noise(), disc(60, 40, 15)
        crop, inside = cut(image, masks, View(1.0, fill), 31)[0], window_of(masks, 45, 25, 31)
        assert np.array_equal(crop[inside], image.pixels[25:56, 45:76][inside])
        assert (crop[~inside] == value).all()

    def test_mean_is_the_whole_images(self) -> None:
        image, masks = noise(), disc(60, 40, 15)
        crop, inside = cut(image, masks, View(1.0, "mean"), 31)[0], window_of(masks, 45, 25, 31)
        assert (crop[~inside] == np.rint(image.pixels.mean(axis=(0, 1)))).all()
        assert np.array_equal(crop[inside], image.pixels[25:56, 45:76][inside])

    def test_blur_changes_the_outside_only(self) -> None:
        image, masks = noise(), disc(60, 40, 15)
        crop, inside = cut(image, masks, View(1.0, "blur"), 31)[0], window_of(masks, 45, 25, 31)
        pixels = image.pixels[25:56, 45:76]
        assert np.array_equal(crop[inside], pixels[inside])
        assert crop[~inside].std() < pixels[~inside].std() / 2

    def test_blur_keeps_the_surroundings_colour(self) -> None:
        pixels = np.zeros((*SIZE, 3), np.uint8)
        pixels[:, :60], pixels[:, 60:] = (200, 40, 40), (40, 40, 200)
        crop = cut(Image(pixels), disc(60, 40, 10), View(2.0, "blur"), 42)[0]
        assert np.abs(crop[2, 2].astype(int) - (200, 40, 40)).max() < 20
        assert np.abs(crop[2, -3].astype(int) - (40, 40, 200)).max() < 20

    @pytest.mark.parametrize("box", [(0, 36, 120, 44), (56, 0, 64, 80)])
    def test_w4_a_long_object_keeps_its_ends(self, box: tuple[int, int, int, int]) -> None:
        """A centre crop loses both ends of a long object: here both marked ends are kept."""
        x1, y1, x2, y2 = box
        pixels = np.zeros((*SIZE, 3), np.uint8)
        ends = ((y1, x1), (y2 - 8, x2 - 8))
        for (y, x), colour in zip(ends, ((255, 0, 0), (0, 255, 0)), strict=True):
            pixels[y : y + 8, x : x + 8] = colour
        for view in POLICIES["default"].views:
            crop = cut(Image(pixels), block(*box), view, 120)[0].astype(int)
            assert (crop[..., 0] - crop[..., 1]).max() > 200
            assert (crop[..., 1] - crop[..., 0]).max() > 200

    def test_past_the_edge_the_edge_is_repeated(self) -> None:
        image = noise()
        crop = cut(image, block(0, 0, 20, 20), View(2.0, "keep"), 40)[0]
        assert np.array_equal(crop[10:, 10:], image.pixels[:30, :30])
        assert np.array_equal(crop[10:, 0], image.pixels[:30, 0])
        assert np.array_equal(crop[0, 10:], image.pixels[0, :30])
        assert (crop[:10, :10] == image.pixels[0, 0]).all()

    @pytest.mark.parametrize(
        "box", [(0, 0, 1, 1), (119, 79, 120, 80), (0, 0, 120, 80), (0, 0, 1, 80), (3, 5, 8, 6)]
    )
    @pytest.mark.parametrize("fill", FILLS)
    @pytest.mark.parametrize("context", [1.0, 1.5, 3.7])
    def test_every_place_and_size_is_cut(
        self, box: tuple[int, int, int, int], fill: str, context: float
    ) -> None:
        assert cut(noise(), block(*box), View(context, fill), 16).shape == (1, 16, 16, 3)

    def test_a_mask_without_pixels_is_cut_too(self) -> None:
        assert cut(noise(), Masks.from_dense(np.zeros((1, *SIZE))), View(), 16).shape == (
            1,
            16,
            16,
            3,
        )

    def test_w6_nested_masks_with_one_box_give_different_crops(self) -> None:
        """FastSAM cropped the box, so a ring and the disc it surrounds got the same crop."""
        whole = disc(60, 40, 20)
        ring = Masks.from_dense((whole.full(0) & ~disc(60, 40, 15).full(0))[None])
        assert whole.boxes.tolist() == ring.boxes.tolist()
        assert not np.array_equal(cut(noise(), whole, View(), 32), cut(noise(), ring, View(), 32))

    def test_rows_do_not_depend_on_each_other(self) -> None:
        image, dense = (
            noise(),
            np.concatenate([disc(30, 40, 9).to_dense(), disc(80, 40, 25).to_dense()]),
        )
        both = cut(image, Masks.from_dense(dense), View(), 24)
        for row in range(2):
            assert np.array_equal(
                both[row], cut(image, Masks.from_dense(dense[[row]]), View(), 24)[0]
            )

    def test_the_image_is_left_as_it_was(self) -> None:
        image = noise()
        for fill in FILLS:
            cut(image, disc(60, 40, 20), View(1.0, fill), 41)
        assert np.array_equal(image.pixels, noise().pixels)


class TestCutBoxes:
    def test_black_outside_exact_inside_at_its_own_shape(self) -> None:
        image, masks = noise(), disc(60, 40, 15)
        (crop,) = cut_boxes(image, masks, "black")
        inside = masks.bitmaps[0]
        assert crop.shape == (*inside.shape, 3)
        assert np.array_equal(crop[inside], image.pixels[25:56, 45:76][inside])
        assert not crop[~inside].any()

    def test_keep_keeps(self) -> None:
        image = noise()
        assert np.array_equal(
            cut_boxes(image, block(5, 6, 50, 20), "keep")[0], image.pixels[6:20, 5:50]
        )


class TestPolicies:
    def test_a_policy_survives_json(self) -> None:
        for policy in POLICIES.values():
            assert CropPolicy.from_dict(json.loads(json.dumps(asdict(policy)))) == policy

    def test_the_weights_of_the_views_sum_to_one(self) -> None:
        for policy in POLICIES.values():
            assert sum(view.weight for view in policy.views) == 1

    def test_the_peers_policy(self) -> None:
        assert POLICIES["ultralytics"] == CropPolicy(
            (View(1.0, "black", 1.0),), square=False, min_area=100
        )

    def test_bad_views(self) -> None:
        with pytest.raises(
            UnknownName, match="unknown fill 'grey'; choose one of keep, blur, mean, black, white"
        ):
            View(1.0, "grey")
        with pytest.raises(ValueError, match="context in \\[1, 64\\]"):
            View(0.5)
        with pytest.raises(ValueError, match="weight > 0"):
            View(weight=0)


def test_a_stretched_window_has_the_shape_of_the_box_and_fills_the_square() -> None:
    pixels = np.zeros((60, 120, 3), np.uint8)
    pixels[20:30, 20:100] = (200, 100, 50)
    masks = Masks.from_windows([(20, 20, np.ones((10, 80), bool))], (60, 120))
    tight = cut(Image(pixels), masks, View(1.0, "keep", stretch=True), 32)[0]
    padded = cut(Image(pixels), masks, View(1.0, "keep"), 32)[0]
    assert (tight == (200, 100, 50)).all()
    assert (padded == (200, 100, 50)).all(axis=2).mean() < 0.25


def test_a_stretched_window_reaches_past_the_image_on_each_side() -> None:
    masks = Masks.from_windows([(0, 0, np.ones((40, 10), bool))], (40, 10))
    crop = cut(
        Image(np.full((40, 10, 3), 9, np.uint8)), masks, View(1.5, "keep", stretch=True), 16
    )[0]
    assert (crop == 9).all()


@pytest.mark.parametrize("size", LONGEST)
@pytest.mark.parametrize("fill", ["keep", "blur"])
def test_a_crop_needs_little_memory(size: tuple[int, int], fill: str) -> None:
    image, masks = striped(size), Masks.from_dense(np.ones((1, *size), bool))
    (crop,) = cut(image, masks, View(1.5, fill), 64)
    assert crop.shape == (64, 64, 3)
    if fill == "keep":
        assert len(np.unique(crop.reshape(-1, 3), axis=0)) > 1  # the stripes are visible


@pytest.mark.parametrize("context", [1.0, 1.5, 3.0])
def test_a_crop_read_coarsely_resembles_one_read_finely(
    context: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).normal(size=(30, 40, 3))
    pixels = np.kron(noise * 60 + 128, np.ones((20, 20, 1))).clip(0, 255).astype(np.uint8)
    image = Image(pixels, "noise")
    mask = np.zeros((600, 800), bool)
    mask[100:560, 30:420] = True
    masks = Masks.from_dense(mask[None])
    fine = cut(image, masks, View(context, "black"), 32)[0].astype(int)
    monkeypatch.setattr(crops, "LARGEST", 64)
    monkeypatch.setattr(crops, "COARSE", 256)
    coarse = cut(image, masks, View(context, "black"), 32)[0].astype(int)
    assert np.abs(fine - coarse).mean() < 4
