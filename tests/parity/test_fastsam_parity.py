"""Our FastSAM against ultralytics' own predictor: same file, same picture, retina masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segclip.proposers.fastsam import FastSAM, FastSAMOptions
from segclip.proposers.yolo import quiet
from segclip.types import Boxes, Everything, Image, Masks

from ..networks import random_network, sample_image, save_checkpoint

pytestmark = pytest.mark.parity


@pytest.fixture(autouse=True)
def _same_rounding() -> Iterator[None]:
    """Give both sides one thread: sums split over threads round differently, and random masks hang
    on the last bit.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SIZE = 320


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save FastSAM-s's architecture the way its makers do."""
    network = random_network("yolov8s-seg.yaml", candidates=400, size=SIZE)
    return save_checkpoint(network, tmp_path_factory.mktemp("real") / "FastSAM-s.pt")


@pytest.fixture(scope="module")
def fastsam(checkpoint: Path) -> FastSAM:
    return FastSAM(checkpoint, options=FastSAMOptions(image_size=SIZE))


@pytest.fixture(scope="module")
def upstream(checkpoint: Path) -> Any:
    with quiet():
        from ultralytics import FastSAM as Upstream

        return Upstream(str(checkpoint))


def predict(upstream: Any, image: Image, **prompts: Any) -> Any:
    with quiet():
        options = {
            "imgsz": SIZE,
            "conf": 0.4,
            "iou": 0.9,
            "retina_masks": True,
            "device": "cpu",
            "verbose": False,
        }
        return upstream.predict(
            np.ascontiguousarray(image.pixels[..., ::-1]), **options, **prompts
        )[0]


# padding that ends on whole prototype cells, on halves and on quarters; enlarged, shrunk, and
# extreme shapes
@pytest.mark.parametrize(
    "size", [(480, 640), (427, 640), (333, 500), (200, 211), (97, 501), (900, 1200)]
)
def test_same_candidates_same_masks(fastsam: FastSAM, upstream: Any, size: tuple[int, int]) -> None:
    image = sample_image(*size)
    theirs = predict(upstream, image)
    ours = fastsam.decode(fastsam.encode(image), Everything())
    masks = Masks.from_dense(theirs.masks.data.numpy(), image.size)
    assert len(ours) == len(theirs) > 50
    np.testing.assert_allclose(ours.quality, theirs.boxes.conf.numpy(), atol=1e-4)
    np.testing.assert_allclose(ours.masks.boxes, masks.boxes, atol=1)
    overlap = [ours.masks[[row]].iou(masks[[row]]).item() for row in range(len(ours))]
    assert np.mean(overlap) >= 0.99
    assert np.min(overlap) >= 0.99


def test_same_boxes(fastsam: FastSAM, upstream: Any) -> None:
    image = sample_image(480, 640)
    found, theirs = fastsam.encode(image), predict(upstream, image)
    kept = found.boxes[torch.isin(found.confidence, theirs.boxes.conf)].numpy()
    edges = theirs.boxes.xyxy.numpy()
    # after cutting the masks upstream moves edges within 20 pixels of the image's to it, and nearly
    # full boxes to full
    limits = np.array([640, 480, 640, 480])
    moved = (np.minimum(kept, limits - kept) <= 20) | (edges == (0, 0, 640, 480)).all(
        axis=1, keepdims=True
    )
    assert (~moved).sum() > 200
    np.testing.assert_allclose(kept[~moved], edges[~moved], atol=0.01)


def test_box_prompt_chooses_the_same_mask(fastsam: FastSAM, upstream: Any) -> None:
    image = sample_image(480, 640)
    features = fastsam.encode(image)
    for box in [(100, 100, 300, 300), (0, 0, 640, 480), (400, 50, 470, 200), (610, 430, 640, 480)]:
        theirs = Masks.from_dense(predict(upstream, image, bboxes=[box]).masks.data.numpy())
        ours = fastsam.decode(features, Boxes([box]))
        assert len(theirs) == len(ours) == 1
        assert ours.masks.iou(theirs).item() >= 0.99


@pytest.mark.parametrize("iou", [0.3, 0.7, 0.9])
def test_same_suppression(checkpoint: Path, iou: float) -> None:
    from ultralytics.utils.nms import non_max_suppression

    generator = torch.Generator().manual_seed(0)
    shape = torch.tensor([640.0, 480, 200, 200])[:, None]
    prediction = torch.cat(
        [torch.rand(4, 900, generator=generator) * shape, torch.rand(33, 900, generator=generator)]
    )
    fastsam = FastSAM(checkpoint, options=FastSAMOptions(iou=iou, max_det=200))
    theirs = non_max_suppression(prediction[None].clone(), 0.4, iou, nc=1, max_det=200)[0]
    ours = fastsam._suppress(prediction)
    assert torch.equal(ours[:, :5], theirs[:, :5])
    assert torch.equal(ours[:, 5:], theirs[:, 6:])


@pytest.mark.slow
def test_fastsam_x_loads_and_proposes(tmp_path: Path) -> None:
    network = random_network("yolov8x-seg.yaml", candidates=100, size=SIZE)
    fastsam = FastSAM(
        save_checkpoint(network, tmp_path / "FastSAM-x.pt"),
        options=FastSAMOptions(image_size=SIZE),
    )
    proposals = fastsam.decode(fastsam.encode(sample_image(240, 320)), Everything())
    assert len(proposals) > 20
