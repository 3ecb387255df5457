"""MobileSAM and SAM 2.1 against ultralytics' own predictor: the same random weights, the same
answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segclip.proposers.promptable import SAMOptions
from segclip.proposers.ultralytics_sam import VARIANTS, UltralyticsSAM
from segclip.proposers.yolo import quiet
from segclip.types import Boxes, Points, Proposals
from tests.networks import sample_image

pytestmark = pytest.mark.parity

SIZES = {
    "landscape": (300, 400),
    "odd": (333, 517),
}  # the second's padding ends inside a cell of the logits
PROMPTS: dict[str, Points] = {
    "a click": Points([(120, 80)]),
    "clicks": Points([(120, 80), (30, 150), (190, 100)], [1, 0, 1]),
    "a click in a box": Points([(90, 70)], box=(20, 30, 180, 140)),
}


def write(name: str, folder: Path) -> Path:
    """Save a random network as ultralytics' files hold them."""
    torch.manual_seed(0)
    with quiet():
        from ultralytics.models.sam import build

        network = getattr(build, VARIANTS[name])()
    decoder = (
        network.sam_mask_decoder if hasattr(network, "sam_mask_decoder") else network.mask_decoder
    )
    with torch.no_grad():
        for head in decoder.output_hypernetworks_mlps:  # random logits all lie within 0.1 of zero
            head.layers[-1].weight.mul_(60)
            head.layers[-1].bias.mul_(60)
    state = network.state_dict()
    if name.startswith("sam2.1"):  # what the video memory of version 2.1 adds
        state |= {
            "no_obj_embed_spatial": torch.zeros(1, 64),
            "obj_ptr_tpos_proj.weight": torch.zeros(64, 256),
        }
        state |= {"obj_ptr_tpos_proj.bias": torch.zeros(64)}
    path = folder / f"{name}.pt"
    torch.save({"model": state} if name.startswith("sam2.1") else state, path)
    return path


@pytest.fixture(scope="module", params=["mobile_sam", "sam2.1_t"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(request.param, tmp_path_factory.mktemp("sam"))


def upstream(path: Path) -> Any:
    with quiet():
        from ultralytics.models.sam import Predictor, SAM2Predictor

        kind = SAM2Predictor if "sam2" in path.name else Predictor
        settings = {
            "model": str(path),
            "imgsz": 1024,
            "save": False,
            "verbose": False,
            "device": "cpu",
        }
        predictor = kind(overrides={**settings, "mode": "predict", "task": "segment"})
        predictor.setup_model(verbose=False)
        predictor.args.conf = -9.0  # show every mask
    return predictor


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_points_and_boxes_are_ultralytics_predictors(
    checkpoint: Path, size: tuple[int, int]
) -> None:
    image = sample_image(*size)
    predictor = upstream(checkpoint)
    bgr = np.ascontiguousarray(image.pixels[..., ::-1])
    sam = UltralyticsSAM(checkpoint, options=SAMOptions(multimask=True))
    features = sam.encode(image)
    with quiet():
        predictor.set_image(bgr)
        for prompt in PROMPTS.values():
            box = None if prompt.box is None else prompt.box[None]
            prompts = {
                "bboxes": box,
                "points": prompt.xy[None],
                "labels": prompt.labels[None],
                "multimask_output": True,
            }
            result = predictor(**prompts)[
                0
            ]  # first, for it keeps the image's size that the next call needs
            raw = predictor.prompt_inference(torch.zeros(1, 3, 1024, 1024), **prompts)
            agree(sam.decode(features, prompt), raw, result)


def agree(ours: Proposals, raw: tuple[torch.Tensor, torch.Tensor], result: Any) -> None:
    """Compare with the predictor's logits and scores, and with the masks it shows."""
    logits, quality = raw[0].detach().numpy(), raw[1].detach().numpy()
    masks = result.masks.data.numpy().astype(bool)
    assert ours.logits is not None
    order = [row for row in np.argsort(-quality, kind="stable") if masks[row].any()]
    np.testing.assert_allclose(ours.quality, quality[order], atol=1e-4)
    np.testing.assert_allclose(ours.logits, logits[order], atol=1e-3, rtol=1e-4)
    assert (ours.masks.to_dense() != masks[order]).mean() < 1e-4


def test_many_boxes_in_one_call_are_as_one_by_one(checkpoint: Path) -> None:
    image = sample_image(300, 400)
    boxes = np.array([(10, 20, 100, 90), (50, 60, 300, 280), (200, 10, 390, 120)], np.float32)
    sam = UltralyticsSAM(checkpoint)
    features = sam.encode(image)
    together = sam.decode(features, Boxes(boxes))
    for row, box in enumerate(boxes):
        alone = sam.decode(features, Boxes(box))
        assert together.quality[row] == pytest.approx(alone.quality[0], abs=1e-4)
        assert (together.masks.full(row) != alone.masks.full(0)).mean() < 1e-4
