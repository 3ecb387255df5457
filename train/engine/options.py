"""Declare the options that several recipes share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Captioned: TypeAlias = Annotated[
    Path, typer.Argument(help="Images with captions; see train/README.md.")
]
Images: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder of the images, if not next to DATA.")
]
HeldOutShare: TypeAlias = Annotated[
    float, typer.Option(help="Share of validation images, if DATA has no split.")
]
SkipBad: TypeAlias = Annotated[
    bool, typer.Option("--skip-bad", help="Skip missing images and empty captions.")
]
Out: TypeAlias = Annotated[Path, typer.Option(help="Folder of the run; served as file:OUT.")]
Resume: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Resume from the last checkpoint in OUT.")
]
Side: TypeAlias = Annotated[
    int, typer.Option(help="Side of the images; 0 for the CLIP's own, required for transformers.")
]
Stride: TypeAlias = Annotated[
    int, typer.Option(help="Px from patch to patch of a timm ResNet; 0 for its own.")
]
CaptionsEach: TypeAlias = Annotated[int, typer.Option(help="Captions per image in a batch.")]
WarmUp: TypeAlias = Annotated[int, typer.Option(help="Warm-up steps.")]
ModelName: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Random weights: small, small-vit, small-rn, an open_clip model, a .json."),
]
Size: TypeAlias = Annotated[
    int | None, typer.Option(help="Side of the images, with random weights.")
]
StartFrom: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Weights to start from: file:RUN, MODEL/TAG, MODEL/file:PATH."),
]
Tune: TypeAlias = Annotated[str, typer.Option(help="full, image (text frozen), text (LiT), lora.")]
Template: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="A sentence with {} for the caption; repeatable."),
]
Hard: TypeAlias = Annotated[
    int, typer.Option(help="Hard negatives: images with the nearest texts per image.")
]
Chunk: TypeAlias = Annotated[
    int, typer.Option(help="Rows embedded at a time, to fit a large batch in memory; 0 for all.")
]
TextRate: TypeAlias = Annotated[
    float, typer.Option(help="Text tower's learning rate, relative to the image tower's.")
]
HeadRate: TypeAlias = Annotated[
    float, typer.Option(help="Projections' learning rate, relative to the image tower's.")
]
Ema: TypeAlias = Annotated[
    float, typer.Option(help="Decay of the served weight average; 0 for none.")
]
Patience: TypeAlias = Annotated[
    int, typer.Option(help="Stop after this many epochs without a better R@1; 0 for never.")
]
Bfloat16: TypeAlias = Annotated[
    bool, typer.Option("--bfloat16", help="Compute in bfloat16 where it is safe.")
]
Fsdp: TypeAlias = Annotated[
    bool, typer.Option("--fsdp", help="Under torchrun: shard the weights over the processes.")
]
StoredCrops: TypeAlias = Annotated[Path, typer.Argument(help="Folder of crops, for their classes.")]
StoredFeatures: TypeAlias = Annotated[Path, typer.Argument(help="Folder of their features.")]
Photos: TypeAlias = Annotated[
    list[Path], typer.Option(help="COCO-format folder of photos; repeatable.")
]
Foreground: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder of the cut-outs' masks, next to their photos.")
]
ServedOut: TypeAlias = Annotated[
    Path, typer.Option(help="Folder for model.safetensors and config.json.")
]
Runs: TypeAlias = Annotated[Path, typer.Option(help="Folder for checkpoints.")]
Minutes: TypeAlias = Annotated[
    float, typer.Option(help="Training time; the learning rate schedule ends with it.")
]
FirstTile: TypeAlias = Annotated[
    int, typer.Option(help="Seed of the first tile; use another one for every run.")
]
ResumeRuns: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Resume from the last checkpoint in RUNS.")
]
BackgroundPhotos: TypeAlias = Annotated[
    Path | None, typer.Option(help="COCO-format folder of photos for backgrounds.")
]
PeakRate: TypeAlias = Annotated[
    float, typer.Option(help="Maximum learning rate; lower it to go on from earlier weights.")
]
OnlySources: TypeAlias = Annotated[str, typer.Option(help="Comma-separated sources; default: all.")]
SceneCount: TypeAlias = Annotated[int, typer.Option(help="Number of scenes.")]
ValidationCount: TypeAlias = Annotated[int, typer.Option(help="Number of validation scenes.")]
