"""Fault 17.12: the HTTP API answers any bad request soon, with its error, and keeps running."""

from __future__ import annotations

import io
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import numpy as np
import PIL.Image
import pytest
from starlette.testclient import TestClient

import segclip
from app import kept
from app.http import api, requests
from app.models import Loaded
from app.settings import Settings
from app.state import Studio
from segclip.types import Image
from tests import batch_script
from tests.fakes import paint

each = pytest.mark.parametrize
RED = ("red", (10, 10, 50, 50))
BROKEN = {"type": "http.disconnect"}


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    return file.getvalue()


class Slow:
    """An encoder that sleeps before every text embedding, and counts them."""

    def __init__(self, encoder: Any, seconds: float) -> None:
        self._encoder, self.seconds, self.steps = encoder, seconds, 0
        self.begun = Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_texts(self, texts: Any) -> Any:
        self.steps += 1
        self.begun.set()
        time.sleep(self.seconds)
        return self._encoder.encode_texts(texts)


@pytest.fixture
def client(studio: Studio) -> TestClient:
    return TestClient(api.make_api(studio), raise_server_exceptions=False)


@pytest.fixture
def opened(client: TestClient) -> str:
    return send(client, paint(RED).pixels)


@pytest.fixture
def slow(studio: Studio, client: TestClient, opened: str) -> Slow:
    """Make each text embedding take a tenth of a second."""
    segmenter = studio.models.load("mini").segmenter
    encoder: Any = Slow(segmenter.encoder, 0.1)
    studio.models._loaded["mini"].segmenter = replace(segmenter, encoder=encoder)
    return encoder


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


STRANGE = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1e400",
    "1e308",
    "-0.0",
    "9" * 400,
    "9" * 5000,
    "1.5",
    "-1",
    "true",
    "null",
    '""',
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\u0000"',
    '"a\\ud83d"',
    "[]",
    "{}",
    "[[]]",
    "[NaN]",
    '"x"',
    "[" * 100_000,
    "[" * 500 + "]" * 500,
    '{"a":' * 500 + "1" + "}" * 500,
)
PLACES = {
    "segment": (
        '{"image": @}',
        '{"image": "ID", "prompts": @}',
        '{"image": "ID", "prompts": [@]}',
        '{"image": "ID", "prompts": [{"texts": @}]}',
        '{"image": "ID", "prompts": [{"texts": [@]}]}',
        '{"image": "ID", "prompts": [{"texts": ["a"], "negatives": [@]}]}',
        '{"image": "ID", "prompts": [{"points": [{"x": @, "y": 1}]}]}',
        '{"image": "ID", "prompts": [{"points": [{"x": 1, "y": 1, "label": @}]}]}',
        '{"image": "ID", "prompts": [{"boxes": [[@, 1, 2, 3]]}]}',
        '{"image": "ID", "prompts": [{"boxes": [@]}]}',
        '{"image": "ID", "prompts": [{"texts": ["a"], "threshold": @}]}',
        '{"image": "ID", "prompts": [{"texts": ["a"], "top_k": @}]}',
        '{"image": "ID", "prompts": [{"everything": @}]}',
        '{"image": "ID", "prompts": [{"texts": ["a"]}], "masks": @}',
        '{"image": "ID", "prompts": [{"texts": ["a"]}], "\\ud800": @}',
        "@",
    ),
    "classify": (
        '{"image": "ID", "labels": @}',
        '{"image": "ID", "labels": [@]}',
        '{"image": "ID", "labels": ["a"], "boxes": [[0, 0, @, 9]]}',
        '{"image": "ID", "labels": ["a"], "top_k": @}',
        "@",
    ),
    "search": (
        '{"text": @}',
        '{"text": "a", "negatives": [@]}',
        '{"text": "a", "n": @}',
        '{"image": @}',
        "@",
    ),
}


@each(("path", "place"), [(path, place) for path, places in PLACES.items() for place in places])
def test_invalid_numbers_and_texts_are_refused_with_a_reason(
    client: TestClient, opened: str, path: str, place: str
) -> None:
    for value in STRANGE:
        body = place.replace("ID", opened).replace("@", value)
        answer = client.post(f"/{path}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code < 500, (body[:200], answer.text)
        if answer.status_code >= 400:
            assert answer.json()["detail"]
            assert len(answer.content) < 20_000, "the input is not echoed"


@each(
    ("kind", "body"),
    [
        ("application/json", b"\xff\xfe\x00"),
        ("application/json", b""),
        ("application/json; charset=utf-99", b"{}"),
        ("text/plain", b"{}"),
        ("\xff", b"{}"),
        ("multipart/form-data", b"--a--"),
        ("multipart/form-data; boundary=", b"--a--"),
        ("multipart/form-data; boundary=a", b"--a\r\n\r\n\xff\r\n--a--"),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\ncontent-disposition: form-data; name="image"\r\n\r\nx\r\n--a--',
        ),
        (
            "multipart/form-data; boundary=a; charset=\xff",
            (
                b'--a\r\ncontent-disposition: form-data; name="\xff"; '
                b'filename="\xff"\r\n\r\nx\r\n--a--'
            ),
        ),
        ("application/x-www-form-urlencoded", b"image=%ff&image=%00"),
    ],
)
def test_invalid_bodies_are_refused(client: TestClient, kind: str, body: bytes) -> None:
    for path in ("images", "segment", "classify", "search"):
        answer = client.post(
            f"/{path}", content=body, headers={b"content-type": kind.encode("latin-1")}
        )
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()["detail"]


@each("name", ["\ud800", "../../etc/passwd", "a\0b", "", "x" * 300, "%00", "f" * 31])
def test_strange_image_ids_are_not_found(client: TestClient, name: str) -> None:
    quoted = name.encode("utf-8", "surrogatepass").hex("%")
    assert 400 <= client.delete(f"/images/%{quoted}").status_code < 500


@each("size", [(1, 100_000), (100_000, 1), (2, 4000), (1, 1), (1, 2), (3000, 1)])
def test_thin_images_are_answered(client: TestClient, size: tuple[int, int]) -> None:
    image = send(client, np.zeros((*size, 3)))
    queries = [{"texts": ["a black box"]}, {"points": [{"x": 0, "y": 0}]}, {"everything": True}]
    for masks in ("rle", "png", "polygon"):
        for prompt in queries:
            body = {"image": image, "prompts": [prompt], "masks": masks}
            assert client.post("/segment", json=body).status_code == 200
    assert client.post("/classify", json={"image": image, "labels": ["a"]}).status_code == 200


@pytest.mark.slow
@each("size", [(1, 100_000), (100_000, 1), (2, 4000), (1, 1)])
def test_thin_images_are_answered_by_the_shipped_models(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "PATIENCE", 600)  # loading them counts
    client = TestClient(api.make_api(Studio(Settings())), raise_server_exceptions=False)
    image = send(client, np.zeros((*size, 3)))
    for prompt in (
        {"texts": ["a black box"]},
        {"points": [{"x": 0, "y": 0}]},
        {"everything": True},
    ):
        answer = client.post("/segment", json={"image": image, "prompts": [prompt]})
        assert answer.status_code == 200, (prompt, answer.text)


def test_a_request_that_times_out_stops_its_work(
    client: TestClient, opened: str, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "PATIENCE", 0.35)
    answer = client.post("/segment", json=prompts(opened, 50))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    steps = slow.steps
    assert steps < 20
    time.sleep(0.5)
    assert slow.steps == steps
    monkeypatch.setattr(api, "PATIENCE", 60)
    assert client.post("/segment", json=prompts(opened, 1)).status_code == 200


def test_a_waiting_request_times_out(
    client: TestClient, studio: Studio, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "PATIENCE", 0.3)
    with studio.models.encoding("mini"):
        assert client.post("/segment", json=prompts(opened, 1)).status_code == 503
    assert (
        studio.models._loaded["mini"].encoding._places
        == type(studio.models._loaded["mini"].encoding._places)()
    )


def test_the_work_of_a_disconnected_client_is_dropped(
    studio: Studio, client: TestClient, opened: str, slow: Slow
) -> None:
    body = json.dumps(prompts(opened, 50)).encode()
    heads = [(b"content-type", b"application/json"), (b"host", b"testserver")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/segment",
        "headers": heads,
        "query_string": b"",
    }
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        for message in messages:
            return message
        while not slow.begun.is_set():
            await anyio.sleep(0.01)
        return BROKEN

    async def discard(message: Any) -> None: ...

    start = time.monotonic()
    anyio.run(
        client.app,
        scope | {"root_path": "", "scheme": "http", "server": ("t", 80)},
        receive,
        discard,
    )
    assert time.monotonic() - start < 4  # fifty prompts take five seconds
    steps = slow.steps
    assert steps < 30
    time.sleep(0.3)
    assert slow.steps == steps


def test_too_many_requests_are_refused_with_retry_after(
    client: TestClient, opened: str, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.post("/segment", json=prompts(opened, 1)).status_code == 200
    slow.seconds = 0.05
    with ThreadPoolExecutor(12) as crowd:
        large = [crowd.submit(client.post, "/segment", json=prompts(opened, 20)) for _ in range(10)]
        slow.begun.wait()
        plain = client.post("/segment", json=prompts(opened, 1))
        answers = [one.result() for one in large]
    states = [answer.status_code for answer in answers]
    assert plain.status_code == 200, "small requests overtake large ones"
    most = api.LARGE_AT_A_TIME + api.LARGE_WAITING
    assert set(states) == {200, 429}
    assert states.count(200) >= api.LARGE_AT_A_TIME
    assert states.count(429) >= len(states) - most - 2
    assert all(int(a.headers["retry-after"]) > 0 for a in answers if a.status_code == 429)


def test_prompts_and_masks_of_one_request_are_limited(
    client: TestClient, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {
        "image": opened,
        "prompts": [{"texts": [f"text {p} {n}" for n in range(7)]} for p in range(50)],
    }
    answer = client.post("/segment", json=many)
    assert answer.status_code == 422
    assert "one request may have" in answer.text
    monkeypatch.setattr(requests, "MOST_MASKS", 3)
    every = {"image": opened, "prompts": [{"everything": True}] * 4}
    answer = client.post("/segment", json=every)
    assert answer.status_code == 422
    assert "more than 3 masks" in answer.text
    assert (
        client.post("/segment", json={**every, "prompts": every["prompts"][:3]}).status_code == 200
    )
    monkeypatch.setattr(requests, "MOST_LETTERS", 100)
    answer = client.post(
        "/segment", json={"image": opened, "prompts": [{"everything": True}], "masks": "png"}
    )
    assert answer.status_code == 422
    assert client.post("/segment", content=b" " * 5_000_000).status_code == 413


def test_images_are_limited_by_their_bytes(
    studio: Studio, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.12e."""
    object.__setattr__(studio.settings, "kept_mb", 1)
    images = [
        send(client, paint(("red", (n, 1, 40, 40)), size=(300, 300)).pixels) for n in range(8)
    ]  # 0.27 MB each
    assert client.get("/health").json()["pictures"] == 3
    assert client.delete(f"/images/{images[-1]}").status_code == 204
    assert client.delete(f"/images/{images[0]}").status_code == 404
    # over the limit, but the newest image always stays
    huge = send(client, np.zeros((1200, 1200, 3)))
    assert client.post("/segment", json=prompts(huge, 1)).status_code == 200
    assert client.get("/health").json()["pictures"] == 1


def test_unused_images_are_evicted(
    client: TestClient, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: api.ImageStore = client.app.state.images  # type: ignore[attr-defined]
    assert not images.tidy()
    monkeypatch.setattr(api, "IDLE_BYTES", 1000)
    assert not images.tidy()
    now = time.monotonic()
    monkeypatch.setattr(kept, "monotonic", lambda: now + 31)
    assert images.tidy()
    assert len(images) == 0


def test_the_regions_of_an_image_count_towards_its_size(
    studio: Studio, sample_image: Image
) -> None:
    before = sum(kept.bytes_of([sample_image]).values())
    segmenter = studio.models.load("mini").segmenter
    regions = segmenter.regions(sample_image)
    assert sum(kept.bytes_of([sample_image, regions, regions]).values()) > before
    assert before == sample_image.pixels.nbytes


@pytest.fixture
def private(tmp_path: Path) -> tuple[TestClient, Path]:
    """Return an API whose folders have a private path, and that path."""
    place = tmp_path / "very private" / "patients"
    place.mkdir(parents=True)
    studio = Studio(Settings(photos=place, indexes=place / "indexes", runs=place / "runs"))
    studio.models._loaded |= {
        name: Loaded(batch_script.fake_load()) for name in ("mini", "mini-sam")
    }
    return TestClient(api.make_api(studio), raise_server_exceptions=False), place


def test_search_reveals_no_path_of_the_server(
    private: tuple[TestClient, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, place = private

    def broken(*_: object, **__: object) -> None:
        raise segclip.BadIndex(
            f"the index at {place}/indexes/ab is damaged: rm -r '{place}/indexes/ab'"
        )

    answers = [
        client.post("/search", json={"text": "a red box", "regions": regions})
        for regions in (None, True)
    ]
    monkeypatch.setattr(Studio, "index", broken)
    answers.append(client.post("/search", json={"text": "a red box"}))
    monkeypatch.setattr(Studio, "index", lambda self: None)
    monkeypatch.setattr(segclip, "find_matches", broken)
    answers.append(client.post("/search", json={"text": "a red box"}))
    for answer in answers:
        assert answer.status_code in (422, 503)
        assert "private" not in answer.text
        assert str(place.parent.parent) not in answer.text
        assert "index" in answer.text


def test_missing_weights_are_reported_without_their_path(
    client: TestClient, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise segclip.WeightsMissing("there is no file /srv/secret-project/weights/x.pt")

    monkeypatch.setattr(segclip, "load", missing)
    answer = client.post("/segment", json=prompts(opened, 1))
    assert answer.status_code in (200, 503)
    client.app.state.images._studio.models._loaded.clear()  # type: ignore[attr-defined]
    answer = client.post(
        "/segment", json={"image": send(client, paint().pixels), "prompts": [{"everything": True}]}
    )
    assert answer.status_code == 503
    assert "secret-project" not in answer.text


def test_unexpected_errors_are_reported_without_a_traceback(
    client: TestClient, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("/srv/secret")

    monkeypatch.setattr(requests, "segment", broken)
    answer = client.post("/segment", json=prompts(opened, 1))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert client.get("/health").status_code == 200


def test_images_with_random_bytes_are_refused(client: TestClient) -> None:
    rng = random.Random(17)
    whole = png(paint(RED).pixels)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 30)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        answer = client.post(
            "/images", files={"image": ("a.png", bytes(damaged[: rng.randrange(1, len(damaged))]))}
        )
        assert answer.status_code in (201, 422), answer.text
