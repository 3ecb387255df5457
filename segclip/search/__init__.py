"""Search a folder of pictures by text or picture, down to the segment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from .. import images, loading
from ..encoders import Encoder
from ..errors import BadIndex, BadPrompt
from ..types import Masks
from . import rows, snapshot
from .build import INSIDE, Indexed, IndexOptions, make_index
from .embedding import WHOLE, mask_of
from .identity import check_named, check_weights, read_identity
from .query import Embedded, Query, embed, rank
from .rows import Rows
from .store import Filter, Pictures, Table, Vectors

__all__ = [
    "Filter",
    "Index",
    "IndexOptions",
    "Indexed",
    "Match",
    "Query",
    "find_matches",
    "make_index",
]

_MARGIN = 64  # candidates looked at beside ten for each match asked for: several lie in one picture


@dataclass(frozen=True)
class Match:
    """Hold one picture that was found.

    name: inside the indexed folder. similarity: cosine with the query. probability: of the text
    against negatives and backgrounds, of this picture or region alone; see ``query.rank``. region:
    its number, None for the whole image. box: of the region, xyxy half-open, None for the whole
    image. size: of the picture, (H, W). taken: when.
    """

    path: Path
    name: str
    similarity: float
    probability: float
    region: int | None
    box: tuple[int, int, int, int] | None
    size: tuple[int, int]
    taken: datetime


class Index:
    """Open an index and search it; its encoder is loaded when first needed. Open it anew after
    indexing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        encoder: str | None = None,
        device: str = "auto",
        load: loading.LoadOptions = loading.LoadOptions(),
    ) -> None:
        """Open the index at ``path``, or that inside the folder of pictures ``path``.

        encoder: the one the index was made with, its weights the same; to be named where the index
        names it by where it lies. Raises BadPrompt where there is no index, and BadIndex for one
        that is damaged.
        """
        given = Path(path)
        inside = (given / INSIDE).is_dir()
        self.path = given / INSIDE if inside else given
        self.identity = read_identity(self.path)
        source = (
            "" if inside else self.identity.source
        )  # an index that moves with its folder is of that folder
        self.folder = Path(source) if source else self.path.parent
        self.pictures: Pictures
        self.tables: dict[str, Table]
        self.pictures, self.tables = snapshot.tables(self.path)
        self._models = encoder, device, load
        self._encoder: Encoder | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def encoder(self) -> Encoder:
        """Return the encoder, loaded when first needed. Raises BadPrompt when its weights are not
        the index's.

        What the index names is loaded only where segclip knows it: a path or a repository may be a
        stranger's.
        """
        if self._encoder is None:
            given, device, load = self._models
            if given is None:
                check_named(self.path, "--encoder", self.identity.encoder)
            name = given or self.identity.encoder
            check_weights(
                self.path, self.identity, name, loading.encoder_fingerprint(name, options=load)
            )
            self._encoder = loading.load_encoder(name, device=device, options=load)
        return self._encoder

    def search(
        self,
        query: Query | str,
        *,
        n: int = 9,
        regions: bool = False,
        where: Filter = Filter(),
        by: str | None = None,
    ) -> tuple[Match, ...]:
        """Find the ``n`` best pictures, best first, each once: by all of it, or by its best region.

        by: see ``query.rank``; None orders regions by probability, whole images and what an example
        is asked for by similarity. Raises BadPrompt.
        """
        if n < 1:
            raise BadPrompt(f"n must be 1 or more, got {n}")
        if regions and not self.identity.regions:
            raise BadPrompt(
                f"the index at {self.path} holds no regions; to add them: "
                f"{self.identity.command(self.path)} --regions"
            )
        table = self.tables["regions" if regions else "images"]
        question = Query(query) if isinstance(query, str) else query
        asked = embed(self.encoder, question)
        order = by or ("probability" if regions and question.image is None else "similarity")
        found = self._distinct(table, asked, where, n, order)
        with closing(self._journal()) as journal:
            return tuple(self._match(journal, *row) for row in found)

    def masks(self, match: Match) -> Masks:
        """Give the mask of what was found: one, of the region; none for a whole image."""
        if match.region is None:
            return Masks.empty(match.size)
        with closing(self._journal()) as journal:
            return Masks.from_dense(
                mask_of(self._record(journal, match.name, match.region), match.region)[None]
            )

    def _distinct(
        self, table: Table, asked: Embedded, where: Filter, n: int, by: str
    ) -> list[tuple[Vectors, float, float]]:
        """Look at more and more candidates until ``n`` pictures are found; no more than there
        are.
        """
        count = 10 * n + _MARGIN
        while True:
            near = (
                table.nearest(asked.vector, min(count, len(table)), where) if len(table) else None
            )
            if near is None:
                return []
            vectors, similarity, probability = rank(asked, near, by=by)
            _, first = np.unique(vectors.picture, return_index=True)
            rows = np.sort(first)[:n]
            if len(rows) == n or len(near) < count:
                return [
                    (vectors[np.array([row])], float(similarity[row]), float(probability[row]))
                    for row in rows
                ]
            count *= 8

    def _match(
        self, journal: Rows, vectors: Vectors, similarity: float, probability: float
    ) -> Match:
        picture, region = int(vectors.picture[0]), int(vectors.region[0])
        name = self.pictures.names[picture]
        height, width = (int(side) for side in self.pictures.sizes[picture])
        taken = _day(float(self.pictures.taken[picture]))
        number, box = None, None
        if region != WHOLE:
            x1, y1, x2, y2 = self._record(journal, name, region)["boxes"][region + 1]
            number, box = region, (x1, y1, x2, y2)
        return Match(
            self.folder / name, name, similarity, probability, number, box, (height, width), taken
        )

    def _journal(self) -> Rows:
        path = self.path / rows.NAME
        if not path.is_file() or rows.links(self.path):
            raise BadIndex(
                f"the index at {self.path} is damaged, its journal is gone or a link; "
                f"{snapshot.MEND}"
            )
        return Rows(path, self.folder, fixed=not os.access(path.parent, os.W_OK))

    def _record(self, journal: Rows, name: str, region: int) -> dict[str, Any]:
        outcome = journal.get(name)
        if outcome is None or len(outcome.record.get("rle", ())) <= region:
            raise BadIndex(f"the index at {self.path} is damaged or being changed; {snapshot.MEND}")
        return outcome.record


def _day(seconds: float) -> datetime:
    """Return a time, in s since 1970, within what a calendar holds: a file's may be any number."""
    span = 2.0**35  # s: about a thousand years
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=max(-span, min(seconds, span)))


def find_matches(
    index: Index | str | Path,
    text: str = "",
    n: int = 9,
    *,
    image: images.Source | None = None,
    negatives: str | Sequence[str] = (),
    regions: bool | None = None,
) -> tuple[Match, ...]:
    """Find the ``n`` pictures of an index that a text names, an image looks like, or both; best
    first.

    index: one that is open, or its path, or the folder it is of. regions: look at segments, None
    for where there are any. negatives: what answers one of these texts better is left out. Raises
    BadPrompt.
    """
    opened = index if isinstance(index, Index) else Index(index)
    ruled_out = (negatives,) if isinstance(negatives, str) else tuple(negatives)
    deep = opened.identity.regions if regions is None else regions
    return opened.search(Query(text, image, ruled_out), n=n, regions=deep)
