"""Put the halves together: `Segmenter.regions` turns pixels into regions, `Segmenter.rank` ranks them by text."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from . import images, templates
from .encoders import Encoder
from .errors import BadPrompt
from .positions import Position, Relation, nouns, parse
from .proposers import Proposer
from .scoring import Scorer, embed_texts, similarity
from .selection import Selection, probabilities, select, weigh
from .types import Array, Boxes, Encoded, Everything, Masks, Points, Prompt, Regions, Result

MAX_TEXT = 1000  # characters; encoders read fewer, and tell where they stop
_SURE = 0.4  # quality of what counts as an object when everything is asked for: --conf of FastSAM's Inference.py

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Picker:
    """Cut out what places show, or everything: the half of a segmenter that needs no words, and so no encoder."""

    proposer: Proposer

    def encode(self, source: images.Source | Encoded, *, max_pixels: int = images.MAX_PIXELS) -> Encoded:
        """Look at a picture once; whatever takes a picture takes the answer too, and then only decodes.

        Raises BadImage, and BadPrompt for what another proposer encoded. max_pixels: the largest picture that is read.
        """
        if not isinstance(source, Encoded):
            image = images.load(source, max_pixels=max_pixels)
            return Encoded(image, self.proposer.encode(image), self.proposer)
        if source.proposer is not self.proposer:
            raise BadPrompt("the picture was encoded by another proposer; encode it with this segmenter")
        return source

    def pick(self, source: images.Source | Encoded, prompt: Prompt, *, max_pixels: int = images.MAX_PIXELS) -> Result:
        """Cut out what points or boxes show, without words or an encoder: box by box, or a click's masks best first.

        Raises BadImage, and BadPrompt for neither points nor boxes.
        """
        if isinstance(prompt, Everything):
            raise BadPrompt(
                "neither a text nor a place was given; say what to look for, give points or boxes, or take everything"
            )
        encoded = self.encode(source, max_pixels=max_pixels)
        proposals = self.proposer.decode(encoded.features, prompt)
        names = [f"box {row + 1}" if isinstance(prompt, Boxes) else "point" for row in range(len(proposals))]
        kept = np.flatnonzero(proposals.masks.areas > 0)
        regions = Regions(encoded.image, proposals[kept], np.zeros((len(kept), 0), np.float32))
        asked = tuple(names) if isinstance(prompt, Boxes) else ("point",)
        return _unworded(regions, tuple(names[row] for row in kept), asked, 0.0)

    def everything(
        self,
        source: images.Source | Encoded | Regions,
        prompt: Everything = Everything(),
        *,
        selection: Selection = Selection(),
        max_pixels: int = images.MAX_PIXELS,
    ) -> Result:
        """Cut out every object, surest first, without words or an encoder: the "everything" of SAM and FastSAM.

        The proposer's quality stands for the probability, and a threshold left out is 0.4, as in FastSAM's script. Of
        duplicates the surer stays; parts of things are things too. Raises BadImage, and BadPrompt for a place outside
        the picture. source: ``regions`` found before are chosen from without asking the proposer again.
        """
        if isinstance(source, Regions):
            regions = source
        else:
            encoded = self.encode(source, max_pixels=max_pixels)
            proposals = self.proposer.decode(encoded.features, prompt)
            regions = Regions(encoded.image, proposals, np.zeros((len(proposals), 0), np.float32))
        regions = regions[np.flatnonzero(regions.masks.areas > 0)]
        quality = regions.proposals.quality.astype(np.float64)
        threshold = _SURE if selection.threshold is None else selection.threshold
        chosen = replace(selection, threshold=threshold, containment=None)
        rows = select(quality, quality, regions.masks, selection=chosen, threshold=threshold)
        return _unworded(regions[rows], ("object",) * len(rows), ("object",), threshold)


@dataclass(frozen=True, eq=False)
class Segmenter(Picker):
    """Find regions in an image and rank them by text."""

    encoder: Encoder
    scorer: Scorer

    def __call__(
        self,
        source: images.Source | Encoded,
        texts: str | Sequence[str] | None = None,
        prompt: Prompt = Everything(),
        *,
        negatives: str | Sequence[str] = (),
        backgrounds: str | Sequence[str] | None = None,
        selection: Selection = Selection(),
    ) -> Result:
        """Answer texts about a picture in one go; ``regions`` and ``rank`` are its halves, ``pick`` does without texts.

        With texts and points the clicked object is asked about; see ``Everything`` for texts inside boxes.
        """
        if texts is None:
            return self.pick(source, prompt)
        regions = self.regions(source, prompt)
        return self.rank(regions, texts, negatives=negatives, backgrounds=backgrounds, selection=selection)

    def regions(
        self, source: images.Source | Encoded, prompt: Prompt = Everything(), *, max_pixels: int = images.MAX_PIXELS
    ) -> Regions:
        """Find and embed the regions a spatial prompt asks for: the slow half, without any text.

        Raises BadImage. max_pixels: the largest picture that is read.
        """
        if not isinstance(source, Encoded):
            source = images.load(source, max_pixels=max_pixels)
        start = perf_counter()
        encoded = self.encode(source)
        image, proposals = encoded.image, self.proposer.decode(encoded.features, prompt)
        found = perf_counter()
        regions = Regions(image, proposals, self.scorer.embed_regions(image, proposals.masks, proposals.quality))
        log.info("%d regions: found in %.2f s, embedded in %.2f s", len(regions), found - start, perf_counter() - found)
        return regions

    def rank(
        self,
        regions: Regions,
        texts: str | Sequence[str],
        *,
        negatives: str | Sequence[str] = (),
        backgrounds: str | Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        selection: Selection = Selection(),
    ) -> Result:
        """Rank regions by texts: the instant half, without any pixels. Rows come text by text, best first.

        negatives, backgrounds: texts each text competes with for a region. templates: sentences with ``{}``, or the
        name of a set. What is None comes from the encoder's ``serving``. Raises BadPrompt.
        """
        serving = self.encoder.serving
        asked, ruled_out = questions(texts, negatives)
        named = [nouns(text) for text in asked]
        names = [*(first for first, *_ in named), *(anchor for _, *anchors in named for anchor in anchors)]
        others = [*ruled_out, *unique(serving.backgrounds if backgrounds is None else backgrounds)]
        embedded = embed_texts(self.encoder, [*names, *others], _sentences(templates, serving.templates))
        cosine = similarity(regions.embeddings, embedded)  # (N, T + anchors + K)
        probability = _compete(cosine, names, others, serving.logit_scale or self.encoder.logit_scale)
        probability = weigh(probability, regions.proposals.quality, serving.quality_weight)
        probability[~regions.embeddings.any(axis=1)] = 0  # too small to be looked at
        threshold = serving.threshold if selection.threshold is None else selection.threshold
        looks = _Looks(tuple(names), probability, cosine, regions.masks, selection, threshold)
        answers = [looks.answer(text) for text in asked]
        return _result(regions, asked, cosine, probability[:, : len(asked)], answers, threshold)

    def like(
        self,
        source: images.Source | Encoded,
        example: Points,
        prompt: Everything = Everything(),
        *,
        selection: Selection = Selection(),
    ) -> Result:
        """Find everything that looks like what is clicked on: its best region's embedding is the query, without a text.

        The cosine stands for the probability, ``serving.likeness`` for the threshold. Raises BadImage, and BadPrompt
        when nothing is at the example's place.
        """
        encoded = self.encode(source)
        image, features = encoded.image, encoded.features
        shown = self.proposer.decode(features, example)
        seen = self.scorer.embed_regions(image, shown.masks[:1])
        if not seen.any():
            raise BadPrompt("there is nothing at the example's place to compare with; click on an object")
        proposals = self.proposer.decode(features, prompt)
        regions = Regions(image, proposals, self.scorer.embed_regions(image, proposals.masks, proposals.quality))
        least = self.encoder.serving.likeness
        cosine = similarity(regions.embeddings, seen)  # (N, 1)
        likeness = cosine.clip(0).astype(np.float64)
        rows = select(likeness[:, 0], cosine[:, 0], regions.masks, selection=selection, threshold=least)
        threshold = least if selection.threshold is None else selection.threshold
        return _result(regions, ("like this",), cosine, likeness, [_Answer(rows)], threshold)


@dataclass(frozen=True, eq=False)
class _Answer:
    """Hold the rows that answer a text, best first, and why words of place or size chose them."""

    rows: Array
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Looks:
    """Hold what each name thinks of N regions, (N, names) or more, and how rows are selected."""

    names: tuple[str, ...]
    probability: Array
    similarity: Array
    masks: Masks
    selection: Selection
    threshold: float

    def answer(self, text: str) -> _Answer:
        """Choose the rows of one text; words of place and size choose among all that answer the rest of it."""
        said = parse(text)
        if said is None:
            return _Answer(self._select(text, self.selection))
        answer = self._placed(said)
        single = self.selection.best or (isinstance(said, Relation) and not said.plural)
        most = 1 if single else self.selection.top_k
        return replace(answer, rows=answer.rows[:most])

    def _placed(self, said: Position | Relation) -> _Answer:
        rows = self._found(said.head)
        if isinstance(said, Position):
            return _Answer(rows[said.choose(self.masks[rows])], said.reason(len(rows)))
        anchors = self._found(said.anchor)
        kept = rows[said.choose(self.masks[rows], self.masks[anchors])]
        return _Answer(kept, said.reason(len(kept), len(rows), len(anchors)))

    def _found(self, text: str) -> Array:
        if said := parse(text):
            return self._placed(said).rows
        rows = self._select(text, replace(self.selection, best=False, top_k=None))
        return rows if len(rows) or not self.selection.best else self._select(text, self.selection)

    def _select(self, name: str, selection: Selection) -> Array:
        column = self.names.index(name)
        p, cosine = self.probability[:, column], self.similarity[:, column]
        return select(p, cosine, self.masks, selection=selection, threshold=self.threshold)


def unique(texts: str | Sequence[str]) -> tuple[str, ...]:
    """Give each text once, without stray blanks; a text given twice is told, one empty or endless raises BadPrompt."""
    given = [" ".join(text.split()) for text in ([texts] if isinstance(texts, str) else texts)]
    if "" in given:
        raise BadPrompt("an empty text was given; say what to look for, for example 'a red apple'")
    if broken := [text for text in given if any("\ud800" <= character <= "\udfff" for character in text)]:
        raise BadPrompt(f"the text {broken[0]!r} holds bytes that are no characters; give it as UTF-8")
    if long := [text for text in given if len(text) > MAX_TEXT]:
        raise BadPrompt(
            f"a text of {len(long[0])} characters was given; at most {MAX_TEXT} are read: {long[0][:40]!r}..."
        )
    once = tuple(dict.fromkeys(given))
    for text, count in Counter(given).items():
        if count > 1:
            log.warning("%r was given %d times and is used once", text, count)
    return once


def questions(texts: str | Sequence[str], negatives: str | Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is asked and what is ruled out, as ``unique`` reads them.

    Raises BadPrompt, also where a text is both.
    """
    asked, ruled_out = unique(texts), unique(negatives)
    if both := set(asked) & set(ruled_out):
        raise BadPrompt(f"{min(both)!r} is both asked for and ruled out; drop one of them")
    return asked, ruled_out


def shorten(text: str) -> str:
    """Cut an endless text and tell where; the encoder reads fewer words still, and tells that too."""
    words = " ".join(text.split())
    if len(words) <= MAX_TEXT:
        return words
    kept = words[:MAX_TEXT]
    log.warning("a text of %d characters was given, read only up to %r", len(words), kept[-40:])
    return kept


def _sentences(chosen: str | Sequence[str] | None, default: tuple[str, ...]) -> Sequence[str]:
    if chosen is None:
        return default
    return templates.get(chosen) if isinstance(chosen, str) else chosen


def _compete(cosine: Array, asked: Sequence[str], others: Sequence[str], logit_scale: float) -> Array:
    """Give each text's probability against the others, save itself: float64 (N, T)."""
    table = np.zeros((len(cosine), len(asked)))
    for column, text in enumerate(asked):
        against = [len(asked) + row for row, other in enumerate(others) if other != text]
        table[:, [column]] = probabilities(cosine[:, [column]], cosine[:, against], logit_scale)
    return table


def _unworded(regions: Regions, names: tuple[str, ...], asked: tuple[str, ...], threshold: float) -> Result:
    """Answer without words: what the encoder would say is unknown, NaN."""
    unknown = np.full(len(names), np.nan, np.float32)
    return Result(regions, names, unknown, unknown, asked, threshold)


def _result(
    regions: Regions,
    asked: tuple[str, ...],
    cosine: Array,
    probability: Array,
    answers: Sequence[_Answer],
    threshold: float,
) -> Result:
    columns = np.repeat(np.arange(len(asked)), [len(answer.rows) for answer in answers])
    flat = np.concatenate([np.zeros(0, np.int64), *(answer.rows for answer in answers)])
    return Result(
        regions[flat],
        tuple(asked[column] for column in columns),
        cosine[flat, columns],
        probability[flat, columns].astype(np.float32),
        asked,
        threshold,
        tuple(float(column.max(initial=0)) for column in probability.T),
        tuple(answer.reason for answer in answers),
    )
