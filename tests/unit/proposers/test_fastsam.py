"""FastSAM's network, prompts and side effects, on random weights in small real architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segclip.errors import BadPrompt
from segclip.proposers.fastsam import FastSAM, FastSAMFeatures, FastSAMOptions, join
from segclip.types import Boxes, Everything, Image, Masks, Points, Proposals
from tests.networks import sample_image


@pytest.fixture(scope="module")
def fastsam(folder: Path) -> FastSAM:
    return FastSAM(folder)


@pytest.fixture(scope="module")
def features(fastsam: FastSAM) -> FastSAMFeatures:
    return fastsam.encode(sample_image(150, 200))


def known(
    *squares: tuple[int, int, int, int],
    quality: tuple[float, ...],
    size: tuple[int, int] = (60, 80),
) -> FastSAMFeatures:
    """Return features whose proposals are filled boxes."""
    none = torch.zeros(0)
    found = FastSAMFeatures(none, none, none, none, Image(np.zeros((*size, 3), np.uint8)))
    windows = [(x1, y1, np.ones((y2 - y1, x2 - x1), bool)) for x1, y1, x2, y2 in squares]
    proposals = Proposals(Masks.from_windows(windows, size), np.array(quality))
    found.__dict__["proposals"] = proposals  # where cached_property stores it
    return found


def test_proposes_masks_best_first(fastsam: FastSAM, features: FastSAMFeatures) -> None:
    proposals = fastsam.decode(features, Everything())
    assert len(proposals) > 10
    assert (np.diff(proposals.quality) <= 0).all()
    assert proposals.quality.min() >= 0.41
    assert proposals.masks.size == (150, 200)
    assert (proposals.masks.areas > 0).all()


def test_folder_keeps_its_settings_and_options_override_them(folder: Path) -> None:
    stored = FastSAM(folder)
    changed = FastSAM(folder, options=FastSAMOptions(image_size=64, iou=0.5))
    assert (stored.image_size, stored.confidence, stored.iou) == (192, 0.41, 0.9)
    assert (changed.image_size, changed.confidence, changed.iou) == (64, 0.41, 0.5)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (97, 131), (480, 640)])
def test_any_size_is_processed(fastsam: FastSAM, size: tuple[int, int]) -> None:
    proposals = fastsam.decode(fastsam.encode(sample_image(*size)), Everything())
    assert proposals.masks.size == size


def test_grey_image_is_processed(fastsam: FastSAM) -> None:
    grey = Image(np.repeat(sample_image(90, 120).pixels[..., :1], 3, axis=2))
    assert fastsam.decode(fastsam.encode(grey), Everything()).masks.size == (90, 120)


def test_detections_of_two_frames_are_joined_in_the_first() -> None:
    size = (150, 210)
    detections = []
    for frame in ((160, 224), (96, 128)):
        gain = min(frame[0] / size[0], frame[1] / size[1])
        top, left = (
            round((full - round(side * gain)) / 2 - 0.1)
            for full, side in zip(frame, size, strict=True)
        )
        box = [100 * gain + left, 60 * gain + top, 40 * gain, 20 * gain]  # x, y, width, height
        ys = (torch.arange(frame[0] // 4) * 4 + 2 - top) / gain  # of the image
        xs = (torch.arange(frame[1] // 4) * 4 + 2 - left) / gain
        across = (ys[:, None] + 2 * xs)[None]
        detections.append((torch.tensor([[*box, 0.5, 3.0]]).T, across, frame))
    prediction, prototypes = join(detections[0], detections[1], size)
    torch.testing.assert_close(prediction[:4, 0], prediction[:4, 1], atol=0.3, rtol=0)
    assert prediction[4:, 0].tolist() == [0.5, 3.0, 0.0]
    assert prediction[4:, 1].tolist() == [0.5, 0.0, 3.0]
    inner = np.s_[5:-5, 5:-5]
    torch.testing.assert_close(prototypes[0][inner], prototypes[1][inner], atol=1.5, rtol=0)


def test_a_second_size_adds_candidates_and_keeps_the_rest(folder: Path, fastsam: FastSAM) -> None:
    image = sample_image(150, 200)
    both = FastSAM(folder, options=FastSAMOptions(again=96, iou=1.0, max_det=9000)).encode(image)
    one = FastSAM(folder, options=FastSAMOptions(iou=1.0, max_det=9000)).encode(image)
    assert len(both.boxes) > len(one.boxes)
    distances = torch.cdist(one.boxes, both.boxes, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(distances.min(dim=1).values.max()) < 1e-3
    assert len(both.proposals) > len(one.proposals)


def test_finding_nothing_is_an_empty_answer(folder: Path) -> None:
    blind = FastSAM(folder, options=FastSAMOptions(confidence=1.0))
    features = blind.encode(sample_image(60, 80))
    assert len(blind.decode(features, Everything())) == 0
    assert len(blind.decode(features, Points([(5, 5)]))) == 0
    boxes = blind.decode(features, Boxes([(0, 0, 10, 10), (5, 5, 20, 20)]))
    assert boxes.quality.tolist() == [0, 0]
    assert boxes.masks.areas.tolist() == [0, 0]


def test_max_det_keeps_the_best(folder: Path, fastsam: FastSAM, features: FastSAMFeatures) -> None:
    few = FastSAM(folder, options=FastSAMOptions(max_det=5)).encode(sample_image(150, 200))
    assert torch.equal(few.confidence, features.confidence[:5])


def test_row_i_answers_box_i(fastsam: FastSAM) -> None:
    found = known((0, 0, 10, 10), (40, 30, 60, 50), (42, 32, 50, 40), quality=(0.9, 0.8, 0.7))
    boxes = [(41, 30, 61, 50), (70, 0, 80, 10), (0, 0, 9, 11), (42, 32, 50, 40), (0, 0, 9, 11)]
    answer = fastsam.decode(found, Boxes(boxes))
    assert answer.masks.boxes.tolist() == [
        [40, 30, 60, 50],
        [0] * 4,
        [0, 0, 10, 10],
        [42, 32, 50, 40],
        [0, 0, 10, 10],
    ]
    np.testing.assert_allclose(answer.quality, [0.8, 0, 0.9, 0.7, 0.9])


def test_box_rule_is_iou_of_mask_and_box(fastsam: FastSAM, features: FastSAMFeatures) -> None:
    everything = fastsam.decode(features, Everything())
    dense = everything.masks.to_dense()
    boxes = np.array([(10, 20, 60, 90), (0, 0, 200, 150), (100, 40, 131, 77)])
    answer = fastsam.decode(features, Boxes(boxes))
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        shared = dense[:, y1:y2, x1:x2].sum(axis=(1, 2))
        best = np.argmax(shared / ((x2 - x1) * (y2 - y1) + dense.sum(axis=(1, 2)) - shared))
        assert np.array_equal(answer.masks.full(row), dense[best])


@pytest.mark.parametrize(
    ("xy", "labels", "rows"),
    [
        ([(20, 20)], [1], [0, 1]),  # a whole and its part: both, best first
        ([(20, 20), (50, 30)], [1, 1], [0]),  # only the whole contains both
        ([(20, 20), (50, 30)], [1, 0], [1]),  # only the part excludes the background point
        ([(20, 20), (75, 55)], [1, 1], [0, 1, 2]),  # none contains both: those that contain one
        ([(70, 5)], [1], []),
        ([(20, 20)], [0], [2]),
    ],
)
def test_points_rank_whole_candidates(
    fastsam: FastSAM, xy: Any, labels: Any, rows: list[int]
) -> None:
    found = known((0, 0, 60, 50), (10, 10, 30, 30), (70, 50, 80, 60), quality=(0.9, 0.6, 0.5))
    answer = fastsam.decode(found, Points(xy, labels))
    assert answer.masks.boxes.tolist() == found.proposals.masks.boxes[rows].tolist()


def test_w9_points_are_never_painted_into_a_union(
    fastsam: FastSAM, features: FastSAMFeatures
) -> None:
    everything = fastsam.decode(features, Everything())
    candidates = {mask.tobytes() for mask in everything.masks.to_dense()}
    answer = fastsam.decode(features, Points([(100, 75), (20, 130)]))
    assert len(answer)
    assert {mask.tobytes() for mask in answer.masks.to_dense()} <= candidates


@pytest.mark.parametrize(
    "prompt",
    [
        Points([(200, 10)]),
        Points([(10, 10), (-1, 0)]),
        Points([(0, 150)]),
        Boxes([(0, 0, 9, 9), (150, 0, 201, 9)]),
    ],
)
def test_prompt_outside_the_image_names_the_range(
    fastsam: FastSAM, features: FastSAMFeatures, prompt: Points | Boxes
) -> None:
    with pytest.raises(BadPrompt, match=r"\[0, 200[\])] and y in \[0, 150[\])]"):
        fastsam.decode(features, prompt)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "float16"},
        {"confidence": 1.5},
        {"iou": -0.1},
        {"image_size": 0},
        {"max_det": 0},
        {"again": -1},
    ],
)
def test_error_of_a_bad_option_names_what_is_allowed(options: dict[str, Any]) -> None:
    with pytest.raises(BadPrompt, match=r"must|choose"):
        FastSAMOptions(**options)


def test_bfloat16_finds_about_the_same(folder: Path, features: FastSAMFeatures) -> None:
    low = FastSAM(folder, options=FastSAMOptions(precision="bfloat16")).encode(
        sample_image(150, 200)
    )
    overlap = features.proposals.masks.iou(low.proposals.masks).max(axis=1)
    assert np.median(overlap) > 0.5  # random weights are the worst case
