"""Data sent to the browser."""

from __future__ import annotations

import base64
import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import segclip
from app import files, rendering
from app.answers import answer
from app.state import CachedImage, Draft, Studio, Work
from segclip.types import Image
from segclip.types.masks import Masks


def decode_url(url: str) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_the_label_map_numbers_the_masks_and_the_first_one_wins() -> None:
    dense = np.zeros((2, 60, 80), bool)
    dense[0, 10:20, 10:30] = dense[1, 5:40, 5:60] = True
    width, height, *runs = rendering.map_runs(Masks.from_dense(dense)).split(" ")
    names, lengths = (
        np.frombuffer(base64.b64decode(part), kind)
        for part, kind in zip(runs, ("u1", "<u2"), strict=True)
    )
    labels = np.repeat(names, lengths).reshape(int(height), int(width))
    assert labels.shape == (60, 80)
    assert np.array_equal(labels == 1, dense[0])
    assert np.array_equal(labels == 2, dense[1] & ~dense[0])


def test_the_label_map_of_a_large_image_is_small_and_aligned() -> None:
    dense = np.zeros((1, 3000, 4000), bool)
    dense[0, 1000:2000, 3000:4000] = True
    labels = rendering.label_map(Masks.from_dense(dense), 1000)
    assert labels.shape == (750, 1000)
    assert np.array_equal(labels, dense[0][2::4, 2::4])


def test_a_large_image_is_shrunk_a_small_one_is_lossless(sample_image: Image) -> None:
    assert np.array_equal(
        np.array(decode_url(rendering.image_url(sample_image))), sample_image.pixels
    )
    large = Image(np.zeros((3000, 4000, 3), np.uint8))
    assert decode_url(rendering.image_url(large)).size == (1600, 1200)


def test_headlines_summarise_the_answer(studio: Studio, work: Work) -> None:
    assert rendering.headline(answer(studio.models, work)) == "1 found"
    work.set_texts(("a red box", "a black box"))
    assert (
        rendering.headline(answer(studio.models, work)) == "1 found; nothing matches “a black box”"
    )
    work.set_texts(("a black box",))
    found = answer(studio.models, work)
    assert rendering.headline(found) == "Nothing here matches “a black box”"
    assert "below the threshold" in rendering.notes(found)[0]
    work.set_texts(
        (
            "a black box",
            "a black circle",
            "a black box that holds " + "very " * 9 + "many things",
            "black",
        )
    )
    expected = (
        "Nothing here matches “a black box”, “a black circle”, “a black box that holds very "
        "very ...” and 1 more"
    )
    assert rendering.headline(answer(studio.models, work)) == expected
    work.set_texts(("the left red box",))
    assert rendering.notes(answer(studio.models, work)) == [
        "“the left red box”: leftmost of 1 found for 'red box'"
    ]
    work.set_texts(("red right of the green box",))
    # the only note: none about a best region that scores 1.00
    (note,) = rendering.notes(answer(studio.models, work))
    assert note.startswith("“red right of the green box”: none of 1 found for 'red'")
    work.click(70, 30, 1)
    assert rendering.headline(answer(studio.models, work)) == "The object at the click"
    work.click(3, 3, 1)
    work.set_texts(())
    assert rendering.headline(answer(studio.models, work)) == "Type what to find, or click on it"


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 1_000_000)
    with pytest.raises(segclip.BadImage, match="more than 1 MB"):
        files.unpack(zipped({"bomb.png": bytes(5_000_000)}), tmp_path)
    with pytest.raises(segclip.BadImage, match="cannot be read"):
        files.unpack(b"PK no zip", tmp_path)
    with pytest.raises(segclip.BadImage, match="no images"):
        files.unpack(zipped({"read.me": b"?"}), tmp_path)


def test_the_source_is_complete() -> None:
    names = zipfile.ZipFile(io.BytesIO(files.source())).namelist()
    assert {"LICENSE", "segclip/segmenter.py", "app/canvas/canvas.js", "app/page.py"} <= set(names)


def test_the_source_holds_only_what_git_tracks_or_the_wheel_holds() -> None:
    """Fault 17.12c: neither secrets nor other files in the folders."""
    untracked = [
        files._ROOT / "app" / ".streamlit" / "secrets.toml",
        files._ROOT / "app" / "not_tracked_17.py",
    ]
    assert not any(path.exists() for path in untracked)
    files.source_files.cache_clear()
    try:
        for path in untracked:
            path.write_text("password = 1")
        names = zipfile.ZipFile(io.BytesIO(files.source())).namelist()
    finally:
        for path in untracked:
            path.unlink()
        files.source_files.cache_clear()
    assert "app/.streamlit/config.toml" in names
    assert not {"app/.streamlit/secrets.toml", "app/not_tracked_17.py"} & set(names)
    assert not [name for name in names if name.startswith(("tests", "runs", "weights", "."))]


def test_the_source_of_a_wheel_is_what_the_wheel_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = (
        "segclip/a.py",
        "segclip/.streamlit/secrets.toml",
        "segclip-1.dist-info/licenses/LICENSE",
    )
    for name in (*inside, "segclip/other.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")

    monkeypatch.setattr(files, "_installed", lambda root: list(inside))
    monkeypatch.setattr(files, "_ROOT", tmp_path)
    files.source_files.cache_clear()
    names = zipfile.ZipFile(io.BytesIO(files.source())).namelist()
    monkeypatch.setattr(files, "_installed", lambda root: [])
    files.source_files.cache_clear()
    nothing = files.source_files()
    files.source_files.cache_clear()
    assert sorted(names) == ["segclip-1.dist-info/licenses/LICENSE", "segclip/a.py"]
    assert nothing == ()


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
