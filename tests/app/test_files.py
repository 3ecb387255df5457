"""Results packed for download, uploaded zips, and the source code."""

from __future__ import annotations

import io
import subprocess
import warnings
import zipfile
from pathlib import Path

import pytest

import segclip
from app import files
from app.answers import answer
from app.state import CachedImage, Draft, Studio, Work
from segclip.types import Image


@pytest.mark.parametrize("name", segclip.PER_IMAGE)
def test_every_format_is_packed(studio: Studio, work: Work, name: str) -> None:
    result = answer(studio.models, work).chosen
    names = zipfile.ZipFile(io.BytesIO(files.pack(result, [name]))).namelist()
    assert names
    assert all(part.startswith("painted.") for part in names)


def zipped(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def test_a_zip_is_unpacked_inside_its_folder_only(tmp_path: Path, upload: bytes) -> None:
    data = zipped(
        {
            "a.png": upload,
            "in/b.PNG": upload,
            "../out.png": upload,
            "/abs.png": upload,
            "x.txt": b"",
            ".h.png": b"",
        }
    )
    assert files.unpack(data, tmp_path / "in") == 2
    found = sorted(
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    )
    assert found == ["in/a.png", "in/in/b.PNG"]


def test_a_bomb_a_damaged_and_an_empty_zip_are_reported(
    tmp_path: Path,
) -> None:
    with pytest.raises(segclip.BadImage, match="more than 1 MB"):
        files.unpack(zipped({"bomb.png": bytes(5_000_000)}), tmp_path, most=1_000_000)
    with pytest.raises(segclip.BadImage, match="cannot be read"):
        files.unpack(b"PK no zip", tmp_path)
    with pytest.raises(segclip.BadImage, match="no images"):
        files.unpack(zipped({"read.me": b"?"}), tmp_path)


def test_a_zip_with_a_duplicate_name_is_reported(tmp_path: Path, upload: bytes) -> None:
    """Faults 17.21 and 17.8: names that some file systems treat as the same."""
    for number, names in enumerate(
        (("a.png", "a.png"), ("a.png", "A.PNG"), ("\u00e9.png", "e\u0301.png"))
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                archive.writestr(name, upload)
        with pytest.raises(segclip.BadImage, match="twice"):
            files.unpack(file.getvalue(), tmp_path / str(number))


@pytest.mark.parametrize(
    "name", ["../../x.png", "a\0b.png", "x" * 300 + ".png", "", "..", "a/b.png", "\ud800.png"]
)
def test_masks_of_an_image_of_any_name_are_packed(
    studio: Studio, sample_image: Image, name: str
) -> None:
    """Fault 17.12: a browser may send any file name."""
    work = Work(CachedImage(Image(sample_image.pixels, name)), Draft(("a red box",)))
    assert zipfile.ZipFile(
        io.BytesIO(files.pack(answer(studio.models, work).chosen, ["png", "coco"]))
    ).namelist()


def test_the_source_is_complete() -> None:
    names = zipfile.ZipFile(io.BytesIO(files.source())).namelist()
    assert {"LICENSE", "segclip/segmenter.py", "app/canvas/canvas.js", "app/page.py"} <= set(names)


def test_the_source_holds_only_what_git_tracks(tmp_path: Path) -> None:
    """Fault 17.12c: neither secrets nor other files in the folders."""
    tracked = ("LICENSE", "app/.streamlit/config.toml", "app/page.py", "segclip/a.py")
    for name in (*tracked, "tests/test_a.py", "weights/README.md", "app/.streamlit/secrets.toml"):
        write(tmp_path / name)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    write(tmp_path / "app" / "untracked.py")
    assert names_of(files.source(tmp_path)) == sorted(tracked)


def test_the_source_of_a_wheel_is_what_the_wheel_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = (
        "segclip/a.py",
        "segclip/.streamlit/secrets.toml",
        "segclip-1.dist-info/licenses/LICENSE",
    )
    for name in (*inside, "segclip/other.py"):
        write(tmp_path / name)
    write(tmp_path / "segclip-1.dist-info" / "METADATA", "Name: segclip\nVersion: 1\n")
    record = "".join(f"{name},,\n" for name in inside)
    write(tmp_path / "segclip-1.dist-info" / "RECORD", record)
    monkeypatch.syspath_prepend(tmp_path)
    assert names_of(files.source(tmp_path)) == [
        "segclip-1.dist-info/licenses/LICENSE",
        "segclip/a.py",
    ]


def test_there_is_no_source_without_git_and_wheel(tmp_path: Path) -> None:
    write(tmp_path / "segclip" / "a.py")
    assert files.source_files(tmp_path) == ()


def write(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names_of(data: bytes) -> list[str]:
    return sorted(zipfile.ZipFile(io.BytesIO(data)).namelist())
