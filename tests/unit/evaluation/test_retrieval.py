"""Recall of retrieval against plain loops; names are searched in an index of labelled images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from segclip import Index, IndexOptions, loading, make_index
from segclip.cli.main import app
from segclip.errors import BadTable
from segclip.evaluation.datasets import Sample
from segclip.evaluation.retrieval import evaluate_captions, evaluate_names, read_captions, recall
from segclip.types import Masks
from tests import search_script
from tests.fakes import FakeEncoder, paint


def test_any_caption_of_an_image_counts_and_every_caption_is_a_query() -> None:
    similarity = np.array(
        [
            [0.9, 0.1, 0.8, 0.2],  # image 0, whose captions are 0 and 1: the first is nearest
            [0.5, 0.6, 0.3, 0.4],  # image 1, captions 2 and 3: third
        ]
    )
    found = recall(similarity, np.array([0, 0, 1, 1]))
    assert found.to_text == (0.5, 1.0, 1.0)
    # captions 0 and 3 are nearest to their own image, 1 and 2 are not
    assert found.to_image == (0.5, 1.0, 1.0)
    assert (found.images, found.captions) == (2, 4)


def test_recall_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(40), rng.integers(1, 6, 40))
    similarity = rng.normal(size=(40, len(owner))) + 1.5 * (owner == np.arange(40)[:, None])
    found = recall(similarity, owner)
    for k, to_image, to_text in zip((1, 5, 10), found.to_image, found.to_text, strict=True):
        columns = [owner[t] in np.argsort(-similarity[:, t])[:k] for t in range(len(owner))]
        rows = [bool(np.isin(owner[np.argsort(-similarity[i])[:k]], i).any()) for i in range(40)]
        assert (to_image, to_text) == (np.mean(columns), np.mean(rows))


def test_captions_are_read_in_the_usual_formats(tmp_path: Path) -> None:
    coco = {
        "images": [{"id": 7, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 7, "caption": f"caption {n}"} for n in range(7)],
    }
    karpathy = {
        "images": [
            {
                "filename": "b.jpg",
                "filepath": "val2014",
                "split": "test",
                "sentences": [{"raw": "A dog."}],
            },
            {"filename": "c.jpg", "split": "train", "sentences": [{"raw": "A cat."}]},
        ]
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "karpathy.json").write_text(json.dumps(karpathy))
    (tmp_path / "flickr.txt").write_text('image,caption\nd.jpg,"One, two"\nd.jpg,Three\n')
    (one,) = read_captions(tmp_path / "coco.json")
    assert (one.path, one.captions) == (tmp_path / "a.jpg", tuple(f"caption {n}" for n in range(5)))
    (two,) = read_captions(tmp_path / "karpathy.json", tmp_path / "photos")
    assert (two.path, two.captions) == (tmp_path / "photos" / "val2014" / "b.jpg", ("A dog.",))
    (three,) = read_captions(tmp_path / "flickr.txt")
    assert three.captions == ("One, two", "Three")
    for name, text in (("bad.json", "{}"), ("empty.txt", ""), ("other.json", '{"images": []}')):
        (tmp_path / name).write_text(text)
        with pytest.raises(BadTable, match=name):
            read_captions(tmp_path / name)


def test_captions_are_compared_with_images(tmp_path: Path, encoder: FakeEncoder) -> None:
    lines = ["image,caption"]
    for colour in ("red", "blue"):
        PIL.Image.fromarray(paint((colour, (0, 0, 160, 110))).pixels).save(
            tmp_path / f"{colour}.png"
        )
        lines += [f"{colour}.png,a {colour} wall", f"{colour}.png,{colour}  paint"]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    report = evaluate_captions(encoder, read_captions(tmp_path / "captions.csv"))
    assert report.to_image == report.to_text == (1.0, 1.0, 1.0)
    assert ("text to image, R@1", "1.0000") in report.table()


@pytest.mark.shared
def test_the_captions_of_coco_are_measured(shared_data: Path) -> None:
    outcome = CliRunner().invoke(
        app,
        [
            "evaluate",
            "retrieval",
            str(shared_data / "coco-dev" / "captions.json"),
            "--limit",
            "12",
            "--offline",
        ],
    )
    assert outcome.exit_code == 0, outcome.output
    figures = dict(
        line.rsplit(maxsplit=1) for line in outcome.stdout.splitlines() if line[-1:].isdigit()
    )
    assert (figures["images"], figures["captions"]) == ("12", "60")
    assert 0 <= float(figures["text to image, R@1"]) <= float(figures["text to image, R@10"]) <= 1
    assert float(figures["image to text, R@10"]) > 0


@pytest.mark.usefixtures("fake_models")
def test_small_objects_are_found_by_segments_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_encoder", search_script.fake_encoder)
    monkeypatch.setattr(loading, "encoder_fingerprint", search_script.fake_hash)
    samples = []
    for number in range(12):
        box = (2, 2, 8, 8) if number == 5 else (2, 2, 8, 9)
        colour = "blue" if number == 5 else "yellow"
        image = paint(("red", (20, 20, 140, 100)), (colour, box))
        PIL.Image.fromarray(image.pixels).save(tmp_path / f"{number:02d}.png")
        windows = [
            (x1, y1, np.ones((y2 - y1, x2 - x1), bool))
            for x1, y1, x2, y2 in ((20, 20, 140, 100), box)
        ]
        masks = Masks.from_windows(windows, image.size)
        askable, crowd = np.array([True, True]), np.zeros(2, bool)
        samples.append(
            Sample(tmp_path / f"{number:02d}.png", masks, ("red", colour), askable, (), crowd)
        )
    make_index(tmp_path, IndexOptions(regions=True))
    found = evaluate_names(Index(tmp_path), samples)
    assert found.names == 3
    assert found.regions == (1.0, 1.0, 1.0)
    assert found.outlined == 1
    assert found.precision[0] == 1
    assert ("names queried", "3") in found.table()
