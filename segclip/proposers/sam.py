"""SAM v1 on the package segment-anything, for checkpoints of its architecture from mini to huge.

Segment Anything, Kirillov et al. 2023, https://arxiv.org/abs/2304.02643.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import safetensors.torch
import torch

from ..errors import BadPrompt, WeightsCorrupt, WeightsMissing
from ..files import atomic
from ..startup import without_compiler
from ..types import Array
from ..weights import tensors
from ..weights.reading import described, read_config, reading
from .decoder import FastTransformer, decode
from .edges import EdgeOptions
from .grid import GridOptions
from .logits import Axis
from .network import MEAN, STD, Clicks
from .promptable import Promptable, SAMOptions
from .refiner import FocusOptions, Refiner, fused
from .trunk import DrawnPromptEncoder, FineMaskDecoder, Trunk
from .yolo import CONFIG, WEIGHTS, compact, load_stored

with without_compiler():
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

# upper limits of a checkpoint's settings
_MOST = {"image_size": 4096, "size": 1024, "points_per_side": 256, "crop_layers": 4}


@dataclass(frozen=True)
class ViT:
    """Sizes of SAM v1's image encoder.

    width: of its tokens. depth: number of blocks. window: side of the windows that blocks attend
    within, in tokens; ``global_blocks`` attend to all tokens.
    """

    width: int
    depth: int
    heads: int
    window: int
    global_blocks: tuple[int, ...]

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor]) -> ViT:
        """Read the sizes off a state dict."""
        depth = _count(state, r"image_encoder\.blocks\.(\d+)\.")
        width = len(state["image_encoder.patch_embed.proj.weight"])
        side = state["image_encoder.pos_embed"].shape[1]
        reach = [
            (len(state[f"image_encoder.blocks.{block}.attn.rel_pos_h"]) + 1) // 2
            for block in range(depth)
        ]
        return cls(
            width=width,
            depth=depth,
            heads=width // state["image_encoder.blocks.0.attn.rel_pos_h"].shape[1],
            window=next((tokens for tokens in reach if tokens != side), 0),
            global_blocks=tuple(block for block in range(depth) if reach[block] == side),
        )

    def build(self, image_size: int, patch: int, channels: int) -> ImageEncoderViT:
        """Build the encoder, randomly initialised."""
        return ImageEncoderViT(
            img_size=image_size,
            patch_size=patch,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            out_chans=channels,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=self.window,
            global_attn_indexes=self.global_blocks,
        )


@dataclass(frozen=True)
class Architecture:
    """Sizes of a SAM.

    image_size: side of its square input, px. patch: side in pixels of a cell of the image encoder's
    map, which has ``channels``. mask_channels: of a mask given as prompt. decoder_*: of the two-way
    transformer. quality_width: of the head that predicts IoU.
    """

    image_size: int
    patch: int
    encoder: ViT | Trunk
    channels: int
    mask_channels: int
    decoder_depth: int
    decoder_mlp: int
    quality_width: int
    decoder_heads: int = 8

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor]) -> Architecture:
        """Read the sizes off a published state dict.

        The number of the decoder's heads does not show there; it is 8 in all of them.
        """
        patch = state["image_encoder.patch_embed.proj.weight"].shape[-1]
        return cls(
            image_size=state["image_encoder.pos_embed"].shape[1] * patch,
            patch=patch,
            encoder=ViT.of(state),
            channels=len(state["image_encoder.neck.0.weight"]),
            mask_channels=len(state["prompt_encoder.mask_downscaling.3.weight"]),
            decoder_depth=_count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
            decoder_mlp=len(state["mask_decoder.transformer.layers.0.mlp.lin1.weight"]),
            quality_width=len(state["mask_decoder.iou_prediction_head.layers.0.weight"]),
        )

    def build(self) -> Sam:
        """Build the network, randomly initialised."""
        grid = self.image_size // self.patch
        drawn = isinstance(self.encoder, Trunk)
        prompts = (DrawnPromptEncoder if drawn else PromptEncoder)(
            embed_dim=self.channels,
            image_embedding_size=(grid, grid),
            input_image_size=(self.image_size, self.image_size),
            mask_in_chans=self.mask_channels,
        )
        transformer = TwoWayTransformer(
            depth=self.decoder_depth,
            embedding_dim=self.channels,
            mlp_dim=self.decoder_mlp,
            num_heads=self.decoder_heads,
        )
        sizes = {"transformer_dim": self.channels, "iou_head_hidden_dim": self.quality_width}
        if isinstance(self.encoder, Trunk):
            decoder = FineMaskDecoder(transformer=transformer, fine=self.encoder.fine, **sizes)
        else:
            decoder = MaskDecoder(transformer=transformer, **sizes)
        encoder = self.encoder.build(self.image_size, self.patch, self.channels)
        mean, std = (MEAN, STD) if isinstance(self.encoder, ViT) else ((0.0,) * 3, (255.0,) * 3)
        return Sam(encoder, prompts, decoder, list(mean), list(std))


class SAM(Promptable):
    """Propose masks with a SAM v1 checkpoint.

    path: a ``.pth`` of the original project or a folder written by ``save``. device: a torch device
    name. options: None uses those stored in the folder, else the published defaults. trust: see
    ``tensors.read``. Raises WeightsMissing, WeightsCorrupt, Unsupported.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        options: SAMOptions | None = None,
        trust: bool | None = None,
    ) -> None:
        self.device = torch.device(device)
        network, stored = load(Path(path), trust=trust)
        self.options = options or stored
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.refiner = fused(self.network.refiner) if hasattr(self.network, "refiner") else None
        self.image_size = self.network.image_encoder.img_size
        self._positions = self.network.prompt_encoder.get_dense_pe()
        self._transformer = FastTransformer(self.network.mask_decoder, self._positions)

    @torch.inference_mode()
    def embed(self, pixels: Array) -> torch.Tensor:
        """Run the image encoder: float32 (1, C, h, w)."""
        height, width = self._content((pixels.shape[0], pixels.shape[1]))
        # Pillow's bilinear filter, as the original resizes
        resized = np.array(
            PIL.Image.fromarray(pixels).resize((width, height), PIL.Image.Resampling.BILINEAR)
        )
        batch = torch.from_numpy(resized).permute(2, 0, 1)[None].to(self.device)
        features: torch.Tensor = self.network.image_encoder(self.network.preprocess(batch))
        return features

    @torch.inference_mode()
    def predict(
        self, maps: torch.Tensor, clicks: Clicks, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode B prompts."""
        sparse, dense = clicks.encoded(self.network.prompt_encoder)
        decoder = self.network.mask_decoder
        if isinstance(decoder, FineMaskDecoder):
            return decoder.predict_masks(
                maps,
                self._positions,
                sparse,
                dense,
                count=decoder.count(multimask=multimask),
                transformer=self._transformer,
            )
        return decode(decoder, self._transformer, maps, sparse, dense, multimask=multimask)

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the factors of x and y: the longer side becomes ``image_size``."""
        height, width = self._content(size)
        return width / size[1], height / size[0]

    def axes(self, size: tuple[int, int]) -> tuple[Axis, Axis]:
        """Resize logits to the network's frame, drop its padding, resize to the image."""
        cells = 4 * self.network.prompt_encoder.image_embedding_size[0]
        rows, columns = (
            Axis.through(cells, [self.image_size, slice(0, content), pixels])
            for content, pixels in zip(self._content(size), size, strict=True)
        )
        return rows, columns

    def _content(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return an image's size (h, w), at least 1, once its longer side fits the network."""
        scale = self.image_size / max(size)
        return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def load(path: Path, *, trust: bool | None = None) -> tuple[Sam, SAMOptions]:
    """Load a ``.pth`` state dict, or a folder of model.safetensors and config.json with options.

    trust: see ``tensors.read``. Raises WeightsMissing, WeightsCorrupt, Unsupported.
    """
    if not path.exists():
        raise WeightsMissing(
            f"no SAM weights at {path}; pass a .pth file or a folder with {WEIGHTS} and {CONFIG}"
        )
    if path.is_dir():
        return _load_folder(path)
    stored = tensors.read(path, trust=trust).tensors
    with reading(path, "a SAM checkpoint"):
        with tensors.Sized(path):
            network = Architecture.of(stored).build()
        tensors.lay_in(network, stored, f"{path} does not fit its own architecture")
    return network, SAMOptions()


def _load_folder(folder: Path) -> tuple[Sam, SAMOptions]:
    config = read_config(folder / CONFIG)
    with reading(folder / CONFIG, "the description of a SAM checkpoint"):
        options = _stored_options(config, folder / CONFIG)
        with tensors.Sized(folder / WEIGHTS):
            network = _described(config["sam"]).build()
            if options.focus:
                network.refiner = Refiner(options.focus)
    load_stored(network, folder)
    return network, options


def _stored_options(config: dict[str, Any], file: Path) -> SAMOptions:
    try:
        return SAMOptions(
            grid=described(GridOptions, config.get("grid", {}), _MOST),
            edges=described(EdgeOptions, config["edges"]) if config.get("edges") else None,
            # its minimum quality may be negative, as predicted IoU can be
            focus=described(FocusOptions, config["focus"], _MOST, signed=("quality",))
            if config.get("focus")
            else None,
        )
    except BadPrompt as error:  # the error of a user's option, but here the file is at fault
        raise WeightsCorrupt(f"{file}: {error}") from error


def save(
    network: Sam, architecture: Architecture, folder: Path, options: SAMOptions = SAMOptions()
) -> None:
    """Write model.safetensors, matrices as float16, and config.json.

    The latter holds the architecture and the grid, edges and focus of ``options``.
    """
    config = {"sam": asdict(architecture), "grid": asdict(options.grid)}
    config |= {"edges": asdict(options.edges)} if options.edges else {}
    config |= {"focus": asdict(options.focus)} if options.focus else {}
    stored = compact(network)
    atomic.write(folder / WEIGHTS, safetensors.torch.save(stored, {"format": "pt"}))
    atomic.write(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def add_refiner(folder: Path, refiner: Refiner, edges: EdgeOptions) -> None:
    """Add a refiner, with options to fit its masks to edges, to a folder written by ``save``."""
    network, options = load(folder)
    network.refiner = refiner
    architecture = _described(read_config(folder / CONFIG)["sam"])
    save(network, architecture, folder, replace(options, focus=refiner.options, edges=edges))


def _described(config: dict[str, Any]) -> Architecture:
    kind: Any = ViT if "global_blocks" in config["encoder"] else Trunk
    return described(Architecture, config | {"encoder": described(kind, config["encoder"])}, _MOST)


def _count(state: Mapping[str, torch.Tensor], pattern: str) -> int:
    found: list[Any] = [re.match(pattern, name) for name in state]
    return 1 + max(int(match[1]) for match in found if match)
