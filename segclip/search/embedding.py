"""Embed an image and its regions for an index, in this process, in a pool or on a cluster."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import images
from ..batch.journal import Outcome
from ..batch.plan import Ask
from ..batch.work import Job, Read, Worker
from ..encoders import Encoder
from ..errors import BadIndex
from ..exporters import records
from ..types import Array, Image, Masks, Proposals, Regions, Result
from .store import Vectors

TOGETHER = 8  # whole images per batch
WHOLE = -1  # the region number of a whole image


@dataclass(frozen=True)
class EmbedJob(Job):
    """How every image of an index is embedded: whole, and with ``regions`` each region too."""

    regions: bool = False

    @property
    def together(self) -> int:
        """Return how many whole images form a batch: more are faster, but take more memory."""
        return 1 if self.regions else TOGETHER

    def start(self) -> Embedder:
        """Load the models the job needs."""
        return Embedder(self)


class Embedder(Worker):
    """Load the models once and embed one image after the other."""

    job: EmbedJob

    def load(self) -> None:
        """Load both models, or only the encoder if no regions are embedded."""
        self.encoder: Encoder
        if self.job.regions:
            super().load()
            self.encoder = self.segmenter.encoder
        else:
            self.encoder = self.job.models.open_encoder()

    def answer_all(self, given: Sequence[Read]) -> list[tuple[Read, Result | None]]:
        """Embed whole images in one batch; if it fails, one by one, to find the failing image."""
        decoded = [one.image for one in given if one.image is not None]
        if self.job.regions or len(decoded) < 2:
            return super().answer_all(given)
        try:
            rows = iter(self._embed_whole(decoded))
        except (RuntimeError, MemoryError):
            return super().answer_all(given)
        return [
            (one, self._result(one.image, next(rows)[None]) if one.image is not None else None)
            for one in given
        ]

    def result_of(self, image: Image, ask: Ask) -> Result:
        """Return the whole image as row 0, then its regions that were embedded."""
        return self._result(image, self._embed_whole([image]))

    def _embed_whole(self, decoded: Sequence[Image]) -> Array:
        """Embed whole images in padded batches of constant size.

        The last bits of a matrix product depend on its size; so the index does not depend on how
        images were batched before and after a kill.
        """
        size = max(self.job.together, len(decoded))
        padded = [decoded[min(row, len(decoded) - 1)].pixels for row in range(size)]
        return self.encoder.encode_images(padded)[: len(decoded)]

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
        """Pack an image's embeddings in half precision; it moves a cosine by at most 0.0001."""
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
            given.item.name, given.content, given.stamp, given.digest, "matched", record=record
        )


def unpack(record: dict[str, Any], image: int) -> Vectors:
    """Decode a record's embeddings: row 0 the whole image (region -1), then regions 0 and up."""
    packed = np.frombuffer(base64.b64decode(record["embeddings"]), np.float16).astype(np.float32)
    embeddings = packed.reshape(-1, record["dim"])
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12)
    region = np.arange(WHOLE, len(embeddings) - 1, dtype=np.int32)
    return Vectors(
        embeddings, np.full_like(region, image), region, np.array(record["quality"], np.float32)
    )


def mask_of(record: dict[str, Any], region: int) -> Array:
    """Decode a region's mask: bool (H, W). Raises BadIndex if it does not fill the image."""
    try:
        return records.decode_rle({"size": record["size"], "counts": record["rle"][region]})
    except BadIndex:
        raise BadIndex(
            "the index is damaged, a mask is invalid; rebuild it with segclip index --rebuild"
        ) from None
