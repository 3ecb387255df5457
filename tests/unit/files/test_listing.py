"""Folder listings: the images found, the files left out, and the report of those."""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path

import pytest

from segclip.errors import BadImage
from segclip.files import listing, outputs
from segclip.files.listing import list_images, walk


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def make_stale(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make folders of a name raise errors like a stale network mount."""
    scandir = os.scandir

    def scan(path: str) -> object:
        if str(path).rstrip("/").endswith(name):
            raise OSError(116, "Stale file handle")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)


def test_images_by_suffix_in_a_stable_order(tmp_path: Path) -> None:
    put(
        tmp_path,
        "b.PNG",
        "a/z.jpeg",
        "a.webp",
        "a/b/c.tif",
        "notes.txt",
        "c.gif",
        "d.jfif",
        "e.jpe",
    )
    (tmp_path / "folder.jpg").mkdir()
    expected = ["a/b/c.tif", "a/z.jpeg", "a.webp", "b.PNG", "c.gif", "d.jfif", "e.jpe"]
    listed = list_images(tmp_path)
    assert list(listed.images) == expected
    assert (listed.left_out, listed.unreadable, listed.report()) == ({}, {}, ())
    assert [path.relative_to(tmp_path).as_posix() for path in walk(tmp_path)] == expected


def test_an_empty_folder_is_normal_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    assert walk(tmp_path) == []
    assert list_images(tmp_path).images == ()
    with pytest.raises(BadImage, match="no such folder"):
        walk(tmp_path / "nowhere")


HIDDEN = [
    "._a.jpg",
    ".a.jpg",
    ".Trashes/a.jpg",
    ".Trash-1000/files/a.jpg",
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.png",
    "__MACOSX/._a.png",
    "#recycle/a.png",
    "$RECYCLE.BIN/S-1/a.png",
    "System Volume Information/a.png",
    "sub/.git/a.png",
    "lost+found/a.png",
    ".segclip-index/a.png",
]


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_files_and_system_folders_are_no_images(name: str, tmp_path: Path) -> None:
    """Fault 17.21: macOS's "._a.jpg", a NAS's "@eaDir" and deleted files counted as images."""
    put(tmp_path, "a.png", name, f"deep/{name}")
    assert list_images(tmp_path).images == ("a.png",)
    assert not listing.is_image(name)


def test_a_folder_that_is_itself_hidden_can_be_listed(tmp_path: Path) -> None:
    put(tmp_path / ".photos", "a.png", "..jpg", "...jpg", "..png")
    assert list_images(tmp_path / ".photos").images == ("a.png",)


def test_images_that_cannot_be_read_are_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.21: HEIC and raw files were omitted silently, or a folder counted as empty."""
    monkeypatch.setattr(listing, "is_readable", lambda format: format not in ("HEIF", "AVIF"))
    put(
        tmp_path, "a.png", *(f"{n}.HEIC" for n in range(5)), "sub/x.cr2", "y.avif", "z.txt", "z.mp4"
    )
    listed = list_images(tmp_path)
    assert listed.images == ("a.png",)
    assert set(listed.left_out) == {*(f"{n}.HEIC" for n in range(5)), "sub/x.cr2", "y.avif"}
    assert listed.report() == (
        "left out 1 (sub/x.cr2): .cr2 is not read; convert to JPEG, PNG or TIFF",
        "left out 1 (y.avif): AVIF needs Pillow 11.3 or newer: pip install -U pillow",
        (
            "left out 5 (0.HEIC, 1.HEIC, 2.HEIC and 2 more): HEIC needs pillow-heif: pip install "
            "'segclip[heic]'"
        ),
    )
    monkeypatch.setattr(listing, "is_readable", lambda format: True)
    assert set(list_images(tmp_path).images) == {
        "a.png",
        *(f"{n}.HEIC" for n in range(5)),
        "y.avif",
    }


def test_own_outputs_and_skipped_folders_are_no_input(tmp_path: Path) -> None:
    """Fault 17.4: masks in the input folder became inputs."""
    put(
        tmp_path,
        "a.png",
        "segclip-out/a.png",
        "masks/.segclip/all.sqlite",
        "masks/png/a.mask.png",
        "out/b.png",
    )
    # an index is stored beside its images
    put(tmp_path, "year/.segclip-index/index.json", "year/b.png")
    listed = list_images(tmp_path, skip=[tmp_path / "out"])
    assert listed.images == ("a.png", "year/b.png")
    assert dict(listed.left_out) == dict.fromkeys(("masks", "segclip-out"), "segclip writes there")
    assert list_images(tmp_path / "masks").images == ("png/a.mask.png",)  # named explicitly


def test_masks_written_beside_the_images_are_no_input(tmp_path: Path) -> None:
    """Fault 17.4: ``segment --out photos`` and then ``export photos`` made masks of masks."""

    def write(folder: Path) -> list[Path]:
        for name in ("a-dog.png", "a-cat.png"):
            (folder / name).write_text(name)
        return [folder / "a-dog.png", folder / "a-cat.png"]

    put(tmp_path, "a.png", "sub/a-dog.png")
    outputs.renew(tmp_path, "segment a", write)
    listed = list_images(tmp_path)
    assert listed.images == ("a.png", "sub/a-dog.png")
    assert listed.report() == ("left out 2 (a-cat.png, a-dog.png): written by segclip",)
    (tmp_path / "a-dog.png").write_text("edited by hand: now the user's own image")
    assert list_images(tmp_path).images == ("a-dog.png", "a.png", "sub/a-dog.png")


def test_links(tmp_path: Path) -> None:
    put(tmp_path, "in/a.png", "elsewhere/b.png")
    (tmp_path / "in/nowhere.png").symlink_to("gone.png")
    (tmp_path / "in/b.png").symlink_to(tmp_path / "elsewhere/b.png")
    (tmp_path / "in/round").symlink_to(tmp_path / "in")
    (tmp_path / "in/itself.jpg").symlink_to("itself.jpg")
    listed = list_images(tmp_path / "in")
    assert listed.images == ("a.png", "b.png", "itself.jpg", "nowhere.png")
    assert dict(listed.left_out) == {"round": "links to folders are not followed"}
    assert [path.name for path in walk(tmp_path / "in")] == ["a.png", "b.png"]
    (tmp_path / "door").symlink_to(tmp_path / "in")
    assert list_images(tmp_path / "door").images == listed.images


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_a_pipe_is_listed_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert list_images(tmp_path).images == ("a.png",)
    assert walk(tmp_path) == []


def test_an_unreadable_subfolder_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.21: the images of a stale mount were omitted silently."""
    put(tmp_path, "a.png", "mount/b.png", "mount/year/c.png", "z/d.png")
    make_stale("mount", monkeypatch)
    listed = list_images(tmp_path)
    assert listed.images == ("a.png", "z/d.png")
    assert dict(listed.unreadable) == {"mount": "Stale file handle"}
    assert listed.report() == ("cannot read the folder mount: Stale file handle",)
    with pytest.raises(BadImage, match="cannot be read, Stale file handle"):
        list_images(tmp_path / "mount")


def test_an_undecodable_name(tmp_path: Path) -> None:
    try:
        put(tmp_path, os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system requires UTF-8")
    assert list_images(tmp_path).images == (os.fsdecode(b"caf\xe9.png"),)


class TestMatch:
    """Patterns match as in ``glob``, except through links that they do not name."""

    NAMES = (
        "a.png",
        "b.jpg",
        "x/a.png",
        "x/y/c.png",
        "x/y/d.gif",
        "x/[1].png",
        "z.png/e.png",
        "w/x/f.png",
        ".h/a.png",
    )
    PATTERNS = (
        "*.png",
        "*",
        "**",
        "**/*",
        "**/*.png",
        "*/*.png",
        "x/**/*.png",
        "**/x/*",
        "**/y/**",
        "**/**/**/*.png",
        "x/*/../*.png",
        "**/../x/*.png",
        "*/y/*.[pg]*",
        "?/[[]1[]].png",
        ".h/*.png",
        "x/y/c.png",
        "no/*.png",
        "a.png/*.png",
        "**/a.png",
        "*/no/*.png",
        "[wx]/**/[!a]*.png",
    )

    @pytest.mark.parametrize("pattern", PATTERNS)
    def test_without_links_it_equals_glob(self, tmp_path: Path, pattern: str) -> None:
        put(tmp_path, *self.NAMES)
        found = glob.glob(pattern, root_dir=tmp_path, recursive=True)  # noqa: PTH207 - the peer
        expected = {
            name for name in found if listing.is_image(name) and not (tmp_path / name).is_dir()
        }
        matched = listing.match(tmp_path, Path(pattern).parts)
        assert set(matched.images) == expected
        assert matched.report() == ()

    @pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
    def test_fault_17_13_links_to_parents_add_no_duplicates(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png", "sub/b.png")
        for name in ("l", "m", "sub/up"):
            (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / "c.png").symlink_to("a.png")  # a link to an image is one
        for pattern in (("**", "*.png"), ("**", "**", "*"), ("**",)):
            matched = listing.match(tmp_path, pattern)
            assert matched.images == ("a.png", "c.png", "sub/b.png")
            assert matched.report() == (
                "left out 3 (l, m, sub/up): links to folders are not followed",
            )
        assert listing.match(tmp_path, ("*", "*.png")).images == ("sub/b.png",)
        assert listing.match(tmp_path, ("*", "up", "a.png")).images == ("sub/up/a.png",)  # named
        assert set(listing.match(tmp_path, ("*",)).left_out) == set()

    @pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
    def test_fault_17_13_a_pattern_named_through_a_link_ends(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png", "sub/b.png")
        (tmp_path / "l").symlink_to(tmp_path, target_is_directory=True)
        assert listing.match(tmp_path / "l", ("**", "*.png")).images == ("a.png", "sub/b.png")
        assert len(listing.match(tmp_path, ("**", "l", "**", "l", "**", "*.png")).images) == 2

    def test_fault_17_21_an_unreadable_folder_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(tmp_path, "a.png", "stale/b.png")
        make_stale("stale", monkeypatch)
        matched = listing.match(tmp_path, ("**", "*.png"))
        assert matched.images == ("a.png",)
        assert matched.unreadable == {"stale": "Stale file handle"}
        with pytest.raises(BadImage, match="stale: cannot be read, Stale file handle"):
            listing.match(tmp_path / "stale", ("*.png",))
