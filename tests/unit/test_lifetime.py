"""Fault 17.6: an ended run leaves no process, and rerunning it gives identical output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import PIL.Image
import pytest

from segclip import lifetime
from segclip.batch.state import STATE
from segclip.search.build import INSIDE
from tests.fakes import paint

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="POSIX signals, and processes by /proc"
)
ROOT = Path(__file__).parents[2]
START_TIMEOUT = 400.0  # s until a run must have begun; test machines are busy
END_TIMEOUT = 5.0  # s until all processes must have ended, if each has a core
IMAGES = 24
PARENT = (  # runs its argument in a child process, and waits
    "import os, subprocess, sys, time; os.environ['SEGCLIP_PARENT'] = str(os.getpid()); "
    "subprocess.Popen([sys.executable, '-c', *sys.argv[1:]]); time.sleep(600)"
)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
# of training; with four processes a case takes two minutes
SHORT = ((signal.SIGTERM, 1), (signal.SIGKILL, 1))
# a normal test run covers each signal and each process count, a long one every pair
CASES = [
    pytest.param(
        number, count, marks=() if (number == signal.SIGTERM) == (count == 4) else pytest.mark.long
    )
    for number in SIGNALS
    for count in (1, 4)
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of different images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(IMAGES):
        PIL.Image.fromarray(paint(("red", (5, 5, 20 + 4 * number, 90))).pixels).save(
            folder / f"{number:02d}.png"
        )
    return folder


def wait_until(condition: Callable[[], bool], timeout: float = START_TIMEOUT) -> bool:
    """Wait until a condition holds or the timeout ends; return whether it holds."""
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def remaining(mark: str) -> list[str]:
    """Return the command lines of the processes with a mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def end(
    command: list[str], number: signal.Signals, begun: Callable[[], bool], *, plain: bool = True
) -> int:
    """Send a command a signal once it has begun, check that no process remains; return exit code.

    plain: also check that it ends without a traceback.
    """
    mark = f"SEGCLIP_TEST_RUN={uuid4().hex}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **dict([mark.split("=")])}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert wait_until(lambda: begun() or process.poll() is not None)
        assert process.poll() is None, f"it ended by itself: {process.communicate()[1]}"
        process.send_signal(number)
        timeout = END_TIMEOUT * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        assert wait_until(lambda: process.poll() is not None and not remaining(mark), timeout), (
            remaining(mark)
        )
        assert "Traceback" not in (process.stderr.read() if process.stderr and plain else "")
        return process.returncode
    finally:
        process.kill()
        process.wait()


def code_of(number: signal.Signals) -> int:
    return -number if number == signal.SIGKILL else 128 + number


def tree(folder: Path) -> dict[str, bytes]:
    """Return the contents of a folder's files by name, without the state of the run."""
    files = (path for path in folder.rglob("*") if path.is_file() and STATE not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def slow(verb: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "tests.slow_script", verb, *map(str, arguments)]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), CASES)
def test_an_ended_export_leaves_no_process_and_resumes(
    images: Path, tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    out = tmp_path / "out"
    options = ("--text", "red", "--format", "png,coco,yolo", "--workers", str(workers))
    command = slow("export", images, out, *options)
    code = end(command, number, lambda: len(list(out.glob("png/*"))) >= 3)
    assert code == code_of(number)
    assert not (out / "coco.json").exists()
    for folder in (out, tmp_path / "uninterrupted"):
        subprocess.run(
            [*command[:5], folder, *command[6:]], cwd=ROOT, check=True, capture_output=True
        )
    assert tree(out) == tree(tmp_path / "uninterrupted")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), CASES)
def test_an_ended_index_run_leaves_no_process_and_resumes(
    images: Path, tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    command = slow("index", images, "--regions", "--workers", str(workers))
    journal = images / INSIDE / "journal" / "index.sqlite-wal"
    code = end(command, number, lambda: journal.exists() and journal.stat().st_size > 60_000)
    assert code == code_of(number)
    index = images / INSIDE
    assert not (index / "current.json").exists()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    resumed = {path.name: path.read_bytes() for path in index.glob("snapshot-*/*")}
    subprocess.run([*command, "--rebuild"], cwd=ROOT, check=True, capture_output=True)
    assert resumed == {path.name: path.read_bytes() for path in index.glob("snapshot-*/*")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "processes"),
    [
        pytest.param(number, count, marks=() if (number, count) in SHORT else pytest.mark.long)
        for number in SIGNALS
        for count in (1, 4)
    ],
)
def test_ended_training_leaves_no_process_and_resumes(
    tmp_path: Path, number: signal.Signals, processes: int
) -> None:
    from tests.train.test_contrastive import TINY
    from train import shapes

    shapes.write(tmp_path / "scenes", 60, held_out=12)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    launcher = (
        ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    if launcher:
        launcher += ["--master-port", str(29400 + number)]
    recipe = [
        "-m",
        "train.contrastive",
        str(tmp_path / "scenes"),
        "--model",
        str(tmp_path / "tiny.json"),
    ]
    command = [sys.executable, *launcher, *recipe, "--batch", "8", "--epochs", "6", "--out"]
    run = tmp_path / "ended"
    code = end([*command, str(run)], number, (run / "last.pt").exists, plain=not launcher)
    assert launcher or code == code_of(number)
    for folder, options in ((run, ["--resume"]), (tmp_path / "uninterrupted", [])):
        subprocess.run([*command, str(folder), *options], cwd=ROOT, check=True, capture_output=True)
    resumed, uninterrupted = (
        (folder / "model.safetensors").read_bytes() for folder in (run, tmp_path / "uninterrupted")
    )
    assert resumed == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_training_ends_with_the_server_that_started_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Fault 17.6: the app's server is killed, or stopped, during training."""
    script = (
        "import sys, time; from pathlib import Path; "
        "from app.jobs.training import Training, TrainingRequest; from segclip import lifetime; "
        "lifetime.stop_on_signals(); training = Training(Path(sys.argv[1])); "
        "training.start('run', TrainingRequest('', ('--epochs', '9999')))\n"
        "try: time.sleep(600)\nexcept KeyboardInterrupt: sys.exit(143)"
    )
    runs = tmp_path / "runs"
    command = [sys.executable, "-c", script, str(runs)]
    # waits for the first training image that it draws
    code = end(command, number, lambda: any((runs / "shapes").rglob("*.png")))
    assert code == code_of(number)


def test_a_process_ends_with_its_parent(tmp_path: Path) -> None:
    """Fault 17.6: also one that holds the interpreter lock, or whose parent has already ended."""
    child = (
        "import os, sys; from pathlib import Path; from segclip import lifetime; "
        "lifetime.end_with_starter(); "
        "assert lifetime.PARENT not in os.environ; Path(sys.argv[1]).touch(); sum(range(10**12))"
    )
    began = tmp_path / "began"
    command = [sys.executable, "-c", PARENT, child, str(began)]
    for number in (signal.SIGKILL, signal.SIGTERM):
        assert end(command, number, began.exists) == -number
        began.unlink()
    late = subprocess.run(
        [sys.executable, "-c", child, str(began)],
        cwd=ROOT,
        env={**os.environ, lifetime.PARENT: "999999"},
        check=False,
    )
    assert late.returncode == 1
    assert not began.exists()


def test_a_process_whose_launcher_has_ended_ends_too(tmp_path: Path) -> None:
    """Fault 17.6: torchrun is killed while its processes are still loading."""
    child = (
        "import os, sys, time; from pathlib import Path; from segclip import lifetime\n"
        "Path(sys.argv[1]).touch()\nwhile os.getppid() != 1: time.sleep(0.01)\n"
        "lifetime.end_with_launcher('torch'); time.sleep(600)"
    )
    began = tmp_path / "began"
    assert (
        end([sys.executable, "-c", PARENT, child, str(began)], signal.SIGKILL, began.exists)
        == -signal.SIGKILL
    )


def test_without_a_death_signal_the_parent_is_polled(tmp_path: Path) -> None:
    child = (
        "import os, sys, time; from pathlib import Path; from segclip import lifetime; "
        "sys.platform = 'darwin'; "
        "lifetime.end_with_starter(); Path(sys.argv[1]).touch(); time.sleep(600)"
    )
    began = tmp_path / "began"
    assert (
        end([sys.executable, "-c", PARENT, child, str(began)], signal.SIGKILL, began.exists)
        == -signal.SIGKILL
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_unresponsive_command_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """Fault 17.6: hanging library calls and running threads also end in time."""
    began = tmp_path / "began"
    hang = "lock = ctypes.create_string_buffer(64); lib = ctypes.CDLL(None)\n"
    # no signal ends it
    hang += "def hang(): lib.pthread_mutex_lock(lock); lib.pthread_mutex_lock(lock)\n"
    hang += "lifetime.stop_on_signals()\n"
    begin = f"Path({str(began)!r}).touch()"
    wait = (
        f"threading.Thread(target=hang).start()\ntry: {begin}; time.sleep(600)\nexcept "
        "KeyboardInterrupt: pass\n"
    )
    for code in (f"{begin}; hang()", wait):
        script = (
            "import ctypes, threading, time; from pathlib import Path; from segclip import "
            f"lifetime\n{hang}{code}"
        )
        assert end([sys.executable, "-c", script], number, began.exists) == code_of(number)
        began.unlink()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    script = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from segclip "
        "import lifetime; "
    )
    script += "lifetime.stop_on_signals(); os.kill(os.getpid(), signal.SIGINT); print('here')"
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout == "here\n"
