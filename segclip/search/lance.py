"""Keep vectors in LanceDB: embedded, on disk, with filters, and an approximate index once that
pays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadIndex, Unsupported
from ..types import Array
from .store import Filter, Pictures, Vectors, in_chunks

INDEXED_FROM = 20_000  # vectors; below, comparing with every one is fast enough and exact
CELL = 1000  # vectors in one of the index's cells, on average
_ITERATIONS, _SAMPLED = 20, 64  # of k-means, and the vectors for each cell it looks at
_PROBED = 0.02  # share of the cells that is looked into
_LEAST_PROBED = 20
_WRITTEN = 65_536  # vectors at a time
_DAMAGE = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)  # what lancedb lets out
_REFINE = 5  # times the rows asked for are compared by their full vectors


def installed() -> bool:
    """Tell whether LanceDB can be used here."""
    from importlib.util import find_spec

    return find_spec("lancedb") is not None


def write(folder: Path, kind: str, parts: Iterable[Vectors], pictures: Pictures, dim: int) -> int:
    """Write a table, index it when it is large, and give its length."""
    table = _connect(folder).create_table(kind, schema=_schema(dim), mode="overwrite")
    for batch in _batches(
        parts, pictures, dim
    ):  # handed over whole, they are read in another thread
        table.add(batch)
    length: int = table.count_rows()
    if length >= INDEXED_FROM:
        _index(table, length)
    return length


def _index(table: Any, length: int) -> None:
    """Sort the vectors into cells, a byte a number: HNSW graphs took about ten times as long to
    build.
    """
    from lancedb.index import IvfSq

    cells = IvfSq(
        distance_type="cosine",
        num_partitions=length // CELL,
        max_iterations=_ITERATIONS,
        sample_rate=_SAMPLED,
    )
    table.create_index("vector", config=cells)


class Lance:
    """Search one table."""

    def __init__(self, folder: Path, kind: str, pictures: Pictures, *, length: int) -> None:
        """Open a table of ``length`` rows. Raises ValueError for one that is damaged."""
        self._folder, self._pictures = folder, len(pictures)
        try:
            self._table = _connect(folder).open_table(kind)
            self._length: int = self._table.count_rows()
        except _DAMAGE as error:
            raise ValueError(f"LanceDB cannot open its {kind}: {_first_line(error)}") from None
        if self._length != length:
            raise ValueError(f"LanceDB finds {self._length} of its {length} {kind}")

    def __len__(self) -> int:
        return self._length

    def nearest(self, query: Array, count: int, where: Filter = Filter()) -> Vectors:
        """Give the nearest, nearly all of them where the table is indexed."""
        search = self._table.search(query.astype(np.float32)).distance_type("cosine").limit(count)
        search = search.select(["vector", "picture", "region", "quality", "_distance"])
        if self._length >= INDEXED_FROM:
            cells = self._length // CELL
            few = min(cells, max(_LEAST_PROBED, round(cells * _PROBED)))
            probed = few if where == Filter() else cells  # what a filter leaves may lie in any cell
            search = search.nprobes(probed).refine_factor(_REFINE)
        if clause := _clause(where):
            search = search.where(clause, prefilter=True)
        try:
            found = _vectors(search.to_arrow(), len(query), query)
        except _DAMAGE as error:
            raise BadIndex(
                f"{self._folder} cannot be searched: {_first_line(error)}; run segclip index again"
            ) from None
        if len(found) and not 0 <= found.picture.min() <= found.picture.max() < self._pictures:
            raise BadIndex(
                f"{self._folder} is damaged, its rows point outside; run segclip index again"
            )
        return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _vectors(found: Any, dim: int, query: Array) -> Vectors:
    """Turn Arrow rows to Vectors; equal ones in the order they are stored in, as Exact does."""
    if not len(found):
        return Vectors.none(dim)
    flat = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    embeddings = flat.reshape(-1, dim).astype(np.float32)
    columns = [found[name].to_numpy() for name in ("picture", "region", "quality")]
    order = np.lexsort((columns[1], columns[0], -(embeddings @ query.astype(np.float32))))
    return Vectors(embeddings, *columns)[order]


def _clause(where: Filter) -> str:
    """Say a filter in SQL."""
    start, end = where.span
    said = []
    if where.within:
        quoted = _text(where.within).replace("'", "''")
        said.append("false" if "\0" in quoted else f"starts_with(name, '{quoted}')")
    said += [f"taken >= {start}"] if np.isfinite(start) else []
    said += [f"taken < {end}"] if np.isfinite(end) else []
    least, most = where.sides
    said += [f"shorter >= {least}"] if where.min_side else []
    said += [f"longer <= {most}"] if where.max_side else []
    return " AND ".join(said)


def _text(name: str) -> str:
    return name.encode(
        "utf-8", "backslashreplace"
    ).decode()  # a name may hold bytes that are no characters


def _batches(parts: Iterable[Vectors], pictures: Pictures, dim: int) -> Iterator[Any]:
    import pyarrow

    for part in in_chunks(parts, dim, _WRITTEN):
        vectors = pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.array(np.ascontiguousarray(part.embeddings, np.float32).ravel()), dim
        )
        sizes = pictures.sizes[part.picture]
        names = [_text(pictures.names[row]) for row in part.picture]
        columns = [
            vectors,
            part.picture.astype(np.int32),
            part.region.astype(np.int32),
            part.quality,
        ]
        columns += [names, pictures.taken[part.picture], sizes.min(axis=1), sizes.max(axis=1)]
        yield pyarrow.record_batch(
            [pyarrow.array(column) for column in columns], schema=_schema(dim)
        )


def _schema(dim: int) -> Any:
    import pyarrow

    kinds = {
        "vector": pyarrow.list_(pyarrow.float32(), dim),
        "picture": pyarrow.int32(),
        "region": pyarrow.int32(),
        "quality": pyarrow.float32(),
        "name": pyarrow.string(),
        "taken": pyarrow.float64(),
        "shorter": pyarrow.int32(),
        "longer": pyarrow.int32(),
    }
    return pyarrow.schema(list(kinds.items()))


def _connect(folder: Path) -> Any:
    os.environ.setdefault("LANCEDB_LOG", "error")  # else it warns of every table that is new
    try:
        import lancedb
    except ImportError:
        raise Unsupported(
            "this index is, or shall be, kept in LanceDB: pip install 'segclip[search]'"
        ) from None
    return lancedb.connect(str(folder / "lance"))
