"""Run a job's pictures in this process, in a pool of processes, or on a Ray cluster; outcomes come
as they are done.
"""

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
from .journal import Outcome
from .plan import Item
from .work import Job, read, stamp_of

Task: TypeAlias = "tuple[Item, str]"  # a picture and the digest of what it is asked
Outcomes: TypeAlias = Generator[Outcome, None, None]
Runner: TypeAlias = Callable[[Job, Iterable[Task]], Outcomes]

_AHEAD = 2  # pictures read before, and written after, the one the models look at
_QUEUED = 2  # groups of tasks a process has: the one it does, and the next
_SPAWN = multiprocessing.get_context("spawn")


def here(job: Job, tasks: Iterable[Task]) -> Outcomes:
    """Run in this process: the next picture is read and the last written while the models are
    busy.
    """
    worker = job.start()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming = (reader.submit(read, item, asked, job.answers.max_pixels) for item, asked in tasks)
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
    """Run in spawned processes, each with its own models, the machine's threads shared out among
    them.

    What a process was at when it died, for want of memory for example, is done again at the end,
    one by one in a process that has the machine to itself; the picture that kills again is a
    failure. Raises Unsupported when a process dies before it has its models.
    """
    job = replace(job, threads=job.threads or max(1, (os.cpu_count() or 1) // workers))
    waiting = iter(tasks)
    lost: list[Task] = []
    yield from _shared(workers, job, iter(lambda: list(islice(waiting, job.together)), []), lost)
    for task in lost:
        again: list[Task] = []
        yield from _shared(1, job, iter([[task]]), again)
        if again:
            yield _died(*task)


def _shared(workers: int, job: Job, groups: Iterator[list[Task]], lost: list[Task]) -> Outcomes:
    """Share groups of tasks out among processes until there are no more; ``lost`` gets those that a
    process died of.
    """
    hands: list[_Hand] = []
    try:
        while True:
            while len(hands) < workers and (group := next(groups, None)):
                hands.append(_Hand(job, group))
            for hand in hands:
                while len(hand.given) < _QUEUED and (group := next(groups, None)):
                    hand.give(group)
            busy = {hand.channel: hand for hand in hands if hand.given}
            if not busy:
                return
            for hand in [
                busy[channel] for channel in wait(list(busy)) if isinstance(channel, Connection)
            ]:
                if hand.receive():
                    yield from hand.outcomes
                else:
                    hands.remove(hand)
                    lost.extend(hand.given.popleft())
                    groups = chain(hand.given, groups)
    finally:
        for hand in hands:
            hand.end()


class _Hand:
    """Hold a process of a pool, and the groups of tasks it was given, of which it does the
    first.
    """

    def __init__(self, job: Job, group: list[Task]) -> None:
        self.channel, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_work, args=(theirs, job, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        self.given: deque[list[Task]] = deque()
        self.outcomes: list[Outcome] = []
        self._ready = False
        self.give(group)

    def give(self, group: list[Task]) -> None:
        """Hand tasks over; a process that is gone is found out when its answer is taken."""
        self.given.append(group)
        with suppress(OSError):
            self.channel.send(group)

    def receive(self) -> bool:
        """Take what the process has done as ``outcomes``; False where it died. Raises what it
        raised itself.
        """
        try:
            answer = self.channel.recv()
        except (EOFError, OSError):
            self.end()
            if self._ready:
                return False
            raise Unsupported(
                f"a worker ended (exit code {self.process.exitcode}) while it loaded the models, "
                "maybe for want of "
                "memory; fewer --workers take less"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        if self._ready:
            self.given.popleft()
        self._ready, self.outcomes = True, answer
        return True

    def end(self) -> None:
        """End the process, whatever it is at: what it wrote is whole."""
        self.process.kill()
        self.process.join()
        self.channel.close()


def _work(channel: Connection, job: Job, parent: int) -> None:
    """Do what comes by the channel, as a process of a pool; what goes wrong here is raised in the
    parent.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent's business, which ends this process
    lifetime.end_with_parent(parent)
    groups: SimpleQueue[list[Task]] = SimpleQueue()
    Thread(target=_receive, args=(channel, groups), daemon=True).start()
    try:
        worker = job.start()
        channel.send([])
        while True:
            channel.send(worker.all(groups.get()))
    except Exception as error:
        channel.send(_as_sent(error))


def _as_sent(error: Exception) -> Exception:
    """Return an error as it can be sent to another process."""
    try:
        return (
            error
            if isinstance(pickle.loads(pickle.dumps(error)), Exception)
            else RuntimeError(repr(error))
        )
    except Exception:  # an error may do anything when it is pickled
        return RuntimeError(repr(error))


def _receive(channel: Connection, groups: SimpleQueue[list[Task]]) -> None:
    """Take tasks in at once, so that the parent never waits; where it is gone, so is this
    process.
    """
    while True:
        try:
            groups.put(channel.recv())
        except (EOFError, OSError):
            os._exit(1)


def _died(item: Item, asked: str) -> Outcome:
    reason = f"{item.path}: the process died while doing it, maybe for want of memory"
    return Outcome(item.name, "", stamp_of(item.path), asked, "failed", reason=reason)


def ray(
    address: str | None, workers: int, gpus: float, job: Job, tasks: Iterable[Task]
) -> Outcomes:
    """Run on a Ray cluster by Ray Data: models are actors, what an actor's death interrupts is done
    again by another.

    address: of a running cluster; None starts one on this machine. gpus: share of a GPU for each
    worker. All machines need the same file system: pictures are read, and results written, where
    they lie.
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
    waiting = iter(tasks)
    rows = [
        {"tasks": pickle.dumps(group)}
        for group in iter(lambda: list(islice(waiting, job.together)), [])
    ]
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
        outcomes: list[Outcome] = pickle.loads(
            row["outcomes"]
        )  # what _Actor put there a moment ago
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
