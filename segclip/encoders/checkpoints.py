"""Build, load and save open_clip models with the configs that travel with their weights."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from copy import copy, deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
from open_clip.transform import PreprocessCfg
from torch.nn import init
from torch.overrides import TorchFunctionMode

from .. import atomic, weights
from ..errors import Unsupported, WeightsCorrupt, WeightsMissing
from . import Serving, dual
from .patches import PatchHead

CONFIGS = ("config.json", "open_clip_config.json")
SAFE_FILES = ("model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
PICKLED_FILES = ("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "*.model", "vocab.*", "*.txt")

_TORCHSCRIPT_EXTRAS = {"input_resolution", "context_length", "vocab_size"}


@dataclass(frozen=True)
class Checkpoint:
    """Hold all that makes an encoder: where its weights lie and the configs that travel with them.

    model_cfg, preprocess_cfg: open_clip's own dictionaries. folder: where a tokenizer of its own may lie.
    """

    name: str
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    weights: Path
    serving: Serving = field(default_factory=Serving)
    folder: Path | None = None


def build(checkpoint: Checkpoint, *, trust: bool = False) -> torch.nn.Module:
    """Build the model in float32 on the CPU and load its weights; raise WeightsCorrupt when they do not fit."""
    pickled = checkpoint.weights.suffix != ".safetensors"
    if pickled:
        weights.check_pickle(checkpoint.weights, trust=trust)
    model = _make(checkpoint)
    if pickled and _is_torchscript(checkpoint.weights) and not checkpoint.model_cfg.get("quick_gelu"):
        raise Unsupported(
            f"{checkpoint.weights} is one of OpenAI's own files, which need the -quickgelu model: "
            f"give {checkpoint.name.replace('/', '-quickgelu/', 1)}"
        )
    try:
        _load(model, checkpoint.weights)
    except (RuntimeError, KeyError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsCorrupt(f"{checkpoint.weights} does not fit {checkpoint.name}: {reason}") from error
    return model.eval()


class _Unfilled(TorchFunctionMode):
    """Leave tensors as they are allocated while a network is built whose every tensor is then loaded: 0.15 s less."""

    FILLS = frozenset({torch.Tensor.normal_, torch.Tensor.uniform_, init.normal_, init.uniform_})
    FILLS |= {
        init.kaiming_uniform_,
        init.kaiming_normal_,
        init.xavier_uniform_,
        init.xavier_normal_,
        init.trunc_normal_,
    }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Give a tensor back as it came."""
        named = kwargs or {}
        return named.get("tensor", args[0] if args else None) if func in self.FILLS else func(*args, **named)


def _make(checkpoint: Checkpoint) -> torch.nn.Module:
    try:
        with _Unfilled():
            return make_model(checkpoint.model_cfg)
    except OSError as error:
        raise WeightsMissing(
            f"{checkpoint.name} needs a text tower's configuration from Hugging Face: {error}"
        ) from error
    except (TypeError, KeyError, AttributeError, ValueError, RuntimeError) as error:
        where = checkpoint.folder or checkpoint.name
        raise WeightsCorrupt(f"the config.json of {where} describes no open_clip model: {error!r}") from error


def make_model(model_cfg: dict[str, Any]) -> torch.nn.Module:
    """Build a randomly initialised model from its configuration, open_clip's or a dual encoder's, fetching nothing."""
    config = deepcopy(model_cfg)
    patch_cfg = config.pop("patch_cfg", None)
    model = _make_towers(config)
    if patch_cfg is not None:
        model.patch_head = PatchHead(config["embed_dim"], **patch_cfg)
    return model


def _make_towers(config: dict[str, Any]) -> torch.nn.Module:
    config["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_config" in config["text_cfg"]:
        return dual.DualEncoder(**config)
    config["text_cfg"]["hf_model_pretrained"] = False
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    if "multimodal_cfg" in config:
        return open_clip.CoCa(**config)
    return (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)


def save(
    model: torch.nn.Module,
    folder: Path,
    *,
    model_cfg: dict[str, Any],
    preprocess_cfg: dict[str, Any],
    serving: Serving,
) -> None:
    """Write model.safetensors (matrices as float16) and config.json, which ``file:FOLDER`` loads.

    Each replaces the one before it only once it is whole and on the disk; raises NotWritable, as on a full disk.
    """
    tensors = {name: _halved(tensor) for name, tensor in model.state_dict().items()}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg, "serving": serving.to_dict()}
    atomic.write(folder / "model.safetensors", safetensors.torch.save(tensors, metadata={"format": "pt"}))
    atomic.write(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())


def store(folder: Path, serving: Serving) -> None:
    """Replace what config.json says of how the checkpoint in a folder wants to be used; raises NotWritable."""
    file = folder / "config.json"
    config = json.loads(file.read_text("utf-8")) | {"serving": serving.to_dict()}
    atomic.write(file, (json.dumps(config, indent=2) + "\n").encode())


def preprocess_config(checkpoint: Checkpoint, image_size: int) -> PreprocessCfg:
    """Give the checkpoint's own preprocessing at the size its image tower takes."""
    known = {name: value for name, value in checkpoint.preprocess_cfg.items() if name in asdict(PreprocessCfg())}
    return PreprocessCfg(**{**known, "size": image_size})


def tokenizer(checkpoint: Checkpoint) -> Any:
    """Make the checkpoint's tokenizer; raise WeightsMissing when its vocabulary is not on this machine."""
    text_cfg = checkpoint.model_cfg["text_cfg"]
    options = {"context_length": text_cfg.get("context_length", 77), **(text_cfg.get("tokenizer_kwargs") or {})}
    name = text_cfg.get("hf_tokenizer_name")
    if not name:
        if options.keys() > {"context_length"}:
            return open_clip.SimpleTokenizer(**options)
        plain = copy(open_clip.tokenizer._tokenizer)  # made when open_clip was imported: another takes 0.2 s
        plain.context_length = options["context_length"]
        return plain
    folder = checkpoint.folder
    own = folder is not None and first(folder, TOKENIZER_FILES[:2]) is not None
    source = str(folder) if own else name
    mode = text_cfg.get("tokenizer_mode")
    try:
        return open_clip.tokenizer.HFTokenizer(
            source, tokenizer_mode=mode, local_files_only=own or weights.is_offline(), **options
        )
    except (OSError, ValueError) as error:
        raise WeightsMissing(
            f"the tokenizer {name!r} of {checkpoint.name} is not on this machine: go online once, or use a "
            f"file:FOLDER that holds its tokenizer.json ({str(error).splitlines()[0]})"
        ) from error


def _load(model: torch.nn.Module, file: Path) -> None:
    if not _is_torchscript(file):
        open_clip.load_checkpoint(model, str(file))
        return
    state = torch.jit.load(file, map_location="cpu").state_dict()
    model.load_state_dict({name: value for name, value in state.items() if name not in _TORCHSCRIPT_EXTRAS})


def _is_torchscript(file: Path) -> bool:
    if file.suffix == ".safetensors" or not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    matrix = tensor.is_floating_point() and tensor.ndim > 1  # scales and variances keep all their digits
    halved = tensor.half() if matrix else tensor
    return halved.detach().cpu().contiguous().clone()  # safetensors refuses tensors that share memory


def first(folder: Path, names: Iterable[str]) -> Path | None:
    """Give the first of ``names`` that is a file in ``folder``."""
    return next((folder / name for name in names if (folder / name).is_file()), None)
