"""A YOLO data set: its outlines, names and labels are read back by its readers."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import yaml

from segclip.batch import (
    Answers,
    ExportOptions,
    export,
    yolo,
)
from segclip.files.outputs import folded
from segclip.ranking.selection import Selection
from segclip.types import Array
from tests.exports import (
    TEXTS,
    draw,
    run,
    run_all,
)
from tests.fakes import paint


def test_thin_things_keep_their_outline_in_yolo(tmp_path: Path) -> None:
    """Fault 17.19: masks of 1 or 2 px, or 1 px wide, vanished; read as in ultralytics."""
    boxes = [
        (20, 10, 120, 11),
        (150, 20, 151, 100),
        (30, 30, 31, 31),
        (40, 40, 42, 41),
        (10, 105, 40, 115),
    ]
    (tmp_path / "in").mkdir()
    PIL.Image.fromarray(paint(*(("red", box) for box in boxes)).pixels).save(
        tmp_path / "in" / "wire.png"
    )
    options = ExportOptions(formats=("yolo",), answers=Answers(selection=Selection(threshold=0.0)))
    export(tmp_path / "in", tmp_path / "out", ["a red wire"], options=options)
    lines = (tmp_path / "out/yolo/labels/wire.txt").read_text().splitlines()
    found = set()
    for line in lines:
        points = np.array(line.split()[1:], np.float32).reshape(-1, 2) * (160, 120)
        filled = np.zeros((120, 160), np.uint8)
        cv2.fillPoly(filled, [points.astype(np.int32)], 1)
        found.add(
            (
                *np.argwhere(filled.T).min(axis=0).tolist(),
                *(np.argwhere(filled.T).max(axis=0) + 1).tolist(),
            )
        )
    assert found == set(boxes)


def test_yolo_pairs_every_image_with_its_own_label(photos: Path, tmp_path: Path) -> None:
    run_all(photos, tmp_path / "out")
    root = tmp_path / "out" / "yolo"
    assert yaml.safe_load((root / "data.yaml").read_text("utf-8"))["names"] == dict(
        enumerate(TEXTS)
    )
    linked = [path for path in (root / "images").rglob("*") if path.is_symlink()]
    assert len(linked) == 7
    for image in linked:
        label = root / "labels" / image.relative_to(root / "images").with_suffix(".txt")
        assert label.is_file()
        assert image.resolve().is_file()
    assert (root / "images" / "a_png.png").exists()
    assert (root / "images" / "a_jpg.jpg").exists()


class TestYolo:
    def data(self, folder: Path, out: Path) -> tuple[Path, dict[str, str]]:
        """Export, and pair each image with the label that YOLO trainers read for it."""
        run(folder, out, formats=("yolo",))
        root = out / "yolo"
        found = {}
        for path in sorted((root / "images").rglob("*.*")):
            place = str(path)
            # as ultralytics.data.utils.img2label_paths
            before, _, after = place.rpartition("/images/")
            label = Path(f"{before}/labels/{after}".rsplit(".", 1)[0] + ".txt")
            assert label.is_file(), path
            found[path.relative_to(root / "images").as_posix()] = label.read_text()
        assert len(found) == len(list((root / "labels").rglob("*.txt")))
        return root, found

    def test_fault_17_7_images_of_one_stem_have_labels_of_their_own(self, tmp_path: Path) -> None:
        names = ("a.jpg", "a.png", "a_jpg.webp", "A.jpg", "a.b.png", "a_png.png")
        for number, name in enumerate(names):
            draw(tmp_path / "in" / name, *["red"] * (1 + number % 3))
        _, found = self.data(tmp_path / "in", tmp_path / "out")
        assert len(found) == len(names)
        assert len({folded(name.rsplit(".", 1)[0]) for name in found}) == len(names)

    def test_fault_17_19_folders_named_images_and_gifs_are_read(self, tmp_path: Path) -> None:
        for name in ("images/a.png", "x/images/images/b.png", "images_/a.png", "c.gif", "d.webp"):
            draw(tmp_path / "in" / name, "red")
        (tmp_path / "in" / "e.png").write_bytes((tmp_path / "in" / "c.gif").read_bytes())
        root, found = self.data(tmp_path / "in", tmp_path / "out")
        assert len(found) == 6
        assert all(found.values())
        assert (root / "images" / "c.png").is_file()
        assert not (root / "images" / "c.png").is_symlink()
        assert (root / "images" / "e.png").read_bytes().startswith(b"\x89PNG")
        assert (root / "images" / "d.webp").is_symlink()

    def test_fault_17_19_the_table_has_no_path_and_notes_missing_splits(
        self, folder: Path, tmp_path: Path
    ) -> None:
        run(folder, tmp_path / "out")
        text = (tmp_path / "out" / "yolo" / "data.yaml").read_text("utf-8")
        table = yaml.safe_load(text)
        assert "path" not in table
        assert table["train"] == table["val"] == "images"
        assert "train and val are the same images" in text


ODD_TEXTS = (
    "a caf\u0092s red square",  # a C1 control, as in text mangled by Windows-1252
    "a red\x7f square\x01",
    "a red\ufffe square\uffff",
    "a red\u2028 square",
    "a red\u2029 square",
    "a red\x85 square",
    "a red\ufeff square",
    "a red square: 'x', \"y\" # {z} \\ \t\n",
    "a red 木 square 🦁",
    "yes",
    "- a red square",
)


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
def test_fault_17_19_names_of_a_yolo_data_set_are_read_back(
    tmp_path: Path, loader: type[yaml.SafeLoader]
) -> None:
    draw(tmp_path / "in" / "a.png", "red")
    run(tmp_path / "in", tmp_path / "out", *ODD_TEXTS[:3], formats=("yolo",))
    data = yaml.load((tmp_path / "out" / "yolo" / "data.yaml").read_bytes(), loader)
    assert tuple(data["names"].values()) == ODD_TEXTS[:3]
    for text in ODD_TEXTS:
        assert yaml.load(f"names:\n  0: {yolo.quoted(text)}\n", loader) == {"names": {0: text}}


def test_fault_17_19_every_character_is_read_back_by_yaml() -> None:
    characters = [chr(code) for code in (*range(1, 0xD800), *range(0xE000, 0x11000))]
    for start in range(0, len(characters), 4096):
        text = "a".join(characters[start : start + 4096])
        assert yaml.safe_load(f"0: {yolo.quoted(text)}\n") == {0: text}


def _joined_at_once(parts: list[Array]) -> Array:
    """Join as yolo.joined does, but with all distances of two outlines at once."""
    whole = parts[0].astype(float)
    for part in parts[1:]:
        distance = ((whole[:, None] - part[None]) ** 2).sum(axis=2)
        a, b = np.unravel_index(distance.argmin(), distance.shape)
        turned = np.roll(part, -int(b), axis=0).astype(float)
        whole = np.concatenate([whole[: a + 1], turned, turned[:1], whole[a:]])
    return whole


@pytest.mark.parametrize("block", [1, 7, 100, 1 << 20])
def test_fault_17_12e_outlines_are_joined_block_by_block_as_at_once(
    block: int,
) -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        # many points are equally near
        parts = [random.integers(0, 12, (random.integers(3, 30), 2)) + 0.01 for _ in range(4)]
        assert np.array_equal(yolo.joined(parts, block=block), _joined_at_once(parts))


def test_fault_17_12e_joining_long_outlines_takes_little_memory() -> None:
    turn = np.linspace(0, 2 * np.pi, 9000)
    parts = [np.column_stack([np.cos(turn), np.sin(turn)]) * 900 + 1000 * n for n in (0, 3)]
    tracemalloc.start()
    try:
        assert len(yolo.joined(parts)) == 18002
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
