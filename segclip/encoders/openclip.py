"""Embed crops and texts with any open_clip model, at the settings fastest on the device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import PIL.Image
import torch

from .. import weights
from ..errors import UnknownName, Unsupported, WeightsCorrupt
from ..startup import without_compiler
from ..types import Array, Image
from ..weights.reading import reading

with without_compiler():
    import open_clip
    from open_clip.transform import image_transform_v2

    from . import checkpoints, image_tower, patches, sources, text_tower, tokenizers
    from .checkpoints import save

__all__ = ["OpenClip", "OpenClipOptions", "imagenet_templates", "save"]

_THIN = 64  # aspect ratio above which a crop is cut or squeezed before it is resized
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class OpenClipOptions:
    """Options for running an open_clip model.

    precision: "auto" (the fastest safe one for the device), "float32", "bfloat16" or "float16".
    batch: crops or texts at a time. cached_texts: how many text embeddings are cached. offline:
    never use the network. trust: load a pickled file that is not in the manifest.
    """

    precision: str = "auto"
    batch: int = 32
    cached_texts: int = 4096
    offline: bool = False
    trust: bool = False


class OpenClip:
    """Encoder from an open_clip model.

    source: MODEL/TAG, MODEL/file:PATH, file:FOLDER or hf-hub:OWNER/REPO.
    """

    def __init__(
        self, source: str, *, device: str = "cpu", options: OpenClipOptions = OpenClipOptions()
    ) -> None:
        with weights.offline(options.offline):
            found = sources.find(source, trust=options.trust)
            model, checkpoint = checkpoints.restore(found, trust=options.trust)
        with reading(checkpoint.source, f"the description of {checkpoint.name}"):
            self._dense = (
                patches.Dense(model.visual, model.patch_head)
                if hasattr(model, "patch_head")
                else None
            )
            self._vocabulary = checkpoints.vocabulary(model)
            image_tower.streamline(model.visual)
        self.name = checkpoint.name
        self.serving = checkpoint.serving
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.image_size = _side(model.visual.image_size)
        self._found = found  # as described by its files
        self._checkpoint = checkpoint  # with the sizes of the weights
        self._options = options
        self._device = torch.device(device)
        self._dtype = choose_precision(options.precision, self._device)
        # Weights keep requires_grad, though inference mode takes no gradients: only then does
        # torch.matmul compute a batch of transposed rows, as in attention, in one product; else it
        # copies the weights for each row (3x slower).
        self._model = model.to(self._device, self._dtype, memory_format=torch.channels_last)
        if self._dense is not None:
            self._dense = self._dense.to(self._device, self._dtype).eval()
        self._preprocess = checkpoints.preprocess_config(checkpoint, self.image_size)
        self._texts: OrderedDict[str, Array] = OrderedDict()

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of everything that embeddings depend on."""
        return self._found.fingerprint

    def encode_images(self, crops: Sequence[np.ndarray] | np.ndarray) -> Array:
        """Embed B crops, uint8 RGB: float32 (B, D), unit rows.

        An array (B, image_size, image_size, 3) is only normalised; crops of any other shape are
        resized as the checkpoint requires, exactly as open_clip does it with Pillow.
        """
        batches = [
            self._embed(self._model.encode_image, self._pixels(chunk))
            for chunk in self._chunks(crops)
        ]
        return np.concatenate([self._no_rows, *batches])

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Embed T texts: float32 (T, D), unit rows.

        Cached texts cost nothing; one that is too long is truncated with a warning.
        """
        missing = [text for text in dict.fromkeys(texts) if text not in self._texts]
        known = {text: self._texts[text] for text in texts if text in self._texts}
        for chunk in self._chunks(missing):
            tokens = self._tokens(chunk).to(self._device)
            embeddings = self._embed(lambda tokens: text_tower.encode(self._model, tokens), tokens)
            known.update(zip(chunk, embeddings, strict=True))
        self._cache(known)
        return np.stack([known[text] for text in texts]) if len(texts) else self._no_rows

    def encode_dense(self, image: Image) -> Array:
        """Embed the patches of the whole image in one pass: float32 (h, w, D), unit vectors.

        Raises Unsupported for an encoder without a patch head; ``train.pacl`` and
        ``train.clipself`` train one.
        """
        if self._dense is None:
            raise Unsupported(
                f"{self.name} has no dense features for {image.source}: it needs a patch head, "
                "which train.pacl and train.clipself train"
            )
        grid: Array = self._embed(
            self._dense, self._normalised(self._dense.fit(image.pixels)[None])
        )[0]
        return grid

    def _tokens(self, texts: Sequence[str]) -> torch.Tensor:
        """Tokenize texts as ids (T, context); raise WeightsCorrupt for ids unknown to the tower."""
        tokens = text_tower.tokenize(self._tokenizer, texts)
        if tokens.numel() and int(tokens.max()) >= self._vocabulary:
            raise WeightsCorrupt(
                f"{self._checkpoint.source}: the tokenizer of {self.name} returns token "
                f"{int(tokens.max())}, but its text tower knows {self._vocabulary} tokens"
            )
        return tokens

    @property
    def _no_rows(self) -> Array:
        return np.zeros((0, self._checkpoint.model_cfg["embed_dim"]), np.float32)

    @cached_property
    def _tokenizer(self) -> Any:
        with weights.offline(self._options.offline):
            return tokenizers.make_tokenizer(self._checkpoint)

    @cached_property
    def _transform(self) -> Any:
        return image_transform_v2(self._preprocess, is_train=False)

    def _chunks(self, rows: Any) -> Iterator[Any]:
        return (
            rows[start : start + self._options.batch]
            for start in range(0, len(rows), self._options.batch)
        )

    def _pixels(self, crops: Sequence[np.ndarray] | np.ndarray) -> torch.Tensor:
        """Preprocess a batch: float32 (B, 3, S, S), channels last in memory."""
        if isinstance(crops, np.ndarray) and crops.shape[1:] == (
            self.image_size,
            self.image_size,
            3,
        ):
            return self._normalised(crops)
        images = [self._transform(PIL.Image.fromarray(self._limited(crop))) for crop in crops]
        return torch.stack(images).to(self._device, memory_format=torch.channels_last)

    def _limited(self, crop: Array) -> Array:
        """Shorten a crop that is too thin to be resized by its shorter side.

        Only the middle is kept, as the encoder would crop to that anyway; where it would use all of
        the crop, that becomes a line one pixel wide.
        """
        height, width = crop.shape[:2]
        longer, shorter = max(height, width), min(height, width)
        if longer <= _THIN * shorter:
            return crop
        if self._preprocess.resize_mode != "shortest":
            line = (1, self.image_size) if height > width else (self.image_size, 1)
            thin: Array = cv2.resize(crop, line, interpolation=cv2.INTER_AREA)
            return thin
        length = _THIN * shorter
        start = (longer - length) // 2
        return crop[start : start + length] if height > width else crop[:, start : start + length]

    def _normalised(self, images: np.ndarray) -> torch.Tensor:
        """Normalise uint8 (B, H, W, 3): float32 (B, 3, H, W), channels last in memory."""
        mean, std = (
            torch.tensor(values, device=self._device)
            for values in (self._preprocess.mean, self._preprocess.std)
        )
        pixels = torch.from_numpy(images).to(self._device, torch.float32)
        return ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)

    def _embed(self, tower: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> Array:
        with torch.inference_mode():
            embeddings = tower(rows.to(self._dtype) if rows.is_floating_point() else rows)
            unit = torch.nn.functional.normalize(embeddings.float(), dim=-1)
        vectors: Array = unit.cpu().numpy()
        return vectors

    def _cache(self, known: dict[str, Array]) -> None:
        for text, embedding in known.items():
            self._texts[text] = embedding
            self._texts.move_to_end(text)
        while len(self._texts) > self._options.cached_texts:
            self._texts.popitem(last=False)


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Choose the dtype of weights and computation; "auto" avoids what the device only emulates."""
    if precision in PRECISIONS:
        return PRECISIONS[precision]
    if precision != "auto":
        raise UnknownName(
            f"unknown precision {precision!r}; choose one of auto, {', '.join(PRECISIONS)}"
        )
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    if device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    ):
        return torch.bfloat16
    return torch.float32


def imagenet_templates() -> tuple[str, ...]:
    """Return the 80 templates OpenAI's CLIP was evaluated with."""
    return tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


def imagenet_classes() -> tuple[str, ...]:
    """Return ImageNet's 1000 class names, in the order of its folders' names."""
    return tuple(open_clip.IMAGENET_CLASSNAMES)


def _side(image_size: int | tuple[int, int]) -> int:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height != width:
        raise Unsupported(
            f"this encoder takes {height} x {width} crops; only square ones are supported"
        )
    return height
