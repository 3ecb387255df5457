"""Keep an index's vectors on disk and find the nearest: exactly with NumPy, or in LanceDB beyond 100,000.

A snapshot is a folder that never changes: pictures.json, and a table of vectors for whole images and one for regions.
``current.json`` names the one in use, so a reader never sees half of anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import BadPrompt
from ..types import Array

KINDS = ("images", "regions")


@dataclass(frozen=True)
class Filter:
    """Say which pictures are searched.

    folder: inside the indexed one, with all in it. after, before: days, both included, of the photo's EXIF, else of its
    file. min_side: px, least shorter side. max_side: px, most longer side.
    """

    folder: str | None = None
    after: date | None = None
    before: date | None = None
    min_side: int | None = None
    max_side: int | None = None

    @property
    def within(self) -> str:
        """Give what a name starts with to lie in the folder, "" for everywhere."""
        inside = (self.folder or "").strip("/").removeprefix("./")
        return f"{inside}/" if inside not in ("", ".") else ""

    @property
    def span(self) -> tuple[float, float]:
        """Give the time from when and until before when, in s since 1970."""
        first = _midnight(self.after) if self.after else -np.inf
        return first, _midnight(self.before + timedelta(days=1)) if self.before else np.inf


@dataclass(frozen=True, eq=False)
class Pictures:
    """Hold P indexed pictures.

    names: inside the indexed folder. taken: float64 (P,), s since 1970. sizes: int32 (P, 2), (H, W).
    """

    names: tuple[str, ...]
    taken: Array
    sizes: Array

    def __len__(self) -> int:
        return len(self.names)

    def allowed(self, where: Filter) -> Array:
        """Tell which pictures a filter leaves: bool (P,)."""
        start, end = where.span
        kept = (self.taken >= start) & (self.taken < end)
        kept &= self.sizes.min(axis=1, initial=1 << 30) >= (where.min_side or 0)
        kept &= self.sizes.max(axis=1, initial=0) <= (where.max_side or 1 << 30)
        if where.within:
            kept &= np.fromiter((name.startswith(where.within) for name in self.names), bool, len(self))
        return np.asarray(kept)


@dataclass(frozen=True, eq=False)
class Vectors:
    """Hold M embeddings with where they come from.

    embeddings: float32 (M, D), unit rows. picture: int32 (M,), row of Pictures. region: int32 (M,), of that picture,
    -1 for all of it. quality: float32 (M,), the proposer's.
    """

    embeddings: Array
    picture: Array
    region: Array
    quality: Array

    def __len__(self) -> int:
        return len(self.picture)

    def __getitem__(self, rows: Array) -> Vectors:
        return Vectors(self.embeddings[rows], self.picture[rows], self.region[rows], self.quality[rows])

    @classmethod
    def none(cls, dim: int) -> Vectors:
        """Make a table without rows."""
        numbers = np.zeros(0, np.int32)
        return cls(np.zeros((0, dim), np.float32), numbers, numbers, np.zeros(0, np.float32))

    @classmethod
    def join(cls, parts: Iterable[Vectors], dim: int) -> Vectors:
        """Put tables beneath one another."""
        every = [cls.none(dim), *parts]
        columns = ("embeddings", "picture", "region", "quality")
        return cls(*(np.concatenate([getattr(part, column) for part in every]) for column in columns))


class Table(Protocol):
    """Find vectors near a query."""

    def __len__(self) -> int:
        """Give the number of vectors M."""

    def nearest(self, query: Array, count: int, where: Filter) -> Vectors:
        """Give at most ``count`` vectors by cosine with ``query`` (D,), best first, of the pictures a filter leaves."""


class Exact:
    """Compare a query with every vector."""

    def __init__(self, vectors: Vectors, pictures: Pictures) -> None:
        self.vectors = vectors
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, query: Array, count: int, where: Filter = Filter()) -> Vectors:
        """Give the nearest; equal ones in the order they are stored in."""
        cosine = self.vectors.embeddings @ query.astype(np.float32)  # (M,)
        if where != Filter():
            cosine = np.where(self.pictures.allowed(where)[self.vectors.picture], cosine, -np.inf)
        return self.vectors[_largest(cosine, count)]


def _largest(values: Array, count: int) -> Array:
    """Give the rows of the largest values above -inf, largest first: int64, at most ``count``."""
    if count < len(values):
        least = -np.partition(-values, count - 1)[count - 1]
        rows = np.flatnonzero(values >= least)
    else:
        rows = np.arange(len(values))
    rows = rows[values[rows] > -np.inf]
    return rows[np.lexsort((rows, -values[rows]))][:count]


def write_pictures(folder: Path, pictures: Pictures, facts: dict[str, Any]) -> None:
    """Write pictures.json: the columns of ``pictures``, and facts about the snapshot."""
    columns = {"names": pictures.names, "taken": pictures.taken.tolist(), "sizes": pictures.sizes.tolist()}
    text = json.dumps({**facts, **columns})
    (folder / "pictures.json").write_text(text, "utf-8")


def read_pictures(folder: Path) -> tuple[Pictures, dict[str, Any]]:
    """Read what ``write_pictures`` wrote. Raises BadPrompt when it is damaged."""
    try:
        told = json.loads((folder / "pictures.json").read_text("utf-8"))
        sizes = np.array(told.pop("sizes"), np.int32).reshape(-1, 2)
        return Pictures(tuple(told.pop("names")), np.array(told.pop("taken"), np.float64), sizes), told
    except (OSError, ValueError, LookupError) as error:
        raise BadPrompt(f"the index at {folder.parent} is damaged ({error}); make it again with --rebuild") from None


def write_exact(folder: Path, kind: str, parts: Iterable[Vectors]) -> int:
    """Write a table's files, part by part, and give its length."""
    length = 0
    with (folder / f"{kind}.f32").open("wb") as vectors, (folder / f"{kind}.rows").open("wb") as rows:
        for part in parts:
            vectors.write(np.ascontiguousarray(part.embeddings, np.float32).data)
            rows.write(_pack(part).data)
            length += len(part)
    return length


def open_exact(folder: Path, kind: str, pictures: Pictures, *, dim: int, length: int) -> Exact:
    """Open a table's files; the vectors stay on disk until they are read."""
    if not length:
        return Exact(Vectors.none(dim), pictures)
    try:
        embeddings = np.memmap(folder / f"{kind}.f32", np.float32, "r", shape=(length, dim))
        rows = np.fromfile(folder / f"{kind}.rows", np.int32).reshape(length, 3)
    except (OSError, ValueError) as error:
        raise BadPrompt(f"the index at {folder.parent} is damaged ({error}); make it again with --rebuild") from None
    quality = np.ascontiguousarray(rows[:, 2]).view(np.float32)
    plain = np.asarray(embeddings).view(np.ndarray)
    return Exact(Vectors(plain, rows[:, 0].copy(), rows[:, 1].copy(), quality), pictures)


def _pack(part: Vectors) -> Array:
    quality = np.ascontiguousarray(part.quality, np.float32).view(np.int32)
    return np.ascontiguousarray(np.column_stack([part.picture, part.region, quality]).astype(np.int32))


def replace_json(path: Path, told: dict[str, Any]) -> None:
    """Write a JSON file in one step: a reader sees the old one or the new one."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(told, indent=1), "utf-8")
    os.replace(aside, path)


def in_chunks(parts: Iterable[Vectors], dim: int, size: int = 8192) -> Iterator[Vectors]:
    """Join small tables to ones of ``size`` rows or more, but for the last."""
    waiting: list[Vectors] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= size:
            yield Vectors.join(waiting, dim)
            waiting = []
    if waiting:
        yield Vectors.join(waiting, dim)


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp()
