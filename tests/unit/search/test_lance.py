"""LanceDB answers as NumPy does."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from segclip import Filter, Index, IndexOptions, make_index
from segclip.search import lance
from segclip.search.store import Exact, ImageTable, Vectors
from tests.indexes import draw, names


def test_lancedb_agrees_with_numpy(photos: Path) -> None:
    pytest.importorskip("lancedb")
    draw(photos / "it's" / "red.png", ("red", (0, 0, 50, 50)))
    queries = [
        (text, deep) for text in ("red", "a blue square", "green yellow") for deep in (True, False)
    ]
    wheres = (
        Filter(),
        Filter(folder="it's"),
        Filter(before=date(2024, 5, 1)),
        Filter(min_side=121),
    )
    answers = []
    for engine in ("numpy", "lancedb"):
        assert make_index(photos, IndexOptions(regions=True, engine=engine)).engine == engine
        index = Index(photos)
        answers.append(
            [
                index.search(text, regions=deep, where=where)
                for text, deep in queries
                for where in wheres
            ]
        )
    for exact, other in zip(*answers, strict=True):
        assert names(exact) == names(other)
        assert [m.similarity for m in exact] == pytest.approx(
            [m.similarity for m in other], abs=1e-5
        )
        assert [m.box for m in exact] == [m.box for m in other]


def test_an_indexed_table_finds_nearly_all_and_keeps_to_its_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lancedb")
    monkeypatch.setattr(lance, "INDEXED_FROM", 3000)
    monkeypatch.setattr(lance, "CELL", 50)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 16))[rng.integers(100, size=3000)] + 0.5 * rng.normal(
        size=(3000, 16)
    )
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    sample_image = np.arange(3000, dtype=np.int32)
    names = tuple(f"{'rare' if n % 1000 == 7 else 'often'}/{n}.png" for n in range(3000))
    images = ImageTable(names, np.zeros(3000), np.full((3000, 2), 9))
    vectors = Vectors(rows, sample_image, np.full_like(sample_image, -1), np.ones(3000, np.float32))
    assert lance.write(tmp_path, "images", iter([vectors]), images, 16) == 3000
    near, exact = lance.Lance(tmp_path, "images", images, length=3000), Exact(vectors, images)
    found = [
        len(set(near.nearest(q, 10).image) & set(exact.nearest(q, 10).image)) for q in rows[:50]
    ]
    assert np.mean(found) > 9
    assert sorted(near.nearest(rows[0], 10, Filter(folder="rare")).image) == [7, 1007, 2007]
