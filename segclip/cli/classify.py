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
from .options import OUT, Models, Output, numbers

if TYPE_CHECKING:
    from ..types import Boxes, Result
    from ..zeroshot import Guess, Labels


@dataclass(frozen=True)
class Sorting:
    """What is classified, and by which labels."""

    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="The pictures.", show_default=False)
    ]
    labels: Annotated[
        list[str] | None,
        typer.Option(help="Labels by comma, repeated or both, or a list's name: imagenet."),
    ] = None
    labels_file: Annotated[
        Path | None, typer.Option(help="A file of labels, one a line; - is standard input.")
    ] = None
    templates: Annotated[
        str | None, typer.Option(help="Sentences a label is put in: a set's name or a file.")
    ] = None
    top_k: Annotated[int, typer.Option(help="Labels shown of each picture or box.", min=1)] = 5
    boxes: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X1,Y1,X2,Y2", help="Classify what is in a box; repeatable."),
    ] = None
    segments: Annotated[
        bool, typer.Option("--segments", help="Name every segment of the picture.")
    ] = False
    threshold: Annotated[
        float | None, typer.Option(help="Probability a segment's name must reach.")
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

    def places(self) -> Boxes | None:
        """Give the boxes."""
        from ..types import Boxes

        if self.boxes and self.segments:
            raise BadPrompt("--box and --segments are two ways of looking; give one of them")
        return (
            Boxes([numbers("--box", value, (4,)) for value in self.boxes]) if self.boxes else None
        )


@dataclass(frozen=True)
class Told:
    """What is written and said."""

    out: Annotated[
        Path | None, typer.Option(help=f"Folder for the overlays of --segments; {OUT} if left out.")
    ] = None
    record: Annotated[
        bool, typer.Option("--json", help="Print JSON; overlays only with --out.")
    ] = False
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say what is loaded and how long it takes.")
    ] = False


def run(sorting: Sorting, models: Models, told: Told) -> None:
    """Classify picture by picture; one that cannot be read is told, and the exit code is 1."""
    from .. import images, loading, registry, zeroshot
    from ..files import outputs
    from ..ranking.selection import Selection

    labels, boxes = sorting.read(), sorting.places()
    options = loading.LoadOptions(models.offline, models.trust)
    name = models.encoder or registry.choose(loading.PRESETS, models.preset, "preset")[1]
    segmenter = (
        models.load(Output(record=told.record, verbose=told.verbose)) if sorting.segments else None
    )
    encoder = (
        segmenter.encoder
        if segmenter
        else loading.load_encoder(name, device=models.device, options=options)
    )
    classifier = zeroshot.build(encoder, labels)
    failed, names = 0, outputs.labels(sorting.images)
    for path, name in zip(sorting.images, names, strict=True):
        try:
            image = images.load(path)
        except BadImage as error:
            failed += 1
            typer.echo(f"segclip: {error}", err=True)
            continue
        if segmenter:
            result = classifier.name(
                segmenter.regions(image), Selection(threshold=sorting.threshold)
            )
            _tell_segments(path, name, result, told)
            continue
        scores = (
            classifier.whole(image)
            if boxes is None
            else classifier.boxes(image, boxes, policy=models.policy)
        )
        _tell(path, zeroshot.best(scores, sorting.top_k), sorting.boxes, told)
    if len(labels) == 1 and not segmenter and failed < len(sorting.images):
        typer.echo(
            f"note: {labels.names[0]!r} is the only label, so its probability is 1 for any image",
            err=True,
        )
    if failed:
        raise typer.Exit(1 if failed < len(sorting.images) else 2)


def _tell(path: Path, rows: Sequence[Sequence[Guess]], boxes: list[str] | None, told: Told) -> None:
    for number, guesses in enumerate(rows):
        place = boxes[number] if boxes else None
        if told.record:
            box = numbers("--box", place, (4,)) if place else None
            record = {"path": str(path), "box": box, "labels": [asdict(guess) for guess in guesses]}
            typer.echo(json.dumps(record, ensure_ascii=False))
            continue
        typer.echo(f"{path}" + (f" --box {place}" if place else ""))
        for guess in guesses:
            typer.echo(
                f"  {guess.probability:6.3f}  {guess.label}  (similarity {guess.similarity:.3f})"
            )


def _tell_segments(path: Path, name: str, result: Result, told: Told) -> None:
    """Print the named segments, and draw the overlay. name: of its file."""
    from .. import exporters
    from ..files import outputs

    if told.record:
        typer.echo(json.dumps(exporters.to_record(result), ensure_ascii=False))
    else:
        counts = Counter(result.texts)
        listed = ", ".join(
            text if count == 1 else f"{count} x {text}" for text, count in counts.items()
        )
        typer.echo(f"{path}: {listed or 'nothing that these labels name'}")
        for text, probability, box in zip(
            result.texts, result.probability, result.masks.boxes, strict=True
        ):
            typer.echo(f"  {probability:6.3f}  {text}  (box {','.join(map(str, box))})")
    folder = told.out or (None if told.record else OUT)
    if folder:
        save = partial(exporters.save, result, format="overlay")
        for file in outputs.renew(
            folder, f"classify {name}", lambda place: save(place / f"{name}.labels.png")
        ):
            typer.echo(f"wrote {file}", err=told.record)
