"""Run a job's pictures in this process, in a pool of processes, or on a Ray cluster; outcomes come as they are done."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import Any, TypeAlias

from ..errors import Unsupported
from .journal import Outcome
from .plan import Item
from .work import Job, Worker, read, stamp_of

Task: TypeAlias = "tuple[Item, str]"  # a picture and the digest of what it is asked
Outcomes: TypeAlias = Generator[Outcome, None, None]
Runner: TypeAlias = Callable[[Job, Iterable[Task]], Outcomes]

_AHEAD = 2  # pictures read before, and written after, the one the models look at
_QUEUED = 3  # tasks waiting for each worker


def here(job: Job, tasks: Iterable[Task]) -> Outcomes:
    """Run in this process: the next picture is read and the last written while the models are busy."""
    worker = job.start()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming = (reader.submit(read, item, asked, job.answers.max_pixels) for item, asked in tasks)
        reading = deque(islice(coming, _AHEAD * job.together))
        writing: deque[Future[Outcome]] = deque()
        while reading:
            given = [reading.popleft().result() for _ in range(min(job.together, len(reading)))]
            reading.extend(islice(coming, len(given)))
            writing.extend(writer.submit(worker.finish, *answer) for answer in worker.answer_all(given))
            while len(writing) > _AHEAD * job.together:
                yield writing.popleft().result()
        for future in writing:
            yield future.result()


def pool(workers: int, job: Job, tasks: Iterable[Task]) -> Outcomes:
    """Run in spawned processes, each with its own models, the machine's threads shared out among them.

    A process that dies, for want of memory for example, takes down the pool; the pictures it may have died of are then
    done one by one, and the one that kills again is a failure.
    """
    job = replace(job, threads=job.threads or max(1, (os.cpu_count() or 1) // workers))
    waiting = iter(tasks)
    while True:
        lost: list[Task] = []
        yield from _until_it_breaks(workers, job, waiting, lost)
        if not lost:
            return
        for task in lost:
            again: list[Task] = []
            yield from _until_it_breaks(1, job, iter([task]), again)
            if again:
                yield _died(*task)


def _until_it_breaks(workers: int, job: Job, tasks: Iterator[Task], lost: list[Task]) -> Outcomes:
    """Run until the tasks end or a process dies; ``lost`` then gets the tasks that were under way."""
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=(job,))
    pending: dict[Future[list[Outcome]], list[Task]] = {}
    try:
        while True:
            while len(pending) < _QUEUED * workers and (group := list(islice(tasks, job.together))):
                pending[executor.submit(_do, group)] = group
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                outcomes = future.result()
                del pending[future]
                yield from outcomes
    except BrokenProcessPool:
        lost.extend(chain.from_iterable(pending.values()))
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_worker: Worker | Exception | None = None  # of this process, where it is one of a pool's


def _start(job: Job) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    try:
        _worker = job.start()
    except Exception as error:  # an initialiser that raises says nothing: the first task does instead
        _worker = error


def _do(group: list[Task]) -> list[Outcome]:
    if not isinstance(_worker, Worker):
        raise _worker or RuntimeError("this process was not started as a worker")
    return _worker.all(group)


def _died(item: Item, asked: str) -> Outcome:
    reason = f"{item.path}: the process died while doing it, maybe for want of memory"
    return Outcome(item.name, "", stamp_of(item.path), asked, "failed", reason=reason)


def ray(address: str | None, workers: int, gpus: float, job: Job, tasks: Iterable[Task]) -> Outcomes:
    """Run on a Ray cluster by Ray Data: models are actors, what an actor's death interrupts is done again by another.

    address: of a running cluster; None starts one on this machine. gpus: share of a GPU for each worker. All machines
    need the same file system: pictures are read, and results written, where they lie.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray.data
    except ImportError:
        raise Unsupported("--runner ray needs Ray: pip install 'segclip[cluster]'") from None
    job = replace(job, threads=job.threads or 1)
    if not ray.is_initialized():
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    waiting = iter(tasks)
    rows = [{"tasks": pickle.dumps(group)} for group in iter(lambda: list(islice(waiting, job.together)), [])]
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
        outcomes: list[Outcome] = pickle.loads(row["outcomes"])  # what _Actor put there a moment ago
        yield from outcomes


class _Actor:
    def __init__(self, job: Job) -> None:
        self.worker = job.start()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"outcomes": pickle.dumps(self.worker.all(pickle.loads(row["tasks"])))}


def choose(runner: str, workers: int, address: str | None, gpus: float) -> Runner:
    """Give the runner by its name, "local" or "ray"."""
    if runner == "ray":
        return partial(ray, address, workers, gpus)
    return here if workers == 1 else partial(pool, workers)
