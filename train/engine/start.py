"""Begin with a model: one of open_clip's by name with random weights, one of ours, or weights that
are there.
"""

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
    "small-rn": {  # RN50's kind: three-layer stem, attention pooling; context 77 as in the paper
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": {**TEXT, "context_length": 77},
    },
}
SERVING = Serving(POLICIES["keep"], ("{}", "a photo of a {}"))


@dataclass(frozen=True, eq=False)
class Start:
    """Hold a model and all that travels with it."""

    model: torch.nn.Module
    checkpoint: checkpoints.Checkpoint

    @property
    def size(self) -> int:
        """Give the side of the square images it sees."""
        size = self.model.visual.image_size
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) > 1:
            raise Unsupported(
                f"{self.checkpoint.name} sees {size}; only square images are trained on"
            )
        return int(sides.pop())

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Write a model of this kind, which ``file:FOLDER`` serves."""
        told = self.checkpoint
        preprocess = {**told.preprocess_cfg, "size": self.size}
        checkpoints.save(
            model, folder, model_cfg=told.model_cfg, preprocess_cfg=preprocess, serving=told.serving
        )
        if told.folder is None or told.folder.resolve() == folder.resolve():
            return
        for file in (told.folder / name for name in checkpoints.TOKENIZER_FILES):
            if file.is_file():
                atomic.write(folder / file.name, file.read_bytes())


def fresh(name: str, *, size: int | None = None, seed: int = 0, sigmoid: bool = False) -> Start:
    """Make a model with random weights: a name of MODELS or of open_clip's, or a .json of either's
    kind.

    size: side of the images it sees, where not its own. sigmoid: begin with the scale and bias of
    SigLIP. Raises UnknownName, and WeightsCorrupt for a .json that describes no model and for a
    side that it cannot see.
    """
    limits.check(
        {"--seed": (seed, limits.SEED), "--size": (1 if size is None else size, limits.SIDE)}
    )
    if name.endswith(".json"):
        told = read_config(Path(name))
        config, preprocess = told.get("model_cfg", told), told.get("preprocess_cfg", PLAIN)
    else:
        config, preprocess = MODELS.get(name) or open_clip.get_model_config(name), dict(PLAIN)
        if name not in MODELS and config:
            preprocess = {
                "mean": list(open_clip.OPENAI_DATASET_MEAN),
                "std": list(open_clip.OPENAI_DATASET_STD),
            }
    if config is None:
        raise UnknownName(
            f"unknown model {name!r}; give one of {', '.join(MODELS)}, a name of open_clip's, or a "
            ".json"
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
    with reading(Path(name), f"a model that sees images of {side} px"):
        _try(start)
    return start


def _try(start: Start) -> None:
    """Let a model see a blank image and read an empty text; torch's generator is left as it was."""
    checkpoints.preprocess_config(start.checkpoint, start.size)
    length = int(start.checkpoint.model_cfg["text_cfg"].get("context_length", 77))
    start.model.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        start.model.encode_image(torch.zeros(1, 3, start.size, start.size))
        start.model.encode_text(torch.zeros(1, length, dtype=torch.long))
    start.model.train()


def trained(spec: str, *, trust: bool = False) -> Start:
    """Take weights that are there: ``file:FOLDER``, MODEL/TAG, MODEL/file:PATH,
    hf-hub:OWNER/REPO.
    """
    return Start(*checkpoints.restore(sources.find(spec, trust=trust), trust=trust))


def begin(
    model: str | None,
    spec: str | None,
    *,
    size: int | None = None,
    seed: int = 0,
    sigmoid: bool = False,
) -> Start:
    """Begin with weights that are there, else with random ones."""
    if spec is None:
        return fresh(model or "small", size=size, seed=seed, sigmoid=sigmoid)
    begun = trained(spec)
    if model or (size and size != begun.size):
        raise BadPrompt(
            f"{spec} is a model and sees {begun.size} px; --model and --size are for random weights"
        )
    return begun


def serve_with(start: Start, serving: Serving) -> Start:
    """Give the same with another way of serving."""
    return replace(start, checkpoint=replace(start.checkpoint, serving=serving))
