"""Build an index and keep it in sync with its folder; only new or changed images are embedded.

The journal holds every image's embeddings and is authoritative; a snapshot for searching is derived
from it, and named after its content. Damaged parts are rebuilt from sound ones, images that are
temporarily unreachable are kept, and a kill loses nothing.
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
from ..batch.files import stamp_of
from ..batch.journal import Damaged, Outcome
from ..batch.plan import Ask, Item, digest, warn_left_out
from ..errors import BadIndex, BadPrompt, NotWritable
from ..files import atomic, regular
from ..files.listing import Listing, list_images
from ..question import MAX_PIXELS
from . import checked, reach, rows, snapshot, store
from .embedding import EmbedJob
from .identity import ENGINES, Identity, check_named, check_weights, read_identity
from .rows import Rows

INSIDE = ".segclip-index"  # default location of an index in the folder it indexes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexOptions:
    """Options of indexing.

    models: a None of its proposer, encoder or policy takes what the index was built with, mini for
    a new one. A path or repository stored in an index is not trusted and must be named again.
    regions: index every region too. engine: one of ENGINES. rebuild: start from scratch. prune:
    drop unreachable images like deleted ones. max_pixels: the largest image that is read.
    """

    models: loading.ModelSpec = field(default_factory=loading.ModelSpec)
    regions: bool = False
    engine: str = "auto"
    rebuild: bool = False
    max_pixels: int = MAX_PIXELS
    prune: bool = False

    def __post_init__(self) -> None:
        registry.choose(dict.fromkeys(ENGINES, 0), self.engine, "engine")


@dataclass(frozen=True)
class Indexed:
    """Result of indexing: images and regions in the index, changes, and unreadable images.

    unreachable: unreachable places, one line each; their images stay in the index.
    """

    path: Path
    images: int
    regions: int
    moved: int
    removed: int
    failed: tuple[str, ...]
    progress: Progress
    engine: str
    unreachable: tuple[str, ...] = ()


def make_index(
    folder: str | Path,
    options: IndexOptions = IndexOptions(),
    *,
    out: str | Path | None = None,
    running: Running = Running(),
    report: Callable[[Progress], None] = lambda progress: None,
) -> Indexed:
    """Index every image of a folder, or update its index; ``report`` is called after every image.

    An unreadable image is reported in the result and does not stop the run. Raises BadPrompt if
    there is no such folder, or if the index was built with another encoder, or with one stored as
    a path or repository that was not named again; Busy while another run is active; NotWritable.
    """
    folder = Path(folder)
    place = Path(out) if out else folder / INSIDE
    journal = (place / rows.NAME).parent
    if not folder.is_dir():
        raise BadPrompt(f"{folder}: no such folder; give the folder of images to index")
    if place.exists() and not place.is_dir():
        raise BadPrompt(f"{place} is a file; give a folder for the index")
    for path in (journal,) if out else (place, journal):  # --out may name a link on purpose
        if path.is_symlink():
            raise NotWritable(
                f"{path} is a link, which may lead anywhere; delete it, or name where it leads by "
                "--out"
            )
    if out:
        _refuse_others(place)
    with batch.alone(journal, "index"):
        for link in rows.links(place):  # not segclip's; their targets must not be written to
            snapshot.remove(link)
        if options.rebuild:
            _clear(place)
        options, identity = _identify(folder, place, options)
        # before any row: rows of unknown models could not be compared
        atomic.write(place / "index.json", json.dumps(asdict(identity), indent=1).encode())
        update = _Update(folder, place, options, identity)
        try:
            return update.run(running, report)
        except Damaged as error:
            with atomic.writing_to(place):
                saved = rows.mend(place / rows.NAME, folder)
            log.warning("%s; the rows of %d images are sound and are kept", error, saved)
            return update.run(running, report)


def _refuse_others(place: Path) -> None:
    """Raise NotWritable for a non-empty folder that is no index: names of files may collide."""
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
    """Update of an index to the current content of its folder."""

    folder: Path
    place: Path
    options: IndexOptions
    identity: Identity

    def run(self, running: Running, report: Callable[[Progress], None]) -> Indexed:
        """Embed new and changed images, and publish a snapshot."""
        found = list_images(self.folder, skip=[self.place])
        warn_left_out(found)
        settings = digest(Ask(), self.identity.settings())
        with closing(Rows(self.place / rows.NAME, self.folder)) as journal:
            lost = self._lost(found, journal)
            items = self._items(found.images)
            moved, removed = _move_and_prune(items, lost, journal, settings)
            kept = self._items(lost)
            job = _job(self.place, self.options, self.identity)
            progress = batch.run(
                job, [(item, settings) for item in items], journal, running, report
            )
            every = sorted((*items, *kept), key=lambda item: item.name.split("/"))
            journal.sync()  # before the snapshot refers to its rows
            snapshot.publish(self.place, self.identity, every, journal)
            places = [*lost.values(), *journal.unreached.items()]
            _, facts = store.read_images(snapshot.current(self.place))
            return Indexed(
                self.place,
                facts["images"],
                facts["regions"],
                moved,
                removed,
                _failures(items, journal),
                progress,
                facts["engine"],
                reach.report(places, found.unreadable),
            )

    def _items(self, names: Iterable[str]) -> list[Item]:
        return [Item(self.folder / name, name, Ask()) for name in names]

    def _lost(self, found: Listing, journal: Rows) -> dict[str, tuple[str, str]]:
        """Find the indexed images that are unreachable now, each with the place and the reason."""
        if self.options.prune:
            return {}
        probe, here = reach.Reach(self.folder, found.unreadable), set(found.images)
        lost = {}
        for name in journal.names():
            if name not in here and checked.is_inside(name) and (why := probe.why_lost(name)):
                state = journal.state(name)
                if state and state[0] == "matched" and journal.get(name):
                    lost[name] = why
        return lost


def _identify(folder: Path, place: Path, options: IndexOptions) -> tuple[IndexOptions, Identity]:
    """Resolve what the index is built with: the options, else what it was built with before."""
    former, models = _former(place, options), options.models
    if former:
        if not models.encoder and models.proposer not in loading.PRESETS:
            check_named(place, "--encoder", former.encoder)
        if not models.proposer and (options.regions or former.regions):
            check_named(place, "--proposer", former.proposer)
        _, preset = loading.PRESETS.get(models.proposer or "", ("", None))
        models = replace(
            models,
            proposer=models.proposer or former.proposer,
            encoder=models.encoder or preset or former.encoder,
            policy=models.policy or former.policy,
        )
        options = replace(
            options,
            models=models,
            regions=options.regions or former.regions,
            engine=former.engine if options.engine == "auto" else options.engine,
        )
    proposer, encoder = loading.pair(
        models.proposer or "mini", models.encoder or models.proposer or "mini"
    )
    models = replace(models, proposer=proposer, encoder=encoder)
    weights = models.encoder_fingerprint()
    if former:
        check_weights(place, former, encoder, weights)
    hashes = models.fingerprint() if options.regions else {}
    found = sha256(hashes.get(proposer, "").encode()).hexdigest()[:16] if options.regions else ""
    source = "" if place.resolve().parent == folder.resolve() else str(folder.absolute())
    return options, Identity(
        source, encoder, weights, proposer, found, models.policy, options.regions, options.engine
    )


def _former(place: Path, options: IndexOptions) -> Identity | None:
    """Read what an index was built with, if lost from its snapshot; None for a new index."""
    try:
        return read_identity(place)
    except (BadPrompt, Damaged) as error:
        found = snapshot.remembered(place)
        if found:
            log.warning("index.json of the index at %s is lost or damaged; it is rewritten", place)
            return found
        if not options.models.encoder and _has_rows(place):
            raise BadIndex(
                f"{error}; what it was made with is lost, so name it, --encoder NAME and its other "
                "options, or rebuild it with --rebuild"
            ) from None
        return None


def _has_rows(place: Path) -> bool:
    if not (place / rows.NAME).exists():
        return False
    try:
        with closing(Rows(place / rows.NAME, place)) as journal:
            return bool(journal.names())
    except Damaged:
        return True


def _job(place: Path, options: IndexOptions, identity: Identity) -> EmbedJob:
    models = replace(
        options.models,
        proposer=identity.proposer,
        encoder=identity.encoder,
        policy=identity.policy,
    )
    answers = Answers(max_pixels=options.max_pixels)
    return EmbedJob(place, place / "parts", models, (), answers, regions=identity.regions)


def _move_and_prune(
    items: Sequence[Item], lost: dict[str, tuple[str, str]], journal: Rows, settings: str
) -> tuple[int, int]:
    """Reuse the embeddings of moved or copied images, and drop those of deleted ones.

    lost: unreachable images; those found elsewhere have moved, and are removed from it. Returns
    the number of images moved and deleted.
    """
    known, here = set(journal.names()), {item.name for item in items}
    gone, moved = known - here - lost.keys(), 0
    for item in items if known else ():
        if item.name in known:
            continue
        former = _find_copy(item, journal, settings)
        if former:
            journal.put(replace(former, name=item.name, stamp=stamp_of(item.path)))
            if lost.pop(former.name, None):
                gone.add(former.name)
            moved += former.name in gone
    for name in gone:
        journal.forget(name)
    return moved, len(gone) - moved


def _find_copy(item: Item, journal: Rows, settings: str) -> Outcome | None:
    """Return the outcome of an image of the same bytes, embedded with the same settings."""
    alike = journal.stored(stamp_of(item.path)[0])  # of the same size: most files are not hashed
    if not alike:
        return None
    try:
        content = regular.digest(item.path)
    except OSError:
        return None
    for name in alike:
        former = journal.get(name)
        if former and (former.content, former.asked) == (content, settings):
            return former
    return None


def _failures(items: Sequence[Item], journal: Rows) -> tuple[str, ...]:
    """Return the reason of each image that failed."""
    # by state first: unpacking the records of all images would take long
    failed = [
        item for item in items if (state := journal.state(item.name)) and state[0] == "failed"
    ]
    return tuple(outcome.why(item.path) for item in failed if (outcome := journal.get(item.name)))


def _clear(place: Path) -> None:
    names = [place / name for name in ("index.json", "current.json")]
    with atomic.writing_to(place):
        for path in [*snapshot.folders(place), *(place / "journal").glob("index.sqlite*"), *names]:
            snapshot.remove(path)
