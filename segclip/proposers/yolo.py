"""Load and save ultralytics segmentation networks without that package's side effects.

Two formats: ultralytics' own ``.pt`` (a pickled network) and ours, a folder of
``model.safetensors`` + ``config.json``.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import safetensors.torch
import torch

from .. import weights
from ..errors import Unsupported, WeightsCorrupt, WeightsMissing, one_line
from ..files import atomic
from ..startup import without_compiler
from ..types import Array
from ..weights import tensors
from ..weights.reading import no_weights, open_file, read_config, reading, recognise

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_STOCK_ARCHITECTURE = re.compile(r"[\w.-]+\.yaml")
_ACTIVATION = re.compile(r"(torch\.)?nn\.[A-Z]\w*\([\w\s.,=-]*\)")
_TEXT = re.compile(r"[\w .-]{0,60}")
_DOWNLOADING = frozenset({"TorchVision"})  # layers that would download something


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress ultralytics' side effects while it is imported or used.

    No network access, package installs, settings outside our cache folder or log lines; the
    caller's thread counts, environment, warning filters and NumPy print options are restored.
    Environment variables set by the user take precedence.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(weights.cache_folder() / "ultralytics"))
    # also makes ultralytics build networks from their description without eval()
    os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")
    environment = dict(os.environ)
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        with np.printoptions(), warnings.catch_warnings(), without_compiler():
            yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)


def load(path: Path, *, trust: bool | None = None) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Load a network in evaluation mode, batch norms fused, and its configuration.

    The latter is {} for a ``.pt``. trust: None unpickles a ``.pt`` that names only ultralytics' and
    torch's types, and another only if its hash is in the manifest; False only those in the
    manifest; True also what names other types, which runs any code in it. Raises WeightsMissing,
    WeightsCorrupt, Unsupported.
    """
    if not path.exists():
        raise WeightsMissing(
            f"no proposer weights at {path}; pass a FastSAM .pt file or a folder with {CONFIG}"
        )
    with quiet(), reading(path, "a segmentation network"):
        network, config = (
            _load_folder(path) if path.is_dir() else (_load_pickle(path.absolute(), trust), {})
        )
        if network.end2end or len(network.names) != 1:
            raise Unsupported(
                f"{path} has {len(network.names)} classes; a proposer must have one class and no "
                "end-to-end head"
            )
        return network.eval().fuse(verbose=False).requires_grad_(False), config


def letterbox(image_size: int, stride: int) -> Callable[[Array], Array]:
    """Return a function that resizes and pads uint8 (H, W, 3) pixels.

    The longer side becomes ``image_size``, rounded up to ``stride``; both are padded to ``stride``.
    """
    with quiet():
        from ultralytics.data.augment import LetterBox

        box = LetterBox(-(-image_size // stride) * stride, auto=True, stride=stride)
        return lambda pixels: box(image=pixels)


def save(model: Any, folder: Path, config: dict[str, Any]) -> None:
    """Write an unfused SegmentationModel as ``model.safetensors`` + ``config.json``.

    Kernels are stored as float16, biases and norms unchanged. config: image_size, confidence,
    iou, ...; architecture, nc and stride default to the model's. Raises ValueError for a fused one.
    """
    if model.is_fused():
        raise ValueError(
            "the network's norms are fused; save it before fuse(), as the loader fuses"
        )
    architecture = {key: value for key, value in model.yaml.items() if key != "yaml_file"}
    described = {
        "architecture": architecture,
        "nc": architecture["nc"],
        "stride": int(model.stride.max()),
    }
    atomic.write(folder / WEIGHTS, safetensors.torch.save(compact(model)))
    atomic.write(folder / CONFIG, json.dumps(described | config).encode())


def compact(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a network's state to store: kernels and matrices as float16, others unchanged."""
    state = {}
    for name, tensor in network.state_dict().items():
        # cloned, as safetensors refuses tensors that share memory
        value = tensor.detach().cpu().clone().contiguous()
        state[name] = value.half() if value.is_floating_point() and value.ndim > 1 else value
    return state


def load_stored(network: torch.nn.Module, folder: Path) -> None:
    """Load the tensors of a checkpoint's folder into a network. Raises WeightsCorrupt."""
    file = folder / WEIGHTS
    with reading(file):
        stored = safetensors.torch.load_file(file)
    tensors.lay_in(network, stored, f"{file} does not fit the network of {CONFIG}")


def _load_folder(folder: Path) -> tuple[Any, dict[str, Any]]:
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise WeightsMissing(
            f"{folder} has no {' and no '.join(missing)}; it needs {CONFIG} and {WEIGHTS}"
        )
    config = read_config(folder / CONFIG)
    with (
        reading(folder / CONFIG, "the description of a segmentation network"),
        tensors.Sized(folder / WEIGHTS),
    ):
        network = build(config["architecture"], config["nc"])
    load_stored(network, folder)
    return network, config


def build(architecture: str | dict[str, Any], classes: int) -> Any:
    """Build a randomly initialised SegmentationModel from a description or a stock .yaml name.

    Nothing is evaluated and no files other than the package's own are read. Raises ValueError, and
    whatever ultralytics raises.
    """
    from ultralytics.nn.tasks import SegmentationModel

    if not isinstance(classes, int) or not 0 < classes < 10_000:
        raise ValueError(f"nc must be a number of classes below 10000, got {str(classes)[:60]!r}")
    if isinstance(architecture, str):
        architecture = _stock(architecture)
    _check_description(architecture)
    return SegmentationModel(architecture, nc=classes, verbose=False)


def _stock(name: str) -> dict[str, Any]:
    """Read one of the package's own descriptions, never a file of the working folder."""
    import ultralytics
    from ultralytics.nn.tasks import guess_model_scale
    from ultralytics.utils import YAML

    if not _STOCK_ARCHITECTURE.fullmatch(name):
        raise ValueError(
            "architecture must be a description or a plain .yaml name of ultralytics, got "
            f"{name[:80]!r}"
        )
    # yolov8n-seg.yaml is yolov8-seg.yaml at scale n
    family = re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", name)
    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    found = next((file for known in (name, family) for file in sorted(folder.rglob(known))), None)
    if found is None:
        raise ValueError(f"ultralytics has no architecture {name!r}")
    return {**YAML.load(found), "scale": guess_model_scale(name), "yaml_file": name}


def _check_description(architecture: Any) -> None:
    """Raise ValueError for descriptions that would call or evaluate anything but layers."""
    from ultralytics.nn import modules

    if not isinstance(architecture, dict):
        raise ValueError(
            f"architecture must be a description or a .yaml name, got {str(architecture)[:60]!r}"
        )
    activation = architecture.get("activation")
    if activation and not (isinstance(activation, str) and _ACTIVATION.fullmatch(activation)):
        raise ValueError(f"the activation {str(activation)[:60]!r} is not a layer of torch")
    rows = [row for part in ("backbone", "head") for row in architecture[part]]
    for _, repeats, name, arguments in rows:
        layer = (
            getattr(torch.nn, name.removeprefix("nn."), None)
            if name.startswith("nn.")
            else getattr(modules, name)
        )
        if name in _DOWNLOADING or not (
            isinstance(layer, type) and issubclass(layer, torch.nn.Module)
        ):
            raise ValueError(f"{name[:60]!r} is not a layer of a network")
        if (
            not isinstance(repeats, int)
            or not 0 < repeats <= 100
            or not all(map(_is_argument, arguments))
        ):
            raise ValueError(
                f"the layer {name} has invalid arguments {str((repeats, arguments))[:80]}"
            )


def _is_argument(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_argument, value))
    return (
        value is None
        or isinstance(value, int | float)
        or (isinstance(value, str) and bool(_TEXT.fullmatch(value)))
    )


def _load_pickle(path: Path, trust: bool | None) -> Any:
    """Unpickle one of ultralytics' networks.

    Its loader takes a file name, so it reads a copy of the very bytes that were hashed.
    """
    from ultralytics.nn.tasks import SegmentationModel

    with open_file(path) as file:
        container, data = recognise(file), file.read()
    if container != "pickle":
        raise _not_ultralytics(path, container, data)
    digest = sha256(data).hexdigest()
    if trust is not None:
        weights.vouch(path, digest, trust=trust)
    with tempfile.TemporaryDirectory(prefix="segclip-") as folder:
        copy = Path(folder) / "network.pt"
        copy.write_bytes(data)
        checkpoint = _unpickle(path, copy, lambda: weights.vouch(path, digest, trust=bool(trust)))
    if not isinstance(checkpoint, dict):
        raise Unsupported(
            f"{path} contains a {type(checkpoint).__name__}; FastSAM is a YOLO segmentation network"
        )
    network = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(network, SegmentationModel):
        other = isinstance(network, dict) or any(
            isinstance(value, torch.Tensor) for value in checkpoint.values()
        )
        hint = f"; for a SAM checkpoint use sam-vit-b/file:{path}" if other else ""
        kind = "state dict" if other else type(network).__name__
        raise Unsupported(f"{path} contains a {kind}; FastSAM is a YOLO segmentation network{hint}")
    return network.float()


def _unpickle(path: Path, copy: Path, vouch: Callable[[], None]) -> Any:
    """Load a copy with ultralytics' own types only, or with any types unless ``vouch`` raises."""
    from ultralytics.nn.tasks import torch_safe_load

    try:
        try:
            with tensors.unpickling():
                checkpoint, _ = torch_safe_load(str(copy), safe_only=True)
        except (TypeError, ModuleNotFoundError):  # names other types, or is damaged
            vouch()
            checkpoint, _ = torch_safe_load(str(copy), safe_only=False)
    except (
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
        ValueError,
        LookupError,
        EOFError,
    ) as error:
        reason = one_line(str(error).replace(str(copy), path.name))
        raise WeightsCorrupt(
            f"{path} cannot be read as an ultralytics checkpoint: {reason}"
        ) from error
    return checkpoint


def _not_ultralytics(path: Path, container: str, data: bytes) -> Exception:
    if container == "none":
        return (WeightsCorrupt if path.suffix == ".pt" else Unsupported)(
            f"{no_weights(path, data[:64])}; pass an ultralytics .pt file or a folder with "
            f"{CONFIG} and {WEIGHTS}"
        )
    if container == "torchscript":
        return Unsupported(
            f"{path} is a TorchScript archive, which is code; pass the .pt file it was exported "
            "from"
        )
    return Unsupported(
        f"{path} is a bare {container} file, not an ultralytics .pt file; "
        f"pass the folder with its {CONFIG} and {WEIGHTS}"
    )
