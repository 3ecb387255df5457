"""Send images and questions to the HTTP API."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image
from starlette.testclient import TestClient

from app.http import api
from app.state import Studio

RED = (10, 10, 50, 50)


def client_of(studio: Studio, *, patience: float = api.PATIENCE) -> TestClient:
    """Return a client of a studio's API, which reports errors of the server as responses."""
    return TestClient(api.make_api(studio, patience=patience), raise_server_exceptions=False)


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    return file.getvalue()


def send(client: TestClient, pixels: Any) -> str:
    answer = client.post("/images", files={"image": ("a.png", png(pixels))})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["image"])


def prompts(image: str, count: int, **more: Any) -> dict[str, Any]:
    """Return a request of ``count`` prompts with one text each."""
    return {
        "image": image,
        "prompts": [{"texts": [f"a red box {n}"], **more} for n in range(count)],
    }


def ask(
    client: TestClient, image: str, *prompts: dict[str, Any], masks: str = "rle"
) -> list[dict[str, Any]]:
    answer = client.post("/segment", json={"image": image, "prompts": prompts, "masks": masks})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["answers"])
