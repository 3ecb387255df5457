"""The entries of weights/manifest.json: what is known by name, and where each lies.

The manifest and the shipped weights are in the folder SEGCLIP_WEIGHTS, else in the installed one;
downloads go to the folder SEGCLIP_HOME, else ~/.cache/segclip.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import UnknownName, WeightsCorrupt, WeightsMissing
from ..registry import looks_like_path
from .cache import cache_folder, recorded

SAFE_FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
)
# used in a folder without any of those
PICKLED_FILES = ("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt")


@dataclass(frozen=True)
class Entry:
    """An entry of the manifest.

    file: a name in the entry's own cache folder; for shipped entries a folder beside the manifest.
    url: None if it cannot be downloaded unattended. bytes, sha256: of the file, or of a shipped
    folder's model.safetensors; None if unpublished.
    """

    name: str
    kind: Literal["proposer", "encoder"]
    loader: str
    file: str
    licence: str
    url: str | None = None
    revision: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    shipped: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def path(self) -> Path:
        """Return the path of the file, or of the shipped folder, whether or not it exists."""
        if self.shipped:
            return weights_folder() / self.file
        return cache_folder() / "weights" / self.name / self.file

    @property
    def payload(self) -> Path:
        """Return the path of the file that is hashed."""
        return self.path / SAFE_FILES[0] if self.shipped else self.path

    @property
    def expected(self) -> str | None:
        """Return the required SHA-256: the manifest's, else the recorded one, else None for any."""
        if self.sha256 or self.shipped:
            return self.sha256
        record = recorded(self.payload)
        return record.sha256 if record else None


def weights_folder() -> Path:
    """Return manifest.json's folder: SEGCLIP_WEIGHTS, else the installed or repository's one."""
    if chosen := os.environ.get("SEGCLIP_WEIGHTS"):
        return Path(chosen).expanduser().absolute()
    root = Path(__file__).resolve().parents[2]
    installed = root / "segclip_weights"
    return installed if installed.is_dir() else root / "weights"


def manifest() -> dict[str, Entry]:
    """Read the manifest: entries by name, in file order."""
    path = weights_folder() / "manifest.json"
    try:
        rows = json.loads(path.read_text("utf-8"))["entries"]
        return {row["name"]: Entry(**row) for row in rows}
    except OSError as error:
        raise WeightsMissing(
            f"cannot read {path}: {error}; SEGCLIP_WEIGHTS must name its folder"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsCorrupt(f"{path} is not a segclip manifest: {error!r}") from error


def entry_of(name: str) -> Entry:
    """Return the manifest entry of a name; UnknownName suggests the nearest, and ``file:``."""
    entries = manifest()
    if name in entries:
        return entries[name]
    spellings = {known.lower(): known for known in entries}
    near = [
        spellings[match]
        for match in difflib.get_close_matches(name.lower(), spellings, n=3, cutoff=0.5)
    ]
    nearest = f"the nearest: {', '.join(near)}; " if near else ""
    own = f"; for a file or folder of your own write file:{name}" if looks_like_path(name) else ""
    raise UnknownName(
        f"no weights are named {name!r}; {nearest}`segclip weights list` lists all{own}"
    )
