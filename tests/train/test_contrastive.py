"""A CLIP trained on captions learns, stops, resumes exactly, survives faults and serves."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segclip.encoders.openclip import OpenClip, OpenClipOptions
from segclip.errors import BadPrompt
from segclip.evaluation import datasets
from segclip.evaluation.localise import evaluate_regions
from segclip.evaluation.retrieval import evaluate_captions
from train import contrastive, shapes
from train.contrastive import Contrastive, ContrastiveRecipe
from train.engine import loop
from train.engine.loop import Loop, LoopSettings
from train.engine.start import Start, begin, fresh, trained
from train.engine.tuning import Tuning

ROOT = Path(__file__).parents[2]


TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def task_of(
    scenes: Path,
    settings: LoopSettings,
    recipe: ContrastiveRecipe = ContrastiveRecipe(),
    start: str | None = None,
) -> Contrastive:
    parts = contrastive.parts_of(scenes, None, share=0.1, skip_bad=False)
    return Contrastive(
        begin(None if start else str(scenes / "tiny.json"), start), parts, recipe, settings
    )


def run(scenes: Path, out: Path, settings: LoopSettings, **options: Any) -> Loop:
    made = Loop(task_of(scenes, settings, **options), out, settings, {"epochs": settings.epochs})
    loop.start(made, resume=False)
    return made


QUICK = LoopSettings(epochs=1, batch=16, warm_up=2, lr=1e-3)


def test_a_run_is_a_folder_that_serves_what_was_trained(scenes: Path, tmp_path: Path) -> None:
    made = run(scenes, tmp_path / "run", QUICK)
    for name in (
        "model.safetensors",
        "config.json",
        "metrics.json",
        "curves.png",
        "recipe.json",
        "environment.json",
    ):
        assert (tmp_path / "run" / name).is_file(), name
    assert (tmp_path / "run" / "samples" / "epoch-001.jpg").is_file()
    assert (tmp_path / "run" / "last" / "model.safetensors").is_file()
    (row,) = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert row["epoch"] == 1
    task = made.task
    assert isinstance(task, Contrastive)
    encoder = OpenClip(f"file:{tmp_path / 'run'}", options=OpenClipOptions(precision="float32"))
    served = encoder.encode_images([item.load().pixels for item in task.held_out.items])
    task.network.eval()
    with torch.no_grad():
        expected = task.embed_images(torch.from_numpy(task.held_out.pixels)).cpu().numpy()
    assert np.allclose(served, expected, atol=2e-3)  # matrices are stored as float16
    images = {item.image: item.captions for item in task.held_out.items}
    report = evaluate_captions(
        encoder, [_caption_of(path, captions) for path, captions in images.items()]
    )
    assert report.images == 12


def _caption_of(path: Any, captions: tuple[str, ...]) -> Any:
    from segclip.evaluation.retrieval import CaptionedImage

    return CaptionedImage(path, captions)


@pytest.mark.parametrize(
    "recipe",
    [
        ContrastiveRecipe(loss="sigmoid"),
        ContrastiveRecipe(captions=2, templates=("{}", "an image of {}")),
        ContrastiveRecipe(tuning=Tuning("image")),
        ContrastiveRecipe(tuning=Tuning("text")),
    ],
)
def test_every_way_of_training_lowers_its_loss(
    scenes: Path, tmp_path: Path, recipe: ContrastiveRecipe
) -> None:
    settings = LoopSettings(epochs=4, batch=16, warm_up=2, lr=3e-3, ema=0.5, accumulate=2, chunk=8)
    task = Contrastive(
        begin(str(scenes / "tiny.json"), None, sigmoid=recipe.loss == "sigmoid"),
        contrastive.parts_of(scenes, None, share=0.1, skip_bad=False), recipe, settings,
    )  # fmt: skip
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    loop.start(Loop(task, tmp_path, settings, {}), resume=False)
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0]
    moved = {
        name.startswith("visual.")
        for name, value in task.model.state_dict().items()
        if not torch.equal(value, before[name]) and "logit" not in name
    }
    assert moved == {"full": {True, False}, "image": {True}, "text": {False}}[recipe.tuning.what]


def test_hard_negatives_share_a_batch_and_a_run_with_them_resumes_to_the_same_bits(
    scenes: Path, tmp_path: Path
) -> None:
    settings = LoopSettings(epochs=2, batch=8, warm_up=2, lr=1e-3)

    def likeness(task: Contrastive) -> float:
        """Return the mean cosine of different texts of a batch, by the initial model."""
        rows = [task.embed_texts(batch.tokens).detach().cpu() for batch in task.batches(0, 0)]
        return float(
            np.mean(
                [
                    ((texts @ texts.T).sum() - len(texts)) / len(texts) / (len(texts) - 1)
                    for texts in rows
                ]
            )
        )

    hard = task_of(scenes, settings, ContrastiveRecipe(hard=3))
    assert likeness(hard) > likeness(task_of(scenes, settings)) + 0.03
    # every image once per epoch
    assert len({item.group for batch in hard.batches(1, 0) for item in batch.items}) == 48
    loop.start(Loop(hard, tmp_path / "whole", settings, {}), resume=False)
    made = Loop(
        task_of(scenes, settings, ContrastiveRecipe(hard=3)),
        tmp_path / "halted",
        replace(settings, patience=1),
        {},
    )
    made.state.extra["best"] = 2.0  # never exceeded: it stops after one epoch
    made.run()
    again = Loop(
        task_of(scenes, settings, ContrastiveRecipe(hard=3)), tmp_path / "halted", settings, {}
    )
    again.resume()
    assert again.state.extra["epoch"] == 1
    again.run()
    ends = [
        torch.load(tmp_path / name / "last.pt", weights_only=True)["network"]
        for name in ("whole", "halted")
    ]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_batch_larger_than_the_data_is_reported(scenes: Path) -> None:
    with pytest.raises(BadPrompt, match="batch of 64 is larger than the 48 images"):
        task_of(scenes, LoopSettings(batch=64))


def command(scenes: Path, out: Path, *more: str) -> list[str]:
    arguments = [
        str(scenes),
        "--model",
        str(scenes / "tiny.json"),
        "--out",
        str(out),
        "--batch",
        "8",
        "--epochs",
        "6",
    ]
    return [sys.executable, "-m", "train.contrastive", *arguments, "--ema", "0.9", *more]


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path / "nothing", tmp_path / "out"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.shared
def test_the_whole_path_on_real_photographs(shared_data: Path, tmp_path: Path) -> None:
    """Train ViT-B-32 with random weights and LoRA for two steps; validate, merge and serve it."""
    data = shared_data / "coco-dev"
    settings = LoopSettings(epochs=1, batch=8, chunk=4, warm_up=1)
    trained_on, validation = contrastive.parts_of(data, None, share=0.2, skip_bad=False)
    assert {item.group for item in trained_on}.isdisjoint(item.group for item in validation)
    parts = trained_on[:16], validation[:4]
    task = Contrastive(
        begin("ViT-B-32", None), parts, ContrastiveRecipe(tuning=Tuning("lora")), settings
    )
    loop.start(Loop(task, tmp_path, settings, {}), resume=False)
    assert (tmp_path / "samples" / "epoch-001.jpg").is_file()
    encoder = OpenClip(f"file:{tmp_path}", options=OpenClipOptions(precision="float32"))
    served = encoder.encode_images([item.load().pixels for item in validation[:2]])
    with torch.no_grad():
        expected = task.embed_images(torch.from_numpy(task.held_out.pixels[:2])).cpu().numpy()
    assert np.allclose(served, expected, atol=5e-3)


def test_a_checkpoint_of_open_clips_own_trainer_is_trained_on_and_served(tmp_path: Path) -> None:
    """Its pickle holds the state dict and the epoch; names begin with "module." on several GPUs."""
    model = fresh("ViT-S-32-alt").model
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 1, "name": "run", "state_dict": state}, tmp_path / "epoch_1.pt")
    spec = f"ViT-S-32-alt/file:{tmp_path / 'epoch_1.pt'}"
    begun = trained(spec, trust=True).model.state_dict()
    assert all(torch.equal(value, begun[name]) for name, value in model.state_dict().items())
    encoder = OpenClip(spec, options=OpenClipOptions(precision="float32", trust=True))
    tokens = torch.zeros(1, 77, dtype=torch.long)
    assert encoder.encode_texts(["a dog"]).shape[1] == model.encode_text(tokens).shape[1]


@pytest.mark.slow
def test_regions_tune_a_half_trained_start(tmp_path: Path) -> None:
    """Trained on whole scenes, then on regions, it names those of other scenes 10 points better."""
    shapes.write(tmp_path / "scenes", 550, held_out=50)
    shapes.write(tmp_path / "others", 150, held_out=50, first=1_000_000)
    samples = datasets.read_folder(tmp_path / "others")

    def named(out: str, data: Path, begun: Start, lr: float, tune: str) -> float:
        settings = LoopSettings(epochs=2, batch=32, lr=lr, warm_up=10)
        parts = contrastive.parts_of(data, None, share=0.1, skip_bad=False)
        task = Contrastive(
            begun, parts, ContrastiveRecipe(augment="none", tuning=Tuning(tune)), settings
        )
        loop.start(Loop(task, tmp_path / out, settings, {}), resume=False)
        return evaluate_regions(OpenClip(f"file:{tmp_path / out}"), samples).top[0]

    half = named("half", tmp_path / "scenes", begin("small", None), 2e-3, "full")
    assert 0.05 < half < 0.5  # among 48 names: neither nothing nor much
    table = tmp_path / "scenes" / "scenes.json"
    assert named("tuned", table, trained(f"file:{tmp_path / 'half'}"), 1e-3, "image") >= half + 0.1
