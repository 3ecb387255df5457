"""Expressions of drawn scenes are RefCOCO's format, and each means one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segclip.errors import BadTable, NotWritable
from segclip.files import pickles, referring
from train.engine.files import claim
from train.scenes import refer, write
from train.scenes.compose import VALIDATION_SEED, compose
from train.scenes.glyphs import Glyph


@pytest.fixture
def drawn(glyphs: list[Glyph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write six scenes."""
    monkeypatch.setattr(write, "load_glyphs", lambda: glyphs)
    claim(tmp_path)
    write.write_folder(tmp_path, range(VALIDATION_SEED, VALIDATION_SEED + 6), [])
    return tmp_path


def test_expressions_are_read_back_with_their_masks(drawn: Path, glyphs: list[Glyph]) -> None:
    refer.main(drawn)
    data = referring.read(drawn)
    assert data.kind == referring.ONE
    count = 0
    for image in data.images:
        scene = compose(int(Path(image.name).stem), glyphs, [])
        dense = scene.masks.to_dense()[scene.askable]
        for expression in image.expressions:
            (thing,) = expression.things
            x, y, window = thing.window(image.size)
            mask = np.zeros(image.size, bool)
            mask[y : y + window.shape[0], x : x + window.shape[1]] = window
            assert any(np.array_equal(mask, other) for other in dense)
            count += 1
    assert count > 20


def test_the_pickle_holds_the_fields_of_refcoco_and_only_plain_data(drawn: Path) -> None:
    refer.main(drawn)
    refs = pickles.read(drawn / refer.REFS, "the expressions")
    assert set(refs[0]) == {
        *("ref_id", "ann_id", "category_id", "image_id", "file_name", "split", "sent_ids"),
        "sentences",
    }
    assert set(refs[0]["sentences"][0]) == {"raw", "sent", "sent_id", "tokens"}
    every = [number for ref in refs for number in ref["sent_ids"]]
    assert every == list(range(len(every)))


def thing(x: int, side: int, category: int = 1, **changed: Any) -> dict[str, Any]:
    return {
        "category_id": category,
        "bbox": [x, 0, side, side],
        "area": side * side,
        "askable": True,
        "phrases": [],
        **changed,
    }


def texts(row: dict[str, Any], *others: dict[str, Any]) -> list[str]:
    return list(refer.expressions(row, [row, *others], {1: "apple", 2: "mug"}))


def test_the_only_one_of_its_name_has_attribute_and_relation() -> None:
    phrases = ["red apple", "the apple left of the mug"]
    assert texts(thing(0, 20, phrases=phrases), thing(90, 20, 2)) == ["apple", *phrases]


def test_of_several_those_at_an_end_have_a_place_and_a_size() -> None:
    left, middle, right = thing(0, 30), thing(50, 20), thing(90, 40)
    assert texts(left, middle, right) == ["left apple"]
    assert texts(middle, left, right) == ["smallest apple"]
    assert texts(right, left, middle) == ["right apple", "biggest apple"]


def test_what_is_too_small_to_be_queried_has_no_expression() -> None:
    assert not texts(thing(0, 20, askable=False))


def test_hidden_ones_of_the_same_name_do_not_count() -> None:
    assert texts(thing(0, 20), thing(50, 0)) == ["apple"]


def test_a_folder_of_somebody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text("precious")
    with pytest.raises(NotWritable):
        refer.main(tmp_path)
    assert (tmp_path / "instances.json").read_text() == "precious"


def test_scenes_without_phrases_are_refused(drawn: Path) -> None:
    table = json.loads((drawn / "scenes.json").read_text())
    del table["annotations"][0]["phrases"]
    (drawn / "scenes.json").write_text(json.dumps(table))
    with pytest.raises(BadTable, match="no phrases"):
        refer.main(drawn)
