"""Answer the HTTP API's questions."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import PIL.Image

import segclip

from . import answers, schema
from .state import Studio, Work


def segment(studio: Studio, work: Work, ask: schema.SegmentThese) -> schema.Segmented:
    """Answer every prompt. Raises what the library raises."""
    told = [_one(studio, work, prompt, ask.masks) for prompt in ask.prompts]
    return schema.Segmented(size=work.image.size, answers=told)


def classify(studio: Studio, work: Work, ask: schema.SortThis) -> schema.Sorted:
    """Rank labels for the picture, or for each box."""
    boxes = segclip.Boxes(ask.boxes) if ask.boxes else None
    with studio.models.look(work.words) as segmenter, studio.models.read(work.words):
        rows = segclip.classify(work.image, ask.labels, encoder=segmenter.encoder, boxes=boxes, top_k=ask.top_k)
    told = [
        [schema.Guess(label=g.label, probability=g.probability, similarity=g.similarity) for g in row] for row in rows
    ]
    return schema.Sorted(answers=told)


def search(studio: Studio, example: segclip.Image | None, ask: schema.SearchFor) -> list[schema.Found]:
    """Search the index of the server's folder."""
    found = segclip.find_matches(
        studio.index(), ask.text, ask.n, image=example, negatives=ask.negatives, regions=ask.regions
    )
    return [
        schema.Found(name=m.name, similarity=m.similarity, probability=m.probability, box=m.box, size=m.size)
        for m in found
    ]


def _one(studio: Studio, work: Work, prompt: schema.Prompt, masks: str) -> schema.Answer:
    result = _result(studio, work, prompt)
    record = segclip.to_record(result)
    polygons = _polygons(result) if masks == "polygon" else []
    rows = []
    for number, row in enumerate(record["rows"]):
        rle = row.pop("rle")
        mask: Any = rle if masks == "rle" else _png(result, number) if masks == "png" else polygons[number]
        rows.append(schema.Row(**row, mask=mask))
    unanswered, reasons = list(result.unanswered), list(result.reasons)
    return schema.Answer(rows=rows, unanswered=unanswered, reasons=reasons, threshold=result.threshold)


def _result(studio: Studio, work: Work, prompt: schema.Prompt) -> segclip.Result:
    places = [(click.x, click.y) for click in prompt.points]
    labels = [click.label for click in prompt.points]
    selection = segclip.Selection(prompt.threshold, prompt.top_k, prompt.best)
    where: segclip.Everything | segclip.Points | segclip.Boxes = segclip.Everything(
        prompt.boxes or None, places or None
    )
    if prompt.everything and (prompt.texts or any(labels)):
        raise segclip.BadPrompt("everything takes neither texts nor a click on an object; leave those out")
    if places and (any(labels) or not (prompt.texts or prompt.everything)):
        where = segclip.Points(places, labels, box=prompt.boxes or None)
    elif prompt.boxes and not (prompt.texts or prompt.everything):
        where = segclip.Boxes(prompt.boxes)
    where.check(work.image.size)
    if isinstance(where, segclip.Everything) and prompt.everything:
        with studio.models.look(work.words) as segmenter:
            encoded = answers.encode(segmenter, work.known, work.words)
            return segmenter.everything(encoded, where, selection=selection)
    if not prompt.texts:
        result = answers.pick(studio.models, work, where)
        return result if "point" not in result.asked else result[: prompt.top_k or 1]
    if prompt.boxes or places:
        with studio.models.look(work.words) as segmenter:
            regions = segmenter.regions(answers.encode(segmenter, work.known, work.words), where)
    else:
        regions = answers.find_regions(studio.models, work)
    with studio.models.read(work.words) as segmenter:
        return segmenter.rank(regions, prompt.texts, negatives=prompt.negatives, selection=selection)


def _png(result: segclip.Result, row: int) -> str:
    file = io.BytesIO()
    PIL.Image.fromarray(result.masks.full(row).astype(np.uint8) * np.uint8(255)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _polygons(result: segclip.Result) -> list[Any]:
    """Give each row's GeoJSON geometry, in pixels of the picture."""
    with TemporaryDirectory() as folder:
        (path,) = segclip.save(result, Path(folder) / "masks.geojson")
        features = json.loads(path.read_text("utf-8"))["features"]
    return [feature["geometry"] for feature in features]
