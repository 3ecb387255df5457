"""A GPU gives the CPU's answers: every model that proposes, the encoder, a training run, an
export.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import segclip
from segclip.encoders.openclip import OpenClip, OpenClipOptions
from segclip.loading import load, load_proposer
from segclip.proposers.fastsam import FastSAM
from segclip.proposers.promptable import SAMOptions
from segclip.proposers.ultralytics_sam import UltralyticsSAM
from segclip.types import Boxes, Everything, Image, Points, Prompt, Proposals
from tests.networks import random_network, sample_image, save_checkpoint
from tests.parity.test_ultralytics_sam_parity import write
from tests.small_clip import save_small_clip
from train import contrastive, shapes
from train.contrastive import Contrastive, ContrastiveRecipe
from train.engine.loop import Loop, LoopSettings
from train.engine.start import begin

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
ROOT = Path(__file__).parents[2]
DESK = ROOT / "samples" / "desk.png"
PROMPTS: tuple[Prompt, ...] = (
    Points([(120, 80)]),
    Boxes([(20, 30, 180, 140), (200, 100, 380, 290)]),
)


def alike(here: Proposals, there: Proposals, *, iou: float = 0.97) -> None:
    """Compare row by row."""
    assert len(here) == len(there) > 0
    assert np.diag(here.masks.iou(there.masks)).min() >= iou
    assert np.allclose(here.quality, there.quality, atol=0.02)


@pytest.fixture
def photo() -> Image:
    return sample_image(300, 400)


def test_a_gpu_is_taken_where_there_is_one() -> None:
    assert next(load_proposer("mini").network.parameters()).is_cuda  # type: ignore[attr-defined]


def test_texts_are_answered_as_on_the_cpu() -> None:
    texts = ["a red apple", "a mug", "an elephant", "the left mug"]
    here, there = (load("mini", device=device)(DESK, texts) for device in ("cpu", "cuda"))
    assert here.texts == there.texts
    assert here.unanswered == there.unanswered
    assert np.diag(here.masks.iou(there.masks)).min() > 0.95
    assert np.allclose(here.similarity, there.similarity, atol=0.02)  # bfloat16 on both sides


def test_clicks_and_boxes_of_the_shipped_sam_are_those_of_the_cpu() -> None:
    image = segclip.images.load(DESK)
    height, width = image.pixels.shape[:2]
    models = [load_proposer("mini-sam", device=device) for device in ("cpu", "cuda")]
    box = (width / 4, height / 4, width * 3 / 4, height * 3 / 4)
    for prompt in (Points([(width / 2, height / 2)]), Boxes([box, (5, 5, width / 3, height / 3)])):
        alike(*(model.decode(model.encode(image), prompt) for model in models))


@pytest.mark.parametrize("name", ["mobile_sam", "sam2.1_t"])
def test_sam_networks_of_ultralytics_are_those_of_the_cpu(
    name: str, tmp_path: Path, photo: Image
) -> None:
    path = write(name, tmp_path)
    models = [
        UltralyticsSAM(path, device=device, options=SAMOptions(multimask=True))
        for device in ("cpu", "cuda")
    ]
    features = [model.encode(photo) for model in models]
    for prompt in PROMPTS:
        pairs = zip(models, features, strict=True)
        alike(*(model.decode(encoded, prompt) for model, encoded in pairs))


def test_fastsam_is_that_of_the_cpu(tmp_path: Path, photo: Image) -> None:
    path = save_checkpoint(
        random_network("yolov8s-seg.yaml", candidates=60), tmp_path / "FastSAM-s.pt"
    )
    models = [FastSAM(path, device=device, trust=True) for device in ("cpu", "cuda")]
    here, there = (model.decode(model.encode(photo), Everything()) for model in models)
    best = here.masks.iou(there.masks).max(axis=1)
    assert (
        np.mean(best > 0.95) > 0.9
    )  # scores of random weights lie close: some swap at the threshold


def test_embeddings_are_those_of_the_cpu(tmp_path: Path) -> None:
    save_small_clip(tmp_path)
    encoders = [
        OpenClip(f"file:{tmp_path}", device=d, options=OpenClipOptions(precision="float32"))
        for d in ("cpu", "cuda")
    ]
    side = encoders[0].image_size
    crops = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), np.uint8)
    here, there = (encoder.encode_images(crops) for encoder in encoders)
    assert np.allclose(here, there, atol=2e-3)  # TF32 may be on
    here, there = (encoder.encode_texts(["a mug", "a red apple"]) for encoder in encoders)
    assert np.allclose(here, there, atol=2e-3)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_run_trains_on_the_gpu_goes_on_and_serves_on_the_cpu(
    tmp_path: Path, bfloat16: bool
) -> None:
    shapes.write(tmp_path / "scenes", 400, held_out=80)
    parts = contrastive.parts_of(tmp_path / "scenes", None, share=0.1, skip_bad=False)
    for epochs in (2, 6):  # the second goes on where the first ended
        settings = LoopSettings(epochs=epochs, batch=32, warm_up=5, lr=2e-3, bfloat16=bfloat16)
        task = Contrastive(begin("small", None), parts, ContrastiveRecipe(augment="none"), settings)
        assert task.device.type == "cuda"
        made = Loop(task, tmp_path / "run", settings, {})
        if epochs > 2:
            made.resume()
        made.run()
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    here, there = (OpenClip(f"file:{tmp_path / 'run'}", device=d) for d in ("cpu", "cuda"))
    assert np.allclose(
        here.encode_texts(["a red star"]), there.encode_texts(["a red star"]), atol=0.02
    )


def test_an_export_writes_the_cpus_files(tmp_path: Path) -> None:
    rows = []
    for device in ("cpu", "cuda"):
        options = segclip.ExportOptions(formats=("json",), models=segclip.ModelSpec(device=device))
        summary = segclip.export(DESK, tmp_path / device, "a red apple", options=options)
        assert summary.states["failed"] == 0
        (record,) = (tmp_path / device).rglob("desk*.json")
        rows.append(json.loads(record.read_text())["rows"])
    assert [row["text"] for row in rows[0]] == [row["text"] for row in rows[1]]
