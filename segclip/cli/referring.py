"""``segclip evaluate referring``: measure answers to referring expressions."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BadPrompt, NotWritable
from .options import Device, Offline, Trust
from .output import print_table, progress_of
from .parsing import grouped

if TYPE_CHECKING:
    from ..evaluation.expressions import ReferringReport
    from ..files.referring import ReferringSet
    from ..loading import ModelSpec

JOURNAL = ".journal"  # ends the name of the file of outcomes, beside that of the figures


@dataclass(frozen=True)
class ReferringInput:
    """The expressions, their images, and the models to measure."""

    data: Annotated[
        Path,
        typer.Argument(
            help="refs(*).p, grefs(*).json, refer_*.json, *_reviewed.json, a file of SA-Co, or a "
            "folder that holds one."
        ),
    ]
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the images. Default: images/ or ../images/mscoco/images/train2014 "
            "beside the file."
        ),
    ] = None
    split: Annotated[str, typer.Option(help="Split to use, if the file has splits.")] = "val"
    limit: Annotated[int | None, typer.Option(help="Use only the first images.", min=1)] = None
    preset: Annotated[
        str, typer.Option(help="A preset, or a proposer when --encoder is given.")
    ] = "mini"
    encoder: Annotated[str | None, typer.Option(help="An encoder, as in `segclip segment`.")] = None
    device: Device = "auto"
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Minimum probability where an expression may mean none or several objects. "
            "Default: the encoder's own, and 0.6 times that of the best.",
            min=0.0,
            max=1.0,
        ),
    ] = None
    offline: Offline = False
    trust: Trust = False

    def read(self) -> ReferringSet:
        """Read the expressions of the first images. Raises BadPrompt and BadTable."""
        from ..files import referring as expressions

        data = expressions.read(self.data, self.split)
        return replace(data, images=data.images[: self.limit])

    @property
    def models(self) -> ModelSpec:
        """Return the models to load."""
        from ..loading import ModelSpec

        return ModelSpec(
            self.preset, self.encoder, self.device, offline=self.offline, trust=self.trust
        )


@dataclass(frozen=True)
class ReferringOutput:
    """Where the figures are written."""

    record: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Write the figures here, and each expression's outcome beside it, to "
            f"FILE{JOURNAL}: an interrupted run goes on from there.",
            metavar="FILE",
        ),
    ] = None

    def check(self) -> None:
        """Raise NotWritable for a file that is not one of figures, and BadPrompt for a folder."""
        if self.record is None or not self.record.exists():
            return
        if self.record.is_dir():
            raise BadPrompt(f"--json {self.record} is a folder; give a file")
        from ..files import regular, tables

        try:
            found = tables.parse_json(regular.read(self.record, most=1 << 20).decode("utf-8"))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict) or not {"protocol", "figures"} <= set(found):
            raise NotWritable(
                f"{self.record} exists and holds no figures of `segclip evaluate referring`; "
                "choose another name"
            )

    def write(self, report: ReferringReport, query: ReferringInput) -> None:
        """Write the figures, those of nothing as null. Raises NotWritable."""
        from ..files import atomic

        if self.record is None:
            return
        figures = {name: None if math.isnan(value) else value for name, value in report.figures()}
        found = {
            "protocol": report.kind,
            "data": str(query.data),
            "split": query.split,
            "models": list(query.models.names),
            "figures": figures,
        }
        atomic.write(self.record, (json.dumps(found, indent=2) + "\n").encode())
        typer.echo(f"wrote {self.record}")


@grouped
def referring(query: ReferringInput, output: ReferringOutput) -> None:
    """Answer referring expressions, such as RefCOCO's: mIoU, oIoU, precision; gIoU, N-acc; cgF1."""
    from ..evaluation import referring as evaluation
    from ..evaluation.journal import OutcomeJournal
    from ..files import referring as expressions

    output.check()
    data = query.read()
    folder = query.images or expressions.images_of(data)
    selection = evaluation.selection_of(data, query.threshold)
    journal = None
    if output.record is not None:
        settings = evaluation.fingerprint(data, query.models.fingerprint(), selection)
        place = output.record.with_name(output.record.name + JOURNAL)
        journal = OutcomeJournal(place, settings)
    images = evaluation.remaining(data, journal)
    if len(images) < len(data.images):
        typer.echo(f"{len(data.images) - len(images)} images were measured before", err=True)
    segmenter = query.models.open()
    with progress_of(images) as progress:
        report = evaluation.evaluate_referring(
            segmenter, data, folder, selection=selection, journal=journal, report=progress
        )
    print_table(report.table())
    output.write(report, query)
