"""The export's output folder: its content, concurrent runs, full disks, locks, damaged journals."""

from __future__ import annotations

import errno
import json
import os
import random
import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest
import yaml

from segclip import batch, loading
from segclip.batch import Answers, Ask, ExportOptions, collect, export, journal, plan, work
from segclip.batch.journal import Damaged, Journal, Outcome
from segclip.batch.ledger import Ledger, is_ours
from segclip.batch.names import distinct
from segclip.batch.plan import Item
from segclip.errors import BadIndex, BadTable, Busy, NotWritable, SegclipError
from segclip.files import atomic, outputs
from segclip.files.listing import Listing, list_images
from segclip.files.outputs import folded
from tests import batch_script
from tests.exports import FORMATS, TEXTS, draw, photos, run, snapshot, tree

pytestmark = pytest.mark.usefixtures("fake_models")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos")


def rows(out: Path) -> dict[str, str]:
    """Return the reasons of failures.jsonl by image."""
    lines = (out / "failures.jsonl").read_text("utf-8").splitlines()
    return {row["image"]: row["reason"] for row in map(json.loads, lines)}


class TestFullDisk:
    @pytest.mark.parametrize("call", ["sync_file", "replacing", "sync_folder"])
    @pytest.mark.parametrize("after", [0, 3, 9])
    def test_fault_17_5_it_ends_the_run_and_nothing_stays_failed(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: int
    ) -> None:
        left, real = [after], getattr(atomic, call)

        def full(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                error = OSError(errno.ENOSPC, "No space left on device")
                if call == "replacing":
                    raise NotWritable("no room: No space left on device") from error
                raise error
            return real(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(atomic, call, full)
            with pytest.raises(NotWritable, match="No space left"):
                run(folder, tmp_path / "out")
        assert run(folder, tmp_path / "out").states["failed"] == 0
        run(folder, tmp_path / "clean")
        assert tree(tmp_path / "out") == tree(tmp_path / "clean")

    @pytest.mark.parametrize("pages", [1, 4, 6, 7])
    def test_fault_17_5_the_journal_has_no_room(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int
    ) -> None:
        prepare = Ledger._prepare

        def small(ledger: Ledger) -> None:
            ledger._table.execute(f"PRAGMA max_page_count={pages}")
            prepare(ledger)

        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "_prepare", small)
            with pytest.raises(NotWritable, match=r"journal.*full"):
                run(folder, tmp_path / "out")
        assert run(folder, tmp_path / "out").states["failed"] == 0
        run(folder, tmp_path / "clean")
        assert tree(tmp_path / "out") == tree(tmp_path / "clean")


class TestConcurrentRuns:
    @pytest.mark.parametrize(
        ("held", "part"),
        [("all", "1/2"), ("all", None), ("1-of-2", None), ("1-of-2", "1/2"), ("1-of-2", "1/3")],
    )
    def test_fault_17_5_a_run_beside_another_is_refused(
        self, folder: Path, tmp_path: Path, held: str, part: str | None
    ) -> None:
        state = tmp_path / "out" / ".segclip"
        state.mkdir(parents=True)
        with filelock.FileLock(state / f"{held}.lock"), pytest.raises(Busy, match="another run"):
            run(folder, tmp_path / "out", part=part)
        run(folder, tmp_path / "out", part=part)

    def test_fault_17_5_parts_of_one_question_run_side_by_side(
        self, folder: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        run(folder, out, part="1/2")
        with filelock.FileLock(out / ".segclip" / "1-of-2.lock"):
            with pytest.raises(Busy):
                run(folder, out, "a green square", part="2/2")
            assert run(folder, out, part="2/2").missing == 0
        run(folder, out, "a green square", part="2/2")

    def test_fault_17_5_a_locked_journal_is_reported(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(folder, tmp_path / "out")
        monkeypatch.setattr(journal, "PATIENCE", 0.1)
        place = tmp_path / "out" / ".segclip" / "journal.sqlite"
        holder = sqlite3.connect(place, isolation_level=None)
        for kind in ("EXCLUSIVE", "IMMEDIATE"):
            holder.execute(f"BEGIN {kind}")
            with pytest.raises(Busy, match=r"journal\.sqlite: another process holds it"):
                run(folder, tmp_path / "out", "a green square")
            holder.execute("ROLLBACK")
        holder.close()

    @pytest.mark.parametrize("name", ["journal.sqlite", "begin.lock", "all.lock", "files.jsonl"])
    def test_fault_17_5_a_folder_in_place_of_a_file_is_reported(
        self, folder: Path, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "out" / ".segclip" / name).mkdir(parents=True)
        with pytest.raises(SegclipError, match=name):
            run(folder, tmp_path / "out")


def mutate(data: bytes, seed: int) -> bytes:
    """Damage a file as a disk, an editor or an attacker would."""
    chance = random.Random(seed)
    changed = bytearray(data)
    kind = chance.randrange(4)
    if kind == 0:
        del changed[chance.randrange(len(changed)) :]
    elif kind == 1:
        start = chance.randrange(len(changed))
        del changed[start : start + chance.randrange(1, 2000)]
    for _ in range(chance.choice((1, 10, 300)) if kind > 1 and changed else 0):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


class TestJournal:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "block", [0, *(pytest.param(block, marks=pytest.mark.long) for block in range(1, 20))]
    )
    def test_fault_17_5_mutated_journals_are_repaired(
        self, folder: Path, tmp_path: Path, block: int
    ) -> None:
        out = tmp_path / "out"
        run(folder, out)
        state, wanted = out / ".segclip", tree(out)
        before = snapshot(tmp_path, but=out)
        for seed in range(25 * block, 25 * block + 25):
            for name in ("journal.sqlite", "files.jsonl") if seed % 3 == 0 else ("journal.sqlite",):
                (state / name).write_bytes(mutate((state / name).read_bytes(), seed))
            try:
                run(folder, out)
            except BadIndex as error:  # the number of a newer version
                assert "newer segclip" in str(error)  # noqa: PT017
                (state / "journal.sqlite").unlink()
                run(folder, out)
            assert tree(out) == wanted, seed
            assert snapshot(tmp_path, but=out) == before, seed

    @pytest.mark.parametrize(
        "change",
        [
            lambda record: record.pop("rows"),
            lambda record: record.update(rows={"a": 1}),
            lambda record: record.update(size=[10**9, 10**9]),
            lambda record: record.update(size=["26", 64]),
            lambda record: record["rows"][0].update(box=[0, 0, 9999, 9999]),
            lambda record: record["rows"][0].update(text="not a prompt"),
            lambda record: record["rows"][0].update(similarity="x"),
            lambda record: record["rows"][0]["rle"].update(counts=""),
            lambda record: record["rows"][0]["rle"].update(counts="0"),
            lambda record: record["rows"][0]["rle"].update(counts="zzzz"),
            lambda record: record["rows"][0]["rle"].update(counts=None),
            lambda record: record["rows"].append([]),
        ],
    )
    def test_fault_17_5_an_invalid_record_is_made_again(
        self, folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any]
    ) -> None:
        out = tmp_path / "out"
        run(folder, out)
        wanted = tree(out)
        with sqlite3.connect(out / ".segclip" / "journal.sqlite") as table:
            (packed,) = table.execute(
                "SELECT rest FROM outcomes WHERE name = ?", (b"a.png",)
            ).fetchone()
            rest = json.loads(zlib.decompress(packed))
            change(rest["record"])
            packed = zlib.compress(json.dumps(rest).encode())
            table.execute("UPDATE outcomes SET rest = ? WHERE name = ?", (packed, b"a.png"))
        assert run(folder, out).progress.now == 1
        assert tree(out) == wanted

    def test_run_lengths_of_every_mask_are_sound(self, folder: Path, tmp_path: Path) -> None:
        run(folder, tmp_path / "out")
        ledger = Ledger(
            tmp_path / "out/.segclip/journal.sqlite", tmp_path / "out/.segclip/files.jsonl"
        )
        for item in plan.read(folder, Ask(TEXTS)):
            known = ledger.get(item.name)
            assert known is not None
            assert collect.is_record(known.record, item, 10**6)
        ledger.close()

    def test_fault_17_17b_the_former_journal_of_an_index_still_opens(self, tmp_path: Path) -> None:
        table = sqlite3.connect(tmp_path / "index.sqlite")
        table.execute("PRAGMA journal_mode=WAL")
        table.execute(
            "CREATE TABLE outcomes (name BLOB PRIMARY KEY, content TEXT, size INTEGER, mtime "
            "INTEGER, asked TEXT, "
            "state TEXT, rest BLOB)"
        )
        rest = zlib.compress(
            json.dumps({"files": [], "record": {"dim": 3}, "reason": "", "trace": ""}).encode()
        )
        table.execute(
            "INSERT INTO outcomes VALUES (?, 'abc', 5, 6, 'asked', 'matched', ?)", (b"a.png", rest)
        )
        table.commit()
        table.close()
        known = Journal(tmp_path / "index.sqlite")
        assert known.get("a.png") == Outcome(
            "a.png", "abc", (5, 6, 0, 0), "asked", "matched", record={"dim": 3}
        )
        known.put(Outcome("b.png", "", (1, 2, 3, 4), "asked", "failed", reason="why", passing=True))
        known.close()
        again = Journal(tmp_path / "index.sqlite")
        assert again.get("b.png") == Outcome(
            "b.png", "", (1, 2, 3, 4), "asked", "failed", reason="why", passing=True
        )
        again.close()

    def test_fault_17_5_a_file_that_is_no_journal_is_reported(self, tmp_path: Path) -> None:
        place = tmp_path / "j.sqlite"
        with sqlite3.connect(place) as table:
            table.execute("CREATE TABLE bookmarks (url TEXT)")
        table.close()
        with pytest.raises(Damaged, match="bookmarks"):
            Journal(place)
        with sqlite3.connect(place) as table:
            table.execute("PRAGMA user_version = 99")
        table.close()
        with pytest.raises(BadIndex, match="newer segclip"):
            Journal(place)


class TestFailures:
    def test_fault_17_5_temporary_failures_are_retried(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Short(batch_script.DeadlyProposer):
            def encode(self, image: Any) -> Any:
                raise MemoryError("no memory")

        def load(*names: Any, **options: Any) -> Any:
            return replace(batch_script.fake_load(), proposer=Short())

        with monkeypatch.context() as patch:
            patch.setattr(loading, "load", load)
            assert run(folder, tmp_path / "out").states["failed"] == 5
        assert run(folder, tmp_path / "out").progress.now == 5
        run(folder, tmp_path / "clean")
        assert tree(tmp_path / "out") == tree(tmp_path / "clean")

    def test_fault_17_5_an_unresponsive_server_is_a_temporary_failure(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Path.read_bytes

        def stale(path: Path) -> bytes:
            if path.name == "a.png":
                raise OSError(errno.ESTALE, "Stale file handle")
            return real(path)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", stale)
            run(folder, tmp_path / "out")
        assert "Stale file handle" in rows(tmp_path / "out")["a.png"]
        assert run(folder, tmp_path / "out").progress.now == 1
        assert not (tmp_path / "out" / "failures.jsonl").exists()

    def test_fault_17_21_an_unreadable_folder_is_reported_and_loses_nothing(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        run(folder, out)
        wanted = tree(out)

        def stale(place: Path, skip: Any = ()) -> Listing:
            found = list_images(place, skip=skip)
            images = tuple(name for name in found.images if not name.startswith("sub dir/"))
            return replace(found, images=images, unreadable={"sub dir": "Stale file handle"})

        with monkeypatch.context() as patch:
            patch.setattr(plan, "list_images", stale)
            for _ in range(2):
                summary = run(folder, out)
                assert summary.states["failed"] == 1
                assert set(rows(out)) == {"sub dir", "sub dir/d.png", "sub dir/e é.gif"}
                assert not (out / "yolo" / "images" / "sub dir").exists()
                assert (out / "png" / "sub dir" / "d.png.mask.00.png").exists()
        assert run(folder, out).progress.now == 0
        assert tree(out) == wanted

    def test_a_name_that_is_too_long_is_that_images_failure(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some file systems allow only shorter names."""
        monkeypatch.setattr(outputs, "_LONGEST", 300)
        long = "x" * 245 + ".png"
        draw(folder / long, "red")
        assert run(folder, tmp_path / "out").states == {"matched": 4, "empty": 1, "failed": 1}
        assert "name too long" in rows(tmp_path / "out")[long]


def export_with(
    folder: Path, out: Path, *texts: str, formats: tuple[str, ...] = FORMATS, **answers: Any
) -> batch.Summary:
    """Export with other options than the texts."""
    options = ExportOptions(formats=formats, answers=Answers(**answers))
    return export(folder, out, texts or TEXTS, options=options)


class TestQuestions:
    """Export faults 4 to 7: questions for all images, how they are read and enter the digest."""

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
        self, folder: Path, tmp_path: Path, texts: tuple[str, ...], answers: dict[str, Any]
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
        self, folder: Path, tmp_path: Path
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
        "text", ["a  red square", " a red square", "a red\tsquare\n", "a\u00a0red square"]
    )
    def test_blanks_in_a_text_are_one(self, folder: Path, tmp_path: Path, text: str) -> None:
        """Export fault 5: it ends, a rerun is idle, the output is that of the plain text."""
        out, formats = tmp_path / "out", ("png", "coco", "yolo", "jsonl", "parquet")
        run(folder, tmp_path / "clean", "a red square", "a blue square", formats=formats)
        texts = (text, "a red square", "a blue square")
        assert run(folder, out, *texts, formats=formats).missing == 0
        assert run(folder, out, "a red square", "a blue square", formats=formats).progress.now == 0
        assert tree(out) == tree(tmp_path / "clean")

    def test_blanks_in_the_texts_of_a_table_are_one(self, folder: Path, tmp_path: Path) -> None:
        """Export fault 5."""
        table = folder / "t.jsonl"
        table.write_text(
            json.dumps({"image": "a.png", "texts": ["a  red\tsquare", "a red square"]}) + "\n"
        )
        assert run(table, tmp_path / "out", formats=("coco",)).missing == 0
        coco = json.loads((tmp_path / "out" / "coco.json").read_text("utf-8"))
        assert [category["name"] for category in coco["categories"]] == ["a red square"]
        assert run(table, tmp_path / "out", formats=("coco",)).progress.now == 0

    def test_the_row_of_an_invalid_text_is_named(self, folder: Path, tmp_path: Path) -> None:
        (folder / "t.jsonl").write_text(
            json.dumps({"image": "a.png", "texts": ["x" * 2000]}) + "\n"
        )
        with pytest.raises(BadTable, match="row 1"):
            run(folder / "t.jsonl", tmp_path / "out")

    def test_a_templates_file_that_changed_is_another_question(
        self, folder: Path, tmp_path: Path
    ) -> None:
        """Export fault 6; the same sentences under another name are not."""
        file, out = tmp_path / "templates.txt", tmp_path / "out"
        file.write_text("a photo of a {}.\n")
        export_with(folder, out, templates=str(file))
        assert export_with(folder, out, templates=str(file)).progress.now == 0
        assert export_with(folder, out, templates="photo").progress.now == 0
        file.write_text("a painting of a {}.\n")
        assert export_with(folder, out, templates=str(file)).progress.now == 5

    def test_a_templates_file_is_read_once(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Export fault 6: it may be edited while the export runs."""
        file = tmp_path / "templates.txt"
        file.write_text("a photo of a {}.\n")
        real = Path.read_bytes

        def edited(path: Path) -> bytes:
            file.write_text("none any more\n")
            return real(path)

        monkeypatch.setattr(Path, "read_bytes", edited)
        assert export_with(folder, tmp_path / "out", templates=str(file)).states["failed"] == 0

    @pytest.mark.parametrize(
        "formats", [("json", "labelme", "png"), ("json", "yolo", "svg", "geojson"), FORMATS]
    )
    @pytest.mark.parametrize("spelling", ["moved", "absolute", "dotted"])
    def test_another_path_to_the_same_images_yields_a_clean_runs_tree(
        self,
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
        assert all(reason.startswith(f"{again}/") for reason in rows(out).values())
        assert b"photos/a.png" not in b"".join(
            content
            for name, content in tree(out).items()
            if spelling == "moved" and "coco" not in name
        )

    def test_the_reason_of_a_too_long_name_does_not_depend_on_the_process(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outputs, "_LONGEST", 300)  # as on file systems with shorter names
        draw(folder / ("x" * 245 + ".png"), "red")
        run(folder, tmp_path / "out", formats=("png",))
        (reason,) = rows(tmp_path / "out").values()
        assert reason.startswith("png/")


class TestVerify:
    def test_fault_17_8_bytes_are_read_again(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a file system without change times and inodes."""
        for module in (batch, work):
            monkeypatch.setattr(
                module, "stamp_of", lambda path: (1, 2, 3, 4) if path.exists() else (0, 0, 0, 0)
            )
        out = tmp_path / "out"
        run(folder, out)
        draw(folder / "b.png", "red")
        assert run(folder, out).progress.now == 0
        assert run(folder, out, verify=True).progress.now == 1
        run(folder, tmp_path / "clean")
        assert tree(out) == tree(tmp_path / "clean")

    def test_fault_17_8_outputs_too(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from segclip.batch import output

        monkeypatch.setattr(output, "stamp_of_link", lambda path: (path.lstat().st_size, 2, 3, 4))
        out = tmp_path / "out"
        run(folder, out)
        wanted = tree(out)
        place = out / "png" / "a.png.mask.00.png"
        place.write_bytes(bytes(len(place.read_bytes())))
        assert run(folder, out).progress.now == 0
        assert run(folder, out, verify=True).progress.now == 1
        assert tree(out) == wanted


class TestNames:
    def test_fault_17_8_names_that_some_file_systems_fold_are_distinct(self) -> None:
        listed = [
            "A.jpg",
            "a.jpg",
            "b.jpg",
            "sub/é.png",
            "sub/e\u0301.png",
            "SUB/É.png",
            "straße.png",
            "STRASSE.png",
        ]
        places = distinct({name: name for name in listed})
        assert len({folded(place) for place in places.values()}) == len(listed)
        assert places["b.jpg"] == "b.jpg"
        assert all(Path(place).suffix == Path(name).suffix for name, place in places.items())
        assert distinct({name: name for name in reversed(listed)}) == places
        assert (
            distinct({places["A.jpg"]: places["A.jpg"]} | {name: name for name in listed})["b.jpg"]
            == "b.jpg"
        )

    def test_fault_17_8_both_are_exported(self, folder: Path, tmp_path: Path) -> None:
        draw(folder / "A.PNG", "blue", "blue")
        run(folder, tmp_path / "out")
        found = [folded(name) for name in tree(tmp_path / "out")]
        assert len(found) == len(set(found))
        named = {
            image["file_name"]
            for image in json.loads((tmp_path / "out" / "coco.json").read_text())["images"]
        }
        assert {"a.png", "A.PNG"} <= named

    @pytest.mark.parametrize(
        "path",
        [
            "",
            ".",
            "..",
            "/etc/x",
            "png",
            "png/..",
            "png/../../x",
            "png//a",
            "./png/a",
            "notes.txt",
            "png/\0",
            "yolo",
        ],
    )
    def test_fault_17_2_other_paths_are_not_ours(self, path: str) -> None:
        assert not is_ours(path)

    def test_output_paths_are_ours(self) -> None:
        assert all(map(is_ours, ("png/a", "yolo/images/x/y.png", "coco.json", "labelme/é/木.json")))


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


def test_fault_17_3_outcomes_are_entered_after_their_files(folder: Path, tmp_path: Path) -> None:
    options = ExportOptions(formats=FORMATS)
    states = []

    def check(progress: batch.Progress) -> None:
        with sqlite3.connect(tmp_path / "out" / ".segclip" / "journal.sqlite") as table:
            names = [
                os.fsdecode(name)
                for (name,) in table.execute("SELECT name FROM outcomes WHERE state = 'matched'")
            ]
        states.append(len(names))
        assert all((tmp_path / "out" / "npz" / f"{name}.npz").stat().st_size for name in names)

    export(folder, tmp_path / "out", TEXTS, options=options, report=check)
    assert states


def test_an_item_is_placed_by_its_name_by_default() -> None:
    assert Item(Path("x/a.png"), "a.png", Ask()).place == "a.png"
    assert Item(Path("x/a.png"), "a.png", Ask(), "b.png").place == "b.png"
