"""Load a Segmenter by preset, weights name or file, and choose the device."""

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
class ModelSpec:
    """Models by name, and how they are loaded; the command line passes one to every worker.

    proposer, encoder, device, policy, offline, trust: as ``load`` takes them, the policy by its
    name. proposer: None is "mini", or for an index the one it was built with.
    """

    proposer: str | None = None
    encoder: str | None = None
    device: str = "auto"
    policy: str | None = None
    offline: bool = False
    trust: bool = False

    @property
    def names(self) -> tuple[str, str]:
        """Return the names of the proposer and the encoder. Raises UnknownName."""
        return pair(self.proposer or "mini", self.encoder)

    def open(self) -> Segmenter:
        """Load both models."""
        return load(
            self.proposer or "mini",
            self.encoder,
            device=self.device,
            policy=self.policy,
            offline=self.offline,
            trust=self.trust,
        )

    def open_picker(self) -> Segmenter:
        """Load a segmenter without an encoder."""
        return load_picker(
            self.proposer or "mini", device=self.device, offline=self.offline, trust=self.trust
        )

    def open_proposer(self) -> Proposer:
        """Load the proposer only."""
        return load_proposer(
            self.proposer or "mini", device=self.device, offline=self.offline, trust=self.trust
        )

    def open_encoder(self) -> Encoder:
        """Load the encoder only; the preset's, if none is named."""
        name = self.encoder or self.proposer or "mini"
        return load_encoder(name, device=self.device, offline=self.offline, trust=self.trust)

    def encoder_fingerprint(self) -> str:
        """Hash what the encoder's embeddings depend on."""
        name = self.encoder or self.proposer or "mini"
        return encoder_fingerprint(name, offline=self.offline, trust=self.trust)

    def fingerprint(self) -> dict[str, str]:
        """Return the weights of both models by name, which results depend on."""
        return fingerprint(
            self.proposer or "mini", self.encoder, offline=self.offline, trust=self.trust
        )


def load(
    proposer: str = "mini",
    encoder: str | None = None,
    *,
    device: str = "auto",
    policy: str | CropPolicy | None = None,
    offline: bool = False,
    trust: bool = False,
) -> Segmenter:
    """Load a preset, or a proposer and an encoder.

    proposer, encoder: a name, a preset (for its part), or ``file:PATH``. proposer: also
    NAME/file:PATH, when the file's own name does not identify its kind. device: "auto" (CUDA, then
    Apple's MPS, then the CPU) or a torch device name. policy: how regions are cut for the encoder;
    None uses what is stored with it, which need not be crops. offline: never use the network for
    these models. trust: load pickled weights that are not in the manifest. Raises UnknownName,
    WeightsMissing, WeightsCorrupt or Unsupported.
    """
    names = pair(proposer, encoder)
    chosen = registry.choose(POLICIES, policy, "crop policy") if isinstance(policy, str) else policy
    with weights.offline(offline):
        # before torch is imported, so that missing weights are reported at once
        source = _source(names[0], trust=trust)
        with without_collector():
            torch_device = _device(device)
            log.info("loading %s and %s on %s", *names, torch_device)
            opened = _open_proposer(source, torch_device)
            text_encoder = _calibrated(
                _open_encoder(names[1], torch_device, offline=offline, trust=trust)
            )
    return Segmenter(opened, text_encoder, scorer_of(text_encoder, chosen))


def load_proposer(
    name: str, *, device: str = "auto", offline: bool = False, trust: bool = False
) -> Proposer:
    """Load a proposer only: a name, a preset, ``file:PATH`` or NAME/file:PATH."""
    with weights.offline(offline):
        source = _source(PRESETS.get(name, (name, ""))[0], trust=trust)
        with without_collector():
            return _open_proposer(source, _device(device))


def load_picker(
    proposer: str = "mini", *, device: str = "auto", offline: bool = False, trust: bool = False
) -> Segmenter:
    """Load a segmenter without an encoder, in half the time; it cannot answer texts."""
    return Segmenter(load_proposer(proposer, device=device, offline=offline, trust=trust))


def load_encoder(
    name: str,
    *,
    device: str = "auto",
    offline: bool = False,
    trust: bool = False,
    calibrate: bool = True,
) -> Encoder:
    """Load an encoder only: a name, a preset, or ``MODEL/file:PATH``.

    calibrate: measure an encoder without a threshold of its own, see ``scoring.calibration``.
    """
    with weights.offline(offline), without_collector():
        found = PRESETS.get(name, ("", name))[1]
        opened = _open_encoder(found, _device(device), offline=offline, trust=trust)
        return _calibrated(opened) if calibrate else opened


def encoder_fingerprint(name: str, *, offline: bool = False, trust: bool = False) -> str:
    """Hash what an encoder's embeddings depend on: weights, architecture, preprocessing."""
    with weights.offline(offline), without_collector():
        from .encoders import sources

        return sources.find(PRESETS.get(name, ("", name))[1], trust=trust).fingerprint


def fingerprint(
    proposer: str, encoder: str | None, *, offline: bool = False, trust: bool = False
) -> dict[str, str]:
    """Return the weights that ``load`` would use, which results depend on, by name.

    The values hold the SHA-256 of each file; the encoder's also its ``serving``.
    """
    names = pair(proposer, encoder)
    with weights.offline(offline):
        found = _source(names[0], trust=trust).path
        with without_collector():
            from .encoders import sources

            read = sources.find(names[1], trust=trust)
    served = f"{cache.known_hashes(read.weights)} {read.serving.to_dict()}"
    return {names[0]: cache.known_hashes(found), names[1]: served}


def pair(proposer: str, encoder: str | None) -> tuple[str, str]:
    """Resolve a preset, or a proposer and an encoder, to the names of a proposer and an encoder."""
    if encoder is None:
        if proposer in PRESETS:
            return PRESETS[proposer]
        if proposer.partition("/")[0] in _names("proposer") or proposer.startswith("file:"):
            raise UnknownName(
                f"{proposer!r} needs an encoder; give one, or use a preset: {', '.join(PRESETS)}"
            )
        return registry.choose(PRESETS, proposer, "preset")
    given = (proposer, encoder)
    return PRESETS.get(proposer, given)[0], PRESETS.get(encoder, given)[1]


def _device(name: str) -> str:
    import torch  # here, so that importing segclip stays light

    gpus = (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    available = [
        *["cuda"][: len(gpus)],
        *gpus,
        *(["mps"] if torch.backends.mps.is_available() else []),
        "cpu",
    ]
    if name == "auto":
        return available[0]
    if name not in available:
        raise Unsupported(
            f"device {name!r} is not available here; choose one of auto, {', '.join(available)}"
        )
    return name


@dataclass(frozen=True)
class _Source:
    """Where a proposer comes from: its loader, its weights, and the settings of the loader."""

    loader: str
    path: Path
    settings: dict[str, Any]


def _source(name: str, *, trust: bool) -> _Source:
    """Find a proposer by name, by ``file:PATH``, or by NAME/file:PATH for a file of that kind."""
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


def _open_encoder(name: str, device: str, *, offline: bool, trust: bool) -> Encoder:
    from .encoders.openclip import OpenClipOptions  # here, because it imports torch

    make = registry.resolve(ENCODERS, _names("encoder").get(name, "openclip"), "encoder loader")
    options = OpenClipOptions(offline=offline, trust=trust)
    opened: Encoder = make(name, device=device, options=options)
    return opened


def _calibrated(encoder: Encoder) -> Encoder:
    """Calibrate an encoder without a threshold of its own."""
    if not encoder.serving.calibrated:
        from .scoring import calibration

        encoder.serving = calibration.calibrated(encoder, scorer_of(encoder)).serving
    return encoder


def _names(kind: str) -> dict[str, str]:
    """Return the manifest's names of a kind, with the loader of each."""
    return {name: entry.loader for name, entry in weights.manifest().items() if entry.kind == kind}
