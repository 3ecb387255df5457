"""Export of many images: what is written, interruption, change, and misuse."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
from pycocotools.coco import COCO

from segclip import batch
from segclip.batch import Answers, Ask, ExportOptions, export
from segclip.errors import BadPrompt, SegclipError, UnknownName
from segclip.exporters import raster, records
from segclip.ranking.selection import Selection
from tests.batch_script import FORMATS
from tests.exports import (
    FORMATS as SOME_FORMATS,
)
from tests.exports import (
    ROOT,
    TEXTS,
    export_in_a_process,
    export_with,
    failures,
    run,
    run_all,
    snapshot,
    tree,
)
from tests.fakes import paint


class TestWhatIsWritten:
    def test_every_mask_comes_back_from_every_exact_format(
        self, photos: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        summary = run_all(photos, out)
        assert summary.states == {"matched": 6, "empty": 1, "failed": 0}
        dataset = COCO(str(out / "coco.json"))
        table = pyarrow.parquet.read_table(out / "regions.parquet").to_pylist()
        lines = [
            json.loads(line) for line in (out / "regions.jsonl").read_text("utf-8").splitlines()
        ]
        assert len(table) == len(lines) == len(dataset.anns) > 6
        for image in dataset.dataset["images"]:
            name = image["file_name"]
            masks, texts = raster.read_arrays(out / "npz" / f"{name}.npz")
            annotations = dataset.loadAnns(dataset.getAnnIds(imgIds=image["id"]))
            rows = [row for row in table if row["image"] == name]
            labels = np.asarray(PIL.Image.open(out / "labelmap" / f"{name}.labelmap.png"))
            assert len(masks) == len(annotations) == len(rows) == labels.max()
            for row, annotation in enumerate(annotations):
                mask = masks.full(row)
                png = np.asarray(PIL.Image.open(out / "png" / f"{name}.mask.{row:02d}.png"))
                rle = {
                    "size": [rows[row]["height"], rows[row]["width"]],
                    "counts": rows[row]["counts"],
                }
                for other in (
                    png > 0,
                    dataset.annToMask(annotation),
                    records.decode_rle(rle),
                    labels == row + 1,
                ):
                    assert np.array_equal(other, mask)
                assert (
                    dataset.cats[annotation["category_id"]]["name"]
                    == texts[row]
                    == rows[row]["text"]
                )

    def test_labelme_finds_its_image(self, photos: Path, tmp_path: Path) -> None:
        run_all(photos, tmp_path / "out")
        label = tmp_path / "out" / "labelme" / "sub dir" / "c.png.labelme.json"
        named = json.loads(label.read_text("utf-8"))["imagePath"]
        assert (label.parent / named).resolve() == (photos / "sub dir" / "c.png").resolve()

    def test_boxes_are_cut_out_without_any_text(self, photos: Path, tmp_path: Path) -> None:
        options = ExportOptions(formats=("coco",), ask=Ask(boxes=((90, 60, 140, 115),)))
        export(photos / "e.bmp", tmp_path / "out", options=options)
        dataset = COCO(str(tmp_path / "out" / "coco.json"))
        assert [row["name"] for row in dataset.dataset["categories"]] == ["object"]
        assert len(dataset.anns) == 1

    def test_everything_is_cut_out_where_there_is_no_text(
        self, photos: Path, tmp_path: Path
    ) -> None:
        table = photos / "t.jsonl"
        table.write_text('{"image": "e.bmp"}\n{"image": "a.png", "texts": ["a red square"]}\n')
        options = ExportOptions(formats=("coco",), ask=Ask(everything=True))
        export(table, tmp_path / "out", options=options)
        dataset = COCO(str(tmp_path / "out" / "coco.json"))
        names = {row["id"]: row["name"] for row in dataset.dataset["categories"]}
        found = [(row["image_id"], names[row["category_id"]]) for row in dataset.anns.values()]
        assert len([name for _, name in found if name == "object"]) >= 2
        assert len([name for _, name in found if name == "a red square"]) == 1

    def test_a_box_limits_everything(self, photos: Path, tmp_path: Path) -> None:
        options = ExportOptions(formats=("coco",), ask=Ask(boxes=((0, 0, 5, 5),), everything=True))
        export(photos / "e.bmp", tmp_path / "out", options=options)
        assert not COCO(str(tmp_path / "out" / "coco.json")).anns


class TestInterruption:
    def test_a_second_run_does_nothing_and_changes_nothing(
        self, photos: Path, tmp_path: Path
    ) -> None:
        run_all(photos, tmp_path / "out")
        before = tree(tmp_path / "out")
        summary = run_all(photos, tmp_path / "out")
        assert (summary.progress.now, summary.progress.before) == (0, 7)
        assert tree(tmp_path / "out") == before

    @pytest.mark.slow
    def test_a_kill_at_any_moment_loses_nothing(self, photos: Path, tmp_path: Path) -> None:
        whole = tmp_path / "whole"
        assert export_in_a_process(photos, whole).returncode == 0
        expected = tree(whole)
        rng = random.Random(0)
        # once for each kind of write, and at random
        moments = [*range(1, 14), *(rng.randrange(14, 170) for _ in range(5))]
        for moment in moments:
            out = tmp_path / f"killed-{moment}"
            killed = export_in_a_process(photos, out, kill=str(moment))
            assert killed.returncode in (-9, 0), killed.stderr
            run_all(photos, out)
            assert tree(out) == expected, moment
            shutil.rmtree(out)

    def test_ctrl_c_keeps_what_is_done(self, photos: Path, tmp_path: Path) -> None:
        def stop(progress: batch.Progress) -> None:
            if progress.now == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export(
                photos, tmp_path / "out", TEXTS, options=ExportOptions(formats=FORMATS), report=stop
            )
        summary = run_all(photos, tmp_path / "out")
        assert summary.progress.before == 3
        run_all(photos, tmp_path / "whole")
        assert tree(tmp_path / "out") == tree(tmp_path / "whole")

    @pytest.mark.slow
    def test_memory_does_not_grow_with_the_folder(self, photos: Path, tmp_path: Path) -> None:
        peaks = {}
        for count in (50, 400):
            folder = tmp_path / str(count)
            folder.mkdir()
            for number in range(count):
                (folder / f"{number:04d}.png").symlink_to(photos / "f.png")
            arguments = [
                "x",
                str(folder),
                str(tmp_path / f"out{count}"),
                "no",
                "1",
                "a black square",
            ]
            code = (
                f"import sys, resource; from tests import batch_script; sys.argv = {arguments!r}; "
                "batch_script.main(); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
            )
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
            )
            peaks[count] = int(done.stdout)
        assert peaks[400] <= 1.1 * peaks[50], peaks


class TestChanges:
    def test_only_what_changed_is_done_again(self, photos: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        run_all(photos, out)
        PIL.Image.fromarray(paint(("blue", (5, 5, 60, 60))).pixels).save(photos / "f.png")
        summary = run_all(photos, out)
        assert (summary.progress.now, summary.progress.before) == (1, 6)
        run_all(photos, tmp_path / "fresh")
        assert tree(out) == tree(tmp_path / "fresh")

    def test_a_touched_image_with_the_same_bytes_is_left_alone(
        self, photos: Path, tmp_path: Path
    ) -> None:
        run_all(photos, tmp_path / "out")
        os.utime(photos / "f.png", (1, 1))
        assert run_all(photos, tmp_path / "out").progress.now == 0

    def test_another_text_or_threshold_or_format_is_another_question(
        self, photos: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        run_all(photos, out)
        assert run_all(photos, out, "a green square").progress.now == 7
        run_all(photos, tmp_path / "fresh", "a green square")
        assert tree(out) == tree(tmp_path / "fresh")  # the former masks are gone
        answers = Answers(selection=Selection(threshold=0.99))
        options = ExportOptions(formats=FORMATS, answers=answers)
        assert export(photos, out, "a green square", options=options).progress.now == 7

    def test_a_changed_row_of_a_table_is_one_image(self, photos: Path, tmp_path: Path) -> None:
        table = photos / "table.csv"
        table.write_text('image,texts\na.png,a red square\nf.png,"a red square; a blue square"\n')
        export(table, tmp_path / "out")
        table.write_text('image,texts\na.png,a blue square\nf.png,"a red square; a blue square"\n')
        summary = export(table, tmp_path / "out")
        assert (summary.progress.now, summary.progress.before) == (1, 1)


class TestFailures:
    def test_failures_are_retried_on_request_or_change(self, hostile: Path, tmp_path: Path) -> None:
        run_all(hostile, tmp_path / "out")
        assert run_all(hostile, tmp_path / "out").progress.now == 0
        assert run_all(hostile, tmp_path / "out", retry_failed=True).progress.failed == 6
        shutil.copy(hostile / "f.png", hostile / "cut.png")
        summary = run_all(hostile, tmp_path / "out")
        assert summary.progress.now == 1
        assert summary.states["failed"] == 5

    def test_too_many_stop_the_run(self, hostile: Path, tmp_path: Path) -> None:
        summary = run_all(hostile, tmp_path / "out", max_failures=1)
        assert summary.progress.stopped
        assert summary.missing > 0
        assert run_all(hostile, tmp_path / "out").missing == 0


def test_misuse_is_reported_before_any_work(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BadPrompt, match="no text, box or point was given"):
        export(photos, tmp_path / "out")
    with pytest.raises(BadPrompt, match="no such input"):
        export(tmp_path / "nowhere", tmp_path / "out", "x")
    with pytest.raises(UnknownName, match="did you mean 'coco'"):
        export(photos, tmp_path / "out", "x", options=ExportOptions(formats=("coc",)))


def test_an_empty_folder_is_an_empty_run(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    summary = run_all(tmp_path / "nothing", tmp_path / "out")
    assert summary.images == 0
    assert json.loads((tmp_path / "out" / "coco.json").read_text("utf-8"))["images"] == []


@pytest.mark.parametrize(
    ("texts", "answers"),
    [
        ((), {"templates": "clip80"}),
        ((), {"templates": "{tmp}/none.txt"}),
        ((), {"templates": "{tmp}/no-slot.txt"}),
        ((), {"templates": "{tmp}/bytes.txt"}),
        ((), {"templates": ()}),
        (("\u00a0",), {}),
        (("red", " \t"), {}),
        (("x" * 1001,), {}),
        (("\udcff",), {}),
        ((), {"negatives": (" ",)}),
        ((), {"negatives": ("a  red square",)}),
        ((), {"backgrounds": ("a wall", "\n")}),
    ],
)
def test_an_invalid_question_removes_nothing(
    folder: Path, tmp_path: Path, texts: tuple[str, ...], answers: dict[str, Any]
) -> None:
    """Export fault 4."""
    (tmp_path / "no-slot.txt").write_text("a photo\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x80 {}\n")
    if isinstance(name := answers.get("templates"), str):
        answers = {"templates": name.format(tmp=tmp_path)}
    with pytest.raises(SegclipError):
        export_with(folder, tmp_path / "new", *texts, **answers)
    assert not (tmp_path / "new").exists()  # before any work
    out = tmp_path / "out"
    run(folder, out)
    before = snapshot(out)
    with pytest.raises(SegclipError):
        export_with(folder, out, *texts, **answers)
    assert snapshot(out) == before


def test_a_question_that_does_not_fit_an_image_leaves_its_masks(
    folder: Path, tmp_path: Path
) -> None:
    """Export fault 4: a box outside an image keeps its masks, unlike a damaged image."""
    out = tmp_path / "out"
    run(folder, out, formats=("npz",))
    before = snapshot(out / "npz")
    options = ExportOptions(formats=("npz",), ask=Ask(TEXTS, ((0.0, 0.0, 5000.0, 5000.0),)))
    assert export(folder, out, options=options).states["failed"] == 5
    assert snapshot(out / "npz") == before
    run(folder, out, "a green square", formats=("npz",))
    run(folder, tmp_path / "clean", "a green square", formats=("npz",))
    assert tree(out) == tree(tmp_path / "clean")


@pytest.mark.parametrize(
    "formats", [("json", "labelme", "png"), ("json", "yolo", "svg", "geojson"), SOME_FORMATS]
)
@pytest.mark.parametrize("spelling", ["moved", "absolute", "dotted"])
def test_another_path_to_the_same_images_yields_a_clean_runs_tree(
    folder: Path,
    tmp_path: Path,
    formats: tuple[str, ...],
    spelling: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Export fault 7."""
    monkeypatch.chdir(tmp_path)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "gone.png").symlink_to("nowhere")
    out = Path("out")
    run("photos", out, formats=formats)
    again = {
        "moved": "moved",
        "absolute": str(folder),
        "dotted": "../" + tmp_path.name + "/photos",
    }[spelling]
    if spelling == "moved":
        folder.rename(tmp_path / "moved")
    run(again, out, formats=formats)
    run(again, Path("clean"), formats=formats)
    assert tree(out) == tree(Path("clean"))
    assert all(reason.startswith(f"{again}/") for reason in failures(out).values())
    assert b"photos/a.png" not in b"".join(
        content for name, content in tree(out).items() if spelling == "moved" and "coco" not in name
    )
