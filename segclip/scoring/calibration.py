"""Calibrate an encoder by itself, on labelled regions that ship: threshold, scale, views, rivals.

How sure a CLIP is of a right answer, and how far a wrong one comes, differs from one to the next.
An encoder without settings of its own is measured when it is loaded: on regions of photographs with
their names, each compared as if it were in an image with many others. The result is kept by the
encoder's fingerprint.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256

import numpy as np

from .. import __version__
from ..encoders import Encoder, Serving
from ..errors import NotWritable, SegclipError
from ..files import atomic
from ..ranking.embedding import embed_texts, unit
from ..ranking.outcomes import Outcomes
from ..ranking.probability import Ranking, weigh
from ..types import Array, Image, Masks
from ..weights.cache import cache_folder, known_sha256
from .crops import CropPolicy
from .labelled import LabelledRegions, known_file
from .scorers import CropScorer, Scorer

OTHERS = 100  # regions beside the right one, about as many as an image has
DRAWS = 3  # times that each name is asked for where it is not
SCALES = (1.0, 2.0, 0.5, 0.25, 0.125)  # of the encoder's own logit scale, for patches
WEIGHTS = (0.0, 0.7, 1.0)  # of the proposer's quality
BETTER = 0.01  # minimum gain in worth for anything but the defaults
LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of a curve
GLANCE = 40  # regions with a name, and as many without, that show whether an encoder separates any
APART = 0.65  # chance that a region is nearer to its name than another region is: 0.5 is none

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """The settings that fit an encoder, and what to expect of them.

    right: share of names whose best answer is right. found, silent: see ``Outcomes``. apart: the
    chance that a region is nearer to its name than another region is; where it is under ``APART``,
    the encoder cannot separate regions and ``serving`` is as it was. curve: rows of a threshold,
    found and silent.
    """

    serving: Serving
    right: float = 0.0
    found: float = 0.0
    silent: float = 0.0
    apart: float = 0.0
    curve: tuple[tuple[float, float, float], ...] = ()

    @classmethod
    def of(cls, serving: Serving, outcomes: Outcomes, apart: float) -> Calibration:
        """Return what to expect of settings, from the outcomes at all thresholds."""
        return cls(
            serving,
            float(outcomes.is_right.mean()),
            outcomes.found(serving.threshold),
            outcomes.silent(serving.threshold),
            apart,
            tuple((level, outcomes.found(level), outcomes.silent(level)) for level in LEVELS),
        )

    @property
    def fits(self) -> bool:
        """Whether the encoder separates regions at all."""
        return self.apart >= APART

    def __str__(self) -> str:
        if not self.fits:
            return "tells nothing apart: its answers to texts are chance"
        return (
            f"threshold {self.serving.threshold:.2f}: finds {self.found:.0%} of what is there, "
            f"silent on {self.silent:.0%} of what is not"
        )


def calibrated(encoder: Encoder, scorer: Scorer) -> Calibration:
    """Return the calibration of an encoder that has none of its own, measured once.

    It is kept in the cache folder.
    """
    file = known_file()
    if not file.is_file():  # SEGCLIP_WEIGHTS names a folder without it
        return Calibration(encoder.serving)
    basis = (encoder.fingerprint, encoder.serving.to_dict(), __version__, known_sha256(file))
    key = sha256(repr(basis).encode()).hexdigest()
    path = cache_folder() / "calibrations" / f"{key[:24]}.json"
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError, SegclipError):
        data = json.loads(path.read_text("utf-8"))
        serving = Serving.from_dict(data.pop("serving"))
        return Calibration(serving, curve=tuple(map(tuple, data.pop("curve"))), **data)
    log.warning("%s has no threshold of its own; calibrating it, once", encoder.name)
    found = fit(encoder, scorer, LabelledRegions.read(file))
    log.warning("%s %s", encoder.name, found)
    with suppress(NotWritable):
        atomic.write(path, json.dumps(asdict(found), indent=1).encode())
    return found


def fit(encoder: Encoder, scorer: Scorer, regions: LabelledRegions) -> Calibration:
    """Choose views, vocabulary, logit scale, weight of quality and threshold that answer best.

    Of choices that are about equally good the first one stays, which is what the encoder has.
    """
    serving = encoder.serving
    glance = _glance(scorer, regions)
    if glance < APART:  # random weights, say
        return Calibration(serving, apart=glance)
    draws = Draws.of(regions.names)
    best, worth = Calibration(serving), -1.0
    for policy, embeddings in _embedded(scorer, regions):
        apart = _apart(embeddings, encoder, serving, draws)
        if apart < APART:
            best = max(best, Calibration(serving, apart=apart), key=lambda one: one.apart)
            continue
        likeness = draws.likeness(embeddings)
        for tried, probability in _probabilities(
            encoder, serving, embeddings, draws.texts, dense=not isinstance(scorer, CropScorer)
        ):
            for weight in dict.fromkeys((serving.quality_weight, *WEIGHTS)):
                weighed = weigh(probability, regions.quality, weight)
                outcomes = draws.outcomes(weighed)
                threshold = outcomes.fit()
                if outcomes.worth(threshold) <= worth + BETTER:
                    continue
                worth = outcomes.worth(threshold)
                fitted = replace(
                    tried,
                    policy=policy,
                    quality_weight=weight,
                    threshold=threshold,
                    likeness=likeness,
                    calibrated=True,
                )
                best = Calibration.of(fitted, outcomes, apart)
    return best


@dataclass(frozen=True, eq=False)
class Draws:
    """Questions about labelled regions, each among others as in an image.

    names: of all R regions. texts: the K names. present: rows (P, 1 + OTHERS), a named region
    first, then ones of other names or none. kinds: (P,), the name of each. absent, missing: rows
    (Q, OTHERS) without a region of the name (Q,).
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    present: Array
    kinds: Array
    absent: Array
    missing: Array

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Draws:
        """Draw the others of each question, always the same."""
        rng = np.random.default_rng(0)
        texts = tuple(sorted({name for name in names if name}))
        words = [set(name.split()) for name in names]
        other = [
            np.array([row for row, own in enumerate(words) if not own & set(name.split())])
            for name in texts
        ]

        def draw(kind: int) -> Array:
            return rng.choice(other[kind], OTHERS, replace=len(other[kind]) < OTHERS)

        named = [(row, texts.index(name)) for row, name in enumerate(names) if name]
        missing = np.repeat(np.arange(len(texts)), DRAWS)
        return cls(
            names,
            texts,
            np.array([[row, *draw(kind)] for row, kind in named]),
            np.array([kind for _, kind in named]),
            np.array([draw(kind) for kind in missing.tolist()]),
            missing,
        )

    def outcomes(self, probability: Array) -> Outcomes:
        """Return the best answers, given each region's probability for each name: (R, K)."""
        present = probability[self.present, self.kinds[:, None]]  # (P, 1 + OTHERS)
        absent = probability[self.absent, self.missing[:, None]]
        return Outcomes(present.max(axis=1), present.argmax(axis=1) == 0, absent.max(axis=1))

    def likeness(self, embeddings: Array) -> float:
        """Return the cosine that best separates regions of one name from others."""
        rows = self.present[:, 0]
        cosine = embeddings[rows] @ embeddings[rows].T
        same = self.kinds[:, None] == self.kinds
        pairs = ~np.eye(len(rows), dtype=bool)
        levels = np.unique(cosine[same & pairs].round(3))
        gain = [
            (cosine[same & pairs] >= level).mean() - (cosine[~same] >= level).mean()
            for level in levels
        ]
        return float(levels[int(np.argmax(gain))]) if len(levels) else 0.8


def _embedded(scorer: Scorer, regions: LabelledRegions) -> Iterator[tuple[CropPolicy, Array]]:
    """Embed the regions, (R, D), with the policy of the scorer and with each of its views alone."""
    if not isinstance(scorer, CropScorer):
        rows = [
            scorer.embed_regions(Image(pixels, "calibration"), Masks.from_dense(mask[None]))[0]
            for pixels, mask in zip(regions.pixels, regions.masks, strict=True)
        ]
        yield scorer.policy, np.stack(rows)
        return
    image, masks, policy = Image(regions.tiled(), "calibration"), regions.windows(), scorer.policy
    single = [replace(policy, views=(view,)) for view in policy.views]
    parts = [CropScorer(scorer.encoder, one).embed_regions(image, masks) for one in single]
    weights = [view.weight for view in policy.views]
    mixed = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    yield policy, unit(np.asarray(mixed))
    if len(single) > 1:
        yield from zip(single, parts, strict=True)


def _glance(scorer: Scorer, regions: LabelledRegions) -> float:
    """Return about how well regions are separated, by some of them."""
    is_named = np.array([bool(name) for name in regions.names])
    rows = [np.flatnonzero(is_named), np.flatnonzero(~is_named)]  # names may share a word
    some = regions[np.concatenate([part[:: max(1, len(part) // GLANCE)] for part in rows])]
    _, embeddings = next(_embedded(scorer, some))
    return _apart(embeddings, scorer.encoder, scorer.encoder.serving, Draws.of(some.names))


def _probabilities(
    encoder: Encoder, serving: Serving, embeddings: Array, names: tuple[str, ...], *, dense: bool
) -> Iterator[tuple[Serving, Array]]:
    """Score regions with and without everyday names: settings and (R, K).

    Patch similarities are spread wider than those of crops, for which the scale was trained.
    """
    certain = np.ones(len(embeddings), np.float32)
    for vocabulary in (False, True):
        tried = replace(serving, vocabulary=vocabulary, logit_scale=None, quality_weight=0.0)
        ranking = Ranking.of(encoder, tried, names)
        for factor in SCALES if dense else SCALES[:1]:
            scaled = replace(ranking, logit_scale=factor * encoder.logit_scale)
            scale = None if factor == 1 else factor * encoder.logit_scale
            yield replace(tried, logit_scale=scale), scaled.probability(embeddings, certain)


def _apart(embeddings: Array, encoder: Encoder, serving: Serving, draws: Draws) -> float:
    """Return the chance that a region is nearer to its name than a region of another name is."""
    texts = embed_texts(encoder, draws.texts, serving.templates)
    cosine = (embeddings @ texts.T)[draws.present, draws.kinds[:, None]]  # (P, 1 + OTHERS)
    return float((cosine[:, :1] > cosine[:, 1:]).mean())
