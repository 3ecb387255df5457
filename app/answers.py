"""Answer a question about a picture: only what is not known yet is worked out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Thread
from time import perf_counter
from typing import TypeVar

import numpy as np

import segclip

from . import turns
from .models import Models, quickly
from .state import Known, Point, Question, Work

MOST_SHOWN = 250  # rows the browser draws: one byte numbers them
MISSES = 3  # of each text without an answer
MOST_KEPT = 4  # models whose view of a picture is kept
_NEAR = 0.2  # share of the best miss's probability that makes another one worth showing

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Answer:
    """Hold what is shown for a question: candidates, the first ``hits`` of which answer it, the others come nearest.

    seconds: how long it took.
    """

    question: Question
    candidates: segclip.Result
    hits: int
    seconds: float = 0.0

    @property
    def taken(self) -> tuple[int, ...]:
        """Give the rows that were chosen."""
        return tuple(sorted(row for row in self.question.taken if row < len(self.candidates)))

    @property
    def drawn(self) -> tuple[int, ...]:
        """Give the rows that are drawn, the topmost first: those taken, and what answers; of a click one mask."""
        if "point" in self.candidates.asked:
            return self.taken or tuple(range(self.hits))[:1]
        return (*self.taken, *(row for row in range(self.hits) if row not in self.taken))

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Give the texts none of the hits answers."""
        return tuple(text for text in self.candidates.asked if text not in self.candidates.texts[: self.hits])

    @property
    def chosen(self) -> segclip.Result:
        """Give what would be exported: the rows taken, else what is drawn."""
        return self.candidates[list(self.taken or self.drawn)]


def answer(models: Models, work: Work) -> Answer:
    """Answer the question a work stands at. Raises what the library raises of bad prompts and missing weights."""
    start = perf_counter()
    with turns.holding(work.lock):
        question = work.question
        if question.by_place:
            result = _by_place(models, work, question)
        elif question.everything:
            result = _everything(models, work, question)
        else:
            result = _by_words(models, work, question)
        hits = min(len(result), MOST_SHOWN)
        candidates = result[:MOST_SHOWN]
        if result.unanswered and not question.by_place and not question.everything:
            candidates = _joined(candidates, _misses(models, work, question, result))
    return Answer(question, candidates, hits, perf_counter() - start)


def _by_words(models: Models, work: Work, question: Question) -> segclip.Result:
    chosen = segclip.Selection(question.threshold, question.top_k)
    regions = _regions_left(models, work, question)
    with models.read(work.words) as segmenter, quickly():
        return segmenter.rank(regions, question.texts, negatives=question.negatives, selection=chosen)


def _misses(models: Models, work: Work, question: Question, result: segclip.Result) -> segclip.Result:
    """Give what came nearest to the texts without an answer."""
    near = [near for text, near in zip(result.asked, result.nearest, strict=True) if text in result.unanswered]
    chosen = segclip.Selection(threshold=min(1.0, max(min(near) * _NEAR, 1e-6)), top_k=MISSES)
    regions = _regions_left(models, work, question)
    with models.read(work.words) as segmenter, quickly():
        return segmenter.rank(regions, result.unanswered, negatives=question.negatives, selection=chosen)


def _regions_left(models: Models, work: Work, question: Question) -> segclip.Regions:
    """Leave out what covers a negative point."""
    regions = find_regions(models, work)
    if not question.points:
        return regions
    return regions[[row for row in range(len(regions)) if not _covers(regions.masks, row, question.points)]]


def _by_place(models: Models, work: Work, question: Question) -> segclip.Result:
    """Decode points or a box; a further point refines the answer to those before it."""
    if not question.points:
        return pick(models, work, segclip.Boxes([question.box]))
    prompt = _points(question)
    former = work.former.get(question.points[:-1])
    if former is not None and question.box is None:
        logits = former.regions.proposals.logits
        if logits is not None and len(former):
            prompt = replace(prompt, mask=logits[0])
    result = pick(models, work, prompt)
    work.former[question.points] = result
    while len(work.former) > 20:
        del work.former[next(iter(work.former))]
    return result


def pick(models: Models, work: Work, prompt: segclip.Everything | segclip.Points | segclip.Boxes) -> segclip.Result:
    """Cut out what a place points at; who looks at another picture meanwhile is not waited for.

    Raises BadPrompt for everything.
    """
    encoded = work.known.encoded.get(work.clicks)
    if encoded is None:
        with models.look(work.clicks) as segmenter:
            encoded = encode(segmenter, work.known, work.clicks)
    with models.point(work.clicks) as segmenter, quickly():
        return segmenter.pick(encoded, prompt)


def _points(question: Question) -> segclip.Points:
    places = [(x, y) for x, y, _ in question.points]
    return segclip.Points(places, [label for _, _, label in question.points], box=question.box)


def _everything(models: Models, work: Work, question: Question) -> segclip.Result:
    """Give every object, small ones first, so that none lies hidden beneath a large one."""
    chosen = segclip.Selection(question.threshold, question.top_k)
    regions = find_regions(models, work)
    with models.read(work.words) as segmenter:
        result = segmenter.everything(regions, selection=chosen)
    return result[np.argsort(result.masks.areas, kind="stable")]


def prepare(models: Models, work: Work) -> None:
    """Look at a picture for clicks to come, beside the page, so that the first one need not wait."""
    name, known = work.clicks, work.known
    if name in known.encoded or name in known.preparing:
        return
    known.preparing.add(name)

    def look() -> None:
        with suppress(segclip.SegclipError), models.look(name) as segmenter:  # the click itself tells what is wrong
            encode(segmenter, known, name)

    Thread(target=look, daemon=True).start()


def find_regions(models: Models, work: Work) -> segclip.Regions:
    """Give a picture's regions, found and embedded when first asked for."""
    with turns.holding(work.lock):
        if work.words not in work.known.regions:
            with models.look(work.words) as segmenter:
                encoded = encode(segmenter, work.known, work.words)
                turns.check()
                regions = segmenter.regions(encoded)
            _keep(work.known.regions, work.words, regions)
        return work.known.regions[work.words]


def encode(segmenter: segclip.Segmenter, known: Known, name: str) -> segclip.Encoded:
    """Let a model look at a picture, when it hasn't yet."""
    if name not in known.encoded:
        _keep(known.encoded, name, segmenter.encode(known.image))
    return known.encoded[name]


def _keep(found: dict[str, T], name: str, value: T) -> None:
    """Remember what a model found out about a picture, of the models used last."""
    found[name] = value
    while len(found) > MOST_KEPT:
        del found[next(iter(found))]


def _covers(masks: segclip.Masks, row: int, points: Sequence[Point]) -> bool:
    x1, y1, x2, y2 = masks.boxes[row]
    inside = [(int(x), int(y)) for x, y, _ in points if x1 <= int(x) < x2 and y1 <= int(y) < y2]
    return any(masks.bitmaps[row][y - y1, x - x1] for x, y in inside)


def _joined(first: segclip.Result, second: segclip.Result) -> segclip.Result:
    """Put the rows of two answers about one picture together."""
    boxes = np.concatenate([first.masks.boxes, second.masks.boxes])
    masks = segclip.Masks(boxes, (*first.masks.bitmaps, *second.masks.bitmaps), first.masks.size)
    proposals = segclip.Proposals(masks, np.concatenate([first.quality, second.quality]))
    embeddings = np.concatenate([first.regions.embeddings, second.regions.embeddings])
    regions = segclip.Regions(first.image, proposals, embeddings)
    similarity = np.concatenate([first.similarity, second.similarity])
    probability = np.concatenate([first.probability, second.probability])
    texts = first.texts + second.texts
    return replace(first, regions=regions, texts=texts, similarity=similarity, probability=probability)
