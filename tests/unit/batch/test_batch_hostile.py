"""A realistic folder: 200 photographs, and 30 files that are no images, or damaged ones."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pycocotools.coco import COCO
from typer.testing import CliRunner

from segclip import loading
from segclip.cli.main import app
from segclip.files.formats import PER_IMAGE, PER_RUN
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from segclip.types import Array, Masks, Prompt, Proposals
from tests.fakes import FakeEncoder, FakeProposer

ODD_NAMES = (
    "with a space.jpg",
    "with\na newline.jpg",
    "schön 木 🦁.jpg",
    "-rf.jpg",
    "%s{0}.jpg",
    "'quoted\".jpg",
)


def png(width: int, height: int, rows: Iterator[bytes]) -> bytes:
    """Write a grey PNG of 1 bit row by row: a few kB, however large its declared size."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for row in rows) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def encoded(kind: str, size: tuple[int, int] = (64, 48)) -> bytes:
    with io.BytesIO() as file:
        PIL.Image.effect_noise(size, 60).convert("RGB").save(file, kind)
        return file.getvalue()


def lay_traps(folder: Path, photo: bytes) -> set[str]:
    """Write 24 files that must fail; return their names."""
    jpeg, whole = encoded("jpeg"), encoded("png")
    bombs = {"bomb.png": 30_000, "small bomb.png": 12_000}
    broken = {
        "cut.jpg": photo[: len(photo) // 2],
        "header only.jpg": photo[:100],
        "one byte.jpg": photo[:1],
        "cut.png": whole[: len(whole) // 2],
        "cut.webp": encoded("webp")[:60],
        "cut.bmp": encoded("bmp")[:200],
        "cut.tif": encoded("tiff")[:100],
        "empty.jpg": b"",
        "empty.png": b"",
        "words.jpg": b"this is a text",
        "page.jpg": b"<html><body>404 not found</body></html>",
        "json.png": b'{"image": "a.jpg"}',
        "zeros.jpg": bytes(4096),
        "noise.png": bytes(range(256)) * 16,
        "archive.jpg": b"PK\x03\x04" + bytes(200),
        "signature only.png": whole[:8],
        "flat.png": whole[:16] + struct.pack(">II", 0, 0) + whole[24:],
        "jpeg head, png body.jpg": jpeg[:20] + whole,
    }
    broken |= {
        name: png(side, side, (bytes(1 + side // 8) for _ in range(side)))
        for name, side in bombs.items()
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    os.mkfifo(folder / "pipe.jpg")  # opening it would block forever
    (folder / "endless.jpg").symlink_to("/dev/zero")
    (folder / "sparse.jpg").write_bytes(b"")
    os.truncate(folder / "sparse.jpg", 1 << 40)  # larger than memory, but sparse
    return {*broken, "gone.jpg", "loop.jpg", "pipe.jpg", "endless.jpg", "sparse.jpg"}


class Halves(FakeProposer):
    """Propose the left and right half: FakeProposer would find thousands of pieces in a photo."""

    def decode(self, features: Array, prompt: Prompt) -> Proposals:
        left = np.zeros(features.shape, bool)
        left[:, : features.shape[1] // 2] = True
        return Proposals(Masks.from_dense(np.stack([left, ~left])), np.array([0.9, 0.8]))


def load_halves(*names: Any, **options: Any) -> Segmenter:
    encoder = FakeEncoder()
    return Segmenter(Halves(), encoder, CropScorer(encoder))


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_readable_images_are_exported_and_the_others_are_rows(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load", load_halves)
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    photographs = sorted((shared_data / "coco-dev" / "images").glob("*.jpg"))[:200]
    for path in photographs:
        (folder / path.name).write_bytes(path.read_bytes())
    good = photographs[0].read_bytes()
    for name in ODD_NAMES:
        (folder / name).write_bytes(good)
    # the same stem, another suffix
    (folder / f"{photographs[0].stem}.png").write_bytes(encoded("png"))
    (folder / "again").symlink_to(folder, target_is_directory=True)  # a folder inside itself
    failing = lay_traps(folder, good)
    unreadable = folder / "locked.jpg"
    unreadable.write_bytes(good)
    unreadable.chmod(0)
    if not os.access(unreadable, os.R_OK):  # root can read everything
        failing.add(unreadable.name)
    readable = 200 + len(ODD_NAMES) + 1 + (unreadable.name not in failing)
    assert len(list(folder.iterdir())) == 200 + 6 + 1 + 25 + 1 + 1

    formats = [*PER_IMAGE, *PER_RUN]
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(folder)  # the path of a socket must be short
        listener.bind("socket.jpg")
        failing.add("socket.jpg")
        outcome = CliRunner().invoke(
            app,
            [
                "export",
                str(folder),
                str(out),
                "--text",
                "a red square",
                "--format",
                ",".join(formats),
            ],
        )
    assert outcome.exit_code == 1, outcome.output
    assert "Traceback" not in outcome.output
    failures = [
        json.loads(line) for line in (out / "failures.jsonl").read_text("utf-8").splitlines()
    ]
    assert {row["image"] for row in failures} == failing
    assert all(row["reason"] and not row["traceback"] for row in failures)
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["failed"] == len(failing)
    assert summary["matched"] + summary["empty"] == readable
    assert len(COCO(out / "coco.json").imgs) == readable
