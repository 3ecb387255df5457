"""Measure zero-shot classification on class folders: top-1, top-5, per-class mean, confusion."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadImage, BadPrompt
from ..files import listing, outputs
from ..types import Array
from ..zeroshot import Classifier
from .datasets import OnProgress, reporting, silent

MATRIX_ENDINGS = (".csv", ".png", ".svg")
_NUMBERED = 25  # maximum number of classes for which each drawn cell shows its number


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """Figures of a zero-shot classification.

    confusion: int64 (C, C), images of class i classified as class j. ranks: int64 (N,), rank of
    the true label in each image's answer, 0 for the best. failed: for each unreadable image, its
    path and the reason.
    """

    labels: tuple[str, ...]
    confusion: Array
    ranks: Array
    failed: tuple[str, ...]

    def top(self, k: int) -> float:
        """Return the share of images whose label is among the ``k`` best."""
        return float(np.mean(self.ranks < k)) if len(self.ranks) else float("nan")

    @property
    def mean_class(self) -> float:
        """Return the mean per-class top-1 accuracy, for classes that differ in size."""
        counts = self.confusion.sum(axis=1)
        shares = np.diagonal(self.confusion)[counts > 0] / counts[counts > 0]
        return float(shares.mean()) if len(shares) else float("nan")

    def table(self, confused: int = 5) -> list[tuple[str, str]]:
        """Return the figures as rows of name and value, with the pairs confused most often."""
        rows = [
            ("images", str(len(self.ranks))),
            ("classes", str(len(self.labels))),
            ("top-1 accuracy", f"{self.top(1):.4f}"),
            ("top-5 accuracy", f"{self.top(5):.4f}"),
            ("mean per-class top-1 accuracy", f"{self.mean_class:.4f}"),
        ]
        off = self.confusion - np.diag(np.diagonal(self.confusion))
        order = np.argsort(-off, axis=None, kind="stable")[:confused]
        for truth, answer in zip(*np.unravel_index(order, off.shape), strict=True):
            if off[truth, answer]:
                pair = f"{self.labels[truth]!r} taken for {self.labels[answer]!r}"
                rows.append((pair, str(off[truth, answer])))
        if self.failed:
            rows.append(("images that cannot be read", str(len(self.failed))))
        return rows

    def to_csv(self) -> str:
        """Return the confusion matrix as CSV: one row per true class, one column per answer."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["", *self.labels])
        for label, row in zip(self.labels, self.confusion.tolist(), strict=True):
            writer.writerow([label, *row])
        return text.getvalue()

    def save(self, file: Path) -> Path:
        """Write the confusion matrix to a .csv, or drawn to a .png or .svg; replace an earlier one.

        Raises BadPrompt for another suffix, and NotWritable when ``file`` exists and is not a
        confusion matrix.
        """
        ending = file.suffix.lower()
        if ending not in MATRIX_ENDINGS:
            raise BadPrompt(
                f"the confusion matrix is written to a file ending in {', '.join(MATRIX_ENDINGS)}; "
                f"got {file}"
            )

        def write(folder: Path) -> list[Path]:
            if ending == ".csv":
                (folder / file.name).write_text(self.to_csv(), "utf-8")
            else:
                _draw(self.confusion, self.labels, folder / file.name)
            return [folder / file.name]

        return outputs.renew(file.parent, f"confusion matrix {file.name}", write)[0]


def _draw(confusion: Array, labels: Sequence[str], file: Path) -> None:
    """Draw a confusion matrix, each row normalised to shares."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(labels)
    side = min(3 + 0.45 * count, 24)  # inches
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    heatmap = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [label.replace("$", r"\$") for label in labels]  # "$" would start a formula
    size = min(9.0, 40 * side / max(count, 1))
    axes.set_xticks(range(count), names, rotation=90, fontsize=size)
    axes.set_yticks(range(count), names, fontsize=size)
    axes.set(xlabel="answered", ylabel="true class")
    figure.colorbar(heatmap, ax=axes, shrink=0.6, label="share of the true class")
    for row, column in np.argwhere(confusion) if count <= _NUMBERED else ():
        ink = "white" if shares[row, column] > 0.5 else "black"
        axes.text(
            column,
            row,
            str(confusion[row, column]),
            ha="center",
            va="center",
            color=ink,
            fontsize=8,
        )
    figure.savefig(file, dpi=110)


def class_folders(folder: Path) -> list[Path]:
    """List the class folders sorted by name, the order of a class list. Raises BadPrompt."""
    if not folder.is_dir():
        raise BadPrompt(f"{folder}: no such folder; give one with a folder of images per class")
    found = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not found:
        raise BadPrompt(
            f"{folder} holds no folders; give one with a folder of images for each class"
        )
    return found


def label_of(folder: Path) -> str:
    """Return a folder's name as a label: "dollar_bill" is "dollar bill"."""
    return " ".join(folder.name.replace("_", " ").split()) or folder.name


def evaluate_folders(
    classifier: Classifier,
    folders: Sequence[Path],
    *,
    limit: int | None = None,
    report: OnProgress = silent,
) -> ClassificationReport:
    """Classify every image of every class folder; the true label of folder i is label i.

    limit: maximum number of images per class. Raises BadPrompt when the number of labels is not
    that of the folders.
    """
    names = classifier.labels.names
    if len(names) != len(folders):
        raise BadPrompt(
            f"{len(folders)} class folders need as many labels, in their order; got {len(names)}"
        )
    tasks = [
        (row, path) for row, folder in enumerate(folders) for path in listing.walk(folder)[:limit]
    ]
    confusion, ranks, failed = np.zeros((len(names), len(names)), np.int64), [], []
    for truth, path in reporting(tasks, report):
        try:
            similarity = classifier.whole(path).similarity[0]
        except BadImage as error:
            failed.append(str(error))
        else:
            confusion[truth, int(similarity.argmax())] += 1
            ranks.append(int(np.count_nonzero(similarity > similarity[truth])))
    return ClassificationReport(names, confusion, np.array(ranks, np.int64), tuple(failed))
