"""Answer the HTTP API's requests in steps, so that late and disconnected ones end in between."""

from __future__ import annotations

import base64
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import PIL.Image

import segclip

from .. import answers, turns
from ..state import Studio, Work
from . import schema

MOST_MASKS = 1000  # per request, over all its prompts
MOST_MASK_PIXELS = 4_000_000_000  # of those masks, each as large as the image
MOST_LETTERS = 50_000_000  # characters of those masks, encoded

_log = logging.getLogger(__name__)


def segment(studio: Studio, work: Work, query: schema.SegmentRequest) -> schema.SegmentResponse:
    """Answer every prompt. Raises the library's errors, and BadPrompt for too many masks."""
    budget = MaskBudget(work.image.size)
    found = []
    for prompt in query.prompts:
        turns.step()
        found.append(_answer(studio, work, prompt, query.masks, budget))
    return schema.SegmentResponse(size=work.image.size, answers=found)


def classify(studio: Studio, work: Work, query: schema.ClassifyRequest) -> schema.ClassifyResponse:
    """Rank labels for the image, or for each box."""
    boxes = segclip.Boxes(query.boxes) if query.boxes else None
    with studio.models.encoding(work.words) as segmenter, studio.models.embedding(work.words):
        rows = segclip.classify(
            work.image, query.labels, encoder=segmenter.encoder, boxes=boxes, top_k=query.top_k
        )
    guesses = [
        [
            schema.GuessResponse(label=g.label, probability=g.probability, similarity=g.similarity)
            for g in row
        ]
        for row in rows
    ]
    return schema.ClassifyResponse(answers=guesses)


def search(
    studio: Studio, example: segclip.Image | None, query: schema.SearchRequest
) -> list[schema.SearchMatch]:
    """Search the index of the server's folder. Raises BadPrompt; index errors are only logged."""
    if not query.text.strip() and example is None:
        raise segclip.BadPrompt("neither a text nor an image was given; give at least one")
    try:
        index = studio.index()
    except segclip.SegclipError as problem:
        _log.warning("the index cannot be opened: %s", problem)
        raise segclip.BadPrompt(
            "this server has no index to search; its Search page makes one"
        ) from None
    if query.regions and not index.identity.regions:
        raise segclip.BadPrompt("this server's index holds no regions; leave regions out")
    found = segclip.find_matches(
        index,
        query.text,
        query.n,
        image=example,
        negatives=query.negatives,
        regions=query.regions,
    )
    return [
        schema.SearchMatch(
            name=m.name, similarity=m.similarity, probability=m.probability, box=m.box, size=m.size
        )
        for m in found
    ]


@dataclass
class MaskBudget:
    """Counts of a request's masks and their characters. size: of the image, (H, W)."""

    size: tuple[int, int]
    masks: int = 0
    letters: int = 0

    def enter(self, mask: Any) -> None:
        """Count the characters of an encoded mask. Raises BadPrompt over the limit."""
        self.letters += len(mask) if isinstance(mask, str) else len(json.dumps(mask))
        if self.letters > MOST_LETTERS:
            raise segclip.BadPrompt(
                f"the masks take more than {MOST_LETTERS // 1_000_000} MB; reduce them with top_k "
                "or a threshold"
            )

    def expect(self, count: int) -> None:
        """Count masks before encoding them. Raises BadPrompt over the limit."""
        self.masks += count
        most = min(MOST_MASKS, max(1, MOST_MASK_PIXELS // (self.size[0] * self.size[1])))
        if self.masks > most:
            raise segclip.BadPrompt(
                f"the answer has more than {most} masks, the limit of a request for an image of "
                "this size; reduce them with top_k, a threshold or fewer prompts"
            )


def _answer(
    studio: Studio, work: Work, prompt: schema.Prompt, masks: str, budget: MaskBudget
) -> schema.AnswerResponse:
    result = _result(studio, work, prompt)
    budget.expect(len(result))
    rows = []
    for number in range(len(result)):
        turns.check()
        single = result[[number]]
        (row,) = segclip.to_record(single)["rows"]
        rle = row.pop("rle")
        mask: Any = rle if masks == "rle" else _png(single) if masks == "png" else _polygons(single)
        budget.enter(mask)
        rows.append(schema.MaskResponse(**row, mask=mask))
    unanswered, reasons = list(result.unanswered), list(result.reasons)
    return schema.AnswerResponse(
        rows=rows, unanswered=unanswered, reasons=reasons, threshold=result.threshold
    )


def _result(studio: Studio, work: Work, prompt: schema.Prompt) -> segclip.Result:
    points = [(click.x, click.y) for click in prompt.points]
    labels = [click.label for click in prompt.points]
    selection = segclip.Selection(prompt.threshold, prompt.top_k, prompt.best)
    searching = bool(prompt.texts or prompt.everything)
    question = segclip.Question(
        prompt.texts,
        segclip.place(points, labels, prompt.boxes, searching=searching),
        everything=prompt.everything,
        negatives=prompt.negatives if prompt.texts else (),
        selection=selection,
    )
    question.place.check(work.image.size)
    result = answers.answer_question(studio.models, work, question)
    return result[: prompt.top_k or 1] if "point" in result.asked and not prompt.texts else result


def _png(single: segclip.Result) -> str:
    file = io.BytesIO()
    mask = single.masks.full(0).astype(np.uint8) * np.uint8(255)
    PIL.Image.fromarray(mask).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def _polygons(single: segclip.Result) -> Any:
    """Return the row's GeoJSON geometry, in pixels of the image."""
    with TemporaryDirectory() as folder:
        (path,) = segclip.save(single, Path(folder) / "masks.geojson")
        (feature,) = json.loads(path.read_text("utf-8"))["features"]
    return feature["geometry"]
