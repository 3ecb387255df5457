"""Referring expressions are read in every format, and defects are one line that names the row."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segclip.errors import BadPrompt, BadTable
from segclip.files import referring
from segclip.files.referring import ReferringSet
from tests import expressions
from tests.expressions import BOXES, box_mask, ref


def read_texts(data: ReferringSet) -> dict[str, dict[str, int]]:
    """Return the number of objects by text, by image."""
    return {
        image.name: {each.text: len(each.things) for each in image.expressions}
        for image in data.images
    }


def test_refcoco_is_read_sentence_by_sentence(tmp_path: Path) -> None:
    data = referring.read(expressions.refcoco(tmp_path))
    assert data.kind == referring.ONE
    assert read_texts(data) == {
        "a.png": {
            "red box": 1,
            "the red one": 1,
            "green": 1,
            "blue": 1,
            "the blue box on the right": 1,
            "the red box": 1,
        },
        "b.png": {"the right red box": 1},
    }
    keys = [each.key for image in data.images for each in image.expressions]
    assert len(set(keys)) == len(keys)
    (thing,) = data.images[1].expressions[0].things
    x, y, window = thing.window(data.images[1].size)
    assert np.array_equal(
        window, box_mask(BOXES[5][2])[y : y + window.shape[0], x : x + window.shape[1]]
    )


def test_a_folder_is_searched_and_a_split_chosen(tmp_path: Path) -> None:
    expressions.refcoco(tmp_path)
    assert read_texts(referring.read(tmp_path, "testA")) == {"b.png": {"red": 1}}
    with pytest.raises(BadTable, match=r"no split 'test'; it has testA, val"):
        referring.read(tmp_path, "test")
    (tmp_path / "refs(google).p").write_bytes((tmp_path / "refs(unc).p").read_bytes())
    with pytest.raises(BadPrompt, match=r"refs\(google\)\.p and refs\(unc\)\.p; give one"):
        referring.read(tmp_path)


def test_of_a_file_for_each_split_that_of_the_split_is_read(tmp_path: Path) -> None:
    expressions.phrasecut(tmp_path)
    (tmp_path / "refer_test.json").write_text("[]")
    assert referring.read(tmp_path, "miniv").files[0].name == "refer_miniv.json"


def test_a_folder_without_expressions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPrompt, match="none of"):
        referring.read(tmp_path)


def test_grefcoco_has_expressions_of_none_and_of_several_objects(tmp_path: Path) -> None:
    data = referring.read(expressions.grefcoco(tmp_path))
    assert data.kind == referring.SEVERAL
    assert read_texts(data) == {
        "a.png": {"red": 1, "green": 2, "a zebra": 0, "yellow": 0},
        "b.png": {"red": 2, "both red boxes": 2, "a red zebra": 0, "a walrus": 1},
    }


def test_captions_that_the_review_rejected_are_left_out(tmp_path: Path) -> None:
    data = referring.read(expressions.reviewed(tmp_path))
    assert data.kind == referring.ONE
    assert read_texts(data) == {"a.png": {"red box": 1}, "b.png": {"the right red box": 1}}


def test_phrasecut_is_read_from_polygons(tmp_path: Path) -> None:
    data = referring.read(expressions.phrasecut(tmp_path))
    assert data.kind == referring.REGION
    assert read_texts(data) == {"1.jpg": {"red box": 1, "a walrus": 1}, "2.jpg": {"red boxes": 2}}
    (thing,) = data.images[0].expressions[0].things
    x, _, window = thing.window((120, 160))
    assert (x, window.sum()) == (10, 1600)


def test_saco_groups_phrases_by_image_and_drops_those_not_outlined(tmp_path: Path) -> None:
    data = referring.read(expressions.saco(tmp_path))
    assert data.kind == referring.PHRASE
    assert read_texts(data) == {
        "a.png": {"red box": 1, "a zebra": 0},
        "b.png": {"red box": 2, "green": 0},
    }


def test_images_are_found_beside_the_file_or_where_refer_has_them(tmp_path: Path) -> None:
    file = expressions.refcoco(tmp_path / "data" / "refcoco")
    data = referring.read(file)
    assert referring.images_of(data) == file.parent / "images"
    (file.parent / "images").rename(tmp_path / "train2014")
    with pytest.raises(BadPrompt, match="--images"):
        referring.images_of(data)
    (tmp_path / "data" / "images" / "mscoco" / "images").mkdir(parents=True)
    (tmp_path / "train2014").rename(tmp_path / "data/images/mscoco/images/train2014")
    assert (referring.images_of(data) / "a.png").is_file()


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


BAD_REFS: dict[str, tuple[Any, str]] = {
    "a number": (5, "no known format"),
    "nothing": ([], "no known format"),
    "rows that are no objects": ([ref(1, 1, "red"), 5], r"refs\[1\]"),
    "no object": ([without(ref(1, 1, "red"), "ann_id")], "ann_id is missing"),
    "an unknown object": ([ref(1, 9, "red")], "ann_id is 9"),
    "an object of another image": ([ref(1, 4, "red")], "an object of image 1, not of image 2"),
    "an unknown image": ([ref(9, 1, "red")], "image_id is 9"),
    "a list of lists": ([ref(1, [[1]], "red")], "ann_id"),
    "no sentences": ([{**ref(1, 1), "sentences": 5}], "sentences is 5"),
    "a sentence in numbers": ([ref(1, 1, "red") | {"sentences": [{"raw": 5}]}], "raw is 5"),
    "half a character": ([ref(1, 1, "\udc00")], "raw"),
}


@pytest.mark.parametrize("kind", BAD_REFS)
def test_a_bad_row_of_refs_is_one_line(kind: str, tmp_path: Path) -> None:
    refs, words = BAD_REFS[kind]
    file = expressions.refcoco(tmp_path, refs)
    with pytest.raises(BadTable, match=words) as refusal:
        referring.read(file)
    assert "\n" not in str(refusal.value)


def test_rows_that_contain_themselves_are_one_line(tmp_path: Path) -> None:
    row = ref(1, 1, "red")
    row["image_id"] = row
    with pytest.raises(BadTable, match="image_id"):
        referring.read(expressions.refcoco(tmp_path, [row]))


@pytest.mark.parametrize("name", ["instances.json", "image_data_split3000.json"])
def test_a_missing_file_beside_is_one_line(name: str, tmp_path: Path) -> None:
    make = expressions.refcoco if name == "instances.json" else expressions.phrasecut
    file = make(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BadTable, match=name):
        referring.read(file)


def change(file: Path, edit: Callable[[Any], None]) -> Path:
    table = json.loads(file.read_text())
    edit(table)
    file.write_text(json.dumps(table))
    return file


@pytest.mark.parametrize(
    "polygons", [5, [5], [[5]], [[[1, 2], [3, 4], [5, 6]]], [[[[1], [2], [3]]]]]
)
def test_bad_polygons_are_one_line(polygons: Any, tmp_path: Path) -> None:
    file = change(expressions.phrasecut(tmp_path), lambda table: table[0].update(Polygons=polygons))
    with pytest.raises(BadTable, match=r"phrases\[0\]"):
        referring.read(file)


def test_a_phrase_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    file = change(
        expressions.saco(tmp_path), lambda table: table["images"][1].update(text_input=None)
    )
    with pytest.raises(BadTable, match=r"images\[1\].*text_input"):
        referring.read(file)


def test_grefs_may_be_pickled_too(tmp_path: Path) -> None:
    expressions.grefcoco(tmp_path)
    file = tmp_path / "grefs(unc).p"
    file.write_bytes(pickle.dumps(expressions.GREFS, protocol=0))
    assert referring.read(file).kind == referring.SEVERAL
