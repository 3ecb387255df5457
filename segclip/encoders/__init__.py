"""Encoders embed crops and texts as unit vectors of one joint space: their interface and table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import BadPrompt
from ..ranking.templates import TEMPLATES
from ..ranking.templates import check as check_templates
from ..scoring.crops import POLICIES, CropPolicy
from ..types import Array, Image

BACKGROUNDS = ("background", "texture", "plain surface", "blurry area", "part of something else")


@dataclass(frozen=True)
class Serving:
    """Recommended settings of a checkpoint, stored beside its weights.

    policy: how regions are cropped. templates: sentences with ``{}`` for the text. backgrounds:
    texts that compete with every text. threshold: minimum probability of a region. calibrated:
    whether that threshold was measured on this checkpoint; the defaults, meant for CLIPs trained on
    photographs, were not. quality_weight: weight of the proposer's quality, see ``ranking.weigh``;
    0 ignores it. likeness: the cosine that two regions of one kind reach, measured on the same data
    as the threshold. scorer: how regions are embedded, see ``scoring.SCORERS``. logit_scale:
    replaces the encoder's own for regions, fitted on the same data as the threshold; temperature
    scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599). vocabulary: whether texts also
    compete with everyday names, see ``ranking.vocabulary``.
    """

    policy: CropPolicy = POLICIES["default"]
    templates: tuple[str, ...] = TEMPLATES["clip-7"]
    backgrounds: tuple[str, ...] = BACKGROUNDS
    threshold: float = 0.5
    calibrated: bool = False
    quality_weight: float = 0.0
    likeness: float = 0.8
    scorer: str = "crop"
    logit_scale: float | None = None
    vocabulary: bool = False

    def __post_init__(self) -> None:
        for name in ("templates", "backgrounds"):
            if not all(isinstance(text, str) for text in getattr(self, name)):
                raise ValueError(f"{name} must be texts, got {str(getattr(self, name))[:60]}")
        check_templates(self.templates)
        bounds: dict[str, tuple[float, float]] = {
            "threshold": (0, 1),
            "quality_weight": (0, 100),
            "likeness": (-1, 1),
        }
        bounds |= {} if self.logit_scale is None else {"logit_scale": (0, 1e6)}
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if not (isinstance(value, int | float) and least <= value <= most):
                raise ValueError(f"{name} must lie in [{least}, {most}], got {str(value)[:60]}")
        flags = (self.calibrated, self.vocabulary)
        if not isinstance(self.scorer, str) or not all(isinstance(flag, bool) for flag in flags):
            raise ValueError(
                "scorer must be a string, calibrated and vocabulary booleans, got "
                f"{str((self.scorer, *flags))[:60]}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON that ``from_dict`` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Serving:
        """Read a dict written by ``to_dict``; missing fields take their defaults."""
        values = dict(data)
        if "policy" in values:
            values["policy"] = CropPolicy.from_dict(values["policy"])
        for name in ("templates", "backgrounds"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        return cls(**values)


class Encoder(Protocol):
    """Embed crops and texts in one space.

    image_size: side of its square crops, px. logit_scale: factor of a cosine before a softmax,
    already exponentiated. fingerprint: a hash of everything that embeddings depend on; "" where it
    is unknown. serving: recommended settings of its checkpoint.
    """

    name: str
    image_size: int
    logit_scale: float
    serving: Serving

    @property
    def fingerprint(self) -> str:
        """Return the hash, which may have to be computed first."""

    def encode_images(self, crops: Sequence[np.ndarray] | np.ndarray) -> Array:
        """Embed B crops, uint8 RGB: float32 (B, D), unit rows; B may be 0."""

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Embed T texts: float32 (T, D), unit rows; T may be 0."""

    def encode_dense(self, image: Image) -> Array:
        """Embed an image's patches in one pass: float32 (h, w, D), unit vectors.

        Raises Unsupported where the encoder cannot.
        """


class NoEncoder:
    """Placeholder where no encoder was loaded: spatial prompts and "everything" need none."""

    name = "no encoder"
    image_size = 1
    logit_scale = 1.0
    fingerprint = ""
    serving = Serving()

    def encode_images(self, crops: Sequence[np.ndarray] | np.ndarray) -> Array:
        """Raise BadPrompt."""
        raise BadPrompt(_NO_ENCODER)

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Raise BadPrompt."""
        raise BadPrompt(_NO_ENCODER)

    def encode_dense(self, image: Image) -> Array:
        """Raise BadPrompt."""
        raise BadPrompt(_NO_ENCODER)


_NO_ENCODER = (
    "this segmenter was loaded without an encoder; texts and examples need one: segclip.load(...)"
)

ENCODERS: dict[str, str] = {"openclip": "segclip.encoders.openclip:OpenClip"}
