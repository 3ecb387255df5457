"""Measure how well an expression's objects are found: RefCOCO, gRefCOCO, PhraseCut, SA-Co."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from .. import __version__, question
from ..errors import BadTable
from ..files import regular
from ..files.coco import Thing
from ..files.referring import ONE, PHRASE, Expression, ReferredImage, ReferringSet
from ..ranking.selection import Selection
from ..segmenter import Segmenter
from ..types import Array, Masks, Regions, Result
from .datasets import OnProgress, load_listed, reporting, silent
from .expressions import ExpressionOutcome, ReferringReport, assign
from .journal import OutcomeJournal

_VERSION = 1  # of what is measured; outcomes of another version are measured again


def fingerprint(data: ReferringSet, models: object, selection: Selection) -> str:
    """Return the digest of all that outcomes depend on but the images: 16 hexadecimal digits.

    models: what ``ModelSpec.fingerprint`` returns. Raises BadTable.
    """
    try:
        files = [regular.digest(path) for path in data.files]
    except OSError as error:
        raise BadTable(f"{data.files[0]} cannot be read again: {error}") from None
    settings = repr((_VERSION, __version__, data.kind, files, models, selection))
    return sha256(settings.encode()).hexdigest()[:16]


def selection_of(data: ReferringSet, threshold: float | None) -> Selection:
    """Return how answers are chosen: the best for single objects, else all at the threshold."""
    return Selection(best=True) if data.kind == ONE else Selection(threshold)


def remaining(data: ReferringSet, journal: OutcomeJournal | None) -> list[ReferredImage]:
    """Return the images that have an expression without an outcome."""
    known = journal.outcomes if journal else {}
    return [
        image
        for image in data.images
        if any(expression.key not in known for expression in image.expressions)
    ]


def evaluate_referring(
    segmenter: Segmenter,
    data: ReferringSet,
    folder: Path,
    *,
    selection: Selection,
    journal: OutcomeJournal | None = None,
    report: OnProgress = silent,
) -> ReferringReport:
    """Answer every expression of the images in a folder; regions are embedded once per image.

    journal: outcomes that it has are not measured again, new ones are added. report: counts the
    images that remain. Raises BadImage, and BadTable for an image of another size than its table's.
    """
    outcomes = dict(journal.outcomes) if journal else {}
    for image in reporting(remaining(data, journal), report):
        found = _measure(segmenter, image, folder, data.kind, selection)
        outcomes |= {outcome.key: outcome for outcome in found}
        if journal:
            journal.add(found)
    keys = [expression.key for image in data.images for expression in image.expressions]
    return ReferringReport(data.kind, tuple(outcomes[key] for key in keys))


def _measure(
    segmenter: Segmenter, image: ReferredImage, folder: Path, kind: str, selection: Selection
) -> list[ExpressionOutcome]:
    regions = segmenter.regions(load_listed(folder / image.name, image.size))
    texts = {each.key: question.shorten(each.text) for each in image.expressions}
    wanted = list(dict.fromkeys(text for text in texts.values() if text))
    result = segmenter.rank(regions, wanted, selection=selection) if wanted else None
    targets = _Targets(regions, image.size)
    outcomes = []
    for expression in image.expressions:
        rows = _rows(result, texts[expression.key])
        answers = result.masks[rows] if result else Masks.empty(image.size)
        outcomes.append(targets.compare(expression, answers, kind))
    return outcomes


def _rows(result: Result | None, text: str) -> list[int]:
    return [row for row, other in enumerate(result.texts) if other == text] if result else []


class _Targets:
    """The objects that an image's expressions mean, each rasterised once."""

    def __init__(self, regions: Regions, size: tuple[int, int]) -> None:
        self.regions, self.size = regions, size
        self.known: dict[tuple[int, ...], tuple[Masks, Array, float]] = {}

    def compare(self, expression: Expression, answers: Masks, kind: str) -> ExpressionOutcome:
        """Compare the answers with the objects that an expression means. Raises BadTable."""
        masks, truth, best = self._of(expression.things, kind)
        found = _union(answers)
        shared, iou = int((truth & found).sum()), answers.iou(masks)
        matched = iou[assign(iou)] if kind == PHRASE else np.zeros(0)
        return ExpressionOutcome(
            expression.key,
            targets=len(masks),
            answers=len(answers),
            intersection=shared,
            union=int(truth.sum() + found.sum()) - shared,
            matched=tuple(map(float, matched)),
            best=best,
            chosen=kind == ONE and 0 < best <= float(iou.max(initial=0)) + 1e-9,
        )

    def _of(self, things: Sequence[Thing], kind: str) -> tuple[Masks, Array, float]:
        """Return objects' masks, their union, bool (H, W), and a single one's best IoU."""
        key = tuple(map(id, things))
        if key not in self.known:
            masks = Masks.from_windows([thing.window(self.size) for thing in things], self.size)
            best = self.regions.masks.iou(masks).max(initial=0) if kind == ONE else 0.0
            self.known[key] = masks, _union(masks), float(best)
        return self.known[key]


def _union(masks: Masks) -> Array:
    height, width = masks.size
    return masks.union(np.array([0, 0, width, height]))
