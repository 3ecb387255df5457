"""Snapshots for searching, derived from an index's journal: immutable, named after their content.

pictures.json holds the checksums of the other files, and current.json that of pictures.json: damage
by a power cut, a bad disk or a stranger is detected, and repaired from the journal.
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
from ..errors import BadIndex
from ..files import atomic
from . import checked, lance, store
from . import identity as identities
from .embedding import unpack
from .identity import Identity
from .store import KINDS, ImageTable, Vectors, VectorTable

EXACT_TO = 100_000  # vectors at most that NumPy searches exhaustively
MEND = "run segclip index again: it keeps every embedding that is sound"
_SMALL = 1 << 22  # bytes of a file whose checksum is always verified
LAYOUT = 2  # of a snapshot's files
_NAME = re.compile(r"snapshot-[0-9a-f]{16}")

log = logging.getLogger(__name__)


def publish(place: Path, identity: Identity, items: Sequence[Item], journal: Journal) -> None:
    """Publish the journal's content as a snapshot, unless a sound one is in use already."""
    states = {item.name: journal.state(item.name) for item in items}
    good = [item for item in items if (state := states[item.name]) and state[0] == "matched"]
    name = _name(good, journal, identity)
    with atomic.writing_to(place):
        if not _is_sound(place, name):
            _write(place / name, good, journal, identity)
            crc = zlib.crc32(checked.read_bytes(place / name / "pictures.json"))
            # last: until then readers keep using the former snapshot
            atomic.write(
                place / "current.json", json.dumps({"snapshot": name, "checksum": crc}).encode()
            )
        for old in folders(place):
            if old.name != name:
                remove(old)


def folders(place: Path) -> list[Path]:
    """List the snapshot folders of an index, finished or not; links are left out."""
    return [
        path
        for path in place.glob("snapshot-*")
        if _NAME.fullmatch(path.name.removesuffix(".part"))
        and path.is_dir()
        and not path.is_symlink()
    ]


def current(place: Path) -> Path:
    """Return the folder of the snapshot in use. Raises BadIndex while there is none."""
    return _current(place)[0]


def tables(place: Path, *, whole: bool = False) -> tuple[ImageTable, dict[str, VectorTable]]:
    """Open an index's snapshot: its images, and a table for each of KINDS. Raises BadIndex.

    whole: verify the checksums of all files, also LanceDB's, which may be large.
    """
    folder, checksum = _current(place)
    try:
        if zlib.crc32(checked.read_bytes(folder / "pictures.json")) != checksum:
            raise ValueError("pictures.json is not as it was written")
        images, facts = store.read_images(folder)
        exact = facts["engine"] == "numpy"  # the first query reads all of it anyway
        if reason := checked.damage(
            folder, facts["files"], most=np.inf if whole or exact else _SMALL
        ):
            raise ValueError(reason)
        opened: dict[str, VectorTable] = {}
        for kind in KINDS:
            if not exact and facts[kind]:
                opened[kind] = lance.Lance(folder, kind, images, length=facts[kind])
            else:
                opened[kind] = store.open_exact(
                    folder, kind, images, dim=facts["dim"], length=facts[kind]
                )
    except (OSError, ValueError) as error:
        raise BadIndex(f"the index at {place} is damaged, {error}; {MEND}") from None
    return images, opened


def remembered(place: Path) -> Identity | None:
    """Return the identity stored in the newest snapshot."""
    found = []
    for folder in folders(place):
        try:
            _, facts = store.read_images(folder)
            written = (folder / "pictures.json").stat().st_mtime_ns
            found.append((written, identities.parse(facts.get("identity"))))
        except (OSError, ValueError):
            continue
    return max(found, key=lambda pair: pair[0])[1] if found else None


def remove(path: Path) -> None:
    """Remove a file, link or folder. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _current(place: Path) -> tuple[Path, int]:
    """Return the folder of the snapshot in use, and the CRC-32 of its pictures.json."""
    try:
        data = checked.read_json(place / "current.json")
        name, checksum = data.get("snapshot"), data.get("checksum")
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
    """Return whether the snapshot of this name is in use, complete and readable."""
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
    hashed = sha256(
        json.dumps([LAYOUT, identity.settings(), identity.engine, lance.installed()]).encode()
    )
    for item in good:
        hashed.update(repr((item.name, journal.mark(item.name))).encode("utf-8", "surrogatepass"))
    return f"snapshot-{hashed.hexdigest()[:16]}"


def _write(folder: Path, good: Sequence[Item], journal: Journal, identity: Identity) -> None:
    """Write a snapshot to a temporary folder, sync it to disk, then move it into place."""
    aside = folder.with_name(f"{folder.name}.part")
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
            f"{folder.parent} holds embeddings of different lengths; rebuild it with --rebuild"
        )
    dim = max(dims, default=0)
    taken_column = np.array([taken for taken, _ in records], np.float64)
    sizes = np.array([size for _, size in records], np.int32).reshape(-1, 2)
    images = ImageTable(tuple(item.name for item in good), taken_column, sizes)
    engine = _engine(identity.engine, max(regions, len(good)))
    for kind in KINDS:
        parts = store.in_chunks(_parts(kind, good, journal), dim)
        if engine == "numpy":
            store.write_exact(aside, kind, parts)
        elif regions or kind == "images":
            lance.write(aside, kind, parts, images, dim)
    facts = {
        "engine": engine,
        "dim": dim,
        "images": len(good),
        "regions": regions,
        "files": checked.checksums(aside),
    }
    store.write_images(aside, images, facts | {"identity": asdict(identity)})
    for path in sorted(aside.rglob("*"), reverse=True):
        (atomic.sync_folder if path.is_dir() else atomic.sync_file)(path)
    atomic.sync_folder(aside)
    remove(folder)  # a damaged one of the same content
    aside.rename(folder)
    for place in (folder.parent, folder.parent / "journal", folder.parent.parent):  # all may be new
        atomic.sync_folder(place)


def _parts(kind: str, good: Sequence[Item], journal: Journal) -> Iterator[Vectors]:
    for image, item in enumerate(good):
        every = unpack(_outcome(journal, item).record, image)
        yield every[np.arange(1) if kind == "images" else np.arange(1, len(every))]


def _outcome(journal: Journal, item: Item) -> Outcome:
    found = journal.get(item.name)
    if found is None:
        raise BadIndex(f"{item.name} left the index while it was being written; run it again")
    return found


def _engine(wanted: str, vectors: int) -> str:
    """Choose by size unless ``wanted`` names one; warn if LanceDB would help but is missing."""
    if not vectors:
        return "numpy"
    if wanted != "auto":
        return wanted
    if vectors > EXACT_TO and not lance.installed():
        log.warning(
            "%d vectors are compared one by one; pip install 'segclip[search]' makes this faster",
            vectors,
        )
    return "lancedb" if vectors > EXACT_TO and lance.installed() else "numpy"
