"""Train beside the pages, in a process of its own: one run at a time, whose folder tells how far it
is.
"""

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
_NICE = 10  # those who click go first
_TAIL = 6000  # bytes of the log that are looked at
_NAME = re.compile(r"\w[\w.-]{0,63}")
_SHARE = re.compile(r"\b(\d+)%, ")

Row = dict[str, float]


@dataclass(frozen=True)
class Recipe:
    """Say what is trained on what. data: a path, or "" for drawn shapes. options: as
    train.contrastive takes them.
    """

    data: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """Hold what a run's folder tells.

    state: "running", "stopped", "done" or "failed". rows: the metrics, an epoch each. words: how
    far it is, or why it failed. share: of its work that is done. log: its last lines.
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
        """Give the epoch whose weights are served; 0 when there is none yet."""
        return int(_json(self.folder / "metrics.json").get("epoch", 0))

    @property
    def picture(self) -> Path | None:
        """Give the newest picture of what held-out texts find."""
        return max(self.folder.glob("samples/*.jpg"), default=None)


@dataclass(eq=False)
class Training:
    """Hold the runs of a folder, given by its whole path, and the one being trained."""

    folder: Path
    _name: str = ""
    _code: int | None = None  # how the last run's process ended
    _stopping: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _thread: Thread | None = None
    _lock: Lock = field(default_factory=Lock)

    @property
    def possible(self) -> bool:
        """Tell whether the recipes are here: they are no part of an installed wheel."""
        return (_ROOT / "train" / "contrastive.py").is_file()

    @property
    def busy(self) -> str:
        """Name the run being trained, if one is."""
        return self._name if self._thread is not None and self._thread.is_alive() else ""

    def names(self) -> list[str]:
        """Name the runs, the newest first."""
        runs = {
            place.parent
            for file in ("log.txt", "metrics.jsonl")
            for place in self.folder.glob(f"*/{file}")
        }
        return [run.name for run in sorted(runs, key=lambda run: run.stat().st_mtime, reverse=True)]

    def free_name(self) -> str:
        """Give a name no run has."""
        number = 1
        while (self.folder / f"run-{number}").exists():
            number += 1
        return f"run-{number}"

    def start(self, name: str, recipe: Recipe) -> None:
        """Train anew. Raises BadPrompt for a name that will not do, and while another run is
        trained.
        """
        if not _NAME.fullmatch(name):
            raise segclip.BadPrompt(f"a run is named by letters, digits, - and _, not {name!r}")
        folder = self.folder / name
        if (folder / "last.pt").exists():
            raise segclip.BadPrompt(
                f"there is a run {name} already: resume that, or choose another name"
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
        """Go on with a run that was stopped, as it was begun. Raises BadPrompt when nothing is kept
        of it.
        """
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
        """End the run's process; checkpoints are whole whenever it ends."""
        self._stopping = True
        with self._lock:
            if self._process is not None:
                self._process.terminate()

    def look(self, name: str) -> Run:
        """Read how far a run is."""
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
        share = 1.0 if state == "done" else len(rows) / epochs
        if state == "running" and (told := _SHARE.search(words)):
            share = max(share, int(told[1]) / 100)
        elif state != "failed":
            words = (
                f"epoch {len(rows)} of {epochs}"
                if rows
                else "getting ready"
                if state == "running"
                else ""
            )
        return Run(name, state, rows, words, min(1.0, share), "\n".join(lines[-30:]), folder)

    def check(self, data: str) -> str:
        """Say what a data set holds and what is wrong with it."""
        command = [sys.executable, "-m", "train.engine.data", _absolute(data), "--quick"]
        done = subprocess.run(
            command, cwd=_ROOT, env=_environment(), capture_output=True, text=True, check=False
        )
        return (done.stdout + done.stderr).strip()

    def _reason(self, words: str) -> str:
        """Say why the last run failed."""
        if self._code is not None and self._code < 0:
            return f"Its process was ended by signal {-self._code}: was there too little memory?"
        return words.partition("rror: ")[2] or words or f"It ended with code {self._code}."

    def keep(self, run: Run) -> Path:
        """Keep the run's best weights as they are now, however it goes on: the folder ``file:``
        serves.

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
        atexit.register(self.stop)  # nobody would see it, or stop it

    def _run(self, log: Path, commands: Sequence[Sequence[str]]) -> None:
        with log.open("wb") as file:
            for command in commands:
                with self._lock:
                    if self._stopping:
                        return
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", *command],
                        env=_environment(),
                        # where its commands are given in a terminal, so that paths mean the same
                        cwd=_ROOT,
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
    """Return the environment of a recipe that ends when this process does."""
    return {**os.environ, "SEGCLIP_PARENT": str(os.getpid())}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; a recipe replaces files and never writes into them. Copy it where
    that cannot be.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _over(folder: Path, rows: Sequence[Row]) -> bool:
    return bool(rows) and rows[-1]["epoch"] >= (_json(folder / "recipe.json").get("epochs") or 0)


def _rows(file: Path) -> tuple[Row, ...]:
    """Read metrics; a line being written is left out."""
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
