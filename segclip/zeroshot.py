"""Zero-shot classification of images, boxes and segments by label names.

The weights of a classifier are one unit embedding per label, the mean over templates of its
sentences (Radford et al. 2021, section 3.1.4); image embeddings are compared with them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

import numpy as np

from . import images, loading, question
from .encoders import Encoder
from .errors import BadPrompt, NotWritable, UnknownName
from .files import atomic, lines
from .ranking import templates
from .ranking.concepts import Concept
from .ranking.embedding import embed_names, embed_texts, similarity, unit
from .ranking.probability import Taught, find_concepts, logit_scale_of, probabilities, weigh
from .ranking.selection import Selection, select
from .registry import explain, resolve
from .scoring.crops import CropPolicy
from .scoring.scorers import scorer_of
from .types import Array, Boxes, Masks, Regions, Result, Scores
from .weights import cache

CLASS_LISTS: dict[str, str] = {"imagenet": "segclip.encoders.openclip:imagenet_classes"}
LIST_TEMPLATES = "clip-80"  # as in the published figures for a named list
_CHUNK = 16  # labels embedded at a time
_NUMBER_MARK = " #"  # before the number of a class that shares its name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """The labels to rank, each once, and their templates.

    templates: the name of a set, a file, or sentences; None uses the encoder's own. verbatim: fill
    labels in as they are, without the articles of ``templates.expand``, as in published figures.
    """

    names: tuple[str, ...]
    templates: str | tuple[str, ...] | None = None
    verbatim: bool = False

    def __post_init__(self) -> None:
        if not self.names:
            raise BadPrompt(
                "no labels were given; separate them by comma, use a file, or name a list: imagenet"
            )

    def __len__(self) -> int:
        return len(self.names)

    def sentences(self, encoder: Encoder) -> tuple[str, ...]:
        """Return the templates, resolved for an encoder."""
        if self.templates is None:
            return encoder.serving.templates
        return templates.get(self.templates) if isinstance(self.templates, str) else self.templates


@dataclass(frozen=True, eq=False)
class Classifier:
    """Ranks labels with an encoder. weights: float32 (T, D), unit rows. taught: its concepts."""

    encoder: Encoder
    labels: Labels
    weights: Array
    taught: Taught | None = None

    @property
    def logit_scale(self) -> float:
        """Return the factor of cosines, already exponentiated."""
        return logit_scale_of(self.encoder, self.encoder.serving)

    def whole(self, source: images.Source) -> Scores:
        """Score a whole image against every label: one row. Raises BadImage."""
        return self.scores(self.encoder.encode_images([images.load(source).pixels]))

    def boxes(
        self, source: images.Source, boxes: Boxes, *, policy: str | CropPolicy | None = None
    ) -> Scores:
        """Score each box against every label: one row per box.

        policy: crop policy; default: the scorer of the encoder's ``serving``. Raises BadImage and
        BadPrompt.
        """
        image = images.load(source)
        boxes.check(image.size)
        height, width = image.size
        inside = boxes.xyxy.clip(0, [width, height, width, height])
        scorer = scorer_of(self.encoder, policy)
        return self.scores(scorer.embed_regions(image, Masks.solid(inside, image.size)))

    def scores(self, embeddings: Array) -> Scores:
        """Score embeddings (N, D) against every label."""
        cosine = similarity(embeddings, self.weights)
        if self.taught is not None:
            cosine = self.taught.align(cosine, embeddings).clip(-1, 1).astype(np.float32)
        return Scores(cosine, self.labels.names, self.logit_scale)

    def name(self, regions: Regions, selection: Selection = Selection()) -> Result:
        """Label every region with its best label, without duplicates and parts of a whole.

        The probability is that of the label among all labels and the encoder's backgrounds, weighed
        by quality as in ``Segmenter.rank``; regions below the threshold are left out.
        """
        serving = self.encoder.serving
        backgrounds = [text for text in serving.backgrounds if text not in self.labels.names]
        against = similarity(
            regions.embeddings, embed_texts(self.encoder, backgrounds, serving.templates)
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
        found = tuple(dict.fromkeys(texts))
        return Result(
            regions[kept], texts, own[kept], shares[kept].astype(np.float32), found, threshold
        )


@dataclass(frozen=True)
class Guess:
    """One label of an answer."""

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
    """Return the most probable labels of an image, or of each box in it, best first.

    labels: texts, comma-separated texts, the name of a list, or ``Labels``. encoder: a name, as in
    ``segclip.load``, or a loaded one. Raises BadImage, BadPrompt.
    """
    given = labels if isinstance(labels, Labels) else read_labels(labels)
    classifier = build(
        loading.load_encoder(encoder) if isinstance(encoder, str) else encoder, given
    )
    return best(
        classifier.whole(source) if boxes is None else classifier.boxes(source, boxes), top_k
    )


def best(scores: Scores, top_k: int = 5) -> tuple[tuple[Guess, ...], ...]:
    """Return the most probable labels of each row, best first; ties keep the order of labels."""
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
    """Read labels: comma-separated, a sequence, a file with one per line, or a class list's name.

    file: "-" is standard input. Duplicate labels are logged and used once, overlong ones are cut
    and logged; classes of published lists that share a name are numbered. Raises BadPrompt,
    BadTable for the file, and UnknownName for a misspelt list name such as "imagenett".
    """
    if file is not None:
        return _labels(lines.read(file, "the labels file"), templates)
    if not isinstance(given, str):
        return _labels(given, templates)
    name = given.strip()
    if name in CLASS_LISTS:
        names = resolve(CLASS_LISTS, name, "class list")()
        return Labels(_numbered(names), templates or LIST_TEMPLATES, verbatim=True)
    if "," not in given and get_close_matches(name.lower(), CLASS_LISTS, n=1, cutoff=0.75):
        message = explain(CLASS_LISTS, name, "list of labels")
        raise UnknownName(
            f"{message}; for a label of that name write it with a comma, {name + ','!r}"
        )
    parts = [part for part in given.split(",") if part.strip()]
    if len(parts) > 1 and (lists := CLASS_LISTS.keys() & {part.strip() for part in parts}):
        raise BadPrompt(f"{min(lists)!r} is a whole list of labels; give it alone, or leave it out")
    return _labels(parts, templates)


def _labels(given: Sequence[str], templates: str | tuple[str, ...] | None) -> Labels:
    return Labels(question.unique([question.shorten(text) for text in given]), templates)


def build(encoder: Encoder, labels: Labels) -> Classifier:
    """Make a classifier; its weights are cached on disk by the encoder's fingerprint.

    A label such as "@bolt" is a saved concept. Raises what ``find_concepts`` does.
    """
    sentences, key = labels.sentences(encoder), encoder.fingerprint
    if found := find_concepts(encoder, labels.names):
        return _with_concepts(encoder, labels, sentences, found)
    if not key:  # an encoder of the caller's own
        return Classifier(encoder, labels, _embed(encoder, labels, sentences))
    identity = repr((labels.names, sentences, labels.verbatim, key))
    name = sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    path = cache.cache_folder() / "labels" / f"{name}.npy"
    with suppress(OSError, ValueError, EOFError):
        cached = np.load(path, allow_pickle=False)
        if len(cached) == len(labels):
            return Classifier(encoder, labels, cached)
    weights = _embed(encoder, labels, sentences)
    # if that fails, they are only computed again next time
    with suppress(NotWritable), atomic.replacing(path, sync=False) as file:
        np.save(file, weights)
    return Classifier(encoder, labels, weights)


make_classifier = build  # the public name


def _with_concepts(
    encoder: Encoder, labels: Labels, sentences: Sequence[str], found: Mapping[int, Concept]
) -> Classifier:
    serving = encoder.serving
    backgrounds = embed_texts(encoder, serving.backgrounds, serving.templates)
    taught = Taught(found, backgrounds, serving, logit_scale_of(encoder, serving))
    return Classifier(encoder, labels, embed_names(encoder, labels.names, sentences, found), taught)


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
        for text in templates.fill(name.partition(_NUMBER_MARK)[0], sentences)
    ]
    embedded = encoder.encode_texts(texts)
    return unit(embedded.reshape(len(names), len(sentences), -1).mean(axis=1))


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Number the classes that share a name, so that answers are distinct; sentences omit it."""
    totals, used = Counter(names), Counter[str]()
    numbered = []
    for name in names:
        used[name] += 1
        numbered.append(name if totals[name] == 1 else f"{name}{_NUMBER_MARK}{used[name]}")
    return tuple(numbered)
