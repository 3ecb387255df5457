"""Put the halves together: `Segmenter.regions` turns pixels into regions, `Segmenter.rank` ranks them by text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from . import images, registry, templates, weights
from .crops import POLICIES, CropPolicy
from .encoders import ENCODERS, Encoder
from .errors import BadPrompt, UnknownName, Unsupported
from .proposers import PROPOSERS, Proposer, loader_of
from .scoring import CropScorer, embed_texts, similarity
from .selection import Selection, probabilities, select, weigh
from .types import Array, Everything, Prompt, Regions, Result

PRESETS: dict[str, tuple[str, str]] = {
    "mini": ("mini-fastsam", "mini-clip"),
    "photo": ("fastsam-s", "ViT-B-32/datacomp_xl_s13b_b90k"),
    "photo-large": ("fastsam-x", "ViT-B-16/datacomp_xl_s13b_b90k"),
}

MAX_TEXT = 1000  # characters; encoders read fewer, and tell where they stop

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadOptions:
    """Say what loading may do.

    offline: forbid the network, for this whole process. trust: load pickled weights that no manifest vouches for.
    """

    offline: bool = False
    trust: bool = False


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Find regions in an image and rank them by text."""

    proposer: Proposer
    encoder: Encoder
    scorer: CropScorer

    def __call__(
        self,
        source: images.Source,
        texts: str | Sequence[str],
        prompt: Prompt = Everything(),
        *,
        negatives: str | Sequence[str] = (),
        backgrounds: str | Sequence[str] | None = None,
        selection: Selection = Selection(),
    ) -> Result:
        """Answer texts about a picture in one go; ``regions`` and ``rank`` are its halves."""
        regions = self.regions(source, prompt)
        return self.rank(regions, texts, negatives=negatives, backgrounds=backgrounds, selection=selection)

    def regions(
        self, source: images.Source, prompt: Prompt = Everything(), *, max_pixels: int = images.MAX_PIXELS
    ) -> Regions:
        """Find and embed the regions a spatial prompt asks for: the slow half, without any text.

        Raises BadImage. max_pixels: the largest picture that is read.
        """
        image = images.load(source, max_pixels=max_pixels)
        start = perf_counter()
        proposals = self.proposer.decode(self.proposer.encode(image), prompt)
        found = perf_counter()
        regions = Regions(image, proposals, self.scorer.embed_regions(image, proposals.masks))
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
        asked, ruled_out = unique(texts), unique(negatives)
        if both := set(asked) & set(ruled_out):
            raise BadPrompt(f"{min(both)!r} is both asked for and ruled out; drop one of them")
        others = [*ruled_out, *unique(serving.backgrounds if backgrounds is None else backgrounds)]
        embedded = embed_texts(self.encoder, [*asked, *others], _sentences(templates, serving.templates))
        cosine = similarity(regions.embeddings, embedded)  # (N, T + K)
        probability = _compete(cosine, asked, others, self.encoder.logit_scale)  # (N, T)
        probability = weigh(probability, regions.proposals.quality, serving.quality_weight)
        probability[~regions.embeddings.any(axis=1)] = 0  # too small to be looked at
        return _answer(regions, asked, cosine, probability, selection=selection, threshold=serving.threshold)


def load(
    proposer: str = "mini",
    encoder: str | None = None,
    *,
    device: str = "auto",
    policy: str | CropPolicy | None = None,
    options: LoadOptions = LoadOptions(),
) -> Segmenter:
    """Load a preset, or a proposer and an encoder by name; either may be a preset, for its part, or ``file:PATH``.

    proposer: also NAME/file:PATH, where the file's own name doesn't tell what it is. device: "auto" (CUDA, then Apple's
    MPS, then the CPU) or a name of torch's. policy: how regions are shown to the encoder; None takes the one stored
    with it. Raises UnknownName, WeightsMissing, WeightsCorrupt or Unsupported.
    """
    names = pair(proposer, encoder)
    chosen = registry.choose(POLICIES, policy, "crop policy") if isinstance(policy, str) else policy
    if options.offline:
        weights.set_offline()
    source = _source(names[0], trust=options.trust)  # before torch is imported: what is missing is told soon
    place = _device(device)
    log.info("loading %s and %s on %s", *names, place)
    finder = _open_proposer(source, place)
    reader = _open_encoder(names[1], place, options.trust)
    return Segmenter(finder, reader, CropScorer(reader, chosen))


def pair(proposer: str, encoder: str | None) -> tuple[str, str]:
    """Spell a preset, or a proposer and an encoder, out as the names of a proposer and an encoder."""
    if encoder is None:
        if proposer.partition("/")[0] in _names("proposer") or proposer.startswith("file:"):
            raise UnknownName(f"{proposer!r} needs an encoder beside it; or take a preset: {', '.join(PRESETS)}")
        return registry.choose(PRESETS, proposer, "preset")
    own = (proposer, encoder)
    return PRESETS.get(proposer, own)[0], PRESETS.get(encoder, own)[1]


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
    for text in once:
        if given.count(text) > 1:
            log.warning("%r was given %d times and is used once", text, given.count(text))
    return once


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


def _answer(
    regions: Regions,
    asked: tuple[str, ...],
    cosine: Array,
    probability: Array,
    *,
    selection: Selection,
    threshold: float,
) -> Result:
    rows = [
        select(p, cosines, regions.masks, selection=selection, threshold=threshold)
        for p, cosines in zip(probability.T, cosine.T[: len(asked)], strict=True)
    ]
    columns = np.repeat(np.arange(len(asked)), [len(chosen) for chosen in rows])
    flat = np.concatenate([np.zeros(0, np.int64), *rows])
    return Result(
        regions[flat],
        tuple(asked[column] for column in columns),
        cosine[flat, columns],
        probability[flat, columns].astype(np.float32),
        asked,
        threshold if selection.threshold is None else selection.threshold,
        tuple(float(column.max(initial=0)) for column in probability.T),
    )


def _device(name: str) -> str:
    import torch  # here, so that importing segclip stays light

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    here = [*["cuda"][: len(gpus)], *gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
    if name == "auto":
        return here[0]
    if name not in here:
        raise Unsupported(f"device {name!r} is not available here; choose one of auto, {', '.join(here)}")
    return name


@dataclass(frozen=True)
class _Source:
    """Say what makes a proposer: its loader, its weights, and the loader's own settings."""

    loader: str
    path: Path
    settings: dict[str, Any]


def _source(name: str, *, trust: bool) -> _Source:
    """Find a proposer by the manifest's name, by ``file:PATH``, or by NAME/file:PATH, weights of that name's kind."""
    known, slash, own = name.partition("/file:")
    if name.startswith("file:"):
        path = weights.locate(name, trust=trust)
        loader, options = loader_of(path), dict[str, Any]()
    else:
        loader = registry.choose(_names("proposer"), known, "proposer")
        path = weights.locate(f"file:{own}" if slash else known, trust=trust)
        options = dict(weights.entry_of(known).options)
    return _Source(loader, path, options | ({"trust": trust} if loader == "fastsam" else {}))


def _open_proposer(source: _Source, device: str) -> Proposer:
    make = registry.resolve(PROPOSERS, source.loader, "proposer loader")
    opened: Proposer = make(source.path, device=device, **source.settings)
    return opened


def _open_encoder(name: str, device: str, trust: bool) -> Encoder:
    from .encoders.openclip import OpenClipOptions  # here, because it imports torch

    make = registry.resolve(ENCODERS, _names("encoder").get(name, "openclip"), "encoder loader")
    opened: Encoder = make(name, device=device, options=OpenClipOptions(trust=trust))
    return opened


def _names(kind: str) -> dict[str, str]:
    """Give the manifest's names of a kind with the loader of each."""
    return {name: entry.loader for name, entry in weights.manifest().items() if entry.kind == kind}
