"""Expressions are answered image by image, and measured as plain NumPy measures them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from segclip.errors import BadTable
from segclip.evaluation import referring
from segclip.evaluation.expressions import ReferringReport
from segclip.evaluation.journal import OutcomeJournal
from segclip.files import referring as files
from segclip.files.referring import ReferringSet
from segclip.ranking.selection import Selection
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from tests import expressions
from tests.expressions import BOXES, REFS, box_mask
from tests.fakes import FakeEncoder, FakeProposer

SHIFTED = (14, 12, 50, 56)  # where the table has the red box of the first image


@pytest.fixture
def segmenter(proposer: FakeProposer, encoder: FakeEncoder) -> Segmenter:
    return Segmenter(proposer, encoder, CropScorer(encoder))


def evaluate(segmenter: Segmenter, file: Path) -> ReferringReport:
    data = files.read(file, "val")
    selection = referring.selection_of(data, None)
    return referring.evaluate_referring(segmenter, data, files.images_of(data), selection=selection)


def test_the_figures_are_those_of_plain_numpy(segmenter: Segmenter, tmp_path: Path) -> None:
    report = evaluate(segmenter, expressions.refcoco(tmp_path, red=SHIFTED))
    answers = {"red box": 1, "the red one": 1, "the red box": 1, "green": 2, "blue": 3}
    answers |= {"the blue box on the right": 3, "the right red box": 5}
    shared, unions = [], []
    for row in REFS[:4]:
        truth = box_mask(SHIFTED if row["ann_id"] == 1 else BOXES[row["ann_id"]][2])
        for sentence in row["sentences"]:
            found = box_mask(BOXES[answers[sentence["raw"].lower()]][2])
            shared.append(np.sum(truth & found))
            unions.append(np.sum(truth | found))
    iou = np.array(shared) / np.array(unions)
    figures = dict(report.figures())
    assert figures["expressions"] == len(iou) == 7
    assert abs(figures["mIoU"] - iou.mean()) < 1e-6
    assert abs(figures["oIoU"] - np.sum(shared) / np.sum(unions)) < 1e-6
    for level in (0.5, 0.7, 0.9):
        assert abs(figures[f"P@{level}"] - (iou >= level).mean()) < 1e-6
    best = np.where(iou == 0, 1, iou)  # the text that names the wrong box
    assert abs(figures["best candidate: mIoU"] - best.mean()) < 1e-6
    assert figures["best candidate chosen"] == pytest.approx(6 / 7)


def test_grefcoco_answers_several_or_none(segmenter: Segmenter, tmp_path: Path) -> None:
    figures = dict(evaluate(segmenter, expressions.grefcoco(tmp_path)).figures())
    green, both = box_mask(BOXES[2][2]), box_mask(BOXES[2][2]) | box_mask(BOXES[3][2])
    red = box_mask(BOXES[4][2]).sum() + box_mask(BOXES[5][2]).sum()
    part = green.sum() / both.sum()
    # 3 right, one in part; 2 of 3 silent about nothing; a red zebra answered, a walrus missed
    assert figures["gIoU"] == pytest.approx((3 + part + 2) / 8)
    right = 2 * red + box_mask(BOXES[1][2]).sum() + green.sum()
    union = 2 * red + box_mask(BOXES[1][2]).sum() + both.sum() + red + box_mask(BOXES[5][2]).sum()
    assert figures["cIoU"] == pytest.approx(right / union)
    assert figures["N-acc"] == pytest.approx(2 / 3)
    assert figures["T-acc"] == pytest.approx(4 / 5)


def test_phrasecut_takes_the_union_of_the_answers(segmenter: Segmenter, tmp_path: Path) -> None:
    figures = dict(evaluate(segmenter, jpegs(expressions.phrasecut(tmp_path))).figures())
    assert figures["phrases"] == 3
    assert figures["mean IoU"] > 0.6  # JPEG blurs the edges of the boxes
    assert figures["P@0.9"] == pytest.approx(2 / 3)
    assert figures["phrases without an answer"] == 1


def jpegs(file: Path) -> Path:
    """Write the images once more, at the best quality."""
    for path in (file.parent / "images").iterdir():
        with PIL.Image.open(path) as image:
            pixels = np.array(image)
        PIL.Image.fromarray(np.where(pixels > 128, 255, 0).astype(np.uint8)).save(
            path, quality=100, subsampling=0
        )
    return file


def test_saco_matches_objects_one_to_one(segmenter: Segmenter, tmp_path: Path) -> None:
    report = evaluate(segmenter, expressions.saco(tmp_path))
    figures = dict(report.figures())
    assert figures["cgF1"] == figures["pmF1"] == figures["IL_MCC"] == 1
    assert [outcome.matched for outcome in report.outcomes] == [(1.0,), (), (1.0, 1.0), ()]


def test_an_image_is_embedded_once_for_all_its_expressions(
    segmenter: Segmenter, proposer: FakeProposer, tmp_path: Path
) -> None:
    evaluate(segmenter, expressions.refcoco(tmp_path))
    assert proposer.encoded == 2


@pytest.mark.parametrize(
    "make",
    [
        expressions.refcoco,
        expressions.grefcoco,
        expressions.reviewed,
        expressions.saco,
    ],
)
def test_an_interrupted_run_goes_on_with_the_same_figures(
    make: Callable[[Path], Path], segmenter: Segmenter, proposer: FakeProposer, tmp_path: Path
) -> None:
    data = files.read(make(tmp_path))
    selection = referring.selection_of(data, None)
    whole = evaluate(segmenter, data.files[0])

    def run() -> ReferringReport:
        journal = OutcomeJournal(tmp_path / "a.journal", "settings")
        return referring.evaluate_referring(
            segmenter,
            data,
            files.images_of(data),
            selection=selection,
            journal=journal,
            report=stop,
        )

    def stop(done: int, total: int) -> None:
        if total == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    before = proposer.encoded
    assert run() == whole
    assert proposer.encoded == before + 1
    assert run() == whole  # everything is known
    assert proposer.encoded == before + 1


def test_a_text_that_is_blank_has_no_answer(segmenter: Segmenter, tmp_path: Path) -> None:
    file = expressions.refcoco(tmp_path, [expressions.ref(1, 1, " ")])
    figures = dict(evaluate(segmenter, file).figures())
    assert (figures["mIoU"], figures["expressions without an answer"]) == (0, 1)


def test_an_image_without_candidates_counts_as_0(segmenter: Segmenter, tmp_path: Path) -> None:
    file = expressions.refcoco(tmp_path)
    PIL.Image.new("RGB", (160, 120), "white").save(tmp_path / "images" / "b.png")
    figures = dict(evaluate(segmenter, file).figures())
    assert figures["expressions"] == 7
    assert figures["mIoU"] == pytest.approx(5 / 7)


def test_an_image_of_another_size_is_refused(segmenter: Segmenter, tmp_path: Path) -> None:
    file = expressions.refcoco(tmp_path)
    PIL.Image.new("RGB", (161, 120), "white").save(tmp_path / "images" / "b.png")
    with pytest.raises(BadTable, match=r"b\.png is 120 x 161"):
        evaluate(segmenter, file)


def test_the_fingerprint_changes_with_all_that_outcomes_depend_on(tmp_path: Path) -> None:
    def digest(data: ReferringSet, models: str = "mini", threshold: float | None = None) -> str:
        return referring.fingerprint(data, {"a": models}, Selection(threshold))

    data = files.read(expressions.refcoco(tmp_path))
    first = digest(data)
    assert digest(replace(data, images=data.images[:1])) == first  # --limit
    assert digest(data, "photo") != first
    assert digest(data, threshold=0.5) != first
    expressions.refcoco(tmp_path, red=SHIFTED)
    assert digest(data) != first
