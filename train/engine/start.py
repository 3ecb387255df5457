"""Create or load a model: open_clip architectures or ours, with random or existing weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import torch

from segclip.encoders import Serving, checkpoints, sources
from segclip.errors import BadPrompt, UnknownName, Unsupported
from segclip.files import atomic
from segclip.scoring.crops import POLICIES
from segclip.weights.reading import read_config, reading

from . import limits

TEXT: dict[str, Any] = {
    "context_length": 24,
    "vocab_size": 49408,
    "width": 128,
    "heads": 4,
    "layers": 3,
}
PLAIN = {
    "mean": [0.45] * 3,
    "std": [0.25] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
MODELS: dict[str, dict[str, Any]] = {
    "small": {
        "embed_dim": 256,
        "vision_cfg": {
            "timm_model_name": "resnet10t",
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 64,
        },
        "text_cfg": TEXT,
    },
    "small-vit": {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": 64,
            "layers": 4,
            "width": 192,
            "patch_size": 8,
            "head_width": 48,
        },
        "text_cfg": TEXT,
    },
    "small-rn": {  # like RN50: three-layer stem, attention pooling; context 77 as in the paper
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": {**TEXT, "context_length": 77},
    },
}
SERVING = Serving(POLICIES["keep"], ("{}", "a photo of a {}"))


@dataclass(frozen=True, eq=False)
class Start:
    """A model and its checkpoint data."""

    model: torch.nn.Module
    checkpoint: checkpoints.Checkpoint

    @property
    def size(self) -> int:
        """Return the side of its square input images."""
        size = self.model.visual.image_size
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) > 1:
            raise Unsupported(
                f"{self.checkpoint.name} takes images of {size}; only square images are supported"
            )
        return int(sides.pop())

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Write a model of this kind, to be served by ``file:FOLDER``."""
        checkpoint = self.checkpoint
        preprocess = {**checkpoint.preprocess_cfg, "size": self.size}
        checkpoints.save(
            model,
            folder,
            model_cfg=checkpoint.model_cfg,
            preprocess_cfg=preprocess,
            serving=checkpoint.serving,
        )
        if checkpoint.folder is None or checkpoint.folder.resolve() == folder.resolve():
            return
        for file in (checkpoint.folder / name for name in checkpoints.TOKENIZER_FILES):
            if file.is_file():
                atomic.write(folder / file.name, file.read_bytes())


def fresh(name: str, *, size: int | None = None, seed: int = 0, sigmoid: bool = False) -> Start:
    """Create a model with random weights: a name of MODELS or open_clip, or a .json of either kind.

    size: side of the images, where not its own. sigmoid: start with the scale and bias of SigLIP.
    Raises UnknownName, and WeightsCorrupt for a .json that does not describe a model or for a side
    that it does not accept.
    """
    limits.check(
        {"--seed": (seed, limits.SEED), "--size": (1 if size is None else size, limits.SIDE)}
    )
    if name.endswith(".json"):
        table = read_config(Path(name))
        config, preprocess = table.get("model_cfg", table), table.get("preprocess_cfg", PLAIN)
    else:
        config, preprocess = MODELS.get(name) or open_clip.get_model_config(name), dict(PLAIN)
        if name not in MODELS and config:
            preprocess = {
                "mean": list(open_clip.OPENAI_DATASET_MEAN),
                "std": list(open_clip.OPENAI_DATASET_STD),
            }
    if config is None:
        raise UnknownName(
            f"unknown model {name!r}; use one of {', '.join(MODELS)}, an open_clip name, or a .json"
        )
    with reading(Path(name), "a model's configuration"):
        if size:
            config = {**config, "vision_cfg": {**config["vision_cfg"], "image_size": size}}
        if sigmoid:
            config = {**config, "init_logit_scale": 2.302585, "init_logit_bias": -10.0}
        torch.manual_seed(seed)
        model = checkpoints.make_model(config)
        start = Start(model, checkpoints.Checkpoint(name, config, preprocess, Path(), SERVING))
        side = start.size
    with reading(Path(name), f"a model for images of {side} px"):
        _try(start)
    return start


def _try(start: Start) -> None:
    """Run a model on a blank image and an empty text, without changing torch's generator."""
    checkpoints.preprocess_config(start.checkpoint, start.size)
    length = int(start.checkpoint.model_cfg["text_cfg"].get("context_length", 77))
    start.model.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        start.model.encode_image(torch.zeros(1, 3, start.size, start.size))
        start.model.encode_text(torch.zeros(1, length, dtype=torch.long))
    start.model.train()


def trained(spec: str, *, trust: bool = False) -> Start:
    """Load existing weights: ``file:FOLDER``, MODEL/TAG, MODEL/file:PATH, hf-hub:OWNER/REPO."""
    return Start(*checkpoints.restore(sources.find(spec, trust=trust), trust=trust))


def begin(
    model: str | None,
    spec: str | None,
    *,
    size: int | None = None,
    seed: int = 0,
    sigmoid: bool = False,
) -> Start:
    """Load existing weights if ``spec`` is given, else create random ones."""
    if spec is None:
        return fresh(model or "small", size=size, seed=seed, sigmoid=sigmoid)
    begun = trained(spec)
    if model or (size and size != begun.size):
        raise BadPrompt(
            f"{spec} is a model for images of {begun.size} px; --model and --size are for random "
            "weights only"
        )
    return begun


def serve_with(start: Start, serving: Serving) -> Start:
    """Return the start with other serving options."""
    return replace(start, checkpoint=replace(start.checkpoint, serving=serving))
