"""Tables on disk, filters, and exact search; damaged tables are refused."""

from __future__ import annotations

from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segclip import Filter, Index, make_index
from segclip.errors import BadIndex
from segclip.search import checked, snapshot, store
from segclip.search.store import Exact, ImageTable, Vectors
from tests.indexes import (
    DEEP,
    WEIRD,
    draw,
    embedded,
    forge,
    names,
    place,
    put,
)


def test_filters(photos: Path) -> None:
    draw(photos / "sub" / "red.png", ("red", (0, 0, 50, 50)))
    make_index(photos, DEEP)
    index = Index(photos)

    def found(where: Filter) -> set[str]:
        return set(names(index.search("red", where=where)))

    assert found(Filter(folder="sub dir/")) == {"sub dir/black.png", "sub dir/é🦁.png"}
    assert found(Filter(folder="none")) == set()
    assert found(Filter(before=date(2024, 5, 1))) == {"red.png"}
    assert found(Filter(after=date(2024, 5, 2), before=date(2025, 5, 1))) == {"green.png"}
    assert found(Filter(min_side=121)) == set()
    assert len(found(Filter(min_side=120, max_side=160))) == 7
    assert found(Filter(max_side=159)) == set()


def test_the_nearest_are_exact_and_in_order() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 16)).astype(np.float32)
    rows[100] = rows[50]  # a tie
    sample_image = np.arange(500, dtype=np.int32)
    images = ImageTable(tuple(f"{n}.png" for n in range(500)), np.zeros(500), np.full((500, 2), 9))
    table = Exact(Vectors(rows, sample_image, sample_image, np.ones(500, np.float32)), images)
    wanted = np.argsort(-(rows @ rows[50]), kind="stable")
    for count in (0, 1, 7, 499, 500, 900):
        assert table.nearest(rows[50], count).image.tolist() == wanted[:count].tolist()


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    numbers = np.arange(5, dtype=np.int32)
    wanted = Vectors(
        rng.normal(size=(5, 3)).astype(np.float32),
        numbers,
        np.full(5, -1, np.int32),
        rng.random(5).astype(np.float32),
    )
    names = ("a", "b\udce9", "c", "d", "e")
    images = ImageTable(
        names, np.array([1.5, 2, 3, 4, 5]), np.array([[3, 4], [5, 6]] * 2 + [[7, 8]], np.int32)
    )
    assert store.write_exact(tmp_path, "images", [wanted[:2], wanted[2:]]) == 5  # type: ignore[index]
    store.write_exact(tmp_path, "regions", [])
    written = {
        "engine": "numpy",
        "dim": 3,
        "images": 5,
        "regions": 0,
        "files": checked.checksums(tmp_path),
    }
    store.write_images(tmp_path, images, written)
    read, facts = store.read_images(tmp_path)
    assert (read.names, facts) == (images.names, written)
    assert checked.damage(tmp_path, facts["files"]) == ""
    table = store.open_exact(tmp_path, "images", read, dim=3, length=5)
    for column in ("embeddings", "image", "region", "quality"):
        assert np.array_equal(getattr(table.vectors, column), getattr(wanted, column))


@pytest.mark.parametrize("key", ["names", "taken", "sizes", "engine", "dim", "images", "regions"])
def test_fault_17b_invalid_entries_are_refused_and_repaired(indexed: Path, key: str) -> None:
    others: tuple[Any, ...] = (
        "lancedb",
        ["x"] * 5,
        [float("nan")] * 5,
        [[-1, 2]] * 5,
        [[1, 2, 3]] * 5,
        [[10**12, 1]] * 5,
    )
    for value in (*WEIRD, *others):
        forge(indexed, partial(put, key, value))
        with pytest.raises(BadIndex):
            Index(indexed).search("red", regions=True)
        assert embedded(make_index(indexed)) == (0, 5)
        assert Index(indexed).search("red", n=1, regions=True)[0].name == "sub/red.png"


def test_fault_17b_rows_that_point_outside_are_refused(indexed: Path) -> None:
    folder = snapshot.current(place(indexed))
    sound = (folder / "regions.rows").read_bytes()
    for column, value in (
        (0, 1),
        (0, 5),
        (0, -1),
        (0, 2**31 - 1),
        (1, -2),
        (1, 1),
        (1, 34_779_256),
    ):
        table = np.frombuffer(sound, np.int32).reshape(-1, 3).copy()
        table[0, column] = value
        (folder / "regions.rows").write_bytes(table.tobytes())
        forge(indexed, lambda facts: None)
        with pytest.raises(BadIndex, match="was not written by an index"):
            Index(indexed)
    make_index(indexed)
    assert Index(indexed).search("red", n=1, regions=True)


def test_fault_17b_the_last_day_and_the_first_can_be_named(indexed: Path) -> None:
    index = Index(indexed)
    every = index.search("red", n=9)
    for where in (
        Filter(before=date.max),
        Filter(after=date.min),
        Filter(after=date.min, before=date.max, min_side=1, max_side=10**30),
    ):
        assert index.search("red", n=9, where=where) == every
    for where in (
        Filter(after=date.max),
        Filter(before=date.min),
        Filter(min_side=10**30),
        Filter(folder="\0'\ud800"),
    ):
        assert index.search("red", n=9, where=where) == ()
    assert index.search("red", n=10**30) == every
