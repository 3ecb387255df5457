"""The canvas component: image, masks and candidates; its clicks come back as events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

_HERE = Path(__file__).parent
_HTML, _CSS, _JS = ((_HERE / f"canvas.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
_mount = st.components.v2.component("segclip_studio", html=_HTML, css=_CSS, js=_JS)
KEY = "studio"


def mount(data: dict[str, Any], on_event: Callable[[], None], on_need: Callable[[], None]) -> None:
    """Show ``data``.

    on_event: called for user actions. on_need: called when the image has to be sent again.
    """
    _mount(key=KEY, data=data, on_event_change=on_event, on_need_change=on_need)


def payload(name: str) -> Any:
    """Return the data of the current "event" or "need"."""
    return (st.session_state.get(KEY) or {}).get(name)
