"""Derive what is searched from an index's journal: a folder that never changes, named after its content."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..batch.journal import Journal, Outcome
from ..batch.plan import Item
from ..errors import BadPrompt
from . import lance, store
from .embedding import unpack
from .identity import Identity
from .store import KINDS, Pictures, Table, Vectors

EXACT_TO = 100_000  # vectors that NumPy compares with every query

log = logging.getLogger(__name__)


def publish(place: Path, identity: Identity, items: Sequence[Item], journal: Journal) -> None:
    """Put the journal's content in use, unless it is already."""
    states = {item.name: journal.state(item.name) for item in items}
    good = [item for item in items if (state := states[item.name]) and state[0] == "matched"]
    name = _name(good, journal, identity)
    if not (place / name / "pictures.json").exists():
        _write(place / name, good, journal, identity)
    store.replace_json(place / "current.json", {"snapshot": name})
    for old in place.glob("snapshot-*"):
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)


def current(place: Path) -> Path:
    """Give the folder of the snapshot in use. Raises BadPrompt while there is none."""
    try:
        return place / str(json.loads((place / "current.json").read_text("utf-8"))["snapshot"])
    except (OSError, ValueError, LookupError):
        raise BadPrompt(f"the index at {place} is not finished; run segclip index again, it goes on") from None


def tables(folder: Path) -> tuple[Pictures, dict[str, Table]]:
    """Open a snapshot: its pictures, and a table for each of KINDS."""
    pictures, facts = store.read_pictures(folder)
    opened: dict[str, Table] = {}
    for kind in KINDS:
        if facts["engine"] == "lancedb" and facts[kind]:
            opened[kind] = lance.Lance(folder, kind)
        else:
            opened[kind] = store.open_exact(folder, kind, pictures, dim=facts["dim"], length=facts[kind])
    return pictures, opened


def _name(good: Sequence[Item], journal: Journal, identity: Identity) -> str:
    told = sha256(json.dumps([identity.settings(), identity.engine, lance.installed()]).encode())
    for item in good:
        told.update(repr((item.name, journal.mark(item.name))).encode("utf-8", "surrogatepass"))
    return f"snapshot-{told.hexdigest()[:16]}"


def _write(folder: Path, good: Sequence[Item], journal: Journal, identity: Identity) -> None:
    """Write a snapshot beside its place, then move it there."""
    aside = folder.with_name(f"snapshot-{folder.name[-16:]}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    records: list[tuple[float, list[int]]] = []
    regions = dim = 0
    for item in good:
        outcome = _outcome(journal, item)
        taken, record = outcome.record["taken"], outcome.record
        records.append((outcome.stamp[1] / 1e9 if taken is None else taken, record["size"]))
        regions, dim = regions + len(record["rle"]), record["dim"]
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
    facts = {"engine": engine, "dim": dim, "images": len(good), "regions": regions}
    store.write_pictures(aside, pictures, facts)
    aside.rename(folder)


def _parts(kind: str, good: Sequence[Item], journal: Journal) -> Iterator[Vectors]:
    for picture, item in enumerate(good):
        every = unpack(_outcome(journal, item).record, picture)
        yield every[np.arange(1) if kind == "images" else np.arange(1, len(every))]


def _outcome(journal: Journal, item: Item) -> Outcome:
    found = journal.get(item.name)
    if found is None:
        raise BadPrompt(f"{item.name} left the index while it was put together; run it again")
    return found


def _engine(asked: str, vectors: int) -> str:
    """Choose by size unless asked; LanceDB's absence is told only where it would help."""
    if not vectors:
        return "numpy"
    if asked != "auto":
        return asked
    if vectors > EXACT_TO and not lance.installed():
        log.warning("%d vectors are compared one by one; pip install 'segclip[search]' makes this faster", vectors)
    return "lancedb" if vectors > EXACT_TO and lance.installed() else "numpy"
