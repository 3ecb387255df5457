"""Make the set of labelled regions that ships, by which any encoder is calibrated.

    python -m train.release.calibration ../shared/caltech-101 ../shared/coco-dev --sheet all.png

Photographs of caltech-101 (CC BY 4.0), the fifth that nothing here was trained on. The named region
of each is what the shipped models find by the name of its folder; the sheet is for checking them by
eye. Regions without a name are other candidates of the same photographs: parts of the object and
pieces of background. Objects of these photographs are easy to find, so that the proposer is surer
of them than of most; the qualities are those of candidates in the second folder's photographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import PIL.Image
import typer

from segclip import images
from segclip.evaluation.datasets import RIGHT, Sample, read_folder
from segclip.loading import load
from segclip.proposers import Proposer
from segclip.ranking.selection import Selection
from segclip.scoring.labelled import SIDE, LabelledRegion, LabelledRegions, known_file, window
from segclip.segmenter import Segmenter
from segclip.types import Array, Everything, Regions

from ..engine import command
from ..regions.photo_lists import caltech_files
from ..scenes.photos import is_held_out

EACH, TRIED = 2, 5  # named regions of a class, and photographs that are tried for them
LIKELY = 12  # candidates of a photograph that are named
SURE, SOLID = 0.3, 0.5  # minimum probability and quality of a named region
DARK = 0.6  # share of black in an image of edges, of which some classes consist
AREA = (0.05, 0.85)  # of its photograph
APART = 0.3  # maximum IoU of a region without a name with the named one
PHOTOS = 40  # photographs that qualities are taken from
WORDS = {"car side": "car", "cougar body": "cougar", "faces": "face", "water lilly": "water lily"}
WORDS |= {"snoopy": "cartoon dog", "garfield": "cartoon cat", "windsor chair": "wooden chair"}


def find(segmenter: Segmenter, folder: Path, rng: np.random.Generator) -> Iterator[LabelledRegion]:
    """Find the regions of every class, and others of the same photographs."""
    kinds = sorted(path.name for path in folder.iterdir() if path.is_dir())
    for label, kind in enumerate(kinds):
        name = kind.replace("_", " ").lower()
        name = WORDS.get(name, name)
        files = [file for file, row in caltech_files(folder, held_out=True) if row == label]
        found = []
        for file in files[:TRIED]:
            image = images.load(file)
            if (image.pixels.max(axis=2) < 20).mean() > DARK:
                continue
            proposals = segmenter.proposer.decode(segmenter.proposer.encode(image), Everything())
            share = proposals.masks.areas / np.prod(image.size)
            is_likely = (share >= AREA[0]) & (share <= AREA[1]) & (proposals.quality >= SOLID)
            likely = np.flatnonzero(is_likely)[:LIKELY]
            masks = proposals.masks[likely]
            embeddings = segmenter.scorer.embed_regions(image, masks)
            regions = Regions(image, proposals[likely], embeddings)
            result = segmenter.rank(regions, name, selection=Selection(best=True))
            if len(result) and result.probability[0] >= SURE:
                found.append((float(result.probability[0]), result, proposals))
        found.sort(key=lambda row: -row[0])
        for _, result, proposals in found[:EACH]:
            masks = proposals.masks
            cut = window(result.image, result.masks, 0)
            yield LabelledRegion(name, *cut, float(result.quality[0]))
            apart = (masks.iou(result.masks)[:, 0] < APART) & (masks.areas > 150)
            others = np.flatnonzero(apart)
            for row in rng.choice(others, min(2, len(others)), replace=False):
                cut = window(result.image, masks, int(row))
                yield LabelledRegion("", *cut, float(proposals.quality[row]))
        typer.echo(f"{name}: {min(len(found), EACH)} of {len(files)}", err=True)


def qualities(proposer: Proposer, samples: Sequence[Sample]) -> tuple[Array, Array]:
    """Return the qualities of the candidates of objects, and of all others."""
    right, rest = [], []
    for sample in samples:
        proposals = proposer.decode(proposer.encode(sample.load()), Everything())
        iou = proposals.masks.iou(sample.masks)
        found = iou[:, sample.named].max(axis=0, initial=0) >= RIGHT
        right.append(proposals.quality[iou[:, sample.named].argmax(axis=0)[found]])
        rest.append(proposals.quality[iou.max(axis=1, initial=0) < APART])
    return np.concatenate(right), np.concatenate(rest)


def with_qualities(
    regions: LabelledRegions, qualities: tuple[Array, Array], rng: np.random.Generator
) -> LabelledRegions:
    """Draw each region's quality from those of objects, or of others if it has no name."""
    drawn = [rng.choice(qualities[0] if name else qualities[1]) for name in regions.names]
    return replace(regions, quality=np.array(drawn, np.float32))


def draw(regions: LabelledRegions) -> Array:
    """Draw all regions with their names on one sheet."""
    tiles = []
    for name, pixels, mask in zip(regions.names, regions.pixels, regions.masks, strict=True):
        tile = np.where(mask[..., None], pixels, pixels // 3).astype(np.uint8)
        tile = np.ascontiguousarray(cv2.copyMakeBorder(tile, 0, 12, 0, 0, cv2.BORDER_CONSTANT))
        cv2.putText(tile, name, (1, SIDE + 9), cv2.FONT_HERSHEY_PLAIN, 0.7, (255, 255, 255), 1)
        tiles.append(tile)
    across = 24
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % across)
    return np.concatenate(
        [np.concatenate(tiles[row : row + across], 1) for row in range(0, len(tiles), across)]
    )


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of caltech-101's class folders.")],
    photos: Annotated[Path, typer.Argument(help="Labelled photographs, for the qualities.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write, if not the one that ships.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Image of all regions, to check.")] = None,
) -> None:
    """Write the set of labelled regions."""
    segmenter, rng = load("mini"), np.random.default_rng(0)
    samples = [row for k, row in enumerate(read_folder(photos)) if not is_held_out(k)][:PHOTOS]
    measured = qualities(segmenter.proposer, samples)
    regions = LabelledRegions.join(list(find(segmenter, folder, rng)))
    regions = with_qualities(regions, measured, rng)
    regions.save(out or known_file())
    if sheet:
        PIL.Image.fromarray(draw(regions)).save(sheet)
    named = sum(bool(name) for name in regions.names)
    typer.echo(
        f"{out or known_file()}: {named} named regions, {len(regions.names) - named} without a name"
    )


if __name__ == "__main__":
    command.run(main)
