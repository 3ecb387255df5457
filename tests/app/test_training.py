"""Training in the background, with a fake recipe that writes the files of the real ones."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import segclip
from app.jobs import training
from app.jobs.training import Training, TrainingRequest
from app.state import Studio

_FAKE = """
import json, sys, time
from pathlib import Path
if sys.argv[1].endswith("broken"):
    sys.exit("error: it holds no images with captions")
folder = Path(sys.argv[sys.argv.index("--out") + 1])
epochs = int(sys.argv[sys.argv.index("--epochs") + 1])
done = json.loads((folder / "last.pt").read_text()) if "--resume" in sys.argv else 0
(folder / "last").mkdir(exist_ok=True)
(folder / "recipe.json").write_text(json.dumps({"epochs": epochs}))
(folder / "environment.json").write_text(json.dumps({"command": sys.argv}))
for epoch in range(done + 1, epochs + 1):
    share = 100 * epoch // epochs
    print(f"epoch {epoch}/{epochs}  loss 2.000  9 images/s  {share}%, 0:01 left", flush=True)
    for place in (folder / "last", folder):
        for file in ("model.safetensors", "config.json"):
            part = place / (file + ".part")
            part.write_text(f"{file} {epoch}")
            part.replace(place / file)
    found = 0.1 * epoch
    row = {"epoch": epoch, "loss": 2.0 / epoch, "R@1": found, "image to text R@1": found}
    (folder / "metrics.json").write_text(json.dumps(row))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\\n")
    (folder / "last.pt").write_text(str(epoch))
    time.sleep(0.02)
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    """Return an empty folder of runs, with a fake recipe."""
    recipes = tmp_path / "clone" / "train"
    recipes.mkdir(parents=True)
    (recipes / "__init__.py").touch()
    (recipes / "contrastive.py").write_text(_FAKE)
    shapes = (
        "import pathlib, sys\nplace = pathlib.Path(sys.argv[1])\nplace.mkdir()\n(place / "
        "'captions.jsonl').touch()\n"
    )
    (recipes / "shapes.py").write_text(shapes)
    (recipes / "engine").mkdir()
    (recipes / "engine" / "__init__.py").touch()
    (recipes / "engine" / "data.py").write_text(
        "import sys\nprint('images 3')\nprint('! broken', file=sys.stderr)\nsys.exit(1)\n"
    )
    monkeypatch.setattr(training, "_ROOT", recipes.parent)
    return Training(tmp_path / "runs")


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


@pytest.fixture
def page(shared_studio: Studio, runs: Training) -> AppTest:
    """Open the page alone, with a folder of runs."""
    shared_studio.training = runs
    return AppTest.from_string("from app.views import train\ntrain.show()\n", default_timeout=30)


def button(page: AppTest, label: str) -> object:
    return next(one for one in page.button if one.label == label)


def test_the_page_starts_a_run_watches_it_and_uses_it(
    page: AppTest, shared_studio: Studio, runs: Training
) -> None:
    page.run()
    assert not page.exception
    page.radio[0].set_value("My own").run()
    assert button(page, "Start").disabled  # type: ignore[attr-defined]
    page.text_input(key="train-path").set_value("images").run()
    page.number_input(key="train-epochs").set_value(2).run()
    page.text_input(key="train-more").set_value("--loss 'sig").run()
    button(page, "Start").click().run()  # type: ignore[attr-defined]
    assert not page.exception
    assert "quotation" in page.error[0].value
    page.text_input(key="train-more").set_value("").run()
    button(page, "Start").click().run()  # type: ignore[attr-defined]
    assert not page.exception
    wait(runs)
    page.run()
    assert not page.exception
    assert [one.value for one in page.metric] == ["1.000", "20.0%"]
    button(page, "Use best checkpoint").click().run()  # type: ignore[attr-defined]
    work = shared_studio.find(page.session_state["work"])
    assert work is not None
    assert work.words == f"mini + file:{runs.folder / 'run-1' / 'used' / 'epoch-002'}"


def test_training_needs_the_local_machine_and_the_recipes(
    page: AppTest, shared_studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    object.__setattr__(shared_studio.settings, "alone", False)
    page.run()
    assert "only on the machine" in page.info[0].value
    assert not page.button
    object.__setattr__(shared_studio.settings, "alone", True)
    monkeypatch.setattr(training, "_ROOT", Path("/nowhere"))
    page.run()
    assert "from a clone" in page.info[0].value
    assert not page.button
