"""Make the tokenizer that a checkpoint names."""

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

_PLAIN_TOKEN = re.compile(r"[\w <>|-]{1,60}")  # open_clip makes patterns of some
_SIMPLE_OPTIONS = {
    "context_length": int,
    "clean": str,
    "reduction_mask": str,
    "additional_special_tokens": list,
}
_HF_OPTIONS = {"context_length": int, "clean": str, "strip_sep_token": bool, "language": str}


def make_tokenizer(checkpoint: Checkpoint) -> Any:
    """Make the checkpoint's tokenizer; raise WeightsMissing when its vocabulary is not on this
    machine.

    Data alone makes it: code that its files point to is never run, and options are open_clip's own
    few, not whatever transformers would take. Raises WeightsCorrupt, Unsupported for others.
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
        plain = copy(
            open_clip.tokenizer._tokenizer
        )  # made when open_clip was imported: another takes 0.2 s
        plain.context_length = options["context_length"]
        return plain


def _tokenizer_options(
    where: Path, text_cfg: dict[str, Any], allowed: dict[str, type]
) -> dict[str, Any]:
    given = text_cfg.get("tokenizer_kwargs") or {}
    for name, value in given.items():
        if name not in allowed:
            raise Unsupported(
                f"{where} asks for a tokenizer with {str(name)[:60]!r}; what it may set is "
                f"{', '.join(allowed)}"
            )
        parts = value if isinstance(value, list) else [value]
        right = isinstance(value, allowed[name]) and not (
            name == "context_length" and isinstance(value, bool)
        )
        right = right and all(_PLAIN_TOKEN.fullmatch(str(part)) for part in parts)
        if not right:
            raise WeightsCorrupt(f"{where}: {name} of its tokenizer_kwargs is {str(value)[:60]!r}")
    return dict(given)


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
                f"{checkpoint.source}: the tokenizer {name!r} is code of its own, which is never "
                "run"
            ) from error
        raise WeightsMissing(
            f"the tokenizer {name!r} of {checkpoint.name} is not on this machine: go online once, "
            "or use a "
            f"file:FOLDER that holds its tokenizer.json ({one_line(error)})"
        ) from error
