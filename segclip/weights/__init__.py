"""Resolve a name of weights/manifest.json, or ``file:PATH``, to a verified local path.

The manifest and the shipped weights are in the folder SEGCLIP_WEIGHTS, else in the installed one;
downloads go to the folder SEGCLIP_HOME, else ~/.cache/segclip; SEGCLIP_OFFLINE=1 forbids network
access. Where the manifest has no SHA-256, that of the first complete weight file is recorded, and
required until that file is deleted.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import BadPrompt, Unsupported, WeightsCorrupt, WeightsMissing
from . import cache
from .cache import cache_folder as cache_folder
from .cache import hash_file, is_fresh, known_sha256, record_path, recorded, remember
from .entries import PICKLED_FILES as PICKLED_FILES
from .entries import SAFE_FILES as SAFE_FILES
from .entries import Entry as Entry
from .entries import entry_of as entry_of
from .entries import manifest as manifest
from .entries import weights_folder as weights_folder
from .network import is_offline as is_offline
from .network import offline as offline
from .network import set_offline as set_offline
from .reading import check_whole, container_of

log = logging.getLogger(__name__)


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
