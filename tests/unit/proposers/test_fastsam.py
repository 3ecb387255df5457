"""FastSAM's network, prompts and side effects, on random weights in small real architectures."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segclip.errors import BadPrompt, Unsupported, WeightsCorrupt, WeightsMissing
from segclip.proposers.fastsam import FastSAM, FastSAMFeatures, FastSAMOptions, join, save
from segclip.types import Boxes, Everything, Image, Masks, Points, Proposals
from tests.networks import random_network, sample_image, save_checkpoint

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def network() -> Any:
    return random_network("yolo11n-seg.yaml", candidates=150, size=192)


@pytest.fixture(scope="module")
def folder(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("proposer")
    save(network, path, {"image_size": 192, "confidence": 0.41})
    return path


@pytest.fixture(scope="module")
def fastsam(folder: Path) -> FastSAM:
    return FastSAM(folder)


@pytest.fixture(scope="module")
def features(fastsam: FastSAM) -> FastSAMFeatures:
    return fastsam.encode(sample_image(150, 200))


def known(
    *squares: tuple[int, int, int, int],
    quality: tuple[float, ...],
    size: tuple[int, int] = (60, 80),
) -> FastSAMFeatures:
    """Return features whose proposals are filled boxes."""
    none = torch.zeros(0)
    found = FastSAMFeatures(none, none, none, none, Image(np.zeros((*size, 3), np.uint8)))
    windows = [(x1, y1, np.ones((y2 - y1, x2 - x1), bool)) for x1, y1, x2, y2 in squares]
    proposals = Proposals(Masks.from_windows(windows, size), np.array(quality))
    found.__dict__["proposals"] = proposals  # where cached_property stores it
    return found


def test_proposes_masks_best_first(fastsam: FastSAM, features: FastSAMFeatures) -> None:
    proposals = fastsam.decode(features, Everything())
    assert len(proposals) > 10
    assert (np.diff(proposals.quality) <= 0).all()
    assert proposals.quality.min() >= 0.41
    assert proposals.masks.size == (150, 200)
    assert (proposals.masks.areas > 0).all()


def test_folder_keeps_its_settings_and_options_override_them(folder: Path) -> None:
    stored = FastSAM(folder)
    changed = FastSAM(folder, options=FastSAMOptions(image_size=64, iou=0.5))
    assert (stored.image_size, stored.confidence, stored.iou) == (192, 0.41, 0.9)
    assert (changed.image_size, changed.confidence, changed.iou) == (64, 0.41, 0.5)


def test_folder_round_trip_keeps_the_network(network: Any, folder: Path, tmp_path: Path) -> None:
    options = FastSAMOptions(image_size=192, confidence=0.41)
    exact = FastSAM(save_checkpoint(network, tmp_path / "network.pt"), options=options)
    image = sample_image(150, 200)
    ours = FastSAM(folder).decode(FastSAM(folder).encode(image), Everything())
    theirs = exact.decode(exact.encode(image), Everything())
    # norms are float16 in one and float32 in the other
    assert abs(len(ours) - len(theirs)) <= 0.05 * len(theirs)
    assert np.median(theirs.masks.iou(ours.masks).max(axis=1)) > 0.97


def test_folder_names_no_path_and_holds_no_pickle(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["nc"] == 1
    assert config["stride"] == 32
    assert "yaml_file" not in config["architecture"]


def test_folder_may_name_a_stock_architecture(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "yolo11n-seg.yaml", "nc": 1, "image_size": 64})
    )
    assert FastSAM(tmp_path).image_size == 64


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (97, 131), (480, 640)])
def test_any_size_is_processed(fastsam: FastSAM, size: tuple[int, int]) -> None:
    proposals = fastsam.decode(fastsam.encode(sample_image(*size)), Everything())
    assert proposals.masks.size == size


def test_grey_image_is_processed(fastsam: FastSAM) -> None:
    grey = Image(np.repeat(sample_image(90, 120).pixels[..., :1], 3, axis=2))
    assert fastsam.decode(fastsam.encode(grey), Everything()).masks.size == (90, 120)


def test_detections_of_two_frames_are_joined_in_the_first() -> None:
    size = (150, 210)
    detections = []
    for frame in ((160, 224), (96, 128)):
        gain = min(frame[0] / size[0], frame[1] / size[1])
        top, left = (
            round((full - round(side * gain)) / 2 - 0.1)
            for full, side in zip(frame, size, strict=True)
        )
        box = [100 * gain + left, 60 * gain + top, 40 * gain, 20 * gain]  # x, y, width, height
        ys = (torch.arange(frame[0] // 4) * 4 + 2 - top) / gain  # of the image
        xs = (torch.arange(frame[1] // 4) * 4 + 2 - left) / gain
        across = (ys[:, None] + 2 * xs)[None]
        detections.append((torch.tensor([[*box, 0.5, 3.0]]).T, across, frame))
    prediction, prototypes = join(detections[0], detections[1], size)
    torch.testing.assert_close(prediction[:4, 0], prediction[:4, 1], atol=0.3, rtol=0)
    assert prediction[4:, 0].tolist() == [0.5, 3.0, 0.0]
    assert prediction[4:, 1].tolist() == [0.5, 0.0, 3.0]
    inner = np.s_[5:-5, 5:-5]
    torch.testing.assert_close(prototypes[0][inner], prototypes[1][inner], atol=1.5, rtol=0)


def test_a_second_size_adds_candidates_and_keeps_the_rest(folder: Path, fastsam: FastSAM) -> None:
    image = sample_image(150, 200)
    both = FastSAM(folder, options=FastSAMOptions(again=96, iou=1.0, max_det=9000)).encode(image)
    one = FastSAM(folder, options=FastSAMOptions(iou=1.0, max_det=9000)).encode(image)
    assert len(both.boxes) > len(one.boxes)
    distances = torch.cdist(one.boxes, both.boxes, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(distances.min(dim=1).values.max()) < 1e-3
    assert len(both.proposals) > len(one.proposals)


def test_finding_nothing_is_an_empty_answer(folder: Path) -> None:
    blind = FastSAM(folder, options=FastSAMOptions(confidence=1.0))
    features = blind.encode(sample_image(60, 80))
    assert len(blind.decode(features, Everything())) == 0
    assert len(blind.decode(features, Points([(5, 5)]))) == 0
    boxes = blind.decode(features, Boxes([(0, 0, 10, 10), (5, 5, 20, 20)]))
    assert boxes.quality.tolist() == [0, 0]
    assert boxes.masks.areas.tolist() == [0, 0]


def test_max_det_keeps_the_best(folder: Path, fastsam: FastSAM, features: FastSAMFeatures) -> None:
    few = FastSAM(folder, options=FastSAMOptions(max_det=5)).encode(sample_image(150, 200))
    assert torch.equal(few.confidence, features.confidence[:5])


def test_row_i_answers_box_i(fastsam: FastSAM) -> None:
    found = known((0, 0, 10, 10), (40, 30, 60, 50), (42, 32, 50, 40), quality=(0.9, 0.8, 0.7))
    boxes = [(41, 30, 61, 50), (70, 0, 80, 10), (0, 0, 9, 11), (42, 32, 50, 40), (0, 0, 9, 11)]
    answer = fastsam.decode(found, Boxes(boxes))
    assert answer.masks.boxes.tolist() == [
        [40, 30, 60, 50],
        [0] * 4,
        [0, 0, 10, 10],
        [42, 32, 50, 40],
        [0, 0, 10, 10],
    ]
    np.testing.assert_allclose(answer.quality, [0.8, 0, 0.9, 0.7, 0.9])


def test_box_rule_is_iou_of_mask_and_box(fastsam: FastSAM, features: FastSAMFeatures) -> None:
    everything = fastsam.decode(features, Everything())
    dense = everything.masks.to_dense()
    boxes = np.array([(10, 20, 60, 90), (0, 0, 200, 150), (100, 40, 131, 77)])
    answer = fastsam.decode(features, Boxes(boxes))
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        shared = dense[:, y1:y2, x1:x2].sum(axis=(1, 2))
        best = np.argmax(shared / ((x2 - x1) * (y2 - y1) + dense.sum(axis=(1, 2)) - shared))
        assert np.array_equal(answer.masks.full(row), dense[best])


@pytest.mark.parametrize(
    ("xy", "labels", "rows"),
    [
        ([(20, 20)], [1], [0, 1]),  # a whole and its part: both, best first
        ([(20, 20), (50, 30)], [1, 1], [0]),  # only the whole contains both
        ([(20, 20), (50, 30)], [1, 0], [1]),  # only the part excludes the background point
        ([(20, 20), (75, 55)], [1, 1], [0, 1, 2]),  # none contains both: those that contain one
        ([(70, 5)], [1], []),
        ([(20, 20)], [0], [2]),
    ],
)
def test_points_rank_whole_candidates(
    fastsam: FastSAM, xy: Any, labels: Any, rows: list[int]
) -> None:
    found = known((0, 0, 60, 50), (10, 10, 30, 30), (70, 50, 80, 60), quality=(0.9, 0.6, 0.5))
    answer = fastsam.decode(found, Points(xy, labels))
    assert answer.masks.boxes.tolist() == found.proposals.masks.boxes[rows].tolist()


def test_w9_points_are_never_painted_into_a_union(
    fastsam: FastSAM, features: FastSAMFeatures
) -> None:
    everything = fastsam.decode(features, Everything())
    candidates = {mask.tobytes() for mask in everything.masks.to_dense()}
    answer = fastsam.decode(features, Points([(100, 75), (20, 130)]))
    assert len(answer)
    assert {mask.tobytes() for mask in answer.masks.to_dense()} <= candidates


@pytest.mark.parametrize(
    "prompt",
    [
        Points([(200, 10)]),
        Points([(10, 10), (-1, 0)]),
        Points([(0, 150)]),
        Boxes([(0, 0, 9, 9), (150, 0, 201, 9)]),
    ],
)
def test_prompt_outside_the_image_names_the_range(
    fastsam: FastSAM, features: FastSAMFeatures, prompt: Points | Boxes
) -> None:
    with pytest.raises(BadPrompt, match=r"\[0, 200[\])] and y in \[0, 150[\])]"):
        fastsam.decode(features, prompt)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "float16"},
        {"confidence": 1.5},
        {"iou": -0.1},
        {"image_size": 0},
        {"max_det": 0},
        {"again": -1},
    ],
)
def test_error_of_a_bad_option_names_what_is_allowed(options: dict[str, Any]) -> None:
    with pytest.raises(BadPrompt, match=r"must|choose"):
        FastSAMOptions(**options)


def test_bfloat16_finds_about_the_same(folder: Path, features: FastSAMFeatures) -> None:
    low = FastSAM(folder, options=FastSAMOptions(precision="bfloat16")).encode(
        sample_image(150, 200)
    )
    overlap = features.proposals.masks.iou(low.proposals.masks).max(axis=1)
    assert np.median(overlap) > 0.5  # random weights are the worst case


def test_missing_damaged_and_foreign_weights_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="nowhere"):
        FastSAM(tmp_path / "nowhere.pt")
    with pytest.raises(WeightsMissing, match=r"config\.json and no model\.safetensors"):
        FastSAM(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(WeightsCorrupt):
        FastSAM(tmp_path)
    (tmp_path / "network.onnx").write_bytes(b"0")
    with pytest.raises(Unsupported, match=r"network\.onnx"):
        FastSAM(tmp_path / "network.onnx")


def test_unknown_pickle_with_foreign_code_needs_trust(tmp_path: Path) -> None:
    torch.save({"model": Foreign(tmp_path / "ran")}, tmp_path / "foreign.pt")
    with pytest.raises((Unsupported, WeightsCorrupt)):
        FastSAM(tmp_path / "foreign.pt")
    assert not (tmp_path / "ran").exists()


class Foreign:
    """Leave a file behind when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_architecture_outside_the_package_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "https://example.org/y.yaml", "nc": 1})
    )
    with pytest.raises(WeightsCorrupt, match="architecture"):
        FastSAM(tmp_path)


def test_fused_network_is_not_saved(network: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fuse"):
        save(copy.deepcopy(network).eval().fuse(verbose=False), tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


_SIDE_EFFECTS = """
import os, sys
sockets = []
sys.addaudithook(lambda event, args: sockets.append(event) if event.startswith("socket.") else None)
import cv2, numpy, torch
torch.set_num_threads(2), cv2.setNumThreads(2)
before = torch.get_num_threads(), cv2.getNumThreads(), str(numpy.get_printoptions())
before = *before, os.environ.get("OMP_NUM_THREADS")
from pathlib import Path
from segclip.proposers.fastsam import FastSAM
from segclip.types import Everything, Image
fastsam = FastSAM(Path(sys.argv[1]))
fastsam.decode(fastsam.encode(Image(numpy.zeros((40, 60, 3), numpy.uint8))), Everything())
after = torch.get_num_threads(), cv2.getNumThreads(), str(numpy.get_printoptions())
after = *after, os.environ.get("OMP_NUM_THREADS")
assert before == after, (before, after)
assert not sockets, sockets
assert "torchvision" not in sys.modules  # as slow to import as torch
"""


def test_ultralytics_has_no_side_effects(folder: Path, tmp_path: Path) -> None:
    """No sockets, no output, files only in our cache folder, thread counts and environment kept."""
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    ours = ("YOLO", "ULTRALYTICS", "OMP_", "XDG_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"HOME": str(home), "SEGCLIP_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _SIDE_EFFECTS, str(folder)]
    run = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert not list(home.rglob("*"))
    assert {path.name for path in cache.iterdir()} == {"ultralytics"}
    assert {path.name for path in tmp_path.iterdir()} == {"home", "cache"}
