"""Downloads from a local server: complete, resumed or rejected; no invalid file appears."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segclip.errors import WeightsCorrupt, WeightsMissing
from segclip.weights import downloads
from segclip.weights.downloads import Download, fetch, locked
from tests.file_server import Shelf, serve

BODY = random.Random(0).randbytes(1_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
CUT = 400_000


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """Serve BODY on this machine, whatever proxy is set."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve(Shelf(BODY)) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path to download to."""
    return tmp_path / "weights.bin"


def job(
    shelf: Shelf,
    target: Path,
    path: str = "/file",
    *,
    size: int | None = len(BODY),
    sha256: str | None = SHA256,
) -> Download:
    return Download(shelf.url + path, target, size, sha256)


def cut_once(shelf: Shelf, target: Path, path: str = "/file") -> None:
    shelf.cut_after = CUT
    with pytest.raises(WeightsMissing, match=r"400,000 bytes are kept; run it again to resume"):
        fetch(job(shelf, target, path), progress=False)
    assert not target.exists()


def test_a_download_leaves_only_the_file(shelf: Shelf, target: Path) -> None:
    assert fetch(job(shelf, target), progress=False) == SHA256
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]
    assert shelf.requests == [("/file", None)]


@pytest.mark.parametrize("path", ["/file", "/moved"])
def test_an_interrupted_download_resumes(shelf: Shelf, target: Path, path: str) -> None:
    cut_once(shelf, target, path)
    assert fetch(job(shelf, target, path), progress=False) == SHA256
    assert target.read_bytes() == BODY
    assert shelf.requests[-1] == ("/file", f"bytes={CUT}-")


def test_an_interruption_is_detected_without_content_length(shelf: Shelf, target: Path) -> None:
    shelf.length = False
    cut_once(shelf, target)


def test_a_server_without_ranges_starts_over(shelf: Shelf, target: Path) -> None:
    cut_once(shelf, target)
    shelf.ranges = False
    assert fetch(job(shelf, target), progress=False) == SHA256
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changed_on_the_server_starts_over(
    shelf: Shelf, target: Path, if_range: bool
) -> None:
    cut_once(shelf, target)
    shelf.body, shelf.etag, shelf.if_range = BODY[::-1], '"two"', if_range
    fetch(job(shelf, target, sha256=None), progress=False)
    assert target.read_bytes() == BODY[::-1]


def test_a_part_longer_than_the_file_starts_over(shelf: Shelf, target: Path) -> None:
    target.with_name("weights.bin.part").write_bytes(BODY + b"x")
    assert fetch(job(shelf, target, size=None), progress=False) == SHA256
    assert [span for _, span in shelf.requests] == [f"bytes={len(BODY) + 1}-", None]


def test_a_complete_part_needs_no_server(shelf: Shelf, target: Path) -> None:
    target.with_name("weights.bin.part").write_bytes(BODY)
    assert fetch(job(shelf, target, size=None), progress=False) == SHA256
    assert target.read_bytes() == BODY
    assert shelf.requests == []


def test_a_part_with_wrong_bytes_is_discarded(shelf: Shelf, target: Path) -> None:
    target.with_name("weights.bin.part").write_bytes(b"x" * CUT)
    with pytest.raises(WeightsCorrupt):
        fetch(job(shelf, target), progress=False)
    assert fetch(job(shelf, target), progress=False) == SHA256


def test_wrong_bytes_leave_nothing(shelf: Shelf, target: Path) -> None:
    shelf.body = BODY[::-1]
    given = hashlib.sha256(shelf.body).hexdigest()
    with pytest.raises(
        WeightsCorrupt, match=rf"{shelf.url}/file has SHA-256 {given}, expected {SHA256}"
    ):
        fetch(job(shelf, target), progress=False)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("body", [BODY + b"more", BODY[:-4]], ids=["long", "short"])
def test_a_wrong_size_never_becomes_the_file(
    shelf: Shelf, target: Path, body: bytes, length: bool
) -> None:
    shelf.body, shelf.length = body, length
    with pytest.raises((WeightsCorrupt, WeightsMissing), match="1,000,00"):
        fetch(job(shelf, target), progress=False)
    assert not target.exists()


def test_404_names_the_address_and_leaves_nothing(shelf: Shelf, target: Path) -> None:
    with pytest.raises(WeightsMissing, match=rf"{shelf.url}/gone .*404.*nothing is kept"):
        fetch(job(shelf, target, "/gone"), progress=False)
    assert list(target.parent.iterdir()) == []


def test_no_server_is_weights_missing(shelf: Shelf, target: Path) -> None:
    nowhere = Download("http://127.0.0.1:9/file", target)
    with pytest.raises(WeightsMissing, match=r"could not download http://127\.0\.0\.1:9/file"):
        fetch(nowhere, progress=False)


def test_a_full_disk_is_reported_before_the_first_byte(shelf: Shelf, target: Path) -> None:
    shelf.length = False
    with pytest.raises(WeightsMissing, match=r"bytes are needed, .* are free"):
        fetch(job(shelf, target, size=10**16), progress=False)
    assert not target.exists()


def test_concurrent_downloads_fetch_once(shelf: Shelf, target: Path) -> None:
    def get(_: int) -> bytes:
        with locked(target):
            if not target.exists():
                fetch(job(shelf, target), progress=False)
        return target.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert all(body == BODY for body in pool.map(get, range(4)))
    assert len(shelf.requests) == 1


def test_ctrl_c_leaves_only_a_part_that_resumes(shelf: Shelf, target: Path) -> None:
    shelf.pause_after = CUT
    call = (
        f"from segclip.weights.downloads import *; fetch(Download({shelf.url + '/file'!r}, "
        f"Path({str(target)!r})))"
    )
    process = subprocess.Popen([sys.executable, "-c", call], stderr=subprocess.DEVNULL)
    part = target.with_name("weights.bin.part")
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) != 0
    assert sorted(path.name for path in target.parent.iterdir()) == [part.name, f"{part.name}.etag"]

    shelf.pause_after = None
    assert fetch(job(shelf, target), progress=False) == SHA256
    assert shelf.requests[-1][1] is not None


def test_progress_goes_to_stderr(
    shelf: Shelf, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch(job(shelf, target))
    out, err = capfd.readouterr()
    assert out == ""
    assert "weights.bin" in err
    assert "MB" in err


@pytest.mark.parametrize("length", ["abc", "3000000, 3000001", "-5", "1e6", "", "9" * 30, "0x10"])
def test_an_invalid_content_length_is_reported(shelf: Shelf, target: Path, length: str) -> None:
    """Fault 17.17a: it was a traceback."""
    shelf.headers = {"Content-Length": length}
    with pytest.raises(WeightsMissing, match=rf"{shelf.url}/file .*Content-Length"):
        fetch(job(shelf, target), progress=False)
    assert not target.exists()


def test_a_repeated_equal_content_length_is_accepted(shelf: Shelf, target: Path) -> None:
    """Fault 17.17a."""
    shelf.headers = {"Content-Length": f"{len(BODY)}, {len(BODY)}"}
    assert fetch(job(shelf, target), progress=False) == SHA256


@pytest.mark.parametrize(
    "location",
    [
        "http://[::1",
        "http://127.0.0.1:99999/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "http://\x7f",
        "//",
        "/moved",
        "http://" + "a" * 300 + "/",
        "data:text/plain,a",
        "http://xn--/a",
        "http://127.0.0.1:port/",
    ],
)
def test_an_invalid_redirect_is_reported(shelf: Shelf, target: Path, location: str) -> None:
    """Fault 17.17a: it was a traceback."""
    shelf.location = location
    with pytest.raises(WeightsMissing, match=f"could not download {shelf.url}/moved") as caught:
        fetch(job(shelf, target, "/moved"), progress=False)
    assert "\n" not in str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize(
    "etag", [b"\xff\xfe\x00", b"", b'"one\r\nX: y"', b'W/"one"', b'"' + b"x" * 9000 + b'"', b"\x00"]
)
def test_an_invalid_etag_file_is_ignored(shelf: Shelf, target: Path, etag: bytes) -> None:
    """Fault 17.17a: it was a traceback."""
    cut_once(shelf, target)
    target.with_name("weights.bin.part.etag").write_bytes(etag)
    assert fetch(job(shelf, target), progress=False) == SHA256


@pytest.mark.parametrize("etag", ["\xe9", 'W/"one"', "one", '"' + "x" * 5000 + '"'])
def test_an_invalid_or_weak_etag_is_not_stored(shelf: Shelf, target: Path, etag: str) -> None:
    shelf.etag = etag
    cut_once(shelf, target)
    assert not target.with_name("weights.bin.part.etag").exists()
    assert fetch(job(shelf, target), progress=False) == SHA256


@pytest.mark.parametrize("span", [
    f"bytes 0-{len(BODY) - 1}/{len(BODY)}",
    f"bytes {CUT}-{CUT + 9}/{len(BODY)}",
    f"bytes {CUT}-{len(BODY) - 1}/{len(BODY) + 5}",
    f"bytes {CUT - 1}-{len(BODY) - 1}/{len(BODY)}",
    f"bytes {CUT}-5/{len(BODY)}",
    "bytes */100", "nonsense", "", f"bytes {'9' * 40}-1/2",
])  # fmt: skip
@pytest.mark.parametrize("size", [len(BODY), None])
def test_a_resume_with_another_range_starts_over(
    shelf: Shelf, target: Path, span: str, size: int | None
) -> None:
    """Fault 17.17a: every run failed until the part was deleted by hand."""
    cut_once(shelf, target)
    shelf.headers = {"Content-Range": span}
    assert fetch(job(shelf, target, size=size), progress=False) == SHA256
    assert shelf.requests[-1] == ("/file", None)


@pytest.mark.parametrize("status", [400, 412, 416, 501])
def test_a_rejected_resume_starts_over(shelf: Shelf, target: Path, status: int) -> None:
    """Fault 17.17a."""
    cut_once(shelf, target)
    shelf.refuse = status
    assert fetch(job(shelf, target), progress=False) == SHA256


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_server_errors_keep_the_part(shelf: Shelf, target: Path, status: int) -> None:
    cut_once(shelf, target)
    shelf.refuse = status
    with pytest.raises(WeightsMissing, match="400,000 bytes are kept"):
        fetch(job(shelf, target), progress=False)
    shelf.refuse = None
    assert fetch(job(shelf, target), progress=False) == SHA256
    assert shelf.requests[-1] == ("/file", f"bytes={CUT}-")


def test_a_slow_transfer_is_aborted(
    shelf: Shelf, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.17a: a byte per second kept it running forever; the part is kept."""
    monkeypatch.setattr(downloads, "PATIENCE", 0.3)
    shelf.drip = 0.02
    with pytest.raises(WeightsMissing, match=r"only \d+ bytes arrived in .*\d+ bytes are kept"):
        fetch(job(shelf, target), progress=False)


def test_a_download_has_a_deadline(
    shelf: Shelf, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.17a."""
    monkeypatch.setattr(downloads, "DEADLINE", 0.2)
    shelf.drip = 0.02
    with pytest.raises(WeightsMissing, match="took longer than"):
        fetch(job(shelf, target), progress=False)


def test_slow_headers_are_aborted(
    shelf: Shelf, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.17a: slow servers also before the first byte of the file."""
    monkeypatch.setattr(downloads, "HEADER_TIMEOUT", 0.3)
    shelf.slow_headers, shelf.drip = True, 0.02
    begun = time.monotonic()
    with pytest.raises((WeightsMissing, WeightsCorrupt)):
        fetch(job(shelf, target), progress=False)
    assert time.monotonic() - begun < 60
    assert not target.exists()


def test_a_download_is_synced_before_it_is_renamed(
    shelf: Shelf, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.3, for weights: the file is synced, renamed, and then its folder is synced."""
    calls: list[str] = []
    replace = os.replace

    def rename(old: Path, new: Path) -> None:
        calls.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("sync"))
    monkeypatch.setattr(os, "replace", rename)
    fetch(job(shelf, target), progress=False)
    assert calls == ["sync", "rename", "sync"]
