"""The ``segclip calibrate`` command: fit the settings of an encoder on labelled regions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Offline, Trust
from .output import ProgressLines

if TYPE_CHECKING:
    from ..scoring.calibration import Calibration
    from ..scoring.labelled import LabelledRegions


@dataclass(frozen=True)
class CalibrationOptions:
    """The encoder to calibrate, and labelled images of one's own."""

    encoder: Annotated[str, typer.Argument(help="An encoder, such as file:RUN, or a preset.")]
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of images/ and instances.json, or of class folders. Default: regions that "
            "ship with segclip."
        ),
    ] = None
    offline: Offline = False
    trust: Trust = False


def run(options: CalibrationOptions) -> None:
    """Measure, print the curve, and write the settings beside a file: run."""
    from .. import loading
    from ..encoders.checkpoints import store
    from ..scoring import calibration
    from ..scoring.scorers import scorer_of

    regions = _regions(options.data)
    encoder = loading.load_encoder(
        options.encoder, offline=options.offline, trust=options.trust, calibrate=False
    )
    found = calibration.fit(encoder, scorer_of(encoder), regions)
    _print(found)
    run_folder = Path(options.encoder.removeprefix("file:"))
    if not found.fits:
        raise typer.Exit(1)
    if options.encoder.startswith("file:") and (run_folder / "config.json").is_file():
        store(run_folder, found.serving)
        typer.echo(f"stored in {run_folder / 'config.json'}")


def _regions(data: Path | None) -> LabelledRegions:
    from ..evaluation.calibration import read_labelled
    from ..scoring.labelled import LabelledRegions, known_file

    if data is None:
        return LabelledRegions.read(known_file())
    start, line = monotonic(), ProgressLines()

    def report(done: int, total: int) -> None:
        rate = done / max(monotonic() - start, 1e-9)
        line(done, total, rate, f"{rate:.1f} images/s")

    return read_labelled(data, report)


def _print(found: Calibration) -> None:
    typer.echo(str(found))
    if not found.fits:
        return
    serving = found.serving
    typer.echo(f"nearer to its name than another region: {found.apart:.0%}")
    typer.echo(f"right answers among a hundred others: {found.right:.0%}")
    typer.echo(f"logit scale: {serving.logit_scale or 'its own'}")
    typer.echo(f"views: {', '.join(f'{v.context} {v.fill}' for v in serving.policy.views)}")
    typer.echo(f"everyday names compete: {'yes' if serving.vocabulary else 'no'}")
    typer.echo("threshold  found  silent")
    for threshold, share, silent in found.curve:
        typer.echo(f"{threshold:9.2f}  {share:5.2f}  {silent:6.2f}")
