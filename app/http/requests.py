"""Answer the HTTP API's questions, step by step: who is late or gone ends between two of them."""

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

MOST_MASKS = 1000  # of one request, all its prompts together
MOST_MASK_PIXELS = 4_000_000_000  # of those masks, each as large as the image
MOST_LETTERS = 50_000_000  # of those masks, written

_log = logging.getLogger(__name__)


def segment(studio: Studio, work: Work, ask: schema.SegmentThese) -> schema.Segmented:
    """Answer every prompt. Raises what the library raises, and BadPrompt for more masks than one
    request may have.
    """
    room = _Room(work.image.size)
    found = []
    for prompt in ask.prompts:
        turns.step()
        found.append(_one(studio, work, prompt, ask.masks, room))
    return schema.Segmented(size=work.image.size, answers=found)


def classify(studio: Studio, work: Work, ask: schema.SortThis) -> schema.Sorted:
    """Rank labels for the picture, or for each box."""
    boxes = segclip.Boxes(ask.boxes) if ask.boxes else None
    with studio.models.look(work.words) as segmenter, studio.models.read(work.words):
        rows = segclip.classify(
            work.image, ask.labels, encoder=segmenter.encoder, boxes=boxes, top_k=ask.top_k
        )
    told = [
        [
            schema.Guess(label=g.label, probability=g.probability, similarity=g.similarity)
            for g in row
        ]
        for row in rows
    ]
    return schema.Sorted(answers=told)


def search(
    studio: Studio, example: segclip.Image | None, ask: schema.SearchFor
) -> list[schema.Found]:
    """Search the index of the server's folder. Raises BadPrompt; why there is no index, only the
    log says.
    """
    if not ask.text.strip() and example is None:
        raise segclip.BadPrompt("neither a text nor an image was given; say what to look for")
    try:
        index = studio.index()
    except segclip.SegclipError as problem:
        _log.warning("there is no index to search: %s", problem)
        raise segclip.BadPrompt(
            "this server has no index to search; its Search page makes one"
        ) from None
    if ask.regions and not index.identity.regions:
        raise segclip.BadPrompt("this server's index holds no regions; leave regions out")
    found = segclip.find_matches(
        index, ask.text, ask.n, image=example, negatives=ask.negatives, regions=ask.regions
    )
    return [
        schema.Found(
            name=m.name, similarity=m.similarity, probability=m.probability, box=m.box, size=m.size
        )
        for m in found
    ]


@dataclass
class _Room:
    """Count the masks of one request, and what they take. size: of the image, (H, W)."""

    size: tuple[int, int]
    masks: int = 0
    letters: int = 0

    def enter(self, mask: Any) -> None:
        """Count a mask as it is written. Raises BadPrompt when there is no room for it."""
        self.letters += len(mask) if isinstance(mask, str) else len(json.dumps(mask))
        if self.letters > MOST_LETTERS:
            raise segclip.BadPrompt(
                f"the masks take over {MOST_LETTERS // 1_000_000} MB; ask for fewer: give top_k or "
                "a threshold"
            )

    def expect(self, count: int) -> None:
        """Count masks to come. Raises BadPrompt when there is no room for them."""
        self.masks += count
        most = min(MOST_MASKS, max(1, MOST_MASK_PIXELS // (self.size[0] * self.size[1])))
        if self.masks > most:
            raise segclip.BadPrompt(
                f"the answer holds more than {most} masks, all that one request may have of an "
                "image of this size; "
                "ask for fewer: give top_k or a threshold, or fewer prompts"
            )


def _one(
    studio: Studio, work: Work, prompt: schema.Prompt, masks: str, room: _Room
) -> schema.Answer:
    result = _result(studio, work, prompt)
    room.expect(len(result))
    rows = []
    for number in range(len(result)):
        turns.check()
        single = result[[number]]
        (row,) = segclip.to_record(single)["rows"]
        rle = row.pop("rle")
        mask: Any = rle if masks == "rle" else _png(single) if masks == "png" else _polygons(single)
        room.enter(mask)
        rows.append(schema.Row(**row, mask=mask))
    unanswered, reasons = list(result.unanswered), list(result.reasons)
    return schema.Answer(
        rows=rows, unanswered=unanswered, reasons=reasons, threshold=result.threshold
    )


def _result(studio: Studio, work: Work, prompt: schema.Prompt) -> segclip.Result:
    places = [(click.x, click.y) for click in prompt.points]
    labels = [click.label for click in prompt.points]
    selection = segclip.Selection(prompt.threshold, prompt.top_k, prompt.best)
    searching = bool(prompt.texts or prompt.everything)
    question = segclip.Question(
        prompt.texts,
        segclip.place(places, labels, prompt.boxes, searching=searching),
        everything=prompt.everything,
        negatives=prompt.negatives if prompt.texts else (),
        selection=selection,
    )
    question.place.check(work.image.size)
    result = answers.ask(studio.models, work, question)
    return result[: prompt.top_k or 1] if "point" in result.asked and not prompt.texts else result


def _png(single: segclip.Result) -> str:
    file = io.BytesIO()
    mask = single.masks.full(0).astype(np.uint8) * np.uint8(255)
    PIL.Image.fromarray(mask).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def _polygons(single: segclip.Result) -> Any:
    """Return the row's GeoJSON geometry, in pixels of the picture."""
    with TemporaryDirectory() as folder:
        (path,) = segclip.save(single, Path(folder) / "masks.geojson")
        (feature,) = json.loads(path.read_text("utf-8"))["features"]
    return feature["geometry"]
