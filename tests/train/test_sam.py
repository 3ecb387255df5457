"""The recipe of mini-sam: prompts, tiles, loss; it learns, stops, resumes and serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from segclip.proposers import yolo
from segclip.proposers.sam import SAM
from segclip.types import Array, Boxes, Points
from tests.networks import sample_image
from train.engine import clicks, prompting
from train.engine.clicks import ClickPrompt
from train.engine.mask_loss import iou, judge, mask_loss
from train.sam import SamRecipe, SamRun
from train.scenes.glyphs import Glyph
from train.scenes.material import Material
from train.scenes.tiles import FRAME, PATCH, TILE, make_tile


def disc(size: int = 120) -> Array:
    pixels = np.zeros((size, size, 4), np.float32)
    ys, xs = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    pixels[xs**2 + ys**2 < 0.9] = (0.9, 0.1, 0.1, 1)
    return pixels


GLYPHS = [Glyph("o", "red disc", ("red disc",), "red", disc())]


def mask() -> Array:
    full = np.zeros((TILE, TILE), bool)
    full[100:160, 50:130] = True
    return full


def test_a_first_prompt_is_on_the_object_or_a_box_around_it() -> None:
    asks = [clicks.first_prompt(np.random.default_rng(seed), mask()) for seed in range(60)]
    boxes = np.array([ask.box for ask in asks if ask.box])
    assert 15 < len(boxes) < 45
    assert np.abs(boxes - (50, 100, 130, 160)).max() < 11
    for ask in asks:
        assert bool(ask.clicks) != bool(ask.box)
        for x, y, label in ask.clicks:
            assert mask()[int(y), int(x)]
            assert label == 1


def test_a_correction_lies_in_the_larger_error() -> None:
    predicted = mask()
    predicted[100:140] = False
    x, y, label = clicks.correction(np.random.default_rng(0), mask(), predicted)
    assert (mask() & ~predicted)[y, x]
    assert label == 1
    predicted = mask()
    predicted[:60] = True
    x, y, label = clicks.correction(np.random.default_rng(0), mask(), predicted)
    assert (predicted & ~mask())[y, x]
    assert label == 0
    x, y, label = clicks.correction(np.random.default_rng(0), mask(), mask())
    assert mask()[y, x]
    assert label == 1


def test_a_tile_is_a_window_of_the_frame() -> None:
    for seed in range(8):
        tile = make_tile(seed, Material(GLYPHS))
        assert tile is not None
        assert tile.pixels.shape == (TILE, TILE, 3)
        assert tile.masks.any(axis=(1, 2)).all()
        assert (np.array(tile.corner) % PATCH == 0).all()
        assert max(tile.corner) + TILE <= FRAME
        assert tile.shares.shape == (len(tile.masks), 1, TILE // 4, TILE // 4)
        torch.testing.assert_close(
            tile.shares.sum(dim=(1, 2, 3)) * 16, torch.from_numpy(tile.masks).sum((1, 2)).float()
        )


def test_the_loss_falls_towards_the_truth_and_only_the_best_mask_learns() -> None:
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., 2:6, 2:6] = 1
    good, bad = 4 * (2 * truth - 1), torch.zeros(1, 1, 8, 8)
    assert (
        mask_loss(good, truth).item()
        < mask_loss(bad, truth).item()
        < mask_loss(-good, truth).item()
    )
    assert iou(good, truth).item() == 1
    logits = torch.cat([bad, bad, good, -good], dim=1).repeat(2, 1, 1, 1).requires_grad_()
    quality = torch.tensor([[0.3, 0.2, 0.1, 0.9]]).repeat(2, 1)
    loss, predicted, reached = judge(logits, quality, truth.repeat(2, 1, 1, 1), 1)
    loss.sum().backward()
    assert logits.grad is not None
    learns = [[bool(part.any()) for part in row] for row in logits.grad]
    assert learns == [[True, False, True, False], [True, False, False, False]]
    assert torch.equal(
        predicted, torch.cat([-good, bad])
    )  # what the network itself rates best; the single mask
    assert reached.tolist() == [0, 0]


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proposer")
    with yolo.quiet():
        from ultralytics.nn.tasks import SegmentationModel

        torch.manual_seed(0)
        network = SegmentationModel("yolov8n-seg.yaml", nc=1, verbose=False)
    safetensors.torch.save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def run_in(folder: Path, trunk: Path) -> SamRun:
    run = SamRun(folder, SamRecipe(warm_up=1), Material(GLYPHS))
    run.start_from(trunk)
    return run


def test_tokens_are_those_of_the_prompt_encoder(tmp_path: Path, trunk: Path) -> None:
    run = run_in(tmp_path, trunk)
    prompts = run.network.prompt_encoder
    point = torch.tensor([[[40.0, 60.0]]]), torch.ones(1, 1)
    box = torch.tensor([[10.0, 20.0, 90.0, 70.0]])
    click = ((40, 60, 1),)
    for ask, given in (
        (ClickPrompt(click), {"points": point, "boxes": None}),
        (ClickPrompt(box=(10, 20, 90, 70)), {"points": None, "boxes": box}),
        (ClickPrompt(click, (10, 20, 90, 70)), {"points": point, "boxes": box}),
    ):
        tokens, drawn = prompting._encode(prompts, [ask], (0, 0))
        sparse, dense = prompts(**given, masks=None)
        torch.testing.assert_close(tokens, sparse)
        nothing = prompts.no_mask_embed.weight[..., None, None].expand(1, -1, *drawn.shape[2:])
        torch.testing.assert_close(prompts.with_marks(nothing, drawn), dense)


@pytest.mark.slow
def test_it_learns_stops_resumes_and_serves(tmp_path: Path, trunk: Path) -> None:
    whole = run_in(tmp_path / "a", trunk)
    whole.state.spent = 0.1 * 60 * SamRecipe.minutes  # answers are corrected from then on
    for _ in range(2):
        whole.update()
    whole.state.keep()
    resumed = run_in(tmp_path / "a", trunk)
    assert resumed.state.resume()
    for run in (whole, resumed):
        run.update()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    whole.export(tmp_path / "sam")
    served = SAM(tmp_path / "sam")
    features = served.encode(sample_image(240, 320))
    assert served.decode(features, Boxes([(20, 30, 180, 140)])).logits.shape == (1, 200, 200)  # type: ignore[union-attr]
    assert len(served.decode(features, Points([(100, 90)]))) <= 4
