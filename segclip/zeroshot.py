"""Rank texts for an image, a box or a segment: zero-shot classification by names alone.

The weights of a classifier are one unit embedding a label, the mean over templates of its sentences
(Radford et al. 2021, section 3.1.4); whatever is shown to the encoder is compared with them.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

import numpy as np

from . import images, loading, question
from .encoders import Encoder
from .errors import BadPrompt, UnknownName
from .files import lines
from .ranking import templates
from .ranking.probability import embed_texts, logit_scale_of, probabilities, similarity, unit, weigh
from .ranking.selection import Selection, select
from .registry import explain, resolve
from .scoring.crops import CropPolicy
from .scoring.scorers import scorer_of
from .types import Array, Boxes, Masks, Regions, Result, Scores
from .weights import cache

CLASS_LISTS: dict[str, str] = {"imagenet": "segclip.encoders.openclip:imagenet_classes"}
LIST_TEMPLATES = "clip-80"  # what the figures published for a named list were measured with
_CHUNK = 16  # labels embedded at a time

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """Hold the texts that are ranked, each once, and how they are put into sentences.

    templates: a set's name, a file, or sentences; None takes the encoder's own. verbatim: labels
    stand in them as they are, without the articles of ``templates.expand``: so published figures
    are measured.
    """

    names: tuple[str, ...]
    templates: str | tuple[str, ...] | None = None
    verbatim: bool = False

    def __post_init__(self) -> None:
        if not self.names:
            raise BadPrompt(
                "no labels were given; give them by comma, in a file, or name a list: imagenet"
            )

    def __len__(self) -> int:
        return len(self.names)

    def sentences(self, encoder: Encoder) -> tuple[str, ...]:
        """Give the templates."""
        if self.templates is None:
            return encoder.serving.templates
        return templates.get(self.templates) if isinstance(self.templates, str) else self.templates


@dataclass(frozen=True, eq=False)
class Classifier:
    """Rank labels with an encoder. weights: float32 (T, D), unit rows."""

    encoder: Encoder
    labels: Labels
    weights: Array

    @property
    def logit_scale(self) -> float:
        """Return what cosines are multiplied by."""
        return logit_scale_of(self.encoder, self.encoder.serving)

    def whole(self, source: images.Source) -> Scores:
        """Compare a whole image with every label: one row. Raises BadImage."""
        return self.scores(self.encoder.encode_images([images.load(source).pixels]))

    def boxes(
        self, source: images.Source, boxes: Boxes, *, policy: str | CropPolicy | None = None
    ) -> Scores:
        """Compare what each box shows with every label, a row a box, embedded as the encoder is
        served.

        policy: how boxes are cut instead.
        """
        image = images.load(source)
        boxes.check(image.size)
        height, width = image.size
        inside = boxes.xyxy.clip(0, [width, height, width, height])
        scorer = scorer_of(self.encoder, policy)
        return self.scores(scorer.embed_regions(image, Masks.solid(inside, image.size)))

    def scores(self, embeddings: Array) -> Scores:
        """Compare embeddings (N, D) with every label."""
        return Scores(similarity(embeddings, self.weights), self.labels.names, self.logit_scale)

    def name(self, regions: Regions, selection: Selection = Selection()) -> Result:
        """Name every region by its best label: "what is in this picture". Duplicates and parts of a
        whole go.

        The probability is that of the label among all labels and the encoder's backgrounds, weighed
        by quality as in ``Segmenter.rank``; a region below the threshold has no name.
        """
        serving = self.encoder.serving
        others = [text for text in serving.backgrounds if text not in self.labels.names]
        against = similarity(
            regions.embeddings, embed_texts(self.encoder, others, serving.templates)
        )
        cosine = self.scores(regions.embeddings).similarity
        best = cosine.argmax(axis=1)
        rows = np.arange(len(regions))
        own = cosine[rows, best]
        rivals = np.concatenate([cosine, against], axis=1)
        rivals[rows, best] = -np.inf  # itself
        shares = probabilities(own[:, None], rivals, self.logit_scale)
        shares = weigh(shares, regions.proposals.quality, serving.quality_weight)[:, 0]
        shares[~regions.embeddings.any(axis=1)] = 0
        threshold = serving.threshold if selection.threshold is None else selection.threshold
        kept = select(shares, own, regions.masks, selection=selection, threshold=threshold)
        texts = tuple(self.labels.names[best[row]] for row in kept)
        asked = tuple(dict.fromkeys(texts))
        return Result(
            regions[kept], texts, own[kept], shares[kept].astype(np.float32), asked, threshold
        )


@dataclass(frozen=True)
class Guess:
    """Hold one label of an answer."""

    label: str
    probability: float
    similarity: float


def classify(
    source: images.Source,
    labels: str | Sequence[str] | Labels,
    *,
    encoder: str | Encoder = "mini",
    boxes: Boxes | None = None,
    top_k: int = 5,
) -> tuple[tuple[Guess, ...], ...]:
    """Give the likeliest labels of an image, or of each box in it, best first.

    labels: texts, texts by comma, a list's name, or ``Labels``. encoder: a name, as in
    ``segclip.load``, or one that is loaded. Raises BadImage, BadPrompt.
    """
    given = labels if isinstance(labels, Labels) else read_labels(labels)
    classifier = build(
        loading.load_encoder(encoder) if isinstance(encoder, str) else encoder, given
    )
    return best(
        classifier.whole(source) if boxes is None else classifier.boxes(source, boxes), top_k
    )


def best(scores: Scores, top_k: int = 5) -> tuple[tuple[Guess, ...], ...]:
    """Give the likeliest labels of each row, best first, equal ones in the order of the labels."""
    if top_k < 1:
        raise BadPrompt(f"top_k must be 1 or more, got {top_k}")
    shares = scores.probabilities(over="texts")
    order = np.argsort(-scores.similarity, axis=1, kind="stable")[:, :top_k]
    return tuple(
        tuple(
            Guess(scores.texts[c], float(shares[row, c]), float(scores.similarity[row, c]))
            for c in columns
        )
        for row, columns in enumerate(order)
    )


def read_labels(
    given: str | Sequence[str],
    *,
    templates: str | tuple[str, ...] | None = None,
    file: Path | None = None,
) -> Labels:
    """Read labels: by comma, as a list, from a file with one a line, or a class list by its name,
    such as imagenet.

    file: "-" is standard input. A label given twice is told and used once, an endless one is cut
    and told; the published lists, which name a few classes alike, stay as they are. Raises
    BadPrompt, BadTable for the file, and UnknownName for what is nearly a list's name.
    """
    if file is not None:
        return _labels(lines.read(file, "the labels file"), templates)
    if isinstance(given, str) and given.strip() in CLASS_LISTS:
        names = resolve(CLASS_LISTS, given.strip(), "class list")()
        return Labels(_apart(names), templates or LIST_TEMPLATES, verbatim=True)
    lone = given.strip().lower() if isinstance(given, str) and "," not in given else ""
    if isinstance(given, str) and get_close_matches(lone, CLASS_LISTS, n=1, cutoff=0.75):
        message = explain(CLASS_LISTS, given.strip(), "list of labels")
        raise UnknownName(
            f"{message}; for a label of that name write it with a comma, {given.strip() + ','!r}"
        )
    parts = [part for part in given.split(",") if part.strip()] if isinstance(given, str) else given
    if (
        isinstance(given, str)
        and len(parts) > 1
        and (lists := CLASS_LISTS.keys() & {part.strip() for part in parts})
    ):
        raise BadPrompt(f"{min(lists)!r} is a whole list of labels; give it alone, or leave it out")
    return _labels(parts, templates)


def _labels(given: Sequence[str], templates: str | tuple[str, ...] | None) -> Labels:
    return Labels(question.unique([question.shorten(text) for text in given]), templates)


def build(encoder: Encoder, labels: Labels) -> Classifier:
    """Make a classifier; its weights are kept on disk for the next time, by the encoder's
    fingerprint.
    """
    sentences, key = labels.sentences(encoder), encoder.fingerprint
    told = repr((labels.names, sentences, labels.verbatim, key)).encode("utf-8", "surrogatepass")
    path = cache.cache_folder() / "labels" / f"{sha256(told).hexdigest()[:32]}.npy" if key else None
    if path is not None:
        with suppress(OSError, ValueError, EOFError):
            kept = np.load(path, allow_pickle=False)
            if len(kept) == len(labels):
                return Classifier(encoder, labels, kept)
    weights = _embed(encoder, labels, sentences)
    if path is not None:
        _keep(path, weights)
    return Classifier(encoder, labels, weights)


make_classifier = build  # its name among the public ones


def _embed(encoder: Encoder, labels: Labels, sentences: Sequence[str]) -> Array:
    """Embed the labels: float32 (T, D), unit rows."""
    if not labels.verbatim:
        return embed_texts(encoder, labels.names, sentences)
    chunks = [labels.names[start : start + _CHUNK] for start in range(0, len(labels), _CHUNK)]
    if len(chunks) > 1:
        log.info("embedding %d labels in %d sentences each", len(labels), len(sentences))
    return np.concatenate([_ensemble(encoder, chunk, sentences) for chunk in chunks])


def _ensemble(encoder: Encoder, names: Sequence[str], sentences: Sequence[str]) -> Array:
    texts = [
        text
        for name in names
        for text in templates.fill(name.partition(_TELLS_APART)[0], sentences)
    ]
    embedded = encoder.encode_texts(texts)
    return unit(embedded.reshape(len(names), len(sentences), -1).mean(axis=1))


_TELLS_APART = " #"


def _apart(names: Sequence[str]) -> tuple[str, ...]:
    """Number names that a class list gives to two classes, so that an answer tells which; sentences
    don't say it.
    """
    counts, seen = Counter(names), Counter[str]()
    told = []
    for name in names:
        seen[name] += 1
        told.append(name if counts[name] == 1 else f"{name}{_TELLS_APART}{seen[name]}")
    return tuple(told)


def _keep(path: Path, weights: Array) -> None:
    """Store weights for the next time; a cache that can't be written only costs doing them
    again.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{os.getpid()}.{path.name}")
        np.save(aside, weights)
        os.replace(aside, path)
