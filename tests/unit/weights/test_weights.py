"""Resolving names to verified paths: the manifest, trust, offline mode, and error messages."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segclip import weights
from segclip.errors import BadPrompt, Unsupported, WeightsCorrupt, WeightsMissing
from segclip.weights import cache
from segclip.weights.cache import hash_file
from tests.file_server import Shelf, serve

pytestmark = pytest.mark.usefixtures("folders")


def safetensors_file(content: bytes, size: int = 80_000) -> bytes:
    """Return a valid safetensors file of ``size`` bytes."""
    count = size - 8 - 80
    header = (
        json.dumps({"a": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}})
        .encode()
        .ljust(80)
    )
    return len(header).to_bytes(8, "little") + header + (content * count)[:count]


BODY, OTHER = safetensors_file(b"weights "), safetensors_file(b"others ")
SHA256 = hashlib.sha256(BODY).hexdigest()

PICKLE = pickle.dumps({"a": 1}, protocol=2)

OFFLINE = """
import sys
events = []
sys.addaudithook(lambda event, _: events.append(event) if event.startswith("socket.") else None)
from segclip import weights
from segclip.errors import WeightsMissing
try:
    weights.get("toy")
except WeightsMissing as error:
    print(error)
print("sockets:", events)
"""


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """Serve BODY on this machine."""
    with serve(Shelf(BODY)) as running:
        yield running


def entry(**columns: Any) -> weights.Entry:
    """Write a manifest with a single entry, "toy", and return the entry."""
    row = {"name": "toy", "kind": "encoder", "loader": "openclip", "file": "toy.safetensors"}
    row |= {"licence": "MIT"} | columns
    (weights.weights_folder() / "manifest.json").write_text(json.dumps({"entries": [row]}))
    return weights.manifest()["toy"]


def test_get_downloads_only_once(shelf: Shelf) -> None:
    row = entry(url=f"{shelf.url}/file", sha256=SHA256, bytes=len(BODY))
    assert weights.find("toy") is None
    path = weights.get("toy", progress=False)
    assert path == row.path == weights.get("toy") == weights.locate("toy") == weights.find(row)
    assert path.read_bytes() == BODY
    assert len(shelf.requests) == 1


def test_wrong_bytes_from_the_server_are_not_kept(shelf: Shelf) -> None:
    row = entry(url=f"{shelf.url}/file", sha256=hashlib.sha256(OTHER).hexdigest())
    with pytest.raises(WeightsCorrupt):
        weights.get("toy", progress=False)
    assert weights.find("toy") is None
    assert [path.name for path in row.path.parent.iterdir() if path.suffix != ".lock"] == []


def test_wrong_bytes_on_disk_are_rejected_with_a_remedy() -> None:
    row = entry(sha256=SHA256)
    row.path.parent.mkdir(parents=True)
    row.path.write_bytes(OTHER)
    with pytest.raises(
        WeightsCorrupt, match=rf"expected {SHA256} by the manifest; delete the file and run"
    ):
        weights.find("toy")
    assert not weights.table()[0].verified
    assert not weights.verify("toy").ok


def test_a_manually_placed_file_is_found_and_verified() -> None:
    row = entry(sha256=SHA256)
    row.path.parent.mkdir(parents=True)
    row.path.write_bytes(BODY)
    assert not weights.table()[0].verified
    assert weights.get("toy") == row.path
    assert weights.table()[0].verified


def test_without_a_published_hash_the_first_one_is_recorded_with_a_warning(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    row = entry(url=f"{shelf.url}/file")
    with caplog.at_level(logging.WARNING, "segclip"):
        weights.get("toy", progress=False)
        weights.get("toy", progress=False)
    assert [record.getMessage() for record in caplog.records if SHA256 in record.getMessage()] == [
        f"toy has no published SHA-256: {SHA256} is recorded and expected from now on"
    ]
    assert json.loads(row.path.with_name("toy.safetensors.json").read_text())["sha256"] == SHA256
    assert weights.verify("toy") == weights.Verification(
        "toy", row.path, SHA256, SHA256, published=False
    )


def test_without_a_published_hash_later_changes_are_rejected(shelf: Shelf) -> None:
    row = entry(url=f"{shelf.url}/file")
    weights.get("toy", progress=False)
    row.path.write_bytes(OTHER)
    with pytest.raises(WeightsCorrupt, match=f"expected {SHA256} .* delete the file and run"):
        weights.get("toy", progress=False)


def test_deleting_a_file_discards_its_record(shelf: Shelf) -> None:
    """Fault 17.12d: deleting the file and downloading it again, as advised, always failed."""
    row = entry(url=f"{shelf.url}/file")
    weights.get("toy", progress=False)
    shelf.body = OTHER
    row.path.unlink()
    assert weights.get("toy", progress=False).read_bytes() == OTHER
    assert weights.find("toy") == row.path


LOGIN = b"<!DOCTYPE html><html><form>Please log in</form></html>"


@pytest.mark.parametrize(
    "body",
    [
        LOGIN,
        b"",
        b"{}",
        BODY[:-1],
        BODY + b"x",
        BODY[:40],
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\x80\x02}.",
    ],
    ids=[
        "a login page",
        "nothing",
        "json",
        "short",
        "long",
        "half a header",
        "a pointer",
        "a pickle",
    ],
)
def test_without_a_published_hash_only_complete_weights_are_recorded(
    shelf: Shelf, body: bytes
) -> None:
    """Fault 17.12d: a login page was accepted as weights, and its hash recorded."""
    row = entry(url=f"{shelf.url}/file")
    shelf.body = body
    with pytest.raises((WeightsCorrupt, WeightsMissing, Unsupported), match=f"{shelf.url}/file"):
        weights.get("toy", progress=False)
    assert weights.find("toy") is None
    assert not row.path.exists()
    shelf.body = BODY
    assert weights.get("toy", progress=False).read_bytes() == BODY


def test_a_manually_placed_html_page_is_not_recorded() -> None:
    """Fault 17.12d."""
    row = entry()
    row.path.parent.mkdir(parents=True)
    row.path.write_bytes(LOGIN)
    for use in (weights.find, weights.get, weights.verify):
        with pytest.raises(WeightsCorrupt, match="begins with '<!DOCTYPE html>"):
            use("toy")
    assert not weights.table()[0].verified


@pytest.mark.parametrize("name", ["toy.pt", "toy.bin", "toy.pth", "toy.model", "toy"])
def test_a_pickle_without_a_published_hash_needs_trust(shelf: Shelf, name: str) -> None:
    entry(url=f"{shelf.url}/file", file=name)
    shelf.body = PICKLE
    with pytest.raises(Unsupported, match="--trust"):
        weights.get("toy", progress=False)
    assert shelf.requests == []
    assert weights.get("toy", progress=False, trust=True).read_bytes() == PICKLE


@pytest.mark.parametrize(("name", "listed", "trust", "allowed"), [
    ("mine.pt", False, False, False),
    ("mine.PTH", False, False, False),
    ("mine.pt", False, True, True),
    ("mine.pt", True, False, True),
    ("mine.safetensors", False, False, False),
    ("mine.model", False, False, False),
    ("mine", False, False, False),
    ("mine.npz", False, False, False),
])  # fmt: skip
def test_a_users_pickle(
    tmp_path: Path, name: str, listed: bool, trust: bool, allowed: bool
) -> None:
    """Fault 17.12b: the format is detected from the content, whatever the name."""
    entry(sha256=hashlib.sha256(PICKLE).hexdigest() if listed else None)
    (tmp_path / name).write_bytes(PICKLE)
    if allowed:
        assert weights.locate(f"file:{tmp_path / name}", trust=trust) == tmp_path / name
    else:
        with pytest.raises(Unsupported, match=r"SHA-256 [0-9a-f]{64} is not in the manifest"):
            weights.locate(f"file:{tmp_path / name}", trust=trust)


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pt", "mine"])
def test_a_users_safetensors_need_no_trust(tmp_path: Path, name: str) -> None:
    entry()
    (tmp_path / name).write_bytes(BODY)
    assert weights.locate(f"file:{tmp_path / name}") == tmp_path / name


def test_pipes_and_devices_are_rejected(tmp_path: Path) -> None:
    entry()
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path / "pipe.pt", Path("/dev/zero")):
        with pytest.raises(Unsupported, match=f"{path} is not a file"):
            weights.locate(f"file:{path}")
        with pytest.raises(WeightsMissing, match=f"{path} is not a file"):
            hash_file(path)


def test_a_users_folder_is_checked_by_the_file_that_is_used(tmp_path: Path) -> None:
    entry()
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "open_clip_pytorch_model.bin").write_bytes(PICKLE)
    with pytest.raises(Unsupported):
        weights.locate(f"file:{folder}")
    (folder / "open_clip_model.safetensors").write_bytes(BODY)
    assert weights.locate(f"file:{folder}") == folder


def test_file_prefix_with_a_missing_or_invalid_path() -> None:
    with pytest.raises(BadPrompt, match="needs a path"):
        weights.locate("file:")
    with pytest.raises(WeightsMissing, match="there is no file or folder /nowhere"):
        weights.locate("file:/nowhere")
    for path in ("a" * 5000, "a\0b"):
        with pytest.raises(WeightsMissing, match=r"not a valid path|no file"):
            weights.locate(f"file:{path}")


def test_offline_opens_no_socket_and_explains_the_manual_download(shelf: Shelf) -> None:
    row = entry(url=f"{shelf.url}/file", sha256=SHA256, bytes=len(BODY))
    environment = os.environ | {"SEGCLIP_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", OFFLINE], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.endswith("sockets: []\n")
    for fact in (
        "toy.safetensors",
        f"{shelf.url}/file",
        SHA256,
        "80,000 bytes",
        str(row.path),
        "SEGCLIP_OFFLINE",
    ):
        assert fact in run.stdout
    assert shelf.requests == []


def test_shipped_weights_are_verified_and_never_downloaded() -> None:
    row = entry(file="mini/toy", shipped=True, sha256=SHA256)
    with pytest.raises(WeightsMissing, match="comes with segclip; put it back at"):
        weights.get("toy")
    row.path.mkdir(parents=True)
    row.payload.write_bytes(BODY)
    assert weights.get("toy") == row.path
    assert weights.describe(row.path) == weights.Fingerprint(len(BODY), SHA256)
    row.payload.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(WeightsCorrupt):
        weights.get("toy")


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_verify_reads_every_byte_again(sha256: str | None) -> None:
    row = entry(sha256=sha256)
    row.path.parent.mkdir(parents=True)
    row.path.write_bytes(BODY)
    weights.find("toy")
    row.path.write_bytes(OTHER)
    # a record that matches the file's metadata, but not its contents
    cache.remember(row.path, SHA256)
    assert weights.find("toy") == row.path
    assert not weights.verify("toy").ok
    with pytest.raises(WeightsCorrupt):
        weights.find("toy")


def test_records_are_never_trusted_for_a_pickle() -> None:
    """Fault 17.10."""
    row = entry(sha256=hashlib.sha256(PICKLE).hexdigest(), file="toy.pt")
    row.path.parent.mkdir(parents=True)
    row.path.write_bytes(PICKLE)
    assert weights.find("toy") == weights.get("toy") == weights.locate("toy") == row.path
    other = PICKLE.replace(b"a", b"b")
    row.path.write_bytes(other)
    cache.remember(row.path, row.sha256 or "")
    for use in (weights.find, weights.get):
        with pytest.raises(WeightsCorrupt, match="delete the file and run"):
            use("toy")
    with pytest.raises(WeightsCorrupt, match="delete the file and run"):
        weights.vouch(row.path, hashlib.sha256(other).hexdigest(), trust=True)


@pytest.mark.parametrize("name", ["mini-fastsam", "mini-clip", "mini-sam"])
def test_the_shipped_weights_match_the_manifest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGCLIP_WEIGHTS")
    row = weights.manifest()[name]
    assert weights.describe(row.path) == weights.Fingerprint(row.bytes or 0, row.sha256 or "")
