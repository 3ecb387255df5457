"""The ``segclip classify`` command."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BadImage, BadPrompt
from .inputs import local_path
from .options import TEMPLATES, ModelOptions
from .output import OUT, OutputOptions
from .parsing import parse_numbers

if TYPE_CHECKING:
    from ..types import Boxes, Result
    from ..zeroshot import Guess, Labels


@dataclass(frozen=True)
class ClassifyOptions:
    """The images or boxes to classify, and the labels."""

    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...", help="The images.", show_default=False, parser=local_path
        ),
    ]
    labels: Annotated[
        list[str] | None,
        typer.Option(help="Labels, comma-separated or repeated, or the name of a list: imagenet."),
    ] = None
    labels_file: Annotated[
        Path | None, typer.Option(help="File with one label per line; - is standard input.")
    ] = None
    templates: Annotated[str | None, TEMPLATES] = None
    top_k: Annotated[
        int,
        typer.Option(
            "--top-k", "-k", "-n", help="Number of labels printed per image or box.", min=1
        ),
    ] = 5
    boxes: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X1,Y1,X2,Y2", help="Classify this box; repeatable."),
    ] = None
    segments: Annotated[
        bool, typer.Option("--segments", help="Classify every segment of the image.")
    ] = False
    threshold: Annotated[
        float | None, typer.Option(help="Minimum probability of a segment's label.")
    ] = None

    def read(self) -> Labels:
        """Read the labels. Raises BadPrompt."""
        from ..zeroshot import read_labels

        if (not self.labels) == (self.labels_file is None):
            raise BadPrompt(
                "give --labels cat,dog or --labels imagenet, or --labels-file FILE, and not both"
            )
        return read_labels(
            ",".join(self.labels or ()), templates=self.templates, file=self.labels_file
        )

    def read_boxes(self) -> Boxes | None:
        """Return the boxes; None where none are given. Raises BadPrompt."""
        from ..types import Boxes

        if self.boxes and self.segments:
            raise BadPrompt("--box and --segments exclude each other; give one of them")
        if not self.boxes:
            return None
        return Boxes([parse_numbers("--box", value, (4,)) for value in self.boxes])


@dataclass(frozen=True)
class ClassifyOutput:
    """What is printed and written."""

    out: Annotated[
        Path | None, typer.Option(help=f"Folder for the overlays of --segments. Default: {OUT}.")
    ] = None
    record: Annotated[
        bool, typer.Option("--json", help="Print JSON; overlays only with --out.")
    ] = False
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log what is loaded and how long it takes.")
    ] = False


def run(query: ClassifyOptions, models: ModelOptions, output: ClassifyOutput) -> None:
    """Classify image by image; an unreadable one is reported, and the exit code is 1."""
    from .. import images, zeroshot
    from ..files import outputs
    from ..ranking.selection import Selection

    labels, boxes = query.read(), query.read_boxes()
    loading_output = OutputOptions(record=output.record, verbose=output.verbose)
    segmenter = models.load(loading_output) if query.segments else None
    encoder = segmenter.encoder if segmenter else models.spec().open_encoder()
    classifier = zeroshot.build(encoder, labels)
    failed, names = 0, outputs.labels(query.images)
    for path, name in zip(query.images, names, strict=True):
        try:
            image = images.load(path)
        except BadImage as error:
            failed += 1
            typer.echo(f"segclip: {error}", err=True)
            continue
        if segmenter:
            selection = Selection(threshold=query.threshold)
            result = classifier.name(segmenter.regions(image), selection)
            _report_segments(path, name, result, output)
            continue
        scores = (
            classifier.whole(image)
            if boxes is None
            else classifier.boxes(image, boxes, policy=models.policy)
        )
        _report(path, zeroshot.best(scores, query.top_k), query.boxes, output)
    if len(labels) == 1 and not segmenter and failed < len(query.images):
        typer.echo(
            f"note: {labels.names[0]!r} is the only label, so its probability is 1 for any image",
            err=True,
        )
    if failed:
        raise typer.Exit(1 if failed < len(query.images) else 2)


def _report(
    path: Path, rows: Sequence[Sequence[Guess]], boxes: list[str] | None, output: ClassifyOutput
) -> None:
    for number, guesses in enumerate(rows):
        corners = boxes[number] if boxes else None
        if output.record:
            box = parse_numbers("--box", corners, (4,)) if corners else None
            record = {"path": str(path), "box": box, "labels": [asdict(guess) for guess in guesses]}
            typer.echo(json.dumps(record, ensure_ascii=False))
            continue
        typer.echo(f"{path}" + (f" --box {corners}" if corners else ""))
        for guess in guesses:
            typer.echo(
                f"  {guess.probability:6.3f}  {guess.label}  (similarity {guess.similarity:.3f})"
            )


def _report_segments(path: Path, name: str, result: Result, output: ClassifyOutput) -> None:
    """Print the labelled segments, and draw the overlay. name: of its file."""
    from .. import exporters
    from ..files import outputs

    if output.record:
        typer.echo(json.dumps(exporters.to_record(result), ensure_ascii=False))
    else:
        counts = Counter(result.texts)
        listed = ", ".join(
            text if count == 1 else f"{count} x {text}" for text, count in counts.items()
        )
        typer.echo(f"{path}: {listed or 'no segment matches these labels'}")
        for text, probability, box in zip(
            result.texts, result.probability, result.masks.boxes, strict=True
        ):
            typer.echo(f"  {probability:6.3f}  {text}  (box {','.join(map(str, box))})")
    folder = output.out or (None if output.record else OUT)
    if folder:
        save = partial(exporters.save, result, format="overlay")
        for file in outputs.renew(
            folder, f"classify {name}", lambda place: save(place / f"{name}.labels.png")
        ):
            typer.echo(f"wrote {file}", err=output.record)
