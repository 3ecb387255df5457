"""Scoring: regions and texts become unit rows, whatever their number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segclip.ranking.embedding import embed_texts, similarity, unit
from segclip.scoring import scorers
from segclip.scoring.crops import POLICIES, CropPolicy, View
from segclip.scoring.scorers import SCORERS, CropScorer, DenseScorer
from segclip.types import Array, Everything, Image, Masks
from tests.fakes import FakeEncoder, FakeProposer


@pytest.fixture
def masks(sample_image: Image, proposer: FakeProposer) -> Masks:
    return proposer.decode(proposer.encode(sample_image), Everything()).masks


def test_a_text_finds_its_region(sample_image: Image, masks: Masks, encoder: FakeEncoder) -> None:
    regions = CropScorer(encoder).embed_regions(sample_image, masks)
    texts = embed_texts(encoder, ["blue thing", "a red box"], ["a photo of a {}."])
    colours = [
        sample_image.pixels[masks.full(row)][0].argmax()
        for row in similarity(regions, texts).argmax(axis=0)
    ]
    assert colours == [2, 0]


@pytest.mark.parametrize("policy", POLICIES)
def test_embeddings_are_unit_rows(
    policy: str, sample_image: Image, masks: Masks, encoder: FakeEncoder
) -> None:
    regions = CropScorer(encoder, POLICIES[policy]).embed_regions(sample_image, masks)
    assert regions.dtype == np.float32
    assert np.linalg.norm(regions, axis=1) == pytest.approx(np.ones(len(masks)))


def test_the_policy_is_the_encoders_unless_given(encoder: FakeEncoder) -> None:
    assert CropScorer(encoder).policy is encoder.serving.policy
    assert CropScorer(encoder, POLICIES["keep"]).policy is POLICIES["keep"]


def test_views_are_blended_by_weight(
    sample_image: Image, masks: Masks, encoder: FakeEncoder
) -> None:
    wide, tight = View(3.0, "keep", 0.25), View(1.0, "keep", 0.75)
    parts = [
        CropScorer(encoder, CropPolicy((view,))).embed_regions(sample_image, masks)
        for view in (wide, tight)
    ]
    blended = CropScorer(encoder, CropPolicy((wide, tight))).embed_regions(sample_image, masks)
    assert blended == pytest.approx(unit(0.25 * parts[0] + 0.75 * parts[1]), abs=1e-6)


class OneSided(FakeEncoder):
    """Embed a crop by the means of its left and right half, so that a flip changes it."""

    def encode_images(self, crops: Any) -> Array:
        halves = (
            np.asarray(crops, np.float32).mean(axis=(1, 3)).reshape(len(crops), 2, -1).mean(axis=2)
        )
        return unit(halves)


def test_a_flipping_policy_averages_both_views(masks: Masks, sample_image: Image) -> None:
    view = View(2.0, "keep", 1.0)
    plain = CropScorer(OneSided(), CropPolicy((view,))).embed_regions(sample_image, masks)
    both = CropScorer(OneSided(), CropPolicy((view,), flip=True)).embed_regions(sample_image, masks)
    assert np.abs(plain[:, 0] - plain[:, 1]).max() > 0.01
    np.testing.assert_allclose(both, np.full_like(both, 0.5**0.5), atol=1e-6)


def test_unlikely_regions_get_one_view(masks: Masks, sample_image: Image) -> None:
    first, second = View(2.0, "keep", 0.5), View(1.0, "mean", 0.5)
    policy = CropPolicy((first, second), flip=True, thorough=0.1)
    quality = np.array([0.9, 0.05, 0.1, *[0.0] * (len(masks) - 3)], np.float32)
    mixed = CropScorer(OneSided(), policy).embed_regions(sample_image, masks, quality)
    whole = CropScorer(OneSided(), policy).embed_regions(sample_image, masks)
    once = CropScorer(OneSided(), CropPolicy((first,))).embed_regions(sample_image, masks)
    likely = quality >= np.float32(0.1)
    np.testing.assert_array_equal(mixed[likely], whole[likely])
    np.testing.assert_array_equal(mixed[~likely], once[~likely])
    assert np.abs(whole - once).max() > 0.01


def test_no_masks_give_no_rows(sample_image: Image, encoder: FakeEncoder) -> None:
    regions = CropScorer(encoder).embed_regions(sample_image, Masks.empty(sample_image.size))
    texts = embed_texts(encoder, ["red"], ["{}"])
    assert similarity(regions, texts).shape == (0, 1)


def test_no_texts_give_no_columns(sample_image: Image, masks: Masks, encoder: FakeEncoder) -> None:
    texts = embed_texts(encoder, [], ["a {}", "the {}"])
    assert similarity(CropScorer(encoder).embed_regions(sample_image, masks), texts).shape == (
        len(masks),
        0,
    )


def test_a_mask_below_the_minimum_area_is_a_zero_row_and_never_wins(
    sample_image: Image, encoder: FakeEncoder
) -> None:
    dense = np.zeros((3, *sample_image.size), bool)
    dense[0, 10:20, 10:20] = True  # 100 pixels: not more than min_area
    dense[1, 60:71, 110:121] = True
    scorer = CropScorer(encoder, POLICIES["ultralytics"])
    masks = Masks.from_dense(dense)
    regions = scorer.embed_regions(sample_image, masks)
    values = similarity(regions, embed_texts(encoder, ["red", "blue", "nothing here"], ["{}"]))
    assert scorer.scores(masks).tolist() == [False, True, False]
    assert not regions[[0, 2]].any()
    assert (values[[0, 2]] == -1).all()
    assert (values.argmax(axis=0) == 1).all()
    assert encoder.crops_encoded == [1]


def test_only_masks_too_small_give_zero_rows(sample_image: Image, encoder: FakeEncoder) -> None:
    masks = Masks.from_dense(np.zeros((2, *sample_image.size), bool))
    assert not CropScorer(encoder).embed_regions(sample_image, masks).any()


def test_crops_are_encoded_in_bounded_chunks(sample_image: Image, encoder: FakeEncoder) -> None:
    dense = np.zeros((scorers.CHUNK + 5, *sample_image.size), bool)
    dense[:, 10:50, 10:50] = True
    rows = CropScorer(encoder).embed_regions(sample_image, Masks.from_dense(dense))
    assert encoder.crops_encoded == [scorers.CHUNK, 5]
    assert rows == pytest.approx(np.repeat(rows[:1], len(rows), axis=0))


class TwoHalves(FakeEncoder):
    """Return one direction for the left of an image and another for the right."""

    def encode_dense(self, image: Image) -> Array:
        dense = np.zeros((4, 4, 2), np.float32)
        dense[:, :2, 0] = dense[:, 2:, 1] = 1
        return dense


def test_a_dense_region_is_its_inside_minus_its_outside() -> None:
    image = Image(np.zeros((40, 40, 3), np.uint8))
    left = np.zeros((40, 40), bool)
    left[:, :20] = True
    masks = Masks.from_dense(np.stack([left, ~left, np.zeros_like(left)]), (40, 40))
    found = DenseScorer(TwoHalves()).embed_regions(image, masks)
    assert np.allclose(found, [[0.7071, -0.7071], [-0.7071, 0.7071], [0.0, 0.0]], atol=1e-3)
    assert np.allclose(
        SCORERS["pooled"](TwoHalves(), None).embed_regions(image, masks), [[1, 0], [0, 1], [0, 0]]
    )
    assert DenseScorer(TwoHalves()).embed_regions(image, masks[[]]).shape == (0, 2)
