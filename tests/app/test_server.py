"""Fault 17.12a: under ``--host`` no widget value makes the server access a path or the network."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import ClientConnection, connect

from tests.app.browsing import serving
from tests.app.watched.sitecustomize import CANARY

each = pytest.mark.parametrize
WATCHED = Path(__file__).parent / "watched"
PATIENCE = 180  # s
NAMES = ("mini-fastsam + file:{}", f"mini-fastsam + hf-hub:{CANARY}/x", "photo-large", "../../{}")
CHOICES = ("selectbox", "button_group", "multiselect", "radio", "text_input", "text_area")
DONE = {
    ForwardMsg.ScriptFinishedStatus.FINISHED_SUCCESSFULLY,
    ForwardMsg.ScriptFinishedStatus.FINISHED_FRAGMENT_RUN_SUCCESSFULLY,
    ForwardMsg.ScriptFinishedStatus.FINISHED_WITH_COMPILE_ERROR,
}


@dataclass
class Forger:
    """A client that speaks to the pages like a browser."""

    line: ClientConnection
    pages: dict[str, str] = field(default_factory=dict)  # name -> hash
    texts: list[str] = field(default_factory=list)  # of the last run's elements

    def run(self, page: str = "", *states: WidgetState) -> dict[str, str]:
        """Run a page with forged widgets; return the kinds of the page's widgets by id."""
        message = BackMsg()
        message.rerun_script.query_string = ""
        message.rerun_script.page_script_hash = self.pages.get(page, "")
        message.rerun_script.widget_states.widgets.extend(states)
        self.line.send(message.SerializeToString())
        widgets: dict[str, str] = {}
        self.texts.clear()
        while True:
            reply = ForwardMsg.FromString(self.line.recv(PATIENCE))
            kind = reply.WhichOneof("type")
            if kind == "navigation":
                self.pages = {
                    one.page_name: one.page_script_hash for one in reply.navigation.app_pages
                }
            elif kind == "delta":
                self._note(reply, widgets)
            elif kind == "script_finished" and reply.script_finished in DONE:
                return widgets

    def _note(self, reply: ForwardMsg, widgets: dict[str, str]) -> None:
        element = reply.delta.new_element
        name = element.WhichOneof("type")
        if name is None:
            return
        self.texts.append(str(element))
        if (own := getattr(getattr(element, name), "id", "")).startswith("$$"):
            widgets[own] = name


def forge(widget: str, kind: str, value: str) -> list[WidgetState]:
    """Return the messages that can set a widget to a value."""
    listed = WidgetState(id=widget)
    listed.string_array_value.data.append(value)
    made = [WidgetState(id=widget, string_value=value), listed]
    if kind not in CHOICES:
        made = [WidgetState(id=widget, trigger_value=True), WidgetState(id=widget, bool_value=True)]
    if kind == "bidi_component":
        events = (
            {"kind": value},
            {"kind": "file", "name": value, "content": value},
            {"kind": "take", "row": 10**400},
        )
        payloads = [{"event": event, "need": value} for event in events]
        made = [
            state
            for one in payloads
            for text in [json.dumps(one)]
            for state in (
                WidgetState(id=widget, json_value=text),
                WidgetState(id=widget, json_trigger_value=text),
            )
        ]
    return made


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a file that the server must not access."""
    path = tmp_path_factory.mktemp("elsewhere") / CANARY
    path.write_text("a secret")
    return path


def watched(place: Path, *options: str) -> Any:
    return serving(
        place / "log",
        "--api",
        *options,
        environment={"SEGCLIP_TEST_WATCH": str(place / "notes"), "PYTHONPATH": str(WATCHED)},
    )


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Serve everyone and record the server's accesses; yield its address and the record."""
    place = tmp_path_factory.mktemp("hosted")
    with watched(place, "--host", "0.0.0.0") as address:
        yield address, place / "notes"


def open_line(address: str) -> ClientConnection:
    parts = urlsplit(address)
    return connect(
        f"ws://{parts.netloc}/_stcore/stream",
        subprotocols=["streamlit"],  # type: ignore[list-item]
        open_timeout=PATIENCE,
        max_size=None,
    )


def notes_of(notes: Path) -> list[str]:
    return notes.read_text().splitlines() if notes.exists() else []


@pytest.mark.slow
def test_no_widget_value_accesses_a_path_or_the_network(
    hosted: tuple[str, Path], canary: Path
) -> None:
    address, notes = hosted
    with open_line(address) as line:
        person = Forger(line)
        person.run()
        kinds = set()
        for page in list(person.pages):
            widgets = person.run(page)
            kinds |= set(widgets.values())
            for widget, kind in widgets.items():
                for name in NAMES if kind in CHOICES else NAMES[:1]:
                    value = name.format(canary)
                    for state in forge(widget, kind, value):
                        person.run(page, state)
                        found = notes_of(notes)
                        assert not found, f"{page}, {kind}, {value}: {found[:3]}"
    assert {
        "selectbox",
        "button_group",
        "text_input",
        "text_area",
        "bidi_component",
        "button",
    } <= kinds
    with urllib.request.urlopen(f"{address}/api/health") as answer:
        loaded = json.load(answer)["loaded"]
    assert set(loaded) <= {"mini", "mini-sam"}


@pytest.mark.slow
def test_accesses_to_a_path_are_recorded(tmp_path: Path, canary: Path) -> None:
    """Choose a file on the local machine, where it is allowed: the test above can fail."""
    with watched(tmp_path) as address, open_line(address) as line:
        person = Forger(line)
        person.run()
        widgets = person.run("Models")
        widget = next(own for own, kind in widgets.items() if kind == "selectbox")
        person.run("Models", WidgetState(id=widget, string_value=f"mini-fastsam + file:{canary}"))
    assert notes_of(tmp_path / "notes")


def status(address: str, headers: dict[str, str], path: str) -> int:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(address + path, headers=headers)
        ) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def upgrade(address: str, headers: dict[str, str]) -> int:
    """Request a websocket and return the status; 101 accepts it."""
    line = HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE)
    request = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    request |= {
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "streamlit",
    }
    line.request("GET", "/_stcore/stream", headers=request | headers)
    answer = line.getresponse().status
    line.close()
    return answer


@pytest.mark.slow
@each(
    ("headers", "welcome"),
    [
        ({}, True),
        ({"Host": "localhost:{port}"}, True),
        ({"Host": "10.1.2.3:{port}", "Origin": "http://10.1.2.3:{port}"}, True),
        ({"Host": "evil.test"}, False),
        ({"Host": "evil.test:{port}", "Origin": "http://evil.test:{port}"}, False),  # DNS rebinding
        ({"Host": "localhost.evil.test"}, False),
        ({"Host": "127.0.0.1.evil.test"}, False),
        ({"Host": "localhost:{port}@evil.test"}, False),
        ({"Origin": "http://evil.test"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),  # another server on this machine
        ({"Origin": "null"}, False),
        ({"Origin": "file://"}, False),
    ],
)
def test_only_the_servers_own_names_are_allowed(
    hosted: tuple[str, Path], headers: dict[str, str], welcome: bool
) -> None:
    """Fault 17.12c: pages, API and websocket alike."""
    address, _ = hosted
    port = urlsplit(address).port
    sent = {name: value.format(port=port) for name, value in headers.items()}
    for path in (
        "/",
        "/api/health",
        "/api/openapi.json",
        "/_stcore/health",
        "/_stcore/host-config",
    ):
        assert (status(address, sent, path) == 200) == welcome, path
    assert (upgrade(address, sent) == 101) == welcome
