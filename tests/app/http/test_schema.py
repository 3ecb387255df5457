"""The schema of the HTTP API: it describes every answer, and bad requests are refused by it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from pydantic import ValidationError
from schemathesis import Case
from starlette.testclient import TestClient

from app.http import api
from app.http.schema import MOST_PARTS, SegmentRequest
from app.models import Models
from app.settings import Settings
from app.state import Studio
from tests import batch_script
from tests.app.http.clients import RED, send
from tests.fakes import paint

each = pytest.mark.parametrize


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


def _served() -> tuple[Any, str]:
    """Return an API with fake models and one image, and the image's id."""
    served = api.make_api(Studio(Settings(), Models(batch_script.fake_load)))
    return served, send(TestClient(served), paint(("red", RED)).pixels)


served, image_id = _served()
schema = schemathesis.openapi.from_asgi("/openapi.json", served)


@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_api_conforms_to_its_schema(case: Case[Any]) -> None:
    """Skip one check, that all valid data is accepted: a schema cannot describe image bytes."""
    if isinstance(case.body, dict) and re.fullmatch("[0-9a-f]{32}", str(case.body.get("image"))):
        case.body["image"] = image_id
    case.call_and_validate(excluded_checks=[schemathesis.checks.positive_data_acceptance])


def test_the_parts_of_a_request_are_counted_and_limited() -> None:
    query = {"image": "0" * 32, "prompts": [{"texts": ["a", "b"], "boxes": [[0, 0, 1, 1]]}, {}]}
    assert SegmentRequest.model_validate(query).parts == 5
    query["prompts"] = [{"texts": ["a"] * 100}] * 3
    assert SegmentRequest.model_validate(query).parts == MOST_PARTS + 3
    query["prompts"] = [*[{"texts": ["a"] * 100}] * 3, {"negatives": ["a"]}]
    with pytest.raises(ValidationError, match="one request may have 300"):
        SegmentRequest.model_validate(query)
