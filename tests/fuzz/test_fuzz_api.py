"""Send bodies by seed to the HTTP API: it answers each within its limits, none with a server's
error.

SEGCLIP_FUZZ_EXAMPLES says how many are sent, SEGCLIP_FUZZ_SEED from which seed on.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
from time import monotonic
from typing import Any

import numpy as np
import PIL.Image
import pytest
from starlette.testclient import TestClient

from app.http import api
from app.models import Models
from app.settings import Settings
from app.state import Studio
from tests import batch_script
from tests.fakes import paint
from tests.fuzz import WEIRD

EXAMPLES = int(os.environ.get("SEGCLIP_FUZZ_EXAMPLES", "60"))
SEED = int(os.environ.get("SEGCLIP_FUZZ_SEED", "17"))
LONGEST = 60.0  # s for one answer
UNEXPECTED = (
    *WEIRD,
    1,
    -float("inf"),
    " ",
    ",",
    "file:/etc/passwd",
    "![x](http://evil.test)",
    ["a red box"] * 200,
    "rle",
    "png",
    "the left box",
    "a red box",
)
KINDS = (
    "application/json",
    "application/json; charset=utf-16",
    "text/plain",
    "multipart/form-data; boundary=a",
    "",
)


@pytest.fixture(scope="module")
def served() -> tuple[TestClient, str]:
    studio = Studio(Settings(), Models(batch_script.fake_load))
    client = TestClient(api.make_api(studio), raise_server_exceptions=False)
    painted = paint(("red", (10, 10, 50, 50)), ("blue", (60, 60, 90, 90)))
    sent = client.post("/images", files={"image": ("a.png", encoded(painted.pixels, "PNG"))})
    return client, str(sent.json()["image"])


def encoded(pixels: Any, kind: str) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def number(rng: random.Random) -> Any:
    """Return a number, mostly one that lies in the image."""
    return rng.choice(
        (rng.uniform(0, 160), rng.randrange(120), rng.randrange(160), rng.choice(UNEXPECTED))
    )


def text(rng: random.Random) -> Any:
    """Return a text, mostly one that can be looked for."""
    words = (
        "a red box",
        "blue",
        "the left box",
        "a box right of the red box",
        "the largest",
        "ß 你好 🐘",
    )
    return rng.choice(
        (*words, rng.choice(UNEXPECTED), "".join(chr(rng.randrange(1, 0x11000)) for _ in range(9)))
    )


def prompt(rng: random.Random) -> Any:
    """Ask for something, mostly something that can be asked."""
    made: dict[str, Any] = {}
    if rng.random() < 0.6:
        made["texts"] = [text(rng) for _ in range(rng.randrange(4))]
    if rng.random() < 0.2:
        made["negatives"] = [text(rng) for _ in range(rng.randrange(3))]
    if rng.random() < 0.3:
        click = {"x": number(rng), "y": number(rng), "label": rng.choice((0, 1, 1, number(rng)))}
        made["points"] = [click] * rng.randrange(3)
    if rng.random() < 0.3:
        made["boxes"] = [sorted((number(rng) for _ in range(4)), key=str)] * rng.randrange(3)
    for name in ("threshold", "top_k", "best", "everything"):
        if rng.random() < 0.2:
            made[name] = rng.choice((0.3, 1, True, rng.choice(UNEXPECTED)))
    return made if rng.random() < 0.95 else rng.choice(UNEXPECTED)


def question(rng: random.Random, image: str) -> tuple[str, Any]:
    """Choose a path and a body for it."""
    name = rng.choice((image, image, image, "0" * 32, rng.choice(UNEXPECTED)))
    path = rng.choice(("segment", "segment", "segment", "classify", "search"))
    body: dict[str, Any]
    if path == "segment":
        body = {"image": name, "prompts": [prompt(rng) for _ in range(rng.choice((1, 1, 2, 5)))]}
        body["masks"] = rng.choice(("rle", "rle", "png", "polygon", rng.choice(UNEXPECTED)))
    elif path == "classify":
        body = {
            "image": name,
            "labels": [text(rng) for _ in range(rng.randrange(5))],
            "top_k": rng.choice((1, 5, text(rng))),
        }
        body["boxes"] = [[number(rng) for _ in range(4)]] * rng.randrange(2)
    else:
        body = {
            "text": text(rng),
            "n": rng.choice((1, 9, number(rng))),
            "regions": rng.choice((None, True, text(rng))),
        }
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        body[rng.choice((*body, "strange", "\ud800"))] = rng.choice(UNEXPECTED)
    return path, body


def damaged(rng: random.Random, raw: bytes) -> bytes:
    """Change, drop or double some bytes."""
    changed = bytearray(raw)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(changed) + 1)
        changed[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
    return bytes(changed)


def image(rng: random.Random) -> bytes:
    """Draw an image of a strange size or kind, sometimes damaged."""
    size = rng.choice(((1, 1), (1, 3000), (3000, 1), (64, 64), (2, 900), (120, 160)))
    pixels = np.full((*size, 3), rng.randrange(256), np.uint8)
    pixels[rng.randrange(size[0]) :, rng.randrange(size[1]) :] = list(rng.randbytes(3))
    data = encoded(pixels, rng.choice(("PNG", "BMP", "WEBP", "TIFF")))
    return damaged(rng, data) if rng.random() < 0.5 else data


def try_body(seed: int, client: TestClient, known: str) -> None:
    """Send one body. Raises AssertionError where the answer is a server's error, no JSON, or comes
    late.
    """
    rng, start = random.Random(seed), monotonic()
    if rng.random() < 0.15:
        answer = client.post("/images", files={"image": (f"{rng.random()}.png", image(rng))})
        path, sent = "images", f"an image of seed {seed}"
        if answer.status_code == 201:
            name = answer.json()["image"]
            body = {
                "image": name,
                "prompts": [{"texts": ["a red box"]}, {"points": [{"x": 0, "y": 0}]}],
            }
            answer = client.post("/segment", json=body)
            assert answer.status_code == 200, (seed, answer.text)
            client.delete(f"/images/{name}")
    else:
        path, body = question(rng, known)
        raw = json.dumps(body).encode()
        raw = damaged(rng, raw) if rng.random() < 0.2 else raw
        kind = rng.choice(KINDS) if rng.random() < 0.1 else KINDS[0]
        answer = client.post(f"/{path}", content=raw, headers={"content-type": kind})
        sent = base64.b64encode(raw).decode()[:2000]
    assert answer.status_code < 500, (seed, path, sent, answer.text)
    assert answer.json() is not None
    assert monotonic() - start < LONGEST, (seed, path, sent)


def test_no_body_is_answered_with_a_servers_error(served: tuple[TestClient, str]) -> None:
    """Fault 17.12."""
    print(f"{EXAMPLES} bodies from seed {SEED} on")  # noqa: T201
    for seed in range(SEED, SEED + EXAMPLES):
        try_body(seed, *served)
