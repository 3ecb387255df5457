"""What print() writes about tables of masks."""

from __future__ import annotations

import numpy as np
import pytest

from segclip.types import Image, Masks, Proposals, Regions, Result, Scores


def table(count: int) -> Result:
    image = Image(np.zeros((400, 600, 3), np.uint8), "desk.png")
    boxes = np.array([[x, 0, x + 5, 9] for x in range(count)]).reshape(-1, 4)
    masks = Masks.solid(boxes, image.size) if count else Masks.empty(image.size)
    regions = Regions(
        image, Proposals(masks, np.full(count, 0.5)), np.zeros((count, 512), np.float32)
    )
    column = np.full(count, 0.25, np.float32)
    return Result(regions, ("a mug",) * count, column, column, ("a mug", "zebra"), 0.5, (0.25, 0.1))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 500])
def test_every_table_prints_about_ten_lines(count: int) -> None:
    result = table(count)
    for value in (result, result.regions, result.regions.proposals, result.masks):
        for text in (str(value), repr(value)):
            assert text.splitlines()[0].startswith(f"{type(value).__name__}: {count} ")
            assert len(text.splitlines()) <= 10
            assert len(text) < 2000
            assert ("... and" in text) is (count > 7)


def test_a_result_prints_its_rows_and_what_was_not_found() -> None:
    headline, columns, first = str(table(1)).splitlines()
    assert "desk.png" in headline
    assert "(400, 600)" in headline
    assert "nothing for 'zebra'" in headline
    assert columns.split()[:2] == ["text", "probability"]
    assert first.split() == ["'a", "mug'", "0.25", "0.250", "0.50", "0,0,5,9", "45"]
    assert "nothing for 'a mug', 'zebra'" in str(table(0))


def test_results_without_texts_print_a_dash() -> None:
    assert " -  " in str(Result.unranked(table(2).regions))


def test_long_texts_are_cut_and_control_characters_escaped() -> None:
    scores = Scores(np.zeros((1, 9), np.float32), tuple(f"{n}\x1b" * 200 for n in range(9)), 100)
    assert len(str(scores)) < 1000
    assert "\x1b" not in str(scores)
    assert "and 2 more" in str(scores)
    assert "(1, 9)" in str(scores)
