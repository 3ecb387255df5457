"""Find a checkpoint by its spec: in the manifest, a file, a folder, open_clip or the hub."""

from __future__ import annotations

import difflib
import json
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import snapshot_download

from .. import weights
from ..errors import BadPrompt, UnknownName, Unsupported, WeightsCorrupt, WeightsMissing, one_line
from ..weights.reading import read_config, reading
from . import Serving
from .checkpoints import CONFIGS, PICKLED_FILES, SAFE_FILES, TOKENIZER_FILES, Checkpoint, first

SPECS = "MODEL/TAG, MODEL/file:PATH, file:FOLDER or hf-hub:OWNER/REPO"

_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")

logger = logging.getLogger(__name__)


def find(spec: str, *, trust: bool = False) -> Checkpoint:
    """Find a checkpoint by its spec, downloading it only if allowed.

    Raises WeightsMissing, WeightsCorrupt, UnknownName, Unsupported or BadPrompt.
    """
    entry = weights.manifest().get(spec)
    if entry is not None and entry.kind == "encoder":
        path = weights.locate(spec, trust=trust)
        return (
            from_folder(path, spec)
            if path.is_dir()
            else from_file(entry.options["model"], path, spec)
        )
    if spec.startswith("hf-hub:"):
        return from_folder(_hub_folder(spec.removeprefix("hf-hub:")), spec)
    if spec.startswith("file:"):
        path = weights.locate(spec, trust=trust)
        if not path.is_dir():
            raise Unsupported(
                f"{path} is not a folder; for a bare weight file use MODEL/file:{path}"
            )
        return from_folder(path, spec)
    model, slash, source = spec.partition("/")
    if not slash:
        raise UnknownName(
            f"unknown encoder {spec!r}; use {SPECS}, or one of {', '.join(_manifest_names())}"
        )
    if source.startswith("file:"):
        return from_file(model, weights.locate(source, trust=trust), spec)
    return from_tag(model, source)


def from_folder(folder: Path, name: str) -> Checkpoint:
    """Read a folder of config.json and model.safetensors (or open_clip's names for them)."""
    config_file = first(folder, CONFIGS)
    file = first(folder, (*SAFE_FILES, *PICKLED_FILES))
    if config_file is None or file is None:
        raise WeightsMissing(
            f"{folder} needs {' or '.join(CONFIGS)} and {', '.join(SAFE_FILES)} or "
            f"{PICKLED_FILES[0]}"
        )
    config = read_config(config_file)
    if "model_cfg" not in config:
        raise WeightsCorrupt(
            f"{config_file} has no 'model_cfg'; it is not an open_clip configuration"
        )
    model_cfg, preprocess_cfg = (
        _part(config, part, config_file) for part in ("model_cfg", "preprocess_cfg")
    )
    with reading(config_file, "a configuration"):
        try:
            serving = Serving.from_dict(_part(config, "serving", config_file))
        # the errors of a user's option, but here the file is at fault
        except (BadPrompt, UnknownName) as error:
            raise WeightsCorrupt(f"{config_file}: {error}") from error
    return Checkpoint(name, model_cfg, preprocess_cfg, file, serving, folder)


def from_file(model: str, file: Path, name: str) -> Checkpoint:
    """Use a bare weight file for a named model.

    Its preprocessing is that of an open_clip_config.json beside it, else that of the model.
    """
    model_cfg = _model_cfg(model)
    if file.is_dir():
        raise Unsupported(
            f"{file} is a folder; use file:{file} alone, or {model}/file: with a weight file in it"
        )
    named = bool(model_cfg.get("quick_gelu"))
    config_file = file.parent / "open_clip_config.json"
    if not config_file.is_file():
        if "/file:" in name and f"{model}-quickgelu" in open_clip.list_models():
            logger.warning(
                "%s does not state its activation; %s has GELU. If it was trained with "
                "QuickGELU, as OpenAI's were, use %s-quickgelu/file:%s",
                *(file, model, model, file),
            )
        return Checkpoint(name, model_cfg, _preprocess_of(model), file)
    config = read_config(config_file)
    own = _part(config, "model_cfg", config_file) or model_cfg
    model_cfg["quick_gelu"] = bool(own.get("quick_gelu", False))
    if model_cfg["quick_gelu"] != named:
        kinds = ("QuickGELU", "GELU") if named else ("GELU", "QuickGELU")
        logger.warning(
            "%s has %s by its name, but %s has %s, which is used",
            model,
            kinds[0],
            config_file,
            kinds[1],
        )
    return Checkpoint(name, model_cfg, _part(config, "preprocess_cfg", config_file), file)


def from_tag(model: str, tag: str) -> Checkpoint:
    """Use one of open_clip's pretrained tags, from the local cache or, if allowed, downloaded."""
    model_cfg = _model_cfg(model)
    pretrained = open_clip.get_pretrained_cfg(model, tag)
    if not pretrained:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise UnknownName(
            f"{model} has no weights {tag!r}; choose one of {', '.join(tags) or 'none'}, or "
            f"{model}/file:PATH"
        )
    # the activation belongs to the weights, not the name
    model_cfg["quick_gelu"] = pretrained.get("quick_gelu", False)
    name = f"{model}/{tag}"
    return Checkpoint(name, model_cfg, pretrained, _tag_file(name, pretrained))


def _model_cfg(model: str) -> dict[str, Any]:
    config: dict[str, Any] | None = open_clip.get_model_config(model)
    if config is None:
        nearest = difflib.get_close_matches(model, open_clip.list_models(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"use {SPECS}"
        raise UnknownName(f"open_clip has no model {model!r}; {hint}")
    return config


def _preprocess_of(model: str) -> dict[str, Any]:
    """Return the preprocessing of a model's published weights, the most common if they differ."""
    configs = [
        open_clip.get_pretrained_cfg(model, tag)
        for tag in open_clip.list_pretrained_tags_by_model(model)
    ]
    kinds = [json.dumps({name: config[name] for name in _PREPROCESSING}) for config in configs]
    if not kinds:
        return {}
    if len(set(kinds)) > 1:
        logger.warning(
            "the published weights of %s differ in preprocessing; using the most common",
            model,
        )
    return dict(json.loads(Counter(kinds).most_common(1)[0][0]))


def _tag_file(name: str, pretrained: dict[str, Any]) -> Path:
    if pretrained.get("hf_hub"):
        repo, _, file = pretrained["hf_hub"].rpartition("/")
        return _hub_file(repo, (file,) if file else (*SAFE_FILES, *PICKLED_FILES))
    if weights.is_offline():
        raise WeightsMissing(
            f"{name} must be downloaded from {pretrained['url']}, but segclip is offline; download "
            "it and use MODEL/file:PATH"
        )
    try:
        return Path(open_clip.download_pretrained(pretrained))
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsMissing(
            f"{name} could not be downloaded from {pretrained['url']}: {one_line(error)}"
        ) from error


def _hub_file(repo: str, names: Iterable[str]) -> Path:
    folder = _snapshot(repo, tuple(names))
    file = first(folder, names)
    if file is None:
        raise WeightsMissing(f"hf-hub:{repo} has none of {', '.join(names)} on this machine")
    return file


def _hub_folder(repo: str) -> Path:
    folder = _snapshot(repo, (*CONFIGS, *SAFE_FILES, *TOKENIZER_FILES))
    if first(folder, SAFE_FILES) is None:
        folder = _snapshot(repo, (*CONFIGS, *PICKLED_FILES, *TOKENIZER_FILES))
    return folder


def _snapshot(repo: str, patterns: tuple[str, ...]) -> Path:
    try:
        return Path(
            snapshot_download(
                repo, allow_patterns=list(patterns), local_files_only=weights.is_offline()
            )
        )
    except (OSError, ValueError) as error:
        raise WeightsMissing(
            f"hf-hub:{repo} is not on this machine and could not be downloaded; copy its files to "
            f"a folder and use file:FOLDER ({one_line(error)})"
        ) from error


def _manifest_names() -> list[str]:
    return [name for name, entry in weights.manifest().items() if entry.kind == "encoder"]


def _part(config: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    """Return a part of a configuration, which must be an object; {} if it is missing."""
    part = config.get(name, {})
    if not isinstance(part, dict):
        raise WeightsCorrupt(f"{file}: {name} must be an object, got {str(part)[:60]!r}")
    return part
