"""Run a job in this process, a process pool or a Ray cluster; yield outcomes as they come."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

from .. import lifetime
from ..errors import Unsupported
from .files import stamp_of
from .journal import Outcome
from .plan import Item
from .work import Job, read

Task: TypeAlias = "tuple[Item, str]"  # an image and the digest of its question
Outcomes: TypeAlias = Generator[Outcome, None, None]
Runner: TypeAlias = Callable[[Job, Iterable[Task]], Outcomes]

_AHEAD = 2  # images read before, and written after, the one in the models
_QUEUED = 2  # groups of tasks per process: the current one and the next
_SPAWN = multiprocessing.get_context("spawn")


def here(job: Job, tasks: Iterable[Task]) -> Outcomes:
    """Run in this process, reading the next image and writing the last while the models run."""
    worker = job.start()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming = (
            reader.submit(read, item, digest, job.answers.max_pixels) for item, digest in tasks
        )
        reading = deque(islice(coming, _AHEAD * job.together))
        writing: deque[Future[Outcome]] = deque()
        while reading:
            given = [reading.popleft().result() for _ in range(min(job.together, len(reading)))]
            reading.extend(islice(coming, len(given)))
            writing.extend(
                writer.submit(worker.finish, *answer) for answer in worker.answer_all(given)
            )
            while len(writing) > _AHEAD * job.together:
                yield writing.popleft().result()
        for future in writing:
            yield future.result()


def pool(workers: int, job: Job, tasks: Iterable[Task]) -> Outcomes:
    """Run in spawned processes, each with its own models and its share of the CPU threads.

    Tasks in progress when a process died, for example out of memory, are retried at the end, one
    by one in a process of their own; an image that kills its process again is a failure. Raises
    Unsupported if a process dies before its models are loaded.
    """
    job = replace(job, threads=job.threads or max(1, (os.cpu_count() or 1) // workers))
    lost: list[Task] = []
    yield from _distribute(workers, job, _groups(tasks, job.together), lost)
    for task in lost:
        again: list[Task] = []
        yield from _distribute(1, job, iter([[task]]), again)
        if again:
            yield _died(*task)


def _groups(tasks: Iterable[Task], size: int) -> Iterator[list[Task]]:
    waiting = iter(tasks)
    while group := list(islice(waiting, size)):
        yield group


def _distribute(workers: int, job: Job, groups: Iterator[list[Task]], lost: list[Task]) -> Outcomes:
    """Distribute groups of tasks among processes; collect in ``lost`` those a process died of."""
    processes: list[_WorkerProcess] = []
    try:
        while True:
            while len(processes) < workers and (group := next(groups, None)):
                processes.append(_WorkerProcess(job, group))
            for process in processes:
                while len(process.pending) < _QUEUED and (group := next(groups, None)):
                    process.send(group)
            busy = {process.channel: process for process in processes if process.pending}
            if not busy:
                return
            for process in [
                busy[channel] for channel in wait(list(busy)) if isinstance(channel, Connection)
            ]:
                if process.receive():
                    yield from process.outcomes
                else:
                    processes.remove(process)
                    lost.extend(process.pending.popleft())
                    groups = chain(process.pending, groups)
    finally:
        for process in processes:
            process.end()


class _WorkerProcess:
    """A process of a pool and its pending groups of tasks; it works on the first."""

    def __init__(self, job: Job, group: list[Task]) -> None:
        self.channel, remote = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(remote, job, os.getpid()), daemon=True)
        self.process.start()
        remote.close()
        self.pending: deque[list[Task]] = deque()
        self.outcomes: list[Outcome] = []
        self._ready = False
        self.send(group)

    def send(self, group: list[Task]) -> None:
        """Send tasks; ``receive`` detects a dead process."""
        self.pending.append(group)
        with suppress(OSError):
            self.channel.send(group)

    def receive(self) -> bool:
        """Receive ``outcomes``; return False if the process died. Re-raises the process's error."""
        try:
            answer = self.channel.recv()
        except (EOFError, OSError):
            self.end()
            if self._ready:
                return False
            raise Unsupported(
                f"a worker ended (exit code {self.process.exitcode}) while it loaded the models, "
                "maybe for want of memory; fewer --workers take less"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        if self._ready:
            self.pending.popleft()
        self._ready, self.outcomes = True, answer
        return True

    def end(self) -> None:
        """Kill the process, busy or not; the files of outcomes it sent are complete."""
        self.process.kill()
        self.process.join()
        self.channel.close()


def _serve(channel: Connection, job: Job, parent: int) -> None:
    """Process tasks from the channel, in a process of a pool; the parent raises its errors."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent handles them, and ends this process
    lifetime.end_with_parent(parent)
    groups: SimpleQueue[list[Task]] = SimpleQueue()
    Thread(target=_receive, args=(channel, groups), daemon=True).start()
    try:
        worker = job.start()
        channel.send([])
        while True:
            channel.send(worker.all(groups.get()))
    except Exception as error:
        channel.send(_picklable(error))


def _picklable(error: Exception) -> Exception:
    """Return an error, or a substitute that can be pickled."""
    try:
        return (
            error
            if isinstance(pickle.loads(pickle.dumps(error)), Exception)
            else RuntimeError(repr(error))
        )
    except Exception:  # pickling an error may raise anything
        return RuntimeError(repr(error))


def _receive(channel: Connection, groups: SimpleQueue[list[Task]]) -> None:
    """Receive tasks at once, so that the parent never blocks; exit with the parent."""
    while True:
        try:
            groups.put(channel.recv())
        except (EOFError, OSError):
            os._exit(1)


def _died(item: Item, digest: str) -> Outcome:
    reason = f"{item.path}: the process died while doing it, maybe for want of memory"
    return Outcome(item.name, "", stamp_of(item.path), digest, "failed", reason=reason)


def ray(
    address: str | None, workers: int, gpus: float, job: Job, tasks: Iterable[Task]
) -> Outcomes:
    """Run on a Ray cluster by Ray Data: models are actors, and tasks of a dead actor are retried.

    address: of a running cluster; None starts one on this machine. gpus: share of a GPU for each
    worker. All machines need the same file system, to read images and write results in place.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray.data
    except ImportError:
        raise Unsupported("--runner ray needs Ray: pip install 'segclip[cluster]'") from None
    job = replace(job, threads=job.threads or 1)
    if not ray.is_initialized():
        ray.init(
            address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"tasks": pickle.dumps(group)} for group in _groups(tasks, job.together)]
    if not rows:
        return
    done = ray.data.from_items(rows, override_num_blocks=min(len(rows), 16 * workers)).map(
        _Actor,
        fn_constructor_args=(job,),
        concurrency=workers,
        num_cpus=job.threads,
        num_gpus=gpus or None,
    )
    for row in done.iter_rows():
        outcomes: list[Outcome] = pickle.loads(row["outcomes"])  # from _Actor, so trusted
        yield from outcomes


class _Actor:
    def __init__(self, job: Job) -> None:
        self.worker = job.start()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"outcomes": pickle.dumps(self.worker.all(pickle.loads(row["tasks"])))}


def choose(runner: str, workers: int, address: str | None, gpus: float) -> Runner:
    """Return the runner by its name, "local" or "ray"."""
    if runner == "ray":
        return partial(ray, address, workers, gpus)
    return here if workers == 1 else partial(pool, workers)
