"""Networks of ultralytics are saved, loaded without side effects, and hold no code."""

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

from segclip.errors import Unsupported, WeightsCorrupt, WeightsMissing
from segclip.proposers.fastsam import FastSAM, FastSAMOptions, save
from segclip.types import Everything
from tests.networks import sample_image, save_checkpoint

ROOT = Path(__file__).parents[3]


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
