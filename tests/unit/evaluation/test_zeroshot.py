"""A tree of class folders is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from segclip.errors import BadPrompt, NotWritable
from segclip.evaluation.zeroshot import class_folders, evaluate_folders, label_of
from segclip.zeroshot import build, read_labels
from tests.fakes import FakeEncoder, paint


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
    with pytest.raises(BadPrompt, match="absent: no such folder"):
        class_folders(tmp_path / "absent")
    nothing = evaluate_folders(build(encoder, read_labels(labels)), [tmp_path / ".hidden"] * 3)
    assert np.isnan(nothing.top(1))
    assert np.isnan(nothing.mean_class)
