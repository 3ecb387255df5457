"""What is wrong with the text prompts of CASIA-IVA-Lab/FastSAM and ultralytics, W1 to W9, cannot be
wrong here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import segclip
from segclip import exporters, images
from segclip.ranking.embedding import embed_texts, similarity
from segclip.ranking.selection import Selection
from segclip.scoring.crops import POLICIES, View, cut, cut_boxes
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from segclip.types import Everything, Image, Masks, Points, Proposals, Regions

from .fakes import COLOURS, FakeEncoder, FakeProposer, paint


@pytest.fixture
def segmenter(proposer: FakeProposer, encoder: FakeEncoder) -> Segmenter:
    return Segmenter(proposer, encoder, CropScorer(encoder))


def test_w1_a_text_prompt_needs_no_clip_package(segmenter: Segmenter, sample_image: Image) -> None:
    """FastSAM's text prompt stopped with ``NameError: name 'clip' is not defined``."""
    sources = Path(segclip.__file__).parent.rglob("*.py")
    assert not [path for path in sources if "import clip\n" in path.read_text("utf-8")]
    assert len(segmenter(sample_image, "red")) == 1


def test_w2_rows_left_out_do_not_shift_the_answer(
    segmenter: Segmenter, sample_image: Image
) -> None:
    """FastSAM dropped small masks, then restored the winner's index by counting, and missed it."""
    dense = np.zeros((4, *sample_image.size), bool)
    dense[0, 0:5, 0:5] = dense[1, 0:6, 0:6] = True  # too small to be looked at
    dense[2, 20:80, 60:100] = True  # green
    dense[3, 60:110, 110:150] = True  # blue
    masks = Masks.from_dense(dense)
    scorer = CropScorer(segmenter.encoder, POLICIES["ultralytics"])
    regions = Regions(
        sample_image, Proposals(masks, np.ones(4)), scorer.embed_regions(sample_image, masks)
    )
    for text, row in (("green", 2), ("blue", 3)):
        answer = segmenter.rank(regions, text, selection=Selection(best=True))
        assert answer.masks.boxes[0].tolist() == masks.boxes[row].tolist()


@pytest.mark.parametrize("kind", ["path", "bytes", "pillow", "array"])
def test_w3_red_is_red_however_the_image_comes(
    segmenter: Segmenter, kind: str, tmp_path: Path
) -> None:
    """FastSAM swapped red and blue for images given by path or by PIL."""
    pixels = paint(("red", (10, 10, 50, 50)), ("blue", (60, 20, 100, 80))).pixels
    file = tmp_path / "red.png"
    PIL.Image.fromarray(pixels).save(file)
    with PIL.Image.open(file) as opened:
        sources: dict[str, images.Source] = {
            "path": file,
            "bytes": file.read_bytes(),
            "pillow": opened,
            "array": pixels,
        }
        image = images.load(sources[kind])
    for text, left in (("red", 10), ("blue", 60)):
        assert segmenter(image, text).masks.boxes[:, 0].tolist() == [left]


def test_w4_an_object_at_the_edge_of_a_wide_image_is_found(segmenter: Segmenter) -> None:
    """A centre crop of the whole canvas never showed CLIP the outer quarter of a 2:1 image on
    either side.
    """
    sample_image = paint(("red", (0, 20, 30, 50)), ("blue", (170, 20, 200, 50)), size=(100, 200))
    result = segmenter(sample_image, ["red", "blue"])
    assert [
        (text, int(box[0])) for text, box in zip(result.texts, result.masks.boxes, strict=True)
    ] == [
        ("red", 0),
        ("blue", 170),
    ]


@pytest.mark.parametrize("policy", [name for name, policy in POLICIES.items() if policy.square])
def test_w4_no_crop_loses_the_ends_of_a_long_object(policy: str) -> None:
    ends = ("red", (0, 40, 12, 60)), ("blue", (168, 40, 180, 60))
    sample_image = paint(("green", (0, 40, 180, 60)), *ends, size=(100, 180))
    dense = (sample_image.pixels != 255).any(axis=2)[None]
    for view in POLICIES[policy].views:
        shares = FakeEncoder().encode_images(cut(sample_image, Masks.from_dense(dense), view, 64))[
            0
        ]
        assert all(shares[list(COLOURS).index(colour)] > 0 for colour in ("red", "green", "blue"))


def test_w5_a_score_does_not_depend_on_the_other_candidates(
    segmenter: Segmenter, sample_image: Image
) -> None:
    """A softmax over candidates made every score depend on how many there were, and always elected
    one.
    """
    regions = segmenter.regions(sample_image)
    everyone = segmenter.rank(
        regions, "red", selection=Selection(threshold=0, nms=1, containment=None)
    )
    red = everyone.masks.boxes[0].tolist()
    alone = segmenter.rank(regions[[regions.masks.boxes.tolist().index(red)]], "red")
    assert len(everyone) == len(regions) > 1
    assert alone.probability[0] == everyone.probability[0]
    assert len(segmenter.rank(regions, "yellow")) == 0


def test_w6_two_masks_with_one_box_are_distinguished() -> None:
    """FastSAM showed CLIP the box, so a ring and the disc inside it looked the same."""
    sample_image = paint(("red", (20, 20, 80, 80)), ("blue", (30, 30, 70, 70)))
    frame = np.zeros((2, *sample_image.size), bool)
    frame[:, 20:80, 20:80] = True
    frame[0, 30:70, 30:70] = False  # the red frame
    frame[1, 21:79, 21:79] = False
    frame[1, 30:70, 30:70] = True  # the blue square, and a line around it: the same box
    masks = Masks.from_dense(frame)
    assert masks.boxes[0].tolist() == masks.boxes[1].tolist()
    encoder = FakeEncoder()
    texts = embed_texts(encoder, ["red", "blue"], ["{}"])
    for name in ("tight", "ultralytics"):
        regions = CropScorer(encoder, POLICIES[name]).embed_regions(sample_image, masks)
        assert similarity(regions, texts).argmax(axis=0).tolist() == [0, 1], name
    boxes = cut_boxes(sample_image, masks, "black")
    assert not np.array_equal(boxes[0], boxes[1])
    assert not np.array_equal(*cut(sample_image, masks, View(1.0, "blur", 1.0), 32))


def test_w7_a_second_text_reads_no_pixels(
    proposer: FakeProposer, encoder: FakeEncoder, sample_image: Image
) -> None:
    """FastSAM loaded CLIP and encoded every crop again for each text."""
    segmenter = Segmenter(proposer, encoder, CropScorer(encoder))
    regions = segmenter.regions(sample_image)
    before = proposer.encoded, list(encoder.crops_encoded)
    segmenter.rank(regions, "red")
    segmenter.rank(regions, ["green", "blue"])
    assert (proposer.encoded, encoder.crops_encoded) == before
    assert sum(encoder.crops_encoded) == len(regions)


def test_w8_masks_come_out_pixel_exact(
    segmenter: Segmenter, sample_image: Image, tmp_path: Path
) -> None:
    """FastSAM drew its answer with matplotlib, at the figure's size."""
    result = segmenter(sample_image, "red")
    written = exporters.save(result, tmp_path / "red.png", format="png")
    assert len(written) == 1
    assert np.array_equal(images.load(written[0]).pixels[..., 0] == 255, result.masks.full(0))


def test_w9_points_never_paint_several_masks_into_one(
    proposer: FakeProposer, sample_image: Image
) -> None:
    """FastSAM painted every mask a point hit into one union."""
    features = proposer.encode(sample_image)
    everything = proposer.decode(features, Everything()).masks.boxes.tolist()
    answer = proposer.decode(features, Points([(20, 20)], [1]))
    assert len(answer) == 1
    assert answer.masks.boxes[0].tolist() in everything


def test_importing_the_package_loads_no_clip_and_no_torch() -> None:
    code = (
        "import sys, segclip; print(sorted({'clip', 'torch', 'ultralytics', 'open_clip'} & "
        "set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
