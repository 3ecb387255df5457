"""Labels as users write them, the encoder's serving options, and one overlay file per image."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner, Result

from segclip import Boxes, Labels, loading
from segclip.cli.main import app
from segclip.errors import UnknownName
from segclip.scoring.crops import POLICIES
from segclip.scoring.scorers import DenseScorer, scorer_of
from segclip.segmenter import Segmenter
from segclip.types import Array, Image
from segclip.zeroshot import build, read_labels
from tests.commands import run
from tests.fakes import FAKE_SERVING, FakeEncoder, FakeProposer, paint


@pytest.fixture
def twins(tmp_path: Path, sample_image: Image, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder of images with equal names, with fake models."""
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loading, "load_encoder", lambda name, **options: FakeEncoder())
    monkeypatch.setattr(loading, "encoder_fingerprint", lambda name, **options: "fake")
    monkeypatch.setattr(
        loading,
        "load",
        lambda *names, **options: Segmenter(
            FakeProposer(), encoder := FakeEncoder(), scorer_of(encoder)
        ),
    )
    for day, pixels in (
        ("mon", sample_image.pixels),
        ("tue", paint(("red", (10, 10, 60, 60))).pixels),
    ):
        (tmp_path / day).mkdir()
        PIL.Image.fromarray(pixels).save(tmp_path / day / "1.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def classify(*arguments: str | Path) -> Result:
    return run("classify", *arguments)


def test_images_of_the_same_name_get_separate_files(twins: Path) -> None:
    """Fault 17.7: classify mon/1.png tue/1.png wrote one 1.labels.png."""
    outcome = classify("mon/1.png", "tue/1.png", "--labels", "red,blue", "--segments")
    assert outcome.exit_code == 0, outcome.output
    written = [
        line.removeprefix("wrote ")
        for line in outcome.stdout.splitlines()
        if line.startswith("wrote ")
    ]
    assert written == ["segclip-out/mon-1.labels.png", "segclip-out/tue-1.labels.png"]
    first, second = (np.array(PIL.Image.open(twins / name)) for name in written)
    assert (first != second).any()
    (twins / "segclip-out" / "mon-1.labels.png").write_bytes(b"mine")
    assert classify("mon/1.png", "tue/1.png", "--labels", "red", "--segments").exit_code == 2
    assert (twins / "segclip-out" / "mon-1.labels.png").read_bytes() == b"mine"


@pytest.mark.usefixtures("twins")
@pytest.mark.parametrize("flag", ["--top-k", "-k", "-n"])
def test_the_number_of_labels_has_three_flags(flag: str) -> None:
    outcome = classify("mon/1.png", "--json", "--labels", "red,blue,green", flag, "2")
    assert len(json.loads(outcome.stdout)["labels"]) == 2


@pytest.mark.usefixtures("twins")
@pytest.mark.parametrize(
    "labels",
    [
        ["--labels", "red,blue,green"],
        ["--labels", "red", "--labels", "blue,green"],
        ["--labels", "red"] * 2 + ["--labels", " blue ", "--labels", "green,"],
    ],
)
def test_labels_may_be_comma_separated_or_repeated(labels: list[str]) -> None:
    """Fault 17.23: only the last of repeated --labels was used."""
    outcome = classify("mon/1.png", "--json", *labels)
    assert outcome.exit_code == 0, outcome.output
    assert {guess["label"] for guess in json.loads(outcome.stdout)["labels"]} == {
        "red",
        "blue",
        "green",
    }


@pytest.mark.usefixtures("twins")
@pytest.mark.parametrize("typed", ["imagnet", "ImageNet", "image-net", "imagenet-1k", " imagenets"])
def test_misspelt_list_name_is_rejected(typed: str) -> None:
    """Fault 17.23: --labels imagnet gave 1.000."""
    outcome = classify("mon/1.png", "--labels", typed)
    assert outcome.exit_code == 2
    assert "did you mean 'imagenet'" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    with pytest.raises(UnknownName):
        read_labels(typed)
    assert read_labels(f"{typed},").names == (typed.strip(),)


@pytest.mark.usefixtures("twins")
@pytest.mark.parametrize("labels", [["imagenet,red"], ["red", "imagenet"]])
def test_list_name_must_stand_alone(labels: list[str]) -> None:
    outcome = classify("mon/1.png", *(part for one in labels for part in ("--labels", one)))
    assert outcome.exit_code == 2
    assert "'imagenet' is a whole list of labels" in outcome.stderr


@pytest.mark.usefixtures("twins")
def test_a_single_label_is_reported_as_meaningless() -> None:
    outcome = classify("mon/1.png", "--labels", "a zebra")
    assert outcome.exit_code == 0
    assert "'a zebra' is the only label, so its probability is 1 for any image" in outcome.stderr


class DenseFakeEncoder(FakeEncoder):
    """A fake encoder that also embeds patches of 20 pixels."""

    def encode_dense(self, image: Image) -> Array:
        """Embed every patch."""
        rows = [
            self.encode_images(
                [image.pixels[y : y + 20, x : x + 20] for x in range(0, image.size[1], 20)]
            )
            for y in range(0, image.size[0], 20)
        ]
        return np.stack(rows)


def test_classification_uses_the_serving_scale_and_scorer(sample_image: Image) -> None:
    """Fault 17.23: serving.logit_scale and serving.scorer were ignored.

    The threshold is fitted with them.
    """
    plain, served = (
        DenseFakeEncoder(),
        DenseFakeEncoder(serving=replace(FAKE_SERVING, logit_scale=3.0, scorer="dense")),
    )
    labels, boxes = Labels(("red", "green")), Boxes([(10, 10, 50, 50), (60, 20, 100, 80)])
    ours, theirs = build(served, labels), build(plain, labels)
    scores, cosine = ours.whole(sample_image), theirs.whole(sample_image).similarity
    assert np.array_equal(scores.similarity, cosine)
    expected = np.exp(3 * cosine) / np.exp(3 * cosine).sum(axis=1, keepdims=True)
    assert np.allclose(scores.probabilities(over="texts"), expected)
    assert isinstance(scorer_of(served), DenseScorer)
    found, cut = (
        ours.boxes(sample_image, boxes).similarity,
        theirs.boxes(sample_image, boxes).similarity,
    )
    assert not np.allclose(found, cut)
    assert np.allclose(ours.boxes(sample_image, boxes, policy="tight").similarity, cut)
    with pytest.raises(UnknownName, match="crop policy"):
        ours.boxes(sample_image, boxes, policy="loose fit")
    regions = Segmenter(FakeProposer(), served, scorer_of(served, POLICIES["tight"])).regions(
        sample_image
    )
    assert ours.name(regions).probability.max() < theirs.name(regions).probability.max()


@pytest.mark.usefixtures("twins")
class TestLabelsFile:
    """Fault 17.13."""

    def test_an_endless_device_is_one_error_line(self) -> None:
        outcome = classify("mon/1.png", "--labels-file", "/dev/zero")
        assert outcome.exit_code == 2
        assert len(outcome.stderr.splitlines()) == 1
        assert "/dev/zero is not UTF-8 text" in outcome.stderr

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
    def test_process_substitution_is_read(self) -> None:
        os.mkfifo("labels")
        writer = threading.Thread(target=lambda: Path("labels").write_text("red\nblue\n"))
        writer.start()
        outcome = classify("tue/1.png", "--labels-file", "labels")
        writer.join()
        assert outcome.exit_code == 0, outcome.output
        assert outcome.stdout.splitlines()[1].split()[1] == "red"


@pytest.mark.usefixtures("search_models")
def test_classify_labels_images_boxes_and_segments(photos: Path, tmp_path: Path) -> None:
    outcome = run(
        "classify", photos / "a.png", photos / "b.png", "--labels", "red,blue,blue", "--top-k", "1"
    )
    assert outcome.exit_code == 0, outcome.output
    assert [line.split()[1] for line in outcome.stdout.splitlines() if line.startswith("  ")] == [
        "red",
        "blue",
    ]
    boxed = run(
        "classify", photos / "a.png", "--labels", "red,blue", "--box", "30,30,90,90", "--json"
    )
    record = json.loads(boxed.stdout)
    assert record["box"] == [30, 30, 90, 90]
    assert record["labels"][0]["label"] == "red"
    named = run("classify", photos / "b.png", "--labels", "red,blue", "--segments")
    assert "b.png: blue" in named.stdout
    assert (tmp_path / "segclip-out" / "b.labels.png").is_file()
    piped = CliRunner().invoke(
        app, ["classify", str(photos / "b.png"), "--labels-file", "-"], input="red\nblue\n"
    )
    assert piped.stdout.splitlines()[1].split()[1] == "blue"
    mixed = run("classify", photos / "a.png", photos / "none.png", "--labels", "red")
    assert mixed.exit_code == 1


@pytest.mark.usefixtures("search_models")
def test_misuse_is_one_error_line_and_exit_code_2(photos: Path) -> None:
    for options, message in (
        ((), "--labels-file"),
        (("--labels", " , "), "no labels"),
        (("--labels", "red", "--segments", "--box", "1,2,30,40"), "exclude each other"),
    ):
        outcome = classify(photos / "a.png", *options)
        assert (outcome.exit_code, len(outcome.stderr.splitlines())) == (2, 1), outcome.output
        assert message in outcome.stderr
    missing = classify(photos / "none.png", "--labels", "red")
    assert missing.exit_code == 2
    assert "no such file" in missing.stderr
