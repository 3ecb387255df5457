"""Every kind of trained checkpoint is served by ``segclip segment``, with its training crops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

from segclip import loading
from segclip.cli.main import app
from segclip.encoders import Serving
from segclip.evaluation.datasets import read_folder
from segclip.evaluation.text import evaluate_text
from segclip.scoring import crops
from segclip.scoring.crops import POLICIES, CropPolicy, View
from segclip.scoring.scorers import DenseScorer
from segclip.types import Array, Image
from train import contrastive, dual_encoder, pacl, shapes, wise
from train.contrastive import Contrastive, ContrastiveRecipe
from train.engine import loop
from train.engine.loop import Loop, LoopSettings
from train.engine.start import Start, begin, fresh, serve_with
from train.engine.tuning import Tuning

from .test_contrastive import TINY

ROOT = Path(__file__).parents[2]
SETTINGS = LoopSettings(epochs=1, batch=16, warm_up=1, lr=1e-3)
# differs from every default
ODD = Serving(CropPolicy((View(1.2, "white", 1.0),)), ("one {}",), ("nothing",))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    shapes.write(folder / "scenes", 40, held_out=8)
    (folder / "tiny.json").write_text(json.dumps(TINY))
    return folder


def trained(
    start: Start, place: Path, name: str, recipe: ContrastiveRecipe = ContrastiveRecipe()
) -> None:
    """Train on outlined regions for an epoch, with non-default serving options."""
    parts = contrastive.parts_of(place / "scenes" / "scenes.json", None, share=0.2, skip_bad=False)
    task = Contrastive(serve_with(start, ODD), parts, recipe, SETTINGS)
    loop.start(Loop(task, place / name, SETTINGS, {}), resume=False)


def plain(place: Path) -> str:
    trained(begin(str(place / "tiny.json"), None), place, "plain")
    return "plain"


def attention_pooled(place: Path) -> str:
    trained(fresh("small-rn", size=32), place, "rn")
    return "rn"


def dual(place: Path) -> str:
    start = place / "dual-start"
    dual_encoder.main(
        "test_vit", "small", start, size=160, embed_dim=32, vocabulary=place / "scenes"
    )
    trained(begin(None, f"file:{start}"), place, "dual")
    return "dual"


def low_rank(place: Path) -> str:
    trained(
        begin(str(place / "tiny.json"), None),
        place,
        "lora",
        ContrastiveRecipe(tuning=Tuning("lora", rank=4)),
    )
    return "lora"


def mixed(place: Path) -> str:
    trained(begin(str(place / "tiny.json"), None), place, "before")
    trained(begin(None, f"file:{place / 'before'}"), place, "after")
    wise.main(f"file:{place / 'before'}", f"file:{place / 'after'}", place / "mixed", share=0.5)
    return "mixed"


def answer(encoder: str, *more: str) -> list[dict[str, Any]]:
    texts = ["a red circle", "a blue star"]
    arguments = [
        "segment",
        str(ROOT / "samples" / "desk.png"),
        *texts,
        "--best",
        "--json",
        "--proposer",
        "mini",
    ]
    done = CliRunner().invoke(app, [*arguments, "--encoder", encoder, *more])
    assert done.exit_code == 0, done.output
    rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return rows


def scene(place: Path) -> tuple[Image, Any]:
    """Return a held-out scene and the masks of its objects."""
    sample = read_folder(place / "scenes")[-1]
    return Image(np.asarray(PIL.Image.open(sample.path).convert("RGB"))), sample.masks


@pytest.mark.parametrize(
    "make", [plain, attention_pooled, dual, low_rank, mixed], ids=lambda make: make.__name__
)
def test_a_run_is_served_with_the_crops_it_was_trained_on(
    make: Callable[[Path], str], place: Path
) -> None:
    run = place / make(place)
    begun = begin(None, f"file:{run}")
    assert begun.checkpoint.serving == ODD
    image, masks = scene(place)
    segmenter = loading.load("mini", f"file:{run}")
    config = begun.checkpoint.preprocess_cfg
    normalised = (
        crops.cut(image, masks, ODD.policy.views[0], begun.size) / 255 - config["mean"]
    ) / config["std"]
    with torch.no_grad():
        wanted = (
            begun.model.eval()
            .encode_image(torch.from_numpy(normalised).float().permute(0, 3, 1, 2))
            .numpy()
        )
    other = loading.load("mini", f"file:{run}", policy="tight").scorer.embed_regions(image, masks)
    assert distance(segmenter.scorer.embed_regions(image, masks), wanted) < 0.3 * distance(
        other, wanted
    )
    assert {row["text"] for row in answer(f"file:{run}")} == {"a red circle", "a blue star"}


def test_a_patch_head_is_served_by_one_pass_over_the_image(place: Path) -> None:
    parts = contrastive.parts_of(place / "scenes", None, share=0.2, skip_bad=False)
    task = pacl.Pacl(
        begin("small", None),
        parts,
        ContrastiveRecipe(augment="none", side=96),
        SETTINGS,
        pacl.Grid(16),
    )
    loop.start(Loop(task, place / "pacl", SETTINGS, {}), resume=False)
    segmenter = loading.load("mini", f"file:{place / 'pacl'}")
    image, masks = scene(place)
    task.network.eval()
    with torch.no_grad():
        expected = (
            task.network(task._encode(torch.from_numpy(image.pixels[None].copy())))[0].cpu().numpy()
        )
    assert (
        distance(segmenter.encoder.encode_dense(image).reshape(-1, 256), expected.reshape(-1, 256))
        < 0.02
    )
    assert segmenter.scorer.embed_regions(image, masks).shape == (len(masks), 256)
    assert {row["text"] for row in answer(f"file:{place / 'pacl'}")} == {
        "a red circle",
        "a blue star",
    }


def test_a_threshold_is_fitted_to_dense_scores_and_served(place: Path) -> None:
    parts = contrastive.parts_of(place / "scenes", None, share=0.2, skip_bad=False)
    task = pacl.Pacl(begin("small", None), parts, ContrastiveRecipe(augment="none"), SETTINGS)
    task.save(place / "dense")
    encoder = f"file:{place / 'dense'}"
    assert not loading.load_encoder(encoder).serving.calibrated
    arguments = ["evaluate", "text", str(place / "scenes"), "--encoder", encoder, "--calibrate"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    segmenter = loading.load("mini", encoder)
    assert isinstance(segmenter.scorer, DenseScorer)
    assert segmenter.encoder.serving.calibrated
    report = evaluate_text(segmenter, read_folder(place / "scenes"))
    assert report.threshold == pytest.approx(report.calibrated(), abs=1e-4)


def test_a_checkpoint_of_open_clips_trainer_is_served_as_by_open_clip(place: Path) -> None:
    """Its epoch_N.pt is a pickle without a model name: the name comes from the spec."""
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-S-32-alt")
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save(
        {"epoch": 3, "name": "run", "state_dict": state, "optimizer": {}}, place / "epoch_3.pt"
    )
    spec = f"ViT-S-32-alt/file:{place / 'epoch_3.pt'}"
    segmenter = loading.load("mini", spec, policy="keep", trust=True)
    image, masks = scene(place)
    cut = crops.cut(image, masks, POLICIES["keep"].views[0], 224)
    with torch.no_grad():
        wanted = model.eval().encode_image(
            torch.stack([preprocess(PIL.Image.fromarray(crop)) for crop in cut])
        )
    other = loading.load("mini", spec, policy="tight", trust=True).scorer
    assert distance(segmenter.scorer.embed_regions(image, masks), wanted.numpy()) < 0.3 * distance(
        other.embed_regions(image, masks), wanted.numpy()
    )
    assert {row["text"] for row in answer(spec, "--trust")} == {"a red circle", "a blue star"}


def distance(found: Array, wanted: Array) -> float:
    """Return the largest 1 - cosine of unit rows with rows of any length.

    Serving may compute in bfloat16.
    """
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    return 1 - float((found * wanted).sum(axis=1).min())
