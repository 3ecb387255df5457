"""Standing test: after any earlier runs into OUT, however they ended, it equals a clean run's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segclip.batch import Ask, ExportOptions, Running, export
from segclip.errors import BadIndex
from tests.exports import FORMATS, draw, in_child, photos, run, tree

pytestmark = [
    pytest.mark.usefixtures("fake_models"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
]
OTHER = ("a green square", "a red square")


def whole(folder: Path, out: Path, **options: Any) -> None:
    """Run undivided."""
    run(folder, out, *options.get("texts", ()), formats=options.get("formats", FORMATS))


def shards(folder: Path, out: Path, **options: Any) -> None:
    """Run all parts, the last first."""
    for part in ("3/3", "1/3", "2/3"):
        run(
            folder,
            out,
            *options.get("texts", ()),
            formats=options.get("formats", FORMATS),
            part=part,
        )


def one_shard(folder: Path, out: Path, **options: Any) -> None:
    """Run only one part."""
    run(folder, out, *options.get("texts", ()), formats=options.get("formats", FORMATS), part="1/2")


def killed(folder: Path, out: Path, **options: Any) -> None:
    """Kill runs at ever later moments."""
    for moment in (4, 11, 19, 30, 42):
        in_child(lambda: whole(folder, out, **options), die_before=moment)


def texts(folder: Path, out: Path) -> dict[str, Any]:
    """Query other texts."""
    return {"texts": OTHER}


def fewer_formats(folder: Path, out: Path) -> dict[str, Any]:
    """Drop formats, of images and of the run."""
    return {"formats": ("npz", "jsonl")}


def removed(folder: Path, out: Path) -> dict[str, Any]:
    """Remove images, the only one of a folder among them."""
    (folder / "a.png").unlink()
    for path in (folder / "sub dir").iterdir():
        path.unlink()
    return {}


def unreadable(folder: Path, out: Path) -> dict[str, Any]:
    """Make images unreadable."""
    (folder / "a.png").write_bytes(b"no image any more")
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to("nowhere")
    return {}


def replaced(folder: Path, out: Path) -> dict[str, Any]:
    """Replace an image by another of the same size and time: fault 17.8."""
    status = (folder / "b.png").stat()
    draw(folder / "b.png", "red")
    data = (folder / "b.png").read_bytes()
    size = max(status.st_size, len(data))
    (folder / "b.png").write_bytes(data.ljust(status.st_size, b"\0")[:size])
    os.utime(folder / "b.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    return {}


def spoiled(folder: Path, out: Path) -> dict[str, Any]:
    """Spoil outputs: emptied, of the same size and time, removed, replaced by a folder."""
    files = [
        path for path in sorted(out.rglob("*")) if path.is_file() and ".segclip" not in path.parts
    ]
    for number, path in enumerate(files):
        status = path.stat() if not path.is_symlink() else path.lstat()
        if number % 3 == 0 and not path.is_symlink():
            path.write_bytes(b"")
        elif number % 3 == 1 and not path.is_symlink():
            path.write_bytes(os.urandom(status.st_size))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        else:
            path.unlink()
    return {}


def spoiled_and_texts(folder: Path, out: Path) -> dict[str, Any]:
    """Spoil outputs that other texts do not replace."""
    return spoiled(folder, out) | {"texts": ("a green square",)}


def folded(folder: Path, out: Path) -> dict[str, Any]:
    """Add images whose names some file systems fold with existing ones: fault 17.8."""
    draw(folder / "A.png", "red")
    draw(folder / "sub dir" / "e e\u0301.gif", "blue")
    return {}


CHANGES = (texts, fewer_formats, removed, unreadable, replaced, spoiled, spoiled_and_texts, folded)


@pytest.mark.parametrize("before", [whole, shards, one_shard, killed])
@pytest.mark.parametrize("change", CHANGES)
def test_fault_17_5_the_tree_is_that_of_a_clean_run(
    tmp_path: Path, before: Callable[..., None], change: Callable[[Path, Path], dict[str, Any]]
) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    before(folder, out)
    options = change(folder, out)
    if before is killed:
        killed(folder, out, **options)
    end = shards if before in (shards, one_shard) else whole
    end(folder, out, **options)
    whole(folder, tmp_path / "clean", **options)
    assert tree(out) == tree(tmp_path / "clean")
    whole(folder, out, **options)  # and again, undivided
    assert tree(out) == tree(tmp_path / "clean")


def test_fault_17_5_two_shards_of_other_questions_leave_nothing(tmp_path: Path) -> None:
    """Texts undivided, everything in two parts, the texts again: the tree is that of the texts."""
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    whole(folder, out)
    wanted = tree(out)
    everything = ExportOptions(formats=FORMATS, ask=Ask(everything=True))
    for part in ("1/2", "2/2"):
        export(folder, out, options=everything, running=Running(part=part))
    assert tree(out) != wanted
    whole(folder, out)
    assert tree(out) == wanted


@pytest.mark.parametrize("moment", range(2, 40, 3))
def test_fault_17_5_a_kill_and_other_texts_leave_no_strays(tmp_path: Path, moment: int) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    in_child(lambda: run(folder, out), die_before=moment)
    run(folder, out, *OTHER)
    run(folder, tmp_path / "clean", *OTHER)
    assert tree(out) == tree(tmp_path / "clean")


@pytest.mark.parametrize(
    "spoil", ["truncate", "zero", "random", "other", "journal-only", "header", "all"]
)
@pytest.mark.parametrize("options", [{}, {"texts": OTHER}])
def test_fault_17_5_a_damaged_journal_is_set_aside_and_made_again(
    tmp_path: Path, spoil: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    run(folder, out)
    place = out / ".segclip" / "journal.sqlite"
    data = place.read_bytes()
    content = {
        "truncate": data[: len(data) // 2],
        "zero": b"",
        "random": os.urandom(len(data)),
        "other": b"a text, and no journal\n" * 100,
        "header": data[:100] + os.urandom(4000) + data[4100:],
    }.get(spoil, b"\0" * 5000)
    place.write_bytes(content)
    if spoil == "all":
        if options:
            return  # no record is left of who owns the files
        (out / ".segclip" / "files.jsonl").write_bytes(b"\xff\0{[")
    whole(folder, out, **options)
    whole(folder, tmp_path / "clean", **options)
    assert tree(out) == tree(tmp_path / "clean")


def test_fault_17_5_a_journal_of_a_former_version_is_refused(tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    (out / ".segclip").mkdir(parents=True)
    (out / ".segclip" / "all.sqlite").write_bytes(b"")
    with pytest.raises(BadIndex, match="older segclip"):
        run(folder, out)
