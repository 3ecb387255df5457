"""The HTTP API: it answers any request soon, with its error, and keeps running."""

from __future__ import annotations

import io
import json
import random
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import anyio
import numpy as np
import PIL.Image
import pytest
from starlette.testclient import TestClient

import segclip
from app.http import api
from app.models import Models
from app.settings import Settings
from app.state import Studio
from tests import batch_script
from tests.app.browsing import ROOT, in_browser
from tests.app.http.clients import RED, ask, client_of, png, prompts, send
from tests.fakes import FakeEncoder, paint

each = pytest.mark.parametrize


def test_an_image_is_encoded_once(
    client: TestClient, studio: Studio, opened: str, upload: bytes
) -> None:
    assert client.post("/images", files={"image": ("again.png", upload)}).json()["image"] == opened
    for text in ("a red box", "a green box"):
        ask(client, opened, {"texts": [text]})
    assert studio.models.load("mini").segmenter.proposer.encoded == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 422, "empty"),
        (b"not an image at all", 422, "not a"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 422, ""),
        (bytes(25_000_000), 413, "limit of 20 MB"),
    ],
)
def test_hostile_uploads_are_refused_with_a_reason(
    client: TestClient, data: bytes, status: int, message: str
) -> None:
    answer = client.post("/images", files={"image": ("x.png", data)})
    assert answer.status_code == status
    assert message in answer.json()["detail"]


def test_a_truncated_and_a_giant_image_are_refused(client: TestClient, upload: bytes) -> None:
    assert (
        "truncated"
        in client.post("/images", files={"image": ("x.png", upload[:-60])}).json()["detail"]
    )
    file = io.BytesIO()
    PIL.Image.new("L", (9000, 9000)).save(file, "PNG")
    answer = client.post("/images", files={"image": ("bomb.png", file.getvalue())})
    assert answer.status_code == 422
    assert "over the limit" in answer.json()["detail"]


def test_concurrent_clients_get_their_own_answers(client: TestClient, opened: str) -> None:
    wanted = {
        "a red box": [RED],
        "a green box": [(60, 20, 100, 80)],
        "a blue box": [(110, 60, 150, 110)],
    }

    def one(number: int) -> bool:
        text = list(wanted)[number % 3]
        (answer,) = ask(client, opened, {"texts": [text]})
        return [tuple(row["box"]) for row in answer["rows"]] == wanted[text]

    with ThreadPoolExecutor(4) as crowd:
        assert all(crowd.map(one, range(40)))


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
def slow(studio: Studio, client: TestClient, opened: str) -> Slow:
    """Make each text embedding take a tenth of a second."""
    segmenter = studio.models.load("mini").segmenter
    encoder: Any = Slow(segmenter.encoder, 0.1)
    studio.models.load("mini").segmenter = replace(segmenter, encoder=encoder)
    return encoder


@each("name", ["\ud800", "../../etc/passwd", "a\0b", "", "x" * 300, "%00", "f" * 31])
def test_strange_image_ids_are_not_found(client: TestClient, name: str) -> None:
    quoted = name.encode("utf-8", "surrogatepass").hex("%")
    assert 400 <= client.delete(f"/images/%{quoted}").status_code < 500


def test_a_request_that_times_out_stops_its_work(
    client: TestClient, studio: Studio, slow: Slow
) -> None:
    hurried = client_of(studio, patience=0.35)
    opened = send(hurried, paint(("red", RED)).pixels)
    answer = hurried.post("/segment", json=prompts(opened, 50))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    steps = slow.steps
    assert steps < 20
    time.sleep(0.5)
    assert slow.steps == steps
    opened = send(client, paint(("red", RED)).pixels)
    assert client.post("/segment", json=prompts(opened, 1)).status_code == 200


def test_a_waiting_request_times_out(studio: Studio) -> None:
    client = client_of(studio, patience=0.3)
    opened = send(client, paint(("red", RED)).pixels)
    with studio.models.encoding("mini"):
        assert client.post("/segment", json=prompts(opened, 1)).status_code == 503
    assert len(studio.models.load("mini").encoding) == 0


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
        return {"type": "http.disconnect"}

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
    client: TestClient, opened: str, slow: Slow
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


def test_images_with_random_bytes_are_refused(client: TestClient) -> None:
    rng = random.Random(17)
    whole = png(paint(("red", RED)).pixels)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 30)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        answer = client.post(
            "/images", files={"image": ("a.png", bytes(damaged[: rng.randrange(1, len(damaged))]))}
        )
        assert answer.status_code in (201, 422), answer.text


def test_large_requests_are_refused(client: TestClient) -> None:
    assert client.post("/segment", content=b" " * 5_000_000).status_code == 413


def test_the_number_of_images_is_limited(client: TestClient) -> None:
    images = [
        send(client, paint(("red", (x, 1, 80, 80))).pixels) for x in range(api.MOST_IMAGES + 1)
    ]
    assert client.get("/health").json()["pictures"] == api.MOST_IMAGES
    assert client.delete(f"/images/{images[0]}").status_code == 404
    assert client.delete(f"/images/{images[1]}").status_code == 204


def test_images_are_limited_by_their_bytes() -> None:
    """Fault 17.12e."""
    client = client_of(Studio(Settings(kept_mb=1), Models(batch_script.fake_load)))
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


def test_unused_images_are_evicted(studio: Studio) -> None:
    now = [0.0]
    images = api.ImageStore(studio, clock=lambda: now[0])
    for shade in (0, 1):
        images.keep(png(np.full((2400, 2400, 3), shade)))  # 17 MB each
    assert not images.tidy()
    now[0] = 31.0
    assert images.tidy()
    assert len(images) == 1


def test_missing_weights_are_reported_without_their_path() -> None:
    def missing(*names: str | None) -> segclip.Segmenter:
        raise segclip.WeightsMissing("there is no file /srv/secret-project/weights/x.pt")

    client = client_of(Studio(Settings(), Models(missing)))
    query = {"image": send(client, paint().pixels), "prompts": [{"everything": True}]}
    answer = client.post("/segment", json=query)
    assert answer.status_code == 503
    assert "secret-project" not in answer.text


def test_unexpected_errors_are_reported_without_a_traceback(
    client: TestClient, studio: Studio, opened: str
) -> None:
    class Broken(FakeEncoder):
        def encode_texts(self, texts: Any) -> Any:
            raise RuntimeError("/srv/secret")

    loaded = studio.models.load("mini")
    loaded.segmenter = replace(loaded.segmenter, encoder=Broken())
    answer = client.post("/segment", json=prompts(opened, 1))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert client.get("/health").status_code == 200


@in_browser
def test_the_api_answers_beside_the_pages(address: str, mini: segclip.Segmenter) -> None:
    with urllib.request.urlopen(f"{address}/api/health") as answer:
        assert json.load(answer)["ok"] is True
    sample = (ROOT / "samples" / "desk.png").read_bytes()
    body = b"\r\n".join(
        (
            b"--cut",
            b'content-disposition: form-data; name="image"; filename="desk.png"',
            b"",
            sample,
            b"--cut--",
            b"",
        )
    )
    name = post(f"{address}/api/images", body, "multipart/form-data; boundary=cut")["image"]
    query = {"image": name, "prompts": [{"texts": ["pencil"]}]}
    result = post(f"{address}/api/segment", json.dumps(query).encode(), "application/json")
    (row,) = result["answers"][0]["rows"]
    wanted = mini(ROOT / "samples" / "desk.png", "pencil")
    assert row["mask"] == segclip.to_record(wanted)["rows"][0]["rle"]


def post(address: str, body: bytes, kind: str) -> Any:
    request = urllib.request.Request(address, body, {"content-type": kind})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)
