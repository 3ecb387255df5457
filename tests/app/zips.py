"""Zips of images, and background jobs to wait for."""

from __future__ import annotations

import io
import time
import zipfile

import PIL.Image

from app.jobs.batches import Batch
from app.jobs.indexing import Indexing
from tests.fakes import paint


def zip_of_images(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(count):
            image = io.BytesIO()
            PIL.Image.fromarray(paint(("red", (number + 1, 5, 40, 40))).pixels).save(image, "PNG")
            archive.writestr(f"p{number:02d}.png", image.getvalue())
    return file.getvalue()


def wait(job: Batch | Indexing) -> str:
    for _ in range(4000):  # 200 s: the machine may be busy
        if not job.busy:
            return job.state
        time.sleep(0.05)
    raise AssertionError(f"still {job.state} at {job.done}")
