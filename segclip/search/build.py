"""Build an index and keep it true to its folder: only what was added or changed is embedded; a kill
loses nothing.

The journal holds every picture's embeddings and is the truth; a snapshot for searching is derived
from it, and named after its content. What is damaged is made anew of what is sound; what cannot be
reached for a while stays.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from .. import batch, loading, registry
from ..batch import Answers, Progress, Running
from ..batch.journal import Damaged, Outcome
from ..batch.plan import Ask, Item, digest
from ..batch.work import stamp_of
from ..errors import BadIndex, BadPrompt, NotWritable
from ..files import atomic
from ..files.listing import Listing, list_images
from ..question import MAX_PIXELS
from . import reach, rows, snapshot, store
from .embedding import EmbedJob
from .identity import ENGINES, Identity, check_named, check_weights, read_identity
from .rows import Rows

INSIDE = ".segclip-index"  # where an index lies in the folder it is of, unless told otherwise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexOptions:
    """Say how a folder is indexed.

    proposer, encoder, policy, device, load: as loading.load takes them; None takes what the index
    was made with, mini for a new one, but a path or repository is taken from the index's word by
    nobody: name it again. regions: every segment too. engine: one of ENGINES. rebuild: start anew.
    prune: drop what cannot be reached, as what is gone. max_pixels: the largest picture that is
    read.
    """

    proposer: str | None = None
    encoder: str | None = None
    policy: str | None = None
    regions: bool = False
    engine: str = "auto"
    rebuild: bool = False
    device: str = "auto"
    max_pixels: int = MAX_PIXELS
    load: loading.LoadOptions = field(default_factory=loading.LoadOptions)
    prune: bool = False

    def __post_init__(self) -> None:
        registry.choose(dict.fromkeys(ENGINES, 0), self.engine, "engine")


@dataclass(frozen=True)
class Indexed:
    """Hold how indexing ended: pictures and regions in the index, what changed, and what could not
    be read.

    unreachable: what could not be reached, a line a place; pictures of the index that lie there
    stay in it.
    """

    path: Path
    pictures: int
    regions: int
    moved: int
    removed: int
    failed: tuple[str, ...]
    progress: Progress
    engine: str
    unreachable: tuple[str, ...] = ()


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
    """Index every picture of a folder, or bring its index up to date; ``tell`` hears of every
    picture.

    Raises BadPrompt when there is no such folder, and when the index was made with another encoder,
    or with one that it names by where it lies; Busy while another run is at it; NotWritable. A
    picture that cannot be read is told of in the answer and stops nothing.
    """
    folder, place = Path(folder), place_of(Path(folder), Path(out) if out else None)
    if not folder.is_dir():
        raise BadPrompt(f"{folder}: no such folder; give the folder of pictures to index")
    if place.exists() and not place.is_dir():
        raise BadPrompt(f"{place} is a file; give a folder for the index")
    for path in (
        (place, (place / rows.NAME).parent) if out is None else ((place / rows.NAME).parent,)
    ):
        if path.is_symlink():
            raise NotWritable(
                f"{path} is a link, which may lead anywhere; delete it, or name where it leads by "
                "--out"
            )
    if out is not None:
        _refuse_others(place)
    with batch.alone(place / "journal", "index"):
        for link in rows.links(place):  # nothing of segclip's; what they lead to is not written to
            snapshot.remove(link)
        if options.rebuild:
            _clear(place)
        options, identity = _identify(folder, place, options)
        atomic.write(place / "index.json", json.dumps(asdict(identity), indent=1).encode())
        update = _Update(folder, place, options, identity)
        try:
            return update.run(running, tell)
        except Damaged as error:
            saved = _mend(place, folder)
            log.warning("%s; the rows of %d pictures are sound and are kept", error, saved)
            return update.run(running, tell)


def _refuse_others(place: Path) -> None:
    """Raise NotWritable for a folder that is not an index and not empty: its files may have the
    names of an index's.
    """
    if not place.is_dir() or (place / rows.NAME).exists():
        return
    names = (
        {path.name for path in place.iterdir()}
        - {path.name for path in snapshot.folders(place)}
        - {"journal"}
    )
    with suppress(BadPrompt, Damaged, BadIndex):
        read_identity(place)
        names -= {"index.json", "current.json"}
    if names:
        raise NotWritable(
            f"{place} holds {min(names)!r} and is no index of segclip's; name an empty folder or a "
            "new one with --out"
        )


@dataclass(frozen=True)
class _Update:
    """Bring an index up to date with its folder."""

    folder: Path
    place: Path
    options: IndexOptions
    identity: Identity

    def run(self, running: Running, tell: Callable[[Progress], None]) -> Indexed:
        """Embed what is new or has changed, and put it in use."""
        found = list_images(self.folder, skip=[self.place])
        for line in replace(found, unreadable={}).report():
            log.warning("%s", line)
        asked = digest(Ask(), self.identity.settings())
        with closing(Rows(self.place / rows.NAME, self.folder)) as journal:
            lost = self._lost(found, journal)
            items = self._items(found.images)
            moved, removed = _follow(items, lost, journal, asked)
            kept = self._items(lost)
            job = _job(self.place, self.options, self.identity)
            progress = batch.run(job, [(item, asked) for item in items], journal, running, tell)
            every = sorted((*items, *kept), key=lambda item: item.name.split("/"))
            journal.sync()  # before anything is said of its rows
            snapshot.publish(self.place, self.identity, every, journal)
            places = [*lost.values(), *journal.unreached.items()]
            done = _summary(self.place, items, journal, (moved, removed, progress))
            return replace(done, unreachable=reach.report(places, found.unreadable))

    def _items(self, names: Iterable[str]) -> list[Item]:
        return [Item(self.folder / name, name, Ask()) for name in names]

    def _lost(self, found: Listing, journal: Rows) -> dict[str, tuple[str, str]]:
        """Find the pictures of the index that cannot be reached now, each with the place and the
        reason.
        """
        if self.options.prune:
            return {}
        look, here = reach.Reach(self.folder, found.unreadable), set(found.images)
        lost = {}
        for name in journal.names():
            if name not in here and store.is_inside(name) and (why := look.why_lost(name)):
                state = journal.state(name)
                if state and state[0] == "matched" and journal.get(name):
                    lost[name] = why
        return lost


def _identify(folder: Path, place: Path, options: IndexOptions) -> tuple[IndexOptions, Identity]:
    """Settle what the index is made with: what it was made with before, save what is asked for
    now.
    """
    former = _former(place, options)
    if former:
        if not options.encoder and options.proposer not in loading.PRESETS:
            check_named(place, "--encoder", former.encoder)
        if not options.proposer and (options.regions or former.regions):
            check_named(place, "--proposer", former.proposer)
        given = (
            options.encoder
            or (loading.PRESETS.get(options.proposer or "", ("", None))[1])
            or former.encoder
        )
        options = replace(
            options,
            encoder=given,
            proposer=options.proposer or former.proposer,
            policy=options.policy or former.policy,
            regions=options.regions or former.regions,
            engine=former.engine if options.engine == "auto" else options.engine,
        )
    proposer, encoder = loading.pair(
        options.proposer or "mini", options.encoder or options.proposer or "mini"
    )
    weights = loading.encoder_fingerprint(encoder, options=options.load)
    if former:
        check_weights(place, former, encoder, weights)
    hashes = loading.fingerprint(proposer, encoder, options=options.load) if options.regions else {}
    found = sha256(hashes.get(proposer, "").encode()).hexdigest()[:16] if options.regions else ""
    inside = (
        folder.resolve() in place.resolve().parents and place.resolve().parent == folder.resolve()
    )
    source = "" if inside else str(folder.absolute())
    return options, Identity(
        source, encoder, weights, proposer, found, options.policy, options.regions, options.engine
    )


def _former(place: Path, options: IndexOptions) -> Identity | None:
    """Read what an index was made with; where that is lost, from its snapshot. None for a new
    one.
    """
    try:
        return read_identity(place)
    except (BadPrompt, Damaged) as error:
        found = snapshot.remembered(place)
        if found:
            log.warning(
                "index.json of the index at %s is lost or damaged; it is written anew", place
            )
            return found
        if not options.encoder and _has_rows(place):
            raise BadIndex(
                f"{error}; what it was made with is lost, so name it, --encoder NAME and its other "
                "options, "
                "or make it anew with --rebuild"
            ) from None
        return None


def _has_rows(place: Path) -> bool:
    if not (place / rows.NAME).exists():
        return False
    try:
        with closing(Rows(place / rows.NAME, place)) as journal:
            return any(True for _ in journal.names())
    except Damaged:
        return True


def _mend(place: Path, folder: Path) -> int:
    try:
        return rows.mend(place / rows.NAME, folder)
    except OSError as error:
        raise NotWritable(f"{place}: cannot be written, {error.strerror or error}") from error


def _job(place: Path, options: IndexOptions, identity: Identity) -> EmbedJob:
    models = (identity.proposer, identity.encoder, options.device, identity.policy)
    answers = Answers(max_pixels=options.max_pixels)
    return EmbedJob(
        place, place / "parts", models, (), answers, options.load, regions=identity.regions
    )


def _follow(
    items: Sequence[Item], lost: dict[str, tuple[str, str]], journal: Rows, asked: str
) -> tuple[int, int]:
    """Give a picture that moved or was copied its former embeddings; drop those of pictures that
    are gone.

    lost: pictures that cannot be reached; those that turn up elsewhere are taken from it, for they
    moved.
    """
    known, here = set(journal.names()), {item.name for item in items}
    gone, moved = known - here - lost.keys(), 0
    for item in items if known else ():
        if item.name in known:
            continue
        former = _same(item, journal, asked)
        if former:
            journal.put(replace(former, name=item.name, stamp=stamp_of(item.path)))
            if lost.pop(former.name, None):
                gone.add(former.name)
            moved += former.name in gone
    for name in gone:
        journal.forget(name)
    return moved, len(gone) - moved


def _same(item: Item, journal: Rows, asked: str) -> Outcome | None:
    """Find a picture of the same bytes."""
    content = ""
    for name in journal.stored(stamp_of(item.path)[0]):
        with suppress(OSError):
            content = content or sha256(item.path.read_bytes()).hexdigest()
        former = journal.get(name)
        if former and content and (former.content, former.asked) == (content, asked):
            return former
    return None


def _summary(
    place: Path, items: Sequence[Item], journal: Rows, did: tuple[int, int, Progress]
) -> Indexed:
    failed = [
        item.name for item in items if (state := journal.state(item.name)) and state[0] == "failed"
    ]
    paths = {item.name: item.path for item in items}
    reasons = tuple(outcome.why(paths[name]) for name in failed if (outcome := journal.get(name)))
    _, facts = store.read_pictures(snapshot.current(place))
    moved, removed, progress = did
    return Indexed(
        place, facts["images"], facts["regions"], moved, removed, reasons, progress, facts["engine"]
    )


def _clear(place: Path) -> None:
    names = [place / name for name in ("index.json", "current.json")]
    try:
        for path in [*snapshot.folders(place), *(place / "journal").glob("index.sqlite*"), *names]:
            snapshot.remove(path)
    except OSError as error:
        raise NotWritable(f"{place}: cannot be written, {error.strerror or error}") from error
