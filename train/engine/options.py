"""Declare the options that several recipes have, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Captioned: TypeAlias = Annotated[
    Path, typer.Argument(help="Images with captions; see train/README.md.")
]
Images: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder of the images, where not beside DATA.")
]
HeldOut: TypeAlias = Annotated[
    float, typer.Option(help="Share of images that judge, where DATA has no split.")
]
SkipBad: TypeAlias = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out missing images and empty captions.")
]
Out: TypeAlias = Annotated[Path, typer.Option(help="Folder of the run; file:OUT serves it.")]
Resume: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")
]
Side: TypeAlias = Annotated[
    int, typer.Option(help="Of the images; 0 for the CLIP's own, a must for transformers.")
]
Stride: TypeAlias = Annotated[
    int, typer.Option(help="Px from patch to patch of a timm ResNet; 0 for its own.")
]
CaptionsEach: TypeAlias = Annotated[int, typer.Option(help="Captions of an image in a batch.")]
WarmUp: TypeAlias = Annotated[int, typer.Option(help="Steps.")]
ModelName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Random weights: small, small-vit, small-rn, RN50, any of open_clip's, a .json."
    ),
]
Size: TypeAlias = Annotated[
    int | None, typer.Option(help="Side of the images, with random weights.")
]
StartFrom: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Weights to begin with: file:RUN, MODEL/TAG, MODEL/file:PATH."),
]
Tune: TypeAlias = Annotated[str, typer.Option(help="full, image (text frozen), text (LiT), lora.")]
Template: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="A sentence with {} captions are put in; several times."),
]
Hard: TypeAlias = Annotated[
    int, typer.Option(help="Hard negatives: images of the nearest texts that join each.")
]
Chunk: TypeAlias = Annotated[
    int, typer.Option(help="Rows embedded at a time: a large batch in small memory; 0 for all.")
]
TextRate: TypeAlias = Annotated[
    float, typer.Option(help="The text tower's rate over the image tower's.")
]
HeadRate: TypeAlias = Annotated[
    float, typer.Option(help="The projections' rate over the image tower's.")
]
Ema: TypeAlias = Annotated[
    float, typer.Option(help="Decay of the average that is served; 0 for none.")
]
Patience: TypeAlias = Annotated[
    int, typer.Option(help="Stop after so many epochs without a better R@1; 0 for never.")
]
Bfloat16: TypeAlias = Annotated[
    bool, typer.Option("--bfloat16", help="Compute in bfloat16 where it is safe.")
]
Fsdp: TypeAlias = Annotated[
    bool, typer.Option("--fsdp", help="Under torchrun: spread the weights over the processes.")
]
