"""Derive what is searched from an index's journal: a folder that never changes, named after its
content.

pictures.json holds the checksums of the other files, and current.json that of pictures.json: what a
power cut, a bad disk or a stranger made of them is found out, and written anew from the journal.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..batch.journal import Journal, Outcome
from ..batch.plan import Item
from ..errors import BadIndex, NotWritable
from ..files import atomic
from . import identity as identities
from . import lance, store
from .embedding import unpack
from .identity import Identity
from .store import KINDS, Pictures, Table, Vectors

EXACT_TO = 100_000  # vectors that NumPy compares with every query
MEND = "run segclip index again: it keeps every embedding that is sound"
_SMALL = 1 << 22  # bytes of a file that is always read
LAYOUT = 2  # of a snapshot's files
_NAME = re.compile(r"snapshot-[0-9a-f]{16}")

log = logging.getLogger(__name__)


def publish(place: Path, identity: Identity, items: Sequence[Item], journal: Journal) -> None:
    """Put the journal's content in use, unless it is already, whole and sound."""
    states = {item.name: journal.state(item.name) for item in items}
    good = [item for item in items if (state := states[item.name]) and state[0] == "matched"]
    name = _name(good, journal, identity)
    try:
        if not _is_sound(place, name):
            _write(place / name, good, journal, identity)
            crc = zlib.crc32(store.read_bytes(place / name / "pictures.json"))
            atomic.write(
                place / "current.json", json.dumps({"snapshot": name, "checksum": crc}).encode()
            )
        for old in folders(place):
            if old.name != name:
                remove(old)
    except OSError as error:
        raise NotWritable(f"{place}: cannot be written, {error.strerror or error}") from error


def folders(place: Path) -> list[Path]:
    """List the snapshots in an index's folder, also those that were not finished; nothing that only
    looks like one.
    """
    named = [
        path
        for path in place.glob("snapshot-*")
        if _NAME.fullmatch(path.name.removesuffix(".part"))
    ]
    return [path for path in named if path.is_dir() and not path.is_symlink()]


def current(place: Path) -> Path:
    """Return the folder of the snapshot in use. Raises BadIndex while there is none."""
    return _current(place)[0]


def tables(place: Path, *, whole: bool = False) -> tuple[Pictures, dict[str, Table]]:
    """Open an index's snapshot: its pictures, and a table for each of KINDS. Raises BadIndex.

    whole: read all files to see whether they are as they were written, those of LanceDB too, which
    may be large.
    """
    folder, checksum = _current(place)
    try:
        if zlib.crc32(store.read_bytes(folder / "pictures.json")) != checksum:
            raise ValueError("pictures.json is not as it was written")
        pictures, facts = store.read_pictures(folder)
        exact = facts["engine"] == "numpy"  # all of it is read with the first query anyway
        if reason := store.damage(
            folder, facts["files"], most=np.inf if whole or exact else _SMALL
        ):
            raise ValueError(reason)
        opened: dict[str, Table] = {}
        for kind in KINDS:
            if not exact and facts[kind]:
                opened[kind] = lance.Lance(folder, kind, pictures, length=facts[kind])
            else:
                opened[kind] = store.open_exact(
                    folder, kind, pictures, dim=facts["dim"], length=facts[kind]
                )
    except (OSError, ValueError) as error:
        raise BadIndex(f"the index at {place} is damaged, {error}; {MEND}") from None
    return pictures, opened


def remembered(place: Path) -> Identity | None:
    """Return what the newest snapshot says that the index was made with."""
    found = []
    for folder in folders(place):
        try:
            _, facts = store.read_pictures(folder)
            found.append(
                (
                    (folder / "pictures.json").stat().st_mtime_ns,
                    identities.parse(facts.get("identity")),
                )
            )
        except (OSError, ValueError):
            continue
    return max(found, key=lambda pair: pair[0])[1] if found else None


def remove(path: Path) -> None:
    """Remove what is there, whatever it is. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _current(place: Path) -> tuple[Path, int]:
    """Return the folder of the snapshot in use, and the CRC-32 of its pictures.json."""
    try:
        told = store.read_json(place / "current.json")
        name, checksum = told.get("snapshot"), told.get("checksum")
    except FileNotFoundError:
        raise BadIndex(
            f"the index at {place} is not finished; run segclip index again, it goes on"
        ) from None
    except (OSError, ValueError) as error:
        raise BadIndex(f"the index at {place} is damaged, current.json: {error}; {MEND}") from None
    if not isinstance(name, str) or not _NAME.fullmatch(name) or type(checksum) is not int:
        raise BadIndex(f"the index at {place} is damaged or of an older segclip; {MEND}")
    return place / name, checksum


def _is_sound(place: Path, name: str) -> bool:
    """Find out whether the snapshot of this name is in use, whole and readable."""
    try:
        if current(place).name != name:
            return False
    except BadIndex:
        return False
    try:
        tables(place, whole=True)
    except BadIndex as error:
        log.warning("%s (this run does)", error)
        return False
    return True


def _name(good: Sequence[Item], journal: Journal, identity: Identity) -> str:
    told = sha256(
        json.dumps([LAYOUT, identity.settings(), identity.engine, lance.installed()]).encode()
    )
    for item in good:
        told.update(repr((item.name, journal.mark(item.name))).encode("utf-8", "surrogatepass"))
    return f"snapshot-{told.hexdigest()[:16]}"


def _write(folder: Path, good: Sequence[Item], journal: Journal, identity: Identity) -> None:
    """Write a snapshot beside its place, wait until it is on the disk, then move it there."""
    aside = folder.with_name(f"snapshot-{folder.name[-16:]}.part")
    remove(aside)
    aside.mkdir(parents=True)
    records: list[tuple[float, list[int]]] = []
    regions, dims = 0, set[int]()
    for item in good:
        outcome = _outcome(journal, item)
        taken, record = outcome.record["taken"], outcome.record
        records.append((outcome.stamp[1] / 1e9 if taken is None else taken, record["size"]))
        regions += len(record["rle"])
        dims.add(record["dim"])
    if len(dims) > 1:
        raise BadIndex(
            f"{folder.parent} holds embeddings of different lengths; make it anew with --rebuild"
        )
    dim = max(dims, default=0)
    taken_column = np.array([taken for taken, _ in records], np.float64)
    sizes = np.array([size for _, size in records], np.int32).reshape(-1, 2)
    pictures = Pictures(tuple(item.name for item in good), taken_column, sizes)
    engine = _engine(identity.engine, max(regions, len(good)))
    for kind in KINDS:
        parts = store.in_chunks(_parts(kind, good, journal), dim)
        if engine == "numpy":
            store.write_exact(aside, kind, parts)
        elif regions or kind == "images":
            lance.write(aside, kind, parts, pictures, dim)
    facts = {
        "engine": engine,
        "dim": dim,
        "images": len(good),
        "regions": regions,
        "files": store.checksums(aside),
    }
    store.write_pictures(aside, pictures, facts | {"identity": asdict(identity)})
    for path in sorted(aside.rglob("*"), reverse=True):
        (atomic.sync_folder if path.is_dir() else atomic.sync_file)(path)
    atomic.sync_folder(aside)
    remove(folder)
    aside.rename(folder)
    for place in (folder.parent, folder.parent / "journal", folder.parent.parent):  # all may be new
        atomic.sync_folder(place)


def _parts(kind: str, good: Sequence[Item], journal: Journal) -> Iterator[Vectors]:
    for picture, item in enumerate(good):
        every = unpack(_outcome(journal, item).record, picture)
        yield every[np.arange(1) if kind == "images" else np.arange(1, len(every))]


def _outcome(journal: Journal, item: Item) -> Outcome:
    found = journal.get(item.name)
    if found is None:
        raise BadIndex(f"{item.name} left the index while it was put together; run it again")
    return found


def _engine(asked: str, vectors: int) -> str:
    """Choose by size unless asked; LanceDB's absence is told only where it would help."""
    if not vectors:
        return "numpy"
    if asked != "auto":
        return asked
    if vectors > EXACT_TO and not lance.installed():
        log.warning(
            "%d vectors are compared one by one; pip install 'segclip[search]' makes this faster",
            vectors,
        )
    return "lancedb" if vectors > EXACT_TO and lance.installed() else "numpy"
