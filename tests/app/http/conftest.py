from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from app.state import Studio
from tests.app.http.clients import client_of


@pytest.fixture
def client(studio: Studio) -> TestClient:
    """Return a client of an API with fake models."""
    return client_of(studio)


@pytest.fixture
def opened(client: TestClient, upload: bytes) -> str:
    """Upload the image of a red, a green and a blue box, and return its id."""
    answer = client.post("/images", files={"image": ("a.png", upload)})
    assert answer.status_code == 201
    assert answer.json()["size"] == [120, 160]
    return str(answer.json()["image"])
