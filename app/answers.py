"""Answer questions about an image, reusing everything computed before."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Thread
from time import perf_counter
from typing import TypeVar

import numpy as np

import segclip

from . import turns
from .models import Models
from .state import CachedImage, Draft, Work

MOST_ROWS = 250  # rows drawn by the browser: a label is one byte
MISSES = 3  # per text without a match
MOST_KEPT = 4  # models whose encodings of an image are cached
_NEAR = 0.2  # share of the best miss's probability above which other misses are listed

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Answer:
    """Candidates for a draft: the first ``hits`` are matches, the others near misses.

    seconds: computing time.
    """

    draft: Draft
    candidates: segclip.Result
    hits: int
    seconds: float = 0.0

    @property
    def taken(self) -> tuple[int, ...]:
        """Return the rows that the user selected."""
        return tuple(sorted(row for row in self.draft.taken if row < len(self.candidates)))

    @property
    def drawn(self) -> tuple[int, ...]:
        """Return the rows to draw, topmost first: selected rows, then matches; one for a click."""
        if "point" in self.candidates.asked:
            return self.taken or tuple(range(self.hits))[:1]
        return (*self.taken, *(row for row in range(self.hits) if row not in self.taken))

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Return the texts without a match."""
        return tuple(
            text for text in self.candidates.asked if text not in self.candidates.texts[: self.hits]
        )

    @property
    def chosen(self) -> segclip.Result:
        """Return the result to export: the selected rows, else the drawn ones."""
        return self.candidates[list(self.taken or self.drawn)]


def answer(models: Models, work: Work) -> Answer:
    """Answer the current question of a work.

    Raises the library's errors for bad prompts and missing weights.
    """
    start = perf_counter()
    with turns.holding(work.lock):
        draft = work.draft
        if draft.by_place:
            result = _by_place(models, work, draft)
        elif draft.everything:
            result = _everything(models, work, draft)
        elif draft.texts:
            result = answer_question(models, work, draft.question())
        else:
            result = segclip.Result.unranked(find_regions(models, work)[[]])
        hits = min(len(result), MOST_ROWS)
        candidates = result[:MOST_ROWS]
        if result.unanswered and not draft.by_place and not draft.everything:
            candidates = candidates.joined(_misses(models, work, draft.question(), result))
    return Answer(draft, candidates, hits, perf_counter() - start)


def answer_question(models: Models, work: Work, question: segclip.Question) -> segclip.Result:
    """Answer a question, reusing cached encodings and regions of the image.

    Raises the library's errors for bad questions and missing weights.
    """
    place = question.place
    if not question.texts and not question.everything:
        return pick(models, work, place)
    if question.texts and isinstance(place, segclip.Everything) and place.inside is None:
        regions = find_regions(models, work)
        with models.embedding(work.words) as segmenter, models.quickly():
            return segmenter.answer(regions, question)
    with models.encoding(work.words) as segmenter:
        encoded = encode(segmenter, work.cached, work.words)
        turns.check()
        return segmenter.answer(encoded, question)


def _misses(
    models: Models, work: Work, question: segclip.Question, result: segclip.Result
) -> segclip.Result:
    """Return the nearest misses of the texts without a match."""
    near = [
        near
        for text, near in zip(result.asked, result.nearest, strict=True)
        if text in result.unanswered
    ]
    chosen = segclip.Selection(threshold=min(1.0, max(min(near) * _NEAR, 1e-6)), top_k=MISSES)
    return answer_question(
        models, work, replace(question, texts=result.unanswered, selection=chosen)
    )


def _by_place(models: Models, work: Work, draft: Draft) -> segclip.Result:
    """Decode points or a box; a further point refines the previous mask."""
    prompt = draft.question().place
    if not isinstance(prompt, segclip.Points):
        return pick(models, work, prompt)
    former = work.former.get(draft.points[:-1])
    if former is not None and draft.box is None:
        logits = former.regions.proposals.logits
        if logits is not None and len(former):
            prompt = replace(prompt, mask=logits[0])
    result = pick(models, work, prompt)
    work.former[draft.points] = result
    while len(work.former) > 20:
        del work.former[next(iter(work.former))]
    return result


def pick(
    models: Models, work: Work, prompt: segclip.Everything | segclip.Points | segclip.Boxes
) -> segclip.Result:
    """Segment at a point or box, without waiting for others' image encoding.

    Raises BadPrompt for everything.
    """
    encoded = work.cached.encoded.get(work.clicks)
    if encoded is None:
        with models.encoding(work.clicks) as segmenter:
            encoded = encode(segmenter, work.cached, work.clicks)
    with models.decoding(work.clicks) as segmenter, models.quickly():
        return segmenter.pick(encoded, prompt)


def _everything(models: Models, work: Work, draft: Draft) -> segclip.Result:
    """Return every object, small ones first, so that large ones do not hide them."""
    regions = find_regions(models, work)
    with models.embedding(work.words) as segmenter:
        result = segmenter.answer(regions, draft.question())
    return result[np.argsort(result.masks.areas, kind="stable")]


def prepare(models: Models, work: Work) -> None:
    """Encode the image in the background, so that the first click need not wait."""
    name, cached = work.clicks, work.cached
    if name in cached.encoded or name in cached.preparing:
        return
    cached.preparing.add(name)

    def run() -> None:
        # the click itself reports any error
        with suppress(segclip.SegclipError), models.encoding(name) as segmenter:
            encode(segmenter, cached, name)

    Thread(target=run, daemon=True).start()


def find_regions(models: Models, work: Work) -> segclip.Regions:
    """Return the image's regions, found and embedded on first use."""
    with turns.holding(work.lock):
        if work.words not in work.cached.regions:
            with models.encoding(work.words) as segmenter:
                encoded = encode(segmenter, work.cached, work.words)
                turns.check()
                regions = segmenter.regions(encoded)
            _keep(work.cached.regions, work.words, regions)
        return work.cached.regions[work.words]


def encode(segmenter: segclip.Segmenter, cached: CachedImage, name: str) -> segclip.Encoded:
    """Return the image as encoded by a model, encoding it on first use."""
    if name not in cached.encoded:
        _keep(cached.encoded, name, segmenter.encode(cached.image))
    return cached.encoded[name]


def _keep(found: dict[str, T], name: str, value: T) -> None:
    """Cache a model's value for an image, for the most recently used models."""
    found[name] = value
    while len(found) > MOST_KEPT:
        del found[next(iter(found))]
