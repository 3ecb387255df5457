"""Images and answers as the browser draws them."""

from __future__ import annotations

import base64
import io

import numpy as np
import PIL.Image

from app import rendering
from app.answers import answer
from app.state import Studio, Work
from segclip.types import Image
from segclip.types.masks import Masks


def decode_url(url: str) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_the_label_map_numbers_the_masks_and_the_first_one_wins() -> None:
    dense = np.zeros((2, 60, 80), bool)
    dense[0, 10:20, 10:30] = dense[1, 5:40, 5:60] = True
    width, height, *runs = rendering.map_runs(Masks.from_dense(dense)).split(" ")
    names, lengths = (
        np.frombuffer(base64.b64decode(part), kind)
        for part, kind in zip(runs, ("u1", "<u2"), strict=True)
    )
    labels = np.repeat(names, lengths).reshape(int(height), int(width))
    assert labels.shape == (60, 80)
    assert np.array_equal(labels == 1, dense[0])
    assert np.array_equal(labels == 2, dense[1] & ~dense[0])


def test_the_label_map_of_a_large_image_is_small_and_aligned() -> None:
    dense = np.zeros((1, 3000, 4000), bool)
    dense[0, 1000:2000, 3000:4000] = True
    labels = rendering.label_map(Masks.from_dense(dense), 1000)
    assert labels.shape == (750, 1000)
    assert np.array_equal(labels, dense[0][2::4, 2::4])


def test_a_large_image_is_shrunk_a_small_one_is_lossless(sample_image: Image) -> None:
    assert np.array_equal(
        np.array(decode_url(rendering.image_url(sample_image))), sample_image.pixels
    )
    large = Image(np.zeros((3000, 4000, 3), np.uint8))
    assert decode_url(rendering.image_url(large)).size == (1600, 1200)


def test_headlines_summarise_the_answer(studio: Studio, work: Work) -> None:
    assert rendering.headline(answer(studio.models, work)) == "1 found"
    work.set_texts(("a red box", "a black box"))
    assert (
        rendering.headline(answer(studio.models, work)) == "1 found; nothing matches “a black box”"
    )
    work.set_texts(("a black box",))
    found = answer(studio.models, work)
    assert rendering.headline(found) == "Nothing here matches “a black box”"
    assert "below the threshold" in rendering.notes(found)[0]
    work.set_texts(
        (
            "a black box",
            "a black circle",
            "a black box that holds " + "very " * 9 + "many things",
            "black",
        )
    )
    expected = (
        "Nothing here matches “a black box”, “a black circle”, “a black box that holds very "
        "very ...” and 1 more"
    )
    assert rendering.headline(answer(studio.models, work)) == expected
    work.set_texts(("the left red box",))
    assert rendering.notes(answer(studio.models, work)) == [
        "“the left red box”: leftmost of 1 found for 'red box'"
    ]
    work.set_texts(("red right of the green box",))
    # the only note: none about a best region that scores 1.00
    (note,) = rendering.notes(answer(studio.models, work))
    assert note.startswith("“red right of the green box”: none of 1 found for 'red'")
    work.click(70, 30, 1)
    assert rendering.headline(answer(studio.models, work)) == "The object at the click"
    work.click(3, 3, 1)
    work.set_texts(())
    assert rendering.headline(answer(studio.models, work)) == "Type what to find, or click on it"
