"""Zero-shot classification against open_clip's own: the real ViT-B-32, random weights, float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import PIL.Image
import pytest
import safetensors.torch
import torch

from segclip import Labels, zeroshot
from segclip.encoders.openclip import OpenClip, OpenClipOptions
from segclip.search import Query
from segclip.search.query import embed

pytestmark = pytest.mark.parity

TEMPLATES = (
    *(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES[:5]),
    "{}",
    "itap of a {}.",
)


def test_weights_and_top_five_are_open_clips(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32")
    safetensors.torch.save_file(model.eval().state_dict(), tmp_path / "open_clip_model.safetensors")
    encoder = OpenClip(
        f"ViT-B-32/file:{tmp_path}/open_clip_model.safetensors",
        options=OpenClipOptions(precision="float32"),
    )
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    names = zeroshot.read_labels("imagenet").names[:12]
    wanted = open_clip.build_zero_shot_classifier(
        model, tokenizer, names, TEMPLATES
    ).T.numpy()  # (T, D)
    classifier = zeroshot.build(encoder, Labels(names, TEMPLATES, verbatim=True))
    assert classifier.weights == pytest.approx(wanted, abs=1e-4)

    rng = np.random.default_rng(0)
    samples = [
        rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in ((300, 400), (224, 224), (90, 61))
    ]
    for sample_image in samples:
        with torch.inference_mode():
            image = model.encode_image(
                preprocess(PIL.Image.fromarray(sample_image))[None], normalize=True
            ).numpy()
        similarity = image @ wanted.T
        scores = classifier.whole(sample_image)
        assert scores.similarity == pytest.approx(similarity, abs=1e-4)
        top = [guess.label for guess in zeroshot.best(scores)[0]]
        assert top == [names[column] for column in np.argsort(-similarity[0])[:5]]
        assert embed(encoder, Query(image=sample_image)).vector == pytest.approx(image[0], abs=1e-4)
        shares = torch.softmax(
            torch.tensor(model.logit_scale.exp().item() * similarity), dim=1
        ).numpy()
        assert scores.probabilities(over="texts") == pytest.approx(shares, abs=1e-4)


def test_imagenet_is_open_clips_list() -> None:
    labels = zeroshot.read_labels("imagenet")
    assert [name.partition(" #")[0] for name in labels.names] == list(open_clip.IMAGENET_CLASSNAMES)
    assert labels.sentences(None) == tuple(  # type: ignore[arg-type]
        template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES
    )
