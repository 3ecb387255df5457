"""Embed one picture for an index: all of it, then each region. The same code runs here, in a pool,
and on a cluster.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import images, loading
from ..batch.journal import Outcome
from ..batch.plan import Ask
from ..batch.work import Job, Read, Worker
from ..encoders import Encoder
from ..errors import BadIndex
from ..exporters import records
from ..types import Array, Image, Masks, Proposals, Regions, Result
from .store import Vectors

TOGETHER = 8  # whole pictures
WHOLE = -1  # the region number of a whole image


@dataclass(frozen=True)
class EmbedJob(Job):
    """Say how every picture of an index is embedded: whole, and by its regions where ``regions``
    says so.
    """

    regions: bool = False

    @property
    def together(self) -> int:
        """Give how many whole pictures are embedded in one go: more are faster, and each takes
        memory until then.
        """
        return 1 if self.regions else TOGETHER

    def start(self) -> Embedder:
        """Load what the job needs."""
        return Embedder(self)


class Embedder(Worker):
    """Load the models once and embed one picture after the other."""

    job: EmbedJob

    def load(self) -> None:
        """Load both models, or the encoder alone where whole images are all that is wanted."""
        self.encoder: Encoder
        if self.job.regions:
            super().load()
            self.encoder = self.segmenter.encoder
        else:
            _, encoder, device, _ = self.job.models
            self.encoder = loading.load_encoder(
                str(encoder), device=device, options=self.job.options
            )

    def answer_all(self, given: Sequence[Read]) -> list[tuple[Read, Result | None]]:
        """Embed whole pictures in one go; where that fails, one by one, so that the failure is told
        of its picture.
        """
        seen = [one.image for one in given if one.image is not None]
        if self.job.regions or len(seen) < 2:
            return super().answer_all(given)
        try:
            rows = iter(self._whole(seen))
        except (RuntimeError, MemoryError):
            return super().answer_all(given)
        return [
            (one, self._result(one.image, next(rows)[None]) if one.image is not None else None)
            for one in given
        ]

    def result_of(self, image: Image, ask: Ask) -> Result:
        """Give the whole image as row 0, then its regions that were looked at."""
        return self._result(image, self._whole([image]))

    def _whole(self, seen: Sequence[Image]) -> Array:
        """Embed whole pictures, always as many at a time: the last bits of a product depend on how
        large it is.

        So the index is the same, whatever was done together before a kill and after it.
        """
        filled = [
            seen[min(row, len(seen) - 1)].pixels for row in range(max(self.job.together, len(seen)))
        ]
        return self.encoder.encode_images(filled)[: len(seen)]

    def _result(self, image: Image, whole: Array) -> Result:
        full = Masks.solid(np.array([[0, 0, *image.size[::-1]]]), image.size)
        regions = Regions(image, Proposals(full, np.ones(1)), whole)
        if self.job.regions:
            found = self.segmenter.regions(image)
            found = found[np.flatnonzero(found.embeddings.any(axis=1))]
            proposals = Proposals.join([regions.proposals, found.proposals])
            regions = Regions(image, proposals, np.concatenate([whole, found.embeddings]))
        return Result.unranked(regions)

    def keep(self, given: Read, result: Result) -> Outcome:
        """Describe a picture's embeddings; half precision, which moves a cosine by 0.0001 at
        most.
        """
        packed = result.regions.embeddings.astype(np.float16)
        record = {
            "size": list(result.image.size),
            "taken": images.taken(given.item.path),
            "dim": packed.shape[1],
            "embeddings": base64.b64encode(packed.tobytes()).decode("ascii"),
            "quality": [records.digits(quality) for quality in result.quality],
            "boxes": result.masks.boxes.tolist(),
            "rle": [
                records.encode_rle(result.masks, row)["counts"] for row in range(1, len(result))
            ],
        }
        return Outcome(
            given.item.name, given.content, given.stamp, given.asked, "matched", record=record
        )


def unpack(record: dict[str, Any], picture: int) -> Vectors:
    """Read a record's embeddings: row 0 for the whole image (region -1), then its regions (0 and
    up).
    """
    packed = np.frombuffer(base64.b64decode(record["embeddings"]), np.float16).astype(np.float32)
    embeddings = packed.reshape(-1, record["dim"])
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12)
    region = np.arange(WHOLE, len(embeddings) - 1, dtype=np.int32)
    return Vectors(
        embeddings, np.full_like(region, picture), region, np.array(record["quality"], np.float32)
    )


def mask_of(record: dict[str, Any], region: int) -> Array:
    """Read a region's mask: bool (H, W). Raises BadIndex for run lengths that do not fill the
    image.
    """
    try:
        return records.decode_rle({"size": record["size"], "counts": record["rle"][region]})
    except BadIndex:
        raise BadIndex(
            "the index is damaged, a mask of it is none; make it anew with segclip index --rebuild"
        ) from None
