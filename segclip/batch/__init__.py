"""Export masks of many pictures: any interruption is survived, a rerun does only what is missing or has changed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any

import filelock

from .. import loading, registry
from ..errors import BadPrompt
from ..formats import PER_IMAGE, PER_RUN
from ..version import __version__
from . import collect, plan, runners
from .collect import Done
from .journal import Journal, Outcome
from .plan import Ask, Item
from .runners import Task
from .work import Answers, Job, stamp_of

__all__ = ["Answers", "Ask", "ExportOptions", "Progress", "Running", "Summary", "export"]

STATE = ".segclip"  # folder inside the output that remembers what is done


@dataclass(frozen=True)
class ExportOptions:
    """Say what is asked of every picture and how it is answered; what a table's row says goes first.

    proposer, encoder, device, policy, load: as loading.load takes them. ask: texts, boxes and points of pictures that
    bring none of their own. boxes_of: a table of image and boxes, by the pictures' names.
    """

    formats: Sequence[str] = ("png", "coco")
    proposer: str = "mini"
    encoder: str | None = None
    device: str = "auto"
    policy: str | None = None
    ask: Ask = field(default_factory=Ask)
    boxes_of: Path | None = None
    answers: Answers = field(default_factory=Answers)
    load: loading.LoadOptions = field(default_factory=loading.LoadOptions)


@dataclass(frozen=True)
class Running:
    """Say where a run runs and when it stops.

    workers: processes. runner: "local" or "ray". address, gpus: of a Ray cluster, and the share of a GPU a worker gets.
    threads: a worker's, 0 to share the machine's out. part: "i/n", this part of the run only. retry_failed: do pictures
    again that failed before. max_failures: stop beyond so many.
    """

    workers: int = 1
    runner: str = "local"
    address: str | None = None
    gpus: float = 0.0
    threads: int = 0
    part: str | None = None
    retry_failed: bool = False
    max_failures: int | None = None

    def __post_init__(self) -> None:
        registry.choose({"local": 0, "ray": 0}, self.runner, "runner")
        if self.workers < 1:
            raise BadPrompt(f"workers must be at least 1, got {self.workers}")
        if self.part is not None:
            plan.shard([], self.part)


@dataclass
class Progress:
    """Count while a run goes on: pictures of this part, those done before, and what became of those done now."""

    total: int
    before: int = 0
    matched: int = 0
    empty: int = 0
    failed: int = 0
    stopped: bool = False  # too many failed
    started: float = field(default_factory=monotonic)

    @property
    def now(self) -> int:
        """Give how many were done by this run."""
        return self.matched + self.empty + self.failed

    @property
    def rate(self) -> float:
        """Give pictures a second."""
        return self.now / max(monotonic() - self.started, 1e-9)


@dataclass(frozen=True)
class Summary:
    """Hold how a run ended.

    images: pictures of the plan. states: how many of them matched, were empty, failed; {} while some are missing.
    progress: what this run did. missing: pictures still to do, by other parts or because this one stopped; nothing is
    put together before they are done. files: those of the run as a whole.
    """

    images: int
    states: dict[str, int]
    progress: Progress
    missing: int
    files: tuple[Path, ...]


def export(
    source: str | Path,
    out: str | Path,
    texts: str | Sequence[str] = (),
    *,
    options: ExportOptions = ExportOptions(),
    running: Running = Running(),
    tell: Callable[[Progress], None] = lambda progress: None,
) -> Summary:
    """Segment every picture of ``source`` by ``texts`` and write the masks to ``out``.

    source: a folder, a glob, a .txt list, or a .csv or .jsonl table of image, texts, boxes, points. ``tell`` hears of
    every picture. Raises BadPrompt for misuse and when another run is using ``out``; a picture that fails is a row of
    failures.jsonl and stops nothing.
    """
    out = Path(out)
    if texts:
        given = (texts,) if isinstance(texts, str) else tuple(texts)
        options = replace(options, ask=replace(options.ask, texts=given))
    every = plan.read(source, options.ask, boxes=options.boxes_of)
    items = plan.shard(every, running.part) if running.part else every
    if out.exists() and not out.is_dir():
        raise BadPrompt(f"{out} is a file; give a folder")
    part = running.part.replace("/", "-of-") if running.part else "all"
    with alone(out / STATE, part):
        job = _job(out, part, options, running)
        settings = _settings(job)
        digests = {item.name: plan.digest(item.ask, settings) for item in every}
        shutil.rmtree(job.scratch, ignore_errors=True)  # what a killed run left half written
        with closing(Journal(out / STATE / f"{part}.sqlite")) as journal:
            progress = run(job, [(item, digests[item.name]) for item in items], journal, running, tell)
        shutil.rmtree(job.scratch, ignore_errors=True)
        return _finish(out, every, digests, options.formats, progress, settings)


def run(
    job: Job, tasks: Sequence[Task], journal: Journal, running: Running, tell: Callable[[Progress], None]
) -> Progress:
    """Do what is not done yet."""
    progress = Progress(len(tasks))

    def left() -> Iterator[Task]:
        for item, asked in tasks:
            known = journal.get(item.name)
            if (
                known
                and _is_done(known, item, asked, job.out)
                and not (running.retry_failed and known.state == "failed")
            ):
                if known.stamp != (stamp := stamp_of(item.path)):  # touched, but the same: it need not be hashed again
                    journal.put(replace(known, stamp=stamp))
                progress.before += 1
                tell(progress)
            else:
                yield item, asked

    waiting = left()
    first = next(waiting, None)
    if first is None:  # no models are loaded for nothing
        return progress
    runner = runners.choose(running.runner, running.workers, running.address, running.gpus)
    with closing(runner(job, chain([first], waiting))) as outcomes:
        for outcome in outcomes:
            _keep(outcome, journal, job.out)
            setattr(progress, outcome.state, getattr(progress, outcome.state) + 1)
            tell(progress)
            if running.max_failures is not None and progress.failed > running.max_failures:
                progress.stopped = True
                break
    return progress


def _is_done(known: Outcome, item: Item, asked: str, out: Path) -> bool:
    """Tell whether a picture's outcome still holds: the same question, the same bytes, and its files are there."""
    if known.asked != asked or not all((out / file).exists() for file in known.files):
        return False
    stamp = stamp_of(item.path)
    if known.stamp == stamp:
        return True
    if not known.content or not item.path.is_file():
        return False
    try:
        return sha256(item.path.read_bytes()).hexdigest() == known.content
    except OSError:
        return False


def _keep(outcome: Outcome, journal: Journal, out: Path) -> None:
    """Put an outcome in the place of a former one, whose other files go."""
    former = journal.get(outcome.name)
    for file in set(former.files if former else ()) - set(outcome.files):
        (out / file).unlink(missing_ok=True)
    journal.put(outcome)


def _finish(
    out: Path,
    items: Sequence[Item],
    digests: dict[str, str],
    formats: Sequence[str],
    progress: Progress,
    settings: dict[str, Any],
) -> Summary:
    """Put the run together, once all its parts are done."""
    with ExitStack() as stack:
        stack.enter_context(filelock.FileLock(out / STATE / "collect.lock"))
        journals = [stack.enter_context(closing(Journal(path))) for path in sorted((out / STATE).glob("*.sqlite"))]

        def outcome(item: Item) -> Outcome | None:
            found = (known for journal in journals if (known := journal.get(item.name)))
            return next((known for known in found if _is_done(known, item, digests[item.name], out)), None)

        missing = sum(outcome(item) is None for item in items)
        if missing:
            return Summary(len(items), {}, progress, missing, ())
        done = Done(items, outcome, out)
        files = [path for name in formats if name in collect.WRITERS for path in collect.WRITERS[name](done)]
        files += collect.write_failures(done) + collect.write_sheet(done)
        counts, path = collect.write_summary(done, settings)
        return Summary(len(items), counts, progress, 0, (*files, path))


def _job(out: Path, part: str, options: ExportOptions, running: Running) -> Job:
    formats = tuple(dict.fromkeys(options.formats))
    for name in formats:
        registry.choose({**PER_IMAGE, **dict.fromkeys(PER_RUN)}, name, "format")
    if not formats:
        raise BadPrompt("no format was given; choose some of " + ", ".join({*PER_IMAGE, *PER_RUN}))
    each = tuple(name for name in formats if name in PER_IMAGE and name not in PER_RUN)
    models = (options.proposer, options.encoder, options.device, options.policy)
    scratch = out / STATE / f"parts-{part}"
    return Job(out, scratch, models, each, options.answers, options.load, running.threads)


def _settings(job: Job) -> dict[str, Any]:
    """Name everything but pictures and what they are asked that changes the answer."""
    proposer, encoder, _, policy = job.models
    told = dataclasses.asdict(job.answers) | {"formats": job.formats, "policy": policy, "segclip": __version__}
    return told | {"weights": loading.fingerprint(proposer, encoder, options=job.options)}


@contextmanager
def alone(folder: Path, part: str) -> Iterator[None]:
    """Keep a second run of the same part out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f"{part}.lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise BadPrompt(f"another run is writing to {folder.parent}; wait for it, or choose another folder") from None
    except OSError as error:
        raise BadPrompt(f"{folder.parent} cannot be written to, {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
