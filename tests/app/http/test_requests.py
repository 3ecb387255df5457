"""Answers to the HTTP API's requests, within their limits."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from starlette.testclient import TestClient

import segclip
from app.http import requests
from app.models import Models
from app.settings import Settings
from app.state import Studio
from segclip.exporters import decode_rle
from segclip.types import Image
from tests import batch_script
from tests.app.http.clients import RED, ask, client_of, send
from tests.app.zips import wait
from tests.fakes import paint

each = pytest.mark.parametrize


def test_many_prompts_in_one_request_give_the_librarys_results(
    client: TestClient, studio: Studio, opened: str, sample_image: Image
) -> None:
    texts, click, box, inside = ask(
        client,
        opened,
        {"texts": ["a red box", "a black box"]},
        {"points": [{"x": 70, "y": 30}]},
        {"boxes": [[105, 55, 155, 115]]},
        {"texts": ["a red box"], "boxes": [[105, 55, 155, 115]]},
    )
    wanted = studio.models.load("mini").segmenter(sample_image, ["a red box", "a black box"])
    assert np.array_equal(decode_rle(texts["rows"][0]["mask"]), wanted.masks.full(0))
    assert texts["rows"][0]["box"] == list(RED)
    assert texts["unanswered"] == ["a black box"]
    assert [row["box"] for row in click["rows"]] == [[60, 20, 100, 80]]
    assert [row["box"] for row in box["rows"]] == [[110, 60, 150, 110]]
    assert inside["rows"] == []


def test_everything_takes_no_texts(client: TestClient, opened: str) -> None:
    everything, some = ask(
        client, opened, {"everything": True}, {"everything": True, "boxes": [[105, 55, 155, 115]]}
    )
    assert sorted(row["box"] for row in everything["rows"]) == [
        [10, 10, 50, 50],
        [60, 20, 100, 80],
        [110, 60, 150, 110],
    ]
    assert [row["box"] for row in some["rows"]] == [[110, 60, 150, 110]]
    for other in ({"texts": ["a red box"]}, {"points": [{"x": 20, "y": 20}]}):
        body = {"image": opened, "prompts": [{"everything": True, **other}]}
        answer = client.post("/segment", json=body)
        assert answer.status_code == 422
        assert "everything takes neither texts" in answer.json()["detail"]


def test_masks_come_as_png_and_as_polygons(client: TestClient, opened: str) -> None:
    (answer,) = ask(client, opened, {"texts": ["a red box"]}, masks="png")
    mask = np.array(PIL.Image.open(io.BytesIO(base64.b64decode(answer["rows"][0]["mask"]))))
    assert mask.shape == (120, 160)
    assert int((mask > 0).sum()) == 1600
    (answer,) = ask(client, opened, {"texts": ["a red box"]}, masks="polygon")
    assert answer["rows"][0]["mask"]["coordinates"][0][0][0] == [10, 10]


def test_classify_ranks_labels(client: TestClient, opened: str) -> None:
    body = {"image": opened, "labels": ["a red box", "a black box"], "boxes": [list(RED)]}
    ((best, _),) = client.post("/classify", json=body).json()["answers"]
    assert best["label"] == "a red box"


def test_search_without_an_index_is_refused(client: TestClient) -> None:
    answer = client.post("/search", json={"text": "a red box"})
    assert answer.status_code == 422
    assert "index" in answer.json()["detail"]


def test_points_outside_and_unknown_images_are_reported(client: TestClient, opened: str) -> None:
    body = {"image": opened, "prompts": [{"points": [{"x": 160, "y": 3}]}]}
    answer = client.post("/segment", json=body)
    assert answer.status_code == 422
    assert "outside the image" in answer.json()["detail"]
    assert client.delete(f"/images/{opened}").status_code == 204
    assert client.post("/segment", json=body).status_code == 404
    assert client.delete(f"/images/{opened}").status_code == 404


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
    size: tuple[int, int], shipped: TestClient
) -> None:
    image = send(shipped, np.zeros((*size, 3)))
    for prompt in (
        {"texts": ["a black box"]},
        {"points": [{"x": 0, "y": 0}]},
        {"everything": True},
    ):
        answer = shipped.post("/segment", json={"image": image, "prompts": [prompt]})
        assert answer.status_code == 200, (prompt, answer.text)


def test_the_masks_of_one_request_are_limited(client: TestClient) -> None:
    shapes = [("red", (x, y, x + 5, y + 5)) for x in range(0, 60, 10) for y in range(0, 60, 10)]
    image = send(client, paint(*shapes).pixels)  # 36 masks
    every = {"image": image, "prompts": [{"everything": True, "threshold": 0.0}] * 28}
    answer = client.post("/segment", json=every)
    assert answer.status_code == 422
    assert "more than 1000 masks" in answer.text
    answer = client.post("/segment", json={**every, "prompts": every["prompts"][:27]})
    assert answer.status_code == 200
    assert sum(len(one["rows"]) for one in answer.json()["answers"]) == 972


def test_the_size_of_an_answer_is_limited() -> None:
    budget = requests.MaskBudget((20_000, 20_000))
    budget.expect(10)
    with pytest.raises(segclip.BadPrompt, match="more than 10 masks"):
        budget.expect(1)
    budget.enter("x" * 49_000_000)
    with pytest.raises(segclip.BadPrompt, match="more than 50 MB"):
        budget.enter({"counts": "x" * 1_000_000})


@pytest.fixture(scope="module")
def shipped() -> TestClient:
    """Return an API with the shipped models; loading them counts towards a request's time."""
    return client_of(Studio(Settings()), patience=600)


@pytest.fixture
def private(tmp_path: Path) -> Studio:
    """Return a studio whose folders have a private path."""
    place = tmp_path / "very private" / "patients"
    place.mkdir(parents=True)
    settings = Settings(photos=place, indexes=place / "indexes", runs=place / "runs")
    return Studio(settings, Models(batch_script.fake_load))


def refused(studio: Studio, **query: Any) -> None:
    """Search, and check that the answer has a reason and no path of the server."""
    answer = client_of(studio).post("/search", json={"text": "a red box", **query})
    assert answer.status_code in (422, 503), answer.text
    assert "private" not in answer.text
    assert str(studio.settings.photos.parent.parent) not in answer.text
    assert "index" in answer.text


def test_search_without_an_index_reveals_no_path(private: Studio) -> None:
    for regions in (None, True):
        refused(private, regions=regions)
    private.index_place().mkdir(parents=True)
    (private.index_place() / "current.json").write_text("{")
    refused(private)


@pytest.mark.usefixtures("fake_search")
def test_search_in_an_index_of_other_weights_reveals_no_path(
    private: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    PIL.Image.fromarray(paint(("red", RED)).pixels).save(private.settings.photos / "a.png")
    private.indexing.start(private.settings.photos, private.index_place(), "mini")
    assert wait(private.indexing) == "done", private.indexing.message
    assert len(private.index()) == 1
    monkeypatch.undo()  # the shipped encoder instead of the fake one
    refused(private)
