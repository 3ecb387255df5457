"""Report a training run: progress line, metrics.jsonl, TensorBoard, curves and environment."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import PIL.Image
import torch
import typer

from segclip.errors import BadIndex, BadPrompt, BadTable
from segclip.files import atomic, tables
from segclip.weights.cache import hash_file

SERVED = ("model.safetensors", "config.json")
PACKAGES = ("torch", "open_clip_torch", "timm", "transformers", "peft", "numpy", "opencv-python")
EVERY = 15.0  # s between lines where the output is not a terminal


class ProgressLine:
    """A line with the progress of a run, its rate and the time left.

    file: where it is also written, as JSON with the share that is done, for the app.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        *,
        noun: str = "images",
        enabled: bool = True,
        file: Path | None = None,
    ) -> None:
        self.file = file
        self.total, self.first, self.done = total, done, done
        self.noun, self.enabled = noun, enabled
        self.began = self.printed = time.monotonic()

    @property
    def rate(self) -> float:
        """Return images per second."""
        return (self.done - self.first) / max(time.monotonic() - self.began, 1e-9)

    def advance(self, count: int, words: str) -> None:
        """Count images and print the line: often on a terminal, every EVERY seconds in a log."""
        self.done += count
        now, live = time.monotonic(), sys.stderr.isatty()
        if not self.enabled or now - self.printed < (0.2 if live else EVERY):
            return
        self.printed = now
        left = (self.total - self.done) / max(self.rate, 1e-9)
        share = self.done / self.total
        line = f"{words}  {self.rate:.0f} {self.noun}/s  {share:.0%}, {_clock(left)} left"
        if self.file is not None:
            progress = json.dumps({"line": line, "share": share})
            atomic.write(self.file, progress.encode(), sync=False)
        typer.echo(f"\r{line:<100}" if live else line, nl=not live, err=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes}:{rest:02d}"


def environment() -> dict[str, Any]:
    """Describe the machine, the packages and the command line."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    system = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
    }
    return {**system, "gpus": gpus, "packages": found, "command": sys.argv}


class RunLog:
    """The metrics of a run in its folder.

    On resume, metrics of epochs that will be repeated are dropped.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any], *, epoch: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        check_recipe(folder, recipe, resumes=epoch > 0)
        write_json(folder / "recipe.json", recipe)
        write_json(folder / "environment.json", environment())
        self.rows = [row for row in read_metrics(folder) if row["epoch"] <= epoch]
        self._write()
        self.board = _board(folder, epoch)

    def add(self, row: dict[str, float], examples: PIL.Image.Image | None) -> None:
        """Write an epoch's metrics and its image of examples, and draw the curves."""
        self.rows.append(row)
        self._write()
        epoch = int(row["epoch"])
        if examples is not None:
            with atomic.replacing(self.folder / "samples" / f"epoch-{epoch:03d}.jpg") as file:
                examples.save(file, "JPEG", quality=85)
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(name.replace(" ", "_"), value, epoch)
            self.board.flush()
        draw_curves(self.rows, self.folder / "curves.png")
        figures = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
        typer.echo(f"{chr(13) if sys.stderr.isatty() else ''}epoch {epoch}  {figures}", err=True)

    def _write(self) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in self.rows)
        atomic.write(self.folder / "metrics.jsonl", lines.encode())


def check_recipe(folder: Path, recipe: Mapping[str, Any], *, resumes: bool) -> None:
    """Raise BadPrompt if a run resumes with other settings, BadIndex if they cannot be read."""
    file = folder / "recipe.json"
    if not resumes or not file.exists():
        return
    try:
        before = tables.read_json(file, "the settings of a run")
    except BadTable as error:
        raise BadIndex(f"{error}; choose another --out") from None
    if not isinstance(before, dict):
        raise BadIndex(f"{file} holds no settings; choose another --out")
    now = json.loads(json.dumps(recipe))
    changed = [
        f"{name}: {before.get(name)!r}, now {now.get(name)!r}"
        for name in before
        if before[name] != now.get(name)
    ]
    if changed:
        raise BadPrompt(
            f"{folder} began with other settings; resume with those, or choose another --out "
            f"({'; '.join(changed)})"
        )


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Read the metrics of a run, one row per epoch, up to the first damaged line."""
    file = folder / "metrics.jsonl"
    rows: list[dict[str, float]] = []
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or not all(
            _is_number(row.get(name)) for name in ("epoch", "loss")
        ):
            break
        rows.append({name: value for name, value in row.items() if _is_number(value)})
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def digests(folder: Path) -> dict[str, str]:
    """Hash the files of a model served from a folder; missing files are left out."""
    files = (folder / name for name in SERVED)
    return {file.name: hash_file(file).hexdigest() for file in files if file.is_file()}


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON atomically."""
    atomic.write(file, (json.dumps(content, indent=2, default=str) + "\n").encode())


def _board(folder: Path, epoch: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        typer.echo(
            "TensorBoard is not installed (pip install tensorboard); metrics.jsonl has everything",
            err=True,
        )
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=epoch + 1)


def draw_curves(rows: Sequence[Mapping[str, float]], file: Path) -> None:
    """Plot the loss, and the recalls and accuracies, over the epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["loss"] for row in rows], marker=".")
    left.set(xlabel="epoch", ylabel="training loss")
    for name in (name for name in rows[-1] if "@" in name or "top-" in name):
        right.plot(epochs, [row.get(name, float("nan")) for row in rows], marker=".", label=name)
    right.set(xlabel="epoch", ylabel="share on held-out images", ylim=(0, 1))
    if right.lines:
        right.legend(fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with atomic.replacing(file) as drawn:
        figure.savefig(drawn, format="png", dpi=110)
