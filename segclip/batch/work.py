"""Process one image: read, segment, write; the same code in process, in a pool, on a cluster."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from .. import exporters, images, loading
from ..errors import BadImage, BadPrompt, NotWritable, SegclipError
from ..files.formats import PER_IMAGE
from ..question import MAX_PIXELS, Question
from ..ranking.selection import Selection
from ..types import Everything, Image, Result
from ..types.prompts import place
from .files import describe, is_short_of_room, stamp_of, sync_staged
from .journal import Outcome, Staged, Stamp
from .plan import Ask, Item

# the largest plausible file: four uncompressed float32 channels, plus metadata
_BYTES_A_PIXEL, _METADATA = 16, 1 << 26
# permanent errors, unlike those of, say, a server that does not respond for a while
_LASTING = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
)


@dataclass(frozen=True)
class Answers:
    """Options of ranking, as ``Segmenter.rank`` takes them, and of reading and writing images.

    templates: the name of a set, a file, or sentences; a run resolves the first two to sentences.
    max_pixels: the largest image that is read. feather: px over which a cut-out's edge fades.
    """

    negatives: tuple[str, ...] = ()
    backgrounds: tuple[str, ...] | None = None
    templates: str | tuple[str, ...] | None = None
    selection: Selection = field(default_factory=Selection)
    max_pixels: int = MAX_PIXELS
    feather: float = 0.0

    def question(self, ask: Ask) -> Question:
        """Build the question for one image. Raises BadPrompt."""
        labels = [int(point[2]) if len(point) == 3 else 1 for point in ask.points]
        searching = bool(ask.texts or ask.everything)
        where = place(
            [point[:2] for point in ask.points], labels, list(ask.boxes), searching=searching
        )
        return Question(
            ask.texts,
            where,
            everything=isinstance(where, Everything) and not ask.texts,
            negatives=self.negatives if ask.texts else (),
            backgrounds=self.backgrounds,
            templates=self.templates,
            selection=self.selection,
            max_pixels=self.max_pixels,
        )


@dataclass(frozen=True)
class Job:
    """How every image of a run is processed.

    scratch: where files are staged before they are moved into place, on ``out``'s file system.
    formats: of formats.PER_IMAGE. threads: torch's in a worker, 0 for its own choice.
    """

    out: Path
    scratch: Path
    models: loading.ModelSpec
    formats: tuple[str, ...]
    answers: Answers = field(default_factory=Answers)
    threads: int = 0

    @property
    def together(self) -> int:
        """Return how many images form one batch."""
        return 1

    def start(self) -> Worker:
        """Load the models the job needs."""
        return Worker(self)


@dataclass(frozen=True, eq=False)
class Read:
    """An image that was read, or the error. passing: the error is likely temporary."""

    item: Item
    digest: str
    content: str
    stamp: Stamp
    image: Image | None
    error: Exception | None = None
    passing: bool = False


class Worker:
    """Load the models once and process one image after the other."""

    def __init__(self, job: Job) -> None:
        if job.threads:
            import cv2
            import torch

            torch.set_num_threads(job.threads)
            cv2.setNumThreads(job.threads)
        self.job = job
        self.load()

    def load(self) -> None:
        """Load the models."""
        self.segmenter = self.job.models.open()

    def all(self, tasks: Sequence[tuple[Item, str]]) -> list[Outcome]:
        """Process several images; an error in one is its outcome."""
        given = [read(item, digest, self.job.answers.max_pixels) for item, digest in tasks]
        return [self.finish(*answer) for answer in self.answer_all(given)]

    def answer(self, given: Read) -> tuple[Read, Result | None]:
        """Run the models: the half that needs them."""
        if given.image is None:
            return given, None
        try:
            return given, self.result_of(given.image, given.item.ask)
        except Exception as error:  # an image's failure is recorded, and ends here
            return replace(given, image=None, error=error, passing=_is_passing(error)), None

    def answer_all(self, given: Sequence[Read]) -> list[tuple[Read, Result | None]]:
        """Run the models on several images, one by one unless a subclass can batch them."""
        return [self.answer(one) for one in given]

    def finish(self, given: Read, result: Result | None) -> Outcome:
        """Write the files: the half that only needs the disk."""
        if result is not None:
            try:
                return self.keep(given, result)
            except Exception as error:
                given = replace(given, image=None, error=error, passing=_is_passing(error))
        return _failure(given, self._scratch)

    @property
    def _scratch(self) -> Path:
        """Return the staging folder of this process."""
        return self.job.scratch / str(os.getpid())

    def keep(self, given: Read, result: Result) -> Outcome:
        """Write an image's files and describe them."""
        files = self._write(given.item, result)
        record = exporters.to_record(result)
        del record["image"]
        state = "matched" if len(result) else "empty"
        return Outcome(
            given.item.name, given.content, given.stamp, given.digest, state, files, record
        )

    def result_of(self, image: Image, ask: Ask) -> Result:
        """Answer the question of an image."""
        return self.segmenter.answer(image, self.job.answers.question(ask))

    def _write(self, item: Item, result: Result) -> tuple[Staged, ...]:
        """Stage an image's files on disk; one process moves them all into place later."""
        scratch = self._scratch
        written: list[Path] = []
        for format in self.job.formats:
            path = scratch / format / f"{item.place}.{PER_IMAGE[format]}"
            if format == "cutout":
                written += exporters.write_cutouts(result, path, feather=self.job.answers.feather)
            elif format == "labelme":
                written += exporters.WRITERS[format](self._linked(item, result), path)
            else:
                written += exporters.WRITERS[format](result, path)
        for path in written:
            sync_staged(path)
        return tuple(describe(path, path.relative_to(scratch).as_posix()) for path in written)

    def _linked(self, item: Item, result: Result) -> Result:
        """Set the image's path relative to the label's folder, as LabelMe expects it."""
        path = path_from_label(self.job.out, item)
        return replace(
            result, regions=replace(result.regions, image=replace(result.image, source=path))
        )


def path_from_label(out: Path, item: Item) -> str:
    """Return an image's path from the folder of its LabelMe file."""
    try:
        return os.path.relpath(item.path, (out / "labelme" / item.place).parent)
    except ValueError:  # on another drive
        return os.path.abspath(item.path)


def read(item: Item, digest: str, max_pixels: int) -> Read:
    """Read an image's bytes once, to hash and to decode.

    Outputs name the image by its name, not by its path, which may change.
    """
    content, stamp = "", stamp_of(item.path)
    try:
        if item.folder:
            next(os.scandir(item.path), None)  # raises the reason why it could not be listed
            raise BlockingIOError("it could not be listed a moment ago")
        # opening a pipe would block forever, and a device never ends
        if item.path.exists() and not item.path.is_file():
            raise BadImage(f"{item.name}: a folder, a pipe or a device, not an image file")
        # a sparse file may claim more than fits in memory
        if stamp[0] > _BYTES_A_PIXEL * max_pixels + _METADATA:
            raise BadImage(
                f"{item.name}: {stamp[0]:,} bytes, more than any image of {max_pixels:,} pixels "
                "takes"
            )
        data = item.path.read_bytes()
        content = sha256(data).hexdigest()
        return Read(
            item, digest, content, stamp, images.load(data, label=item.name, max_pixels=max_pixels)
        )
    except OSError as error:
        what = "the folder cannot be read" if item.folder else "cannot be opened"
        problem = BadImage(f"{item.name}: {what}, {error.strerror or error}")
        return Read(
            item, digest, content, stamp, None, problem, item.folder or error.errno not in _LASTING
        )
    except Exception as error:  # as in Worker.answer
        return Read(item, digest, content, stamp, None, error, _is_passing(error))


def _is_passing(error: BaseException) -> bool:
    """Return whether an image failed for lack of resources, so that the next run retries it."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and is_short_of_room(error)
    )


def _failure(given: Read, scratch: Path) -> Outcome:
    error: Any = given.error
    known = isinstance(error, SegclipError)
    reason = str(error) if known else f"{type(error).__name__}: {error}"
    reason = reason.replace(f"{scratch}{os.sep}", "")  # it depends on the process
    return Outcome(
        given.item.name,
        given.content,
        given.stamp,
        given.digest,
        "failed",
        reason=reason,
        trace="" if known else "".join(traceback.format_exception(error)),
        passing=given.passing,
        unfit=isinstance(error, BadPrompt),
        halts=isinstance(error, NotWritable) and is_short_of_room(error.__cause__),
    )
