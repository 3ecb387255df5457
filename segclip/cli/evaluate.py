"""The ``segclip evaluate`` commands: measure the whole line on a folder of labelled pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from ..checks import checked
from ..errors import BadPrompt
from .options import Lines, grouped

if TYPE_CHECKING:
    from ..evaluation.datasets import Sample
    from ..proposers import Proposer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure on labelled pictures.")


@app.callback()
def top() -> None:
    """Measure on labelled pictures."""


FOLDER = typer.Argument(help="images/ and scenes.json or COCO's instances.json.")
LIMIT = typer.Option(help="Only the first pictures.", min=1)
OFFLINE = typer.Option("--offline", help="Never use the network.")


@dataclass(frozen=True)
class Finding:
    """Which proposer is measured, on what."""

    folder: Annotated[Path, FOLDER]
    proposer: Annotated[str, typer.Option(help="A proposer, or a preset for its own.")] = "mini"
    limit: Annotated[int | None, LIMIT] = None
    offline: Annotated[bool, OFFLINE] = False
    trust: Annotated[
        bool, typer.Option("--trust", help="Load pickled weights the manifest doesn't know.")
    ] = False

    def load(self) -> tuple[Proposer, list[Sample]]:
        """Load the proposer and the first pictures."""
        from .. import loading
        from ..evaluation import datasets

        samples = datasets.read_folder(self.folder)[: self.limit]
        return loading.load_proposer(
            self.proposer, options=loading.LoadOptions(self.offline, self.trust)
        ), samples


@app.command()
@checked
def text(
    folder: Annotated[Path, FOLDER],
    preset: Annotated[
        str, typer.Option(help="A preset, or a proposer when --encoder is given.")
    ] = "mini",
    encoder: Annotated[
        str | None, typer.Option(help="An encoder, as in `segclip segment`.")
    ] = None,
    limit: Annotated[int | None, LIMIT] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Store with the encoder, a file:RUN, what fits best: threshold, logit scale.",
        ),
    ] = False,
    offline: Annotated[bool, OFFLINE] = False,
) -> None:
    """Ask each picture for every name in it and for names that are not: recall, right answers,
    silence.
    """
    from .. import loading
    from ..evaluation import datasets, text

    run = Path((encoder or "").removeprefix("file:"))
    if calibrate and not (
        encoder and encoder.startswith("file:") and (run / "config.json").is_file()
    ):
        raise BadPrompt(
            "--calibrate writes into a run of your own: give --encoder file:RUN, a folder; got "
            f"{encoder}"
        )
    samples = datasets.read_folder(folder)[:limit]
    segmenter = loading.load(preset, encoder, options=loading.LoadOptions(offline=offline))
    with _progress(samples) as tell:
        if calibrate:
            report, serving = text.calibrate(segmenter, samples, tell)
        else:
            report = text.evaluate_text(segmenter, samples, tell)
    _show(report.table())
    if calibrate:
        from ..encoders.checkpoints import store

        store(run, serving)
        scale = f" and logit scale {serving.logit_scale:.2f}" if serving.logit_scale else ""
        typer.echo(f"stored threshold {serving.threshold}{scale} in {run / 'config.json'}")


@app.command()
@grouped
def proposals(finding: Finding) -> None:
    """Ask for everything and count what is found: average recall at 10, 100 and 1000 candidates,
    and by size.
    """
    from ..evaluation.proposals import evaluate_proposals

    proposer, samples = finding.load()
    with _progress(samples) as tell:
        report = evaluate_proposals(proposer, samples, tell)
    _show(report.table())


@app.command()
@grouped
def clicks(finding: Finding) -> None:
    """Click on every object as a person who corrects would, and draw its box: mean IoU after 1, 3
    and 5 clicks.
    """
    from ..evaluation.clicks import evaluate_clicks

    proposer, samples = finding.load()
    with _progress(samples) as tell:
        report = evaluate_clicks(proposer, samples, tell=tell)
    _show(report.table())


@app.command()
@checked
def zeroshot(
    folder: Annotated[Path, typer.Argument(help="A folder of pictures for each class.")],
    encoder: Annotated[str, typer.Option(help="An encoder, or a preset for its own.")] = "mini",
    labels: Annotated[
        str | None, typer.Option(help="Labels in the folders' order; their names if left out.")
    ] = None,
    templates: Annotated[str | None, typer.Option(help="A template set or a file.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first pictures of each class.", min=1)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the confusion matrix: .csv, .png, .svg.")
    ] = None,
) -> None:
    """Classify a tree of class folders by the classes' names: accuracy, mean a class, what is
    confused.
    """
    from .. import images, loading
    from ..evaluation import zeroshot
    from ..zeroshot import build, read_labels

    if (
        out and out.suffix.lower() not in zeroshot.MATRIX_ENDINGS
    ):  # before the long work, not after it
        raise BadPrompt(
            f"--out takes a file ending in {', '.join(zeroshot.MATRIX_ENDINGS)}; got {out}"
        )
    folders = zeroshot.class_folders(folder)
    given = read_labels(
        labels or [zeroshot.label_of(path) for path in folders], templates=templates
    )
    classifier = build(loading.load_encoder(encoder), given)
    tasks = [path for path in folders for _ in images.walk(path)[:limit]]
    with _progress(tasks) as tell:
        report = zeroshot.evaluate_folders(classifier, folders, limit=limit, tell=tell)
    _show(report.table())
    if out:
        typer.echo(f"wrote {report.save(out)}")


@app.command()
@checked
def regions(
    folder: Annotated[Path, FOLDER],
    encoder: Annotated[str, typer.Option(help="An encoder, or a preset for its own.")] = "mini",
    limit: Annotated[int | None, LIMIT] = None,
    offline: Annotated[bool, OFFLINE] = False,
) -> None:
    """Name true masks among all names of the folder, cut as the encoder is served: region
    zeroshot.
    """
    from .. import loading
    from ..evaluation import datasets, localise

    samples = datasets.read_folder(folder)[:limit]
    model = loading.load_encoder(encoder, options=loading.LoadOptions(offline=offline))
    with _progress(samples) as tell:
        named = localise.evaluate_regions(model, samples, tell)
    _show(named.table())


@app.command()
@checked
def heat(
    folder: Annotated[Path, FOLDER],
    encoder: Annotated[
        str, typer.Option(help="An encoder with a patch head, such as file:RUN of train.pacl.")
    ],
    limit: Annotated[int | None, LIMIT] = None,
    offline: Annotated[bool, OFFLINE] = False,
) -> None:
    """Lay heat maps of the names that are there over the true masks: pointing game, zero-shot
    segmentation.
    """
    from .. import loading
    from ..evaluation import datasets, localise

    samples = datasets.read_folder(folder)[:limit]
    model = loading.load_encoder(encoder, options=loading.LoadOptions(offline=offline))
    with _progress(samples) as tell:
        pointed = localise.evaluate_heat(model, samples, tell)
    _show(pointed.table())


@app.command()
@checked
def retrieval(
    captions: Annotated[
        Path, typer.Argument(help="COCO's or Karpathy's JSON, or a table of image and caption.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images; images/ beside the file.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="An encoder, or a preset for its own.")] = "mini",
    split: Annotated[str, typer.Option(help="Of captions that name one.")] = "test",
    limit: Annotated[int | None, LIMIT] = None,
    offline: Annotated[bool, OFFLINE] = False,
) -> None:
    """Compare every image with every caption: R@1, 5 and 10 both ways, five captions an image."""
    from .. import loading
    from ..evaluation.retrieval import evaluate_captions, read_captions

    captioned = read_captions(captions, images, split=split)[:limit]
    model = loading.load_encoder(encoder, options=loading.LoadOptions(offline=offline))
    with _progress(captioned) as tell:
        report = evaluate_captions(model, captioned, tell)
    _show(report.table())


@app.command()
@checked
def search(
    folder: Annotated[Path, FOLDER],
    index: Annotated[
        Path | None, typer.Option(help="Of FOLDER/images with --regions; made there if left out.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="The index's, where it is no published one.")
    ] = None,
) -> None:
    """Search an index of labelled pictures for every name: by segments, and by whole images beside
    it.
    """
    from ..evaluation import datasets
    from ..evaluation.retrieval import evaluate_names
    from ..search import Index, IndexOptions, make_index

    samples = datasets.read_folder(folder)
    if index is None:
        with _progress(samples) as tell:
            place = make_index(
                folder / "images",
                IndexOptions(regions=True),
                tell=lambda seen: tell(seen.now, seen.total),
            ).path
    _show(evaluate_names(Index(index or place, encoder=encoder), samples).table())


@contextmanager
def _progress(samples: Sequence[object]) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, else a line now and then."""
    if sys.stderr.isatty():
        with typer.progressbar(length=len(samples), label="pictures", file=sys.stderr) as bar:
            yield lambda done, total: bar.update(done - bar.pos)
        return
    start, line = monotonic(), Lines()

    def tell(done: int, total: int) -> None:
        rate = done / max(monotonic() - start, 1e-9)
        line(done, total, rate, f"{rate:.1f}/s")

    yield tell


def _show(table: list[tuple[str, str]]) -> None:
    for name, value in table:
        typer.echo(f"{name:48} {value}")
