"""What one person is working on, apart from everybody else's, and what each click or text makes of
it.
"""

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
from .kept import Kept, Limits
from .models import Models, parts
from .plain import file_name
from .samples import FIRST, TEXTS
from .settings import SAMPLES, Settings

LONGEST_HISTORY = 100
MOST_TEXTS = 100  # of one question
_FAREWELL = 5.0  # s that batches have to stop in when the server ends

Point = tuple[
    float, float, int
]  # x, y in pixels of the picture, 1 for the object and 0 for what it is not
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Draft:
    """Hold the question a person is putting together: by place with points or a box, of everything,
    or by words.

    taken: rows of the answer that were chosen; none chosen is all of them. threshold: None for the
    encoder's own.
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
        """Tell whether a place was pointed at; negative points alone only leave out what lies
        there.
        """
        return self.box is not None or any(label for _, _, label in self.points)

    @property
    def asks(self) -> tuple[object, ...]:
        """Return what the answer depends on."""
        return replace(self, taken=frozenset()), self.by_place

    def question(self) -> segclip.Question:
        """Put it into the library's terms."""
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
class Known:
    """Hold a picture with what was found out about it, by the preset that did; of a sample
    everybody shares one.
    """

    image: segclip.Image
    encoded: dict[str, segclip.Encoded] = field(default_factory=dict)
    regions: dict[str, segclip.Regions] = field(default_factory=dict)
    preparing: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Work:
    """Hold one person's picture, what is asked of it, and what was found out so far."""

    known: Known
    draft: Draft = Draft()
    words: str = "mini"
    clicks: str = "mini-sam"
    picture: str = field(
        default_factory=lambda: secrets.token_hex(8)
    )  # names the picture in messages to the browser
    former: dict[tuple[Point, ...], segclip.Result] = field(
        default_factory=dict
    )  # answers to be refined, by points
    history: list[Draft] = field(default_factory=list)
    batch: Batch | None = None
    lock: RLock = field(default_factory=RLock)  # two tabs of one person

    @property
    def image(self) -> segclip.Image:
        """Give the picture."""
        return self.known.image

    @property
    def heavy(self) -> tuple[object, ...]:
        """Return what takes memory: the image, and what was found out about it."""
        known = self.known
        features = [encoded.features for encoded in list(known.encoded.values())]
        return known.image, features, list(known.regions.values()), list(self.former.values())

    def open(self, known: Known, texts: tuple[str, ...] = ()) -> None:
        """Take another picture; the words stay unless others are given, places go."""
        with self.lock:
            self.known, self.picture = known, secrets.token_hex(8)
            self.draft = replace(self._cleared(), texts=texts or self.draft.texts)
            self._forget()

    def take_batch(self, batch: Batch | None) -> None:
        """Put a batch in the place of the former one, whose files go."""
        with self.lock:
            former, self.batch = self.batch, batch
        if former is not None:
            Thread(target=former.remove, daemon=True).start()

    def use(self, *, words: str | None = None, clicks: str | None = None) -> None:
        """Let other models answer."""
        with self.lock:
            self.words, self.clicks = words or self.words, clicks or self.clicks
            self.draft = replace(
                self.draft, threshold=None, taken=frozenset()
            )  # thresholds are an encoder's
            self._forget()

    def _forget(self) -> None:
        self.former.clear()
        self.history.clear()

    def ask(self, draft: Draft) -> None:
        """Ask something else; undo goes back."""
        with self.lock:
            if draft == self.draft:
                return
            if draft.asks != self.draft.asks:
                draft = replace(draft, taken=frozenset())
            self.history.append(self.draft)
            del self.history[:-LONGEST_HISTORY]
            self.draft = draft

    def say(self, texts: tuple[str, ...], negatives: tuple[str, ...] = ()) -> None:
        """Ask by words: places pointed at go. Raises BadPrompt for too many."""
        if len(texts) + len(negatives) > MOST_TEXTS:
            count = len(texts) + len(negatives)
            raise segclip.BadPrompt(f"{count} texts were given; at most {MOST_TEXTS} are taken")
        if (texts, negatives) != (self.draft.texts, self.draft.negatives):
            self.ask(replace(self._cleared(), texts=texts, negatives=negatives))

    def tune(self, threshold: float | None, top_k: int | None) -> None:
        """Move the sliders; a slider on its way is one step for undo."""
        asked = replace(self.draft, threshold=threshold, top_k=top_k)
        former = self.history[-1] if self.history else None
        on_its_way = (
            former is not None and replace(former, threshold=threshold, top_k=top_k) == asked
        )
        self.ask(asked)
        if on_its_way and self.history[-1] is not former:
            self.history.pop()

    def click(self, x: float, y: float, label: int) -> None:
        """Point at the object, or at what it is not."""
        self.ask(replace(self._not_everything(), points=(*self.draft.points, (x, y, label))))

    def drag(self, box: Box) -> None:
        """Draw a box around an object; points go."""
        self.ask(replace(self._cleared(), box=box))

    def everything(self) -> None:
        """Show every object."""
        self.ask(replace(self._cleared(), everything=True, threshold=None))

    def take(self, row: int) -> None:
        """Choose a row of the answer, or leave it again; by place one row is the answer."""
        taken = self.draft.taken ^ {row}
        self.ask(replace(self.draft, taken=taken & {row} if self.draft.by_place else taken))

    def undo(self) -> None:
        """Go one step back."""
        with self.lock:
            if self.history:
                self.draft = self.history.pop()

    def clear(self) -> None:
        """Go back from places to words."""
        self.ask(self._cleared())

    def _cleared(self) -> Draft:
        return replace(self._not_everything(), points=(), box=None, taken=frozenset())

    def _not_everything(self) -> Draft:
        """Ask no longer for everything; its threshold is one of quality, and goes too."""
        draft = self.draft
        return replace(draft, everything=False, threshold=None) if draft.everything else draft


class Studio:
    """Hold the models everybody shares, and everybody's own work under a key that cannot be
    guessed.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = Models()
        self.indexing = Indexing()
        self.training = Training(settings.runs.absolute())
        self.scratch = Scratch(place(settings.scratch))
        self.fetching: dict[
            str, str
        ] = {}  # weights on their way, by name: "", or why they didn't come
        self._works: Kept[Work] = Kept(
            lambda: Limits(settings.works, settings.kept_mb * 1_000_000),
            heavy=lambda work: () if work.known in self._samples.values() else work.heavy,
            gone=lambda work: work.take_batch(None),
        )
        self._samples: dict[str, Known] = {}
        self._index: segclip.Index | None = None

    def __len__(self) -> int:
        return len(self._works)

    def begin(self) -> tuple[str, Work]:
        """Give a newcomer a sample with a text; the work longest unused may have to go."""
        work = Work(
            self.sample(FIRST), Draft((TEXTS[FIRST],)), self.settings.words, self.settings.clicks
        )
        key = secrets.token_urlsafe(16)
        self._works.put(key, work)
        return key, work

    def find(self, key: str) -> Work | None:
        """Give the work of a key; None for a wrong key, and when it had to go."""
        return self._works.find(key)

    def tidy(self) -> bool:
        """Let go of works that are over the limits; return whether any went."""
        return self._works.tidy()

    def close(self) -> None:
        """Stop what runs beside the pages, and remove every file of theirs: the server ends."""
        self.indexing.cancel()
        self.training.stop()
        batches = [work.batch for work in self._works.values() if work.batch is not None]
        for batch in batches:
            batch.cancel()
        for batch in batches:
            batch.remove(_FAREWELL / len(batches))
        self.scratch.close()

    def unpack(self, data: bytes) -> Batch:
        """Unpack a zip for a batch, within what all batches may take. Raises BadImage,
        NotWritable.
        """
        others = [work.batch.size for work in self._works.values() if work.batch is not None]
        return Batch.unpacked(
            data, self.scratch, most=self.settings.batch_mb * 1_000_000 - sum(others)
        )

    def index(self) -> segclip.Index:
        """Give the index of the server's folder, open. Raises BadPrompt when there is none."""
        if self._index is None:
            self._index = segclip.Index(self.index_place(), encoder=parts(self.settings.words)[1])
        return self._index

    def index_place(self) -> Path:
        """Give where the index of the server's folder lies: outside it, for it may be read-only."""
        folder = self.settings.photos.resolve()
        return self.settings.indexes / sha256(str(folder).encode()).hexdigest()[:16]

    def reopen_index(self) -> None:
        """Read the index anew when next asked for."""
        self._index = None

    def read(self, data: bytes, name: str) -> segclip.Image:
        """Read an upload within the limits. name: as its sender gave it. Raises BadImage."""
        label = file_name(name)
        if len(data) > self.settings.upload_mb * 1_000_000:
            limit = self.settings.upload_mb
            raise segclip.BadImage(
                f"{label} has {len(data) / 1e6:.1f} MB; at most {limit} MB are taken, so shrink it"
            )
        return segclip.load_image(data, label=label, max_pixels=self.settings.max_pixels)

    def sample(self, name: str) -> Known:
        """Return one of the samples that come with segclip, by its file's name, with what anyone
        found out about it.
        """
        if name not in self._samples:
            self._samples[name] = Known(segclip.load_image(SAMPLES / name, label=name))
        return self._samples[name]


@cache
def studio() -> Studio:
    """Give the one studio of this process: pages and API share it."""
    return Studio(Settings.from_environment())
