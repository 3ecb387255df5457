from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from segclip.encoders import Serving
from segclip.ranking.embedding import similarity
from segclip.ranking.probability import Ranking, probabilities, weigh
from segclip.ranking.vocabulary import everyday
from segclip.types import Array
from tests.fakes import FakeEncoder


def random_similarity(regions: int, texts: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-0.3, 0.4, (regions, texts)).astype(np.float32)


def test_a_probability_is_the_softmax_of_the_text_against_the_others() -> None:
    value = probabilities(np.array([[0.30]]), np.array([[0.28, 0.25]]), 100.0)
    expected = np.exp(30) / (np.exp(30) + np.exp(28) + np.exp(25))
    np.testing.assert_allclose(value, [[expected]])


def test_a_probability_depends_neither_on_other_regions_nor_on_other_texts() -> None:
    similarity, others = random_similarity(7, 3), random_similarity(7, 4, seed=1)
    together = probabilities(similarity, others, 100.0)
    for row in range(7):
        for column in range(3):
            alone = probabilities(
                similarity[row : row + 1, column : column + 1], others[row : row + 1], 100.0
            )
            assert alone[0, 0] == together[row, column]


def test_extreme_scales_neither_overflow_nor_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = probabilities(np.array([[1.0], [-1.0]]), np.array([[-1.0], [1.0]]), 1e4)
    assert value.tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize(("regions", "texts", "others"), [(0, 2, 3), (4, 0, 3), (0, 0, 0)])
def test_no_regions_or_no_texts_give_an_empty_table(regions: int, texts: int, others: int) -> None:
    assert probabilities(np.zeros((regions, texts)), np.zeros((regions, others)), 100.0).shape == (
        regions,
        texts,
    )


def test_quality_weighs_the_odds() -> None:
    probability, quality = (
        np.array([[0.5, 0.9], [0.5, 0.9], [0.0, 1.0]]),
        np.array([1.0, 0.25, 0.25], np.float32),
    )
    half = 0.5  # the square root of a quarter
    expected = [[0.5, 0.9], [half / (half + 1), half * 9 / (half * 9 + 1)], [0.0, 1.0]]
    np.testing.assert_allclose(weigh(probability, quality, 0.5), expected)
    np.testing.assert_allclose(weigh(probability, quality, 0.0), probability)
    assert weigh(probability, np.zeros(3, np.float32), 1.0).tolist() == [[0, 0], [0, 0], [0, 0]]


def test_a_text_that_is_also_a_rival_competes_with_the_others_alone() -> None:
    encoder = FakeEncoder()
    serving = Serving(
        templates=("{}",), backgrounds=("green",), quality_weight=1.0, logit_scale=2.0
    )
    ranking = Ranking.of(encoder, serving, ["red", "blue"], ["red"])
    regions = encoder.encode_texts(["red", "green"])
    cosine = ranking.similarity(regions)
    assert cosine.shape == (2, 4)
    found = ranking.probability(regions, np.array([1.0, 0.5], np.float32))
    red = probabilities(cosine[:, [0]], cosine[:, [3]], 2.0)
    blue = probabilities(cosine[:, [1]], cosine[:, 2:], 2.0)
    np.testing.assert_allclose(found, weigh(np.hstack([red, blue]), np.array([1.0, 0.5]), 1.0))
    assert ranking.logit_scale == 2.0  # that of the threshold, not the encoder's own
    assert Ranking.of(encoder, Serving(), ["red"], []).logit_scale == encoder.logit_scale


def test_everyday_names_compete_where_the_settings_want_it() -> None:
    encoder = FakeEncoder()
    serving = Serving(templates=("{}",), backgrounds=("background",), logit_scale=2.0)
    regions = encoder.encode_texts(["red", "green"])
    quality = np.ones(2, np.float32)
    alone = Ranking.of(encoder, serving, ["red"]).probability(regions, quality)
    with_names = Ranking.of(encoder, replace(serving, vocabulary=True), ["red"])
    assert with_names.competes.shape == (1, len(everyday().names))
    found = with_names.probability(regions, quality)
    assert (found < alone).all()
    rivals = with_names.everyday[with_names.competes[0]]
    assert len(rivals) > 700
    others = similarity(regions, np.concatenate([with_names.embeddings[1:], rivals]))
    own = similarity(regions, with_names.embeddings[:1])
    np.testing.assert_allclose(found, probabilities(own, others, 2.0))


def test_a_name_does_not_compete_with_its_kin() -> None:
    ranking = Ranking.of(FakeEncoder(), Serving(templates=("{}",), vocabulary=True), ["a dog"])
    names = everyday().names
    assert not ranking.competes[0, names.index("dog")]
    assert not ranking.competes[0, names.index("animal")]
    assert ranking.competes[0, names.index("cat")]
