"""Calibration of an encoder on labelled regions, with encoders whose answers are known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segclip.encoders import Serving
from segclip.scoring import calibration, labelled
from segclip.scoring.calibration import Draws, calibrated, fit
from segclip.scoring.crops import POLICIES, View
from segclip.scoring.labelled import SIDE, LabelledRegion, LabelledRegions
from segclip.scoring.scorers import CropScorer
from segclip.types import Array, Image
from tests.fakes import COLOURS, FakeEncoder

NAMES = ("red", "green", "blue", "yellow")


def coloured(each: int = 6) -> LabelledRegions:
    """Make regions of colours on white, and black ones without a name."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[24:72, 24:72] = True
    rows = []
    for name in [*NAMES * each, *[""] * 2 * each]:
        pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
        pixels[mask] = COLOURS[name or "black"]
        rows.append(LabelledRegion(name, pixels, mask))
    return LabelledRegions.join(rows)


class Blind(FakeEncoder):
    """Embed crops at random: an encoder with random weights."""

    def encode_images(self, crops: Sequence[np.ndarray] | np.ndarray) -> Array:
        rng = np.random.default_rng(len(self.crops_encoded))
        rows = rng.normal(size=(len(crops), len(COLOURS) + 1)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def uncalibrated(encoder: FakeEncoder) -> FakeEncoder:
    encoder.serving = replace(encoder.serving, threshold=0.99, calibrated=False)
    return encoder


def test_a_good_encoder_gets_a_threshold_that_finds_all_and_nothing_else() -> None:
    encoder = uncalibrated(FakeEncoder())
    found = fit(encoder, CropScorer(encoder), coloured())
    assert found.fits
    assert found.apart == 1
    assert (found.right, found.found, found.silent) == (1, 1, 1)
    assert found.serving.calibrated
    assert not found.serving.vocabulary  # is not needed here
    assert "finds 100%" in str(found)


def test_an_encoder_that_tells_nothing_apart_gets_no_threshold() -> None:
    encoder = uncalibrated(Blind())
    found = fit(encoder, CropScorer(encoder), coloured())
    assert not found.fits
    assert found.serving == encoder.serving
    assert "tells nothing apart" in str(found)


def test_a_view_that_misleads_is_left_out() -> None:
    encoder = uncalibrated(FakeEncoder())
    policy = replace(
        POLICIES["default"],
        views=(View(8.0, "keep"), *POLICIES["tight"].views),
    )
    encoder.serving = replace(encoder.serving, policy=policy)
    found = fit(encoder, CropScorer(encoder), coloured())
    assert found.found == found.silent == 1


def test_questions_never_hold_another_region_of_their_name() -> None:
    names = ("red", "dark red", "blue", "", "blue", "")
    draws = Draws.of(names)
    assert draws.texts == ("blue", "dark red", "red")
    for rows, kind in zip(draws.present, draws.kinds, strict=True):
        assert names[rows[0]] == draws.texts[kind]
        words = set(draws.texts[kind].split())
        assert all(not words & set(names[row].split()) for row in rows[1:])
    for rows, kind in zip(draws.absent, draws.missing, strict=True):
        assert draws.texts[kind] not in {names[row] for row in rows}


def test_outcomes_are_the_best_of_each_question() -> None:
    names = ("red", "blue", "")
    draws = Draws.of(names)
    probability = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.95]])  # (R, K) of blue, red
    outcomes = draws.outcomes(probability)
    assert outcomes.is_right.tolist() == [False, True]  # the nameless region is redder than red
    assert outcomes.present.tolist() == [0.95, 0.8]
    assert set(outcomes.absent) <= {0.1, 0.3, 0.2, 0.95}


def test_likeness_separates_regions_of_one_name() -> None:
    encoder = FakeEncoder()
    regions = coloured()
    image = Image(regions.tiled(), "tiled")
    embeddings = CropScorer(encoder).embed_regions(image, regions.windows())
    likeness = Draws.of(regions.names).likeness(embeddings)
    assert 0.5 < likeness <= 1


def test_an_encoder_is_calibrated_once_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGCLIP_WEIGHTS", str(tmp_path))
    coloured().save(tmp_path / labelled.FILE)
    encoder = uncalibrated(FakeEncoder(fingerprint="one"))
    with caplog.at_level(logging.WARNING, "segclip"):
        first = calibrated(encoder, CropScorer(encoder))
    assert "calibrating it, once" in caplog.text
    assert "finds 100%" in caplog.text
    count = len(encoder.crops_encoded)
    assert calibrated(encoder, CropScorer(encoder)) == first
    assert len(encoder.crops_encoded) == count  # read, not measured again
    other = uncalibrated(FakeEncoder(fingerprint="two"))
    calibrated(other, CropScorer(other))
    assert other.crops_encoded


def test_a_damaged_record_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGCLIP_WEIGHTS", str(tmp_path))
    coloured().save(tmp_path / labelled.FILE)
    encoder = uncalibrated(FakeEncoder(fingerprint="one"))
    first = calibrated(encoder, CropScorer(encoder))
    (record,) = (tmp_path / "home" / "calibrations").iterdir()
    for content in ("", "{}", "[1]", '{"serving": {"threshold": 7}}'):
        record.write_text(content)
        assert calibrated(encoder, CropScorer(encoder)) == first


def test_without_the_regions_an_encoder_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_WEIGHTS", str(tmp_path))
    encoder = uncalibrated(FakeEncoder(fingerprint="one"))
    found = calibrated(encoder, CropScorer(encoder))
    assert found.serving == encoder.serving
    assert isinstance(found.serving, Serving)
    assert calibration.log.name == "segclip.scoring.calibration"


def test_unlikely_masks_count_less_where_that_answers_better() -> None:
    encoder = uncalibrated(FakeEncoder(logit_scale=3.0))
    regions = coloured()
    red = np.array(regions.names) == "red"
    pixels = np.concatenate([regions.pixels, regions.pixels[red]])  # parts that look like wholes
    masks = np.concatenate([regions.masks, regions.masks[red]])
    quality = np.concatenate([regions.quality, np.full(red.sum(), 0.05, np.float32)])
    names = regions.names + ("",) * int(red.sum())
    found = fit(encoder, CropScorer(encoder), LabelledRegions(names, pixels, masks, quality))
    assert found.serving.quality_weight > 0
    assert found.found == found.silent == 1


def test_names_that_share_a_word_are_measured_against_regions_without_one() -> None:
    encoder = uncalibrated(FakeEncoder())
    regions = coloured()
    names = tuple(name and f"{name} box" for name in regions.names)
    renamed = replace(regions, names=names)
    assert fit(encoder, CropScorer(encoder), renamed).fits


def test_other_settings_of_a_run_are_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGCLIP_WEIGHTS", str(tmp_path))
    coloured().save(tmp_path / labelled.FILE)
    encoder = uncalibrated(FakeEncoder(fingerprint="one"))
    calibrated(encoder, CropScorer(encoder))
    encoder.serving = replace(encoder.serving, templates=("one {}.",))
    assert calibrated(encoder, CropScorer(encoder)).serving.templates == ("one {}.",)
