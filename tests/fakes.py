"""Stand-ins for the heavy halves that see flat colours: a whole query in milliseconds, without
torch.

A picture is coloured shapes on white. ``FakeProposer`` gives one mask a colour, ``FakeEncoder``
embeds a crop by the share of each colour in it and a text by the colour words it holds, so "a red
square" finds the red one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from segclip.encoders import Serving
from segclip.errors import Unsupported
from segclip.proposers.space import keep_within
from segclip.scoring.crops import POLICIES
from segclip.types import Array, Boxes, Everything, Image, Masks, Points, Prompt, Proposals

COLOURS: dict[str, tuple[int, int, int]] = {
    "background": (255, 255, 255),
    "red": (230, 30, 30),
    "green": (30, 170, 30),
    "blue": (30, 30, 230),
    "yellow": (240, 220, 20),
    "black": (0, 0, 0),
}
_TABLE = np.array(list(COLOURS.values()), np.int32)  # (C, 3)
FAKE_SERVING = Serving(POLICIES["tight"], ("a photo of a {}.",), ("background",), 0.5, True)


def colour_of(pixels: Array) -> Array:
    """Name each pixel's nearest colour by its place in COLOURS: int64 (...)."""
    return np.square(pixels.astype(np.int32)[..., None, :] - _TABLE).sum(axis=-1).argmin(axis=-1)


def paint(
    *shapes: tuple[str, tuple[int, int, int, int]], size: tuple[int, int] = (120, 160)
) -> Image:
    """Draw filled boxes (colour, xyxy half-open), later ones on top, on white."""
    pixels = np.full((*size, 3), 255, np.uint8)
    for colour, (x1, y1, x2, y2) in shapes:
        pixels[y1:y2, x1:x2] = COLOURS[colour]
    return Image(pixels, "painted.png")


@dataclass
class FakeProposer:
    """Propose one mask for each piece of a colour but white; boxes cut what is inside, points keep
    what they hit.
    """

    encoded: int = 0

    def encode(self, image: Image) -> Any:
        """Give each pixel's colour: (H, W)."""
        self.encoded += 1
        return colour_of(image.pixels)

    def decode(self, features: Any, prompt: Prompt) -> Proposals:
        """Answer a prompt from the colours."""
        prompt.check(features.shape)
        if isinstance(prompt, Boxes):
            return _proposals(np.stack([_inside(features, box) for box in prompt.xyxy]))
        masks = np.array(list(_pieces(features)), bool).reshape(-1, *features.shape)
        if isinstance(prompt, Everything):
            return keep_within(_proposals(masks), prompt)
        if isinstance(prompt, Points):
            xs, ys = prompt.xy.astype(int).T
            masks = masks[(masks[:, ys, xs] == prompt.labels.astype(bool)).all(axis=1)]
        return _proposals(masks)


def _pieces(features: Array) -> Iterator[Array]:
    for colour in range(1, len(COLOURS)):
        count, labels = cv2.connectedComponents((features == colour).astype(np.uint8))
        yield from (labels == piece for piece in range(1, count))


def _inside(features: Array, box: Array) -> Array:
    x1, y1, x2, y2 = box.astype(int)
    mask = np.zeros(features.shape, bool)
    mask[y1:y2, x1:x2] = features[y1:y2, x1:x2] > 0
    return mask


def _proposals(masks: Array) -> Proposals:
    return Proposals(Masks.from_dense(masks), np.linspace(0.9, 0.5, len(masks)))


@dataclass
class FakeEncoder:
    """Embed crops by their share of each colour, texts by their colour words or, without any, on an
    axis apart.
    """

    name: str = "fake"
    image_size: int = 16
    logit_scale: float = 20.0
    serving: Serving = FAKE_SERVING
    fingerprint: str = ""
    crops_encoded: list[int] = field(default_factory=list)
    texts_encoded: list[str] = field(default_factory=list)

    def encode_images(self, crops: Sequence[np.ndarray] | np.ndarray) -> Array:
        """Embed by histogram: (B, len(COLOURS) + 1)."""
        self.crops_encoded.append(len(crops))
        counts = np.zeros((len(crops), len(COLOURS) + 1), np.float32)
        for row, crop in enumerate(crops):
            counts[row, :-1] = np.bincount(colour_of(crop).ravel(), minlength=len(COLOURS))
        return _unit(counts)

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Embed by the colours named: (T, len(COLOURS) + 1)."""
        self.texts_encoded.extend(texts)
        named = np.array([[colour in text for colour in COLOURS] for text in texts], np.float32)
        named = named.reshape(len(texts), len(COLOURS))
        named[named[:, 0] == 1] += (
            0.2  # a background is a little like everything, so that a stranger loses to it
        )
        return _unit(np.column_stack([named, ~named.any(axis=1)]).astype(np.float32))

    def encode_dense(self, image: Image) -> Array:
        """Refuse, as an encoder without a patch grid does."""
        raise Unsupported("the fake encoder has no dense features")


def _unit(rows: Array) -> Array:
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(
        np.float32
    )


class Coarse(FakeEncoder):
    """Encode the colour of every eighth pixel."""

    def encode_dense(self, image: Image) -> Array:
        return np.eye(len(COLOURS), len(COLOURS) + 1, dtype=np.float32)[
            colour_of(image.pixels[4::8, 4::8])
        ]
