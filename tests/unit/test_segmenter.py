from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import segclip
from segclip.errors import BadImage, BadPrompt, UnknownName
from segclip.proposers.space import keep_within
from segclip.question import Question
from segclip.ranking.selection import Selection
from segclip.scoring.crops import POLICIES
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from segclip.types import Boxes, Everything, Image, Masks, Points, Prompt, Proposals, Regions
from tests.fakes import COLOURS, FakeEncoder, FakeProposer, paint
from tests.thin import LONGEST, SIZES, striped


@pytest.fixture
def segmenter(proposer: FakeProposer, encoder: FakeEncoder) -> Segmenter:
    return Segmenter(proposer, encoder, CropScorer(encoder))


def test_a_text_finds_what_it_names(segmenter: Segmenter, sample_image: Image) -> None:
    result = segmenter(sample_image, "a red box")
    assert result.texts == ("a red box",)
    assert result.masks.boxes.tolist() == [[10, 10, 50, 50]]
    assert result.probability[0] > 0.9
    assert result.threshold == 0.5


def test_an_array_a_path_and_bytes_give_the_same_answer(
    segmenter: Segmenter, sample_image: Image, tmp_path: Path
) -> None:
    from PIL import Image as Pillow

    path = tmp_path / "image.png"
    Pillow.fromarray(sample_image.pixels).save(path)
    for source in (sample_image.pixels, path, str(path), path.read_bytes()):
        assert segmenter(source, "blue").masks.boxes.tolist() == [[110, 60, 150, 110]]


def test_each_text_has_its_own_rows_in_the_order_of_the_texts(
    segmenter: Segmenter, sample_image: Image
) -> None:
    result = segmenter(sample_image, ["blue", "a yellow thing", "green"])
    assert result.texts == ("blue", "green")
    assert result.unanswered == ("a yellow thing",)
    assert result.asked == ("blue", "a yellow thing", "green")
    assert [round(nearest) for nearest in result.nearest] == [1, 0, 1]


def test_a_position_word_filters_the_matches_with_a_reason(segmenter: Segmenter) -> None:
    three = paint(
        ("red", (10, 10, 30, 30)),
        ("blue", (5, 60, 20, 70)),
        ("red", (60, 50, 90, 90)),
        ("red", (110, 20, 140, 40)),
    )
    texts = [
        "the left red box",
        "second red box from the left",
        "the biggest red box",
        "red box",
        "third blue from the left",
    ]
    result = segmenter(three, texts)
    boxes = dict(zip(result.texts[:3], result.masks.boxes.tolist(), strict=False))
    assert boxes["the left red box"] == [10, 10, 30, 30]
    assert boxes["second red box from the left"] == boxes["the biggest red box"] == [60, 50, 90, 90]
    assert result.texts.count("red box") == 3
    assert result.unanswered == ("third blue from the left",)
    assert result.reasons[:2] == (
        "leftmost of 3 found for 'red box'",
        "second from the left of 3 found for 'red box'",
    )
    assert result.reasons[3] == ""


def test_a_relation_filters_by_the_matches_of_its_anchor(segmenter: Segmenter) -> None:
    image = paint(
        ("red", (10, 10, 30, 30)),
        ("blue", (50, 40, 70, 60)),
        ("red", (90, 50, 120, 90)),
        ("red", (130, 20, 150, 40)),
    )
    texts = [
        "a red box left of the blue box",
        "red boxes right of blue",
        "the biggest red box right of the blue one",
        "a red box above the green one",
        "red next to the blue box",
    ]
    result = segmenter(image, texts)
    boxes: dict[str, list[list[int]]] = {text: [] for text in texts}
    for text, box in zip(result.texts, result.masks.boxes.tolist(), strict=True):
        boxes[text].append(box)
    assert boxes[texts[0]] == [[10, 10, 30, 30]]
    assert sorted(boxes[texts[1]]) == [[90, 50, 120, 90], [130, 20, 150, 40]]
    assert boxes[texts[2]] == boxes[texts[4]] == [[90, 50, 120, 90]]
    assert result.unanswered == (texts[3],)
    assert result.reasons[3].startswith("nothing was found for 'green one'")
    only = segmenter(image, texts[1], selection=Selection(top_k=1))
    assert len(only) == 1


def test_texts_without_such_words_are_ranked_bit_for_bit_alike(
    segmenter: Segmenter, sample_image: Image
) -> None:
    regions = segmenter.regions(sample_image)
    alone, among = (
        segmenter.rank(regions, "red"),
        segmenter.rank(regions, ["red", "the left blue box", "red above green"]),
    )
    rows = [row for row, text in enumerate(among.texts) if text == "red"]
    assert among[rows].probability.tobytes() == alone.probability.tobytes()
    assert among[rows].similarity.tobytes() == alone.similarity.tobytes()
    assert among[rows].masks.boxes.tolist() == alone.masks.boxes.tolist()


def test_everything_like_a_clicked_object_is_found_without_a_text(
    segmenter: Segmenter, encoder: FakeEncoder
) -> None:
    image = paint(
        ("red", (10, 10, 30, 30)), ("blue", (60, 50, 90, 90)), ("red", (110, 20, 140, 60))
    )
    result = segmenter.like(image, Points([(15, 15)]))
    assert segmenter.proposer.encoded == 1  # type: ignore[attr-defined]
    assert sorted(result.masks.boxes.tolist()) == [[10, 10, 30, 30], [110, 20, 140, 60]]
    assert result.texts == ("like this", "like this")
    assert not encoder.texts_encoded


def test_a_place_alone_needs_no_encoder(
    segmenter: Segmenter, encoder: FakeEncoder, sample_image: Image
) -> None:
    result = segmenter(sample_image, prompt=Boxes([(0, 0, 55, 55), (150, 0, 160, 10)]))
    assert result.texts == ("box 1",)
    assert result.unanswered == ("box 2",)
    assert result.masks.boxes.tolist() == [[10, 10, 50, 50]]
    assert np.isnan(result.probability).all()
    assert result.score.tolist() == result.quality.tolist()
    assert not encoder.crops_encoded
    assert not encoder.texts_encoded


def test_without_an_encoder_places_are_answered_and_texts_are_refused(
    segmenter: Segmenter, sample_image: Image
) -> None:
    alone = Segmenter(FakeProposer())
    for prompt in (Boxes([(0, 0, 55, 55)]), Points([(20, 20)])):
        mine, whole = alone.pick(sample_image, prompt), segmenter.pick(sample_image, prompt)
        assert mine.masks.boxes.tolist() == whole.masks.boxes.tolist()
        assert mine.texts == whole.texts
    for call in (
        lambda: alone(sample_image, "red"),
        lambda: alone.like(sample_image, Points([(15, 15)])),
    ):
        with pytest.raises(BadPrompt, match="without an encoder"):
            call()


def test_a_question_is_answered_like_the_method_it_dispatches_to(
    segmenter: Segmenter, sample_image: Image
) -> None:
    box, point = Boxes([(5, 5, 55, 55)]), Points([(70, 40)])
    inside = Everything(inside=(0, 0, 105, 120))
    pairs = [
        (Question("red"), segmenter(sample_image, "red")),
        (Question(["red", "blue"], inside), segmenter(sample_image, ["red", "blue"], inside)),
        (Question("green", negatives=["red"]), segmenter(sample_image, "green", negatives=["red"])),
        (Question("red", point), segmenter(sample_image, "red", point)),
        (Question(place=box), segmenter.pick(sample_image, box)),
        (Question(place=point), segmenter.pick(sample_image, point)),
        (Question(everything=True), segmenter.everything(sample_image)),
        (Question(place=inside, everything=True), segmenter.everything(sample_image, inside)),
        (Question(example=Points([(20, 20)])), segmenter.like(sample_image, Points([(20, 20)]))),
    ]
    for question, expected in pairs:
        for source in (sample_image, segmenter.encode(sample_image)):
            result = segmenter.answer(source, question)
            assert result.masks.boxes.tolist() == expected.masks.boxes.tolist()
            assert (result.texts, result.asked, result.threshold) == (
                expected.texts,
                expected.asked,
                expected.threshold,
            )
            np.testing.assert_array_equal(result.probability, expected.probability)
    with pytest.raises(BadPrompt, match="neither a text nor a place"):
        segmenter.answer(sample_image, Question())


def test_stored_regions_answer_texts_and_everything_but_no_places(
    segmenter: Segmenter, sample_image: Image, encoder: FakeEncoder
) -> None:
    regions = segmenter.regions(sample_image)
    before = list(encoder.crops_encoded)
    assert segmenter.answer(regions, Question("red")).masks.boxes.tolist() == [[10, 10, 50, 50]]
    assert len(segmenter.answer(regions, Question(everything=True))) == len(regions)
    assert encoder.crops_encoded == before
    clicked = Question("red", Points([(20, 20)]))  # of one object, not of the whole image's regions
    for question in (
        clicked,
        Question(place=Boxes([(5, 5, 55, 55)])),
        Question(example=Points([(20, 20)])),
    ):
        with pytest.raises(BadPrompt, match="give the image"):
            segmenter.answer(regions, question)


class Rated:
    """Propose a whole, its part, its duplicate and other objects, with qualities."""

    BOXES = (
        (10, 10, 60, 60),
        (20, 20, 40, 40),
        (11, 10, 60, 60),
        (80, 80, 90, 90),
        (100, 10, 120, 30),
    )
    QUALITY = (0.7, 0.6, 0.9, 0.3, 0.5)

    def encode(self, image: Image) -> Image:
        return image

    def decode(self, features: Image, prompt: Prompt) -> Proposals:
        assert isinstance(prompt, Everything)
        dense = np.zeros((len(self.BOXES), *features.size), bool)
        for mask, (x1, y1, x2, y2) in zip(dense, self.BOXES, strict=True):
            mask[y1:y2, x1:x2] = True
        return keep_within(
            Proposals(Masks.from_dense(dense), np.array(self.QUALITY, np.float32)), prompt
        )


def test_everything_is_each_object_once_best_first_and_parts_are_objects(
    sample_image: Image,
) -> None:
    rated = Segmenter(Rated())
    result = rated.everything(sample_image)
    assert result.quality.tolist() == pytest.approx([0.9, 0.6, 0.5])
    assert (result.texts, result.asked, result.threshold) == (("object",) * 3, ("object",), 0.4)
    assert np.isnan(result.probability).all()
    few = rated.everything(sample_image, selection=Selection(threshold=0.2, top_k=4))
    assert few.quality.tolist() == pytest.approx([0.9, 0.6, 0.5, 0.3])
    assert len(rated.everything(sample_image, selection=Selection(nms=1.0))) == 4
    inside = rated.everything(rated.encode(sample_image), Everything(inside=(95, 5, 125, 35)))
    assert inside.masks.boxes.tolist() == [[100, 10, 120, 30]]
    none = rated.everything(sample_image, selection=Selection(threshold=0.95))
    assert none.unanswered == ("object",)


def test_everything_may_be_selected_from_stored_regions(
    segmenter: Segmenter, sample_image: Image
) -> None:
    regions = segmenter.regions(sample_image)
    result = segmenter.everything(regions)
    assert segmenter.proposer.encoded == 1  # type: ignore[attr-defined]
    assert len(result) == len(regions)
    assert result.regions.embeddings.shape == regions.embeddings.shape


def test_one_region_may_answer_two_texts(segmenter: Segmenter, sample_image: Image) -> None:
    result = segmenter(sample_image, ["red", "a red box"])
    assert result.masks.boxes.tolist() == [[10, 10, 50, 50]] * 2


def test_what_is_absent_gives_an_empty_result(segmenter: Segmenter, sample_image: Image) -> None:
    result = segmenter(sample_image, "yellow")
    assert len(result) == 0
    assert result.unanswered == ("yellow",)


def test_an_image_without_regions_gives_an_empty_result(segmenter: Segmenter) -> None:
    regions = segmenter.regions(paint())
    assert len(regions) == 0
    result = segmenter.rank(
        regions, ["red", "blue"], negatives="green", selection=Selection(best=True)
    )
    assert len(result) == 0
    assert result.nearest == (0, 0)


def test_no_texts_give_an_empty_result(segmenter: Segmenter, sample_image: Image) -> None:
    result = segmenter(sample_image, [])
    assert len(result) == 0
    assert result.asked == result.nearest == ()


def test_a_second_text_reads_no_pixels(
    segmenter: Segmenter, sample_image: Image, proposer: FakeProposer, encoder: FakeEncoder
) -> None:
    regions = segmenter.regions(sample_image)
    before = (proposer.encoded, list(encoder.crops_encoded))
    for text in ("red", "green"):
        assert len(segmenter.rank(regions, text)) == 1
    assert (proposer.encoded, encoder.crops_encoded) == before


def test_a_probability_depends_neither_on_other_regions_nor_on_other_texts(
    segmenter: Segmenter, sample_image: Image
) -> None:
    regions = segmenter.regions(sample_image)
    every = segmenter.rank(regions, ["red", "green", "blue"], selection=Selection(best=True))
    for row, text in enumerate(("red", "green", "blue")):
        alone = segmenter.rank(regions[[row]], text, selection=Selection(best=True))
        assert alone.probability[0] == every.probability[row]


def test_a_negative_takes_its_share(segmenter: Segmenter, sample_image: Image) -> None:
    regions = segmenter.regions(sample_image)
    assert len(segmenter.rank(regions, "a box")) == 0
    plain = segmenter.rank(regions, "a red or green box", selection=Selection(threshold=0.3))
    ruled = segmenter.rank(
        regions, "a red or green box", negatives=["green"], selection=Selection(threshold=0.3)
    )
    assert plain.masks.boxes.tolist() == [[10, 10, 50, 50], [60, 20, 100, 80]]
    assert ruled.masks.boxes.tolist() == [[10, 10, 50, 50]]


def test_a_text_cannot_also_be_a_negative(segmenter: Segmenter, sample_image: Image) -> None:
    with pytest.raises(BadPrompt, match="'red'"):
        segmenter(sample_image, "red", negatives=" red ")


def test_backgrounds_replace_the_encoders(
    segmenter: Segmenter, sample_image: Image, encoder: FakeEncoder
) -> None:
    regions = segmenter.regions(sample_image)
    result = segmenter.rank(
        regions, "red", backgrounds=["a red wall"], selection=Selection(best=True)
    )
    assert result.probability[0] == pytest.approx(0.5)
    assert "a photo of a red wall." in encoder.texts_encoded
    assert "a photo of a background." not in encoder.texts_encoded


def test_a_text_that_is_a_background_does_not_compete_with_itself(
    segmenter: Segmenter, sample_image: Image
) -> None:
    regions = segmenter.regions(sample_image)
    both = segmenter.rank(regions, ["red", "green"], backgrounds=["red", "background"])
    assert set(both.texts) == {"red"} | ({"green"} if len(both) > 1 else set())
    assert both.probability[0] > 0.9


def test_templates_by_sentence_and_by_name(
    segmenter: Segmenter, sample_image: Image, encoder: FakeEncoder
) -> None:
    regions = segmenter.regions(sample_image)
    segmenter.rank(regions, "red", templates=["one {}", "two {}"])
    assert {"one red", "two red"} <= set(encoder.texts_encoded)
    segmenter.rank(regions, "blue", templates="plain")
    assert "blue" in encoder.texts_encoded
    with pytest.raises(UnknownName, match="plain"):
        segmenter.rank(regions, "blue", templates="plane")


def test_boxes_keep_their_rows_and_an_empty_one_is_never_chosen(
    segmenter: Segmenter, sample_image: Image
) -> None:
    regions = segmenter.regions(
        sample_image, Boxes([(105, 50, 160, 120), (0, 100, 20, 120), (5, 5, 55, 55)])
    )
    assert regions.masks.areas.tolist() == [2000, 0, 1600]
    for selection in (Selection(threshold=0.0), Selection(best=True)):
        result = segmenter.rank(regions, "red", backgrounds="blue", selection=selection)
        assert 0 not in result.masks.areas
    assert segmenter.rank(regions, "blue").masks.boxes.tolist() == [[110, 60, 150, 110]]


def test_points_reach_the_proposer(segmenter: Segmenter, sample_image: Image) -> None:
    assert segmenter.regions(sample_image, Points([(70, 40)])).masks.boxes.tolist() == [
        [60, 20, 100, 80]
    ]


def test_regions_below_the_minimum_area_are_never_chosen(
    proposer: FakeProposer, encoder: FakeEncoder
) -> None:
    image = paint(("red", (10, 10, 15, 15)), ("blue", (40, 40, 80, 80)))
    policy = replace(POLICIES["tight"], min_area=100)
    segmenter = Segmenter(proposer, encoder, CropScorer(encoder, policy))
    result = segmenter(image, "red", backgrounds="nothing", selection=Selection(best=True))
    assert result.masks.boxes.tolist() == [[40, 40, 80, 80]]


def test_without_backgrounds_the_best_is_the_most_similar(
    segmenter: Segmenter, sample_image: Image
) -> None:
    result = segmenter(sample_image, "green", backgrounds=(), selection=Selection(best=True))
    assert result.masks.boxes.tolist() == [[60, 20, 100, 80]]


def test_an_image_over_the_limit_is_refused(segmenter: Segmenter) -> None:
    with pytest.raises(BadImage):
        segmenter.regions(np.zeros((20, 20, 3), np.uint8), max_pixels=100)


def test_the_fakes_tell_all_colours_apart() -> None:
    for index, colour in enumerate(COLOURS):
        assert (FakeProposer().encode(paint((colour, (0, 0, 160, 120)))) == index).all()


def test_ranking_stays_quick_with_many_regions(segmenter: Segmenter, encoder: FakeEncoder) -> None:
    from time import perf_counter

    rng = np.random.default_rng(0)
    windows = [(int(x), int(y), np.ones((40, 40), bool)) for x, y in rng.integers(0, 400, (300, 2))]
    masks = Masks.from_windows(windows, (480, 640))
    embeddings = encoder.encode_images(rng.integers(0, 256, (300, 16, 16, 3), np.uint8))
    regions = Regions(
        Image(np.zeros((480, 640, 3), np.uint8)), Proposals(masks, np.ones(300)), embeddings
    )
    segmenter.rank(regions, "red")
    start = perf_counter()
    segmenter.rank(regions, "blue")
    assert perf_counter() - start < 0.5  # a ceiling for any machine; benchmarks measure


load_picker = cache(segclip.load_picker)


@pytest.mark.parametrize("name", ["mini", "mini-sam"])
@pytest.mark.parametrize("size", [*SIZES, *LONGEST])
def test_every_prompt_is_answered(size: tuple[int, int], name: str) -> None:
    picker, (height, width) = load_picker(name), size
    encoded = picker.encode(striped(size))
    prompts: list[segclip.Points | segclip.Boxes] = [
        segclip.Points([(width / 2, height / 2)], [1]),
        segclip.Points([(width - 0.5, height - 0.5)], [1], box=(0, 0, width, height)),
        segclip.Boxes([(0, 0, width, height), (0, 0, (width + 1) // 2, (height + 1) // 2)]),
    ]
    for prompt in prompts:
        assert picker.pick(encoded, prompt).image.size == size
