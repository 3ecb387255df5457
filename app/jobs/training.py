"""Train in a background process, one run at a time; progress is read from the run's folder."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import segclip

_ROOT = Path(__file__).resolve().parents[2]
_NICE = 10  # interactive use has priority
_TAIL = 6000  # bytes read from the end of the log
_NAME = re.compile(r"\w[\w.-]{0,63}")

Row = dict[str, float]


@dataclass(frozen=True)
class TrainingRequest:
    """Data and options of a run. data: a path, or "" for drawn shapes.

    options: as train.contrastive takes them.
    """

    data: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class TrainingRun:
    """The state of a run, read from its folder.

    state: "running", "stopped", "done" or "failed". rows: metrics per epoch. words: its progress,
    or why it failed. share: fraction of the work done. log: last lines of the log.
    """

    name: str
    state: str
    rows: tuple[Row, ...]
    words: str
    share: float
    log: str
    folder: Path

    @property
    def best(self) -> int:
        """Return the epoch of the best checkpoint; 0 when there is none yet."""
        return int(_json(self.folder / "metrics.json").get("epoch", 0))

    @property
    def sample_sheet(self) -> Path | None:
        """Return the newest sheet of images retrieved by held-out texts."""
        return max(self.folder.glob("samples/*.jpg"), default=None)


@dataclass(eq=False)
class Training:
    """The runs of a folder, given by its absolute path, and the one being trained.

    clone: folder that holds the recipes, in train/.
    """

    folder: Path
    clone: Path = _ROOT
    _name: str = ""
    _code: int | None = None  # how the last run's process ended
    _stopping: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _thread: Thread | None = None
    _lock: Lock = field(default_factory=Lock)

    @property
    def possible(self) -> bool:
        """Return whether the training recipes exist: an installed wheel has none."""
        return (self.clone / "train" / "contrastive.py").is_file()

    @property
    def busy(self) -> str:
        """Return the name of the run being trained; "" for none."""
        return self._name if self._thread is not None and self._thread.is_alive() else ""

    def names(self) -> list[str]:
        """Return the names of the runs, newest first."""
        runs = {
            place.parent
            for file in ("log.txt", "metrics.jsonl")
            for place in self.folder.glob(f"*/{file}")
        }
        return [run.name for run in sorted(runs, key=lambda run: run.stat().st_mtime, reverse=True)]

    def free_name(self) -> str:
        """Return an unused name."""
        number = 1
        while (self.folder / f"run-{number}").exists():
            number += 1
        return f"run-{number}"

    def start(self, name: str, recipe: TrainingRequest) -> None:
        """Start a new run. Raises BadPrompt for a bad name, and while another run is trained."""
        if not _NAME.fullmatch(name):
            raise segclip.BadPrompt(
                f"a run is named by at most 64 letters, digits, '-', '_' and '.'; got {name!r}"
            )
        folder = self.folder / name
        if (folder / "last.pt").exists():
            raise segclip.BadPrompt(
                f"there is a run {name} already: resume it, or choose another name"
            )
        shapes = self.folder / "shapes"
        drawn = (
            []
            if recipe.data or (shapes / "captions.jsonl").is_file()
            else [["train.shapes", _absolute(str(shapes))]]
        )
        trained = [
            "train.contrastive",
            _absolute(recipe.data or str(shapes)),
            *recipe.options,
            "--out",
            _absolute(str(folder)),
        ]
        self._begin(name, [*drawn, trained])

    def resume(self, name: str) -> None:
        """Resume a stopped run with its options. Raises BadPrompt when it has no checkpoint."""
        command = _json(self.folder / name / "environment.json").get("command")
        if (
            not _NAME.fullmatch(name)
            or not isinstance(command, list)
            or not (self.folder / name / "last.pt").exists()
        ):
            raise segclip.BadPrompt(
                f"the run {name} stopped before its first checkpoint: start it again"
            )
        options = [str(part) for part in command[1:] if part != "--resume"]
        self._begin(name, [["train.contrastive", *options, "--resume"]])

    def stop(self) -> None:
        """Terminate the run's process; its checkpoints stay valid at any time."""
        self._stopping = True
        with self._lock:
            if self._process is not None:
                self._process.terminate()

    def read_run(self, name: str) -> TrainingRun:
        """Read the state of a run."""
        folder = self.folder / name
        rows, log = _rows(folder / "metrics.jsonl"), _tail(folder / "log.txt")
        lines = log.split("\n")
        words = lines[-1].strip()
        known = name == self._name and not self.busy
        if self.busy == name:
            state = "running"
        elif words.lower().startswith("error: ") or (known and self._code and not self._stopping):
            state, words = "failed", self._reason(words) if known else words
        else:
            state = "done" if _over(folder, rows) or (known and self._code == 0) else "stopped"
        epochs = int(_json(folder / "recipe.json").get("epochs") or 1)
        share, progress = len(rows) / epochs, _json(folder / "progress.json")
        further = progress.get("share")
        if state == "running" and isinstance(further, float) and further >= share:
            share, words = further, str(progress.get("line", ""))
        elif state != "failed":
            words = (
                f"epoch {len(rows)} of {epochs}"
                if rows
                else "starting"
                if state == "running"
                else ""
            )
        return TrainingRun(
            name,
            state,
            rows,
            words,
            1.0 if state == "done" else min(1.0, share),
            "\n".join(lines[-30:]),
            folder,
        )

    def check(self, data: str) -> str:
        """Return a summary of a data set and its problems."""
        command = [sys.executable, "-m", "train.engine.data", _absolute(data), "--quick"]
        done = subprocess.run(
            command, cwd=self.clone, env=_environment(), capture_output=True, text=True, check=False
        )
        return (done.stdout + done.stderr).strip()

    def _reason(self, words: str) -> str:
        """Return why the last run failed."""
        if self._code is not None and self._code < 0:
            return f"The process was ended by signal {-self._code}: was there too little memory?"
        return (
            words.partition("rror: ")[2] or words or f"The process exited with code {self._code}."
        )

    def keep(self, run: TrainingRun) -> Path:
        """Copy the run's best weights, which a resumed run would replace; return their folder.

        Raises BadPrompt when there are none yet.
        """
        if not run.best:
            raise segclip.BadPrompt(
                f"the run {run.name} has no checkpoint yet: wait for its first epoch"
            )
        kept = run.folder / "used" / f"epoch-{run.best:03d}"
        if not (kept / "config.json").exists():
            kept.mkdir(parents=True, exist_ok=True)
            for name in sorted(
                (file.name for file in (run.folder / "last").iterdir()), reverse=True
            ):
                _link(run.folder / name, kept / name)  # config.json comes last
        return kept

    def _begin(self, name: str, commands: Sequence[Sequence[str]]) -> None:
        with self._lock:
            if self.busy:
                raise segclip.BadPrompt(f"{self.busy} is being trained: stop it first")
            try:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise segclip.BadPrompt(
                    f"{self.folder / name} cannot be written: {error.strerror}"
                ) from None
            self._name, self._code, self._stopping = name, None, False
            self._thread = Thread(
                target=self._run, args=(self.folder / name / "log.txt", commands), daemon=True
            )
            self._thread.start()
        atexit.register(self.stop)  # otherwise it would go on unnoticed

    def _run(self, log: Path, commands: Sequence[Sequence[str]]) -> None:
        with log.open("wb") as file:
            for command in commands:
                with self._lock:
                    if self._stopping:
                        return
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", *command],
                        env=_environment(),
                        # as in a terminal, so that relative paths mean the same
                        cwd=self.clone,
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                if hasattr(os, "setpriority"):
                    os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICE)
                self._code = self._process.wait()
                if self._code:
                    return


def _environment() -> dict[str, str]:
    """Return an environment that makes a recipe end with this process."""
    return {**os.environ, "SEGCLIP_PARENT": str(os.getpid())}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, which recipes replace but never modify; copy it where that fails."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _over(folder: Path, rows: Sequence[Row]) -> bool:
    return bool(rows) and rows[-1]["epoch"] >= (_json(folder / "recipe.json").get("epochs") or 0)


def _rows(file: Path) -> tuple[Row, ...]:
    """Read metrics, without an incomplete last line."""
    rows = []
    for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return tuple(rows)


def _tail(file: Path) -> str:
    if not file.is_file():
        return ""
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - _TAIL))
        return log.read().decode("utf-8", "replace").replace("\r", "\n").strip()


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError):
        return {}
