"""Export of many images: every interruption, every change, every broken file."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import filelock
import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
import yaml
from pycocotools.coco import COCO

from segclip import batch, exporters
from segclip.batch import Answers, Ask, ExportOptions, Running, export
from segclip.batch.plan import digest, read, shard
from segclip.errors import BadPrompt, BadTable, Busy, UnknownName
from segclip.exporters import raster, records
from segclip.ranking.selection import Selection
from tests.batch_script import FORMATS, POISON
from tests.fakes import paint

pytestmark = pytest.mark.usefixtures("fake_models")
ROOT = Path(__file__).parents[3]
TEXTS = ("a red square", "a blue square")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub dir").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(7):
        x, y = (int(v) for v in rng.integers(0, 60, 2))
        colour = ("red", "green", "blue", "yellow")[number % 4]
        image = paint(
            (colour, (x, y, x + 40, y + 30)),
            ("red", (100, 70, 130, 110)) if number % 3 else ("black", (0, 0, 9, 9)),
        )
        name = (
            "a.png",
            "a.jpg",
            "b é🦁.png",
            "sub dir/c.png",
            "sub dir/d\nnew.png",
            "e.bmp",
            "f.png",
        )[number]
        PIL.Image.fromarray(image.pixels).save(folder / name, quality=95)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file of an output, except the journal's."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not name.startswith(".segclip") and (path.is_symlink() or path.is_file()):
            found[name] = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
    return found


def run(photos: Path, out: Path, *texts: str, **running: Any) -> batch.Summary:
    options = ExportOptions(formats=FORMATS)
    return export(photos, out, texts or TEXTS, options=options, running=Running(**running))


def script(
    photos: Path, out: Path, kill: str = "no", workers: int = 1
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "tests.batch_script",
        str(photos),
        str(out),
        kill,
        str(workers),
        *TEXTS,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


class TestWhatIsWritten:
    def test_every_mask_comes_back_from_every_exact_format(
        self, photos: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        summary = run(photos, out)
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
        run(photos, tmp_path / "out")
        label = tmp_path / "out" / "labelme" / "sub dir" / "c.png.labelme.json"
        named = json.loads(label.read_text("utf-8"))["imagePath"]
        assert (label.parent / named).resolve() == (photos / "sub dir" / "c.png").resolve()

    def test_thin_things_keep_their_outline_in_yolo(self, tmp_path: Path) -> None:
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
        options = ExportOptions(
            formats=("yolo",), answers=Answers(selection=Selection(threshold=0.0))
        )
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

    def test_yolo_pairs_every_image_with_its_own_label(self, photos: Path, tmp_path: Path) -> None:
        run(photos, tmp_path / "out")
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

    def test_the_summary_and_the_sheet_report_results(self, photos: Path, tmp_path: Path) -> None:
        summary = run(photos, tmp_path / "out")
        report = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
        assert report["images"] == summary.images == 7
        assert set(report["texts"]) == set(TEXTS)
        assert report["texts"]["a red square"]["images"] >= 4
        assert PIL.Image.open(tmp_path / "out" / "contact_sheet.png").size[0] > 600
        assert not (tmp_path / "out" / "failures.jsonl").exists()

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
        run(photos, tmp_path / "out")
        before = tree(tmp_path / "out")
        summary = run(photos, tmp_path / "out")
        assert (summary.progress.now, summary.progress.before) == (0, 7)
        assert tree(tmp_path / "out") == before

    @pytest.mark.slow
    def test_a_kill_at_any_moment_loses_nothing(self, photos: Path, tmp_path: Path) -> None:
        whole = tmp_path / "whole"
        assert script(photos, whole).returncode == 0
        expected = tree(whole)
        rng = random.Random(0)
        # once for each kind of write, and at random
        moments = [*range(1, 14), *(rng.randrange(14, 170) for _ in range(5))]
        for moment in moments:
            out = tmp_path / f"killed-{moment}"
            killed = script(photos, out, kill=str(moment))
            assert killed.returncode in (-9, 0), killed.stderr
            run(photos, out)
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
        summary = run(photos, tmp_path / "out")
        assert summary.progress.before == 3
        run(photos, tmp_path / "whole")
        assert tree(tmp_path / "out") == tree(tmp_path / "whole")

    @pytest.mark.slow
    def test_processes_and_parts_give_the_same_bytes(self, photos: Path, tmp_path: Path) -> None:
        run(photos, tmp_path / "whole")
        expected = tree(tmp_path / "whole")
        done = script(photos, tmp_path / "pool", workers=2)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path / "pool") == expected
        first = run(photos, tmp_path / "parts", part="2/2")
        assert first.missing == 4
        assert not (tmp_path / "parts" / "coco.json").exists()
        assert run(photos, tmp_path / "parts", part="1/2").missing == 0
        assert tree(tmp_path / "parts") == expected

    @pytest.mark.slow
    def test_an_image_that_kills_its_process_is_the_only_failure(
        self, photos: Path, tmp_path: Path
    ) -> None:
        pixels = paint(("red", (5, 5, 60, 60))).pixels.copy()
        pixels[0, 0] = POISON
        PIL.Image.fromarray(pixels).save(photos / "c.png")
        done = script(photos, tmp_path / "out", workers=2)
        assert done.returncode == 0, done.stderr
        (row,) = (tmp_path / "out" / "failures.jsonl").read_text("utf-8").splitlines()
        assert json.loads(row)["image"] == "c.png"
        assert "the process died" in json.loads(row)["reason"]

    def test_two_runs_on_one_folder_are_refused(self, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "out" / ".segclip").mkdir(parents=True)
        with (
            filelock.FileLock(tmp_path / "out" / ".segclip" / "all.lock"),
            pytest.raises(Busy, match="another run"),
        ):
            run(photos, tmp_path / "out")

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
        run(photos, out)
        PIL.Image.fromarray(paint(("blue", (5, 5, 60, 60))).pixels).save(photos / "f.png")
        summary = run(photos, out)
        assert (summary.progress.now, summary.progress.before) == (1, 6)
        run(photos, tmp_path / "fresh")
        assert tree(out) == tree(tmp_path / "fresh")

    def test_a_touched_image_with_the_same_bytes_is_left_alone(
        self, photos: Path, tmp_path: Path
    ) -> None:
        run(photos, tmp_path / "out")
        os.utime(photos / "f.png", (1, 1))
        assert run(photos, tmp_path / "out").progress.now == 0

    def test_another_text_or_threshold_or_format_is_another_question(
        self, photos: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        run(photos, out)
        assert run(photos, out, "a green square").progress.now == 7
        run(photos, tmp_path / "fresh", "a green square")
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

    def test_masks_that_were_removed_are_made_again(self, photos: Path, tmp_path: Path) -> None:
        run(photos, tmp_path / "out")
        before = tree(tmp_path / "out")
        shutil.rmtree(tmp_path / "out" / "png")
        assert run(photos, tmp_path / "out").progress.now > 0
        assert tree(tmp_path / "out") == before


class TestFailures:
    @pytest.fixture
    def hostile(self, photos: Path) -> Path:
        whole = (photos / "f.png").read_bytes()
        (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
        (photos / "empty.jpg").touch()
        (photos / "words.jpg").write_text("not an image")
        (photos / "gone.png").symlink_to(photos / "nowhere.png")
        (photos / "loop.png").symlink_to(photos / "loop.png")
        (photos / "loop").symlink_to(photos, target_is_directory=True)
        PIL.Image.new("1", (12000, 12000)).save(photos / "bomb.png")
        return photos

    def test_each_is_a_row_and_stops_nothing(self, hostile: Path, tmp_path: Path) -> None:
        summary = run(hostile, tmp_path / "out")
        assert summary.states == {"matched": 6, "empty": 1, "failed": 6}
        rows = [
            json.loads(line)
            for line in (tmp_path / "out" / "failures.jsonl").read_text("utf-8").splitlines()
        ]
        assert {row["image"] for row in rows} == {
            "cut.png",
            "empty.jpg",
            "words.jpg",
            "gone.png",
            "loop.png",
            "bomb.png",
        }
        assert all(row["reason"] and str(hostile) in row["path"] for row in rows)

    def test_failures_are_retried_on_request_or_change(self, hostile: Path, tmp_path: Path) -> None:
        run(hostile, tmp_path / "out")
        assert run(hostile, tmp_path / "out").progress.now == 0
        assert run(hostile, tmp_path / "out", retry_failed=True).progress.failed == 6
        shutil.copy(hostile / "f.png", hostile / "cut.png")
        summary = run(hostile, tmp_path / "out")
        assert summary.progress.now == 1
        assert summary.states["failed"] == 5

    def test_too_many_stop_the_run(self, hostile: Path, tmp_path: Path) -> None:
        summary = run(hostile, tmp_path / "out", max_failures=1)
        assert summary.progress.stopped
        assert summary.missing > 0
        assert run(hostile, tmp_path / "out").missing == 0

    def test_a_bug_is_a_row_with_its_traceback(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(result: Any, path: Path) -> list[Path]:
            raise ZeroDivisionError("in the writer")

        monkeypatch.setitem(exporters.WRITERS, "png", broken)
        summary = run(photos, tmp_path / "out")
        assert summary.states["failed"] == 7
        row = json.loads((tmp_path / "out" / "failures.jsonl").read_text("utf-8").splitlines()[0])
        assert row["reason"] == "ZeroDivisionError: in the writer"
        assert "Traceback" in row["traceback"]


class TestPlan:
    def test_a_folder_is_walked_in_one_order(self, photos: Path) -> None:
        names = [item.name for item in read(photos, Ask(("x",)))]
        assert names == sorted(names, key=lambda name: Path(name).parts)
        assert len(names) == 7

    def test_a_glob_a_list_and_a_table(self, photos: Path) -> None:
        ask = Ask(("x",))
        assert len(read(f"{photos}/**/*.png", ask)) == 5
        (photos / "list.txt").write_text("a.png\nsub dir/c.png\n")
        assert [item.name for item in read(photos / "list.txt", ask)] == ["a.png", "sub dir/c.png"]
        (photos / "t.jsonl").write_text(
            '{"image": "a.png", "texts": ["one; two"], "points": [[3, 4, 0]]}\n{"image": "f.png", '
            '"boxes": "1,2,3,4"}\n'
        )
        first, second = read(photos / "t.jsonl", ask)
        assert first.ask == Ask(("one; two",), (), ((3.0, 4.0, 0.0),))
        assert second.ask == Ask(("x",), ((1.0, 2.0, 3.0, 4.0),))

    def test_fault_17_13_a_glob_follows_no_links_and_warns(
        self, photos: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (photos / "l").symlink_to(photos, target_is_directory=True)
        (photos / "sub dir" / "m").symlink_to("..", target_is_directory=True)
        assert len(read(f"{photos}/**/*.png", Ask(("x",)))) == 5
        assert "left out 2 (l, sub dir/m): links to folders are not followed" in caplog.text

    def test_boxes_of_a_table_go_to_the_images_of_their_names(
        self, photos: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "boxes.csv").write_text('image,boxes\na.png,"1,2,30,40; 5,6,70,80"\n')
        items = {
            item.name: item.ask for item in read(photos, Ask(("x",)), boxes=tmp_path / "boxes.csv")
        }
        assert len(items["a.png"].boxes) == 2
        assert not items["f.png"].boxes
        (tmp_path / "boxes.csv").write_text('image,boxes\nz.png,"1,2,30,40"\n')
        with pytest.raises(BadTable, match=r"z\.png"):
            read(photos, Ask(("x",)), boxes=tmp_path / "boxes.csv")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("image\na.png\na.png\n", "twice"),
            ("picture\na.png\n", "unknown column 'picture'"),
            ('image,boxes\na.png,"1,2,3"\n', "row 1 .*'boxes': expected a box x1,y1,x2,y2"),
            ('image,points\na.png,"1,x"\n', "row 1 .*'points'"),
        ],
    )
    def test_an_invalid_table_is_refused(self, photos: Path, content: str, message: str) -> None:
        (photos / "t.csv").write_text(content)
        with pytest.raises((BadPrompt, BadTable), match=message):
            read(photos / "t.csv", Ask(("x",)))

    def test_misuse_is_reported_before_any_work(self, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(BadPrompt, match="no text, box or point was given"):
            export(photos, tmp_path / "out")
        with pytest.raises(BadPrompt, match="no such input"):
            export(tmp_path / "nowhere", tmp_path / "out", "x")
        with pytest.raises(UnknownName, match="did you mean 'coco'"):
            export(photos, tmp_path / "out", "x", options=ExportOptions(formats=("coc",)))
        with pytest.raises(BadPrompt, match="3/8"):
            Running(part="9/8")
        with pytest.raises(UnknownName):
            Running(runner="slurm")

    def test_an_empty_folder_is_an_empty_run(self, tmp_path: Path) -> None:
        (tmp_path / "nothing").mkdir()
        summary = run(tmp_path / "nothing", tmp_path / "out")
        assert summary.images == 0
        assert json.loads((tmp_path / "out" / "coco.json").read_text("utf-8"))["images"] == []

    def test_shards_cover_all_images(self, photos: Path) -> None:
        items = read(photos, Ask(("x",)))
        parts = [shard(items, f"{i}/3") for i in (1, 2, 3)]
        assert sorted(item.name for part in parts for item in part) == sorted(
            item.name for item in items
        )

    def test_the_digest_depends_on_all_that_matters(self) -> None:
        digests = {
            digest(Ask(("a",)), {}),
            digest(Ask(("b",)), {}),
            digest(Ask(("a",), ((1, 2, 3, 4),)), {}),
            digest(Ask(("a",)), {"threshold": 0.2}),
            digest(Ask(("a",), everything=True), {}),
        }
        assert len(digests) == 5
