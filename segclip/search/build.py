"""Build an index and keep it true to its folder: only what was added or changed is embedded; a kill loses nothing.

The journal holds every picture's embeddings and is the truth; a snapshot for searching is derived from it, and named
after its content.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from .. import batch, images, loading, registry
from ..batch import Answers, Progress, Running
from ..batch.journal import Journal, Outcome
from ..batch.plan import Ask, Item, digest, walk
from ..batch.work import stamp_of
from ..errors import BadPrompt
from . import snapshot, store
from .embedding import EmbedJob
from .identity import ENGINES, Identity, check_weights, read_identity

INSIDE = ".segclip-index"  # where an index lies in the folder it is of, unless told otherwise


@dataclass(frozen=True)
class IndexOptions:
    """Say how a folder is indexed.

    proposer, encoder, policy, device, load: as loading.load takes them; None takes what the index was made with, mini
    for a new one. regions: every segment too. engine: one of ENGINES. rebuild: start anew. max_pixels: the largest
    picture that is read.
    """

    proposer: str | None = None
    encoder: str | None = None
    policy: str | None = None
    regions: bool = False
    engine: str = "auto"
    rebuild: bool = False
    device: str = "auto"
    max_pixels: int = images.MAX_PIXELS
    load: loading.LoadOptions = field(default_factory=loading.LoadOptions)

    def __post_init__(self) -> None:
        registry.choose(dict.fromkeys(ENGINES, 0), self.engine, "engine")


@dataclass(frozen=True)
class Indexed:
    """Hold how indexing ended: pictures and regions in the index, what changed, and what could not be read."""

    path: Path
    pictures: int
    regions: int
    moved: int
    removed: int
    failed: tuple[str, ...]
    progress: Progress
    engine: str


def place_of(folder: Path, out: Path | None = None) -> Path:
    """Give where the index of a folder lies."""
    return out or folder / INSIDE


def make_index(
    folder: str | Path,
    options: IndexOptions = IndexOptions(),
    *,
    out: str | Path | None = None,
    running: Running = Running(),
    tell: Callable[[Progress], None] = lambda progress: None,
) -> Indexed:
    """Index every picture of a folder, or bring its index up to date; ``tell`` hears of every picture.

    Raises BadPrompt when there is no such folder, when another run is at it, and when the index was made with another
    encoder; a picture that cannot be read is told of in the answer and stops nothing.
    """
    folder, place = Path(folder), place_of(Path(folder), Path(out) if out else None)
    if not folder.is_dir():
        raise BadPrompt(f"{folder}: no such folder; give the folder of pictures to index")
    if place.exists() and not place.is_dir():
        raise BadPrompt(f"{place} is a file; give a folder for the index")
    with batch.alone(place / "journal", "index"):
        if options.rebuild:
            _clear(place)
        options, identity = _identify(folder, place, options)
        store.replace_json(place / "index.json", asdict(identity))
        job = _job(place, options, identity)
        items = [Item(folder / name, name, Ask()) for name in walk(folder)]
        with closing(Journal(place / "journal" / "index.sqlite")) as journal:
            asked = digest(Ask(), identity.settings())
            moved, removed = _follow(items, journal, asked)
            progress = batch.run(job, [(item, asked) for item in items], journal, running, tell)
            snapshot.publish(place, identity, items, journal)
            return _summary(place, items, journal, (moved, removed, progress))


def _identify(folder: Path, place: Path, options: IndexOptions) -> tuple[IndexOptions, Identity]:
    """Settle what the index is made with: what it was made with before, save what is asked for now."""
    former = read_identity(place) if (place / "index.json").exists() else None
    if former:
        given = options.encoder or (loading.PRESETS.get(options.proposer or "", ("", None))[1]) or former.encoder
        options = replace(
            options,
            encoder=given,
            proposer=options.proposer or former.proposer,
            policy=options.policy or former.policy,
            regions=options.regions or former.regions,
            engine=former.engine if options.engine == "auto" else options.engine,
        )
    proposer, encoder = loading.pair(options.proposer or "mini", options.encoder or options.proposer or "mini")
    weights = loading.encoder_fingerprint(encoder, options=options.load)
    if former:
        check_weights(place, former, encoder, weights)
    hashes = loading.fingerprint(proposer, encoder, options=options.load) if options.regions else {}
    found = sha256(hashes.get(proposer, "").encode()).hexdigest()[:16] if options.regions else ""
    inside = folder.resolve() in place.resolve().parents and place.resolve().parent == folder.resolve()
    source = "" if inside else str(folder.absolute())
    return options, Identity(source, encoder, weights, proposer, found, options.policy, options.regions, options.engine)


def _job(place: Path, options: IndexOptions, identity: Identity) -> EmbedJob:
    models = (identity.proposer, identity.encoder, options.device, identity.policy)
    answers = Answers(max_pixels=options.max_pixels)
    return EmbedJob(place, place / "parts", models, (), answers, options.load, regions=identity.regions)


def _follow(items: Sequence[Item], journal: Journal, asked: str) -> tuple[int, int]:
    """Give a picture that moved or was copied its former embeddings; drop those of pictures that are gone."""
    known, here = set(journal.names()), {item.name for item in items}
    gone, moved = known - here, 0
    for item in items if known else ():
        if item.name in known:
            continue
        former = _same(item, journal, asked)
        if former:
            journal.put(replace(former, name=item.name, stamp=stamp_of(item.path)))
            moved += former.name in gone
    for name in gone:
        journal.forget(name)
    return moved, len(gone) - moved


def _same(item: Item, journal: Journal, asked: str) -> Outcome | None:
    """Find a picture of the same bytes."""
    content = ""
    for name in journal.stored(stamp_of(item.path)[0]):
        with suppress(OSError):
            content = content or sha256(item.path.read_bytes()).hexdigest()
        former = journal.get(name)
        if former and content and (former.content, former.asked) == (content, asked):
            return former
    return None


def _summary(place: Path, items: Sequence[Item], journal: Journal, did: tuple[int, int, Progress]) -> Indexed:
    failed = [item.name for item in items if (state := journal.state(item.name)) and state[0] == "failed"]
    reasons = tuple(outcome.reason for name in failed if (outcome := journal.get(name)))
    _, facts = store.read_pictures(snapshot.current(place))
    moved, removed, progress = did
    return Indexed(place, facts["images"], facts["regions"], moved, removed, reasons, progress, facts["engine"])


def _clear(place: Path) -> None:
    for path in [*place.glob("snapshot-*"), *(place / "journal").glob("index.sqlite*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("index.json", "current.json"):
        (place / name).unlink(missing_ok=True)
