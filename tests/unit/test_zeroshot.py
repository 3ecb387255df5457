"""Zero-shot classification: labels, cached weights, boxes, segments, class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from segclip import Boxes, Labels, classify, loading, zeroshot
from segclip.errors import BadImage, BadPrompt, BadTable, NotWritable, UnknownName
from segclip.evaluation.zeroshot import class_folders, evaluate_folders, label_of
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
    assert encoder.texts_seen == [
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
    assert again.texts_seen == []
    for labels, key in (
        (Labels(("red", "green")), "1"),
        (Labels(("red", "blue"), "plain"), "1"),
        (Labels(("red", "blue")), "2"),
        (Labels(("red", "blue")), ""),
    ):
        other = FakeEncoder(fingerprint=key)
        build(other, labels)
        assert other.texts_seen
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


def test_a_tree_of_class_folders_is_measured(tmp_path: Path, encoder: FakeEncoder) -> None:
    for folder, colour, count in (
        ("a_red_thing", "red", 3),
        ("blue", "blue", 1),
        ("green", "blue", 1),
    ):
        (tmp_path / folder).mkdir()
        for number in range(count):
            pixels = paint((colour, (0, 0, 160, 100 + number))).pixels
            PIL.Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "blue" / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / ".hidden").mkdir()
    folders = class_folders(tmp_path)
    labels = [label_of(folder) for folder in folders]
    assert labels == ["a red thing", "blue", "green"]
    done: list[int] = []
    report = evaluate_folders(
        build(encoder, read_labels(labels)), folders, report=lambda now, total: done.append(now)
    )
    assert report.confusion.tolist() == [[3, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert (report.top(1), report.top(5)) == (0.8, 1.0)
    assert report.mean_class == pytest.approx(2 / 3)
    assert done == [1, 2, 3, 4, 5, 6]
    assert "broken.jpg" in report.failed[0]
    assert ("'green' taken for 'blue'", "1") in report.table()
    assert report.to_csv().splitlines()[:2] == [",a red thing,blue,green", "a red thing,3,0,0"]
    report.save(tmp_path / "out" / "confusion.png")
    report.save(tmp_path / "out" / "confusion.png")
    mine = next((tmp_path).rglob("0.png"))
    before = mine.read_bytes()
    with pytest.raises(
        NotWritable, match="not as segclip wrote it"
    ):  # fault 17.1: an image was overwritten
        report.save(mine)
    assert mine.read_bytes() == before
    assert PIL.Image.open(tmp_path / "out" / "confusion.png").width > 300
    with pytest.raises(BadPrompt, match=r"\.csv, \.png, \.svg"):
        report.save(tmp_path / "confusion.bmp")
    limited = evaluate_folders(build(encoder, read_labels(labels)), folders, limit=1)
    assert limited.confusion.sum() == 3  # of "blue" the broken one comes second
    with pytest.raises(BadPrompt, match="3 class folders need as many labels"):
        evaluate_folders(build(encoder, read_labels("red,blue")), folders)
    with pytest.raises(BadPrompt, match="holds no folders"):
        class_folders(tmp_path / "green")
    nothing = evaluate_folders(build(encoder, read_labels(labels)), [tmp_path / ".hidden"] * 3)
    assert np.isnan(nothing.top(1))
    assert np.isnan(nothing.mean_class)


def test_a_label_list_is_not_taken_for_a_folder_name() -> None:
    assert set(zeroshot.CLASS_LISTS) == {"imagenet"}
