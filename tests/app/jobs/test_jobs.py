"""How a job ends: no error leaves it running."""

from __future__ import annotations

import errno

import pytest

import segclip
from app.jobs import BackgroundJob, Cancelled


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
    job = BackgroundJob(state="running")
    with job.outcome():
        fail(error)
    assert job.state == state
    assert message in job.message


def test_an_unexpected_error_is_for_the_log() -> None:
    job = BackgroundJob(state="running")
    with pytest.raises(RuntimeError), job.outcome():
        raise RuntimeError("a secret")
    assert (job.state, job.message) == ("failed", "Internal error; see the server's log.")


def test_a_job_states_its_own_success() -> None:
    job = BackgroundJob(state="running")
    with job.outcome():
        job.state, job.message = "done", "3 images"
    assert (job.state, job.message) == ("done", "3 images")
