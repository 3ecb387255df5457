from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from segclip import drawing
from segclip.errors import BadPrompt
from segclip.scoring.heat import NOTHING
from segclip.types import Array, Image, Masks, Proposals, Regions, Result


def make(masks: Masks, texts: list[str], queries: tuple[str, ...] | None = None) -> Result:
    height, width = masks.size
    image = Image(np.full((height, width, 3), 100, np.uint8))
    regions = Regions(
        image, Proposals(masks, np.ones(len(masks))), np.zeros((len(masks), 2), np.float32)
    )
    scores = np.linspace(0.9, 0.6, len(masks)).astype(np.float32)
    return Result(
        regions,
        tuple(texts),
        scores,
        scores,
        tuple(dict.fromkeys(texts)) if queries is None else queries,
        0.5,
    )


def block(box: tuple[int, int, int, int], size: tuple[int, int] = (200, 300)) -> Masks:
    x1, y1, x2, y2 = box
    return Masks.from_windows([(x1, y1, np.ones((y2 - y1, x2 - x1), bool))], size)


def changed(result: Result, drawn: PIL.Image.Image) -> Array:
    return (np.asarray(drawn) != result.image.pixels).any(axis=2)


def test_the_mask_is_tinted_and_far_pixels_are_untouched() -> None:
    result = make(block((100, 80, 180, 160)), ["a box"])
    difference = changed(result, drawing.overlay(result, labels=False))
    assert difference[80:160, 100:180].all()
    difference[76:164, 96:184] = False  # the outline reaches a few pixels past the mask
    assert not difference.any()


def test_a_spotlight_darkens_all_but_what_was_found() -> None:
    found = make(block((100, 80, 180, 160)), ["a box"])
    lit = np.asarray(drawing.spotlight(found))
    assert (lit[90:150, 110:170] == 100).all()
    assert (lit[:60] < 50).all()
    nothing = make(Masks.empty((200, 300)), [])
    assert not changed(nothing, drawing.spotlight(nothing)).any()


def test_opacity_blends_the_image_with_the_rows_colour() -> None:
    result = make(block((100, 80, 180, 160)), ["a box"])
    values = [
        np.asarray(drawing.overlay(result, opacity=o, labels=False))[120, 140].astype(float)
        for o in (0, 0.5, 1)
    ]
    assert values[0].tolist() == [100, 100, 100]
    assert np.abs(values[1] - (values[0] + values[2]) / 2).max() <= 0.5
    with pytest.raises(BadPrompt, match="opacity"):
        drawing.overlay(result, opacity=1.5)


def test_the_best_row_lies_on_top() -> None:
    both = Masks.from_windows([(100, 80, np.ones((80, 80), bool))] * 2, (200, 300))
    alone, together = (
        drawing.overlay(make(masks, ["x"] * len(masks)), opacity=1, labels=False)
        for masks in (both[[0]], both)
    )
    assert np.array_equal(np.asarray(alone), np.asarray(together))


def test_the_result_is_left_as_it_was() -> None:
    result = make(block((100, 80, 180, 160)), ["a box"])
    drawing.overlay(result)
    assert (result.image.pixels == 100).all()


def test_an_empty_result_is_the_image_with_a_banner() -> None:
    result = make(Masks.empty((200, 300)), [], queries=("a zebra",))
    difference = changed(result, drawing.overlay(result))
    assert difference[:20, :60].any()
    assert not difference[40:].any()
    assert not changed(result, drawing.overlay(result, labels=False)).any()
    assert changed(result, drawing.overlay(make(Masks.empty((200, 300)), [], queries=()))).any()


def test_an_unanswered_text_gets_a_banner_beside_the_answers() -> None:
    masks = block((100, 120, 180, 180))
    with_banner = drawing.overlay(make(masks, ["a box"], queries=("a box", "a zebra")))
    assert changed(make(masks, ["a box"]), with_banner)[:15, :50].any()
    assert not changed(make(masks, ["a box"]), drawing.overlay(make(masks, ["a box"])))[
        :15, :50
    ].any()


@pytest.mark.parametrize(
    "text",
    ["ein Löwe", "日本語", "😀", "two\nlines", "a\0b", "\udc80 broken", "w" * 500, "", "مرحبا"],
)
def test_any_text_can_be_drawn(text: str) -> None:
    drawn = drawing.overlay(make(block((250, 0, 300, 40)), [text], queries=(text, text + "!")))
    assert drawn.size == (300, 200)
    drawing.contact_sheet([drawn], [text])


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3)])
def test_tiny_images(size: tuple[int, int]) -> None:
    assert drawing.overlay(make(block((0, 0, 1, 1), size), ["dot"])).size == size[::-1]


def test_a_mask_without_pixels_is_no_trouble() -> None:
    result = make(Masks.from_dense(np.zeros((1, 20, 30))), ["nothing"])
    assert not changed(result, drawing.overlay(result, labels=False)).any()


def test_contact_sheet_lays_out_a_grid() -> None:
    images = [PIL.Image.new("RGB", (50 + i, 20), "black") for i in range(5)]
    sheet = drawing.contact_sheet(images, ["name"] * 5, columns=2, tile=100)
    assert sheet.size[0] == 200
    assert 140 <= sheet.size[1] <= 156  # three rows of about 40 and a caption of 10
    pixels = np.asarray(sheet)
    assert (pixels[2:36, 10:90] == 0).all()  # no blank above wide images
    assert (pixels[-40:, 110:190] == 255).all()  # the sixth cell


def test_contact_sheet_of_nothing_and_of_mismatched_captions() -> None:
    assert drawing.contact_sheet([], []).width == 320
    with pytest.raises(ValueError, match="one caption per image"):
        drawing.contact_sheet([], ["alone"])


@pytest.mark.parametrize("side", [1, 7, 20, 33, 1000])
def test_an_image_is_shrunk_with_its_masks_on_one_grid(side: int) -> None:
    rng = np.random.default_rng(0)
    dense = np.zeros((6, 40, 61), bool)
    for row, mask in enumerate(dense[:5]):  # the last one is empty
        mask[row * 3 : row * 3 + 17, row * 7 : row * 7 + 20] = rng.random((17, 20)) < 0.5
    image = Image(rng.integers(0, 256, (40, 61, 3), np.uint8), "a.png")
    small, masks = drawing.shrink(image, Masks.from_dense(dense), side)
    step = max(1, 61 // side)
    np.testing.assert_array_equal(small.pixels, image.pixels[::step, ::step])
    np.testing.assert_array_equal(masks.to_dense(), dense[:, ::step, ::step])
    assert (small.source, masks.size) == ("a.png", small.size)


def test_heat_maps_and_labels_are_drawn(sample_image: Image) -> None:
    warm = np.zeros(sample_image.size, np.float32)
    warm[:4, :4] = 1
    drawn = np.asarray(drawing.heat(sample_image, warm, opacity=1.0))
    assert drawn[0, 0].argmax() == 0  # red where it is hot
    assert drawn[-1, -1].argmax() == 2  # blue where it is cold
    assert drawing.heat(sample_image, warm * 0).size == sample_image.size[::-1]
    labels = np.full(sample_image.size, NOTHING, np.int32)
    assert np.array_equal(np.asarray(drawing.labels(sample_image, labels)), sample_image.pixels)
