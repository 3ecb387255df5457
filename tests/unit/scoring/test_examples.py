"""Examples become concepts, which find more of their kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from segclip.errors import BadImage, BadPrompt, UnknownName, Unsupported
from segclip.question import Question
from segclip.ranking.concepts import THUMBNAIL, Example
from segclip.ranking.selection import Selection
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from segclip.types import Boxes, Image, Points
from tests.fakes import COLOURS, FakeEncoder, FakeProposer, paint

RED, BLUE = (10, 10, 50, 50), (110, 60, 150, 110)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))


@pytest.fixture
def segmenter(proposer: FakeProposer, encoder: FakeEncoder) -> Segmenter:
    return Segmenter(proposer, encoder, CropScorer(encoder))


@pytest.fixture
def elsewhere() -> Image:
    return paint(
        ("red", (60, 60, 90, 100)), ("blue", (5, 5, 25, 25)), ("yellow", (100, 5, 150, 40))
    )


def test_a_click_a_box_and_a_mask_teach_the_same(
    segmenter: Segmenter, elsewhere: Image, sample_image: Image, tmp_path: Path
) -> None:
    mask = np.zeros(elsewhere.size, np.uint8)
    mask[60:100, 60:90] = 255
    Pillow.fromarray(mask).save(tmp_path / "mask.png")
    places = (
        Points([(70, 70)]),
        Boxes([(58, 58, 92, 102)]),
        mask > 0,
        tmp_path / "mask.png",
        str(tmp_path / "mask.png"),
    )
    for place in places:
        concept = segmenter.concept("it", [Example(elsewhere, place)])
        result = segmenter.answer(sample_image, Question(concepts=concept))
        assert result.texts == ("@it",)
        assert result.masks.boxes.tolist() == [list(RED)]
        assert concept.thumbnails.shape == (1, THUMBNAIL, THUMBNAIL, 3)
        middle = concept.thumbnails[0, THUMBNAIL // 2, THUMBNAIL // 2]
        assert middle.tolist() == list(COLOURS["red"])


def test_a_whole_image_is_an_example(segmenter: Segmenter, sample_image: Image) -> None:
    whole = paint(("blue", (0, 0, 160, 120)))
    concept = segmenter.concept("it", [Example(whole)])
    result = segmenter.answer(sample_image, Question(concepts=[concept]))
    assert result.masks.boxes.tolist() == [list(BLUE)]


def test_concepts_and_texts_are_answered_together_and_alone(
    segmenter: Segmenter, elsewhere: Image, sample_image: Image
) -> None:
    concept = segmenter.concept("it", [Example(elsewhere, Points([(70, 70)]))])
    concept.save()
    alone = segmenter(sample_image, "@it")
    assert alone.masks.boxes.tolist() == [list(RED)]
    question = Question(["blue", "@it", "the left @it"], concepts=[concept])
    together = segmenter.answer(sample_image, question)
    assert together.texts == ("blue", "@it", "the left @it")
    assert together.masks.boxes.tolist() == [list(BLUE), list(RED), list(RED)]
    assert together.probability[1] == alone.probability[0]


def test_its_probability_depends_on_no_other_region(
    segmenter: Segmenter, elsewhere: Image, sample_image: Image
) -> None:
    concept = segmenter.concept("it", [Example(elsewhere, Points([(70, 70)]))])
    regions = segmenter.regions(sample_image)
    question = Question(concepts=concept, selection=Selection(threshold=0))
    every = segmenter.answer(regions, question)
    for row in range(len(regions)):
        one = segmenter.answer(regions[[row]], question)
        same = every.masks.boxes.tolist().index(regions.masks.boxes[row].tolist())
        assert one.probability[0] == pytest.approx(every.probability[same], abs=1e-7)


def test_an_example_unlike_the_others_does_not_count_and_is_reported(
    segmenter: Segmenter, elsewhere: Image, sample_image: Image, caplog: pytest.LogCaptureFixture
) -> None:
    right, wrong = (Example(elsewhere, Points([at])) for at in ((70, 70), (110, 10)))
    segmenter.concept("it", [right, wrong])
    assert not caplog.messages  # of two, either may be wrong
    concept = segmenter.concept("it", [right, wrong, right])
    assert concept.typical.tolist() == [True, False, True]
    assert caplog.messages[0].startswith("image@110,10 is unlike the other examples")
    found = segmenter.answer(sample_image, Question(concepts=concept))
    alone = segmenter.answer(sample_image, Question(concepts=segmenter.concept("it", [right] * 2)))
    assert found.masks.boxes.tolist() == [list(RED)]
    assert found.probability.tolist() == alone.probability.tolist()


def test_words_of_place_filter_what_a_concept_matches(
    segmenter: Segmenter, elsewhere: Image
) -> None:
    image = paint(
        ("red", (10, 10, 30, 30)),
        ("red", (60, 50, 90, 90)),
        ("blue", (5, 60, 20, 70)),
        ("red", (110, 20, 140, 40)),
    )
    segmenter.concept("it", [Example(elsewhere, Points([(70, 70)]))]).save()
    texts = ["left @it", "second @it from the left", "the @it near the blue", "blue left of @it"]
    result = segmenter(image, texts)
    boxes = dict(zip(result.texts, result.masks.boxes.tolist(), strict=True))
    assert boxes == {
        texts[0]: [10, 10, 30, 30],
        texts[1]: [60, 50, 90, 90],
        texts[2]: [10, 10, 30, 30],
        texts[3]: [5, 60, 20, 70],
    }


def test_counter_examples_and_negatives_rule_out(
    segmenter: Segmenter, elsewhere: Image, sample_image: Image
) -> None:
    both = paint(("red", (20, 20, 80, 100)), ("blue", (80, 20, 140, 100)))
    mask = np.zeros(both.size, bool)
    mask[20:100, 20:140] = True
    blue = Example(elsewhere, Points([(10, 10)]))
    wide = Selection(near_best=0)
    loose = segmenter.concept("loose", [Example(both, mask)])
    found = segmenter.answer(sample_image, Question(concepts=loose, selection=wide))
    strict = segmenter.concept("strict", [Example(both, mask)], [blue])
    kept = segmenter.answer(sample_image, Question(concepts=strict, selection=wide))
    blues = [list(BLUE) in result.masks.boxes.tolist() for result in (found, kept)]
    assert not blues[1]
    red = segmenter.concept("red-thing", [Example(elsewhere, Points([(70, 70)]))])
    for negative in ("red", "@again"):
        again = replace(red, name="again")
        question = Question("@red-thing", negatives=negative, concepts=[red, again])
        assert not len(segmenter.answer(sample_image, replace(question, selection=Selection(0.6))))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (Points([(155, 115)]), "nothing at the example"),
        (Boxes([(1, 50, 4, 60)]), "nothing at the example"),
        (Points([(500, 5)]), "outside the image"),
        (np.zeros((120, 160), bool), "nothing at the example"),
        (np.ones((20, 160), bool), "of the image's size"),
    ],
)
def test_a_place_that_holds_nothing_is_refused(
    segmenter: Segmenter, elsewhere: Image, place: object, message: str
) -> None:
    with pytest.raises(BadPrompt, match=message):
        segmenter.concept("it", [Example(elsewhere, place)])


def test_a_concept_takes_an_example_an_encoder_and_an_image(
    segmenter: Segmenter, elsewhere: Image, tmp_path: Path
) -> None:
    click = Example(elsewhere, Points([(70, 70)]))
    with pytest.raises(BadPrompt, match="no example"):
        segmenter.concept("it", [], [click])
    with pytest.raises(BadPrompt, match="cannot name"):
        segmenter.concept("../it", [click])
    with pytest.raises(BadPrompt, match="without an encoder"):
        Segmenter(FakeProposer()).concept("it", [click])
    with pytest.raises(BadImage):
        segmenter.concept("it", [Example(tmp_path / "none.png")])


def test_a_concept_of_another_encoder_is_refused(
    segmenter: Segmenter, elsewhere: Image, sample_image: Image
) -> None:
    concept = segmenter.concept("it", [Example(elsewhere, Points([(70, 70)]))])
    other = Segmenter(FakeProposer(), FakeEncoder(name="other", fingerprint="x"))
    for question in (Question(concepts=concept), Question("red", negatives="@it")):
        with pytest.raises(Unsupported, match="concepts add it --like"):
            other.answer(sample_image, replace(question, concepts=(concept,)))
    with pytest.raises(UnknownName, match="unknown concept 'it'"):
        segmenter(sample_image, "@it")
    with pytest.raises(BadPrompt, match="a background is a text"):
        segmenter(sample_image, "red", backgrounds=["@it"])
