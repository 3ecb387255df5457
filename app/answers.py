"""Answer a question about a picture: only what is not known yet is worked out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Thread
from time import perf_counter
from typing import TypeVar

import numpy as np

import segclip

from . import turns
from .models import Models, quickly
from .state import Draft, Known, Work

MOST_SHOWN = 250  # rows the browser draws: one byte numbers them
MISSES = 3  # of each text without an answer
MOST_KEPT = 4  # models whose view of a picture is kept
_NEAR = 0.2  # share of the best miss's probability that makes another one worth showing

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Answer:
    """Hold what is shown for a draft: candidates, the first ``hits`` of which answer it, the others
    come nearest.

    seconds: how long it took.
    """

    draft: Draft
    candidates: segclip.Result
    hits: int
    seconds: float = 0.0

    @property
    def taken(self) -> tuple[int, ...]:
        """Give the rows that were chosen."""
        return tuple(sorted(row for row in self.draft.taken if row < len(self.candidates)))

    @property
    def drawn(self) -> tuple[int, ...]:
        """Give the rows that are drawn, the topmost first: those taken, and what answers; of a
        click one mask.
        """
        if "point" in self.candidates.asked:
            return self.taken or tuple(range(self.hits))[:1]
        return (*self.taken, *(row for row in range(self.hits) if row not in self.taken))

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Give the texts none of the hits answers."""
        return tuple(
            text for text in self.candidates.asked if text not in self.candidates.texts[: self.hits]
        )

    @property
    def chosen(self) -> segclip.Result:
        """Give what would be exported: the rows taken, else what is drawn."""
        return self.candidates[list(self.taken or self.drawn)]


def answer(models: Models, work: Work) -> Answer:
    """Answer the question a work stands at. Raises what the library raises of bad prompts and
    missing weights.
    """
    start = perf_counter()
    with turns.holding(work.lock):
        draft = work.draft
        if draft.by_place:
            result = _by_place(models, work, draft)
        elif draft.everything:
            result = _everything(models, work, draft)
        elif draft.texts:
            result = ask(models, work, draft.question())
        else:
            result = segclip.Result.unranked(find_regions(models, work)[[]])
        hits = min(len(result), MOST_SHOWN)
        candidates = result[:MOST_SHOWN]
        if result.unanswered and not draft.by_place and not draft.everything:
            candidates = candidates.joined(_misses(models, work, draft.question(), result))
    return Answer(draft, candidates, hits, perf_counter() - start)


def ask(models: Models, work: Work, question: segclip.Question) -> segclip.Result:
    """Answer a question from what is known of the image already, and find out the rest.

    Raises what the library raises of bad questions and missing weights.
    """
    place = question.place
    if not question.texts and not question.everything:
        return pick(models, work, place)
    if question.texts and isinstance(place, segclip.Everything) and place.inside is None:
        regions = find_regions(models, work)
        with models.read(work.words) as segmenter, quickly():
            return segmenter.answer(regions, question)
    with models.look(work.words) as segmenter:
        encoded = encode(segmenter, work.known, work.words)
        turns.check()
        return segmenter.answer(encoded, question)


def _misses(
    models: Models, work: Work, question: segclip.Question, result: segclip.Result
) -> segclip.Result:
    """Return what came nearest to the texts without an answer."""
    near = [
        near
        for text, near in zip(result.asked, result.nearest, strict=True)
        if text in result.unanswered
    ]
    chosen = segclip.Selection(threshold=min(1.0, max(min(near) * _NEAR, 1e-6)), top_k=MISSES)
    return ask(models, work, replace(question, texts=result.unanswered, selection=chosen))


def _by_place(models: Models, work: Work, draft: Draft) -> segclip.Result:
    """Decode points or a box; a further point refines the answer to those before it."""
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
    """Cut out what a place points at; who looks at another picture meanwhile is not waited for.

    Raises BadPrompt for everything.
    """
    encoded = work.known.encoded.get(work.clicks)
    if encoded is None:
        with models.look(work.clicks) as segmenter:
            encoded = encode(segmenter, work.known, work.clicks)
    with models.point(work.clicks) as segmenter, quickly():
        return segmenter.pick(encoded, prompt)


def _everything(models: Models, work: Work, draft: Draft) -> segclip.Result:
    """Return every object, small ones first, so that none lies hidden beneath a large one."""
    regions = find_regions(models, work)
    with models.read(work.words) as segmenter:
        result = segmenter.answer(regions, draft.question())
    return result[np.argsort(result.masks.areas, kind="stable")]


def prepare(models: Models, work: Work) -> None:
    """Look at a picture for clicks to come, beside the page, so that the first one need not
    wait.
    """
    name, known = work.clicks, work.known
    if name in known.encoded or name in known.preparing:
        return
    known.preparing.add(name)

    def look() -> None:
        with (
            suppress(segclip.SegclipError),
            models.look(name) as segmenter,
        ):  # the click itself tells what is wrong
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
