"""Vector store in LanceDB: on disk, with filters, and an approximate index for large tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadIndex, Unsupported, one_line
from ..types import Array
from .store import Filter, ImageTable, Vectors, in_chunks

INDEXED_FROM = 20_000  # vectors; below, exhaustive search is fast enough and exact
CELL = 1000  # vectors per cell of the index, on average
_ITERATIONS, _SAMPLED = 20, 64  # of k-means, and the vectors it samples per cell
_PROBED = 0.02  # fraction of the cells to probe
_LEAST_PROBED = 20
_WRITTEN = 65_536  # vectors per batch
# what lancedb raises for damaged files
_DAMAGE = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
_REFINE = 5  # refine factor: 5 times the requested rows are compared by their full vectors


def installed() -> bool:
    """Return whether LanceDB is installed."""
    from importlib.util import find_spec

    return find_spec("lancedb") is not None


def write(folder: Path, kind: str, parts: Iterable[Vectors], images: ImageTable, dim: int) -> int:
    """Write a table, index it if it is large, and return its length."""
    table = _connect(folder).create_table(kind, schema=_schema(dim), mode="overwrite")
    # one by one: LanceDB would read an iterator in another thread
    for batch in _batches(parts, images, dim):
        table.add(batch)
    length: int = table.count_rows()
    if length >= INDEXED_FROM:
        _index(table, length)
    return length


def _index(table: Any, length: int) -> None:
    """Build an IVF index, 8-bit scalar quantised; HNSW took about ten times as long to build."""
    from lancedb.index import IvfSq

    cells = IvfSq(
        distance_type="cosine",
        num_partitions=length // CELL,
        max_iterations=_ITERATIONS,
        sample_rate=_SAMPLED,
    )
    table.create_index("vector", config=cells)


class Lance:
    """One table in LanceDB."""

    def __init__(self, folder: Path, kind: str, images: ImageTable, *, length: int) -> None:
        """Open a table of ``length`` rows. Raises ValueError for one that is damaged."""
        self._folder, self._images = folder, len(images)
        try:
            self._table = _connect(folder).open_table(kind)
            self._length: int = self._table.count_rows()
        except _DAMAGE as error:
            raise ValueError(f"LanceDB cannot open its {kind}: {one_line(error)}") from None
        if self._length != length:
            raise ValueError(f"LanceDB finds {self._length} of its {length} {kind}")

    def __len__(self) -> int:
        return self._length

    def nearest(self, query: Array, count: int, where: Filter = Filter()) -> Vectors:
        """Return the nearest vectors, approximately if the table is indexed."""
        search = self._table.search(query.astype(np.float32)).distance_type("cosine").limit(count)
        search = search.select(["vector", "picture", "region", "quality", "_distance"])
        if self._length >= INDEXED_FROM:
            cells = self._length // CELL
            few = min(cells, max(_LEAST_PROBED, round(cells * _PROBED)))
            probed = few if where == Filter() else cells  # filtered rows may be in any cell
            search = search.nprobes(probed).refine_factor(_REFINE)
        if clause := _clause(where):
            search = search.where(clause, prefilter=True)
        try:
            found = _vectors(search.to_arrow(), len(query), query)
        except _DAMAGE as error:
            raise BadIndex(
                f"{self._folder} cannot be searched: {one_line(error)}; run segclip index again"
            ) from None
        if len(found) and not 0 <= found.image.min() <= found.image.max() < self._images:
            raise BadIndex(
                f"{self._folder} is damaged, its rows point outside; run segclip index again"
            )
        return found


def _vectors(found: Any, dim: int, query: Array) -> Vectors:
    """Convert Arrow rows to Vectors, ties in storage order as in Exact."""
    if not len(found):
        return Vectors.none(dim)
    flat = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    embeddings = flat.reshape(-1, dim).astype(np.float32)
    columns = [found[name].to_numpy() for name in ("picture", "region", "quality")]
    order = np.lexsort((columns[1], columns[0], -(embeddings @ query.astype(np.float32))))
    return Vectors(embeddings, *columns)[order]


def _clause(where: Filter) -> str:
    """Translate a filter to SQL."""
    start, end = where.span
    conditions = []
    if where.within:
        quoted = _text(where.within).replace("'", "''")
        conditions.append("false" if "\0" in quoted else f"starts_with(name, '{quoted}')")
    conditions += [f"taken >= {start}"] if np.isfinite(start) else []
    conditions += [f"taken < {end}"] if np.isfinite(end) else []
    least, most = where.sides
    conditions += [f"shorter >= {least}"] if where.min_side else []
    conditions += [f"longer <= {most}"] if where.max_side else []
    return " AND ".join(conditions)


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()  # names may contain invalid UTF-8


def _batches(parts: Iterable[Vectors], images: ImageTable, dim: int) -> Iterator[Any]:
    import pyarrow

    for part in in_chunks(parts, dim, _WRITTEN):
        vectors = pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.array(np.ascontiguousarray(part.embeddings, np.float32).ravel()), dim
        )
        sizes = images.sizes[part.image]
        names = [_text(images.names[row]) for row in part.image]
        columns = [vectors, part.image.astype(np.int32), part.region.astype(np.int32)]
        columns += [part.quality, names, images.taken[part.image]]
        columns += [sizes.min(axis=1), sizes.max(axis=1)]
        yield pyarrow.record_batch(
            [pyarrow.array(column) for column in columns], schema=_schema(dim)
        )


def _schema(dim: int) -> Any:
    import pyarrow

    # "picture", the row of an image, is a name of stored indexes
    return pyarrow.schema(
        {
            "vector": pyarrow.list_(pyarrow.float32(), dim),
            "picture": pyarrow.int32(),
            "region": pyarrow.int32(),
            "quality": pyarrow.float32(),
            "name": pyarrow.string(),
            "taken": pyarrow.float64(),
            "shorter": pyarrow.int32(),
            "longer": pyarrow.int32(),
        }
    )


def _connect(folder: Path) -> Any:
    os.environ.setdefault("LANCEDB_LOG", "error")  # else it warns about every new table
    try:
        import lancedb
    except ImportError:
        raise Unsupported("this index needs LanceDB: pip install 'segclip[search]'") from None
    return lancedb.connect(str(folder / "lance"))
