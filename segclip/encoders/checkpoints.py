"""Build, load and save open_clip models with the configurations stored beside their weights."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed
from open_clip.transform import PreprocessCfg
from torch.nn import init

from .. import weights
from ..errors import Unsupported, WeightsCorrupt, WeightsMissing, one_line
from ..files import atomic
from ..weights import cache, tensors
from ..weights.reading import read_config, reading
from . import Serving, dual
from .patches import PatchHead, with_current_names

CONFIGS = ("config.json", "open_clip_config.json")
SAFE_FILES, PICKLED_FILES = weights.SAFE_FILES, weights.PICKLED_FILES
# data only, by full names: a pattern such as vocab.* would also download and copy code
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)

_TORCHSCRIPT_EXTRAS = {"input_resolution", "context_length", "vocab_size"}
_PLAIN_NAME = re.compile(r"[\w.-]+")  # of a timm network: neither a repository's address nor a path
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")  # of a transformers network
_LARGEST = 2048  # px, upper limit of a checkpoint's image side

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Weights of an encoder and the configurations stored with them.

    model_cfg, preprocess_cfg: open_clip's own dictionaries. folder: may hold its own tokenizer.
    """

    name: str
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    weights: Path
    serving: Serving = field(default_factory=Serving)
    folder: Path | None = None

    @property
    def source(self) -> Path:
        """Return the file that describes it, for messages: its config.json, else its weights."""
        return (self.folder and first(self.folder, CONFIGS)) or self.weights

    @property
    def fingerprint(self) -> str:
        """Hash everything that embeddings depend on: weights, architecture, preprocessing."""
        parts = f"{cache.known_hashes(self.weights)} {self.model_cfg} {self.preprocess_cfg}"
        return sha256(parts.encode()).hexdigest()[:16]


def restore(checkpoint: Checkpoint, *, trust: bool = False) -> tuple[torch.nn.Module, Checkpoint]:
    """Build the model in float32 on the CPU and load its weights; return it and the checkpoint.

    The returned checkpoint's model_cfg has the lengths of the stored positions, which may differ
    from those of a name or a config.json. Raises WeightsMissing, WeightsCorrupt when the weights do
    not fit, Unsupported for a pickle that is not in the manifest unless ``trust``.
    """
    stored = tensors.read(checkpoint.weights, trust=trust)
    _check_activation(checkpoint, stored)
    with reading(checkpoint.source, f"the description of {checkpoint.name}"):
        preprocess_config(checkpoint, 1)
        checkpoint = _with_stored_sizes(checkpoint, stored.tensors)
        model = _make(checkpoint)
        _load(model, stored, checkpoint)
        _check_sizes(model, checkpoint)
    return model.eval(), checkpoint


def _check_sizes(model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Raise ValueError for sizes out of range that the weights do not determine.

    Those are the image size of a convolutional tower and the text length of a transformers tower.
    """
    size = model.visual.image_size
    if not all(
        0 < side <= _LARGEST for side in (size if isinstance(size, tuple | list) else (size,))
    ):
        raise ValueError(f"image_size must lie in [1, {_LARGEST}], got {str(size)[:60]}")
    text = getattr(model, "text", None)
    config = getattr(
        getattr(text, "tower", None) or getattr(text, "transformer", None), "config", None
    )
    longest = getattr(config, "max_position_embeddings", None)
    length = checkpoint.model_cfg["text_cfg"].get("context_length", 77)
    if not 0 < length <= (longest or 1 << 16):
        raise ValueError(
            f"context_length must lie in [1, {longest or 1 << 16}], got {str(length)[:60]}"
        )


def vocabulary(model: torch.nn.Module) -> int:
    """Return the size of the vocabulary of a model's text tower."""
    text = getattr(model, "text", model)
    table = getattr(text, "token_embedding", None)
    if table is None:
        table = (getattr(text, "tower", None) or text.transformer).get_input_embeddings()
    return int(table.weight.shape[0])


def _check_activation(checkpoint: Checkpoint, stored: tensors.Stored) -> None:
    """Check the model's activation against that which its weights were trained with, if known.

    Tensors do not show it. OpenAI's own archives need QuickGELU; a trainer may have recorded the
    model's name, and file names often contain it. Raises Unsupported, or logs a warning.
    """
    quick = bool(checkpoint.model_cfg.get("quick_gelu"))
    if stored.container == "torchscript" and not quick:
        raise Unsupported(
            f"{checkpoint.weights} is one of OpenAI's own files, which need the -quickgelu model: "
            f"use {checkpoint.name.replace('/', '-quickgelu/', 1)}"
        )
    noted = f"{stored.notes.get('name', '')} {checkpoint.weights.name}".lower()
    if "quickgelu" in noted and not quick:
        log.warning(
            "%s was trained with QuickGELU by its name, but %s has GELU, so its results would be "
            "wrong; use the -quickgelu model",
            checkpoint.weights,
            checkpoint.name,
        )


def _with_stored_sizes(checkpoint: Checkpoint, stored: dict[str, torch.Tensor]) -> Checkpoint:
    """Take the text length and image size from the stored positions, so that none is resized.

    Raises whatever an invalid configuration makes it raise.
    """
    config = deepcopy(checkpoint.model_cfg)
    text, vision = config["text_cfg"], config["vision_cfg"]
    rows = _rows(stored, "positional_embedding", "text.positional_embedding")
    if rows and not ({"hf_config", "hf_model_name"} & text.keys()):
        length = rows - bool(text.get("embed_cls"))
        if length != text.get("context_length", 77):
            log.info("%s takes texts of %d tokens, as its weights do", checkpoint.name, length)
        text["context_length"] = length
    rows, patch = _rows(stored, "visual.positional_embedding"), vision.get("patch_size") or 0
    side = math.isqrt(max(rows - 1, 0)) * patch
    given = vision.get("image_size", 224)
    grid = given // patch if patch and isinstance(given, int) else 0
    if side and grid and rows == (side // patch) ** 2 + 1 != grid**2 + 1:
        log.warning(
            "%s takes images of %d px, not %d, as its weights do", checkpoint.name, side, given
        )
        vision["image_size"] = side
    return replace(checkpoint, model_cfg=config)


def _rows(stored: dict[str, torch.Tensor], *names: str) -> int:
    """Return the length of the first of these tensors that is a matrix, else 0."""
    return next(
        (len(stored[name]) for name in names if name in stored and stored[name].ndim == 2), 0
    )


class _Unfilled(tensors.Sized):
    """Skip the initialisation of a network whose tensors are all loaded later; saves 0.15 s."""

    FILLS = frozenset({torch.Tensor.normal_, torch.Tensor.uniform_, init.normal_, init.uniform_})
    FILLS |= {
        init.kaiming_uniform_,
        init.kaiming_normal_,
        init.xavier_uniform_,
        init.xavier_normal_,
        init.trunc_normal_,
    }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor unchanged for functions that fill it."""
        if func in self.FILLS:
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return super().__torch_function__(func, types, args, kwargs)


def _make(checkpoint: Checkpoint) -> torch.nn.Module:
    try:
        with _Unfilled(checkpoint.weights):
            return make_model(checkpoint.model_cfg)
    except OSError as error:
        raise WeightsMissing(
            f"{checkpoint.name} needs a text tower's configuration from Hugging Face: "
            f"{one_line(error)}"
        ) from error


def make_model(model_cfg: dict[str, Any]) -> torch.nn.Module:
    """Build a randomly initialised model from an open_clip or dual encoder configuration.

    No weights are downloaded, and nothing in a configuration can enable code of its own. Raises
    ValueError for names of unknown networks, and whatever open_clip raises for other mistakes.
    """
    config = deepcopy(model_cfg)
    patch_cfg = config.pop("patch_cfg", None)
    model = _make_towers(config)
    if patch_cfg is not None:
        valid = 0 < patch_cfg["side"] <= _LARGEST and patch_cfg.get("stride", 0) in (0, 8, 16, 32)
        if not valid:
            raise ValueError(
                f"patch_cfg must have a side in [1, {_LARGEST}] and a stride of 0, 8, 16 or 32, "
                f"got {str(patch_cfg)[:80]}"
            )
        model.patch_head = PatchHead(config["embed_dim"], **patch_cfg)
    return model


def _make_towers(config: dict[str, Any]) -> torch.nn.Module:
    config["vision_cfg"]["timm_model_pretrained"] = False
    _check_names(config["vision_cfg"], config["text_cfg"])
    if "hf_config" in config["text_cfg"]:
        return dual.DualEncoder(**config)
    config["text_cfg"]["hf_model_pretrained"] = False
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    if "multimodal_cfg" in config:
        return open_clip.CoCa(**config)
    return (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)


def _check_names(vision: dict[str, Any], text: dict[str, Any]) -> None:
    """Raise ValueError for names that would make timm or transformers read or run other files."""
    network = vision.get("timm_model_name")
    if network is not None and not (isinstance(network, str) and _PLAIN_NAME.fullmatch(network)):
        raise ValueError(
            f"timm_model_name {str(network)[:80]!r} is not a plain name of one of timm's networks"
        )
    name = text.get("hf_model_name")
    if name is None:
        return
    if (
        not (isinstance(name, str) and HUB_NAME.fullmatch(name))
        or ".." in name
        or Path(name).exists()
    ):
        raise ValueError(f"hf_model_name {str(name)[:80]!r} is not a Hugging Face name, OWNER/REPO")
    dual.known_config(name, local_files_only=weights.is_offline())


def save(
    model: torch.nn.Module,
    folder: Path,
    *,
    model_cfg: dict[str, Any],
    preprocess_cfg: dict[str, Any],
    serving: Serving,
) -> None:
    """Write model.safetensors (matrices as float16) and config.json, to be loaded by file:FOLDER.

    Each file replaces a former one only when it is complete and on disk. Raises NotWritable, for
    example on a full disk.
    """
    halved = {name: _halved(tensor) for name, tensor in model.state_dict().items()}
    config = {
        "model_cfg": model_cfg,
        "preprocess_cfg": preprocess_cfg,
        "serving": serving.to_dict(),
    }
    atomic.write(
        folder / "model.safetensors", safetensors.torch.save(halved, metadata={"format": "pt"})
    )
    atomic.write(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())


def store(folder: Path, serving: Serving) -> None:
    """Replace the serving settings in the config.json of a folder; raise NotWritable."""
    file = folder / "config.json"
    config = read_config(file) | {"serving": serving.to_dict()}
    atomic.write(file, (json.dumps(config, indent=2) + "\n").encode())


def preprocess_config(checkpoint: Checkpoint, image_size: int) -> PreprocessCfg:
    """Return the checkpoint's preprocessing for its image tower's input size.

    Raises WeightsCorrupt for an invalid one.
    """
    known = {
        name: value
        for name, value in checkpoint.preprocess_cfg.items()
        if name in asdict(PreprocessCfg())
    }
    own = PreprocessCfg(**{**known, "size": image_size})
    where = checkpoint.source
    for noun, values in (("mean", own.mean), ("std", own.std)):
        valid = (
            isinstance(values, list | tuple) and len(values) == 3 and all(map(_is_number, values))
        )
        if not valid or (noun == "std" and min(values) <= 0):
            kind = "positive numbers" if noun == "std" else "numbers"
            raise WeightsCorrupt(
                f"{where}: {noun} in its preprocess_cfg must be three {kind}, got "
                f"{str(values)[:60]}"
            )
    for noun, value, allowed in (
        ("interpolation", own.interpolation, ("bicubic", "bilinear", "random")),
        ("resize_mode", own.resize_mode, ("shortest", "longest", "squash")),
    ):
        if value not in allowed:
            raise WeightsCorrupt(
                f"{where}: {noun} in its preprocess_cfg must be one of {', '.join(allowed)}, got "
                f"{str(value)[:60]!r}"
            )
    if not (isinstance(own.fill_color, int) and 0 <= own.fill_color <= 255):
        raise WeightsCorrupt(
            f"{where}: fill_color in its preprocess_cfg must be an integer from 0 to 255, got "
            f"{own.fill_color!r:.60}"
        )
    return own


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _load(model: torch.nn.Module, stored: tensors.Stored, checkpoint: Checkpoint) -> None:
    """Load weights of any of open_clip's formats, with names converted as its own loader does."""
    state = convert_state_dict(model, with_current_names(stored.tensors))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    own = model.state_dict()
    if stored.container == "torchscript":  # also has attributes of modules
        state = {name: value for name, value in state.items() if name in own}
    for name in _TORCHSCRIPT_EXTRAS | {"text.transformer.embeddings.position_ids"}:
        if name not in own:
            state.pop(name, None)
    for name in ("logit_scale", "logit_bias"):  # one number, with or without an axis
        if name in state and name in own and state[name].numel() == 1:
            state[name] = state[name].reshape(own[name].shape)
    if "logit_bias" in own and "logit_bias" not in state and "logit_scale" in state:
        state["logit_bias"] = torch.zeros_like(state["logit_scale"])
    resize_pos_embed(state, model)
    tensors.lay_in(model, state, f"{stored.path} does not fit {checkpoint.name}")
    if not math.isfinite(model.logit_scale.detach().exp().mean()):
        raise WeightsCorrupt(f"{stored.path} has a logit_scale that is not a finite number")


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    # scales and variances stay in full precision
    halved = tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
    # cloned because safetensors refuses tensors that share memory
    return halved.detach().cpu().contiguous().clone()


def first(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first of ``names`` that is a file in ``folder``."""
    return next((folder / name for name in names if (folder / name).is_file()), None)
