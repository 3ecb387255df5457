"""How a job ends: no error leaves it running."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import pytest

import segclip
from app.jobs import Cancelled, outcome_of


@dataclass
class Running:
    """A job that has begun."""

    state: str = "running"
    message: str = ""


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (Cancelled(), "cancelled", ""),
        (OSError(errno.ENOSPC, "No space left on device"), "failed", "No space left"),
        (segclip.BadPrompt("no text was given"), "failed", "no text was given"),
    ],
)
def test_an_expected_error_is_the_outcome(error: Exception, state: str, message: str) -> None:
    job = Running()
    with outcome_of(job):
        fail(error)
    assert job.state == state
    assert message in job.message


def test_an_unexpected_error_is_for_the_log() -> None:
    job = Running()
    with pytest.raises(RuntimeError), outcome_of(job):
        raise RuntimeError("a secret")
    assert (job.state, job.message) == ("failed", "Internal error; see the server's log.")


def test_a_job_states_its_own_success() -> None:
    job = Running()
    with outcome_of(job):
        job.state, job.message = "done", "3 images"
    assert (job.state, job.message) == ("done", "3 images")
