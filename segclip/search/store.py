"""Vector tables on disk and nearest-neighbour search: exact with NumPy, LanceDB beyond 100,000.

A snapshot is an immutable folder: pictures.json, and one table of vectors for whole images and one
for regions. ``current.json`` names the one in use, so readers never get a partial snapshot. Files
may be damaged or untrusted: names may lead out of the folder, rows out of their table, and a file
may be a pipe.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import BadIndex
from ..types import Array
from .checked import LARGEST, LATEST, MOST_DIM, is_inside, is_size, read_json

KINDS = ("images", "regions")
ENGINES = ("numpy", "lancedb")


@dataclass(frozen=True)
class Filter:
    """Limits a search to some images.

    folder: inside the indexed one, including subfolders. after, before: days, inclusive, of the
    photo's EXIF, else of its file. min_side: px, minimum of the shorter side. max_side: px,
    maximum of the longer side.
    """

    folder: str | None = None
    after: date | None = None
    before: date | None = None
    min_side: int | None = None
    max_side: int | None = None

    @property
    def within(self) -> str:
        """The prefix of names in the folder; "" for no limit."""
        inside = (self.folder or "").strip("/").removeprefix("./")
        return f"{inside}/" if inside not in ("", ".") else ""

    @property
    def span(self) -> tuple[float, float]:
        """The time span, start included and end excluded, in s since 1970."""
        start = _midnight(self.after) if self.after else -np.inf
        if self.before is None or self.before == date.max:  # the latter has no next day
            return start, np.inf
        return start, _midnight(self.before + timedelta(days=1))

    @property
    def sides(self) -> tuple[int, int]:
        """The minimum shorter and the maximum longer side, in px."""
        least, most = self.min_side or 0, LARGEST if self.max_side is None else self.max_side
        # the sides are int32 columns, which larger numbers would overflow
        return max(0, min(least, LARGEST)), max(0, min(most, LARGEST))


@dataclass(frozen=True, eq=False)
class ImageTable:
    """P indexed images.

    names: inside the indexed folder. taken: float64 (P,), s since 1970. sizes: int32 (P, 2), (H,
    W).
    """

    names: tuple[str, ...]
    taken: Array
    sizes: Array

    def __len__(self) -> int:
        return len(self.names)

    def allowed(self, where: Filter) -> Array:
        """Return which images pass a filter: bool (P,)."""
        start, end = where.span
        kept = (self.taken >= start) & (self.taken < end)
        least, most = where.sides
        kept &= self.sizes.min(axis=1, initial=LARGEST) >= least
        kept &= self.sizes.max(axis=1, initial=0) <= most
        if where.within:
            kept &= np.fromiter(
                (name.startswith(where.within) for name in self.names), bool, len(self)
            )
        return np.asarray(kept)


@dataclass(frozen=True, eq=False)
class Vectors:
    """M embeddings and their origin.

    embeddings: float32 (M, D), unit rows. image: int32 (M,), row of ImageTable. region: int32 (M,),
    of that image, -1 for the whole image. quality: float32 (M,), the proposer's.
    """

    embeddings: Array
    image: Array
    region: Array
    quality: Array

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: Array) -> Vectors:
        return Vectors(
            self.embeddings[rows], self.image[rows], self.region[rows], self.quality[rows]
        )

    @classmethod
    def none(cls, dim: int) -> Vectors:
        """Return a table without rows."""
        numbers = np.zeros(0, np.int32)
        return cls(np.zeros((0, dim), np.float32), numbers, numbers, np.zeros(0, np.float32))

    @classmethod
    def join(cls, parts: Iterable[Vectors], dim: int) -> Vectors:
        """Concatenate tables."""
        every = [cls.none(dim), *parts]
        columns = ("embeddings", "image", "region", "quality")
        return cls(
            *(np.concatenate([getattr(part, column) for part in every]) for column in columns)
        )


class VectorTable(Protocol):
    """A table of vectors with nearest-neighbour search."""

    def __len__(self) -> int:
        """Return the number of vectors M."""

    def nearest(self, query: Array, count: int, where: Filter) -> Vectors:
        """Return up to ``count`` vectors of images passing a filter, by cosine with ``query`` (D,).

        Best first.
        """


class Exact:
    """Exhaustive search."""

    def __init__(self, vectors: Vectors, images: ImageTable) -> None:
        self.vectors = vectors
        self.images = images

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, query: Array, count: int, where: Filter = Filter()) -> Vectors:
        """Return the nearest vectors, ties in storage order. Raises BadIndex for another D."""
        if len(query) != self.vectors.embeddings.shape[1]:
            raise BadIndex(
                f"the index holds embeddings of {self.vectors.embeddings.shape[1]} numbers, and "
                f"its encoder makes {len(query)}; rebuild it with segclip index --rebuild"
            )
        cosine = self.vectors.embeddings @ query.astype(np.float32)  # (M,)
        if where != Filter():
            cosine = np.where(self.images.allowed(where)[self.vectors.image], cosine, -np.inf)
        return self.vectors[_largest(cosine, count)]


def _largest(values: Array, count: int) -> Array:
    """Return the rows of the ``count`` largest values above -inf, largest first: int64."""
    if count < len(values):
        # with all rows that tie with the last, of which the first ones are to be kept
        least = -np.partition(-values, count - 1)[count - 1]
        rows = np.flatnonzero(values >= least)
    else:
        rows = np.arange(len(values))
    rows = rows[values[rows] > -np.inf]
    return rows[np.lexsort((rows, -values[rows]))][:count]


def write_images(folder: Path, images: ImageTable, facts: dict[str, Any]) -> None:
    """Write pictures.json: the columns of ``images``, and facts about the snapshot."""
    columns = {
        "names": images.names,
        "taken": images.taken.tolist(),
        "sizes": images.sizes.tolist(),
    }
    text = json.dumps({**facts, **columns})
    (folder / "pictures.json").write_text(text, "utf-8")


def read_images(folder: Path) -> tuple[ImageTable, dict[str, Any]]:
    """Read what ``write_images`` wrote. Raises OSError if missing, ValueError if invalid."""
    data = read_json(folder / "pictures.json")
    names, taken, sizes = (data.pop(column, None) for column in ("names", "taken", "sizes"))
    if not (isinstance(names, list) and isinstance(taken, list) and isinstance(sizes, list)):
        raise ValueError("some of its columns are missing")
    if not len(names) == len(taken) == len(sizes):
        raise ValueError("its columns differ in length")
    for name in names:
        if not is_inside(name):
            raise ValueError(f"{str(name)[:200]!r} is no name of a file in the folder")
    if len(set(names)) < len(names):
        raise ValueError("it names a file twice")
    if not all(type(number) in (int, float) and abs(number) < LATEST for number in taken):
        raise ValueError("its times are not numbers")
    if not all(is_size(size) for size in sizes):
        raise ValueError("its sizes are invalid")
    columns = np.array(taken, np.float64), np.array(sizes, np.int32).reshape(-1, 2)
    return ImageTable(tuple(names), *columns), _checked(data, len(names))


def _checked(facts: dict[str, Any], count: int) -> dict[str, Any]:
    """Validate the facts of a snapshot of ``count`` images. Raises ValueError."""
    engine, files = facts.get("engine"), facts.get("files")
    numbers = [facts.get(name) for name in ("dim", *KINDS)]
    if engine not in ENGINES or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("its facts are invalid")
    dim, images, _ = (int(number or 0) for number in numbers)
    if images != count or dim > MOST_DIM or (images and not dim):
        raise ValueError("its facts contradict one another")
    sums = files.values() if isinstance(files, dict) else [None]
    if not all(
        isinstance(pair, list) and [type(number) for number in pair] == [int, int] for pair in sums
    ):
        raise ValueError("its checksums are missing")
    for kind in KINDS if engine == "numpy" else ():
        sizes = [facts["files"].get(f"{kind}.{ending}", [0])[0] for ending in ("f32", "rows")]
        if sizes != [4 * dim * facts[kind], 12 * facts[kind]]:
            raise ValueError(f"its {kind} are more or fewer than their files hold")
    return facts


def write_exact(folder: Path, kind: str, parts: Iterable[Vectors]) -> int:
    """Write a table's files, part by part, and return its length."""
    length = 0
    with (
        (folder / f"{kind}.f32").open("wb") as vectors,
        (folder / f"{kind}.rows").open("wb") as rows,
    ):
        for part in parts:
            vectors.write(np.ascontiguousarray(part.embeddings, np.float32).data)
            rows.write(_pack(part).data)
            length += len(part)
    return length


def open_exact(folder: Path, kind: str, images: ImageTable, *, dim: int, length: int) -> Exact:
    """Open a table's files, memory-mapped. Raises OSError, and ValueError for damage."""
    if not length:
        return Exact(Vectors.none(dim), images)
    embeddings = np.memmap(folder / f"{kind}.f32", np.float32, "r", shape=(length, dim))
    rows = np.fromfile(folder / f"{kind}.rows", np.int32).reshape(length, 3)
    image, region = rows[:, 0].copy(), rows[:, 1].copy()
    if image.min() < 0 or image.max() >= len(images) or not _as_written(kind, image, region):
        raise ValueError(f"{kind}.rows was not written by an index")
    quality = np.ascontiguousarray(rows[:, 2]).view(np.float32)
    plain = np.asarray(embeddings).view(np.ndarray)
    return Exact(Vectors(plain, image, region, quality), images)


def _as_written(kind: str, image: Array, region: Array) -> bool:
    """Return whether rows are as written: image by image, regions from 0, or -1 for the whole."""
    firsts = np.flatnonzero(np.diff(image, prepend=-1))
    if (np.diff(image) < 0).any():
        return False
    counted = np.arange(len(region)) - np.repeat(firsts, np.diff(firsts, append=len(region)))
    expected = counted if kind == "regions" else np.full(len(region), -1)
    return bool((region == expected).all()) and (kind == "regions" or len(firsts) == len(region))


def _pack(part: Vectors) -> Array:
    quality = np.ascontiguousarray(part.quality, np.float32).view(np.int32)
    return np.ascontiguousarray(
        np.column_stack([part.image, part.region, quality]).astype(np.int32)
    )


def in_chunks(parts: Iterable[Vectors], dim: int, size: int = 8192) -> Iterator[Vectors]:
    """Join small tables to ones of ``size`` rows or more, except the last."""
    waiting: list[Vectors] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= size:
            yield Vectors.join(waiting, dim)
            waiting = []
    if waiting:
        yield Vectors.join(waiting, dim)


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
