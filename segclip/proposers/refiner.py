"""Refine the mask of a prompt with a small U-Net on a window around the object.

A promptable network predicts on a coarse grid of the whole image. As in FocalClick (Chen et al.
2022, https://arxiv.org/abs/2204.02574), its mask is then corrected inside a window around the
object, resized to one size for all objects, from the pixels, the coarse logits and the prompt. The
network is a U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) whose skip
connections are added.
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

PLANES = 7  # red, green, blue; coarse logits; foreground clicks, background clicks; inside the box
_CLIP = 8.0  # coarse logits are clipped to this magnitude
_DOT = 2.5  # radius of a click, in pixels of the window
_BATCH = 8  # windows refined at a time
_TILE = 1 << 14  # px, side of what is warped at once; OpenCV allows less than 2 ** 15
_FOLD = 2  # pixels along a cell of the finest level


@dataclass(frozen=True)
class FocusOptions:
    """Options of a refiner.

    size: side of the network's input, in pixels; it must halve evenly from level to level, so it is
    a multiple of 16 for four levels. channels: of the levels, finest first. joined: channels of the
    upward path. margin: side of the window over that of the object. boxed: the same where a box was
    given and the extent is thus known. least: side of the smallest window, in pixels of the image.
    quality: minimum quality of a mask that is refined.
    """

    size: int = 96
    channels: tuple[int, ...] = (32, 64, 128, 160)
    joined: int = 48
    margin: float = 1.4
    boxed: float = 1.2
    least: float = 20.0
    quality: float = 0.2

    def __post_init__(self) -> None:
        """Raise BadPrompt for a size that cannot be halved for every level."""
        step = _FOLD << max(len(self.channels) - 1, 0)
        if not self.channels or self.size < step or self.size % step:
            raise BadPrompt(
                f"size of a refiner of {len(self.channels)} levels must be a multiple of {step} "
                f"px, got {self.size}"
            )


@dataclass(frozen=True, eq=False)
class GivenPrompt:
    """A prompt in pixels of the image.

    clicks: float (K, 3) of x, y, label. box: xyxy, or None.
    """

    clicks: Array
    box: Array | None = None

    @property
    def boxes(self) -> Array:
        """Return what a window must contain, as boxes xyxy (K, 4)."""
        foreground = self.clicks[self.clicks[:, 2] == 1][:, [0, 1, 0, 1]]
        return foreground if self.box is None else np.concatenate([foreground, self.box[None]])


@dataclass(frozen=True)
class Window:
    """A square of ``side`` pixels of the image; parts of it may lie outside the image."""

    x: float
    y: float
    side: float

    @classmethod
    def around(cls, boxes: Array, prompt: GivenPrompt, options: FocusOptions) -> Window:
        """Return a window around the mask boxes xyxy (K, 4) and the prompt, with a margin."""
        contents = np.concatenate([boxes, prompt.boxes])
        x1, y1 = contents[:, :2].min(axis=0)
        x2, y2 = contents[:, 2:].max(axis=0)
        margin = options.margin if prompt.box is None else options.boxed
        side = max(margin * max(x2 - x1, y2 - y1), options.least)
        return cls((x1 + x2 - side) / 2, (y1 + y2 - side) / 2, side)


class _Block(torch.nn.Module):
    """Residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(*_conv(channels, channels), *_conv(channels, channels)[:2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the shape (B, C, h, w)."""
        return F.relu(x + self.body(x))


def _conv(inputs: int, outputs: int, stride: int = 1) -> list[torch.nn.Module]:
    convolution = torch.nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return [convolution, torch.nn.BatchNorm2d(outputs), torch.nn.ReLU()]


class Refiner(torch.nn.Module):
    """Correct coarse masks in windows; untrained, it returns the coarse logits."""

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

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Turn float32 (B, 7, S, S) from ``input_planes`` into logits (B, 1, S, S)."""
        maps = [self.stem(F.pixel_unshuffle(planes, _FOLD))]
        for down in self.down:
            maps.append(down(maps[-1]))
        merged = None
        for across, up, level in zip(self.across[::-1], self.up, maps[::-1], strict=True):
            skip = across(level)
            if merged is not None:
                skip = skip + F.interpolate(merged, scale_factor=2, mode="nearest")
            merged = up(skip)
        return planes[:, 3:4] * _CLIP + F.pixel_shuffle(self.last(merged), _FOLD)


def input_planes(
    image: Image, grid: tuple[Sampler, Array], window: Window, prompt: GivenPrompt, size: int
) -> Array:
    """Return the refiner's input for a window: float32 (7, size, size), about in [-1, 1].

    grid: the sampler over the image and the coarse logits (h, w). Outside the image colours are 0
    and logits -1.
    """
    planes = np.zeros((PLANES, size, size), np.float32)
    scale = size / window.side
    planes[:3] = cut(image.pixels, window, size).transpose(2, 0, 1)
    sampler, cells = grid
    offsets = (np.arange(size) + 0.5) / scale
    logits = sampler.at(cells, window.y + offsets, window.x + offsets)
    planes[3] = logits.clip(-_CLIP, _CLIP) / _CLIP
    height, width = image.size
    planes[3, (window.y + offsets < 0) | (window.y + offsets >= height)] = -1
    planes[3, :, (window.x + offsets < 0) | (window.x + offsets >= width)] = -1
    ys, xs = np.ogrid[:size, :size]
    for x, y, label in prompt.clicks:
        at_x, at_y = (x + 0.5 - window.x) * scale - 0.5, (y + 0.5 - window.y) * scale - 0.5
        planes[4 if label else 5][(xs - at_x) ** 2 + (ys - at_y) ** 2 <= _DOT**2] = 1
    if prompt.box is not None:
        x1, y1, x2, y2 = (prompt.box - np.array([window.x, window.y] * 2)) * scale
        planes[6] = ((xs + 0.5 > x1) & (xs + 0.5 < x2)) & ((ys + 0.5 > y1) & (ys + 0.5 < y2))
    return planes


def cut(pixels: Array, window: Window, size: int) -> Array:
    """Cut a window out of uint8 (H, W, C) pixels and resize it: float32 (size, size, C).

    Values lie in [-1, 1] and are 0 outside the image.
    """
    height, width = pixels.shape[:2]
    x1, y1 = int(np.floor(window.x)), int(np.floor(window.y))
    x2, y2 = int(np.ceil(window.x + window.side)), int(np.ceil(window.y + window.side))
    inside = pixels[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
    if window.side > 2 * size:  # average first, so that no pixel of a large window is skipped
        fold = int(window.side // size)
        inside = cv2.resize(
            inside,
            (-(-inside.shape[1] // fold), -(-inside.shape[0] // fold)),
            interpolation=cv2.INTER_AREA,
        )
    across = inside.shape[1] / (min(x2, width) - max(x1, 0))
    down = inside.shape[0] / (min(y2, height) - max(y1, 0))
    step = window.side / size
    # centre of the window's first pixel
    left, top = window.x - max(x1, 0) + step / 2, window.y - max(y1, 0) + step / 2
    back = np.array([[step * across, 0, left * across - 0.5], [0, step * down, top * down - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped: Array = cv2.warpAffine(
        inside, back, (size, size), flags=flags, borderValue=(127.5,) * 3
    )
    return warped.astype(np.float32) / 127.5 - 1


def corrected(logits: Array, window: Window, size: tuple[int, int]) -> tuple[int, int, Array]:
    """Resample a window's logits (S, S) at the pixels of an image of ``size`` (H, W).

    Returns x, y of the window's part inside the image, and its logits float32 there.
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
    warped = np.empty((y2 - y1, x2 - x1), np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for y, x in product(range(0, y2 - y1, _TILE), range(0, x2 - x1, _TILE)):
        tile = warped[y : y + _TILE, x : x + _TILE]
        moved = there + np.array([[0, 0, x * scale], [0, 0, y * scale]])
        tile[...] = cv2.warpAffine(
            logits, moved, tile.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
    return x1, y1, warped


def refine(refiner: Refiner, inputs: Sequence[Array]) -> Array:
    """Refine N windows from their input planes: logits float32 (N, S, S).

    Each is the mean over the window and its mirror image.
    """
    with torch.inference_mode():
        planes = torch.from_numpy(np.stack(inputs)).to(refiner.last.weight.device)
        plain, mirrored = refiner(torch.cat([planes, planes.flip(-1)]))[:, 0].chunk(2)
        logits: Array = ((plain + mirrored.flip(-1)) / 2).cpu().numpy()
    return logits


def refined_patches(
    refiner: Refiner, coarse: Sequence[tuple[int, Array, GivenPrompt]], masks: Masks, frame: Frame
) -> Iterator[Patch]:
    """Refine some of an image's masks, each given by its row, coarse logits (h, w) and prompt."""
    options, size = refiner.options, frame.image.size
    for start in range(0, len(coarse), _BATCH):
        group = coarse[start : start + _BATCH]
        windows = [Window.around(masks.boxes[[row]], prompt, options) for row, _, prompt in group]
        inputs = [
            input_planes(frame.image, (frame.sampler, cells), window, prompt, options.size)
            for window, (_, cells, prompt) in zip(windows, group, strict=True)
        ]
        refined = refine(refiner, inputs)
        for logits, window, (row, _, _) in zip(refined, windows, group, strict=True):
            yield Patch(row, *corrected(logits, window, size))


def fused(refiner: Refiner) -> Refiner:
    """Fuse batch norms into the convolutions before them, in channels-last layout, for serving."""
    for part in refiner.eval().modules():
        if isinstance(part, torch.nn.Sequential):
            for row, (before, after) in enumerate(pairwise(part)):
                if isinstance(before, torch.nn.Conv2d) and isinstance(after, torch.nn.BatchNorm2d):
                    part[row], part[row + 1] = fuse_conv_bn_eval(before, after), torch.nn.Identity()
    refiner.to(memory_format=torch.channels_last)
    return refiner
