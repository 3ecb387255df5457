"""Pipes, devices and links in place of segclip's files: no hang, no growth, no write-through."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segclip.batch import journal, ledger, state
from segclip.errors import NotWritable, Unsupported
from segclip.files import outputs, regular
from segclip.files.listing import list_images
from segclip.search import checked
from segclip.weights import reading
from tests.exports import FORMATS, photos, run, snapshot, tree

pytestmark = [
    pytest.mark.usefixtures("fake_models", "soon"),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes"),
]


@pytest.fixture
def soon() -> Iterator[None]:
    """End a test that hangs."""

    def end(*_: object) -> None:
        raise TimeoutError("the test hangs")

    former = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def elsewhere(path: Path) -> None:
    """Create a link to a regular file at a path."""
    target = path.with_name("target")
    target.write_bytes(b"{}\n")
    path.symlink_to(target)


def listener(path: Path) -> None:
    """Create a socket at a path, by a relative name, as socket paths must be short."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


STRANGE = [pipe, endless, elsewhere, listener, Path.mkdir]


@pytest.mark.parametrize("make", STRANGE)
def test_fault_17_13_only_regular_files_are_opened(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "file"
    make(path)
    with pytest.raises(regular.NotRegular):
        regular.open_file(path, links=False)
    if make is not elsewhere:
        with pytest.raises(regular.NotRegular):
            regular.read(path)
        with pytest.raises(Unsupported):
            reading.open_file(path)
        with pytest.raises(ValueError, match="it is"):
            checked.read_bytes(path)
    assert list(ledger.read_entries(path)) == []
    with pytest.raises(NotWritable, match="in the place of a file"):
        journal.Journal(path)


def test_regular_files_are_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        regular.read(path)
    path.write_bytes(b"abc")
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert regular.read(path, most=3, links=False) == regular.read(tmp_path / "link") == b"abc"
    with pytest.raises(OSError, match="more than 2 bytes"):
        regular.read(path, most=2)
    with pytest.raises(OSError, match="oo many"):
        regular.read(tmp_path / "loop")


def test_a_list_of_entries_is_read_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / state.STATE / "files.jsonl"
    path.parent.mkdir()
    path.write_text('["a", "png/a"]\n' + "[" * 200_000 + '\n["b", "png/b"]\n["c", "png/c"]\n')
    assert state.written(tmp_path) == {"png/a", "png/b", "png/c"}
    monkeypatch.setattr(ledger, "_MOST", 20)
    assert state.written(tmp_path) == {"png/a"}
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert state.written(tmp_path) == frozenset()


@pytest.mark.parametrize("make", [pipe, endless, elsewhere, listener])
@pytest.mark.parametrize("below", ["", "sub dir"])
def test_fault_17_13_records_in_an_input_do_not_block(
    tmp_path: Path, below: str, make: Callable[[Path], None]
) -> None:
    folder = photos(tmp_path / "photos")
    for name in (".segclip/files.jsonl", ".segclip-files/written/x.json"):
        place = folder / below / name
        if below and place.parent.name == ".segclip":
            continue  # its presence excludes the folder from the input
        place.parent.mkdir(parents=True)
        make(place)
    assert len(list_images(folder).images) == 5
    for source in (folder, f"{folder}/**/*.*"):
        assert run(source, tmp_path / "out", formats=("png",)).images == 5


@pytest.mark.parametrize("make", [pipe, endless, elsewhere, listener])
@pytest.mark.parametrize(
    "name",
    [
        "files.jsonl",
        "journal.sqlite",
        "journal.sqlite-journal",
        "journal.sqlite-wal",
        "all.lock",
        "x",
    ],
)
def test_fault_17_13_strange_files_in_an_output_are_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    run(folder, out)
    place = out / ".segclip" / name
    place.unlink(missing_ok=True)
    make(place)
    with pytest.raises(NotWritable, match=rf"{name} is a (link|pipe or a device), .*delete it"):
        run(folder, out)
    place.unlink()
    run(folder, out)
    run(folder, tmp_path / "clean", formats=FORMATS)
    assert tree(out) == tree(tmp_path / "clean")


def write(folder: Path) -> list[Path]:
    (folder / "one").write_text("1")
    return [folder / "one"]


@pytest.mark.parametrize("make", [pipe, endless, elsewhere, listener])
def test_fault_17_13_a_strange_record_of_a_command_is_refused(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    place = (
        tmp_path
        / outputs.STATE
        / "written"
        / f"{hashlib.sha256(b'segment a').hexdigest()[:32]}.json"
    )
    place.parent.mkdir(parents=True)
    make(place)
    with pytest.raises(NotWritable, match=r"json is a (link|pipe or a device), .*delete it"):
        outputs.renew(tmp_path, "segment a", write)
    assert not (tmp_path / "one").exists()
    assert outputs.written(tmp_path) == frozenset()
    place.unlink()
    assert outputs.renew(tmp_path, "segment a", write) == [tmp_path / "one"]


@pytest.mark.parametrize("name", [outputs.STATE, f"{outputs.STATE}/written"])
@pytest.mark.parametrize("there", [True, False])
def test_fault_17_1_records_are_not_written_through_links(
    tmp_path: Path, name: str, there: bool
) -> None:
    out, target = tmp_path / "out", tmp_path / "elsewhere"
    (out / name).parent.mkdir(parents=True)
    (out / name).symlink_to(target, target_is_directory=True)
    if there:
        target.mkdir()
    before = snapshot(tmp_path)
    with pytest.raises(NotWritable, match=f"{Path(name).name} is a link"):
        outputs.renew(out, "segment a", write)
    assert snapshot(tmp_path) == before


def test_fault_17_13_a_file_in_many_records_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs.renew(tmp_path, "a", write)
    (record,) = (tmp_path / outputs.STATE / "written").iterdir()
    for name in ("b.json", "c.json"):
        (record.parent / name).write_bytes(record.read_bytes())
    hashed: list[Path] = []
    real = regular.digest

    def count(path: Path, *, links: bool) -> str:
        hashed.append(path)
        return real(path, links=links)

    monkeypatch.setattr(regular, "digest", count)
    assert outputs.written(tmp_path) == frozenset({"one"})
    assert hashed == [tmp_path / "one"]
