"""Load and save ultralytics segmentation networks, with that package's side effects switched off.

Two formats: ultralytics' own ``.pt`` (a pickled network) and ours, a folder of ``model.safetensors`` + ``config.json``.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import safetensors
import safetensors.torch
import torch

from .. import weights
from ..errors import Unsupported, WeightsCorrupt, WeightsMissing
from ..imports import without_compiler
from ..types import Array

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
_STOCK_ARCHITECTURE = re.compile(r"[\w-]+\.yaml")


@contextmanager
def quiet() -> Iterator[None]:
    """Hold ultralytics to itself while it is imported or used.

    No network, no package installs, no settings outside our cache folder, no log lines; the caller's thread counts,
    environment, warning filters and NumPy print options come back as they were. Variables the user has set win.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(weights.cache_folder() / "ultralytics"))
    # also makes ultralytics build networks from their description without eval()
    os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")
    environment, threads, cv2_threads = dict(os.environ), torch.get_num_threads(), cv2.getNumThreads()
    try:
        with np.printoptions(), warnings.catch_warnings(), without_compiler():
            yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)


def load(path: Path, *, trust: bool = False) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Load a network in evaluation mode, convolutions and norms fused, with its configuration ({} for a ``.pt``).

    trust: unpickle a ``.pt`` that names types beyond ultralytics' own, which runs whatever code it holds.
    Raises WeightsMissing, WeightsCorrupt.
    """
    if not path.exists():
        raise WeightsMissing(f"no proposer weights at {path}; give a FastSAM .pt file or a folder with {_CONFIG}")
    with quiet():
        network, config = _load_folder(path) if path.is_dir() else (_load_pickle(path.absolute(), trust), {})
        if network.end2end or len(network.names) != 1:
            raise Unsupported(f"{path} has {len(network.names)} classes; a proposer has one, and no end-to-end head")
        return network.eval().fuse(verbose=False).requires_grad_(False), config


def letterbox(image_size: int, stride: int) -> Callable[[Array], Array]:
    """Give what brings uint8 (H, W, 3) pixels to ``image_size``, rounded up to ``stride``, padded to ``stride``."""
    with quiet():
        from ultralytics.data.augment import LetterBox

        box = LetterBox(-(-image_size // stride) * stride, auto=True, stride=stride)
        return lambda pixels: box(image=pixels)


def save(model: Any, folder: Path, config: dict[str, Any]) -> None:
    """Write a SegmentationModel, not fused, as ``model.safetensors`` + ``config.json``.

    Kernels are stored as float16, biases and norms as they are. config: image_size, confidence, iou, ...; architecture,
    nc and stride are taken from the model where left out.
    """
    if model.is_fused():
        raise ValueError("save the network before its norms are fused away; the loader fuses it again")
    folder.mkdir(parents=True, exist_ok=True)
    architecture = {key: value for key, value in model.yaml.items() if key != "yaml_file"}
    described = {"architecture": architecture, "nc": architecture["nc"], "stride": int(model.stride.max())}
    tensors = {name: _compact(tensor) for name, tensor in model.state_dict().items()}
    _write(folder / _WEIGHTS, safetensors.torch.save(tensors))
    _write(folder / _CONFIG, json.dumps(described | config).encode())


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    plain = tensor.detach().cpu().clone().contiguous()
    return plain.half() if plain.is_floating_point() and plain.ndim > 1 else plain


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    os.replace(partial, path)


def _load_folder(folder: Path) -> tuple[Any, dict[str, Any]]:
    missing = [name for name in (_CONFIG, _WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise WeightsMissing(f"{folder} has no {' and no '.join(missing)}; it takes {_CONFIG} and {_WEIGHTS}")
    try:
        config = json.loads((folder / _CONFIG).read_text())
        network = _build(config)
        network.load_state_dict(safetensors.torch.load_file(folder / _WEIGHTS))
    except (ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsCorrupt(f"{folder} does not hold a segmentation network: {error}") from error
    return network, config


def _build(config: dict[str, Any]) -> Any:
    from ultralytics.nn.tasks import SegmentationModel

    architecture = config["architecture"]
    if isinstance(architecture, str) and not _STOCK_ARCHITECTURE.fullmatch(architecture):
        raise ValueError(
            f"architecture must be a description or a plain .yaml name of ultralytics, got {architecture!r}"
        )
    return SegmentationModel(architecture, nc=config["nc"], verbose=False)


def _load_pickle(path: Path, trust: bool) -> Any:
    from ultralytics.nn.tasks import SegmentationModel, torch_safe_load

    if path.suffix != ".pt":
        raise Unsupported(f"{path} is not an ultralytics .pt file nor a folder with {_CONFIG} and {_WEIGHTS}")
    try:
        try:
            checkpoint, _ = torch_safe_load(str(path), safe_only=True)
        except (TypeError, ModuleNotFoundError):  # it names types beyond ultralytics' list, or is damaged
            weights.check_pickle(path, trust=trust)
            checkpoint, _ = torch_safe_load(str(path), safe_only=False)
    except (TypeError, AttributeError, ImportError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsCorrupt(f"{path} cannot be read as an ultralytics checkpoint: {error}") from error
    network = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(network, SegmentationModel):
        raise Unsupported(f"{path} holds a {type(network).__name__}; FastSAM is a YOLO segmentation network")
    return network.float()
