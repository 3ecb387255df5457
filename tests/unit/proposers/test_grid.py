"""Segmenting everything: grid, crops and filters, on a network that answers by formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from segclip.errors import BadPrompt
from segclip.proposers.grid import GridOptions, crop_boxes, point_grid, propose_everything
from segclip.proposers.logits import Axis
from segclip.proposers.network import Clicks, Network
from segclip.types import Array, Everything, Image

CELLS = 64


class Discs(Network):
    """Answer each click with discs of three sizes around it, the smallest rated best.

    Logits have one cell per pixel.
    """

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.encoded: list[tuple[int, int]] = []

    def embed(self, pixels: Array) -> Any:
        self.encoded.append((pixels.shape[0], pixels.shape[1]))
        return None

    def predict(
        self, maps: Any, clicks: Clicks, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert multimask
        assert clicks.points is not None
        self.batches.append(len(clicks.points))
        ys, xs = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
        dx, dy = xs - clicks.points[:, :, 0, None], ys - clicks.points[:, :, 1, None]
        distance = torch.hypot(dx, dy)  # (B, cells, cells)
        radii = torch.tensor([5.0, 9.0, 14.0])[None, :, None, None]
        quality = torch.tensor([0.95, 0.9, 0.5]).repeat(len(clicks.points), 1)
        return 40 * (radii - distance[:, None]), quality

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        return CELLS / size[1], CELLS / size[0]

    def axes(self, size: tuple[int, int]) -> tuple[Axis, Axis]:
        return Axis.through(CELLS, [size[0]]), Axis.through(CELLS, [size[1]])


def propose(options: GridOptions, prompt: Everything = Everything()) -> tuple[Discs, Any]:
    network = Discs()
    features = network.encode(Image(np.zeros((64, 64, 3), np.uint8)))
    return network, propose_everything(network, features, prompt, options)


def test_a_grid_of_clicks_returns_filtered_masks_best_first() -> None:
    network, found = propose(
        GridOptions(
            points_per_side=4, points_per_batch=3, min_quality=0.6, min_stability=0.5, nms=0.9
        )
    )
    assert network.batches == [3, 3, 3, 3, 3, 1]
    assert len(found) == 32  # two discs per click; the third is rated too low
    assert found.quality.tolist() == pytest.approx([0.95] * 16 + [0.9] * 16)
    assert found.masks.areas.max() < np.pi * 10**2
    assert found.logits is None


def test_duplicates_and_unstable_masks_are_removed() -> None:
    _, few = propose(GridOptions(points_per_side=4, min_quality=0.6, min_stability=0.5, nms=0.2))
    assert len(few) == 16  # the larger discs overlap better ones
    _, none = propose(GridOptions(points_per_side=4, min_quality=0.6, min_stability=0.999))
    assert len(none) == 0
    _, none = propose(GridOptions(points_per_side=2, min_quality=0.99))
    assert len(none) == 0


def test_inside_boxes_the_grid_is_denser_and_nothing_else_is_returned() -> None:
    options = GridOptions(points_per_side=4, min_quality=0.93, min_stability=0.5, nms=0.9)
    _, found = propose(options, Everything(inside=[(30, 30, 62, 62)]))
    assert len(found) == 16
    assert found.masks.boxes[:, :2].min() >= 25
    _, nothing = propose(options, Everything(inside=[(0, 0, 3, 3)]))
    assert len(nothing) == 0


def test_crops_are_encoded_separately_and_their_masks_lie_in_the_image() -> None:
    options = GridOptions(
        points_per_side=4, min_quality=0.93, min_stability=0.5, crop_layers=1, crop_downscale=2
    )
    network, found = propose(options)
    assert len(network.encoded) == 5
    assert network.batches == [4] * 8  # 4 clicks at a time on a CPU, whatever the options allow
    assert found.masks.boxes[:, 2:].max() <= 64
    assert len(found) > 4


def test_crop_boxes_cover_the_image() -> None:
    boxes = list(crop_boxes((300, 500), 2, 512 / 1500))
    assert [layer for layer, _ in boxes] == [0] + [1] * 4 + [2] * 16
    for layer in (1, 2):
        covered = np.zeros((300, 500), bool)
        for x1, y1, x2, y2 in (box for n, box in boxes if n == layer):
            covered[y1:y2, x1:x2] = True
        assert covered.all()


def test_points_lie_at_the_centres_of_their_cells() -> None:
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


@pytest.mark.parametrize(
    "bad", [{"points_per_side": 0}, {"points_per_batch": 0}, {"nms": 1.5}, {"crop_overlap": -1}]
)
def test_invalid_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadPrompt, match=next(iter(bad))):
        GridOptions(**bad)
