"""Points get every mask of an object, best first; boxes one mask each, in their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from segclip.errors import BadPrompt
from segclip.proposers.logits import Axis
from segclip.proposers.network import Clicks
from segclip.proposers.promptable import Promptable, SAMOptions
from segclip.types import Array, Boxes, Image, Points

SIDE = 32


class Squares(Promptable):
    """Answer a click with squares around it, and a box with itself; one logit per pixel."""

    device = torch.device("cpu")

    def __init__(self, **options: Any) -> None:
        self.options = SAMOptions(**options)
        self.asked: list[tuple[Clicks, bool]] = []

    def embed(self, pixels: Array) -> Any:
        return None

    def predict(
        self, maps: Any, clicks: Clicks, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append((clicks, multimask))
        if clicks.masks is not None and clicks.masks.shape[-1] != SIDE:
            raise RuntimeError("shapes do not match")
        ys, xs = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
        boxes = clicks.boxes
        if boxes is None:
            assert clicks.points is not None
            reach = torch.tensor([2.0, 5.0, 0.0] if multimask else [3.0])
            centre = clicks.points[0, 0].repeat(2)
            boxes = centre + reach[:, None] * torch.tensor([-1.0, -1, 1, 1])
            count = 1
        else:
            count = len(boxes)
        inside = [(xs > x1) & (xs < x2) & (ys > y1) & (ys < y2) for x1, y1, x2, y2 in boxes]
        logits = torch.stack(inside).float().view(count, -1, SIDE, SIDE) * 20 - 10
        quality = torch.tensor([0.6, 0.9, 0.8][: logits.shape[1]]).repeat(count, 1)
        return logits, quality

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        return SIDE / size[1], SIDE / size[0]

    def axes(self, size: tuple[int, int]) -> tuple[Axis, Axis]:
        return Axis.through(SIDE, [size[0]]), Axis.through(SIDE, [size[1]])


def decode(network: Squares, prompt: Points | Boxes) -> Any:
    return network.decode(network.encode(Image(np.zeros((SIDE, SIDE, 3), np.uint8))), prompt)


def test_a_click_gets_every_mask_best_first_and_none_that_is_empty() -> None:
    found = decode(Squares(), Points([(10, 12)]))
    assert found.masks.boxes.tolist() == [[5, 7, 15, 17], [8, 10, 12, 14]]
    assert found.quality.tolist() == pytest.approx([0.9, 0.6])


@pytest.mark.parametrize(
    ("prompt", "multimask", "several"),
    [
        (Points([(9, 9)]), None, True),
        (Points([(9, 9), (11, 9)]), None, False),
        (Points([(9, 9)], box=(1, 1, 20, 20)), None, False),
        (Points([(9, 9)]), False, False),
        (Points([(9, 9), (11, 9)]), True, True),
    ],
)
def test_only_one_click_is_ambiguous_unless_the_options_decide(
    prompt: Points, multimask: bool | None, several: bool
) -> None:
    network = Squares(multimask=multimask)
    decode(network, prompt)
    assert [asked for _, asked in network.asked] == [several]


def test_boxes_keep_their_order_over_all_batches() -> None:
    network = Squares(boxes_per_batch=2)
    boxes = [[n, n, n + 4, n + 6] for n in (9, 0, 20, 3, 14)]
    found = decode(network, Boxes(boxes))
    assert found.masks.boxes.tolist() == boxes
    assert [len(clicks.boxes) for clicks, _ in network.asked if clicks.boxes is not None] == [
        2
    ] * 2 + [1]


def test_a_prompt_outside_the_image_is_refused() -> None:
    with pytest.raises(BadPrompt, match=r"x must lie in \[0, 32"):
        decode(Squares(), Points([(40, 3)]))


def test_a_mask_of_another_shape_is_refused_with_its_shape() -> None:
    with pytest.raises(BadPrompt, match=r"shape \(4, 4\); pass a row of this proposer's own"):
        decode(Squares(), Points([(9, 9)], mask=np.zeros((4, 4), np.float32)))
