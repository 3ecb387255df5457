"""Search a folder of images by text or example image, down to single regions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
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
from .store import Filter, ImageTable, Vectors, VectorTable

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

_MARGIN = 64  # extra candidates, besides 10 per requested match: several may lie in one image


@dataclass(frozen=True)
class Match:
    """One image that was found.

    name: inside the indexed folder. similarity: cosine with the query. probability: of the text
    against negatives and backgrounds, for this image or region alone; see ``query.rank``. region:
    its number, None for the whole image. box: of the region, xyxy half-open, None for the whole
    image. size: of the image, (H, W). taken: its time.
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
    """An open index; its encoder is loaded on first use. Reopen it after indexing."""

    def __init__(
        self,
        path: str | Path,
        *,
        encoder: str | None = None,
        device: str = "auto",
        offline: bool = False,
        trust: bool = False,
    ) -> None:
        """Open the index at ``path``, or the one inside the folder of images ``path``.

        encoder: the one the index was built with, of the same weights; required if the index
        stores it as a path or repository. Raises BadPrompt if there is no index, and BadIndex if
        it is damaged.
        """
        location = Path(path)
        inside = (location / INSIDE).is_dir()
        self.path = location / INSIDE if inside else location
        self.identity = read_identity(self.path)
        # an index inside its folder may have been moved along with it
        source = "" if inside else self.identity.source
        self.folder = Path(source) if source else self.path.parent
        self.images: ImageTable
        self.tables: dict[str, VectorTable]
        self.images, self.tables = snapshot.tables(self.path)
        self._models = loading.ModelSpec(
            encoder=encoder, device=device, offline=offline, trust=trust
        )
        self._encoder: Encoder | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded on first use. Raises BadPrompt for weights other than the index's.

        An encoder named by the index alone is loaded only by a name segclip knows: a path or
        repository may be a stranger's.
        """
        if self._encoder is None:
            if self._models.encoder is None:
                check_named(self.path, "--encoder", self.identity.encoder)
            name = self._models.encoder or self.identity.encoder
            models = replace(self._models, encoder=name)
            check_weights(self.path, self.identity, name, models.encoder_fingerprint())
            self._encoder = models.open_encoder()
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
        """Find the ``n`` best images, best first, each once: by the whole image or its best region.

        by: see ``query.rank``; None orders regions by probability, but whole images, and all
        matches of an example image, by similarity. Raises BadPrompt.
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
        embedded = embed(self.encoder, question)
        order = by or ("probability" if regions and question.image is None else "similarity")
        found = self._distinct(table, embedded, where, n, order)
        with closing(self._journal()) as journal:
            return tuple(self._match(journal, *row) for row in found)

    def masks(self, match: Match) -> Masks:
        """Return the mask of a match's region; no mask for a whole image."""
        if match.region is None:
            return Masks.empty(match.size)
        with closing(self._journal()) as journal:
            return Masks.from_dense(
                mask_of(self._record(journal, match.name, match.region), match.region)[None]
            )

    def _distinct(
        self, table: VectorTable, query: Embedded, where: Filter, n: int, by: str
    ) -> list[tuple[Vectors, float, float]]:
        """Rank ever more candidates until ``n`` images are found, or all are ranked."""
        count = 10 * n + _MARGIN
        while True:
            near = (
                table.nearest(query.vector, min(count, len(table)), where) if len(table) else None
            )
            if near is None:
                return []
            vectors, similarity, probability = rank(query, near, by=by)
            _, first = np.unique(vectors.image, return_index=True)
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
        image, region = int(vectors.image[0]), int(vectors.region[0])
        name = self.images.names[image]
        height, width = (int(side) for side in self.images.sizes[image])
        taken = _day(float(self.images.taken[image]))
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
    """Convert s since 1970 to a datetime, clamped to its range: a file's time may be any number."""
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
    """Find the ``n`` images of an index that best match a text, an example image, or both.

    index: an open index, its path, or the folder it indexes. regions: search regions; None does so
    for a text if the index has any, while an image alone is compared with whole images. negatives:
    matches that fit one of these texts better are left out. Best first. Raises BadPrompt.
    """
    opened = index if isinstance(index, Index) else Index(index)
    ruled_out = (negatives,) if isinstance(negatives, str) else tuple(negatives)
    deep = opened.identity.regions and bool(text.strip()) if regions is None else regions
    return opened.search(Query(text, image, ruled_out), n=n, regions=deep)
