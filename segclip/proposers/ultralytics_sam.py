"""MobileSAM and SAM 2.1 on ultralytics' networks, with encoder and decoder called separately.

Faster Segment Anything, Zhang et al. 2023, https://arxiv.org/abs/2306.14289.
SAM 2, Ravi et al. 2024, https://arxiv.org/abs/2408.00714.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import registry
from ..errors import UnknownName, WeightsMissing
from ..types import Array
from ..weights import tensors
from ..weights.reading import reading
from .decoder import FastTransformer, decode
from .logits import Axis
from .network import MEAN, STD, Clicks
from .promptable import Promptable, SAMOptions
from .yolo import quiet

_SIZE = 1024  # px, side of the square input of all variants
VARIANTS: dict[str, str] = {
    "mobile_sam": "build_mobile_sam",
    "sam2.1_t": "build_sam2_t",
    "sam2.1_s": "build_sam2_s",
    "sam2.1_b": "build_sam2_b",
    "sam2.1_l": "build_sam2_l",
}
_META_NAMES = {
    "hiera_tiny": "sam2.1_t",
    "hiera_small": "sam2.1_s",
    "hiera_base": "sam2.1_b",
    "hiera_large": "sam2.1_l",
}
# SAM 2.1's memory, which single images don't use
_VIDEO_ONLY = ("no_obj_embed_spatial", "obj_ptr_tpos_proj.")


class UltralyticsSAM(Promptable):
    """Propose masks with MobileSAM or SAM 2.1.

    path: ultralytics' or the original project's state dict. variant: a key of VARIANTS; None infers
    it from the file name. device: a torch device name. trust: see ``tensors.read``. Raises
    UnknownName, WeightsMissing, WeightsCorrupt, Unsupported.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        variant: str | None = None,
        options: SAMOptions = SAMOptions(),
        trust: bool | None = None,
    ) -> None:
        self.options, self.device = options, torch.device(device)
        self.variant = variant or variant_of(Path(path))
        network = load(Path(path), self.variant, trust=trust)
        self.network: Any = network.to(self.device).eval().requires_grad_(False)
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(3, 1, 1) for values in (MEAN, STD)
        )
        self._is_sam2 = hasattr(network, "sam_mask_decoder")
        if not self._is_sam2:
            self._transformer = FastTransformer(
                self.network.mask_decoder, network.prompt_encoder.get_dense_pe()
            )

    @torch.inference_mode()
    def embed(self, pixels: Array) -> Any:
        """Run the image encoder: float32 (1, C, h, w), for SAM 2 a list of three, coarsest last."""
        with quiet():
            from ultralytics.data.augment import LetterBox

            boxed = LetterBox((_SIZE, _SIZE), auto=False, center=False)(image=pixels)
        batch = torch.from_numpy(boxed).permute(2, 0, 1)[None].to(self.device)
        batch = (batch - self._mean) / self._std
        if not self._is_sam2:
            return self.network.image_encoder(batch)
        _, maps, _, sizes = self.network._prepare_backbone_features(
            self.network.forward_image(batch)
        )
        if self.network.directly_add_no_mem_embed:
            maps[-1] = maps[-1] + self.network.no_mem_embed
        return [
            level.permute(1, 2, 0).view(1, -1, *size)
            for level, size in zip(maps, sizes, strict=True)
        ]

    @torch.inference_mode()
    def predict(
        self, maps: Any, clicks: Clicks, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode B prompts."""
        if self._is_sam2:
            return self._predict_sam2(maps, clicks, multimask)
        sparse, dense = clicks.encoded(self.network.prompt_encoder)
        return decode(
            self.network.mask_decoder, self._transformer, maps, sparse, dense, multimask=multimask
        )

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the factors of x and y: the longer side becomes 1024."""
        gain = _SIZE / max(size)
        return gain, gain

    def axes(self, size: tuple[int, int]) -> tuple[Axis, Axis]:
        """Map the logits without their padding to the image; they may end inside a cell."""
        cells, gain = _SIZE // 4, _SIZE / max(size)
        spans = [max(1, round(pixels * gain)) / 4 for pixels in size]
        whole = all(span.is_integer() for span in spans)
        rows, columns = (
            Axis.through(cells, [slice(0, int(span)), pixels])
            if whole
            else Axis.spanning(cells, span, pixels)
            for span, pixels in zip(spans, size, strict=True)
        )
        return rows, columns

    def _predict_sam2(
        self, maps: Any, clicks: Clicks, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        encoder = self.network.sam_prompt_encoder
        sparse, dense = _with_corners(clicks).encoded(encoder)
        logits, quality, _, _ = self.network.sam_mask_decoder(
            image_embeddings=maps[-1],
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=len(sparse) > 1,
            high_res_features=maps[:-1],
        )
        return logits, quality


def _with_corners(clicks: Clicks) -> Clicks:
    """Return boxes as SAM 2 takes them: two points labelled 2 and 3, before the other points."""
    if clicks.boxes is None:
        return clicks
    points = clicks.boxes.view(-1, 2, 2)
    labels = torch.tensor([[2, 3]], dtype=torch.int32, device=points.device).expand(len(points), -1)
    if clicks.points is not None and clicks.labels is not None:
        points = torch.cat([points, clicks.points], dim=1)
        labels = torch.cat([labels, clicks.labels], dim=1)
    return Clicks(points, labels, masks=clicks.masks)


def variant_of(path: Path) -> str:
    """Infer the variant from a file name of either project."""
    names = {**{name: name for name in VARIANTS}, **_META_NAMES}
    found = [variant for name, variant in names.items() if name in path.name]
    if not found:
        raise UnknownName(
            f"cannot infer the network from the name {path.name}; it must contain one of "
            f"{', '.join(names)}"
        )
    return found[0]


def load(path: Path, variant: str, *, trust: bool | None = None) -> torch.nn.Module:
    """Build a variant and load its tensors; no code in the file is run.

    trust: see ``tensors.read``.
    """
    if not path.exists():
        raise WeightsMissing(
            f"no weights at {path}; pass a .pt file of ultralytics or of the original project"
        )
    name = registry.choose(VARIANTS, variant, "SAM variant")
    stored = tensors.read(path, trust=trust).tensors
    with quiet(), reading(path, "a SAM checkpoint"):
        from ultralytics.models.sam import build

        make: Callable[[], torch.nn.Module] = getattr(build, name)
        network = make()
        tensors.lay_in(network, stored, f"{path} does not fit {variant}", unused=_VIDEO_ONLY)
    return network
