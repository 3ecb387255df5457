from __future__ import annotations

from typing import Any

import numpy as np
import pytest

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
