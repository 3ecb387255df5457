"""Interpolate a model with its weights before tuning: WiSE-FT (Wortsman et al. 2022).

    python -m train.wise file:runs/before file:runs/tuned --share 0.5 --out runs/mixed
    python -m train.wise file:runs/before file:runs/tuned --data coco-dev \
        --guard ../shared/caltech-101 --out runs/mixed

With --data the share of the tuned weights is chosen among 0, 0.1 ... 1: the best recall on its
held-out images, among those that lose no more than --loss of R@1 (top-1, for folders of classes) on
--guard's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer

from segclip.errors import BadPrompt, UnknownName

from .contrastive import Contrastive, ContrastiveRecipe, parts_of
from .engine import command, limits
from .engine.loop import LoopSettings
from .engine.options import HeldOutShare
from .engine.start import Start, trained

SHARES = tuple(round(0.1 * step, 1) for step in range(11))


def mix(
    before: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Return (1 - share) before + share tuned; integers are those of tuned. Raises BadPrompt."""
    apart = before.keys() ^ tuned.keys() or {
        name for name in before if before[name].shape != tuned[name].shape
    }
    if apart:
        raise BadPrompt(
            f"the two are not of one model; they differ in {', '.join(sorted(apart)[:3])}"
        )
    return {
        name: torch.lerp(before[name].float(), value.float(), share)
        if value.is_floating_point()
        else value
        for name, value in tuned.items()
    }


class Trial:
    """Evaluate mixtures of two models on data sets."""

    def __init__(self, before: Start, tuned: Start) -> None:
        self.before = {name: value.clone() for name, value in before.model.state_dict().items()}
        self.tuned = {name: value.clone() for name, value in tuned.model.state_dict().items()}
        self.start = tuned

    def load(self, share: float) -> None:
        """Load a mixture."""
        self.start.model.load_state_dict(mix(self.before, self.tuned, share))
        self.start.model.eval()

    def on(self, data: Path, held_out: float) -> list[dict[str, float]]:
        """Evaluate every share on a data set's held-out images."""
        parts = parts_of(data, None, share=held_out, skip_bad=False)
        task = Contrastive(self.start, parts, ContrastiveRecipe(), LoopSettings(batch=1))
        rows = []
        for share in SHARES:
            self.load(share)
            rows.append(dict(task.validate().figures))
        return rows


def choose(
    gains: list[dict[str, float]], guards: list[dict[str, float]] | None, figure: str, loss: float
) -> int:
    """Choose the row of SHARES with the best ``figure`` that keeps the guard's R@1.

    The smallest of equal shares wins.
    """
    name = "image to text R@1"
    allowed = [
        row
        for row in range(len(SHARES))
        if guards is None or guards[row][name] >= guards[0][name] - loss
    ]
    return max(allowed, key=lambda row: (gains[row][figure], -row))


def main(
    before: Annotated[str, typer.Argument(help="The model before tuning, as for --encoder.")],
    tuned: Annotated[str, typer.Argument(help="The tuned model.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    share: Annotated[float, typer.Option(help="Share of the tuned weights.", min=0, max=1)] = 0.5,
    data: Annotated[
        Path | None, typer.Option(help="Data set whose held-out images select the share.")
    ] = None,
    guard: Annotated[Path | None, typer.Option(help="Data set whose R@1 must be kept.")] = None,
    figure: Annotated[str, typer.Option(help="Metric to maximise on DATA.")] = "text to image R@5",
    loss: Annotated[float, typer.Option(help="Allowed loss of the guard's R@1.")] = 0.02,
    held_out: HeldOutShare = 0.1,
) -> None:
    """Mix two models and write the mixture."""
    limits.check(
        {
            "--share": (share, limits.SHARE),
            "--loss": (loss, limits.SHARE),
            "--held-out": (held_out, limits.PART),
        }
    )
    scores = Trial(trained(before), trained(tuned))
    if data is not None:
        gains = scores.on(data, held_out)
        if figure not in gains[0]:
            raise UnknownName(f"unknown --figure {figure!r}; choose one of {', '.join(gains[0])}")
        guards = scores.on(guard, held_out) if guard else None
        for row, each in enumerate(SHARES):
            line = f"{figure} {gains[row][figure]:.4f}" + (
                f"  guard R@1 {guards[row]['image to text R@1']:.4f}" if guards else ""
            )
            typer.echo(f"share {each:.1f}  {line}")
        share = SHARES[choose(gains, guards, figure, loss)]
    scores.load(share)
    scores.start.save(scores.start.model, out)
    typer.echo(f"wrote {out}, {share:g} of {tuned}")


if __name__ == "__main__":
    command.run(main)
