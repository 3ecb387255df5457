"""Resolve a name of weights/manifest.json, or ``file:PATH``, to a verified local path.

The manifest and the shipped weights are in the folder SEGCLIP_WEIGHTS, else in the installed one;
downloads go to the folder SEGCLIP_HOME, else ~/.cache/segclip; SEGCLIP_OFFLINE=1 forbids network
access. Where the manifest has no SHA-256, that of the first complete weight file is recorded, and
required until that file is deleted.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
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
# used in a folder without any of those
PICKLED_FILES = ("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt")

_offline = ContextVar("offline", default=False)

log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Fingerprint:
    """The size and hash of a file, named as in the manifest."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Status:
    """The state of a manifest entry on this machine.

    bytes: of the local file, else the published size, else None. verified: whether it was hashed
    since the file last changed.
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
    """A fresh hash comparison.

    published: whether ``expected`` is from the manifest; else it was recorded from the first file.
    """

    name: str
    path: Path
    given: str
    expected: str
    published: bool

    @property
    def ok(self) -> bool:
        """Return whether the hashes match."""
        return self.given == self.expected


def weights_folder() -> Path:
    """Return manifest.json's folder: SEGCLIP_WEIGHTS, else the installed or repository's one."""
    if chosen := os.environ.get("SEGCLIP_WEIGHTS"):
        return Path(chosen).expanduser().absolute()
    root = Path(__file__).resolve().parents[2]
    installed = root / "segclip_weights"
    return installed if installed.is_dir() else root / "weights"


def is_offline() -> bool:
    """Return whether ``offline`` or SEGCLIP_OFFLINE forbids network access."""
    forbidden = os.environ.get("SEGCLIP_OFFLINE", "").lower() not in ("", "0", "false", "no")
    return forbidden or _offline.get()


@contextmanager
def offline(forbid: bool = True) -> Iterator[None]:
    """Forbid network access to what is loaded inside, unless ``forbid`` is False."""
    token = _offline.set(forbid or _offline.get())
    try:
        yield
    finally:
        _offline.reset(token)


def set_offline() -> None:
    """Forbid network access to this process and its children, for good; for commands.

    Applies to huggingface_hub only if that is not yet imported.
    """
    os.environ["SEGCLIP_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"


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


def table() -> list[Status]:
    """Return the status of every manifest entry, without hashing."""
    return [_status(entry) for entry in manifest().values()]


list_weights = table  # its public name


def find(entry: Entry | str) -> Path | None:
    """Return the verified local path, None if it is missing; never access the network.

    Raises WeightsCorrupt when the file's hash is not the expected one.
    """
    entry = entry_of(entry) if isinstance(entry, str) else entry
    if not _is_here(entry):
        return None
    rehash = container_of(entry.payload) != "safetensors"  # a record is never trusted for a pickle
    _accept(entry, hash_file(entry.payload).hexdigest() if rehash else known_sha256(entry.payload))
    return entry.path


def get(name: str, *, progress: bool = True, trust: bool = False) -> Path:
    """Return the verified local path of a manifest entry, downloading it if necessary.

    Raises UnknownName, WeightsMissing, WeightsCorrupt, and Unsupported for a pickle without a
    published hash unless ``trust``.
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
    # imports an HTTP client and a lock: 0.1 s that other commands save
    from .downloads import Download, fetch, locked

    check = partial(_check_unpublished, entry, trust) if entry.sha256 is None else None
    with locked(entry.path):
        if found := find(entry):
            return found
        job = Download(entry.url, entry.path, entry.bytes, entry.expected, check)
        _accept(entry, fetch(job, progress=progress))
    return entry.path


get_weights = get  # its public name


def locate(spec: str, *, trust: bool = False) -> Path:
    """Return the local path of ``file:PATH``, a user's file or folder, or of a manifest entry.

    For loaders: they hash the pickles they read (``vouch``), so local ones are not hashed here too.
    Raises BadPrompt, WeightsMissing, and as ``get`` and ``check_pickle`` do.
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
    except (OSError, ValueError) as error:  # a name too long, or with a NUL
        raise WeightsMissing(f"{spec!r} is not a valid path: {error}") from error
    if not there:
        raise WeightsMissing(f"{spec}: there is no file or folder {path}")
    check_pickle(path, trust=trust)
    return path


def check_pickle(path: Path, *, trust: bool) -> None:
    """Refuse an unknown pickle before torch is imported, as ``vouch`` would when it is read.

    path: a file, or a folder, of which the file that a loader would read is checked.
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
        return  # the latter is damaged; loaders read it only as safetensors
    given = known_sha256(file)
    vouch(file, given, trust=trust)
    remember(file, given)


def vouch(path: Path, sha256: str, *, trust: bool) -> None:
    """Refuse a pickle, which may hold code, unless the hash of the bytes to be loaded is known.

    Raises WeightsCorrupt for a file at a manifest entry's path with another hash than expected, and
    Unsupported if no entry has its hash, unless ``trust``.
    """
    rows = manifest().values()
    for entry in rows:
        if entry.payload == path.absolute() and (entry.sha256 or trust):
            _accept(entry, sha256)
    if not trust and sha256 not in {entry.sha256 for entry in rows}:
        raise Unsupported(
            f"{path} is not safetensors and counts as a pickle, which may run code when loaded, "
            f"and its SHA-256 {sha256} is not in the manifest; use a .safetensors file, or pass "
            "--trust if you trust its author"
        )


def verify(name: str) -> Verification:
    """Rehash an installed file and compare, ignoring its record."""
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
    """Return the size and SHA-256 of a file, or of a folder's model.safetensors."""
    file = path / SAFE_FILES[0] if path.is_dir() else path
    digest = hash_file(file).hexdigest()
    return Fingerprint(file.stat().st_size, digest)


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


def _accept(entry: Entry, given: str) -> None:
    """Record a hash if it is the expected one, else refuse it; warn where none is expected."""
    expected = entry.expected
    if expected is None and not entry.shipped:
        check_whole(entry.payload)
        log.warning(
            "%s has no published SHA-256: %s is recorded and expected from now on",
            entry.name,
            given,
        )
    elif expected not in (None, given):
        source = "the manifest" if entry.sha256 else f"the record {record_path(entry.payload)}"
        raise WeightsCorrupt(
            f"{entry.payload} has SHA-256 {given}, expected {expected} by {source}; "
            f"delete the file and run `segclip weights get {entry.name}`"
        )
    remember(entry.payload, given)


def _is_here(entry: Entry) -> bool:
    """Return whether an entry's file exists; if it was deleted, drop its record too."""
    here = entry.payload.is_file()
    if not here and entry.sha256 is None and not entry.shipped:
        cache.forget(entry.payload)
    return here


def _check_unpublished(entry: Entry, trust: bool, arrived: Path) -> None:
    """Refuse a download without a published hash if it is incomplete, or an untrusted pickle."""
    check_whole(arrived)
    if not trust and container_of(arrived) != "safetensors":
        raise Unsupported(_unpublished(entry))


def _unpublished(entry: Entry) -> str:
    return (
        f"{entry.name} is a pickled checkpoint without a published SHA-256, and loading one may "
        "run code; pass --trust if you trust its author, or choose other weights from "
        "`segclip weights list`"
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
    source = f"from {entry.url}" if entry.url else f"download it in a browser ({entry.note})"
    offline = " segclip is offline, by --offline or SEGCLIP_OFFLINE;" if is_offline() else ""
    return (
        f"{what}, {source};{offline} put it at {entry.path}, or use a file of your own with "
        "file:PATH"
    )
