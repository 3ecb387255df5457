"""What goes on beside the pages: batches, indexing, training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import segclip


class Cancelled(Exception):
    """Raised by the progress callback to stop a run; finished work is kept."""


class BackgroundJob(Protocol):
    """What runs in a thread of its own, and how it ended."""

    state: str
    message: str


@contextmanager
def outcome_of(job: BackgroundJob) -> Iterator[None]:
    """Record how the work inside ended, unless it did so itself: no error leaves a job running."""
    try:
        yield
    except Cancelled:
        job.state = "cancelled"
    except (segclip.SegclipError, OSError) as problem:  # such as a full disk
        job.state, job.message = "failed", str(problem)
    finally:
        if job.state == "running":  # an unexpected error
            job.state, job.message = "failed", "Internal error; see the server's log."
