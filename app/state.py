"""The state of each user, and how clicks and texts change it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import RLock, Thread

import segclip

from .jobs.batches import Batch
from .jobs.indexing import Indexing
from .jobs.scratch import Scratch, place
from .jobs.training import Training
from .kept import Limits, LruCache
from .models import Models, parts
from .plain import file_name
from .samples import FIRST, TEXTS
from .settings import SAMPLES, Settings

LONGEST_HISTORY = 100
MOST_TEXTS = 100  # of one question
_FAREWELL = 5.0  # s within which batches must stop when the server ends

Point = tuple[float, float, int]  # x, y in pixels, 1 for foreground or 0 for background
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Draft:
    """The current question of a user: points or a box, everything, or texts.

    taken: selected rows of the answer, all of them if empty. threshold: None for the encoder's own.
    """

    texts: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()
    box: Box | None = None
    everything: bool = False
    taken: frozenset[int] = frozenset()
    threshold: float | None = None
    top_k: int | None = None

    @property
    def by_place(self) -> bool:
        """Return whether a point or box marks the object; background points alone only exclude."""
        return self.box is not None or any(label for _, _, label in self.points)

    @property
    def query_key(self) -> tuple[object, ...]:
        """Return everything that the answer depends on."""
        return replace(self, taken=frozenset()), self.by_place

    def question(self) -> segclip.Question:
        """Convert the draft to a question of the library."""
        points, labels = [(x, y) for x, y, _ in self.points], [label for _, _, label in self.points]
        boxes = [] if self.box is None else [self.box]
        searching = not self.by_place
        texts = self.texts if searching and not self.everything else ()
        return segclip.Question(
            texts,
            segclip.place(points, labels, boxes, searching=searching),
            everything=self.everything and searching,
            negatives=self.negatives if texts else (),
            selection=segclip.Selection(self.threshold, self.top_k),
        )


@dataclass(frozen=True, eq=False)
class CachedImage:
    """An image with its cached encodings and regions by model; samples are shared by all users."""

    image: segclip.Image
    encoded: dict[str, segclip.Encoded] = field(default_factory=dict)
    regions: dict[str, segclip.Regions] = field(default_factory=dict)
    preparing: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Work:
    """One user's image, question and cached results."""

    cached: CachedImage
    draft: Draft = Draft()
    words: str = "mini"
    clicks: str = "mini-sam"
    # identifies the image in messages to the browser
    image_id: str = field(default_factory=lambda: secrets.token_hex(8))
    # results to refine, by points
    former: dict[tuple[Point, ...], segclip.Result] = field(default_factory=dict)
    history: list[Draft] = field(default_factory=list)
    batch: Batch | None = None
    lock: RLock = field(default_factory=RLock)  # a user may have two tabs open

    @property
    def image(self) -> segclip.Image:
        """Return the image."""
        return self.cached.image

    @property
    def memory(self) -> tuple[object, ...]:
        """Return what takes memory: the image and everything cached for it."""
        cached = self.cached
        features = [encoded.features for encoded in list(cached.encoded.values())]
        return cached.image, features, list(cached.regions.values()), list(self.former.values())

    def open(self, cached: CachedImage, texts: tuple[str, ...] = ()) -> None:
        """Open another image; points and boxes are cleared, texts stay unless others are given."""
        with self.lock:
            self.cached, self.image_id = cached, secrets.token_hex(8)
            self.draft = replace(self._cleared(), texts=texts or self.draft.texts)
            self._forget()

    def take_batch(self, batch: Batch | None) -> None:
        """Replace the batch, and delete the files of the former one."""
        with self.lock:
            former, self.batch = self.batch, batch
        if former is not None:
            Thread(target=former.remove, daemon=True).start()

    def use(self, *, words: str | None = None, clicks: str | None = None) -> None:
        """Switch models."""
        with self.lock:
            self.words, self.clicks = words or self.words, clicks or self.clicks
            # a threshold belongs to its encoder
            self.draft = replace(self.draft, threshold=None, taken=frozenset())
            self._forget()

    def _forget(self) -> None:
        self.former.clear()
        self.history.clear()

    def _change(self, draft: Draft) -> None:
        """Change the draft; undo restores the former one."""
        with self.lock:
            if draft == self.draft:
                return
            if draft.query_key != self.draft.query_key:
                draft = replace(draft, taken=frozenset())
            self.history.append(self.draft)
            del self.history[:-LONGEST_HISTORY]
            self.draft = draft

    def set_texts(self, texts: tuple[str, ...], negatives: tuple[str, ...] = ()) -> None:
        """Set the texts, and clear points and boxes. Raises BadPrompt for too many texts."""
        if len(texts) + len(negatives) > MOST_TEXTS:
            count = len(texts) + len(negatives)
            raise segclip.BadPrompt(f"{count} texts were given; at most {MOST_TEXTS} are allowed")
        if (texts, negatives) != (self.draft.texts, self.draft.negatives):
            self._change(replace(self._cleared(), texts=texts, negatives=negatives))

    def tune(self, threshold: float | None, top_k: int | None) -> None:
        """Set threshold and top_k; consecutive slider moves are one step for undo."""
        draft = replace(self.draft, threshold=threshold, top_k=top_k)
        former = self.history[-1] if self.history else None
        moving = former is not None and replace(former, threshold=threshold, top_k=top_k) == draft
        self._change(draft)
        if moving and self.history[-1] is not former:
            self.history.pop()

    def click(self, x: float, y: float, label: int) -> None:
        """Add a foreground (label 1) or background (label 0) click."""
        self._change(replace(self._not_everything(), points=(*self.draft.points, (x, y, label))))

    def drag(self, box: Box) -> None:
        """Set a box around the object, and clear points."""
        self._change(replace(self._cleared(), box=box))

    def everything(self) -> None:
        """Segment every object."""
        self._change(replace(self._cleared(), everything=True, threshold=None))

    def take(self, row: int) -> None:
        """Select or deselect a row of the answer; with points or a box only one can be selected."""
        taken = self.draft.taken ^ {row}
        self._change(replace(self.draft, taken=taken & {row} if self.draft.by_place else taken))

    def undo(self) -> None:
        """Go back one step."""
        with self.lock:
            if self.history:
                self.draft = self.history.pop()

    def clear(self) -> None:
        """Clear points, box and selection."""
        self._change(self._cleared())

    def _cleared(self) -> Draft:
        return replace(self._not_everything(), points=(), box=None, taken=frozenset())

    def _not_everything(self) -> Draft:
        """Leave everything mode; its threshold is one of quality, so it is reset."""
        draft = self.draft
        return replace(draft, everything=False, threshold=None) if draft.everything else draft


class Studio:
    """The shared models, and each user's work under an unguessable key.

    samples: the sample images opened so far, by file name.
    """

    def __init__(self, settings: Settings, models: Models | None = None) -> None:
        self.settings = settings
        self.models = models or Models()
        self.indexing = Indexing()
        self.training = Training(settings.runs.absolute())
        self.scratch = Scratch(place(settings.scratch))
        # downloads of weights by name: "" while running, else the error
        self.fetching: dict[str, str] = {}
        self._works: LruCache[Work] = LruCache(
            lambda: Limits(settings.works, settings.kept_mb * 1_000_000),
            memory=lambda work: () if work.cached in self.samples.values() else work.memory,
            on_evict=lambda work: work.take_batch(None),
        )
        self.samples: dict[str, CachedImage] = {}
        self._index: segclip.Index | None = None

    def __len__(self) -> int:
        return len(self._works)

    def begin(self) -> tuple[str, Work]:
        """Start a work with a sample and a text; the least recently used one may be evicted."""
        work = Work(
            self.sample(FIRST), Draft((TEXTS[FIRST],)), self.settings.words, self.settings.clicks
        )
        key = secrets.token_urlsafe(16)
        self._works.put(key, work)
        return key, work

    def find(self, key: str) -> Work | None:
        """Return the work of a key; None for an unknown or evicted one."""
        return self._works.find(key)

    def tidy(self) -> bool:
        """Evict works over the limits; return whether there were any."""
        return self._works.tidy()

    def close(self) -> None:
        """Stop all background jobs and remove their files, as the server ends."""
        self.indexing.cancel()
        self.training.stop()
        batches = [work.batch for work in self._works.values() if work.batch is not None]
        for batch in batches:
            batch.cancel()
        for batch in batches:
            batch.remove(_FAREWELL / len(batches))
        self.scratch.close()

    def unpack(self, data: bytes) -> Batch:
        """Unpack a zip for a batch, within the limit of all batches.

        Raises BadImage, NotWritable.
        """
        others = [work.batch.size for work in self._works.values() if work.batch is not None]
        return Batch.unpacked(
            data, self.scratch, most=self.settings.batch_mb * 1_000_000 - sum(others)
        )

    def index(self) -> segclip.Index:
        """Return the open index of the server's folder. Raises BadPrompt when there is none."""
        if self._index is None:
            self._index = segclip.Index(self.index_place(), encoder=parts(self.settings.words)[1])
        return self._index

    def index_place(self) -> Path:
        """Return the path of the folder's index, outside the folder, which may be read-only."""
        folder = self.settings.photos.resolve()
        return self.settings.indexes / sha256(str(folder).encode()).hexdigest()[:16]

    @property
    def folders(self) -> tuple[Path, ...]:
        """Return the server's folders, whose paths remote users must not learn."""
        settings = self.settings
        return self.index_place(), settings.photos, settings.runs, settings.indexes

    def reopen_index(self) -> None:
        """Reopen the index on its next use."""
        self._index = None

    def read(self, data: bytes, name: str) -> segclip.Image:
        """Read an upload within the limits. name: as sent, unsafe. Raises BadImage."""
        label = file_name(name)
        if len(data) > self.settings.upload_mb * 1_000_000:
            limit = self.settings.upload_mb
            raise segclip.BadImage(
                f"{label} has {len(data) / 1e6:.1f} MB; at most {limit} MB are allowed: shrink it"
            )
        return segclip.load_image(data, label=label, max_pixels=self.settings.max_pixels)

    def sample(self, name: str) -> CachedImage:
        """Return a sample image by file name, with the results cached by any user."""
        if name not in self.samples:
            self.samples[name] = CachedImage(segclip.load_image(SAMPLES / name, label=name))
        return self.samples[name]


@cache
def studio() -> Studio:
    """Return the studio of this process, which pages and API share."""
    return Studio(Settings.from_environment())
