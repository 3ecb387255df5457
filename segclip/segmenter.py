"""Segment by text: `Segmenter.regions` turns pixels into regions, `Segmenter.rank` ranks them."""

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
from .ranking.concepts import Concept, Example
from .ranking.embedding import similarity
from .ranking.phrases import ScoredRegions, TextAnswer
from .ranking.positions import nouns
from .ranking.probability import Ranking
from .ranking.resemblance import resemblances
from .ranking.selection import Selection, select
from .scoring.examples import collect, take
from .scoring.scorers import CropScorer, Scorer
from .types import Array, Boxes, Encoded, Everything, Points, Prompt, Regions, Resemblance, Result

# default minimum quality when segmenting everything: --conf of FastSAM's Inference.py
_MIN_QUALITY = 0.4

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Find regions in an image and rank them by text.

    encoder: without one, only points, boxes and everything are answered, no texts. scorer: embeds
    regions; default: by crops. serving: how the encoder is used; default: as stored with its
    checkpoint.
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
        """Answer texts about an image in one call; without texts, cut out what ``prompt`` selects.

        With texts and points, the clicked object is ranked by the texts; see ``Everything`` for
        texts inside boxes. Raises BadImage and BadPrompt.
        """
        if texts is None:
            return self.pick(source, prompt)
        regions = self.regions(source, prompt)
        return self.rank(
            regions, texts, negatives=negatives, backgrounds=backgrounds, selection=selection
        )

    def answer(self, source: images.Source | Encoded | Regions, question: Question) -> Result:
        """Answer a question: by example, for everything, by place, or by texts.

        source: ``Regions`` found earlier answer texts and everything without the image. Raises
        BadImage, and BadPrompt for an empty question.
        """
        if isinstance(source, Regions):
            return self._answer_regions(source, question)
        place, selection, most = question.place, question.selection, question.max_pixels
        if question.texts:
            return self._rank(self.regions(source, place, max_pixels=most), question)
        if question.everything and isinstance(place, Everything):
            return self.everything(source, place, selection=selection, max_pixels=most)
        if question.example and isinstance(place, Everything):
            encoded = self.encode(source, max_pixels=most)
            return self.like(encoded, question.example, place, selection=selection)
        return self.pick(source, place, max_pixels=most)

    def _answer_regions(self, regions: Regions, question: Question) -> Result:
        """Answer from regions of the whole image; the rest takes the image itself."""
        texts, everything = question.texts, question.everything
        if not isinstance(question.place, Everything) or not (texts or everything):
            raise BadPrompt(
                "regions answer texts and everything; give the image for places and examples"
            )
        kept = regions[within(regions.masks, question.place)]
        if texts:
            return self._rank(kept, question)
        return self.everything(kept, selection=question.selection)

    def encode(self, source: images.Source | Encoded, *, max_pixels: int = MAX_PIXELS) -> Encoded:
        """Run the image encoder once; methods that take an image take the result, and only decode.

        max_pixels: the largest image that is read. Raises BadImage, and BadPrompt for the encoding
        of another proposer.
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
        """Cut out what points or boxes select, without texts.

        Rows come in the order of the boxes, or best first for a click. Raises BadImage, and
        BadPrompt for neither points nor boxes.
        """
        if isinstance(prompt, Everything):
            raise BadPrompt(
                "neither a text nor a place was given; give a text, points or boxes, or take "
                "everything"
            )
        encoded = self.encode(source, max_pixels=max_pixels)
        proposals = self.proposer.decode(encoded.features, prompt)
        names = [
            f"box {row + 1}" if isinstance(prompt, Boxes) else "point"
            for row in range(len(proposals))
        ]
        kept = np.flatnonzero(proposals.masks.areas > 0)
        regions = Regions.bare(encoded.image, proposals[kept])
        prompts = tuple(names) if isinstance(prompt, Boxes) else ("point",)
        return _without_texts(regions, tuple(names[row] for row in kept), prompts, 0.0)

    def everything(
        self,
        source: images.Source | Encoded | Regions,
        prompt: Everything = Everything(),
        *,
        selection: Selection = Selection(),
        max_pixels: int = MAX_PIXELS,
    ) -> Result:
        """Cut out every object, best first, without texts: the "everything" of SAM and FastSAM.

        The proposer's quality replaces the probability, and the default threshold is 0.4, as in
        FastSAM's script. Of duplicates the one of higher quality stays; parts of objects are kept.
        source: ``Regions`` found earlier are filtered without running the proposer. Raises
        BadImage, and BadPrompt for a place outside the image.
        """
        if isinstance(source, Regions):
            regions = source
        else:
            encoded = self.encode(source, max_pixels=max_pixels)
            proposals = self.proposer.decode(encoded.features, prompt)
            regions = Regions.bare(encoded.image, proposals)
        regions = regions[np.flatnonzero(regions.masks.areas > 0)]
        quality = regions.proposals.quality.astype(np.float64)
        threshold = _MIN_QUALITY if selection.threshold is None else selection.threshold
        chosen = replace(selection, threshold=threshold, containment=None)
        rows = select(quality, quality, regions.masks, selection=chosen, threshold=threshold)
        return _without_texts(regions[rows], ("object",) * len(rows), ("object",), threshold)

    def regions(
        self,
        source: images.Source | Encoded,
        prompt: Prompt = Everything(),
        *,
        max_pixels: int = MAX_PIXELS,
    ) -> Regions:
        """Find and embed the regions of a spatial prompt: the slow half, independent of texts.

        max_pixels: the largest image that is read. Raises BadImage.
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
        """Rank regions by texts: the fast half, without pixels. Rows come text by text, best first.

        negatives, backgrounds: texts that each text competes with for a region. templates:
        sentences with ``{}``, or the name of a set. None uses the encoder's ``serving``. Raises
        BadPrompt.
        """
        question = Question(
            texts,
            negatives=negatives,
            backgrounds=backgrounds,
            templates=templates,
            selection=selection,
        )
        return self._rank(regions, question)

    def _rank(self, regions: Regions, question: Question) -> Result:
        serving, selection, queries = self._serving(question), question.selection, question.texts
        named = [nouns(text) for text in queries]
        names = [
            *(first for first, *_ in named),
            *(anchor for _, *anchors in named for anchor in anchors),
        ]
        ranking = Ranking.of(self.encoder, serving, names, question.negatives, question.concepts)
        cosine = ranking.similarity(regions.embeddings)  # (N, T + anchors + K)
        probability = ranking.probability(regions.embeddings, regions.proposals.quality)
        probability[~regions.embeddings.any(axis=1)] = 0  # too small to be embedded
        threshold = serving.threshold if selection.threshold is None else selection.threshold
        scored = ScoredRegions(
            tuple(names), probability, cosine, regions.masks, selection, threshold
        )
        answers = [scored.answer(text) for text in queries]
        result = _result(
            regions, queries, cosine, probability[:, : len(queries)], answers, threshold
        )
        return replace(result, resembles=self._resemblances(regions, result, ranking, probability))

    def _resemblances(
        self, regions: Regions, result: Result, ranking: Ranking, probability: Array
    ) -> tuple[Resemblance | None, ...]:
        """Name what the region nearest to each text without an answer rather is."""
        columns = [row for row, text in enumerate(result.asked) if text in result.unanswered]
        if not len(regions) or not columns:
            return (None,) * len(result.asked)
        rows = probability[:, columns].argmax(axis=0)
        texts = [ranking.names[column] for column in columns]
        nearest = Regions(regions.image, regions.proposals[rows], regions.embeddings[rows])
        named = resemblances(
            self.encoder, self.serving, texts, ranking.embeddings[columns], nearest
        )
        known = dict(zip(columns, named, strict=True))
        return tuple(known.get(row) for row in range(len(result.asked)))

    def _serving(self, question: Question) -> Serving:
        """Return the settings of the encoder, with the question's templates and backgrounds."""
        chosen, sentences = self.serving, _sentences(question.templates)
        if sentences is not None:
            chosen = replace(chosen, templates=tuple(sentences))
        if question.backgrounds is not None:
            # the caller's own rivals, and no others
            chosen = replace(chosen, backgrounds=question.backgrounds, vocabulary=False)
        return chosen

    def concept(
        self, name: str, likes: Sequence[Example], unlikes: Sequence[Example] = ()
    ) -> Concept:
        """Make a concept of examples, to find more of their kind: ``Question(concepts=concept)``.

        unlikes: counter-examples. Saved by ``Concept.save``, its text is "@" and its name. Raises
        BadImage, and BadPrompt for an example whose place holds nothing.
        """
        positive, negative = (
            [take(example, self.proposer, self.scorer) for example in given]
            for given in (likes, unlikes)
        )
        return collect(name, positive, negative, self.encoder)

    def like(
        self,
        source: images.Source | Encoded,
        example: Points,
        prompt: Everything = Everything(),
        *,
        selection: Selection = Selection(),
    ) -> Result:
        """Find all objects similar to the clicked one, by the embedding of its best mask.

        The cosine replaces the probability, and the default threshold is ``serving.likeness``.
        Raises BadImage, and BadPrompt when no object is at the example's place.
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
        default = self.serving.likeness
        cosine = similarity(regions.embeddings, query)  # (N, 1)
        likeness = cosine.clip(0).astype(np.float64)
        rows = select(
            likeness[:, 0], cosine[:, 0], regions.masks, selection=selection, threshold=default
        )
        threshold = default if selection.threshold is None else selection.threshold
        return _result(regions, ("like this",), cosine, likeness, [TextAnswer(rows)], threshold)


def _sentences(chosen: str | Sequence[str] | None) -> Sequence[str] | None:
    return templates.get(chosen) if isinstance(chosen, str) else chosen


def _without_texts(
    regions: Regions, names: tuple[str, ...], prompts: tuple[str, ...], threshold: float
) -> Result:
    """Make a result without texts: similarity and probability are NaN."""
    unknown = np.full(len(names), np.nan, np.float32)
    return Result(regions, names, unknown, unknown, prompts, threshold)


def _result(
    regions: Regions,
    queries: tuple[str, ...],
    cosine: Array,
    probability: Array,
    answers: Sequence[TextAnswer],
    threshold: float,
) -> Result:
    columns = np.repeat(np.arange(len(queries)), [len(answer.rows) for answer in answers])
    flat = np.concatenate([np.zeros(0, np.int64), *(answer.rows for answer in answers)])
    return Result(
        regions[flat],
        tuple(queries[column] for column in columns),
        cosine[flat, columns],
        probability[flat, columns].astype(np.float32),
        queries,
        threshold,
        tuple(float(column.max(initial=0)) for column in probability.T),
        tuple(answer.reason for answer in answers),
    )
