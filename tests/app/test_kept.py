"""The cache of the least recently used, and the sizes of its entries."""

from __future__ import annotations

from typing import Any

import numpy as np

from app import kept
from app.kept import Limits, LruCache
from app.state import Studio
from segclip.types import Image


def cache_of(limits: Limits, **more: Any) -> LruCache[np.ndarray]:
    return LruCache(lambda: limits, memory=lambda value: value, **more)


def test_the_least_recently_used_entries_are_evicted() -> None:
    evicted: list[int] = []
    cache = cache_of(Limits(2, 1000), on_evict=lambda value: evicted.append(int(value[0])))
    for number in range(2):
        cache.put(str(number), np.array([number]))
    assert cache.find("0") is not None
    cache.put("2", np.array([2]))
    assert evicted == [1]
    assert cache.find("1") is None
    assert [int(value[0]) for value in cache.values()] == [0, 2]
    assert cache.pop("0") is not None
    assert cache.pop("0") is None
    assert evicted == [1], "what is removed by its owner is not evicted"


def test_entries_fit_their_bytes_and_the_newest_always_stays() -> None:
    cache = cache_of(Limits(9, 100))
    for name in "abc":
        cache.put(name, np.zeros(40, np.uint8))
    assert (cache.find("a"), len(cache)) == (None, 2)
    cache.put("large", np.zeros(1000, np.uint8))
    assert len(cache) == 1
    assert cache.find("large") is not None


def test_shared_parts_count_once() -> None:
    cache, shared = cache_of(Limits(9, 100)), np.zeros(90, np.uint8)
    for name in "abc":
        cache.put(name, shared)
    assert len(cache) == 3


def test_unused_entries_have_a_smaller_limit() -> None:
    now = [0.0]
    cache = cache_of(Limits(9, 1000, idle_bytes=100, idle=30.0), clock=lambda: now[0])
    for name in "abc":
        cache.put(name, np.zeros(60, np.uint8))
    now[0] = 29.0
    assert cache.find("a") is not None
    assert not cache.tidy()
    now[0] = 31.0
    assert cache.tidy()
    assert [name for name in "abc" if cache.find(name) is not None] == ["a", "c"]


def test_the_regions_of_an_image_count_towards_its_size(
    studio: Studio, sample_image: Image
) -> None:
    before = sum(kept.bytes_of([sample_image]).values())
    segmenter = studio.models.load("mini").segmenter
    regions = segmenter.regions(sample_image)
    assert sum(kept.bytes_of([sample_image, regions, regions]).values()) > before
    assert before == sample_image.pixels.nbytes
