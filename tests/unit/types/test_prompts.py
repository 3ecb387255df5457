from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segclip.errors import BadPrompt
from segclip.types.prompts import Boxes, Everything, Points, place

CLICK, RULED_OUT, BOX = (5, 6), (7, 8), (1, 2, 30, 40)


@pytest.mark.parametrize(
    ("points", "labels", "boxes", "searching", "expected"),
    [
        ([], [], [], True, Everything()),
        ([], [], [], False, Everything()),
        ([CLICK], [1], [], True, Points([CLICK])),
        ([CLICK], [1], [], False, Points([CLICK])),
        ([CLICK, RULED_OUT], [1, 0], [BOX], True, Points([CLICK, RULED_OUT], [1, 0], box=[BOX])),
        ([RULED_OUT], [0], [], True, Everything(without=[RULED_OUT])),
        ([RULED_OUT], [0], [], False, Points([RULED_OUT], [0])),
        ([], [], [BOX], True, Everything(inside=[BOX])),
        ([], [], [BOX], False, Boxes([BOX])),
        ([RULED_OUT], [0], [BOX], True, Everything([BOX], [RULED_OUT])),
    ],
)
def test_a_search_is_limited_to_boxes_and_a_click_is_one_object(
    points: Any, labels: Any, boxes: Any, searching: bool, expected: Any
) -> None:
    prompt = place(points, labels, boxes, searching=searching)
    assert type(prompt) is type(expected)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(prompt, name), value)


class TestPoints:
    def test_labels_are_foreground_when_left_out(self) -> None:
        points = Points([(1, 2), (3, 4)])
        assert points.xy.dtype == np.float32
        assert points.labels.tolist() == [1, 1]

    def test_one_pair_is_one_point(self) -> None:
        assert Points((620, 360)).xy.shape == (1, 2)

    @pytest.mark.parametrize(
        "xy", [[], [(1,)], [(1, 2, 3)], "here", [(1, np.nan)], None, [(1, 2), (3,)]]
    )
    def test_bad_points(self, xy: Any) -> None:
        with pytest.raises(BadPrompt, match=r"points must be .*\(x, y\) pairs"):
            Points(xy)

    @pytest.mark.parametrize("labels", [[1], [1, 2], [0.5, 1], "ab", [[1, 0]]])
    def test_bad_labels(self, labels: Any) -> None:
        with pytest.raises(BadPrompt, match="one 0 or 1 for each of the 2 points"):
            Points([(1, 2), (3, 4)], labels)


class TestBoxes:
    def test_one_box_is_one_row(self) -> None:
        assert Boxes((1, 2, 3, 4)).xyxy.tolist() == [[1, 2, 3, 4]]

    @pytest.mark.parametrize("box", [(3, 0, 3, 5), (5, 0, 3, 5), (0, 5, 3, 5), (0, 6, 3, 5)])
    def test_a_box_needs_an_inside(self, box: Any) -> None:
        with pytest.raises(BadPrompt, match="x1 < x2 and y1 < y2"):
            Boxes([(0, 0, 1, 1), box])

    @pytest.mark.parametrize("xyxy", [[], (1, 2, 3), [(1, 2, 3, np.inf)], "box"])
    def test_bad_boxes(self, xyxy: Any) -> None:
        with pytest.raises(BadPrompt, match="boxes must be"):
            Boxes(xyxy)
