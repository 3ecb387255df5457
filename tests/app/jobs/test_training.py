"""Training in the background, with a fake recipe that writes the files of the real ones."""

from __future__ import annotations

import time

import pytest

import segclip
from app.jobs.training import Training, TrainingRequest


def recipe(epochs: int, data: str = "images") -> TrainingRequest:
    return TrainingRequest(data, ("--epochs", str(epochs)))


def wait(runs: Training) -> None:
    for _ in range(600):
        if not runs.busy:
            return
        time.sleep(0.05)
    raise AssertionError(f"{runs.busy} is still being trained")


def test_a_run_is_read_to_its_end_and_its_best_weights_are_kept(runs: Training) -> None:
    assert runs.names() == []
    runs.start(runs.free_name(), recipe(3))
    assert runs.busy == "run-1"
    assert runs.read_run("run-1").state == "running"
    wait(runs)
    run = runs.read_run("run-1")
    assert (run.state, run.share, run.best, run.words) == ("done", 1.0, 3, "epoch 3 of 3")
    assert [row["epoch"] for row in run.rows] == [1, 2, 3]
    assert runs.names() == ["run-1"]
    assert runs.free_name() == "run-2"
    kept = runs.keep(run)
    assert (kept / "config.json").read_text() == "config.json 3"
    assert {file.name for file in kept.iterdir()} == {"model.safetensors", "config.json"}


def test_weights_in_use_do_not_change_while_a_run_continues(runs: Training) -> None:
    runs.start("mine", recipe(3))
    wait(runs)
    kept = runs.keep(runs.read_run("mine"))
    (runs.folder / "mine" / "last.pt").write_text("1")
    runs.resume("mine")
    wait(runs)
    assert (kept / "model.safetensors").read_text() == "model.safetensors 3"


def test_a_stopped_run_resumes_with_its_options(runs: Training) -> None:
    runs.start("mine", recipe(1000))
    while len(runs.read_run("mine").rows) < 2:
        assert runs.busy
        time.sleep(0.01)
    with pytest.raises(segclip.BadPrompt, match="stop it first"):
        runs.start("other", recipe(1))
    running = runs.read_run("mine")
    assert running.words.endswith("0:01 left")
    assert running.share >= 0.002
    runs.stop()
    wait(runs)
    stopped = runs.read_run("mine")
    assert stopped.state == "stopped"
    assert 0 < stopped.share < 1
    assert Training(runs.folder).read_run("mine").state == "stopped"  # as read by another server
    (runs.folder / "mine" / "environment.json").write_text(
        (runs.folder / "mine" / "environment.json")
        .read_text()
        .replace("1000", str(len(stopped.rows) + 2))
    )
    runs.resume("mine")
    wait(runs)
    finished = runs.read_run("mine")
    assert finished.state == "done"
    assert [row["epoch"] for row in finished.rows] == list(range(1, len(stopped.rows) + 3))


def test_a_failed_run_reports_why_and_may_be_started_again(runs: Training) -> None:
    runs.start("mine", recipe(2, "broken"))
    wait(runs)
    failed = runs.read_run("mine")
    assert (failed.state, failed.words) == ("failed", "it holds no images with captions")
    with pytest.raises(segclip.BadPrompt, match="start it again"):
        runs.resume("mine")
    with pytest.raises(segclip.BadPrompt, match="no checkpoint yet"):
        runs.keep(failed)
    runs.start("mine", recipe(2))
    wait(runs)
    assert runs.read_run("mine").state == "done"
    with pytest.raises(segclip.BadPrompt, match="a run mine already"):
        runs.start("mine", recipe(2))


@pytest.mark.parametrize("name", ["", "..", "../out", "a/b", ".hidden", "--resume", "a" * 80])
def test_a_run_name_cannot_be_a_path(runs: Training, name: str) -> None:
    with pytest.raises(segclip.BadPrompt, match="a run is named"):
        runs.start(name, recipe(1))
    with pytest.raises(segclip.BadPrompt, match="checkpoint"):
        runs.resume(name)


def test_shapes_are_drawn_once_without_data(runs: Training) -> None:
    for name in ("one", "two"):
        runs.start(name, recipe(1, ""))
        wait(runs)
        assert runs.read_run(name).state == "done"
    assert runs.names() == ["two", "one"]
    assert "images 3\n! broken" in runs.check("images")
