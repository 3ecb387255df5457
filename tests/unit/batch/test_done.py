"""A finished run lists its images, regions and categories in order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segclip.batch.done import OBJECT, Done, category
from segclip.batch.journal import Outcome
from segclip.batch.plan import Ask, Item
from segclip.errors import BadImage

BOX = ((0.0, 0.0, 5.0, 5.0),)
ITEMS = [
    Item(Path("a.png"), "a.png", Ask(("a mug", "a lamp"))),
    Item(Path("b.png"), "b.png", Ask(boxes=BOX)),
    Item(Path("c.png"), "c.png", Ask(("a lamp", "a cat"))),
]


def outcome(name: str, state: str, *texts: str) -> Outcome:
    record = {"rows": [{"text": text} for text in texts]}
    return Outcome(name, "", (0, 0, 0, 0), "", state, record=record)


def done(*outcomes: Outcome) -> Done:
    known = {found.name: found for found in outcomes}
    output: Any = SimpleNamespace(ledger=SimpleNamespace(get=known.get))
    return Done(ITEMS, output, Path("out"))


def test_regions_come_image_by_image_and_failed_images_have_none() -> None:
    run = done(
        outcome("a.png", "matched", "a lamp", "a mug"),
        outcome("b.png", "matched", "a prompt"),
        outcome("c.png", "failed"),
    )
    found = [(number, item.name, kind) for number, item, kind, _ in run.rows()]
    assert found == [(1, "a.png", "a lamp"), (1, "a.png", "a mug"), (2, "b.png", OBJECT)]


def test_categories_are_the_texts_in_their_order_and_one_for_places() -> None:
    assert done().categories() == ["a mug", "a lamp", "a cat", OBJECT]
    assert category({"text": "a mug"}, ITEMS[0]) == "a mug"
    assert category({"text": "a mug"}, ITEMS[2]) == OBJECT


def test_an_outcome_that_is_gone_asks_for_another_run() -> None:
    with pytest.raises(BadImage, match=r"b\.png: .*run again"):
        done(outcome("a.png", "empty")).outcome(ITEMS[1])
