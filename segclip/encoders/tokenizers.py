"""Build the tokenizer that a checkpoint names."""

from __future__ import annotations

import re
from copy import copy
from pathlib import Path
from typing import Any

import open_clip

from .. import weights
from ..errors import Unsupported, WeightsCorrupt, WeightsMissing, one_line
from ..weights.reading import reading
from .checkpoints import HUB_NAME, TOKENIZER_FILES, Checkpoint, first

_PLAIN_TOKEN = re.compile(r"[\w <>|-]{1,60}")  # open_clip builds regular expressions from some
_SIMPLE_OPTIONS = {
    "context_length": int,
    "clean": str,
    "reduction_mask": str,
    "additional_special_tokens": list,
}
_HF_OPTIONS = {"context_length": int, "clean": str, "strip_sep_token": bool, "language": str}


def make_tokenizer(checkpoint: Checkpoint) -> Any:
    """Build the checkpoint's tokenizer; its vocabulary must be on this machine or be downloadable.

    It is built from data only: code that its files point to is never run, and only open_clip's few
    options are accepted, not all of transformers'. Raises WeightsMissing, WeightsCorrupt,
    Unsupported.
    """
    where = checkpoint.source
    with reading(where, f"the tokenizer of {checkpoint.name}"):
        text_cfg = checkpoint.model_cfg["text_cfg"]
        name = text_cfg.get("hf_tokenizer_name")
        longest = text_cfg.get("context_length", 77)
        options = _tokenizer_options(where, text_cfg, _HF_OPTIONS if name else _SIMPLE_OPTIONS)
        options["context_length"] = min(longest, options.get("context_length", longest))
        if name:
            return _hf_tokenizer(checkpoint, name, options)
        if options.keys() > {"context_length"}:
            return open_clip.SimpleTokenizer(**options)
        # a copy of the one open_clip builds on import: another takes 0.2 s
        shared = copy(open_clip.tokenizer._tokenizer)
        shared.context_length = options["context_length"]
        return shared


def _tokenizer_options(
    where: Path, text_cfg: dict[str, Any], allowed: dict[str, type]
) -> dict[str, Any]:
    options = text_cfg.get("tokenizer_kwargs") or {}
    for name, value in options.items():
        if name not in allowed:
            raise Unsupported(
                f"{where}: tokenizer_kwargs has the unsupported option {str(name)[:60]!r}; "
                f"allowed are {', '.join(allowed)}"
            )
        parts = value if isinstance(value, list) else [value]
        valid = isinstance(value, allowed[name]) and not (
            name == "context_length" and isinstance(value, bool)
        )
        valid = valid and all(_PLAIN_TOKEN.fullmatch(str(part)) for part in parts)
        if not valid:
            raise WeightsCorrupt(
                f"{where}: {name} in its tokenizer_kwargs is invalid, got {str(value)[:60]!r}"
            )
    return dict(options)


def _hf_tokenizer(checkpoint: Checkpoint, name: str, options: dict[str, Any]) -> Any:
    folder, mode = checkpoint.folder, checkpoint.model_cfg["text_cfg"].get("tokenizer_mode")
    own = folder is not None and first(folder, TOKENIZER_FILES[:2]) is not None
    if not own and not (
        isinstance(name, str) and HUB_NAME.fullmatch(name) and not Path(name).exists()
    ):
        raise ValueError(
            f"hf_tokenizer_name {str(name)[:80]!r} is not a name of the Hugging Face hub, "
            "OWNER/REPO"
        )
    source = str(folder) if own else name
    local = own or weights.is_offline()
    try:
        return open_clip.tokenizer.HFTokenizer(
            source, tokenizer_mode=mode, local_files_only=local, trust_remote_code=False, **options
        )
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise Unsupported(
                f"{checkpoint.source}: the tokenizer {name!r} needs code of its own, which is "
                "never run"
            ) from error
        raise WeightsMissing(
            f"the tokenizer {name!r} of {checkpoint.name} is not on this machine: go online once, "
            f"or use a file:FOLDER with its tokenizer.json ({one_line(error)})"
        ) from error
