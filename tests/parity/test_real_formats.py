"""The photo presets' real architectures, random weights in the real formats, through the command on
photographs.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

import segclip
from segclip.cli.main import app
from segclip.proposers.fastsam import FastSAM, FastSAMOptions
from segclip.ranking.selection import Selection
from segclip.types import Boxes, Points

from ..networks import random_network, save_checkpoint

pytestmark = [pytest.mark.parity, pytest.mark.slow]


@pytest.fixture(scope="module")
def fastsam_s(tmp_path_factory: pytest.TempPathFactory) -> str:
    network = random_network("yolov8s-seg.yaml", candidates=12, size=320)
    return f"file:{save_checkpoint(network, tmp_path_factory.mktemp('fastsam') / 'FastSAM-s.pt')}"


@pytest.fixture(scope="module")
def vit_b_32(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip") / "open_clip_model.safetensors"
    safetensors.torch.save_file(open_clip.create_model("ViT-B-32").state_dict(), path)
    return f"ViT-B-32/file:{path}"


@pytest.mark.shared
def test_twenty_photographs_are_answered(fastsam_s: str, vit_b_32: str, shared_data: Path) -> None:
    loaded = segclip.load(fastsam_s, vit_b_32, device="cpu", trust=True)
    few = FastSAM(
        Path(fastsam_s.removeprefix("file:")),
        trust=True,
        options=FastSAMOptions(image_size=320, max_det=8),
    )
    segmenter = replace(loaded, proposer=few)
    photos = sorted((shared_data / "coco-dev" / "images").glob("*.jpg"))[4::14][:20]
    assert len(photos) == 20
    for photo in photos:
        result = segmenter(photo, ["a person", "a dog"], selection=Selection(best=True))
        assert result.masks.size == result.image.size
        assert len(result) in (0, 2)
        assert (result.masks.areas > 0).all()


def test_the_command_runs_on_the_real_formats(
    fastsam_s: str, vit_b_32: str, tmp_path: Path
) -> None:
    sample = Path(__file__).parent.parent.parent / "samples" / "desk.png"
    options = [
        "--proposer",
        fastsam_s,
        "--encoder",
        vit_b_32,
        "--best",
        # the untrained network proposes 300 masks, each a crop for ViT-B/32; 9 of them lie here
        "--box",
        "0,0,320,240",
        "--offline",
        "--trust",
        "--out",
        str(tmp_path),
    ]
    outcome = CliRunner().invoke(app, ["segment", str(sample), "an apple", *options])
    assert outcome.exit_code == 0, outcome.output
    record = json.loads((tmp_path / "desk.json").read_text("utf-8"))
    assert [row["text"] for row in record["rows"]] == ["an apple"]


def test_spatial_prompts_run_on_the_real_formats(fastsam_s: str, vit_b_32: str) -> None:
    segmenter = segclip.load(fastsam_s, vit_b_32, device="cpu", trust=True)
    sample = Path(__file__).parent.parent.parent / "samples" / "desk.png"
    boxes = segmenter.regions(sample, Boxes([(50, 100, 250, 400), (300, 50, 600, 300)]))
    assert len(boxes) == 2
    assert len(segmenter.regions(sample, Points([(160, 280)]))) <= 300
