"""SAM v1 against segment-anything's own predictor and mask generator: the same random weights, the
same answers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry

from segclip import images
from segclip.proposers.grid import GridOptions
from segclip.proposers.promptable import SAMOptions
from segclip.proposers.sam import SAM, Architecture, ViT
from segclip.types import Array, Boxes, Everything, Image, Points, Proposals
from tests.networks import sample_image

pytestmark = pytest.mark.parity

OFF = 40.0
REDUCED = Architecture(
    image_size=256,
    patch=16,
    encoder=ViT(width=96, depth=4, heads=4, window=7, global_blocks=(1, 3)),
    channels=64,
    mask_channels=16,
    decoder_depth=2,
    decoder_mlp=128,
    quality_width=64,
)
PROMPTS = {
    "a click": Points([(120, 80)]),
    "clicks": Points([(120, 80), (30, 150), (190, 100)], [1, 0, 1]),
    "a box": Points([], box=(20, 30, 180, 140)),
    "a click in a box": Points([(90, 70)], box=(20, 30, 180, 140)),
    "a background click in a box": Points([(90, 70)], [0], box=(20, 30, 180, 140)),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sam") / "sam_vit_b_reduced.pth"
    network = REDUCED.build()
    _speak_up(network)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def choosy(checkpoint: Path) -> Path:
    """Give a network whose masks are small, so that their boxes differ and suppression has
    something to decide.
    """
    network = REDUCED.build()
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    with torch.no_grad():
        last = network.mask_decoder.output_upscaling[
            -2
        ]  # its first channel becomes a constant, which is taken off
        last.weight[:, 0], last.bias[0] = 0, 1
        for head in network.mask_decoder.output_hypernetworks_mlps:
            head.layers[-1].weight.mul_(10)
            head.layers[-1].bias.mul_(10)
            head.layers[-1].weight[0], head.layers[-1].bias[0] = 0, -OFF
    torch.save(network.state_dict(), checkpoint.parent / "sam_choosy.pth")
    return checkpoint.parent / "sam_choosy.pth"


def _speak_up(network: torch.nn.Module) -> None:
    """Bring random logits to the deviation of trained ones: of a random network all lie within 0.1
    of zero.
    """
    with torch.no_grad():
        for head in network.mask_decoder.output_hypernetworks_mlps:
            head.layers[-1].weight.mul_(60)
            head.layers[-1].bias.mul_(60)
        network.mask_decoder.iou_prediction_head.layers[-1].weight.mul_(3)


def upstream(path: Path) -> torch.nn.Module:
    network = REDUCED.build()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def agree(ours: Proposals, masks: Array, quality: Array, logits: Array) -> None:
    """Compare answers as sets: ours come best first, without those that have no pixel."""
    assert ours.logits is not None
    order = [row for row in np.argsort(-quality, kind="stable") if masks[row].any()]
    np.testing.assert_allclose(ours.quality, quality[order], atol=1e-4)
    np.testing.assert_allclose(ours.logits, logits[order], atol=1e-4)
    assert (ours.masks.to_dense() != masks[order]).mean() < 1e-4


@pytest.mark.parametrize("size", [(200, 300), (300, 200), (256, 256), (411, 1000)])
@pytest.mark.parametrize("multimask", [True, False])
def test_points_and_boxes_are_sam_predictors(
    checkpoint: Path, size: tuple[int, int], multimask: bool
) -> None:
    image = sample_image(*size)
    predictor = SamPredictor(upstream(checkpoint))
    predictor.set_image(image.pixels)
    sam = SAM(checkpoint, options=SAMOptions(multimask=multimask))
    features = sam.encode(image)
    assert torch.allclose(features.maps, predictor.features, atol=1e-4)
    for prompt in PROMPTS.values():
        points = (prompt.xy, prompt.labels) if len(prompt.xy) else (None, None)
        theirs = predictor.predict(*points, box=prompt.box, multimask_output=multimask)
        agree(sam.decode(features, prompt), *theirs)


def test_a_mask_is_refined_as_sam_predictor_does(checkpoint: Path) -> None:
    image = sample_image(200, 300)
    predictor = SamPredictor(upstream(checkpoint))
    predictor.set_image(image.pixels)
    sam = SAM(checkpoint)
    features = sam.encode(image)
    first = sam.decode(features, Points([(120, 80)]))
    assert first.logits is not None
    _, _, logits = predictor.predict(np.array([[120, 80]]), np.array([1]))
    best = logits[predictor.predict(np.array([[120, 80]]), np.array([1]))[1].argmax()]
    theirs = predictor.predict(
        np.array([[120, 80], [60, 60]]),
        np.array([1, 0]),
        mask_input=best[None],
        multimask_output=False,
    )
    agree(
        sam.decode(features, Points([(120, 80), (60, 60)], [1, 0], mask=first.logits[0])), *theirs
    )


def test_many_boxes_in_one_call_are_as_one_by_one(checkpoint: Path) -> None:
    image = sample_image(200, 300)
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 120, (50, 2)), rng.uniform(10, 80, (50, 2))
    boxes = np.hstack([corner, corner + side])
    predictor = SamPredictor(upstream(checkpoint))
    predictor.set_image(image.pixels)
    sam = SAM(checkpoint, options=SAMOptions(boxes_per_batch=16))
    ours = sam.decode(sam.encode(image), Boxes(boxes))
    assert len(ours) == 50
    for row, box in enumerate(boxes):
        masks, quality, logits = predictor.predict(box=box, multimask_output=False)
        assert (ours.masks.full(row) != masks[0]).mean() < 1e-4
        assert ours.quality[row] == pytest.approx(quality[0], abs=1e-4)
        assert ours.logits is not None
        np.testing.assert_allclose(ours.logits[row], logits[0], atol=1e-4)


def same_set(ours: Proposals, theirs: list[dict[str, Array]]) -> None:
    """Match each of our masks with one of theirs."""
    assert len(ours) == len(theirs)
    dense = np.stack([row["segmentation"] for row in theirs])
    left = list(range(len(theirs)))
    for row in range(len(ours)):
        mask = ours.masks.full(row)
        iou = [np.count_nonzero(mask & dense[k]) / np.count_nonzero(mask | dense[k]) for k in left]
        best = int(np.argmax(iou))
        assert iou[best] >= 0.99
        assert theirs[left[best]]["predicted_iou"] == pytest.approx(
            float(ours.quality[row]), abs=1e-4
        )
        left.pop(best)


GRIDS = {
    "plain": GridOptions(
        points_per_side=5, points_per_batch=8, min_quality=-9, min_stability=0.5, nms=1.0
    ),
    "suppressed": GridOptions(
        points_per_side=6, points_per_batch=64, min_quality=0.05, min_stability=0.2, nms=0.8
    ),
    "tidied": GridOptions(
        points_per_side=5, min_quality=0.05, min_stability=0.2, nms=0.95, min_area=12
    ),
    "in crops": GridOptions(
        points_per_side=4,
        min_quality=0.05,
        min_stability=0.2,
        nms=0.9,
        crop_nms=0.7,
        crop_layers=1,
        crop_downscale=2,
    ),
}


def generator(network: torch.nn.Module, options: GridOptions) -> SamAutomaticMaskGenerator:
    return SamAutomaticMaskGenerator(
        network,
        points_per_side=options.points_per_side,
        points_per_batch=options.points_per_batch,
        pred_iou_thresh=options.min_quality,
        stability_score_thresh=options.min_stability,
        stability_score_offset=options.stability_offset,
        box_nms_thresh=options.nms,
        crop_n_layers=options.crop_layers,
        crop_nms_thresh=options.crop_nms,
        crop_n_points_downscale_factor=options.crop_downscale,
        min_mask_region_area=options.min_area,
    )


@pytest.mark.parametrize("name", GRIDS)
def test_everything_is_the_mask_generators(choosy: Path, name: str) -> None:
    image = sample_image(200, 300)
    theirs = generator(upstream(choosy), GRIDS[name]).generate(image.pixels)
    sam = SAM(choosy, options=SAMOptions(grid=GRIDS[name]))
    ours = sam.decode(sam.encode(image), Everything())
    assert len(ours) >= 3
    assert np.all(np.diff(ours.quality) <= 0)
    same_set(ours, theirs)


@pytest.mark.shared
def test_everything_on_photographs(choosy: Path, shared_data: Path) -> None:
    network = upstream(choosy)
    sam = SAM(choosy, options=SAMOptions(grid=GRIDS["plain"]))
    photos = sorted((shared_data / "coco-dev" / "images").glob("*.jpg"))[:5]
    assert len(photos) == 5
    for path in photos:
        image: Image = images.load(path)
        ours = sam.decode(sam.encode(image), Everything())
        assert len(ours) >= 3
        same_set(ours, generator(network, GRIDS["plain"]).generate(image.pixels))


@pytest.mark.long
def test_a_full_vit_b_is_read_and_answers_alike(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = sam_model_registry["vit_b"]()
    _speak_up(network)
    torch.save(network.state_dict(), tmp_path / "sam_vit_b_01ec64.pth")
    image = sample_image(480, 640)
    predictor = SamPredictor(network.eval())
    predictor.set_image(image.pixels)
    sam = SAM(tmp_path / "sam_vit_b_01ec64.pth")
    features = sam.encode(image)
    agree(
        sam.decode(features, Points([(300, 200)])),
        *predictor.predict(np.array([[300, 200]]), np.array([1])),
    )
    box = (100, 50, 400, 380)
    theirs = predictor.predict(box=np.array(box), multimask_output=False)
    agree(sam.decode(features, Points([], box=box)), *theirs)


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("vit_b", ViT(768, 12, 12, 14, (2, 5, 8, 11))),
        ("vit_l", ViT(1024, 24, 16, 14, (5, 11, 17, 23))),
        ("vit_h", ViT(1280, 32, 16, 14, (7, 15, 23, 31))),
    ],
)
def test_sizes_are_read_off_the_tensors(name: str, encoder: ViT) -> None:
    with torch.device("meta"):
        network = sam_model_registry[name]()
    architecture = Architecture.of(network.state_dict())
    assert architecture.encoder == encoder
    assert (architecture.image_size, architecture.patch) == (1024, 16)
    assert (
        architecture.channels,
        architecture.mask_channels,
        architecture.decoder_depth,
        architecture.decoder_mlp,
        architecture.quality_width,
    ) == (
        256,
        16,
        2,
        2048,
        256,
    )
