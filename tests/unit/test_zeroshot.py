"""Zero-shot classification: labels, cached weights, boxes, segments, class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segclip import Boxes, Labels, classify, loading, zeroshot
from segclip.errors import BadImage, BadPrompt, BadTable, UnknownName
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from segclip.types import Image, Masks, Proposals, Regions
from segclip.zeroshot import best, build, read_labels
from tests.fakes import FakeEncoder, FakeProposer, paint

COLOURS = ("a red thing", "a green thing", "a blue thing")


def test_an_image_and_its_boxes_get_labels_with_probabilities(
    sample_image: Image, encoder: FakeEncoder
) -> None:
    (whole,) = classify(paint(("red", (0, 0, 160, 110))), COLOURS, encoder=encoder, top_k=2)
    assert [guess.label for guess in whole] == ["a red thing", "a green thing"]
    assert whole[0].probability > 0.99
    boxes = Boxes([(10, 10, 50, 50), (60.2, 20.2, 99.7, 79.5), (110, 60, 150, 110)])
    rows = classify(sample_image, "red,green,blue", encoder=encoder, boxes=boxes)
    assert [row[0].label for row in rows] == ["red", "green", "blue"]
    assert sum(guess.probability for guess in rows[0]) == pytest.approx(1)
    with pytest.raises(BadPrompt, match="leaves the image"):
        classify(sample_image, COLOURS, encoder=encoder, boxes=Boxes([(0, 0, 500, 500)]))
    with pytest.raises(BadPrompt, match="top_k"):
        classify(sample_image, COLOURS, encoder=encoder, top_k=0)
    with pytest.raises(BadImage):
        classify("nowhere.png", COLOURS, encoder=encoder)


def test_every_segment_gets_a_name_or_none(proposer: FakeProposer, encoder: FakeEncoder) -> None:
    image = paint(
        ("red", (10, 10, 50, 50)), ("black", (60, 20, 100, 80)), ("red", (110, 60, 150, 110))
    )
    regions = Segmenter(proposer, encoder, CropScorer(encoder)).regions(image)
    result = build(encoder, Labels(("red", "a background"))).name(regions)
    assert result.texts == ("red", "red")
    assert result.asked == ("red",)
    assert (result.probability > 0.5).all()
    assert sorted(result.masks.boxes[:, 0].tolist()) == [10, 110]
    empty = Regions(
        image, Proposals(Masks.empty(image.size), np.zeros(0)), np.zeros((0, 7), np.float32)
    )
    assert len(build(encoder, Labels(("red",))).name(empty)) == 0


def test_labels_come_by_comma_from_a_file_or_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_labels("cat, dog,,cat ").names == ("cat", "dog")
    assert "'cat' was given 2 times" in caplog.text
    (tmp_path / "labels.txt").write_text("a cat\n\nsnow, deep\n", "utf-8")
    assert read_labels("", file=tmp_path / "labels.txt").names == ("a cat", "snow, deep")
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbfa cat\r\na dog\r\n")
    assert read_labels("", file=tmp_path / "windows.txt").names == ("a cat", "a dog")
    assert len(read_labels(["catty" * 1000]).names[0]) == 1000
    assert "read only up to" in caplog.text
    imagenet = read_labels("imagenet")
    assert (len(imagenet), imagenet.verbatim, imagenet.templates) == (1000, True, "clip-80")
    assert len(set(imagenet.names)) == 1000  # two of them are called alike and told apart
    assert read_labels("imagenet", templates="clip-7").templates == "clip-7"
    nothings: tuple[str | list[str], ...] = ("", " , ", [])
    for nothing in nothings:
        with pytest.raises(BadPrompt, match="no labels"):
            read_labels(nothing)
    with pytest.raises(BadTable, match="cannot be read"):
        read_labels("", file=tmp_path / "none.txt")
    with pytest.raises(BadPrompt, match="empty text"):
        read_labels(["cat", " "])
    with pytest.raises(UnknownName):
        build(FakeEncoder(), read_labels("cat", templates="clip-81"))


def test_sentences_are_grammar_for_own_labels_and_verbatim_for_published_lists() -> None:
    encoder = FakeEncoder()
    build(encoder, Labels(("apple",), ("a photo of a {}.", "the {}")))
    build(encoder, Labels(("apple", "missile #2"), ("a photo of a {}.",), verbatim=True))
    assert encoder.texts_encoded == [
        "a photo of an apple.",
        "the apple",
        "a photo of a apple.",
        "a photo of a missile.",
    ]


def test_weights_are_kept_for_labels_templates_and_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path))
    first = build(FakeEncoder(fingerprint="1"), Labels(("red", "blue")))
    again = FakeEncoder(fingerprint="1")
    assert np.array_equal(build(again, Labels(("red", "blue"))).weights, first.weights)
    assert again.texts_encoded == []
    for labels, key in (
        (Labels(("red", "green")), "1"),
        (Labels(("red", "blue"), "plain"), "1"),
        (Labels(("red", "blue")), "2"),
        (Labels(("red", "blue")), ""),
    ):
        other = FakeEncoder(fingerprint=key)
        build(other, labels)
        assert other.texts_encoded
    for kept in (tmp_path / "labels").iterdir():
        kept.write_bytes(b"damaged")
    assert np.array_equal(
        build(FakeEncoder(fingerprint="1"), Labels(("red", "blue"))).weights, first.weights
    )


def test_an_encoder_is_loaded_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path))
    monkeypatch.setattr(loading, "load_encoder", lambda name: FakeEncoder())
    assert classify(paint(("blue", (0, 0, 160, 120))), "red,blue")[0][0].label == "blue"


def test_equal_labels_keep_their_order(encoder: FakeEncoder) -> None:
    scores = build(encoder, Labels(("a zebra", "red", "a horse"))).whole(
        paint(("red", (0, 0, 160, 120)))
    )
    assert [guess.label for guess in best(scores)[0]] == ["red", "a zebra", "a horse"]


def test_a_label_list_is_not_taken_for_a_folder_name() -> None:
    assert set(zeroshot.CLASS_LISTS) == {"imagenet"}
