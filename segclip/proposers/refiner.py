"""Look again at an answered prompt, closely: a small U-Net on the object's own window, at one size
for all objects.

A promptable network answers on a coarse grid of the whole image. As in FocalClick (Chen et al.
2022, https://arxiv.org/abs/2204.02574), what it answers is then corrected inside a window around
the object, from the pixels, the coarse logits and the prompt itself; the network is a U-Net
(Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) whose skips are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import BadPrompt
from ..types import Array, Image, Masks
from .edges import Frame, Patch
from .logits import Sampler

PLANES = 7  # red, green, blue; coarse logits; clicks on the object, beside it; inside the box
_SURE = 8.0  # coarse logits beyond which nothing more is said
_DOT = 2.5  # radius of a click, in pixels of the window
_TOGETHER = 8  # windows a CPU sees at a time
_MOST_DRAWN = 1 << 14  # pixels along a side that are drawn at once; OpenCV takes fewer than 2 ** 15
_FOLD = 2  # pixels along a cell of the finest level


@dataclass(frozen=True)
class FocusOptions:
    """Describe a refiner.

    size: side of the window it sees, in its own pixels, which halves from level to level without a
    rest: a multiple of 16 for four levels. channels: of its levels, the finest first. joined: of
    its way back. margin: side of the window over that of the object. boxed: the same where a box
    was given, so that its extent is known. least: side of the smallest window, in pixels of the
    image. quality: least quality of an answer that is looked at again.
    """

    size: int = 96
    channels: tuple[int, ...] = (32, 64, 128, 160)
    joined: int = 48
    margin: float = 1.4
    boxed: float = 1.2
    least: float = 20.0
    quality: float = 0.2

    def __post_init__(self) -> None:
        """Raise BadPrompt for a window that does not halve so often."""
        step = _FOLD << max(len(self.channels) - 1, 0)
        if not self.channels or self.size < step or self.size % step:
            raise BadPrompt(
                f"a refiner of {len(self.channels)} levels wants windows whose side is a multiple "
                f"of {step} px, "
                f"got {self.size}"
            )


@dataclass(frozen=True, eq=False)
class Said:
    """Hold a prompt in pixels of the image: clicks float (K, 3) of x, y, label, and a box xyxy, or
    None.
    """

    clicks: Array
    box: Array | None = None

    @property
    def boxes(self) -> Array:
        """Give what a window must hold, as boxes xyxy (K, 4)."""
        held = self.clicks[self.clicks[:, 2] == 1][:, [0, 1, 0, 1]]
        return held if self.box is None else np.concatenate([held, self.box[None]])


@dataclass(frozen=True)
class Window:
    """Say where a refiner looks: a square of ``side`` pixels of the image, of which parts may lie
    outside it.
    """

    x: float
    y: float
    side: float

    @classmethod
    def around(cls, boxes: Array, said: Said, options: FocusOptions) -> Window:
        """Look at boxes xyxy (K, 4) of an answer, at what was said, and at somewhat more."""
        held = np.concatenate([boxes, said.boxes])
        x1, y1 = held[:, :2].min(axis=0)
        x2, y2 = held[:, 2:].max(axis=0)
        margin = options.margin if said.box is None else options.boxed
        side = max(margin * max(x2 - x1, y2 - y1), options.least)
        return cls((x1 + x2 - side) / 2, (y1 + y2 - side) / 2, side)


class _Block(torch.nn.Module):
    """Add what two convolutions see."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(*_conv(channels, channels), *_conv(channels, channels)[:2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the shape (B, C, h, w)."""
        return F.relu(x + self.body(x))


def _conv(given: int, made: int, stride: int = 1) -> list[torch.nn.Module]:
    convolution = torch.nn.Conv2d(given, made, 3, stride, 1, bias=False)
    return [convolution, torch.nn.BatchNorm2d(made), torch.nn.ReLU()]


class Refiner(torch.nn.Module):
    """Correct coarse answers in windows. At the start, untrained, it gives the coarse logits
    back.
    """

    def __init__(self, options: FocusOptions) -> None:
        super().__init__()
        self.options = options
        first, *more = options.channels
        self.stem = torch.nn.Sequential(*_conv(PLANES * _FOLD**2, first), _Block(first))
        steps = zip(options.channels, more, strict=False)
        self.down = torch.nn.ModuleList(
            torch.nn.Sequential(*_conv(before, after, 2), _Block(after)) for before, after in steps
        )
        joined = options.joined
        self.across = torch.nn.ModuleList(
            torch.nn.Conv2d(channels, joined, 1) for channels in options.channels
        )
        self.up = torch.nn.ModuleList(
            torch.nn.Sequential(*_conv(joined, joined)) for _ in options.channels
        )
        self.last = torch.nn.Conv2d(joined, _FOLD**2, 3, padding=1)
        torch.nn.init.zeros_(self.last.weight)
        torch.nn.init.zeros_(self.last.bias)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Turn float32 (B, 7, S, S), as ``look`` gives it, into logits (B, 1, S, S)."""
        maps = [self.stem(F.pixel_unshuffle(given, _FOLD))]
        for down in self.down:
            maps.append(down(maps[-1]))
        seen = None
        for across, up, taken in zip(self.across[::-1], self.up, maps[::-1], strict=True):
            beside = across(taken)
            seen = up(
                beside
                if seen is None
                else beside + F.interpolate(seen, scale_factor=2, mode="nearest")
            )
        return given[:, 3:4] * _SURE + F.pixel_shuffle(self.last(seen), _FOLD)


def look(image: Image, grid: tuple[Sampler, Array], window: Window, said: Said, size: int) -> Array:
    """See a window: float32 (7, size, size), all planes about in [-1, 1].

    grid: coarse logits (h, w) and how they lie over the image. Outside the image colours are 0 and
    logits -1.
    """
    seen = np.zeros((PLANES, size, size), np.float32)
    scale = size / window.side
    seen[:3] = cut(image.pixels, window, size).transpose(2, 0, 1)
    sampler, cells = grid
    places = (np.arange(size) + 0.5) / scale
    seen[3] = sampler.at(cells, window.y + places, window.x + places).clip(-_SURE, _SURE) / _SURE
    height, width = image.size
    seen[3, (window.y + places < 0) | (window.y + places >= height)] = -1
    seen[3, :, (window.x + places < 0) | (window.x + places >= width)] = -1
    ys, xs = np.ogrid[:size, :size]
    for x, y, label in said.clicks:
        at_x, at_y = (x + 0.5 - window.x) * scale - 0.5, (y + 0.5 - window.y) * scale - 0.5
        seen[4 if label else 5][(xs - at_x) ** 2 + (ys - at_y) ** 2 <= _DOT**2] = 1
    if said.box is not None:
        x1, y1, x2, y2 = (said.box - np.array([window.x, window.y] * 2)) * scale
        seen[6] = ((xs + 0.5 > x1) & (xs + 0.5 < x2)) & ((ys + 0.5 > y1) & (ys + 0.5 < y2))
    return seen


def cut(pixels: Array, window: Window, size: int) -> Array:
    """Cut a window out of uint8 (H, W, C) pixels and resize it: float32 (size, size, C) in [-1, 1],
    0 outside.
    """
    height, width = pixels.shape[:2]
    x1, y1 = int(np.floor(window.x)), int(np.floor(window.y))
    x2, y2 = int(np.ceil(window.x + window.side)), int(np.ceil(window.y + window.side))
    inside = pixels[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
    if window.side > 2 * size:  # fold first, so that no pixel of a large window is passed over
        fold = int(window.side // size)
        inside = cv2.resize(
            inside,
            (-(-inside.shape[1] // fold), -(-inside.shape[0] // fold)),
            interpolation=cv2.INTER_AREA,
        )
    across, down = (
        inside.shape[1] / (min(x2, width) - max(x1, 0)),
        inside.shape[0] / (min(y2, height) - max(y1, 0)),
    )
    step = window.side / size
    left, top = (
        window.x - max(x1, 0) + step / 2,
        window.y - max(y1, 0) + step / 2,
    )  # the first pixel's middle
    back = np.array([[step * across, 0, left * across - 0.5], [0, step * down, top * down - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpAffine(inside, back, (size, size), flags=flags, borderValue=(127.5,) * 3)
    return drawn.astype(np.float32) / 127.5 - 1


def corrected(logits: Array, window: Window, size: tuple[int, int]) -> tuple[int, int, Array]:
    """Lay a window's logits (S, S) over an image of ``size`` (H, W): x, y of the part inside it,
    its logits there.
    """
    height, width = size
    x1, y1 = max(int(np.floor(window.x)), 0), max(int(np.floor(window.y)), 0)
    x2, y2 = (
        min(int(np.ceil(v + window.side)), end)
        for v, end in ((window.x, width), (window.y, height))
    )
    scale = len(logits) / window.side
    there = np.array(
        [
            [scale, 0, (x1 - window.x + 0.5) * scale - 0.5],
            [0, scale, (y1 - window.y + 0.5) * scale - 0.5],
        ]
    )
    drawn = np.empty((y2 - y1, x2 - x1), np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for y, x in product(range(0, y2 - y1, _MOST_DRAWN), range(0, x2 - x1, _MOST_DRAWN)):
        tile = drawn[y : y + _MOST_DRAWN, x : x + _MOST_DRAWN]
        moved = there + np.array([[0, 0, x * scale], [0, 0, y * scale]])
        tile[...] = cv2.warpAffine(
            logits, moved, tile.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
    return x1, y1, drawn


def refine(refiner: Refiner, seen: Sequence[Array]) -> Array:
    """Correct what was seen in N windows, the mean of it as it is and mirrored: logits float32 (N,
    S, S).
    """
    with torch.inference_mode():
        given = torch.from_numpy(np.stack(seen)).to(refiner.last.weight.device)
        straight, mirrored = refiner(torch.cat([given, given.flip(-1)]))[:, 0].chunk(2)
        logits: Array = ((straight + mirrored.flip(-1)) / 2).cpu().numpy()
    return logits


def look_again(
    refiner: Refiner, asked: Sequence[tuple[int, Array, Said]], masks: Masks, frame: Frame
) -> Iterator[Patch]:
    """Correct some of an image's masks, each given by its row, coarse logits (h, w) and what was
    said.
    """
    options, size = refiner.options, frame.image.size
    for start in range(0, len(asked), _TOGETHER):
        group = asked[start : start + _TOGETHER]
        windows = [Window.around(masks.boxes[[row]], said, options) for row, _, said in group]
        seen = [
            look(frame.image, (frame.sampler, cells), window, said, options.size)
            for window, (_, cells, said) in zip(windows, group, strict=True)
        ]
        for logits, window, (row, _, _) in zip(refine(refiner, seen), windows, group, strict=True):
            yield Patch(row, *corrected(logits, window, size))


def fused(refiner: Refiner) -> Refiner:
    """Fold the norms into the convolutions before them, and lay weights as CPUs read them fastest,
    for serving.
    """
    for part in refiner.eval().modules():
        if isinstance(part, torch.nn.Sequential):
            for row, (before, after) in enumerate(pairwise(part)):
                if isinstance(before, torch.nn.Conv2d) and isinstance(after, torch.nn.BatchNorm2d):
                    part[row], part[row + 1] = fuse_conv_bn_eval(before, after), torch.nn.Identity()
    return refiner.to(memory_format=torch.channels_last)
