"""The shipped weights do what the model card says, on 60 scenes they were never trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import segclip
from segclip import images
from segclip.evaluation.datasets import read_folder
from segclip.evaluation.text import Report, evaluate_text
from segclip.segmenter import Segmenter
from train.release.ship import STEP, clicked

ROOT = Path(__file__).parent.parent.parent
GOLDEN = json.loads((Path(__file__).parent / "mini.json").read_text("utf-8"))
pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return segclip.load("mini", device="cpu")


@pytest.fixture(scope="module")
def report(segmenter: Segmenter) -> Report:
    return evaluate_text(segmenter, read_folder(ROOT / "tests" / "data" / "scenes")[::STEP])


@pytest.mark.slow
@pytest.mark.timeout(1500)  # 30 scenes at about 6 s of one core
@pytest.mark.parametrize("figure", sorted(GOLDEN["at least"]))
def test_a_figure_of_the_model_card_holds(report: Report, figure: str) -> None:
    value = getattr(report, figure)
    assert (value() if callable(value) else value) >= GOLDEN["at least"][figure]


@pytest.mark.slow
def test_mini_sam_cuts_out_what_is_clicked_and_boxed() -> None:
    figures = clicked(ROOT / "tests" / "data" / "scenes")
    assert GOLDEN["clicks at least"].keys() == figures.keys()
    for name, least in GOLDEN["clicks at least"].items():
        assert figures[name] >= least, name


@pytest.mark.parametrize("sample", GOLDEN["samples"], ids=lambda sample: sample["image"])
def test_a_sample_is_answered_as_it_was_when_the_weights_were_shipped(
    segmenter: Segmenter, sample: dict[str, object]
) -> None:
    regions = segmenter.regions(ROOT / "samples" / str(sample["image"]))
    result = segmenter.rank(regions, list(sample["texts"]))  # type: ignore[call-overload]
    answers = [
        (text, box.tolist()) for text, box in zip(result.texts, result.masks.boxes, strict=True)
    ]
    expected = [(row["text"], row["box"]) for row in sample["rows"]]  # type: ignore[attr-defined]
    assert [text for text, _ in answers] == [text for text, _ in expected]
    boxes = np.array([box for _, box in answers]).reshape(-1, 4)
    assert np.abs(boxes - np.array([box for _, box in expected]).reshape(-1, 4)).max(initial=0) <= 2
    probabilities = np.array([row["probability"] for row in sample["rows"]])  # type: ignore[attr-defined]
    np.testing.assert_allclose(result.probability, probabilities, atol=0.03)


def test_what_is_not_there_is_not_found(segmenter: Segmenter) -> None:
    for sample in GOLDEN["samples"]:
        result = segmenter(ROOT / "samples" / sample["image"], sample["texts"][-1])
        assert len(result) == 0, sample["image"]


def test_a_blank_image_is_answered_with_nothing(segmenter: Segmenter) -> None:
    blank = images.load(PIL.Image.new("RGB", (320, 240), "white"))
    assert len(segmenter(blank, "red apple")) == 0


@pytest.mark.shared
@pytest.mark.slow
def test_ten_photographs_run_end_to_end(segmenter: Segmenter, shared_data: Path) -> None:
    for path in sorted((shared_data / "coco-dev" / "images").glob("*.jpg"))[4::28][:10]:
        result = segmenter(path, ["person", "umbrella", "dog"])
        assert result.masks.size == images.load(path).size
        assert set(result.texts) <= set(result.asked)
