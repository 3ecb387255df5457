"""Load a Segmenter by names: presets, the manifest's weights, files of the user's own; and choose
the device.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import registry, weights
from .encoders import ENCODERS, Encoder
from .errors import UnknownName, Unsupported
from .proposers import PROPOSERS, Proposer, loader_of
from .scoring.crops import POLICIES, CropPolicy
from .scoring.scorers import scorer_of
from .segmenter import Segmenter
from .startup import without_collector
from .weights import cache

PRESETS: dict[str, tuple[str, str]] = {
    "mini": ("mini-fastsam", "mini-clip"),
    "mini-sam": ("mini-sam", "mini-clip"),
    "photo": ("fastsam-s", "ViT-B-32/datacomp_xl_s13b_b90k"),
    "photo-large": ("fastsam-x", "ViT-B-16/datacomp_xl_s13b_b90k"),
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadOptions:
    """Say what loading may do.

    offline: forbid the network, for this whole process. trust: load pickled weights that no
    manifest vouches for.
    """

    offline: bool = False
    trust: bool = False


def load(
    proposer: str = "mini",
    encoder: str | None = None,
    *,
    device: str = "auto",
    policy: str | CropPolicy | None = None,
    options: LoadOptions = LoadOptions(),
) -> Segmenter:
    """Load a preset, or a proposer and an encoder by name; either may be a preset, for its part, or
    ``file:PATH``.

    proposer: also NAME/file:PATH, where the file's own name doesn't tell what it is. device: "auto"
    (CUDA, then Apple's MPS, then the CPU) or a name of torch's. policy: how regions are cut for the
    encoder; None takes what is stored with it, which may be another way than crops. Raises
    UnknownName, WeightsMissing, WeightsCorrupt or Unsupported.
    """
    names = pair(proposer, encoder)
    chosen = registry.choose(POLICIES, policy, "crop policy") if isinstance(policy, str) else policy
    if options.offline:
        weights.set_offline()
    source = _source(
        names[0], trust=options.trust
    )  # before torch is imported: what is missing is told soon
    with without_collector():
        place = _device(device)
        log.info("loading %s and %s on %s", *names, place)
        finder = _open_proposer(source, place)
        reader = _open_encoder(names[1], place, options.trust)
    return Segmenter(finder, reader, scorer_of(reader, chosen))


def load_proposer(
    name: str, *, device: str = "auto", options: LoadOptions = LoadOptions()
) -> Proposer:
    """Load a proposer alone: a name, a preset for its proposer, ``file:PATH`` or NAME/file:PATH."""
    if options.offline:
        weights.set_offline()
    source = _source(PRESETS.get(name, (name, ""))[0], trust=options.trust)
    with without_collector():
        return _open_proposer(source, _device(device))


def load_picker(
    proposer: str = "mini", *, device: str = "auto", options: LoadOptions = LoadOptions()
) -> Segmenter:
    """Load a segmenter without an encoder, in half the time: it answers places and everything, but
    no texts.
    """
    return Segmenter(load_proposer(proposer, device=device, options=options))


def load_encoder(
    name: str, *, device: str = "auto", options: LoadOptions = LoadOptions()
) -> Encoder:
    """Load an encoder alone: a name, a preset for its encoder, or a spec such as
    ``MODEL/file:PATH``.
    """
    if options.offline:
        weights.set_offline()
    with without_collector():
        return _open_encoder(PRESETS.get(name, ("", name))[1], _device(device), options.trust)


def encoder_fingerprint(name: str, *, options: LoadOptions = LoadOptions()) -> str:
    """Hash what an encoder's embeddings depend on: its weights, the model's shape, its
    preprocessing.
    """
    if options.offline:
        weights.set_offline()
    with without_collector():
        from .encoders import sources

        return sources.find(PRESETS.get(name, ("", name))[1], trust=options.trust).fingerprint


def fingerprint(
    proposer: str, encoder: str | None, *, options: LoadOptions = LoadOptions()
) -> dict[str, str]:
    """Name the weights that ``load`` would take, with the SHA-256 of each of their files: what an
    answer depends on.
    """
    names = pair(proposer, encoder)
    if options.offline:
        weights.set_offline()
    found = _source(names[0], trust=options.trust).path
    with without_collector():
        from .encoders import sources

        read = sources.find(names[1], trust=options.trust)
    served = f"{cache.known_hashes(read.weights)} {read.serving.to_dict()}"
    return {names[0]: cache.known_hashes(found), names[1]: served}


def pair(proposer: str, encoder: str | None) -> tuple[str, str]:
    """Spell a preset, or a proposer and an encoder, out as the names of a proposer and an
    encoder.
    """
    if encoder is None:
        if proposer in PRESETS:
            return PRESETS[proposer]
        if proposer.partition("/")[0] in _names("proposer") or proposer.startswith("file:"):
            raise UnknownName(
                f"{proposer!r} needs an encoder beside it; or take a preset: {', '.join(PRESETS)}"
            )
        return registry.choose(PRESETS, proposer, "preset")
    own = (proposer, encoder)
    return PRESETS.get(proposer, own)[0], PRESETS.get(encoder, own)[1]


def _device(name: str) -> str:
    import torch  # here, so that importing segclip stays light

    gpus = (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    here = [
        *["cuda"][: len(gpus)],
        *gpus,
        *(["mps"] if torch.backends.mps.is_available() else []),
        "cpu",
    ]
    if name == "auto":
        return here[0]
    if name not in here:
        raise Unsupported(
            f"device {name!r} is not available here; choose one of auto, {', '.join(here)}"
        )
    return name


@dataclass(frozen=True)
class _Source:
    """Say what makes a proposer: its loader, its weights, and the loader's own settings."""

    loader: str
    path: Path
    settings: dict[str, Any]


def _source(name: str, *, trust: bool) -> _Source:
    """Find a proposer by the manifest's name, by ``file:PATH``, or by NAME/file:PATH, weights of
    that name's kind.
    """
    known, slash, own = name.partition("/file:")
    if name.startswith("file:"):
        path = weights.locate(name, trust=trust)
        loader, options = loader_of(path), dict[str, Any]()
    else:
        loader = registry.choose(_names("proposer"), known, "proposer")
        path = weights.locate(f"file:{own}" if slash else known, trust=trust)
        options = dict(weights.entry_of(known).options)
    return _Source(loader, path, options | {"trust": trust})


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
