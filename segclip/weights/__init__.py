"""Turn a name of weights/manifest.json, or ``file:PATH``, into a local path whose bytes have been
checked.

The manifest and the shipped weights are in the folder SEGCLIP_WEIGHTS, else in the one that came
with segclip; downloads go to the folder SEGCLIP_HOME, else ~/.cache/segclip; SEGCLIP_OFFLINE=1
forbids the network. Where the manifest has no SHA-256, that of the first whole file of weights is
recorded and expected until that file is deleted.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from ..errors import BadPrompt, UnknownName, Unsupported, WeightsCorrupt, WeightsMissing
from ..registry import looks_like_path
from . import cache
from .cache import cache_folder as cache_folder
from .cache import hash_file, is_fresh, known_sha256, record_path, recorded, remember
from .reading import check_whole, container_of

SAFE_FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
)
PICKLED_FILES = (
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pt",
)  # taken from a folder without those

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """Describe one row of the manifest.

    file: a name in the row's own cache folder; for shipped rows a folder beside the manifest. url:
    None where nothing can be downloaded unattended. bytes, sha256: of the file, or of a shipped
    folder's model.safetensors; None where nobody has published them.
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
        """Give the place of the file, or of the shipped folder, whether or not it's there."""
        return (
            weights_folder() / self.file
            if self.shipped
            else cache_folder() / "weights" / self.name / self.file
        )

    @property
    def payload(self) -> Path:
        """Give the file that is hashed."""
        return self.path / SAFE_FILES[0] if self.shipped else self.path

    @property
    def expected(self) -> str | None:
        """Give the SHA-256 the bytes must have: the manifest's, else the recorded one, else None:
        any.
        """
        if self.sha256 or self.shipped:
            return self.sha256
        record = recorded(self.payload)
        return record.sha256 if record else None


@dataclass(frozen=True)
class Fingerprint:
    """Hold what identifies a file's bytes, under the manifest's names."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Status:
    """Tell where a row of the manifest stands on this machine.

    bytes: of the file here, else the published size, else None. verified: checked since the file
    last changed.
    """

    name: str
    kind: str
    bytes: int | None
    installed: bool
    verified: bool
    path: Path
    licence: str
    note: str


@dataclass(frozen=True)
class Verification:
    """Hold a fresh comparison. published: the manifest has the hash; else expected is the one first
    seen here.
    """

    name: str
    path: Path
    given: str
    expected: str
    published: bool

    @property
    def ok(self) -> bool:
        """Tell whether the bytes are the expected ones."""
        return self.given == self.expected


def weights_folder() -> Path:
    """Give the folder of manifest.json: SEGCLIP_WEIGHTS, else the installed one, else the
    repository's.
    """
    if chosen := os.environ.get("SEGCLIP_WEIGHTS"):
        return Path(chosen).expanduser().absolute()
    root = Path(__file__).resolve().parents[2]
    installed = root / "segclip_weights"
    return installed if installed.is_dir() else root / "weights"


def is_offline() -> bool:
    """Tell whether SEGCLIP_OFFLINE forbids the network."""
    return os.environ.get("SEGCLIP_OFFLINE", "").lower() not in ("", "0", "false", "no")


def set_offline() -> None:
    """Forbid the network to this process and its children; Hugging Face's library obeys if not yet
    imported.
    """
    os.environ["SEGCLIP_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"


def manifest() -> dict[str, Entry]:
    """Read the manifest: name -> row, in its order."""
    path = weights_folder() / "manifest.json"
    try:
        rows = json.loads(path.read_text("utf-8"))["entries"]
        return {row["name"]: Entry(**row) for row in rows}
    except OSError as error:
        raise WeightsMissing(
            f"cannot read {path}: {error}; SEGCLIP_WEIGHTS must name its folder"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsCorrupt(f"{path} is not a manifest of segclip: {error!r}") from error


def table() -> list[Status]:
    """List every row of the manifest; nothing is hashed."""
    return [_status(entry) for entry in manifest().values()]


list_weights = table  # its name among the public ones


def find(entry: Entry | str) -> Path | None:
    """Give the checked local path, None when it isn't there; never touches the network.

    Raises WeightsCorrupt when the file is there with other bytes than the expected ones.
    """
    entry = entry_of(entry) if isinstance(entry, str) else entry
    if not _is_here(entry):
        return None
    anew = container_of(entry.payload) != "safetensors"  # a record never vouches for a pickle
    _accept(entry, hash_file(entry.payload).hexdigest() if anew else known_sha256(entry.payload))
    return entry.path


def get(name: str, *, progress: bool = True, trust: bool = False) -> Path:
    """Give the checked local path of a name of the manifest, downloading it if it must.

    Raises UnknownName, WeightsMissing, WeightsCorrupt, and Unsupported for a pickle without a hash
    unless ``trust``.
    """
    entry = entry_of(name)
    if (
        entry.sha256 is None
        and not entry.shipped
        and entry.path.suffix != ".safetensors"
        and not trust
    ):
        raise Unsupported(_unpublished(entry))
    if found := find(entry):
        return found
    if entry.url is None or is_offline():
        raise WeightsMissing(_missing(entry))
    from .downloads import (
        Download,
        fetch,
        locked,
    )  # an HTTP client and a lock: 0.1 s that a start without them saves

    check = partial(_check_unpublished, entry, trust) if entry.sha256 is None else None
    with locked(entry.path):
        if found := find(entry):
            return found
        wanted = Download(entry.url, entry.path, entry.bytes, entry.expected, check)
        _accept(entry, fetch(wanted, progress=progress))
    return entry.path


get_weights = get  # its name among the public ones


def locate(spec: str, *, trust: bool = False) -> Path:
    """Give the local path of ``file:PATH``, a file or a folder of the user's own, or of a name of
    the manifest.

    It is for loaders, which hash what they read of a pickle (``vouch``): one that is here is not
    hashed twice.
    """
    if not spec.startswith("file:"):
        entry = entry_of(spec)
        if entry.sha256 and _is_here(entry) and container_of(entry.payload) != "safetensors":
            return entry.path
        return get(spec, trust=trust)
    if spec == "file:":
        raise BadPrompt("file: needs a path after it, such as file:FastSAM-s.pt")
    path = Path(spec.removeprefix("file:")).expanduser().absolute()
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # a name too long, or with a zero byte in it
        raise WeightsMissing(f"{spec!r} is no path: {error}") from error
    if not there:
        raise WeightsMissing(f"{spec}: there is no file or folder {path}")
    check_pickle(path, trust=trust)
    return path


def check_pickle(path: Path, *, trust: bool) -> None:
    """Refuse early, before torch is imported, what ``vouch`` refuses when it is read: a pickle
    nobody knows.

    path: a file, or a folder, of which the file counts that a loader would take.
    """
    file = path
    if path.is_dir():
        file = next(
            (path / name for name in (*SAFE_FILES, *PICKLED_FILES) if (path / name).is_file()), path
        )
    if trust or file.is_dir():
        return
    container = container_of(file)
    if container == "safetensors" or (container == "none" and file.suffix == ".safetensors"):
        return  # the latter is damaged: no loader takes it for anything else
    given = known_sha256(file)
    vouch(file, given, trust=trust)
    remember(file, given)


def vouch(path: Path, sha256: str, *, trust: bool) -> None:
    """Allow a pickle to be read, by the hash of the very bytes that will be, or refuse: it may hold
    code.

    Raises WeightsCorrupt where it lies in the place of a row of the manifest with other bytes than
    that expects, and Unsupported where no row has its hash, unless ``trust``.
    """
    rows = manifest().values()
    for entry in rows:
        if entry.payload == path.absolute() and (entry.sha256 or trust):
            _accept(entry, sha256)
    if not trust and sha256 not in {entry.sha256 for entry in rows}:
        raise Unsupported(
            f"{path} is not safetensors and counts as a pickle, which may hold code that loading "
            "it runs, and its "
            f"SHA-256 {sha256} is not in the manifest; use a .safetensors file, or pass --trust if "
            "you trust its author"
        )


def verify(name: str) -> Verification:
    """Hash an installed file anew and compare, whatever the record of it says."""
    entry = entry_of(name)
    if not entry.payload.is_file():
        raise WeightsMissing(_missing(entry))
    given = describe(entry.path).sha256
    check = Verification(name, entry.path, given, entry.expected or given, entry.sha256 is not None)
    if check.ok:
        _accept(entry, given)
    else:
        cache.expire(entry.payload)
    return check


def describe(path: Path) -> Fingerprint:
    """Give the manifest's ``bytes`` and ``sha256`` for a file, or for a folder's
    model.safetensors.
    """
    file = path / SAFE_FILES[0] if path.is_dir() else path
    digest = hash_file(file).hexdigest()
    return Fingerprint(file.stat().st_size, digest)


def entry_of(name: str) -> Entry:
    """Look a name up in the manifest; UnknownName tells the nearest, and how a path is written."""
    entries = manifest()
    if name in entries:
        return entries[name]
    spellings = {known.lower(): known for known in entries}
    near = [
        spellings[match]
        for match in difflib.get_close_matches(name.lower(), spellings, n=3, cutoff=0.5)
    ]
    nearest = f"the nearest: {', '.join(near)}; " if near else ""
    own = f"; a file or folder of your own is written file:{name}" if looks_like_path(name) else ""
    raise UnknownName(
        f"no weights are named {name!r}; {nearest}`segclip weights list` shows all{own}"
    )


def _accept(entry: Entry, given: str) -> None:
    """Record bytes that are the expected ones, refuse others; warn where nobody knows what to
    expect.
    """
    expected = entry.expected
    if expected is None and not entry.shipped:
        check_whole(entry.payload)
        log.warning(
            "%s has no published SHA-256: %s is recorded and expected from now on",
            entry.name,
            given,
        )
    elif expected not in (None, given):
        by = (
            "the manifest"
            if entry.sha256
            else f"the first one seen, in {record_path(entry.payload)}"
        )
        raise WeightsCorrupt(
            f"{entry.payload} has SHA-256 {given}, expected {expected} by {by}; "
            f"delete the file and run `segclip weights get {entry.name}`"
        )
    remember(entry.payload, given)


def _is_here(entry: Entry) -> bool:
    """Tell whether a row's file is there; with one that was deleted goes what was recorded of
    it.
    """
    here = entry.payload.is_file()
    if not here and entry.sha256 is None and not entry.shipped:
        cache.forget(entry.payload)
    return here


def _check_unpublished(entry: Entry, trust: bool, arrived: Path) -> None:
    """Refuse a download that nobody has published a hash of, unless it is whole and safetensors, or
    trusted.
    """
    check_whole(arrived)
    if not trust and container_of(arrived) != "safetensors":
        raise Unsupported(_unpublished(entry))


def _unpublished(entry: Entry) -> str:
    return (
        f"{entry.name} is a pickled checkpoint without a published SHA-256, and loading one may "
        "run code hidden in it; "
        "pass --trust if you trust its author, or take another of `segclip weights list`"
    )


def _status(entry: Entry) -> Status:
    installed = entry.payload.is_file()
    size = entry.payload.stat().st_size if installed else entry.bytes
    record = recorded(entry.payload) if installed else None
    verified = (
        record is not None
        and is_fresh(record, entry.payload)
        and entry.sha256 in (None, record.sha256)
    )
    return Status(
        entry.name, entry.kind, size, installed, verified, entry.path, entry.licence, entry.note
    )


def _missing(entry: Entry) -> str:
    size = f"{entry.bytes:,} bytes" if entry.bytes else "size not published"
    digest = f"SHA-256 {entry.sha256}" if entry.sha256 else "SHA-256 not published"
    what = f"{entry.name} is not on this machine: {entry.file} ({size}, {digest})"
    if entry.shipped:
        return f"{what} comes with segclip; put it back at {entry.path}"
    source = f"from {entry.url}" if entry.url else f"not to be had without a browser ({entry.note})"
    why = " nothing was fetched because SEGCLIP_OFFLINE is set;" if is_offline() else ""
    return (
        f"{what}, {source};{why} put it at {entry.path}, or name a file of your own with file:PATH"
    )
