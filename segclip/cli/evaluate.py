"""The ``segclip evaluate`` commands: measure the pipeline on a folder of labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..checks import checked
from ..errors import BadPrompt
from .options import Offline, Trust
from .output import print_table, progress_of
from .parsing import grouped
from .referring import referring

if TYPE_CHECKING:
    from ..encoders import Encoder
    from ..evaluation.datasets import Sample
    from ..proposers import Proposer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure on labelled images.")


@app.callback()
def top() -> None:
    """Measure on labelled images."""


app.command()(referring)

FOLDER = typer.Argument(help="Folder of images/ and scenes.json or COCO's instances.json.")
LIMIT = typer.Option(help="Use only the first images.", min=1)


@dataclass(frozen=True)
class EvaluationOptions:
    """The proposer to measure, and the labelled images."""

    folder: Annotated[Path, FOLDER]
    proposer: Annotated[str, typer.Option(help="A proposer, or a preset for its own.")] = "mini"
    limit: Annotated[int | None, LIMIT] = None
    offline: Offline = False
    trust: Trust = False

    def load(self) -> tuple[Proposer, list[Sample]]:
        """Load the proposer and the first images."""
        from .. import loading
        from ..evaluation import datasets

        samples = datasets.read_folder(self.folder)[: self.limit]
        proposer = loading.load_proposer(self.proposer, offline=self.offline, trust=self.trust)
        return proposer, samples


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
            help="Store the best-fitting threshold and logit scale with the encoder, a file:RUN.",
        ),
    ] = False,
    offline: Offline = False,
) -> None:
    """Query each image with present and absent names: recall, precision, correct rejections."""
    from .. import loading
    from ..evaluation import datasets, text

    run = Path((encoder or "").removeprefix("file:"))
    if calibrate and not (
        encoder and encoder.startswith("file:") and (run / "config.json").is_file()
    ):
        raise BadPrompt(
            "--calibrate writes into your own run: give --encoder file:RUN, a folder; got "
            f"{encoder}"
        )
    samples = datasets.read_folder(folder)[:limit]
    segmenter = loading.load(preset, encoder, offline=offline)
    with progress_of(samples) as progress:
        if calibrate:
            report, serving = text.calibrate(segmenter, samples, progress)
        else:
            report = text.evaluate_text(segmenter, samples, progress)
    print_table(report.table())
    if calibrate:
        from ..encoders.checkpoints import store

        store(run, serving)
        scale = f" and logit scale {serving.logit_scale:.2f}" if serving.logit_scale else ""
        typer.echo(f"stored threshold {serving.threshold}{scale} in {run / 'config.json'}")


@app.command()
@grouped
def proposals(options: EvaluationOptions) -> None:
    """Measure average recall of proposals at 10, 100 and 1000 candidates, and by object size."""
    from ..evaluation.proposals import evaluate_proposals

    proposer, samples = options.load()
    with progress_of(samples) as progress:
        report = evaluate_proposals(proposer, samples, progress)
    print_table(report.table())


@app.command()
@grouped
def clicks(options: EvaluationOptions) -> None:
    """Simulate corrective clicks and a box on every object: mean IoU after 1, 3 and 5 clicks."""
    from ..evaluation.clicks import evaluate_clicks

    proposer, samples = options.load()
    with progress_of(samples) as progress:
        report = evaluate_clicks(proposer, samples, report=progress)
    print_table(report.table())


@app.command()
@checked
def zeroshot(
    folder: Annotated[Path, typer.Argument(help="A folder of images per class.")],
    encoder: Annotated[str, typer.Option(help="An encoder, or a preset for its own.")] = "mini",
    labels: Annotated[
        str | None, typer.Option(help="Labels in the folders' order. Default: the folders' names.")
    ] = None,
    templates: Annotated[
        str | None, typer.Option(help="Prompt templates: a set's name or a file.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Use only the first images of each class.", min=1)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the confusion matrix: .csv, .png, .svg.")
    ] = None,
) -> None:
    """Classify a tree of class folders: accuracy, mean per-class accuracy, confusions."""
    from .. import loading
    from ..evaluation import zeroshot
    from ..files import listing
    from ..zeroshot import build, read_labels

    # checked before the long work, not after it
    if out and out.suffix.lower() not in zeroshot.MATRIX_ENDINGS:
        raise BadPrompt(
            f"--out takes a file ending in {', '.join(zeroshot.MATRIX_ENDINGS)}; got {out}"
        )
    folders = zeroshot.class_folders(folder)
    given = read_labels(
        labels or [zeroshot.label_of(path) for path in folders], templates=templates
    )
    classifier = build(loading.load_encoder(encoder), given)
    tasks = [path for path in folders for _ in listing.walk(path)[:limit]]
    with progress_of(tasks) as progress:
        report = zeroshot.evaluate_folders(classifier, folders, limit=limit, report=progress)
    print_table(report.table())
    if out:
        typer.echo(f"wrote {report.save(out)}")


@app.command()
@checked
def regions(
    folder: Annotated[Path, FOLDER],
    encoder: Annotated[str, typer.Option(help="An encoder, or a preset for its own.")] = "mini",
    limit: Annotated[int | None, LIMIT] = None,
    offline: Offline = False,
) -> None:
    """Classify true masks zero-shot among the folder's names, with the encoder's crop policy."""
    from ..evaluation import localise

    model, samples = _encoder_and_samples(encoder, folder, limit, offline)
    with progress_of(samples) as progress:
        report = localise.evaluate_regions(model, samples, progress)
    print_table(report.table())


@app.command()
@checked
def heat(
    folder: Annotated[Path, FOLDER],
    encoder: Annotated[
        str, typer.Option(help="An encoder with a patch head, such as file:RUN of train.pacl.")
    ],
    limit: Annotated[int | None, LIMIT] = None,
    offline: Offline = False,
) -> None:
    """Compare heat maps of present names with true masks: pointing game, zero-shot segmentation."""
    from ..evaluation import localise

    model, samples = _encoder_and_samples(encoder, folder, limit, offline)
    with progress_of(samples) as progress:
        report = localise.evaluate_heat(model, samples, progress)
    print_table(report.table())


@app.command()
@checked
def retrieval(
    captions: Annotated[
        Path, typer.Argument(help="COCO's or Karpathy's JSON, or a table of images and captions.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images. Default: images/ beside the file.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="An encoder, or a preset for its own.")] = "mini",
    split: Annotated[str, typer.Option(help="Split to use, if the captions have splits.")] = "test",
    limit: Annotated[int | None, LIMIT] = None,
    offline: Offline = False,
) -> None:
    """Compare every image with every caption, five per image: R@1, 5 and 10 both ways."""
    from .. import loading
    from ..evaluation.retrieval import evaluate_captions, read_captions

    captioned = read_captions(captions, images, split=split)[:limit]
    model = loading.load_encoder(encoder, offline=offline)
    with progress_of(captioned) as progress:
        report = evaluate_captions(model, captioned, progress)
    print_table(report.table())


@app.command()
@checked
def search(
    folder: Annotated[Path, FOLDER],
    index: Annotated[
        Path | None,
        typer.Option(help="Index of FOLDER/images with --regions. Default: make one there."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="The index's encoder, if it is not a published one.")
    ] = None,
) -> None:
    """Search an index of labelled images for every name, by segments and by whole images."""
    from ..evaluation import datasets
    from ..evaluation.retrieval import evaluate_names
    from ..search import Index, IndexOptions, make_index

    samples = datasets.read_folder(folder)
    if index is None:
        with progress_of(samples) as progress:
            index = make_index(
                folder / "images",
                IndexOptions(regions=True),
                report=lambda now: progress(now.now, now.total),
            ).path
    print_table(evaluate_names(Index(index, encoder=encoder), samples).table())


def _encoder_and_samples(
    encoder: str, folder: Path, limit: int | None, offline: bool
) -> tuple[Encoder, list[Sample]]:
    """Load an encoder and the first images of a folder, which is read first."""
    from .. import loading
    from ..evaluation import datasets

    samples = datasets.read_folder(folder)[:limit]
    return loading.load_encoder(encoder, offline=offline), samples
