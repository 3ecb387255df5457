"""Export the masks of many images; a rerun resumes, processing only missing or changed images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from .. import __version__, registry
from ..errors import BadIndex, BadPrompt, BadTable, NotWritable
from ..files.formats import PER_IMAGE, PER_RUN
from ..question import Question, unique
from ..ranking import concepts, templates
from . import collect, plan, runners, state
from .done import Done
from .files import stamp_of
from .journal import Damaged, Journal, Outcome
from .ledger import YOLO
from .options import ExportOptions, Progress, Running, Summary
from .output import Output, real_paths
from .plan import Ask, Item
from .runners import Task
from .state import alone
from .work import Answers, Job, path_from_label

__all__ = ["Answers", "Ask", "ExportOptions", "Progress", "Running", "Summary", "alone", "export"]


def export(
    source: str | Path,
    out: str | Path,
    texts: str | Sequence[str] = (),
    *,
    options: ExportOptions = ExportOptions(),
    running: Running = Running(),
    report: Callable[[Progress], None] = lambda progress: None,
) -> Summary:
    """Segment every image of ``source`` by ``texts`` and write the masks to ``out``.

    source: a folder, a glob, a .txt list, or a .csv or .jsonl table of image, texts, boxes, points.
    ``report`` is called after every image. A failed image becomes a row of failures.jsonl and does
    not stop the run. Raises BadPrompt for misuse, Busy while another run is using ``out``, and
    NotWritable for a full disk or for a file in the way that segclip did not write.
    """
    out = Path(out)
    if texts:
        texts = (texts,) if isinstance(texts, str) else tuple(texts)
        options = replace(options, ask=replace(options.ask, texts=texts))
    listed = plan.read(source, options.ask, boxes=options.boxes_of, out=out)
    options = _checked(options, listed)
    if out.exists() and not out.is_dir():
        raise BadPrompt(f"{out} is a file; give a folder")
    part = running.part.replace("/", "-of-") if running.part else state.WHOLE
    job = _job(out, part, options, running)
    order = _Order(
        source,
        job,
        tuple(dict.fromkeys(options.formats)),
        _settings(job),
        running,
        report,
        _stamps(job, listed),
    )
    if not (out / state.STATE).exists():  # no earlier run wrote there
        _check_apart(order, real_paths(item.path for item in listed))
    tables = [path for path in (Path(source), options.boxes_of) if path and path.is_file()]
    folder, begun, damaged = state.prepare(out), plan.digest(options.ask, order.shared()), ""
    while True:  # twice at most: damage may show only while the journal is used
        try:
            with state.opened(folder, part, begun, damaged=damaged) as ledger:
                return _carry_out(
                    order, listed, Output(out, job.scratch, ledger, real_paths(tables))
                )
        except Damaged as error:
            if damaged:
                raise BadIndex(
                    f"{error}; wait until the other parts have ended, and run again"
                ) from error
            damaged = str(error)


@dataclass(frozen=True)
class _Order:
    """What a run does: how each image is processed, the formats, and how the run is executed."""

    source: str | Path
    job: Job
    formats: tuple[str, ...]
    settings: dict[str, Any]
    running: Running
    report: Callable[[Progress], None]
    concepts: dict[str, str]  # SHA-256 of the file of each concept that a text names

    def shared(self) -> dict[str, Any]:
        """Return the settings that all parts of a run share."""
        taught = {"concepts": self.concepts} if self.concepts else {}
        return self.settings | {"formats of the run": sorted(self.formats)} | taught

    def digest(self, item: Item) -> str:
        """Return a digest of everything, other than the image, that its files depend on."""
        # only where they differ, so that the digests of most images outlive such a change
        own = {"place": item.place} if item.place != item.name else {}
        if "labelme" in self.formats:
            own["imagePath"] = path_from_label(self.job.out, item)
        if named := concepts.names_in((*item.ask.texts, *self.job.answers.negatives)):
            own["concepts"] = repr({name: self.concepts[name] for name in named})
        return plan.digest(item.ask, self.settings | own)


def _checked(options: ExportOptions, listed: Sequence[Item]) -> ExportOptions:
    """Reject options that would fail for every image, and read the templates once.

    Raises BadPrompt, UnknownName, and what ``lines.read`` does.
    """
    answers, chosen = options.answers, options.answers.templates
    negatives = unique(answers.negatives)
    for texts in {item.ask.texts: None for item in listed}:
        Question(texts, negatives=negatives)
    if options.ask:
        answers.question(options.ask)
    sentences = templates.get(chosen) if isinstance(chosen, str) else chosen
    backgrounds = None if answers.backgrounds is None else unique(answers.backgrounds)
    answers = replace(
        answers,
        negatives=negatives,
        backgrounds=backgrounds,
        templates=None if sentences is None else templates.check(sentences),
    )
    return replace(options, answers=answers)


def _carry_out(order: _Order, listed: list[Item], output: Output) -> Summary:
    """Process the images, and write the files of the run once none is left."""
    job, part = order.job, order.running.part
    every = plan.apart(_without_outputs(order, listed, output))
    inputs = real_paths(item.path for item in every)
    _check_apart(order, inputs)
    output.inputs |= inputs
    output.verify = order.running.verify
    if not every and output.ledger.owners():
        raise BadPrompt(
            f"{order.source} holds no image now; {job.out} is left as it is: delete it if that is "
            "intended"
        )
    digests = {item.name: order.digest(item) for item in every}
    state.clear_scratch(job.scratch, whole=part is None)
    try:
        tasks = [
            (item, digests[item.name]) for item in (plan.shard(every, part) if part else every)
        ]
        progress = run(job, tasks, output.ledger, order.running, order.report, output)
        with state.collecting(job.scratch.parent):
            return _finish(order, every, digests, output, progress)
    finally:
        state.clear(job.scratch)


def run(
    job: Job,
    tasks: Sequence[Task],
    journal: Journal,
    running: Running,
    report: Callable[[Progress], None],
    output: Output | None = None,
) -> Progress:
    """Process the tasks not done yet; write outcomes to the journal, and files to any output."""
    progress = Progress(len(tasks))

    def left() -> Iterator[Task]:
        for item, digest in tasks:
            known = journal.get(item.name)
            if (
                known is None
                or not _is_current(known, item, digest, running)
                or not _is_intact(known, item, job, output, running)
            ):
                yield item, digest
                continue
            stamp = stamp_of(item.path)
            if known.stamp != stamp:  # touched, but unchanged: avoid hashing it again
                if output:
                    output.touched(item.name, stamp)
                else:
                    journal.put(replace(known, stamp=stamp))
            progress.before += 1
            report(progress)

    waiting = left()
    try:
        first = next(waiting, None)
        if first is None:  # without loading the models
            return progress
        runner = runners.choose(running.runner, running.workers, running.address, running.gpus)
        with closing(runner(job, chain([first], waiting))) as outcomes:
            for outcome in outcomes:
                (output.keep if output else journal.put)(outcome)
                setattr(progress, outcome.state, getattr(progress, outcome.state) + 1)
                report(progress)
                if running.max_failures is not None and progress.failed > running.max_failures:
                    progress.stopped = True
                    break
    finally:
        if output:
            output.flush()
    return progress


def _is_current(known: Outcome, item: Item, digest: str, running: Running) -> bool:
    """Return whether an outcome still holds: same question, same bytes, no failure to retry."""
    if known.asked != digest or (
        known.state == "failed" and (running.retry_failed or known.passing)
    ):
        return False
    if known.stamp == stamp_of(item.path) and not running.verify:
        return True
    if not known.content or not item.path.is_file():
        return known.stamp == stamp_of(item.path)
    try:
        return sha256(item.path.read_bytes()).hexdigest() == known.content
    except OSError:
        return False


def _is_intact(
    known: Outcome, item: Item, job: Job, output: Output | None, running: Running
) -> bool:
    """Return whether an outcome's record is valid and its files are unchanged."""
    if output is None or known.state == "failed":
        return True
    sound = collect.is_record(known.record, item, job.answers.max_pixels)
    return sound and output.is_sound(known.name, verify=running.verify)


def _finish(
    order: _Order,
    items: Sequence[Item],
    digests: dict[str, str],
    output: Output,
    progress: Progress,
) -> Summary:
    """Write the files of the run as a whole, once all its parts are done."""
    # what this run retried or read again is done
    out, again = order.job.out, replace(order.running, retry_failed=False, verify=False)

    def is_done(item: Item) -> bool:
        known = output.ledger.get(item.name)
        if known is None:
            return False
        # a failure for want of memory is retried by the next run, not by this one
        known = replace(known, passing=False)
        return _is_current(known, item, digests[item.name], again) and _is_intact(
            known, item, order.job, output, again
        )

    missing = sum(not is_done(item) for item in items)
    if missing:
        return Summary(len(items), {}, progress, missing, ())
    done = Done(items, output, out)
    files = [
        path
        for name in order.formats
        if name in collect.WRITERS
        for path in collect.WRITERS[name](done)
    ]
    files += collect.write_failures(done) + collect.write_sheet(done)
    counts, path = collect.write_summary(done, order.settings)
    output.end_run({item.name for item in items}, {item.name for item in items if item.folder})
    return Summary(len(items), counts, progress, 0, (*files, path))


def _without_outputs(order: _Order, listed: list[Item], output: Output) -> list[Item]:
    """Leave out what an earlier run wrote here. Raises BadTable if a table lists such a file."""
    found = [item for item in listed if not output.owns(item.path)]
    if len(found) < len(listed) and not (Path(order.source).is_dir() or plan.is_glob(order.source)):
        own = next(item for item in listed if output.owns(item.path))
        raise BadTable(
            f"{order.source} lists {own.path}, which an earlier run wrote; list images of your own"
        )
    return found


def _check_apart(order: _Order, inputs: frozenset[str]) -> None:
    """Reject inputs in the folders that are written to. Raises NotWritable."""
    root = os.path.realpath(order.job.out)
    for name in (*order.job.formats, *([YOLO] if YOLO in order.formats else [])):
        folder = os.path.join(root, name)
        if inside := min(
            (path for path in inputs if path.startswith(f"{folder}{os.sep}")), default=""
        ):
            raise NotWritable(
                f"{inside} is an input, and lies where {name} is written; choose another output "
                "folder"
            )


def _job(out: Path, part: str, options: ExportOptions, running: Running) -> Job:
    formats = tuple(dict.fromkeys(options.formats))
    for name in formats:
        registry.choose({**PER_IMAGE, **dict.fromkeys(PER_RUN)}, name, "format")
    if not formats:
        raise BadPrompt("no format was given; choose some of " + ", ".join({*PER_IMAGE, *PER_RUN}))
    each = tuple(name for name in formats if name in PER_IMAGE and name not in PER_RUN)
    scratch = out / state.STATE / f"parts-{part}"
    return Job(out, scratch, options.models, each, options.answers, running.threads)


def _stamps(job: Job, listed: Sequence[Item]) -> dict[str, str]:
    """Return the SHA-256 of each concept that the texts name, by name.

    Raises what ``concepts.find`` does, and Unsupported for that of another encoder: now, rather
    than for every image.
    """
    texts = dict.fromkeys(text for item in listed for text in item.ask.texts)
    named = concepts.names_in((*texts, *job.answers.negatives))
    if named:
        encoder, fingerprint = job.models.names[1], job.models.encoder_fingerprint()
        for name in named:
            concepts.find(name).check(encoder, fingerprint)
    return {name: concepts.stamp(name) for name in named}


def _settings(job: Job) -> dict[str, Any]:
    """Return everything that changes the results, other than images and their prompts."""
    settings = dataclasses.asdict(job.answers) | {
        "formats": job.formats,
        "policy": job.models.policy,
        "segclip": __version__,
    }
    return settings | {"weights": job.models.fingerprint()}
