"""Put the halves together: `Segmenter.regions` turns pixels into regions, `Segmenter.rank` ranks
them by text.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np

from . import images
from .encoders import Encoder, NoEncoder, Serving
from .errors import BadPrompt
from .proposers import Proposer
from .proposers.space import within
from .question import MAX_PIXELS, Question
from .ranking import templates
from .ranking.positions import Position, Relation, nouns, parse
from .ranking.probability import Ranking, similarity
from .ranking.selection import Selection, select
from .scoring.scorers import CropScorer, Scorer
from .types import Array, Boxes, Encoded, Everything, Masks, Points, Prompt, Regions, Result

# quality of what counts as an object when everything is asked for: --conf of FastSAM's Inference.py
_SURE = 0.4

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Find regions in an image and rank them by text.

    encoder: left out, places and everything are answered, but no texts. scorer: what embeds
    regions, by crops if left out. serving: how the encoder is used, as its checkpoint says if left
    out.
    """

    proposer: Proposer
    encoder: Encoder = field(default_factory=NoEncoder)
    scorer: Scorer = field(default=None)  # type: ignore[assignment]
    serving: Serving = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        given = vars(self)
        if given["scorer"] is None:
            object.__setattr__(self, "scorer", CropScorer(self.encoder))
        if given["serving"] is None:
            object.__setattr__(self, "serving", self.encoder.serving)

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
        """Answer texts about an image in one go; without texts, cut out what ``prompt`` shows.

        With texts and points the clicked object is asked about; see ``Everything`` for texts inside
        boxes. Raises BadImage and BadPrompt.
        """
        if texts is None:
            return self.pick(source, prompt)
        regions = self.regions(source, prompt)
        return self.rank(
            regions, texts, negatives=negatives, backgrounds=backgrounds, selection=selection
        )

    def answer(self, source: images.Source | Encoded | Regions, question: Question) -> Result:
        """Answer a question: by example, for everything, by place, or by texts.

        source: ``Regions`` that were found before answer texts and everything without any pixels.
        Raises BadImage, and BadPrompt where nothing is asked.
        """
        selection, most = question.selection, question.max_pixels
        if isinstance(source, Regions) and isinstance(question.place, Everything):
            source = source[within(source.masks, question.place)]
        if isinstance(question.place, Everything) and question.everything:
            return self.everything(source, question.place, selection=selection, max_pixels=most)
        if question.texts:
            found = (
                source
                if isinstance(source, Regions)
                else self.regions(source, question.place, max_pixels=most)
            )
            return self.rank(
                found,
                question.texts,
                negatives=question.negatives,
                backgrounds=question.backgrounds,
                templates=question.templates,
                selection=selection,
            )
        if isinstance(source, Regions):
            raise BadPrompt(
                "regions answer texts and everything; give the image for places and examples"
            )
        if question.example and isinstance(question.place, Everything):
            encoded = self.encode(source, max_pixels=most)
            return self.like(encoded, question.example, question.place, selection=selection)
        return self.pick(source, question.place, max_pixels=most)

    def encode(self, source: images.Source | Encoded, *, max_pixels: int = MAX_PIXELS) -> Encoded:
        """Run the image encoder once; whatever takes an image takes the result too, and then only
        decodes.

        max_pixels: the largest image that is read. Raises BadImage, and BadPrompt for what another
        proposer encoded.
        """
        if not isinstance(source, Encoded):
            image = images.load(source, max_pixels=max_pixels)
            return Encoded(image, self.proposer.encode(image), self.proposer)
        if source.proposer is not self.proposer:
            raise BadPrompt(
                "the image was encoded by another proposer; encode it with this segmenter"
            )
        return source

    def pick(
        self, source: images.Source | Encoded, prompt: Prompt, *, max_pixels: int = MAX_PIXELS
    ) -> Result:
        """Cut out what points or boxes show, without texts: box by box, or a click's masks best
        first.

        Raises BadImage, and BadPrompt for neither points nor boxes.
        """
        if isinstance(prompt, Everything):
            raise BadPrompt(
                "neither a text nor a place was given; say what to look for, give points or boxes, "
                "or take everything"
            )
        encoded = self.encode(source, max_pixels=max_pixels)
        proposals = self.proposer.decode(encoded.features, prompt)
        names = [
            f"box {row + 1}" if isinstance(prompt, Boxes) else "point"
            for row in range(len(proposals))
        ]
        kept = np.flatnonzero(proposals.masks.areas > 0)
        regions = Regions.bare(encoded.image, proposals[kept])
        asked = tuple(names) if isinstance(prompt, Boxes) else ("point",)
        return _unworded(regions, tuple(names[row] for row in kept), asked, 0.0)

    def everything(
        self,
        source: images.Source | Encoded | Regions,
        prompt: Everything = Everything(),
        *,
        selection: Selection = Selection(),
        max_pixels: int = MAX_PIXELS,
    ) -> Result:
        """Cut out every object, surest first, without texts: the "everything" of SAM and FastSAM.

        The proposer's quality stands for the probability, and a threshold left out is 0.4, as in
        FastSAM's script. Of duplicates the surer stays; parts of things are things too. source:
        ``Regions`` found before are chosen from without asking the proposer again. Raises BadImage,
        and BadPrompt for a place outside the image.
        """
        if isinstance(source, Regions):
            regions = source
        else:
            encoded = self.encode(source, max_pixels=max_pixels)
            proposals = self.proposer.decode(encoded.features, prompt)
            regions = Regions.bare(encoded.image, proposals)
        regions = regions[np.flatnonzero(regions.masks.areas > 0)]
        quality = regions.proposals.quality.astype(np.float64)
        threshold = _SURE if selection.threshold is None else selection.threshold
        chosen = replace(selection, threshold=threshold, containment=None)
        rows = select(quality, quality, regions.masks, selection=chosen, threshold=threshold)
        return _unworded(regions[rows], ("object",) * len(rows), ("object",), threshold)

    def regions(
        self,
        source: images.Source | Encoded,
        prompt: Prompt = Everything(),
        *,
        max_pixels: int = MAX_PIXELS,
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
        regions = Regions(
            image, proposals, self.scorer.embed_regions(image, proposals.masks, proposals.quality)
        )
        log.info(
            "%d regions: found in %.2f s, embedded in %.2f s",
            len(regions),
            found - start,
            perf_counter() - found,
        )
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
        """Rank regions by texts: the instant half, without any pixels. Rows come text by text, best
        first.

        negatives, backgrounds: texts each text competes with for a region. templates: sentences
        with ``{}``, or the name of a set. What is None comes from the encoder's ``serving``. Raises
        BadPrompt.
        """
        question = Question(texts, negatives=negatives, backgrounds=backgrounds)
        serving, asked = self.serving, question.texts
        named = [nouns(text) for text in asked]
        names = [
            *(first for first, *_ in named),
            *(anchor for _, *anchors in named for anchor in anchors),
        ]
        rivals = [
            *question.negatives,
            *(serving.backgrounds if backgrounds is None else question.backgrounds),
        ]
        ranking = Ranking.of(self.encoder, serving, names, rivals, _sentences(templates))
        cosine = ranking.similarity(regions.embeddings)  # (N, T + anchors + K)
        probability = ranking.probability(cosine, regions.proposals.quality)
        probability[~regions.embeddings.any(axis=1)] = 0  # too small to be looked at
        threshold = serving.threshold if selection.threshold is None else selection.threshold
        scored = _Scored(tuple(names), probability, cosine, regions.masks, selection, threshold)
        answers = [scored.answer(text) for text in asked]
        return _result(regions, asked, cosine, probability[:, : len(asked)], answers, threshold)

    def like(
        self,
        source: images.Source | Encoded,
        example: Points,
        prompt: Everything = Everything(),
        *,
        selection: Selection = Selection(),
    ) -> Result:
        """Find everything that looks like what is clicked on: its best mask's embedding is the
        query.

        The cosine stands for the probability, ``serving.likeness`` for the threshold. Raises
        BadImage, and BadPrompt when nothing is at the example's place.
        """
        encoded = self.encode(source)
        image, features = encoded.image, encoded.features
        clicked = self.proposer.decode(features, example)
        query = self.scorer.embed_regions(image, clicked.masks[:1])
        if not query.any():
            raise BadPrompt(
                "there is nothing at the example's place to compare with; click on an object"
            )
        proposals = self.proposer.decode(features, prompt)
        regions = Regions(
            image, proposals, self.scorer.embed_regions(image, proposals.masks, proposals.quality)
        )
        least = self.serving.likeness
        cosine = similarity(regions.embeddings, query)  # (N, 1)
        likeness = cosine.clip(0).astype(np.float64)
        rows = select(
            likeness[:, 0], cosine[:, 0], regions.masks, selection=selection, threshold=least
        )
        threshold = least if selection.threshold is None else selection.threshold
        return _result(regions, ("like this",), cosine, likeness, [_Answer(rows)], threshold)


@dataclass(frozen=True, eq=False)
class _Answer:
    """Hold the rows that answer a text, best first, and why words of place or size chose them."""

    rows: Array
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Scored:
    """Hold how N regions score for each name, (N, names) or more, and how rows are selected."""

    names: tuple[str, ...]
    probability: Array
    similarity: Array
    masks: Masks
    selection: Selection
    threshold: float

    def answer(self, text: str) -> _Answer:
        """Choose the rows of one text; words of place and size choose among all that answer the
        rest of it.
        """
        phrase = parse(text)
        if phrase is None:
            return _Answer(self._select(text, self.selection))
        answer = self._placed(phrase)
        single = self.selection.best or (isinstance(phrase, Relation) and not phrase.plural)
        most = 1 if single else self.selection.top_k
        return replace(answer, rows=answer.rows[:most])

    def _placed(self, phrase: Position | Relation) -> _Answer:
        rows = self._found(phrase.head)
        if isinstance(phrase, Position):
            return _Answer(rows[phrase.choose(self.masks[rows])], phrase.reason(len(rows)))
        anchors = self._found(phrase.anchor)
        kept = rows[phrase.choose(self.masks[rows], self.masks[anchors])]
        return _Answer(kept, phrase.reason(len(kept), len(rows), len(anchors)))

    def _found(self, text: str) -> Array:
        if phrase := parse(text):
            return self._placed(phrase).rows
        rows = self._select(text, replace(self.selection, best=False, top_k=None))
        return rows if len(rows) or not self.selection.best else self._select(text, self.selection)

    def _select(self, name: str, selection: Selection) -> Array:
        column = self.names.index(name)
        p, cosine = self.probability[:, column], self.similarity[:, column]
        return select(p, cosine, self.masks, selection=selection, threshold=self.threshold)


def _sentences(chosen: str | Sequence[str] | None) -> Sequence[str] | None:
    return templates.get(chosen) if isinstance(chosen, str) else chosen


def _unworded(
    regions: Regions, names: tuple[str, ...], asked: tuple[str, ...], threshold: float
) -> Result:
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
